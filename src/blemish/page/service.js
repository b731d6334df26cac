// The service: profiles, pictures sent one request each, and what is said when something goes wrong.

const PICTURE_NAME = /\.(jpe?g|jfif|png|bmp|gif|webp|tiff?|jp2|pgm|ppm|pnm|avif|heic|heif|dcm)$/i;
const TRIES = 6; // of a request that the server turns away because it is busy
const LONGEST_WAIT = 20; // seconds
const RETURNED = "return=map,preview&map_side=512";

const service = { key: "", queue: [], running: 0, paused: false, sent: 0, planned: 0 };

// An answer other than success: `status` is 0 if there was no answer at all.
class ServiceError extends Error {
  constructor(status, message, wait = 0, code = "") {
    super(message);
    Object.assign(this, { status, wait, code });
  }
}

// Ask the server and return its JSON. Addresses are relative, so that the page works below a prefix.
async function ask(address, options = {}) {
  const headers = { ...options.headers };
  if (service.key) headers.Authorization = `Bearer ${service.key}`;
  let answer;
  try {
    answer = await fetch(address, { ...options, headers, credentials: "same-origin" });
  } catch {
    throw new ServiceError(0, "The server does not answer. It may have stopped, or the network is gone.");
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body) return body;
  const message = body?.error?.message ?? body?.detail?.[0]?.msg ?? `The server answered ${answer.status}.`;
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new ServiceError(answer.status, String(message), wait, body?.error?.code);
}

// Like `ask`; a 401 asks for the key, and a server that is busy is asked again a little later.
async function askPatiently(address, options = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(address, options);
    } catch (error) {
      if (error.status === 401) {
        if (!(await askForKey(error.message))) throw error;
      } else if ((error.status === 429 || error.status === 503) && error.code !== "timeout" && attempt < TRIES) {
        // What took too long once takes too long again.
        announce("The server is busy; the page waits and tries again.");
        const seconds = Math.min(error.wait || 2 ** (attempt - 1), LONGEST_WAIT);
        await new Promise((done) => setTimeout(done, 1000 * seconds));
      } else {
        throw error;
      }
    }
  }
}

let keyDialog = null; // the promise of the open dialog, so that several requests share it
function askForKey(message) {
  keyDialog ??= new Promise((done) => {
    const dialog = byId("key");
    byId("key-problem").textContent = service.key ? message : "";
    byId("key-problem").hidden = !service.key;
    let isGiven = false;
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      service.key = byId("key-text").value.trim();
      try {
        sessionStorage.setItem("blemish key", service.key);
      } catch {
        // It lasts as long as the page then.
      }
      isGiven = true;
      dialog.close();
    };
    byId("key-close").onclick = () => dialog.close();
    dialog.onclose = () => {
      keyDialog = null;
      done(isGiven);
    };
    dialog.showModal();
  });
  return keyDialog;
}

async function loadProfiles() {
  const { profiles } = await askPatiently("v1/profiles");
  state.profiles = new Map(profiles.map((profile) => [profile.name, profile]));
  const select = byId("profile");
  select.replaceChildren(
    ...profiles.map(({ name, object_name: object }) =>
      make("option", { value: name, text: object && object !== name ? `${name} (${object})` : name })
    )
  );
  if (!state.profiles.has(state.profile)) state.profile = profiles.length ? profiles[0].name : null;
  if (state.profile !== null) select.value = state.profile;
  byId("profile-choice").hidden = !profiles.length;
  byId("open-feedback").hidden = byId("open-drift").hidden = !profiles.length;
}

// Return what the profile does and promises in one line, and what that rests on.
function promiseOf(profile) {
  if (!profile) return ["Without a profile, scores only rank pictures.", "A profile from `blemish fit` gives a threshold with a promise."];
  const parts = [];
  if (typeof profile.threshold === "number") parts.push(`Rejected from score ${number(profile.threshold)}.`);
  const known = profile.known_defects ?? [];
  const caught = known.filter((defect) => defect.score >= profile.threshold).length;
  if (known.length) parts.push(`It catches ${caught} of ${count(known.length, "known defect")}.`);
  const [first, ...rest] = (profile.guarantee?.sentence ?? profile.promise ?? "It promises nothing").split(/(?<=[.!?])\s+/);
  parts.push(`${first[0].toUpperCase()}${first.slice(1)}${/[.!?]$/.test(first) ? "" : "."}`);
  return [parts.join(" "), rest.join(" ")];
}

