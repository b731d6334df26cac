// The picture beside its heatmap, with outlines; both panes zoom and move together.

const MAX_ZOOM = 40;
const view = {
  picture: null,
  image: null, // HTMLImageElement of the preview
  map: null,
  heat: null, // the map in colours
  problem: "", // why there is no picture
  regions: [],
  marked: -1, // region that was chosen in the table
  zoom: 1, // 1 = the whole picture fits
  centre: [0.5, 0.5], // fractions of the picture
  opacity: 0.6,
  layout: "both",
  outlines: true,
};
const panes = () => [byId("original"), byId("heatmap")];
const drawView = onceAFrame(() => panes().forEach(drawPane));

function sizeOf(picture) {
  if (picture.entry.size) return picture.entry.size;
  return view.image ? [view.image.naturalWidth, view.image.naturalHeight] : [4, 3];
}

// Return how pixels of the picture become CSS pixels of a canvas: x * scale + left, y * scale + top.
function placeOf(canvas) {
  const [width, height] = sizeOf(view.picture);
  const scale = Math.min(canvas.clientWidth / width, canvas.clientHeight / height) * view.zoom;
  const left = canvas.clientWidth / 2 - view.centre[0] * width * scale;
  const top = canvas.clientHeight / 2 - view.centre[1] * height * scale;
  return { scale, left, top, width, height };
}

