"""An exported file behind a `Detector`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blemish.clip import resize_image
from blemish.engine import Run
from blemish.errors import UsageError, WeightsError
from blemish.exporting.backends import Backend, Opened
from blemish.methods.base import MemoryBank, Prediction

if TYPE_CHECKING:
    from PIL import Image


class ExportedEngine:
    """Runs a file in its backend; see `blemish.engine.Engine`.

    Args:
        opened: The file, ready to run.
        backend: What runs it.
        path: The file.
    """

    def __init__(self, opened: Opened, backend: Backend, path: Path) -> None:
        self.header, self._infer = opened.header, opened.infer
        self.provenance = replace(
            opened.header.provenance,
            precision=opened.precision,
            device=opened.device,
            backend=backend.name,
            model=path.name,
            model_fingerprint=fingerprint(backend.files(path)),
        )

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return self.header.size

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the range of its maps; references are part of the file."""
        return self.header.map_range

    @property
    def needs_object(self) -> bool:
        """Whether the object's name makes a difference."""
        return self.header.object_name is not None

    def preprocess(self, picture: Image.Image) -> Tensor:
        """One picture as it takes it: see `as_input`."""
        return as_input(picture, self.size)

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch: see `Engine`."""
        if memory is not None:
            raise UsageError("an exported file has its references in it: export another for other ones")
        known = self.header.object_name
        if known is not None and object_name != known:
            raise UsageError(f"the exported file knows {known!r} only, not {object_name!r}: export another for it")
        start = time.perf_counter()
        score, maps = self._infer(pixels.numpy())
        low, high = self.header.map_range
        raw = torch.from_numpy(maps) * (high - low) + low
        return Run(Prediction(torch.from_numpy(score), raw), time.perf_counter() - start, 0.0)


def as_input(picture: Image.Image, size: int) -> Tensor:
    """A picture as graphs take it: (1, 3, size, size) float32 RGB in [0, 1].

    Resized by Pillow here, so that the graph's own resizing has nothing left to do.
    """
    return resize_image(picture, size).unsqueeze(0).float().div_(255)


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, first 16 hex digits. Raises WeightsError for one that is not there."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}", path) from error
    return digest.hexdigest()[:16]
