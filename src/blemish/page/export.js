// Verdicts as files of other tools. The files are made here; nothing is sent anywhere.

// A spreadsheet would run a text that begins like a formula.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[\s]*[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n;]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const COLUMNS = {
  picture: (row) => row.path,
  verdict: (row) => row.verdict,
  review: (row) => row.review,
  mistake: (row) => row.mistake,
  score: (row) => row.score,
  threshold: (row) => row.threshold,
  p_value: (row) => row.p_value,
  regions: (row) => row.regions?.length,
  largest_region: (row) => row.regions && Math.max(0, ...row.regions.map((region) => region.area)),
  width: (row) => row.size?.[0],
  height: (row) => row.size?.[1],
  error: (row) => row.error,
};

// Return one row per picture: entry, verdicts, and the regions at the thresholds in force (null without a map).
async function exportRows(pictures, onProgress) {
  const rows = [];
  for (const picture of pictures) {
    const { entry } = picture;
    const canHave = isScored(picture) && maskShareOf(picture) !== null;
    const map = canHave ? await mapOf(picture).catch(() => null) : null;
    rows.push({
      path: entry.path ?? "",
      size: entry.size ?? null,
      score: entry.score ?? null,
      p_value: entry.p_value ?? null,
      verdict: verdictOf(picture),
      review: picture.review,
      mistake: mistakeOf(picture) || null,
      threshold: isScored(picture) ? thresholdOf(picture) : null,
      mask_threshold: isScored(picture) ? maskShareOf(picture) : null,
      min_area: minAreaOf(picture),
      regions: map ? await regionsOf(picture) : null,
      error: entry.error ?? null,
    });
    if (rows.length % 20 === 0) {
      onProgress(rows.length);
      await new Promise((done) => setTimeout(done));
    }
  }
  return rows;
}

const EXPORTS = {
  csv(rows) {
    const lines = [Object.keys(COLUMNS), ...rows.map((row) => Object.values(COLUMNS).map((of) => of(row)))];
    const text = lines.map((cells) => cells.map(csvCell).join(",")).join("\r\n");
    return { name: "verdicts.csv", type: "text/csv;charset=utf-8", text: `\ufeff${text}\r\n` };
  },

  json(rows) {
    const facts = { title: state.config.title, profile: state.profile ?? state.config.profile?.name ?? null, made_by: "blemish" };
    return jsonFile("verdicts.json", { ...facts, pictures: rows });
  },

  // Pictures that a person passed have no annotation, whatever the map says.
  coco(rows) {
    const images = [];
    const annotations = [];
    rows.forEach(({ path, size, score, verdict, review, regions }) => {
      if (!size) return;
      const image = { id: images.length + 1, file_name: path, width: size[0], height: size[1] };
      images.push({ ...image, score, verdict, review });
      for (const region of (review !== "pass" && regions) || []) {
        const [x0, y0, x1, y1] = region.box;
        annotations.push({
          id: annotations.length + 1,
          image_id: image.id,
          category_id: 1,
          bbox: [x0, y0, x1 - x0, y1 - y0],
          area: region.area,
          segmentation: region.polygon.length === 1 ? [region.polygon[0].flat()] : encodePolygon(region.polygon, size),
          iscrowd: 0,
          score: region.peak,
        });
      }
    });
    const info = { description: "made by blemish" };
    return jsonFile("verdicts.coco.json", { info, categories: [{ id: 1, name: "anomaly" }], images, annotations });
  },

  // Tasks: what the detector found are predictions, what a person said is an annotation.
  "label-studio"(rows) {
    const tasks = rows.filter((row) => row.size).map(({ path, size, score, verdict, review, regions }) => {
      const common = { to_name: "image", original_width: size[0], original_height: size[1], image_rotation: 0 };
      const polygons = (regions ?? []).map((region, index) => ({
        id: `region${index}`,
        type: "polygonlabels",
        from_name: "label",
        ...common,
        value: {
          points: oneRing(region.polygon).map(([x, y]) => [(100 * x) / size[0], (100 * y) / size[1]]),
          closed: true,
          polygonlabels: ["anomaly"],
        },
      }));
      const choice = (word) => ({ id: "verdict", type: "choices", from_name: "verdict", ...common, value: { choices: [word] } });
      const found = verdict ? [...polygons, choice(verdict)] : polygons;
      const task = { data: { image: path }, predictions: [{ model_version: "blemish", score, result: found }] };
      if (review) task.annotations = [{ result: [...(review === "reject" ? polygons : []), choice(review)] }];
      return task;
    });
    return jsonFile("verdicts.label-studio.json", tasks);
  },
};

const jsonFile = (name, value) => ({ name, type: "application/json", text: `${JSON.stringify(value, null, 1)}\n` });

async function download(format) {
  const says = byId("export-state");
  const onlyReviewed = byId("only-reviewed").checked;
  const pictures = inForce().filter((picture) => (onlyReviewed ? picture.review !== null : picture.stage !== "waiting"));
  if (!pictures.length) {
    says.textContent = "There is nothing to export.";
    return;
  }
  says.textContent = "Reading the maps.";
  const rows = await exportRows(pictures, (done) => (says.textContent = `${done} of ${pictures.length} pictures.`));
  const { name, type, text } = EXPORTS[format](rows);
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  says.textContent = `${name}: ${count(rows.length, "picture")}.`;
}
