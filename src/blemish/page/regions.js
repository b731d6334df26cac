// Connected regions of a map, as `blemish.regions` finds them: 8-connected, outlines along pixel edges.
// Coordinates are pixels of the picture; points are pixel corners.

// Return the regions of the values >= lowest, highest peak first.
// Each is {box, polygon, area, peak, mean, centroid}; regions below minArea pixels of the picture are left out.
function findRegions(map, lowest, { minArea = 1, size = null } = {}) {
  const { width, height, values, step } = map;
  const [fullWidth, fullHeight] = size ?? [width * step, height * step];
  const limit = Math.fround(lowest); // the map is float32, and so is the comparison
  const labels = new Int32Array(width * height);
  const regions = [];
  const stack = [];
  for (let start = 0; start < labels.length; start++) {
    if (labels[start] || !(values[start] >= limit)) continue;
    const label = regions.length + 1;
    const region = { box: [width, height, 0, 0], polygon: [], area: 0, peak: -Infinity, mean: 0, centroid: [0, 0] };
    labels[start] = label;
    stack.push(start);
    while (stack.length) {
      const cell = stack.pop();
      const x = cell % width;
      const y = (cell - x) / width;
      const across = Math.min(step, fullWidth - x * step); // cells are cut at the right and lower edge
      const down = Math.min(step, fullHeight - y * step);
      const pixels = across * down;
      region.area += pixels;
      region.peak = Math.max(region.peak, values[cell]);
      region.mean += values[cell] * pixels;
      region.centroid[0] += (x * step + across / 2) * pixels;
      region.centroid[1] += (y * step + down / 2) * pixels;
      const box = region.box;
      region.box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
      for (let ny = Math.max(y - 1, 0); ny <= Math.min(y + 1, height - 1); ny++) {
        for (let nx = Math.max(x - 1, 0); nx <= Math.min(x + 1, width - 1); nx++) {
          const next = ny * width + nx;
          if (!labels[next] && values[next] >= limit) {
            labels[next] = label;
            stack.push(next);
          }
        }
      }
    }
    regions.push(region);
  }
  for (const { ring, label } of trace(labels, width, height, (label) => regions[label - 1].area >= minArea)) {
    const points = ring.map(([x, y]) => [Math.min(x * step, fullWidth), Math.min(y * step, fullHeight)]);
    regions[label - 1].polygon.push(points);
  }
  const left = (ring) => ring.reduce((least, [x]) => Math.min(least, x), Infinity);
  for (const region of regions) {
    region.mean /= region.area;
    region.centroid = region.centroid.map((sum) => sum / region.area);
    const [x0, y0, x1, y1] = region.box.map((side) => side * step);
    region.box = [x0, y0, Math.min(x1, fullWidth), Math.min(y1, fullHeight)];
    region.polygon.sort((a, b) => left(a) - left(b)); // the outline reaches further left than any hole
  }
  return regions
    .filter((region) => region.area >= minArea)
    .sort((a, b) => b.peak - a.peak || b.area - a.area || a.box[1] - b.box[1] || a.box[0] - b.box[0]);
}

// Trace the outlines of labelled cells. An edge is a corner and a heading (0 right, 1 down, 2 left, 3 up) with the
// region on its right hand; where a region touches itself at a corner, turning left keeps it connected.
function trace(labels, width, height, isKept) {
  const columns = width + 1;
  const corners = columns * (height + 1);
  const moves = [1, columns, -1, -columns];
  const edges = new Uint8Array(4 * corners); // 1: an edge, 2: one that was followed
  const owner = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
  const kept = (x, y) => {
    const label = owner(x, y);
    return label > 0 && isKept(label);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!labels[y * width + x] || !kept(x, y)) continue;
      const corner = y * columns + x;
      if (!owner(x, y - 1)) edges[corner] = 1;
      if (!owner(x + 1, y)) edges[corners + corner + 1] = 1;
      if (!owner(x, y + 1)) edges[2 * corners + corner + columns + 1] = 1;
      if (!owner(x - 1, y)) edges[3 * corners + corner + columns] = 1;
    }
  }
  const rings = [];
  for (let first = 0; first < edges.length; first++) {
    if (edges[first] !== 1) continue;
    const ring = [];
    for (let edge = first; edges[edge] === 1; ) {
      edges[edge] = 2;
      const heading = Math.floor(edge / corners);
      const end = (edge % corners) + moves[heading];
      const turn = [-1, 0, 1].find((turn) => edges[((heading + turn + 4) % 4) * corners + end] > 0);
      if (turn !== 0) ring.push([end % columns, Math.floor(end / columns)]);
      edge = ((heading + turn + 4) % 4) * corners + end;
    }
    const heading = Math.floor(first / corners);
    const x = (first % corners) % columns;
    const y = Math.floor((first % corners) / columns);
    const label = [() => owner(x, y), () => owner(x - 1, y), () => owner(x - 1, y - 1), () => owner(x, y - 1)][heading]();
    rings.push({ ring, label });
  }
  return rings;
}

// Return the COCO run lengths of a polygon on pixel edges, without drawing it: see `blemish.regions.encode_polygon`.
function encodePolygon(polygon, [width, height]) {
  const switches = new Map();
  for (const ring of polygon) {
    ring.forEach(([x0, y0], index) => {
      const [x1, y1] = ring[(index + 1) % ring.length];
      if (y0 !== y1) return;
      for (let x = Math.min(x0, x1); x < Math.max(x0, x1); x++) {
        const place = x * height + y0;
        switches.set(place, (switches.get(place) ?? 0) + 1);
      }
    });
  }
  const places = [...switches].filter(([place, times]) => times % 2 && place < width * height).map(([place]) => place);
  places.sort((a, b) => a - b);
  const counts = [];
  let before = 0;
  for (const place of [...places, width * height]) {
    counts.push(place - before);
    before = place;
  }
  return { size: [height, width], counts };
}

// Return a polygon with holes as one ring, for tools without holes: each hole is reached by a cut without width.
function oneRing(polygon) {
  let ring = [...polygon[0]];
  for (const hole of polygon.slice(1)) {
    let best = [Infinity, 0, 0];
    ring.forEach(([ax, ay], i) =>
      hole.forEach(([bx, by], j) => {
        const distance = Math.hypot(ax - bx, ay - by);
        if (distance < best[0]) best = [distance, i, j];
      })
    );
    const [, start, entry] = best;
    const around = [...hole.slice(entry), ...hole.slice(0, entry + 1)];
    ring = [...ring.slice(0, start + 1), ...around, ...ring.slice(start)];
  }
  return ring;
}
