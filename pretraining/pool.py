"""Pictures for training, made by worker processes into a ring in shared memory.

On a GPU training keeps a copy of the ring, so that a picture travels once, however often it is shown.
Pictures come as twins: one scene, photographed as it should be and with a defect, so that what tells them apart is the
defect and not the scene. Twins `k` depend on (seed, k) alone, and step `s` draws from the twins [s*fresh, s*fresh +
capacity), so a run is the same on a fast and on a slow machine, and a resumed run sees what an unbroken one would have
seen.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from dataclasses import dataclass, replace
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scenes import Scene

SIZE, GRID = 384, 24
TEXT = 160  # bytes for one picture's words
#: A picture (size, size, 3) uint8, its bool mask, and (name, material, kind, place).
Made = tuple[np.ndarray, np.ndarray, tuple[str, str, str, str]]


@dataclass(frozen=True)
class Batch:
    """`images` (B, S, S, 3) uint8; `masks` (B, S, S) bool, what is defective; both on one device; `words`."""

    images: Tensor
    masks: Tensor
    words: list[tuple[str, str, str, str]]  # name, material, kind ("" if normal, "lost" if not to be judged), place

    def coverage(self, grid: int = GRID) -> Tensor:
        """(B, G*G) float32, the part of each patch that is defective."""
        side = SIZE // grid
        return self.masks.view(-1, grid, side, grid, side).float().mean((2, 4)).flatten(1)


def load_photos(folders: list[Path]) -> list[np.ndarray]:
    """Permissively licensed photographs, cutouts with alpha and grey slices, uint8; [] when there are none."""
    import cv2

    colours = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}

    photos = []
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".png"}):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.dtype != np.uint8 or max(image.shape[:2]) < 64:
                continue
            photos.append(image if image.ndim == 2 else cv2.cvtColor(image, colours[image.shape[2]]))
    return photos


def bundled_photos() -> list[np.ndarray]:
    """scikit-image's bundled surfaces (public domain or CC0), where it is installed."""
    try:
        from skimage import data
    except ImportError:
        return []
    photos = []
    for name in ("brick", "grass", "gravel"):
        try:
            image = getattr(data, name)()
        except Exception:  # not in this wheel, and there is no network: go without
            continue
        photos.append(np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3])
    return photos


def make_sample(seed: int, index: int, photos: list[np.ndarray], size: int = SIZE) -> Made:
    """Picture `index` of stream `seed`, 62 % of them defective."""
    from scenes import make_scene

    rng = np.random.default_rng([seed, index])
    return photograph(rng, make_scene(rng, size, photos), 0.62, photos)


def make_product(seed: int, index: int, photos: list[np.ndarray], size: int = SIZE, count: int = 2) -> list[Made]:
    """Scene `index` of stream `seed`, photographed `count` times: in turns as it should be and with a defect."""
    from scenes import make_scene

    rng = np.random.default_rng([seed, index, 2])
    scene = make_scene(rng, size, photos)
    return [photograph(rng, scene, i % 2, photos) for i in range(count)]


def photograph(rng: np.random.Generator, scene: Scene, defective: float, photos: list[np.ndarray]) -> Made:
    """One picture of a scene, with a defect as often as `defective` says."""
    from camera import camera
    from defects import add_defects, add_distractors
    from words import place

    size = len(scene.image)
    if rng.random() < 0.3:
        scene = replace(scene, image=add_distractors(rng, scene))
    image, mask, kind = scene.image, np.zeros((size, size), bool), ""
    if rng.random() < defective:
        defect = add_defects(rng, scene, photos)
        if defect is not None:
            image, mask, kind = defect.image, defect.mask, defect.kind
    image, mask = camera(rng, image, mask)
    if kind and mask.sum() < 6:  # the camera moved the defect out of the picture
        mask, kind = np.zeros_like(mask), "lost"
    return image, mask, (scene.name, scene.material, kind, place(mask) if mask.any() else "")


def _worker(
    rank: int, workers: int, seed: int, first: int, capacity: int, photos: list[np.ndarray], names: dict[str, str],
    head: object, done: object,
) -> None:  # fmt: skip
    os.environ["OMP_NUM_THREADS"] = "1"
    import cv2

    cv2.setNumThreads(0)
    arrays, _keep = _attach(names, capacity)
    index = first + rank
    while True:
        while index >= head.value + capacity:  # type: ignore[attr-defined]
            if os.getppid() == 1:
                return
            time.sleep(0.02)
        for twin, (image, mask, words) in enumerate(make_product(seed, index, photos)):
            slot = index % capacity, twin
            arrays["image"][slot] = image
            arrays["mask"][slot] = np.packbits(mask, axis=1)
            arrays["words"][slot] = "|".join(words).encode()[:TEXT]
        done[rank] = index  # type: ignore[index]
        index += workers


