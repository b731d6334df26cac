"""Whether the model waits: many small pictures from files to results."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import middle, ratio, turns
from PIL import Image
from rows import Row

from blemish.detection import FileKind
from blemish.detector import Detector
from blemish.engine import Run
from blemish.image_io import read_image
from blemish.loading import load
from blemish.methods.base import MemoryBank
from blemish.outputs.run import DetectOptions, DetectRun, ResultKind

#: Of each side of the pictures, in pixels: about what a camera of a line gives of a small part.
SIDE, BATCH = 400, 16


def draw(folder: Path, count: int) -> list[Path]:
    """JPEG pictures of a grainy surface with a scratch."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(90, 150, (20, 20, 3)).astype(np.uint8))
        pixels = np.array(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        pixels += rng.integers(-6, 7, (SIDE, SIDE, 1), np.int16)
        pixels[rng.integers(0, SIDE), : SIDE // 2] = 240
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


class Watched:
    """An engine that notes when it was busy."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.spans: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, pixels: torch.Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        start = time.perf_counter()
        run = self._engine.run(pixels, object_name)
        self.spans.append((start, time.perf_counter()))
        return run

    @property
    def idle(self) -> float:
        """The share of the time between its first and its last batch in which it had none."""
        busy = sum(end - start for start, end in self.spans)
        return 1 - busy / (self.spans[-1][1] - self.spans[0][0])


def detect(detector: Detector, paths: Sequence[Path], kinds: Sequence[ResultKind]) -> None:
    """Do what `blemish detect --out` does after loading, into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        options = DetectOptions(kinds=kinds, tables=(), batch_size=BATCH, root=paths[0].parent)
        with DetectRun(detector, paths, folder, options) as run:
            run.execute()


def one_after_the_other(detector: Detector, paths: Sequence[Path], kinds: Sequence[FileKind]) -> None:
    """Do the same without threads: read a batch, score it, write it."""
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, len(paths), BATCH):
            pictures = [read_image(path) for path in paths[first : first + BATCH]]
            for picture, detection in zip(pictures, detector(pictures, batch_size=BATCH), strict=True):
                detection.save(folder, kinds, picture=picture, root=paths[0].parent)


def pipeline(rounds: int, count: int = 320) -> Iterator[Row]:
    """Idle shares and throughput of the built-in model over small pictures, with and without overlays."""
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), count)
        for precision in ("float32", "bfloat16"):
            for kinds in ([], ["overlay"]):
                yield from _compare(paths, precision, kinds, rounds)


def _compare(paths: Sequence[Path], precision: Any, kinds: Sequence[str], rounds: int) -> Iterator[Row]:
    watched = Watched(load(precision=precision, device="cpu").engine)
    detector = Detector(watched)
    shares = []

    def watch() -> None:
        watched.spans.clear()
        detect(detector, paths, kinds)
        shares.append(watched.idle)

    contenders = {"threads": watch, "in turns": partial(one_after_the_other, detector, paths, kinds)}
    seconds = {name: [s / len(paths) for s in values] for name, values in turns(contenders, rounds).items()}
    what = f"built-in, {precision}, {SIDE} x {SIDE} JPEG, {'overlays' if kinds else 'no pictures'} written"
    note = f"times as fast as one step after the other ({middle(seconds)['in turns'] * 1000:.1f} ms)"
    yield Row("pipeline", what, middle(seconds)["threads"] * 1000, "ms", ratio(seconds, "in turns", "threads"), note)
    yield Row("pipeline", what, sorted(shares)[len(shares) // 2], "", None, "of the time the model has no batch")
