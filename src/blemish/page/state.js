// What the page knows: pictures, thresholds, reviews; and what follows from them. Nothing here touches the document.

// A picture is {id, entry, review, profile, stage, file, stamp, given}: stage is "done", "waiting", "sending" or "failed";
// `stamp` says which file it is, `given` that its review went back into the profile, `canRetry` that it failed for a
// reason that passes.
const state = {
  config: {},
  pictures: [],
  profile: null, // name of the profile that is looked at; null where there are none
  profiles: new Map(),
  threshold: null, // of scores; null = each picture's own
  maskThreshold: null, // of pixels, as a fraction of map_range; null = each picture's own
  minArea: null, // null = each picture's own
  search: "",
  verdict: "",
  reviewed: "",
  current: null, // id of the picture that is shown
  isChosen: false, // whether a person chose it; until then it is the worst one
  shown: [], // pictures in the list, worst first
};

const isScored = (picture) => picture.stage === "done" && typeof picture.entry.score === "number";

// Whether the profile knows the very picture; as AMONG_GOOD of blemish.detector.
const isGood = (picture) => (picture.entry.notes ?? []).some((note) => note.startsWith("one of the profile's good pictures"));

function nameOf(picture) {
  const parts = String(picture.entry.path ?? picture.entry.name ?? "picture").split(/[\\/]/);
  return { file: parts.pop() || "picture", folder: parts.join("/") };
}

const thresholdOf = (picture) => state.threshold ?? picture.entry.threshold ?? null;

// Return "reject", "review" or "pass" at the thresholds in force, or null without one; `own` ignores the slider.
function verdictOf(picture, own = false) {
  const { score, threshold: given, review_threshold: review } = picture.entry;
  const threshold = own ? given ?? null : thresholdOf(picture);
  if (!isScored(picture) || threshold === null) return null;
  if (score >= threshold) return "reject";
  return score >= (review ?? threshold) ? "review" : "pass";
}

// Return what a person found wrong with the verdict: "false alarm", "missed" or "".
function mistakeOf(picture, own = false) {
  const verdict = verdictOf(picture, own);
  if (verdict === "reject" && picture.review === "pass") return "false alarm";
  return verdict && verdict !== "reject" && picture.review === "reject" ? "missed" : "";
}

// Return the lowest value of a map at which a pixel is anomalous, or null without a threshold.
function maskValueOf(picture) {
  const share = maskShareOf(picture);
  if (share === null || !picture.entry.map_range) return null;
  const [low, high] = picture.entry.map_range;
  return low + share * (high - low);
}

const maskShareOf = (picture) => state.maskThreshold ?? picture.entry.mask_threshold ?? null;
const minAreaOf = (picture) => state.minArea ?? picture.entry.min_area ?? 1;
const scaleOf = (picture) => picture.entry.heatmap_range ?? picture.entry.map_range ?? [0, 1];
const asShare = (value, [low, high]) => (value - low) / (high - low);

// Return the pictures of the profile that is looked at.
const inForce = () => state.pictures.filter((picture) => picture.profile === state.profile);

function refreshShown() {
  const needle = state.search.toLowerCase();
  const kept = inForce().filter((picture) => {
    if (needle && !String(picture.entry.path ?? "").toLowerCase().includes(needle)) return false;
    if (state.verdict) {
      const failed = picture.stage === "failed";
      const verdict = failed ? "error" : verdictOf(picture) ?? "none";
      if (verdict !== state.verdict) return false;
    }
    if (!state.reviewed) return true;
    if (state.reviewed === "yes") return picture.review !== null;
    if (state.reviewed === "no") return picture.review === null;
    return picture.review === state.reviewed || mistakeOf(picture) === state.reviewed;
  });
  // Pictures that could not be scored come last, in the order they came in.
  const rank = (picture) => (isScored(picture) ? picture.entry.score : -1);
  state.shown = kept.sort((a, b) => rank(b) - rank(a));
}

// Return how many pictures have which verdict, and how many of the reviewed ones are wrong. A good picture of the profile
// finds itself there, so it says nothing about mistakes.
function countAll() {
  const counts = { all: 0, failed: 0, waiting: 0, reject: 0, review: 0, pass: 0, none: 0, reviewed: 0 };
  Object.assign(counts, { reviewedRejects: 0, falseAlarms: 0, reviewedOthers: 0, missed: 0, unsure: 0, good: 0 });
  for (const picture of inForce()) {
    counts.all += 1;
    if (picture.stage === "failed") counts.failed += 1;
    else if (picture.stage !== "done") counts.waiting += 1;
    else counts[verdictOf(picture) ?? "none"] += 1;
    if (picture.review !== null) counts.reviewed += 1;
    if (picture.review === "unsure") counts.unsure += 1;
    if (isGood(picture)) counts.good += 1;
    if (isGood(picture) || picture.review === null || picture.review === "unsure" || !verdictOf(picture)) continue;
    if (verdictOf(picture) === "reject") counts.reviewedRejects += 1;
    else counts.reviewedOthers += 1;
    const mistake = mistakeOf(picture);
    if (mistake === "false alarm") counts.falseAlarms += 1;
    if (mistake === "missed") counts.missed += 1;
  }
  return counts;
}

const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

function countText() {
  const counts = countAll();
  if (!counts.all) return "No pictures yet.";
  const lines = [];
  if (counts.none === counts.all - counts.failed - counts.waiting && counts.none) {
    lines.push(`${count(counts.none, "picture")}, and no threshold: move the slider to see what one would do.`);
  } else {
    const review = counts.review ? `, ${counts.review} to review` : "";
    lines.push(`${counts.reject} rejected${review}, ${counts.pass} passed of ${count(counts.all, "picture")}.`);
  }
  if (counts.waiting) lines.push(`${count(counts.waiting, "picture")} on the way.`);
  if (counts.failed) lines.push(`${count(counts.failed, "picture")} not scored.`);
  if (counts.good) lines.push(`${count(counts.good, "picture")} in the profile: such a score proves nothing.`);
  if (counts.reviewed) {
    const unsure = counts.unsure ? ` (${counts.unsure} unsure)` : "";
    const wrong = [];
    if (counts.reviewedRejects) wrong.push(`${count(counts.falseAlarms, "false alarm")} of ${counts.reviewedRejects} rejected`);
    if (counts.reviewedOthers) wrong.push(`${counts.missed} missed of ${counts.reviewedOthers} others`);
    lines.push(`${counts.reviewed} reviewed${unsure}${wrong.length ? `: ${wrong.join(", ")}` : ""}.`);
  }
  return lines.join("\n");
}
