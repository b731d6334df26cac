// The list of pictures: only the rows in view are in the document, so its length does not matter.

const ROW = 68; // as --row in the style
const SPARE = 4; // rows above and below what is in view
const rows = new Map(); // id of a picture -> its element

const drawList = onceAFrame(() => {
  const list = byId("list");
  const { shown } = state;
  byId("rows").style.height = `${shown.length * ROW}px`;
  const first = Math.max(Math.floor(list.scrollTop / ROW) - SPARE, 0);
  const last = Math.min(Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE, shown.length);
  const wanted = new Map(shown.slice(first, last).map((picture, index) => [picture.id, first + index]));
  const current = shown.findIndex((picture) => picture.id === state.current);
  if (current >= 0) wanted.set(state.current, current); // a screen reader is there
  for (const [id, element] of rows) {
    if (!wanted.has(id)) {
      element.remove();
      rows.delete(id);
    }
  }
  for (const [id, index] of wanted) {
    let element = rows.get(id);
    if (!element) {
      element = makeRow(shown[index]);
      rows.set(id, element);
      byId("rows").append(element);
    }
    fillRow(element, shown[index], index);
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
  const { file, folder } = nameOf(picture);
  const thumb = make("img", { class: "thumb", alt: "", width: 56, height: 56, decoding: "async" });
  const name = make("div", { class: "item-name", text: file, title: picture.entry.path ?? file });
  const place = make("div", { class: "item-folder", text: folder });
  const words = make("div", { class: "item-text" }, name, place, make("div", { class: "item-review" }));
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

function fillRow(element, picture, index) {
  element.style.transform = `translateY(${index * ROW}px)`;
  element.setAttribute("aria-setsize", state.shown.length);
  element.setAttribute("aria-posinset", index + 1);
  element.setAttribute("aria-selected", String(picture.id === state.current));
  const review = picture.review ? `reviewed: ${picture.review}` : "";
  const mistake = mistakeOf(picture);
  element.querySelector(".item-review").textContent = mistake ? `${review}, ${mistake}` : review;
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
    const margin = list.clientHeight > 3 * ROW ? ROW : 0;
    const top = index * ROW;
    if (top - margin < list.scrollTop) list.scrollTop = top - margin;
    else if (top + ROW + margin > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW + margin - list.clientHeight;
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