const nameAsSent = (file) => file.webkitRelativePath || file.pathBelow || file.name;

// Put files into the list and begin to send them.
function takeFiles(files, isFolder = false) {
  const { max_bytes: maxBytes } = state.config;
  const passedOver = [];
  for (const file of files) {
    const name = nameAsSent(file);
    if (isFolder && !file.type.startsWith("image/") && !PICTURE_NAME.test(file.name)) {
      passedOver.push(name);
      continue;
    }
    const stamp = `${name} ${file.size} ${file.lastModified}`;
    const before = inForce().find((picture) => picture.stamp === stamp);
    const picture = before ?? { id: newId(), review: null, profile: state.profile, stamp };
    if (["waiting", "sending"].includes(picture.stage)) continue;
    const path = before?.entry.path ?? freeName(name);
    if (!before) state.pictures.push(picture);
    Object.assign(picture, { file, stage: "waiting", entry: { path } });
    if (maxBytes && file.size > maxBytes) {
      fail(picture, `The file has ${megabytes(file.size)}; the service takes at most ${megabytes(maxBytes)}.`);
    } else {
      enqueue(picture);
    }
  }
  if (passedOver.length) {
    const first = passedOver.slice(0, 3).join(", ");
    showProblem(`${count(passedOver.length, "file")} passed over, since ${passedOver.length === 1 ? "it is no picture" : "they are no pictures"}: ${first}${passedOver.length > 3 ? ", ..." : ""}.`);
  } else {
    showProblem("");
  }
  refreshAll();
  pump();
}

// Return a name that no picture of the profile has: another file of the same name becomes "part (2).png".
function freeName(name) {
  const taken = new Set(inForce().map((picture) => picture.entry.path));
  for (let number = 1; ; number++) {
    const free = number === 1 ? name : name.replace(/(\.[^./]*)?$/, ` (${number})$1`);
    if (!taken.has(free)) return free;
  }
}

