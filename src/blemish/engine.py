"""What computes behind a `Detector`: prepared pictures in, a prediction out. Here in PyTorch.

Another engine (a model exported to ONNX or OpenVINO: `blemish.exporting`) takes the same and gives the same, so that
reading, tiling, thresholds and outputs are the detector's alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

import blemish
from blemish.clip import ImageFeatures, Request
from blemish.clip.backbone import fingerprint_of
from blemish.detection import Provenance
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import MemoryBank, Method, Prediction, ReferenceMethod
from blemish.types import ComputePrecision

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Run:
    """What one batch came to."""

    prediction: Prediction
    """On the CPU, float32."""
    encode: float
    """Seconds in the backbone, of the whole batch."""
    score: float
    """Seconds in the method; 0 for an engine that cannot tell the two apart."""


class Engine(Protocol):
    """What a `Detector` needs of whatever computes; its calls may run in several threads at once."""

    @property
    def provenance(self) -> Provenance:
        """What makes the numbers."""

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the lowest and the highest value of its maps, made with or without a memory bank."""

    @property
    def needs_object(self) -> bool:
        """Whether the object's name makes a difference."""

    def preprocess(self, picture: Image.Image) -> Tensor:
        """One picture as it takes it: (1, 3, S, S) on the CPU."""

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch.

        Args:
            pixels: (B, 3, S, S), from `preprocess`.
            object_name: What all images show.
            memory: References to compare with; None scores zero-shot.

        Raises:
            UsageError: The engine was made for another object only, or takes no references.
        """


class TorchEngine:
    """A method on a backbone, run by PyTorch.

    Args:
        method: Ready to score; moved to `device` together with its backbone.
        weights: Name of what the method learnt, for the provenance; None for a method without.
        device: Where it runs.
        precision: Of the vision tower's matrix products, and of `musc`'s. Else text features and scores are float32.
        windows: The same for windows (WinCLIP's), where it is another.

    Attributes:
        precision: Of the vision tower.
        windows: Of windows.
    """

    def __init__(
        self,
        method: Method,
        *,
        weights: str | None = None,
        device: torch.device | str = "cpu",
        precision: ComputePrecision = "float32",
        windows: ComputePrecision | None = None,
    ) -> None:
        self.method = method.to(device).eval()
        self.backbone = method.backbone.to(device).eval()
        self.device = torch.device(device)
        self.precision: torch.dtype = getattr(torch, precision)
        self.windows: torch.dtype = getattr(torch, windows or precision)
        mixed = method.request.windows and self.windows != self.precision
        self.provenance = Provenance(
            method=method.info.name,
            backbone=self.backbone.name,
            backbone_fingerprint=self.backbone.fingerprint,
            weights=weights,
            weights_fingerprint=fingerprint_of(method) if weights is not None else None,
            config=configs.to_json(method.config),
            version=blemish.__version__,
            precision=f"{precision}, windows {windows}" if mixed else precision,
            device=str(self.device),
        )
        self._text = lru_cache(maxsize=256)(self._encode_text)

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return self.method.computation.size

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the lowest and the highest value of its maps, made with or without a memory bank."""
        return self.method.map_range if memory is None else self._reference_method.memory_map_range

    @property
    def needs_object(self) -> bool:
        """Whether the object's name makes a difference."""
        return self.method.info.needs_object

    def preprocess(self, picture: Image.Image) -> Tensor:
        """One picture as it takes it: (1, 3, S, S) float32 on the CPU."""
        return self.backbone.preprocess([picture], self.size)

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch: see `Engine`."""
        text = self._text(object_name)
        start = time.perf_counter()
        with torch.inference_mode():
            request = self.method.request if memory is None else self._reference_method.memory_request
            features = self._encode(pixels, request)
            self._settle()
            encoded = time.perf_counter()
            prediction = self.score(features, text, memory)
        return Run(prediction, encoded - start, time.perf_counter() - encoded)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Return the method's prediction on the CPU in float32. Arguments as in `ReferenceMethod.score`."""
        if memory is None:
            prediction = self.method.score(features, text)
        else:
            prediction = self._reference_method.score(features, text, memory)
        return Prediction(prediction.score.float().cpu(), prediction.map.float().cpu())

    def build_memory_bank(self, batches: Iterable[Tensor], *, num_images: int, sampled: bool = False) -> MemoryBank:
        """Return the memory bank of reference images, on the engine's device.

        Args:
            batches: (B, 3, S, S) each, from `preprocess`; at least one, read lazily.
            num_images: Number of reference images at most.
            sampled: The references are a random sample of the set that is going to be scored.

        Raises:
            UsageError: The method takes no references.
        """
        method = self._reference_method

        def encode(pixels: Tensor) -> ImageFeatures:
            return self._encode(pixels, method.memory_request)

        with torch.inference_mode():
            return method.build_memory_bank(batches, encode, num_images=num_images, sampled=sampled)

    @property
    def _reference_method(self) -> ReferenceMethod:
        if not isinstance(self.method, ReferenceMethod):
            raise UsageError(f"{self.method.info.name} has no memory bank for reference images")
        return self.method

    def _encode(self, pixels: Tensor, request: Request) -> ImageFeatures:
        pixels, computation = pixels.to(self.device), self.method.computation
        return self.backbone.encode_image(pixels, request, computation, precision=self.precision, windows=self.windows)

    def _encode_text(self, object_name: str) -> Tensor:
        """Text features (2, E) of one object name; kept, since they cost more than a picture."""
        with torch.inference_mode():
            return self.method.text_features([object_name])[0]

    def _settle(self) -> None:
        """Wait for the GPU, so that the timing says what it means."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
