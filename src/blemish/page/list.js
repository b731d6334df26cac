// The list of pictures: only the rows in view are in the document, so its length does not matter.

const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
const SPARE = 4; // rows above and below what is in view
const rows = new Map(); // id of a picture -> its element

const drawList = onceAFrame(() => {
  const list = byId("list");
  const { shown } = state;
  const height = rowHeight();
  byId("rows").style.height = `${shown.length * height}px`;
  const first = Math.max(Math.floor(list.scrollTop / height) - SPARE, 0);
  const last = Math.min(Math.ceil((list.scrollTop + list.clientHeight) / height) + SPARE, shown.length);
  const wanted = new Map(shown.slice(first, last).map((picture, index) => [picture.id, first + index]));
  const current = shown.findIndex((picture) => picture.id === state.current);
  if (current >= 0) wanted.set(state.current, current); // a screen reader is there
  for (const [id, element] of rows) {
    if (!wanted.has(id)) {
      element.remove();
      rows.delete(id);
    }
  }
  // In the order of the screen, which is that of a screen reader, too.
  let place = byId("rows").firstElementChild;
  for (const [id, index] of [...wanted].sort((a, b) => a[1] - b[1])) {
    let element = rows.get(id);
    if (!element) {
      element = makeRow(shown[index]);
      rows.set(id, element);
    }
    if (element === place) place = place.nextElementSibling;
    else byId("rows").insertBefore(element, place);
    fillRow(element, shown[index], index, height);
  }
  if (current >= 0) list.setAttribute("aria-activedescendant", `item-${state.current}`);
  else list.removeAttribute("aria-activedescendant");
  const all = inForce().length;
  byId("list-note").textContent = !all
    ? ""
    : shown.length === all
      ? `${count(all, "picture")}, the highest score first.`
      : `${shown.length} of ${count(all, "picture")} fit the filters.`;
});

function makeRow(picture) {
  const { file } = nameOf(picture);
  const thumb = make("img", { class: "thumb", alt: "", width: 48, height: 48, decoding: "async" });
  const name = make("div", { class: "item-name", text: file, title: picture.entry.path ?? file });
  const words = make("div", { class: "item-text" }, name, make("div", { class: "item-about" }));
  const element = make(
    "div",
    { class: "item", role: "option", id: `item-${picture.id}`, click: () => choose(picture.id, true, true) },
    thumb,
    words,
    make("div", { class: "item-score" })
  );
  if (picture.stage === "done") {
    cache.get(picture).then(({ url }) => url && (thumb.src = url), () => {});
  }
  return element;
}

function fillRow(element, picture, index, height) {
  element.style.transform = `translateY(${index * height}px)`;
  element.setAttribute("aria-setsize", state.shown.length);
  element.setAttribute("aria-posinset", index + 1);
  element.setAttribute("aria-selected", String(picture.id === state.current));
  const mistake = mistakeOf(picture);
  const review = picture.review ? `you: ${picture.review}${mistake ? ` (${mistake})` : ""}` : "";
  const about = [review, isGood(picture) ? "in the profile" : "", nameOf(picture).folder].filter(Boolean).join(" · ");
  element.querySelector(".item-about").textContent = about;
  element.querySelector(".item-about").title = about;
  const score = isScored(picture) ? number(picture.entry.score, 3) : "";
  element.querySelector(".item-score").replaceChildren(make("div", { text: score }), tagOf(picture));
}

// Forget the elements of pictures that changed, so that they are made anew.
function redrawRow(id) {
  rows.get(id)?.remove();
  rows.delete(id);
  drawList();
}

// Show a picture of the list; `byPerson` if a person chose it.
function choose(id, isClick = false, byPerson = false) {
  state.current = id;
  state.isChosen ||= byPerson;
  const index = state.shown.findIndex((picture) => picture.id === id);
  const list = byId("list");
  if (index >= 0 && !isClick) {
    // The row is in view, and so is its neighbour.
    const height = rowHeight();
    const margin = list.clientHeight > 3 * height ? height : 0;
    const top = index * height;
    if (top - margin < list.scrollTop) list.scrollTop = top - margin;
    else if (top + height + margin > list.scrollTop + list.clientHeight) list.scrollTop = top + height + margin - list.clientHeight;
  }
  drawList();
  return showPicture(state.shown[index] ?? null);
}

// Choose the picture so many rows further down; the ends stop.
function step(rowsDown) {
  const { shown } = state;
  if (!shown.length) return;
  const index = shown.findIndex((picture) => picture.id === state.current);
  const next = Math.min(Math.max((index < 0 && rowsDown > 0 ? -1 : index) + rowsDown, 0), shown.length - 1);
  if (next === index) announce(rowsDown > 0 ? "This is the last picture." : "This is the first picture.");
  choose(shown[next].id, false, true);
}

// Note what a person thinks of the picture, and go on to the next one.
function review(verdict, goOn) {
  const picture = state.shown.find((picture) => picture.id === state.current);
  if (!picture || picture.stage !== "done") return;
  const index = state.shown.indexOf(picture);
  state.isChosen = true;
  const before = picture.review;
  picture.review = picture.review === verdict && !goOn ? null : verdict;
  if (picture.review !== before) picture.given = false;
  cache.store.saveReview(picture);
  announce(`${nameOf(picture).file}: ${picture.review ?? "verdict taken back"}.`);
  refreshShown();
  refreshCounts();
  if (goOn && index >= 0) {
    const stays = state.shown[index] === picture;
    const next = state.shown[Math.min(index + (stays ? 1 : 0), state.shown.length - 1)];
    if (next && next !== picture) {
      choose(next.id);
      return;
    }
  }
  describe();
  drawList();
}
