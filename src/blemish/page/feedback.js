// Verdicts back into the profile, and the drift panel.

// How a reviewed picture goes back, by the profile's own verdict: not by where the slider is.
function feedbackKind(picture) {
  if (picture.review !== "pass" && picture.review !== "reject") return null;
  const rejected = verdictOf(picture, true) === "reject";
  if (picture.review === "pass") return rejected ? "false_alarm" : "confirmed_good";
  return rejected ? "confirmed_defect" : "missed";
}

const KINDS = {
  false_alarm: "False alarms, which join the good pictures",
  missed: "Missed, which are kept as known defects",
  confirmed_good: "Passed, and rightly so",
  confirmed_defect: "Rejected, and rightly so",
};

const feedback = { token: null, preview: null, sent: [] };

// Return the reviewed pictures that fit into one request (`ready`), those that do not (`left`), and those whose files are
// not at hand any more (`gone`). What changes the profile comes first; of a whole batch, what came in first: so the
// pictures of one request are not selected by their scores. What was given back already is left out.
function feedbackPictures(isBatch = byId("feedback-batch").checked) {
  const reviewed = inForce().filter((picture) => isScored(picture) && feedbackKind(picture) && !picture.given);
  const order = Object.keys(KINDS);
  const atHand = reviewed.filter((picture) => picture.file);
  if (!isBatch) atHand.sort((a, b) => order.indexOf(feedbackKind(a)) - order.indexOf(feedbackKind(b)));
  const { max_pictures: maxPictures = Infinity, max_bytes: maxBytes = Infinity } = state.config;
  let bytes = 0;
  const ready = atHand.filter((picture, index) => {
    bytes += picture.file.size + 500; // and the head of its part of the form
    return index < maxPictures && bytes < maxBytes;
  });
  return { ready, left: atHand.length - ready.length, gone: reviewed.filter((picture) => !picture.file) };
}

function openFeedback() {
  Object.assign(feedback, { token: null, preview: null });
  const { ready, left, gone } = feedbackPictures(false);
  const lines = Object.entries(KINDS).map(([kind, words]) =>
    make("li", { text: `${words}: ${ready.filter((picture) => feedbackKind(picture) === kind).length}` })
  );
  const parts = [
    make("p", { text: `Your verdicts on pictures of the profile ${state.profile}, compared with its own threshold:` }),
    make("ul", {}, ...lines),
  ];
  if (left) {
    parts.push(make("p", { text: `${count(left, "more reviewed picture")} will not fit into one request; you can go on with them after accepting.` }));
  }
  if (gone.length) {
    parts.push(make("p", { text: `${count(gone.length, "reviewed picture")} of an earlier visit: drop the files again to include them.` }));
  }
  parts.push(make("p", { class: "note", text: "The server first says what would change. Nothing changes before you accept." }));
  // A threshold may rest on a batch only as a whole: one picture without a verdict makes it a selection.
  const isReady = (picture) => picture.given || (picture.file && feedbackKind(picture));
  const whole = ready.length > 0 && inForce().filter(isScored).every(isReady);
  if (!whole && ready.length) {
    const missing = inForce().filter((picture) => isScored(picture) && !isReady(picture)).length;
    parts.push(make("p", { class: "note", text: `The threshold moves only with a batch that was reviewed as a whole, and ${count(missing, "picture")} of the list cannot be counted yet: ${missing === 1 ? "it has" : "they have"} no verdict, or no file at hand.` }));
  }
  byId("feedback-body").replaceChildren(...parts);
  byId("feedback-whole").hidden = !whole;
  byId("feedback-batch").checked = false;
  byId("feedback-ask").hidden = false;
  byId("feedback-accept").hidden = byId("feedback-again").hidden = true;
  allowFeedback();
  byId("feedback").showModal();
}

