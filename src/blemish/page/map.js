// Anomaly maps: decode the 16-bit PNG (a canvas would cut it to 8 bits) and draw it in colours.

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

async function inflate(bytes) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot unpack maps; use a version of 2023 or later.");
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return {width, height, values, low, high, step} of a map: values are float32, rows from the top.
async function decodeMap(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  if (png.length < 33 || view.getUint32(0) !== 0x89504e47) throw new Error("The map is not a PNG file.");
  const texts = {};
  const parts = [];
  let width = 0;
  let height = 0;
  for (let place = 8; place + 8 <= png.length; ) {
    const length = view.getUint32(place);
    const kind = String.fromCharCode(...png.subarray(place + 4, place + 8));
    const data = png.subarray(place + 8, place + 8 + length);
    if (kind === "IHDR") {
      width = view.getUint32(place + 8);
      height = view.getUint32(place + 12);
      const [depth, colour, , , interlace] = data.subarray(8);
      if (depth !== 16 || colour !== 0 || interlace !== 0) throw new Error("The map is not a plain 16-bit grey PNG.");
    } else if (kind === "tEXt") {
      const text = String.fromCharCode(...data);
      const end = text.indexOf("\0");
      texts[text.slice(0, end)] = text.slice(end + 1);
    } else if (kind === "IDAT") {
      parts.push(data);
    }
    place += length + 12;
  }
  const [low, high, step] = ["low", "high", "step"].map((name) => Number(texts[`blemish:${name}`] ?? NaN));
  if (!(low < high) || !(step >= 1)) throw new Error("The map does not say which values it holds.");
  const packed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((place, part) => (packed.set(part, place), place + part.length), 0);
  const grey = unfilter(await inflate(packed), width, height);
  const values = new Float32Array(width * height);
  for (let i = 0; i < values.length; i++) {
    values[i] = low + (((grey[2 * i] << 8) | grey[2 * i + 1]) / 65535) * (high - low);
  }
  return { width, height, values, low, high, step };
}

// Undo the filters of PNG rows (each begins with the number of its filter); two bytes per pixel.
function unfilter(rows, width, height) {
  const stride = 2 * width;
  if (rows.length < (stride + 1) * height) throw new Error("The map is cut short.");
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const from = y * (stride + 1);
    const to = y * stride;
    const filter = rows[from];
    for (let x = 0; x < stride; x++) {
      const left = x >= 2 ? out[to + x - 2] : 0;
      const up = y > 0 ? out[to + x - stride] : 0;
      const corner = x >= 2 && y > 0 ? out[to + x - stride - 2] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, corner);
      out[to + x] = rows[from + 1 + x] + guess;
    }
  }
  return out;
}

function paeth(left, up, corner) {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  return toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner;
}

// The colours of `blemish.draw`: "Turbo", blue is low and red is high.
const COLOURS = (() => {
  const powers = [
    [0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
    [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
    [0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
  ];
  return Array.from({ length: 256 }, (_, level) =>
    powers.map((terms) => {
      const value = terms.reduceRight((sum, term) => (sum * level) / 255 + term, 0);
      return Math.round(255 * Math.min(Math.max(value, 0), 1));
    })
  );
})();

// Draw a map on the scale [low, high]; like `draw.overlay`, opacity grows with the value, from 0 at `low` to 1 at `high`.
function drawMap(map, [low, high]) {
  const canvas = document.createElement("canvas");
  canvas.width = map.width;
  canvas.height = map.height;
  const image = new ImageData(map.width, map.height);
  for (let i = 0; i < map.values.length; i++) {
    const level = Math.round(255 * Math.min(Math.max((map.values[i] - low) / (high - low), 0), 1));
    const [red, green, blue] = COLOURS[level];
    image.data.set([red, green, blue, level], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
