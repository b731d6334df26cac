// Where previews, maps and reviews are kept. A store has
//   load(picture) -> {preview: Blob | null, map: bytes | null, problem: text | ""},
//   saveReview(picture), and for the service also save(picture, data), all(), clear().

// Report: blocks of the page itself; reviews go to the browser's local storage.
function reportStore(id) {
  const key = `blemish ${id}`;
  let reviews = {};
  let isKept = true;
  try {
    reviews = JSON.parse(localStorage.getItem(key) ?? "{}");
  } catch {
    isKept = false;
  }
  const parsed = new Promise((done) => {
    if (document.readyState !== "loading") done();
    else document.addEventListener("DOMContentLoaded", done);
  });
  return {
    where: () => (isKept ? "this browser" : "this tab only, so export them before you close it"),
    isKept: () => isKept,
    reviewOf: (path) => reviews[path] ?? null,
    async load(picture) {
      let block = document.getElementById(`picture-${picture.id}`);
      if (!block || !block.nextSibling) {
        await parsed; // the file is still being read
        block = document.getElementById(`picture-${picture.id}`);
      }
      const data = block ? JSON.parse(block.textContent) : { problem: "The file ends before this picture." };
      return {
        preview: data.preview ? new Blob([bytesOf(data.preview)], { type: "image/jpeg" }) : null,
        map: data.map ? bytesOf(data.map) : null,
        problem: data.problem ?? "",
      };
    },
    saveReview(picture) {
      const path = picture.entry.path;
      if (picture.review === null) delete reviews[path];
      else reviews[path] = picture.review;
      try {
        localStorage.setItem(key, JSON.stringify(reviews));
      } catch {
        isKept = false;
      }
    },
  };
}

// Service: the browser's IndexedDB, or memory where it refuses (a private window, a full disk).
async function sessionStore() {
  const memory = new Map();
  let database = null;
  const ask = (names, mode, work) =>
    new Promise((done, fail) => {
      const transaction = database.transaction(names, mode);
      const request = work(transaction);
      transaction.oncomplete = () => done(request?.result);
      transaction.onabort = transaction.onerror = () => fail(transaction.error ?? new Error("IndexedDB failed"));
    });
  try {
    database = await new Promise((done, fail) => {
      const request = indexedDB.open("blemish", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("pictures", { keyPath: "id" });
        request.result.createObjectStore("data", { keyPath: "id" });
      };
      request.onsuccess = () => done(request.result);
      request.onerror = request.onblocked = () => fail(request.error ?? new Error("blocked"));
    });
  } catch {
    database = null;
  }
  const light = ({ id, entry, review, profile, given, stamp }) => ({ id, entry, review, profile, given, stamp });
  return {
    where: () => (database ? "this browser" : "this tab only, since the browser keeps nothing"),
    isKept: () => database !== null,
    all: async () => (database ? ask("pictures", "readonly", (t) => t.objectStore("pictures").getAll()) : []),
    async save(picture, data) {
      if (database) {
        try {
          await ask(["pictures", "data"], "readwrite", (t) => {
            t.objectStore("data").put({ id: picture.id, ...data });
            return t.objectStore("pictures").put(light(picture));
          });
          return;
        } catch {
          // The disk is full: this picture stays in the tab.
        }
      }
      memory.set(picture.id, data);
    },
    async load(picture) {
      const kept = memory.get(picture.id);
      if (kept || !database) return kept ?? { preview: null, map: null, problem: "" };
      const data = await ask("data", "readonly", (t) => t.objectStore("data").get(picture.id));
      return data ?? { preview: null, map: null, problem: "" };
    },
    async saveReview(picture) {
      if (database) await ask("pictures", "readwrite", (t) => t.objectStore("pictures").put(light(picture))).catch(() => {});
    },
    async clear() {
      memory.clear();
      if (!database) return;
      await ask(["pictures", "data"], "readwrite", (t) => {
        t.objectStore("data").clear();
        return t.objectStore("pictures").clear();
      });
    },
  };
}

// The pictures that were looked at last, so that scrolling back costs nothing and memory stays bounded.
const MAX_CACHED = 64;
const cache = {
  store: null,
  items: new Map(),

  // Return a promise of {url, map, problem}: an address for <img>, and the map's bytes.
  get(picture) {
    let item = this.items.get(picture.id);
    this.items.delete(picture.id);
    if (!item) {
      item = this.store.load(picture).then(({ preview, map, problem }) => ({
        url: preview ? URL.createObjectURL(preview) : null,
        map,
        problem,
        decoded: null,
      }));
      item.catch(() => this.items.delete(picture.id));
    }
    this.items.set(picture.id, item);
    for (const id of [...this.items.keys()].slice(0, Math.max(this.items.size - MAX_CACHED, 0))) this.drop(id);
    return item;
  },

  drop(id) {
    const item = this.items.get(id);
    this.items.delete(id);
    item?.then(({ url }) => url && URL.revokeObjectURL(url)).catch(() => {});
  },
};

// Return the decoded map of a picture, or null if it has none.
async function mapOf(picture) {
  const item = await cache.get(picture);
  if (!item.map) return null;
  item.decoded ??= decodeMap(item.map);
  return item.decoded;
}

// Return the regions of a picture at the thresholds in force; none without a threshold or a map.
async function regionsOf(picture) {
  const lowest = maskValueOf(picture);
  const map = lowest === null ? null : await mapOf(picture);
  return map ? findRegions(map, lowest, { minArea: minAreaOf(picture), size: picture.entry.size }) : [];
}
