// Verdicts back into the profile, in three steps: choice, preview, done.

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

const feedback = { token: null, preview: null, sent: [], turn: 0 };

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
  byId("feedback-batch").checked = false;
  showChoice();
  byId("feedback").showModal();
}

// Show the buttons of a step: "choice", "preview" or "done". What had the focus may be hidden then.
function showStep(step) {
  byId("feedback-ask").hidden = step !== "choice";
  byId("feedback-back").hidden = byId("feedback-accept").hidden = step !== "preview";
  byId("feedback-again").hidden = step !== "done";
  if (step !== "choice") byId("feedback-whole").hidden = true;
  byId("feedback-title").focus();
}

// The first step: what would go back. An answer that is still on its way belongs to an earlier one.
function showChoice() {
  Object.assign(feedback, { token: null, preview: null, turn: feedback.turn + 1 });
  const { ready, left, gone } = feedbackPictures(false);
  const given = inForce().filter((picture) => picture.given && feedbackKind(picture)).length;
  const lines = Object.entries(KINDS).map(([kind, words]) =>
    make("li", { text: `${words}: ${ready.filter((picture) => feedbackKind(picture) === kind).length}` })
  );
  const parts = [
    make("p", { text: `Your verdicts on pictures of the profile ${state.profile}, compared with its own threshold:` }),
    make("ul", {}, ...lines),
  ];
  if (given) parts.push(make("p", { text: `${count(given, "picture")} already given back.` }));
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
  showStep("choice");
  byId("feedback-whole").hidden = !whole;
  allowFeedback();
}

// Enable the question if its answer could be a change.
function allowFeedback() {
  const kinds = ["false_alarm", "missed", ...(byId("feedback-batch").checked ? ["confirmed_good"] : [])];
  const { ready } = feedbackPictures();
  const changes = ready.some((picture) => kinds.includes(feedbackKind(picture)));
  let words = "There is no false alarm and nothing missed among the reviewed pictures, so nothing would change.";
  if (changes) words = "";
  else if (!ready.length && inForce().some((picture) => picture.given)) {
    words = "All that you reviewed is already given back. Review more pictures, or change a verdict, to go on.";
  } else if (!ready.length) {
    const isGone = inForce().some((picture) => isScored(picture) && feedbackKind(picture) && !picture.file);
    words = isGone ? "Your verdicts here are on pictures of an earlier visit: drop their files again." : "No picture here has your verdict: pass or reject some first.";
  }
  byId("feedback-ask").disabled = !changes;
  byId("feedback-state").textContent = words;
}

const feedbackAddress = () => `v1/profiles/${encodeURIComponent(state.profile)}/feedback`;

async function askFeedback() {
  const says = byId("feedback-state");
  const form = new FormData();
  const { turn } = feedback;
  feedback.sent = feedbackPictures().ready;
  for (const picture of feedback.sent) form.append(feedbackKind(picture), picture.file, picture.entry.path);
  byId("feedback-ask").disabled = true;
  says.textContent = "The server compares. A whole batch takes several times as long as scoring it, since the good pictures of the profile are scored again.";
  try {
    const query = byId("feedback-batch").checked ? "?whole_batch=true" : "";
    const preview = await askPatiently(feedbackAddress() + query, { method: "POST", body: form });
    if (turn !== feedback.turn) return;
    Object.assign(feedback, { token: preview.token, preview });
    showPreview(preview);
    says.textContent = "";
  } catch (error) {
    if (turn !== feedback.turn) return;
    says.textContent = error.message;
    byId("feedback-ask").disabled = false;
  }
}

// Return a share as a bound in percent, rounded up; as `percent` of blemish.calibration.
function boundOf(share) {
  if (typeof share !== "number") return "no promise";
  const value = 100 * share;
  const unit = value < 10 ? 10 ** (Math.floor(Math.log10(value)) - 1) : 0.1;
  return `${Number((Math.ceil(value / unit - 1e-6) * unit).toPrecision(10))} %`;
}

// Return sentences on what accepting means, and on known defects that would still pass.
function hintsOf(before, after) {
  const hints = [];
  const uncaught = (after.known_defects ?? 0) - (after.known_defects_caught ?? 0);
  if (uncaught > 0) {
    hints.push(`${uncaught} of ${count(after.known_defects, "known defect")} would still pass. What helps: more good pictures, or a new profile of all good pictures that promises more false alarms, so that its threshold is lower: blemish fit GOOD... --false-alarms 5%.`);
  }
  hints.push("Accepting puts the new profile in force for everybody who uses this service; the former file is kept beside it.");
  if (before.good !== after.good) {
    hints.push("Results of before stay as they are, and blemish judge cannot judge them by the new profile, since it compares with other good pictures: they have to be scored again.");
  }
  return hints;
}

function showPreview({ before, after, pictures, sentence }) {
  const cells = (values, tag = "td") => values.map((text) => make(tag, { text: text ?? "–" }));
  const limits = [
    ["Rejected from score", number(before.threshold), number(after.threshold)],
    ["Pixel is anomalous from", number(before.mask_threshold), number(after.mask_threshold)],
    ["Promise: good pictures rejected, at most", boundOf(before.false_alarms), boundOf(after.false_alarms)],
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
    ...hintsOf(before, after).map((text) => make("p", { text })),
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
  byId("feedback-accept").disabled = byId("feedback-back").disabled = false;
  showStep("preview");
}

async function acceptFeedback() {
  const says = byId("feedback-state");
  byId("feedback-accept").disabled = byId("feedback-back").disabled = true;
  let accepted;
  try {
    accepted = await askPatiently(`${feedbackAddress()}/${encodeURIComponent(feedback.token)}`, { method: "POST" });
    await loadProfiles();
  } catch (error) {
    says.textContent = error.message;
    byId("feedback-accept").disabled = byId("feedback-back").disabled = false;
    return;
  }
  for (const picture of feedback.sent) picture.given = true;
  const profile = state.profiles.get(state.profile);
  const rows = new Map(feedback.preview.pictures.map((picture) => [picture.name, picture]));
  for (const picture of inForce().filter(isScored)) {
    const { entry } = picture;
    entry.threshold = profile.threshold;
    entry.review_threshold = profile.review_threshold ?? null;
    const row = rows.get(entry.path);
    if (row) Object.assign(entry, { score: row.score_after, notes: row.notes_after, p_value: null });
    cache.store.saveReview(picture);
  }
  const sentences = [
    accepted.sentence,
    `It rejects from score ${number(profile.threshold)} now.`,
    "Pictures that were not reviewed keep their scores, and all of them their heatmaps, until they are scored again.",
  ];
  byId("feedback-body").replaceChildren(...sentences.map((text) => make("p", { text })));
  says.textContent = "";
  showStep("done");
  resetThresholds();
}

function scoreAgain() {
  byId("feedback").close();
  const pictures = inForce().filter((picture) => picture.file && picture.stage === "done");
  pictures.forEach(enqueue);
  refreshAll();
  pump();
}

function watchFeedback() {
  byId("open-feedback").addEventListener("click", openFeedback);
  byId("feedback-ask").addEventListener("click", askFeedback);
  byId("feedback-batch").addEventListener("change", allowFeedback);
  byId("feedback-back").addEventListener("click", showChoice);
  byId("feedback-accept").addEventListener("click", acceptFeedback);
  byId("feedback-again").addEventListener("click", scoreAgain);
  byId("feedback-close").addEventListener("click", () => byId("feedback").close());
  byId("open-drift").addEventListener("click", openDrift);
}