// Enable the question if its answer could be a change.
function allowFeedback() {
  const kinds = ["false_alarm", "missed", ...(byId("feedback-batch").checked ? ["confirmed_good"] : [])];
  const changes = feedbackPictures().ready.some((picture) => kinds.includes(feedbackKind(picture)));
  byId("feedback-ask").disabled = !changes;
  byId("feedback-state").textContent = changes ? "" : "There is no false alarm and nothing missed among the reviewed pictures, so nothing would change.";
}

const feedbackAddress = () => `v1/profiles/${encodeURIComponent(state.profile)}/feedback`;

async function askFeedback() {
  const says = byId("feedback-state");
  const form = new FormData();
  feedback.sent = feedbackPictures().ready;
  for (const picture of feedback.sent) form.append(feedbackKind(picture), picture.file, picture.entry.path);
  byId("feedback-ask").disabled = true;
  says.textContent = "The server compares. A whole batch takes several times as long as scoring it, since the good pictures of the profile are scored again.";
  try {
    const query = byId("feedback-batch").checked ? "?whole_batch=true" : "";
    const preview = await askPatiently(feedbackAddress() + query, { method: "POST", body: form });
    Object.assign(feedback, { token: preview.token, preview });
    showPreview(preview);
    says.textContent = "";
  } catch (error) {
    says.textContent = error.message;
    byId("feedback-ask").disabled = false;
  }
}

function showPreview({ before, after, guarantee, pictures, sentence }) {
  const cells = (values, tag = "td") => values.map((text) => make(tag, { text: text ?? "–" }));
  const limits = [
    ["Rejected from score", number(before.threshold), number(after.threshold)],
    ["Good pictures", before.good, after.good],
  ];
  if (typeof (before.review_threshold ?? after.review_threshold) === "number") {
    limits.splice(1, 0, ["To review from score", number(before.review_threshold), number(after.review_threshold)]);
  }
  if (typeof (after.known_defects ?? before.known_defects) === "number") {
    const caught = (limits) => `${limits.known_defects_caught ?? "–"} of ${limits.known_defects}`;
    limits.push(["Known defects caught", caught(before), caught(after)]);
  }
  const head = (...names) => make("thead", {}, make("tr", {}, ...names.map((text) => make("th", { scope: "col", text }))));
  const row = ([first, ...rest]) => make("tr", {}, make("th", { scope: "row", text: first }), ...cells(rest));
  const isChanged = (picture) => picture.verdict_before !== picture.verdict_after;
  const changed = pictures.filter(isChanged).length;
  const changedFirst = [...pictures.filter(isChanged), ...pictures.filter((picture) => !isChanged(picture))];
  const told = (verdict, score) => `${verdict ?? "no verdict"}, ${number(score)}`;
  // A picture that joins finds itself among the good ones then; what counts is its distance from the others.
  const alone = (p) => (typeof p.score_without_itself === "number" ? ` (${number(p.score_without_itself)} without itself)` : "");
  const cellsOf = (p) => [
    p.name,
    p.review.replace("_", " "),
    told(p.verdict_before, p.score_before),
    told(p.verdict_after, p.score_after) + alone(p),
  ];
  byId("feedback-body").replaceChildren(
    make("p", { text: sentence ?? "" }),
    make("table", {}, head("", "now", "then"), make("tbody", {}, ...limits.map(row))),
    make("p", { text: guarantee?.sentence ?? "" }),
    make("p", { text: `Of ${count(pictures.length, "reviewed picture")}, ${changed} would get another verdict:` }),
    make(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": "What would change" },
      make(
        "table",
        {},
        head("picture", "your verdict", "now", "then"),
        make("tbody", {}, ...changedFirst.map((p) => row(cellsOf(p))))
      )
    )
  );
  byId("feedback-ask").hidden = byId("feedback-whole").hidden = true;
  byId("feedback-accept").hidden = false;
  byId("feedback-accept").disabled = false;
}

