"""The engine that runs an exported file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blemish.clip import Geometry, to_levels
from blemish.engine import Run
from blemish.errors import UsageError, WeightsError
from blemish.exporting.backends import Backend, Opened
from blemish.exporting.header import MAP, SCORE
from blemish.methods.base import MemoryBank, Prediction
from blemish.methods.ops import enlarge_smoothly, resize

if TYPE_CHECKING:
    from PIL import Image


class ExportedEngine:
    """Runs an exported file; see `blemish.engine.Engine`.

    Args:
        opened: The opened file.
        backend: The backend that runs it.
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

    def __reduce__(self) -> str:
        """Say why it cannot be pickled or copied: the session of the runtime cannot."""
        raise TypeError(
            f"a detector of {self.provenance.model} can be neither pickled nor copied: load the file in each process"
        )

    @property
    def size(self) -> int:
        """Side S of the input in pixels."""
        return self.header.size

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the range of the raw maps; references are part of the file."""
        return self.header.map_range

    def display_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the scale on which maps are drawn; references are part of the file."""
        return self.header.display_range or self.header.map_range

    def score_inside(self, score: float, tile_map: Tensor, inside: Tensor, memory: MemoryBank | None = None) -> float:
        """Return the score as it is, since a region of interest is part of the file."""
        return score

    def finish_map(self, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        """Bring the map of one picture (H, W) to its size, as the method does."""
        if self.header.smoothing is None:
            return resize(anomaly_map, height, width)
        return enlarge_smoothly(anomaly_map, height, width, self.header.smoothing)

    @property
    def finishes_maps(self) -> bool:
        """Whether `finish_map` does more than resize."""
        return self.header.smoothing is not None

    @property
    def needs_object(self) -> bool:
        """Whether the object's name changes the result."""
        return self.header.object_name is not None

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return an image as graphs take it: see `as_input`."""
        return as_input(image, self.size, self.header.geometry)

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch; see `Engine`."""
        if memory is not None:
            raise UsageError(
                "an exported file contains its references: export the detector again with other references"
            )
        own = self.header.object_name
        if own is not None and object_name != own:
            raise UsageError(f"the file was exported for {own!r}, not for {object_name!r}: export one for that object")
        start = time.perf_counter()
        score, maps = self._infer(pixels.numpy(), (SCORE, self.header.raw))
        low, high = self.header.map_range
        raw = torch.from_numpy(maps) * (high - low) + low
        return Run(Prediction(torch.from_numpy(score), raw), time.perf_counter() - start, 0.0)

    def final_maps(self, pixels: Tensor) -> Tensor:
        """Return the maps that the file gives to others: smoothed, and with their lowest value outside the region of
        interest, (B, S, S) in [0, 1]."""
        return torch.from_numpy(self._infer(pixels.numpy(), (MAP,))[0])


def as_input(image: Image.Image, size: int, geometry: Geometry) -> Tensor:
    """Return an image as graphs take it: (1, 3, size, size) float32 RGB in [0, 1].

    It is resized here, so that the graph's own resizing changes nothing.
    """
    return torch.from_numpy(to_levels(image, size, geometry, 1)).unsqueeze(0).float().div_(255)


def fingerprint(files: Iterable[Path]) -> str:
    """Return the first 16 hex digits of SHA-256 over the files. Raises WeightsError if one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}", path) from error
    return digest.hexdigest()[:16]
