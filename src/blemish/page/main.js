// Everything together: start, sliders, filters, keys.

const KEYS = [
  ["p", "pass: the picture is good"],
  ["r", "reject: it has a defect"],
  ["u", "unsure"],
  ["x", "take the verdict back"],
  ["n, j", "next picture"],
  ["b, k", "back to the previous picture"],
  ["+, −, 0", "zoom in, zoom out, fit"],
  ["Shift and arrows", "move the picture"],
  ["h", "heatmap on and off"],
  ["o", "outlines on and off"],
  ["/", "search"],
  ["?", "this help"],
];
const VERDICTS = { p: "pass", r: "reject", u: "unsure", x: null };

function refreshCounts() {
  byId("counts").textContent = countText();
  drawHistogram();
}

// After pictures, filters or thresholds changed: list, counts and picture.
const refreshAll = onceAFrame(() => {
  refreshShown();
  refreshCounts();
  setRanges();
  const isShown = state.shown.some((picture) => picture.id === state.current);
  if (!isShown || (!state.isChosen && state.shown[0].id !== state.current)) {
    choose(state.shown[0]?.id ?? null);
  } else if (view.picture?.id === state.current) {
    refreshRegions();
    describe();
    drawList();
  } else {
    choose(state.current, true);
  }
});

const commonOf = (name) => inForce().find((picture) => typeof picture.entry[name] === "number")?.entry[name] ?? null;
// The threshold in force where no slider was moved: the profile's, else that of the pictures.
const givenThreshold = (name) => state.profiles.get(state.profile)?.[name] ?? commonOf(name);

// Let the sliders span what occurs, a little more on both sides.
function setRanges() {
  const scored = inForce().filter(isScored);
  const scores = scored.map((picture) => picture.entry.score);
  const shares = scored.flatMap(({ entry }) => {
    const low = entry.heatmap_range?.[0];
    return entry.map_range ? [entry.peak, low].filter((v) => typeof v === "number").map((v) => asShare(v, entry.map_range)) : [];
  });
  const sliders = [["threshold", scores, state.threshold], ["mask-threshold", shares, state.maskThreshold]];
  for (const [id, values, chosen] of sliders) {
    const given = givenThreshold(id.replace("-", "_"));
    const all = [...values, ...[given, chosen].filter((value) => value !== null)];
    const [low, high] = all.length ? [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))] : [0, 1];
    const margin = Math.max((high - low) * 0.05, 1e-4);
    const input = byId(id);
    input.min = Math.max(low - margin, 0);
    input.max = Math.min(high + margin, 1);
    const value = chosen ?? given;
    input.value = value ?? input.max;
    if (document.activeElement !== byId(`${id}-number`)) byId(`${id}-number`).value = value === null ? "" : Number(value.toFixed(5));
    const words = value === null ? "no threshold" : id === "threshold" ? `score ${number(value)}` : `${number(value, 3)} of the scale`;
    input.setAttribute("aria-valuetext", words);
  }
  if (document.activeElement !== byId("min-area")) byId("min-area").value = state.minArea ?? commonOf("min_area") ?? 1;
  const isMoved = state.threshold !== null || state.maskThreshold !== null || state.minArea !== null;
  byId("reset").disabled = !isMoved;
  byId("mask-note").textContent =
    (state.profile !== null || state.config.profile) && isMoved ? "The profile's promise holds at its own thresholds, not at these." : "";
}

// Scores as bars above the slider; those at the threshold or above have the colour of rejection.
const drawHistogram = onceAFrame(() => {
  const { context, width, height } = prepareCanvas(byId("histogram"));
  const scores = inForce().filter(isScored).map((picture) => picture.entry.score);
  const [low, high] = [Number(byId("threshold").min), Number(byId("threshold").max)];
  if (!scores.length || !(low < high)) return;
  const inset = 8; // half of the slider's handle
  const bins = Math.max(20, Math.min(80, Math.floor(width / 5)));
  const counts = new Array(bins).fill(0);
  for (const score of scores) counts[Math.min(Math.max(Math.floor(((score - low) / (high - low)) * bins), 0), bins - 1)] += 1;
  const highest = counts.reduce((a, b) => Math.max(a, b), 1);
  const threshold = state.threshold ?? givenThreshold("threshold");
  const bar = (width - 2 * inset) / bins;
  counts.forEach((number, index) => {
    const from = low + ((index + 0.5) / bins) * (high - low);
    context.fillStyle = colourOf(threshold !== null && from >= threshold ? "reject" : "soft");
    const tall = number ? Math.max((Math.sqrt(number / highest)) * (height - 4), 2) : 0;
    context.fillRect(inset + index * bar, height - tall, Math.max(bar - 1, 1), tall);
  });
  if (threshold !== null) {
    context.fillStyle = colourOf("ink");
    context.fillRect(inset + ((threshold - low) / (high - low)) * (width - 2 * inset) - 1, 0, 2, height);
  }
  const words = `Distribution of ${count(scores.length, "score")} from ${number(scores.reduce((a, b) => Math.min(a, b)), 3)} to ${number(scores.reduce((a, b) => Math.max(a, b)), 3)}`;
  byId("histogram").setAttribute("aria-label", words);
});

function resetThresholds() {
  Object.assign(state, { threshold: null, maskThreshold: null, minArea: null });
  // The numbers at once, what they rest on when it is asked for.
  const [first, rest] = state.config.mode === "service" ? promiseOf(state.profiles.get(state.profile)) : reportText();
  byId("promise").textContent = first;
  byId("promise-rest").textContent = rest;
  byId("promise-box").classList.toggle("plain", !rest);
  refreshAll();
}

