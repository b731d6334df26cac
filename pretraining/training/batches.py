"""Batches of training pictures, drawn by worker processes into a ring in shared memory.

Pictures come in pairs: one scene, photographed normal and defective, so that only the defect tells them apart. Pair `k`
depends on (seed, k) alone, and step `s` draws from the pairs [s*fresh, s*fresh + capacity). A run is therefore the same
on a fast and on a slow machine, and a resumed run uses the same pictures as an unbroken one.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import shared_memory
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray

import numpy as np
import torch
from torch import Tensor

from synthesis import Sample, make_product
from synthesis.samples import SIZE, Caption

#: Side of a picture in patches.
GRID = 24
#: Bytes of one picture's words in the ring.
MAX_TEXT = 160


@dataclass(frozen=True)
class Batch:
    """Pictures with their masks and words."""

    images: Tensor
    """(B, S, S, 3) uint8."""
    masks: Tensor
    """(B, S, S) bool, true where a picture is defective."""
    captions: list[Caption]

    def coverage(self, grid: int = GRID) -> Tensor:
        """Return the defective fraction of each patch, (B, grid*grid) float32."""
        side = self.masks.shape[1] // grid
        return self.masks.view(-1, grid, side, grid, side).float().mean((2, 4)).flatten(1)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return Batch(self.images.to(device), self.masks.to(device), self.captions)


def stack(samples: Sequence[Sample]) -> Batch:
    """Return samples as a batch."""
    images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in list(zip(*samples, strict=True))[:2])
    return Batch(images, masks, [sample.caption for sample in samples])


def _layout(capacity: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        "image": ((capacity, 2, SIZE, SIZE, 3), "u1"),
        "mask": ((capacity, 2, SIZE, SIZE // 8), "u1"),
        "text": ((capacity, 2), f"S{MAX_TEXT}"),
    }


def _draw(
    rank: int, workers: int, seed: int, first: int, capacity: int, photos: Sequence[np.ndarray], names: dict[str, str],
    head: Synchronized[int], done: SynchronizedArray[int],
) -> None:  # fmt: skip
    """Draw pairs into the ring, at most `capacity` beyond the oldest that is still needed: a worker process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    blocks = {key: shared_memory.SharedMemory(name=name) for key, name in names.items()}
    arrays = {key: np.ndarray(*_layout(capacity)[key], buffer=block.buf) for key, block in blocks.items()}
    index = first + rank
    while True:
        while index >= head.value + capacity:
            if os.getppid() == 1:
                return
            time.sleep(0.02)
        for number, (image, mask, caption) in enumerate(make_product(seed, index, photos)):
            slot = index % capacity, number
            arrays["image"][slot] = image
            arrays["mask"][slot] = np.packbits(mask, axis=1)
            arrays["text"][slot] = "|".join(caption).encode()[:MAX_TEXT]
        done[rank] = index
        index += workers


class PicturePool:
    """The ring; a context manager.

    Args:
        seed: Stream of the pictures.
        first_step: Step at which the run starts or resumes.
        fresh: Pairs that leave the ring in a step.
        capacity: Pairs that the ring holds.
        workers: Number of processes that draw.
        photos: Real pictures that scenes are made from.
    """

    def __init__(
        self,
        seed: int,
        first_step: int,
        *,
        fresh: int,
        capacity: int,
        workers: int = 1,
        photos: Sequence[np.ndarray] = (),
    ) -> None:
        self.fresh, self.capacity, self.workers = fresh, capacity, workers
        self.waited = 0.0
        layout = _layout(capacity)
        self._blocks = {
            key: shared_memory.SharedMemory(create=True, size=int(np.prod(shape)) * np.dtype(dtype).itemsize)
            for key, (shape, dtype) in layout.items()
        }
        self._arrays = {key: np.ndarray(*layout[key], buffer=block.buf) for key, block in self._blocks.items()}
        first = first_step * fresh
        self._head = multiprocessing.Value("q", first)
        self._done = multiprocessing.Array("q", [first - 1] * workers)
        names = {key: block.name for key, block in self._blocks.items()}
        shared = (workers, seed, first, capacity, photos, names, self._head, self._done)
        self._processes = [
            multiprocessing.Process(target=_draw, daemon=True, args=(rank, *shared)) for rank in range(workers)
        ]
        for process in self._processes:
            process.start()

    def batch(self, step: int, size: int, rng: np.random.Generator) -> Batch:
        """Wait for the pictures of a step and return `size` of them, pairs side by side, the normal one first."""
        first = step * self.fresh
        with self._head.get_lock():
            self._head.value = first
        start = time.perf_counter()
        # An eighth of the ring is left for workers to draw into while a step is computed.
        ready = self.capacity - max(2 * self.workers, self.capacity // 8)
        while min(self._done) < first + ready + self.workers:
            if not all(process.is_alive() for process in self._processes):
                raise RuntimeError("a process that draws pictures has died")
            time.sleep(0.01)
        self.waited += time.perf_counter() - start
        slots = (first + rng.choice(ready, size // 2, replace=False)) % self.capacity
        texts = (text.decode(errors="ignore").split("|") for text in self._arrays["text"][slots].ravel())
        images = torch.from_numpy(self._arrays["image"][slots]).flatten(0, 1)
        masks = torch.from_numpy(np.unpackbits(self._arrays["mask"][slots], axis=-1).astype(bool)).flatten(0, 1)
        return Batch(images, masks, [Caption(*(text + [""] * 4)[:4]) for text in texts])

    def close(self) -> None:
        """End the processes and free the memory."""
        for process in self._processes:
            process.terminate()
        for block in self._blocks.values():
            block.close()
            block.unlink()

    def __enter__(self) -> PicturePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