const newId = () => `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function enqueue(picture) {
  Object.assign(picture, { stage: "waiting" });
  service.queue.push(picture);
  service.planned += 1;
}

function pump() {
  const limit = state.config.concurrency ?? 2;
  while (!service.paused && service.running < limit && service.queue.length) {
    service.running += 1;
    send(service.queue.shift()).finally(() => {
      service.running -= 1;
      if (!service.running && !service.queue.length && service.planned) {
        announce(`All pictures are back. ${countText()}`);
        service.sent = service.planned = 0;
      }
      showProgress();
      pump();
    });
  }
  showProgress();
}

async function send(picture) {
  picture.stage = "sending";
  redrawRow(picture.id);
  const form = new FormData();
  form.append("files", picture.file, picture.entry.path);
  const profile = picture.profile === null ? "" : `profile=${encodeURIComponent(picture.profile)}&`;
  try {
    const { results } = await askPatiently(`v1/detect?${profile}${RETURNED}`, { method: "POST", body: form });
    await receive(picture, results[0]);
  } catch (error) {
    if (error.status === 0 || error.status === 401) {
      picture.stage = "waiting";
      service.queue.unshift(picture);
      service.paused = true;
      showProblem(`${error.message} ${count(service.queue.length, "picture")} still to be sent; "Send again" goes on.`);
      redrawRow(picture.id);
    } else {
      // A picture that cannot be read never can; a server that is busy or broken may answer another time.
      fail(picture, error.message, error.status >= 500 || error.status === 429 || error.status === 408);
    }
  }
  service.sent += picture.stage === "waiting" ? 0 : 1;
  refreshAll();
}

async function receive(picture, result) {
  if (result.error) {
    fail(picture, result.error);
    return;
  }
  const { map, preview, ...entry } = result;
  const data = {
    map: map?.png ? bytesOf(map.png) : null,
    preview: preview?.jpeg ? new Blob([bytesOf(preview.jpeg)], { type: "image/jpeg" }) : await shrink(picture.file),
    problem: "",
  };
  if (!data.preview) data.problem = "This browser cannot show files of this kind.";
  picture.entry = { ...entry, path: picture.entry.path };
  picture.stage = "done";
  cache.drop(picture.id);
  await cache.store.save(picture, data);
  redrawRow(picture.id);
  if (state.current === picture.id) view.picture = null; // its picture and map are new
}

function fail(picture, sentence, canRetry = false) {
  Object.assign(picture, { stage: "failed", canRetry });
  picture.entry = { path: picture.entry.path, error: sentence };
  redrawRow(picture.id);
  announce(`${nameOf(picture).file}: ${sentence}`);
}

// Return a preview that the browser makes itself, or null for files that it cannot decode.
async function shrink(file) {
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, 640 / Math.max(image.width, image.height));
    const canvas = make("canvas", { width: Math.round(image.width * scale), height: Math.round(image.height * scale) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
  } catch {
    return null;
  }
}

// Send again what waits, and what failed for a reason that passes.
function retry() {
  service.paused = false;
  showProblem("");
  for (const picture of inForce()) {
    if (canGoAgain(picture)) {
      enqueue(picture);
      redrawRow(picture.id);
    }
  }
  refreshAll();
  pump();
}

const canGoAgain = (picture) => picture.stage === "failed" && picture.canRetry;

function showProgress() {
  const bar = byId("progress");
  bar.hidden = !service.planned || (!service.running && !service.queue.length);
  bar.max = Math.max(service.planned, 1);
  bar.value = service.sent;
  const failed = inForce().some(canGoAgain);
  byId("retry").hidden = !(failed || service.paused);
}

// Return all files below what was dropped, folders included; each knows its path.
async function filesOf(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile?.()).filter(Boolean);
  const files = [];
  let hasFolder = false;
  const walk = async (entry) => {
    if (entry instanceof File) {
      files.push(entry);
    } else if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      file.pathBelow = entry.fullPath.replace(/^\//, "");
      files.push(file);
    } else if (entry.isDirectory) {
      hasFolder = true;
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (!part.length) break;
        for (const child of part) if (!child.name.startsWith(".")) await walk(child);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return { files, hasFolder };
}

function watchDrops() {
  const drop = byId("drop");
  let depth = 0; // dragenter and dragleave come for every element on the way
  document.addEventListener("dragenter", () => drop.classList.toggle("over", ++depth > 0));
  document.addEventListener("dragleave", () => drop.classList.toggle("over", --depth > 0));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    drop.classList.remove("over");
    try {
      const { files, hasFolder } = await filesOf(event.dataTransfer.items);
      takeFiles(files, hasFolder);
    } catch {
      showProblem("The browser could not read what was dropped; choose the files with the button.");
    }
  });
  for (const [button, input, isFolder] of [["choose-files", "files", false], ["choose-folder", "folder", true]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", () => {
      takeFiles([...byId(input).files], isFolder);
      byId(input).value = "";
    });
  }
  byId("retry").addEventListener("click", retry);
  byId("clear").addEventListener("click", async () => {
    if (state.pictures.length && !confirm("Forget all pictures and verdicts of this session?")) return;
    service.queue = [];
    service.paused = false;
    service.planned = service.sent = 0;
    state.pictures = [];
    state.isChosen = false;
    await cache.store.clear();
    refreshAll();
  });
}

async function startService() {
  try {
    service.key = sessionStorage.getItem("blemish key") ?? "";
  } catch {
    service.key = "";
  }
  byId("drop").hidden = false;
  cache.store = await sessionStore();
  byId("storage").textContent = `Kept in ${cache.store.where()}; sent to this server only.`;
  const kept = await cache.store.all();
  state.pictures = kept.map((record) => ({ ...record, stage: "done" }));
  watchDrops();
  watchFeedback();
  try {
    await loadProfiles();
  } catch (error) {
    showProblem(`${error.message} Load the page again once it runs.`);
  }
  byId("profile").addEventListener("change", () => {
    state.profile = byId("profile").value;
    resetThresholds();
  });
}