async function acceptFeedback() {
  const says = byId("feedback-state");
  byId("feedback-accept").disabled = true;
  try {
    await askPatiently(`${feedbackAddress()}/${encodeURIComponent(feedback.token)}`, { method: "POST" });
    await loadProfiles();
  } catch (error) {
    says.textContent = error.message;
    byId("feedback-accept").disabled = false;
    return;
  }
  for (const picture of feedback.sent) picture.given = true;
  const profile = state.profiles.get(state.profile);
  const scores = new Map(feedback.preview.pictures.map((picture) => [picture.name, picture.score_after]));
  for (const picture of inForce().filter(isScored)) {
    const { entry } = picture;
    entry.threshold = profile.threshold;
    entry.review_threshold = profile.review_threshold ?? null;
    if (scores.has(entry.path)) Object.assign(entry, { score: scores.get(entry.path), p_value: null });
    cache.store.saveReview(picture);
  }
  byId("feedback-accept").hidden = true;
  byId("feedback-again").hidden = false;
  says.textContent = `The profile rejects from score ${number(profile.threshold)} now. Pictures that were not reviewed keep the scores of before until they are scored again.`;
  resetThresholds();
}

function scoreAgain() {
  byId("feedback").close();
  const pictures = inForce().filter((picture) => picture.file && picture.stage === "done");
  pictures.forEach(enqueue);
  refreshAll();
  pump();
}

async function openDrift() {
  const sentence = byId("drift-sentence");
  byId("drift-chart").replaceChildren();
  byId("drift-facts").textContent = "";
  byId("drift-level").hidden = true;
  sentence.textContent = "Asking the server.";
  if (!byId("drift").open) byId("drift").showModal();
  try {
    const drift = await askPatiently(`v1/profiles/${encodeURIComponent(state.profile)}/drift`);
    byId("drift-level").hidden = false;
    byId("drift-level").textContent = drift.level;
    byId("drift-level").className = `level ${["ok", "watch", "alarm"].includes(drift.level) ? drift.level : "unknown"}`;
    sentence.textContent = drift.sentence;
    const features = drift.features?.name ?? "features";
    const charts = [
      ["Scores", drift.scores],
      [features[0].toUpperCase() + features.slice(1), drift.features],
    ].filter(([, part]) => part?.edges?.length > 1);
    byId("drift-chart").replaceChildren(...charts.flatMap(([title, part]) => chartOf(title, part)));
    const facts = [`${drift.pictures ?? 0} recent pictures`];
    if (typeof drift.p_value === "number") facts.push(`p ${drift.p_value.toPrecision(2)}`);
    if (typeof drift.log_capital === "number") facts.push(`capital 10^${drift.log_capital.toFixed(1)}, an alarm from 10^2`);
    byId("drift-facts").textContent = `${facts.join(", ")}. ${drift.features?.meaning ?? ""}`;
  } catch (error) {
    sentence.textContent = error.message;
  }
}

// Two histograms of shares on one axis: calibration in grey, recent pictures in colour.
function chartOf(title, { edges, calibration, recent }) {
  const [width, height, base] = [600, 150, 130];
  const shares = [calibration, recent].map((counts) => {
    const sum = (counts ?? []).reduce((a, b) => a + b, 0);
    return (counts ?? []).map((value) => (sum ? value / sum : 0));
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
  const label = `${title}: shares of calibration and recent pictures from ${number(edges[0], 3)} to ${number(edges.at(-1), 3)}`;
  return [
    make("h3", { text: title }),
    make(
      "svg:svg",
      { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      make("svg:line", { x1: 0, x2: width, y1: base, y2: base }),
      ...bars,
      end(edges[0], 0, "start"),
      end(edges.at(-1), width, "end")
    ),
    make("p", { class: "legend" }, make("span", { text: "calibration" }), make("span", { class: "recent", text: "recent" })),
  ];
}

function watchFeedback() {
  byId("open-feedback").addEventListener("click", openFeedback);
  byId("feedback-ask").addEventListener("click", askFeedback);
  byId("feedback-batch").addEventListener("change", allowFeedback);
  byId("feedback-accept").addEventListener("click", acceptFeedback);
  byId("feedback-again").addEventListener("click", scoreAgain);
  byId("feedback-close").addEventListener("click", () => byId("feedback").close());
  byId("open-drift").addEventListener("click", openDrift);
}