function reportText() {
  const { profile } = state.config;
  const threshold = givenThreshold("threshold");
  if (!profile) return [threshold === null ? "No threshold was given." : `Rejected from score ${number(threshold)}.`, ""];
  const [first, rest] = promiseOf({ ...profile, threshold: profile.threshold ?? threshold });
  return [first, `${rest} Profile: ${[profile.name, profile.object_name].filter(Boolean).join(", ")}.`.trim()];
}

function watchControls() {
  for (const [id, name] of [["threshold", "threshold"], ["mask-threshold", "maskThreshold"]]) {
    byId(id).addEventListener("input", () => {
      state[name] = Number(byId(id).value);
      refreshAll();
    });
    byId(`${id}-number`).addEventListener("change", () => {
      const value = Number(byId(`${id}-number`).value);
      const isGiven = byId(`${id}-number`).value !== "" && value >= 0 && value <= 1;
      state[name] = isGiven ? value : null;
      refreshAll();
    });
  }
  byId("min-area").addEventListener("change", () => {
    const value = Math.floor(Number(byId("min-area").value));
    state.minArea = value >= 1 ? value : null;
    refreshAll();
  });
  byId("reset").addEventListener("click", resetThresholds);
  for (const [id, name] of [["search", "search"], ["filter-verdict", "verdict"], ["filter-review", "reviewed"]]) {
    byId(id).addEventListener("input", () => {
      state[name] = byId(id).value;
      byId("list").scrollTop = 0;
      refreshAll();
    });
  }
  byId("list").addEventListener("scroll", drawList, { passive: true });
  new ResizeObserver(drawList).observe(byId("list"));
  byId("list").addEventListener("keydown", (event) => {
    const page = Math.max(Math.floor(byId("list").clientHeight / rowHeight()) - 1, 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const { length } = state.shown;
    step(Math.min(Math.max(moves[event.key], -length), length));
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  for (const button of document.querySelectorAll("[data-review]")) {
    button.addEventListener("click", () => review(button.dataset.review, false));
  }
  byId("zoom-in").addEventListener("click", () => zoomBy(1.5));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  byId("zoom-fit").addEventListener("click", fitView);
  byId("layout").addEventListener("change", () => setLayout(byId("layout").value));
  byId("opacity").addEventListener("input", () => {
    view.opacity = byId("opacity").value / 100;
    drawView();
  });
  byId("outlines").addEventListener("change", () => {
    view.outlines = byId("outlines").checked;
    drawView();
  });
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  byId("open-export").addEventListener("click", openExport);
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => download(button.dataset.export));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawHistogram);
}

function openExport() {
  byId("export-note").textContent = "The files are made here, with the thresholds as the sliders are; nothing is sent.";
  byId("export-state").textContent = "";
  byId("export").showModal();
}

function watchKeys() {
  byId("key-rows").replaceChildren(
    ...KEYS.map(([keys, words]) => {
      const names = keys.split(", ").flatMap((key, index) => [index ? " " : "", make("kbd", { text: key })]);
      return make("tr", {}, make("td", {}, ...names), make("td", { text: words }));
    })
  );
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.shiftKey && event.key.startsWith("Arrow") && !event.target.matches("input")) {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      panBy((0.15 * dx) / view.zoom, (0.15 * dy) / view.zoom);
      event.preventDefault();
      return;
    }
    if (event.key === "?") byId("help").showModal();
    if (!byId("keys-on").checked) return;
    const acts = {
      n: () => step(1),
      j: () => step(1),
      b: () => step(-1),
      k: () => step(-1),
      "+": () => zoomBy(1.5),
      "=": () => zoomBy(1.5),
      "-": () => zoomBy(1 / 1.5),
      0: fitView,
      h: toggleHeatmap,
      o: () => byId("outlines").click(),
      "/": () => byId("search").focus(),
    };
    const key = event.key.toLowerCase();
    if (key in VERDICTS) review(VERDICTS[key], VERDICTS[key] !== null);
    else if (key in acts) acts[key]();
    else return;
    event.preventDefault();
  });
}

function toggleHeatmap() {
  const input = byId("opacity");
  input.value = Number(input.value) > 0 ? 0 : 60;
  input.dispatchEvent(new Event("input"));
  announce(Number(input.value) ? "The heatmap is on." : "The heatmap is off.");
}

async function start() {
  state.config = JSON.parse(byId("blemish-config").textContent);
  byId("title").textContent = state.config.title;
  drawColours();
  if (matchMedia("(max-width: 40rem)").matches) byId("layout").value = "heatmap"; // one pane fills a phone
  setLayout(byId("layout").value);
  watchPanes();
  watchControls();
  watchKeys();
  if (state.config.mode === "service") {
    await startService();
    byId("help-mode").textContent = `Results and verdicts are kept in ${cache.store.where()}.`;
  } else {
    const entries = JSON.parse(byId("blemish-entries").textContent);
    cache.store = reportStore(state.config.id);
    state.pictures = entries.map((entry, id) => {
      const picture = { id: String(id), entry, profile: null, stage: entry.error ? "failed" : "done" };
      return { ...picture, review: cache.store.reviewOf(entry.path) };
    });
    byId("help-mode").textContent = `This file needs no network. Your verdicts are kept in ${cache.store.where()}.`;
    window.addEventListener("beforeunload", (event) => {
      if (!cache.store.isKept() && state.pictures.some((picture) => picture.review)) event.preventDefault();
    });
  }
  resetThresholds();
  window.blemish = { state, view, cache, decodeMap, findRegions, bytesOf, encodePolygon, oneRing, csvCell, verdictOf };
  document.documentElement.dataset.ready = "yes";
}

start();