def _layout(capacity: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        "image": ((capacity, 2, SIZE, SIZE, 3), "u1"),
        "mask": ((capacity, 2, SIZE, SIZE // 8), "u1"),
        "words": ((capacity, 2), f"S{TEXT}"),
    }


def _attach(names: dict[str, str], capacity: int) -> tuple[dict[str, np.ndarray], list[shared_memory.SharedMemory]]:
    blocks = {k: shared_memory.SharedMemory(name=n) for k, n in names.items()}
    layout = _layout(capacity)
    return {k: np.ndarray(*layout[k], buffer=b.buf) for k, b in blocks.items()}, list(blocks.values())


class Pool:
    """The ring; a context manager. `waited` counts the seconds that training waited for pictures."""

    def __init__(
        self, seed: int, first_step: int, *, fresh: int, capacity: int = 1536, workers: int = 2,
        photos: list[np.ndarray] | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.seed, self.fresh, self.capacity, self.workers, self.waited = seed, fresh, capacity, workers, 0.0
        self._blocks = {
            k: shared_memory.SharedMemory(create=True, size=int(np.prod(s)) * np.dtype(d).itemsize)
            for k, (s, d) in _layout(capacity).items()
        }
        self.arrays = {k: np.ndarray(*_layout(capacity)[k], buffer=b.buf) for k, b in self._blocks.items()}
        first = first_step * fresh
        self._head = mp.Value("q", first)
        self._done = mp.Array("q", [first - 1] * workers)
        names = {k: b.name for k, b in self._blocks.items()}
        self._processes = [
            mp.Process(
                target=_worker, daemon=True,
                args=(r, workers, seed, first, capacity, photos or [], names, self._head, self._done),
            )
            for r in range(workers)
        ]  # fmt: skip
        for p in self._processes:
            p.start()
        self._copied, self._device = first, torch.device(device)
        image, mask = (torch.from_numpy(self.arrays[k]) for k in ("image", "mask"))
        self._image, self._mask = (x if self._device.type == "cpu" else x.to(self._device) for x in (image, mask))

    def _copy(self, end: int) -> None:
        """Brings the pictures that were made since, up to twins `end`, to the device."""
        while self._copied < end and self._device.type != "cpu":
            slot = self._copied % self.capacity
            span = slice(slot, min(self.capacity, slot + end - self._copied))
            for there, here in ((self._image, "image"), (self._mask, "mask")):
                there[span] = torch.from_numpy(self.arrays[here][span]).to(self._device)
            self._copied += span.stop - span.start

    def batch(self, step: int, size: int, rng: np.random.Generator) -> Batch:
        """`size` pictures for `step`, twins beside each other, normal first; waits until they are made."""
        first = step * self.fresh
        with self._head.get_lock():
            self._head.value = first
        start = time.perf_counter()
        # The workers may be an eighth of the ring ahead, so that they go on while a step is computed.
        ready = self.capacity - max(2 * self.workers, self.capacity // 8)
        while min(self._done) < first + ready + self.workers:
            if not all(p.is_alive() for p in self._processes):
                raise RuntimeError("a worker that makes pictures has died")
            time.sleep(0.01)
        self.waited += time.perf_counter() - start
        self._copy(first + ready)
        slots = (first + rng.choice(ready, size // 2, replace=False)) % self.capacity
        said = (s.decode(errors="ignore").split("|") for s in self.arrays["words"][slots].ravel())
        words = [tuple((s + [""] * 4)[:4]) for s in said]
        at = torch.from_numpy(slots).to(self._device)
        images, packed = self._image[at].flatten(0, 1), self._mask[at].flatten(0, 1)
        bits = torch.arange(7, -1, -1, device=self._device)
        masks = (packed[..., None] >> bits).bitwise_and(1).bool().flatten(2)
        return Batch(images, masks, words)  # type: ignore[arg-type]

    def close(self) -> None:
        for p in self._processes:
            p.terminate()
        for b in self._blocks.values():
            b.close()
            b.unlink()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
