// The drift panel: a level, a sentence, what to do, and a chart for each of the two numbers with what it says.

const LEVEL_WORDS = { ok: "ok", watch: "watch", alarm: "alarm", unknown: "not known yet" };

function levelOf(level) {
  const known = level in LEVEL_WORDS ? level : "unknown";
  return { class: `level ${known}`, text: LEVEL_WORDS[known] };
}

async function openDrift() {
  byId("drift-chart").replaceChildren();
  byId("drift-advice").textContent = "";
  byId("drift-level").hidden = true;
  byId("drift-sentence").textContent = "Asking the server.";
  if (!byId("drift").open) byId("drift").showModal();
  try {
    const drift = await askPatiently(`v1/profiles/${encodeURIComponent(state.profile)}/drift`);
    const { class: name, text } = levelOf(drift.level);
    Object.assign(byId("drift-level"), { hidden: false, className: name, textContent: text });
    byId("drift-sentence").textContent = drift.sentence;
    byId("drift-advice").textContent = `What to do: ${drift.advice}`;
    byId("drift-chart").replaceChildren(...[drift.scores, drift.features].filter((part) => part?.edges?.length > 1).map(chartOf));
  } catch (error) {
    byId("drift-sentence").textContent = error.message;
  }
}

// Two histograms of shares on one axis, good pictures in grey and recent ones in colour, with the words that belong to them.
function chartOf({ name, meaning, sentence, level, edges, calibration, recent }) {
  const [width, height, base] = [600, 130, 112];
  const shares = [calibration, recent].map((counts) => {
    const sum = counts.reduce((a, b) => a + b, 0);
    return counts.map((value) => (sum ? value / sum : 0));
  });
  const highest = Math.max(...shares.flat(), 1e-9);
  const bin = width / (edges.length - 1);
  const bars = shares.flatMap((values, series) =>
    values.map((share, index) =>
      make("svg:rect", {
        class: series ? "recent" : "calibration",
        x: index * bin + (series ? bin / 2 : 1),
        width: Math.max(bin / 2 - 1, 1),
        y: base - (share / highest) * (base - 8),
        height: (share / highest) * (base - 8),
      })
    )
  );
  const end = (value, x, anchor) => make("svg:text", { x, y: height - 5, "text-anchor": anchor, text: number(value, 3) });
  const title = `${name[0].toUpperCase()}${name.slice(1)}`;
  const label = `${title}: shares of good and of recent pictures from ${number(edges[0], 3)} to ${number(edges.at(-1), 3)}`;
  return make(
    "section",
    { class: "drift-part", "aria-label": title },
    make("h3", { text: `${title} ` }, make("span", levelOf(level))),
    make("p", { class: "note", text: meaning }),
    make("p", { text: sentence || "There are too few pictures to compare." }),
    make(
      "svg:svg",
      { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      make("svg:line", { x1: 0, x2: width, y1: base, y2: base }),
      ...bars,
      end(edges[0], 0, "start"),
      end(edges.at(-1), width, "end")
    ),
    make("p", { class: "legend" }, make("span", { text: "good pictures of the profile" }), make("span", { class: "recent", text: "recent pictures" }))
  );
}