function drawPane(canvas) {
  if (!canvas.clientWidth) return;
  const { context } = prepareCanvas(canvas);
  if (!view.picture) return;
  const { scale, left, top, width, height } = placeOf(canvas);
  context.save();
  context.beginPath();
  context.rect(left, top, width * scale, height * scale);
  context.clip();
  context.imageSmoothingQuality = "high";
  if (view.image) context.drawImage(view.image, left, top, width * scale, height * scale);
  if (canvas.id === "heatmap" && view.heat) {
    const cell = view.map.step * scale;
    context.globalAlpha = view.image ? view.opacity : 1;
    context.drawImage(view.heat, left, top, view.map.width * cell, view.map.height * cell);
    context.globalAlpha = 1;
  }
  context.restore();
  if (canvas.id === "heatmap" && view.outlines) {
    view.regions.forEach((region, index) => {
      context.beginPath();
      for (const ring of region.polygon) {
        ring.forEach(([x, y], corner) => context[corner ? "lineTo" : "moveTo"](x * scale + left, y * scale + top));
        context.closePath();
      }
      // White with dark edges, so that outlines are seen on any ground.
      const isMarked = index === view.marked;
      for (const [colour, line] of [["#141414", isMarked ? 5 : 3], [isMarked ? "#ffe14d" : "#ffffff", isMarked ? 2.5 : 1.2]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.stroke();
      }
    });
  }
}

function fitView() {
  view.zoom = 1;
  view.centre = [0.5, 0.5];
  moved();
}

function moved() {
  for (const canvas of panes()) canvas.classList.toggle("zoomed", view.zoom > 1.001);
  drawView();
}

// Zoom by a factor; the point (x, y) of the canvas, in CSS pixels, stays where it is.
function zoomBy(factor, canvas = null, x = 0, y = 0) {
  if (!view.picture) return;
  const pane = canvas ?? panes().find((pane) => pane.clientWidth) ?? panes()[0];
  const before = placeOf(pane);
  const [px, py] = canvas ? [x, y] : [pane.clientWidth / 2, pane.clientHeight / 2];
  const point = [(px - before.left) / before.scale / before.width, (py - before.top) / before.scale / before.height];
  view.zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const after = placeOf(pane);
  const shift = (p, fraction, start, side) => (start + fraction * side * after.scale - p) / side / after.scale;
  panBy(shift(px, point[0], after.left, after.width), shift(py, point[1], after.top, after.height));
}

// Move by fractions of the picture; its middle stays within it.
function panBy(dx, dy) {
  const keep = (value) => Math.min(Math.max(value, 0), 1);
  view.centre = view.zoom <= 1 ? [0.5, 0.5] : [keep(view.centre[0] + dx), keep(view.centre[1] + dy)];
  moved();
}

function zoomTo(region) {
  const pane = byId("heatmap").clientWidth ? byId("heatmap") : byId("original");
  const [width, height] = sizeOf(view.picture);
  const [x0, y0, x1, y1] = region.box;
  const fit = Math.min(pane.clientWidth / width, pane.clientHeight / height);
  const wish = Math.min(pane.clientWidth / (x1 - x0), pane.clientHeight / (y1 - y0)) / 3 / fit;
  view.zoom = Math.min(Math.max(wish, 1), MAX_ZOOM);
  view.centre = view.zoom <= 1 ? [0.5, 0.5] : [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height];
  moved();
}

// Show a picture; the view stays fitted until somebody zooms.
async function showPicture(picture) {
  const isSame = picture !== null && view.picture === picture;
  Object.assign(view, { picture, problem: "", regions: [], marked: -1 });
  if (!isSame) {
    Object.assign(view, { image: null, map: null, heat: null });
    fitView();
  }
  describe();
  if (!picture || picture.stage !== "done") return;
  try {
    const item = await cache.get(picture);
    const image = item.url ? await loadImage(item.url) : null;
    if (view.picture !== picture) return; // another one was chosen meanwhile
    Object.assign(view, { image, problem: item.problem });
    view.map = await mapOf(picture);
  } catch (error) {
    if (view.picture === picture) view.problem = error.message;
  }
  if (view.picture !== picture) return;
  view.heat = view.map ? drawMap(view.map, scaleOf(picture)) : null;
  refreshRegions();
  describe();
}

async function loadImage(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

// Find the regions again, at the thresholds in force.
function refreshRegions() {
  const { picture, map } = view;
  const lowest = picture ? maskValueOf(picture) : null;
  const options = { minArea: picture ? minAreaOf(picture) : 1, size: picture?.entry.size };
  view.regions = map && lowest !== null ? findRegions(map, lowest, options) : [];
  view.marked = -1;
  drawView();
  listRegions();
}

const MAX_ROWS = 50;
function listRegions() {
  const { picture, regions, map } = view;
  const range = picture?.entry.map_range ?? [0, 1];
  byId("region-rows").replaceChildren(
    ...regions.slice(0, MAX_ROWS).map((region, index) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", text: `${index + 1}` }),
        make("td", { text: region.area.toLocaleString("en") }),
        make("td", { text: number(asShare(region.peak, range), 3), title: `value of the map: ${region.peak}` }),
        make("td", {}, make("button", {
          type: "button",
          text: `${region.box[0]}, ${region.box[1]}`,
          "aria-label": `Zoom to region ${index + 1}`,
          click: () => {
            view.marked = index;
            zoomTo(region);
          },
        }))
      )
    )
  );
  let note = "";
  if (picture && isScored(picture)) {
    if (!map) note = "This picture has no map here.";
    else if (maskShareOf(picture) === null) note = "Regions need a threshold of pixels: move its slider.";
    else if (!regions.length) note = "No region at this threshold.";
    else if (regions.length > MAX_ROWS) note = `${regions.length} regions; the table shows the ${MAX_ROWS} with the highest peaks.`;
    if (regions.length && verdictOf(picture, true) === "pass" && state.maskThreshold === null) {
      note += " The score of the whole picture passes, and yet these places look odd: look at them before you pass it.";
    }
    if (map && map.step > 1 && regions.length) {
      note += ` One value of this map is the highest of ${map.step} × ${map.step} pixels, so areas come out a little large.`;
    }
  }
  byId("region-note").textContent = note.trim();
  const words = regions.length === 1 ? "1 region" : `${regions.length} regions`;
  byId("heatmap").setAttribute("aria-label", picture ? `${nameOf(picture).file} with its heatmap, ${words}` : "No picture");
}

// Return what to do where there is no picture.
function hintWithoutPicture() {
  if (inForce().length) return "No picture fits the filters. Clear the name, and choose any verdict and any review.";
  if (state.config.mode !== "service") return "This report has no pictures.";
  return "Drop pictures or a folder anywhere on this page, or choose them with the buttons above. They are scored and appear here, each beside its heatmap.";
}

// Write name, numbers and verdict of the picture.
function describe() {
  const { picture } = view;
  const file = picture ? nameOf(picture).file : "No picture";
  byId("picture-name").textContent = file;
  byId("picture-name").title = picture?.entry.path ?? "";
  byId("original").setAttribute("aria-label", picture ? file : "No picture");
  byId("picture-facts").replaceChildren(...(picture ? factsOf(picture) : []));
  for (const button of document.querySelectorAll("[data-review]")) {
    button.setAttribute("aria-pressed", String(picture?.review === button.dataset.review));
    button.disabled = !picture || picture.stage !== "done";
  }
  const text = !picture ? hintWithoutPicture() : picture.stage === "failed" ? picture.entry.error : view.problem;
  byId("no-picture").textContent = text ?? "";
  byId("no-picture").hidden = !text;
  const [low, high] = picture ? scaleOf(picture).map((end) => asShare(end, picture.entry.map_range ?? [0, 1])) : [0, 1];
  byId("scale-low").textContent = number(low, 2);
  byId("scale-high").textContent = number(high, 2);
  drawView();
  listRegions();
}

const WORDS = { reject: "reject", review: "review", pass: "pass" };
function tagOf(picture) {
  if (picture.stage === "failed") return make("span", { class: "tag error", text: "not scored" });
  if (picture.stage !== "done") return make("span", { class: "tag waiting", text: picture.stage });
  const verdict = verdictOf(picture);
  return make("span", { class: `tag ${verdict ?? "none"}`, text: verdict ? WORDS[verdict] : "no verdict" });
}

function factsOf(picture) {
  const { score, p_value: p, size, notes } = picture.entry;
  const parts = [];
  if (isScored(picture)) {
    const threshold = thresholdOf(picture);
    parts.push(`score ${number(score)}${threshold === null ? "" : `, threshold ${number(threshold)}`}`);
    if (typeof p === "number") parts.push(`of 100 good parts, at most about ${Number((100 * p).toPrecision(2))} look as odd`);
    if (size) parts.push(`${size[0]} × ${size[1]} pixels`);
    parts.push(...(notes ?? []));
    const mistake = mistakeOf(picture);
    if (mistake) parts.push(mistake);
  }
  return [tagOf(picture), make("span", { text: parts.length ? ` · ${parts.join(" · ")}` : "" })];
}

// Mouse, wheel and fingers.
function watchPanes() {
  for (const canvas of panes()) {
    const pointers = new Map();
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * 0.0015), canvas, event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      canvas.classList.add("moving");
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last || !view.picture) return;
      const before = pointers.size === 2 ? spread() : null;
      pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      const { scale, width, height } = placeOf(canvas);
      if (before) {
        const after = spread();
        zoomBy(after.distance / Math.max(before.distance, 1), canvas, after.x, after.y);
      } else {
        panBy((last.x - event.offsetX) / scale / width, (last.y - event.offsetY) / scale / height);
      }
    });
    const end = (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) canvas.classList.remove("moving");
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("dblclick", fitView);
    new ResizeObserver(drawView).observe(canvas);
  }
}

function setLayout(layout) {
  view.layout = layout;
  byId("pane-original").hidden = layout === "heatmap";
  byId("pane-heatmap").hidden = layout === "original";
  drawView();
}

// The bar of colours beside "Heatmap".
function drawColours() {
  const canvas = byId("colours");
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const [red, green, blue] = COLOURS[Math.round((255 * x) / (canvas.width - 1))];
    context.fillStyle = `rgb(${red} ${green} ${blue})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}
