"""What computes behind a detector: prepared images in, predictions out. `TorchEngine` does so in PyTorch.

Another engine, such as a model that was exported to ONNX or OpenVINO (`blemish.exporting`), has the same interface, so
reading, tiling, thresholds and outputs belong to the detector alone.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

import blemish
from blemish.clip import Computation, ImageFeatures, Request, fingerprint_of, visible_part
from blemish.detection import Provenance
from blemish.errors import UsageError
from blemish.methods import builtin, configs
from blemish.methods.base import MemoryBank, Method, Prediction, ReferenceMethod, TextFeatureCache
from blemish.types import ComputePrecision

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Run:
    """Result of one batch."""

    prediction: Prediction
    """Scores and maps on the CPU, float32."""
    encode: float
    """Seconds in the backbone for the whole batch."""
    score: float
    """Seconds in the method for the whole batch; 0 for an engine that cannot separate the two."""


class Engine(Protocol):
    """What a `Detector` needs of an engine. Its calls may run in several threads at once."""

    @property
    def provenance(self) -> Provenance:
        """Where its scores come from."""

    @property
    def size(self) -> int:
        """S, the side of its input in pixels; where the aspect ratio is kept, the shorter side before the crop."""

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the lowest and the highest value of its maps, made with or without a memory bank."""

    def display_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the scale on which its maps are drawn, made with or without a memory bank."""

    def score_inside(self, score: float, tile_map: Tensor, inside: Tensor, memory: MemoryBank | None = None) -> float:
        """Return the image score of a region of interest.

        Args:
            score: Image score of the whole image.
            tile_map: (S, S) map of the image.
            inside: (S, S) bool.
            memory: The memory bank that the map was made with.
        """

    def finish_map(self, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        """Bring the map of one picture (H, W) to its size: see `blemish.methods.Method.finish_map`."""

    @property
    def finishes_maps(self) -> bool:
        """Whether `finish_map` does more than resize, so that the maps of tiles have to go through it, too."""

    @property
    def needs_object(self) -> bool:
        """Whether the object name makes a difference."""

    def preprocess(self, picture: Image.Image) -> Tensor:
        """Return one image as the engine takes it: (1, 3, H, W) on the CPU, S x S unless the aspect ratio is kept."""

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch.

        Args:
            pixels: (B, 3, H, W), from `preprocess`.
            object_name: Name of the object in all images.
            memory: References to compare with; None scores zero-shot.

        Raises:
            UsageError: The engine was made for another object only, or takes no references.
        """


class TorchEngine:
    """A method on a backbone, run by PyTorch.

    Args:
        method: Ready to score; moved to `device` together with its backbone.
        weights: Name of the method's weights, for the provenance; None for a method without.
        device: Device that computes.
        precision: Precision of the vision tower's matrix products, and of `musc`'s comparisons. Text features and
            scores are float32.
        windows: Precision for windows (WinCLIP's); None for `precision`.

    Attributes:
        method: The method.
        backbone: The backbone.
        device: Device that computes.
        precision: Precision of the vision tower.
        windows: Precision for windows.
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
        config = configs.to_json(method.config)
        self.provenance = Provenance(
            method=method.info.name,
            backbone=self.backbone.name,
            backbone_fingerprint=self.backbone.fingerprint,
            weights=weights,
            weights_fingerprint=fingerprint_of(method) if weights is not None else None,
            config=config,
            version=blemish.__version__,
            precision=f"{precision}, windows {windows}" if mixed else precision,
            device=str(self.device),
            preset=builtin.preset_of(method.info.name, self.backbone.name, config),
        )
        self._texts = TextFeatureCache()

    @property
    def size(self) -> int:
        """S, the side of its input in pixels; where the aspect ratio is kept, the shorter side before the crop."""
        return self.method.computation.size

    @property
    def input(self) -> Hashable:
        """What `preprocess` depends on: engines of equal inputs prepare images alike."""
        backbone = self.backbone
        return "torch", backbone.mean, backbone.std, backbone.patch, self.size, self.method.computation.geometry

    def map_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the lowest and the highest value of its maps, made with or without a memory bank."""
        return self.method.map_range if memory is None else self._reference_method.memory_map_range

    def display_range(self, memory: MemoryBank | None = None) -> tuple[float, float]:
        """Return the scale on which its maps are drawn, made with or without a memory bank."""
        return self.method.display_range(references=memory is not None)

    def score_inside(self, score: float, tile_map: Tensor, inside: Tensor, memory: MemoryBank | None = None) -> float:
        """Return the image score of a region of interest: see `Engine`."""
        return float(self.method.score_inside(tile_map[None], inside, self.map_range(memory))[0])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures become the model's input, JSON-able; scores hold for the same preprocessing only."""
        return {
            "size": self.size,
            "patch": self.backbone.patch,
            "mean": [round(value, 6) for value in self.backbone.mean],
            "std": [round(value, 6) for value in self.backbone.std],
            "geometry": self.method.computation.geometry,
        }

    def request(self, memory: MemoryBank | None = None) -> Request:
        """Return what the method needs of an image, with or without a memory bank."""
        return self.method.request if memory is None else self._reference_method.memory_request

    @property
    def needs_object(self) -> bool:
        """Whether the object name makes a difference."""
        return self.method.info.needs_object

    def preprocess(self, picture: Image.Image) -> Tensor:
        """Return one image as the engine takes it: (1, 3, H, W) float32 on the CPU."""
        return self.backbone.preprocess([picture], self.size, self.method.computation.geometry)

    def finish_map(self, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        """Bring the map of one picture (H, W) to its size: see `blemish.methods.Method.finish_map`."""
        with torch.inference_mode():
            return self.method.finish_map(anomaly_map, height, width)

    @property
    def finishes_maps(self) -> bool:
        """Whether `finish_map` does more than resize, so that the maps of tiles have to go through it, too."""
        computation = self.method.computation
        shows_all = visible_part(computation.size, computation.geometry)[1] == 0
        return type(self.method).finish_map is not Method.finish_map or not shows_all

    def text(self, object_names: Sequence[str], texts: TextFeatureCache | None = None) -> Tensor:
        """Return the text features of a batch: (2, E) if all names are equal, else (B, 2, E).

        Args:
            object_names: Name of the object in each image.
            texts: A cache to share with other engines; None for the engine's own.
        """
        cache = self._texts if texts is None else texts
        return cache.batch(self.method, [prompt_name(self.method, name) for name in object_names])

    def encode(self, pixels: Tensor, request: Request, computation: Computation | None = None) -> ImageFeatures:
        """Return the features of a batch.

        Args:
            pixels: (B, 3, H, W), from `preprocess`.
            request: What is needed of the images.
            computation: How the backbone computes; None for the method's own way.
        """
        with torch.inference_mode():
            features = self.backbone.encode_image(
                pixels.to(self.device),
                request,
                self.method.computation if computation is None else computation,
                precision=self.precision,
                windows=self.windows,
            )
        return features

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Return the method's prediction on the CPU in float32; arguments as in `ReferenceMethod.score`."""
        with torch.inference_mode():
            if memory is None:
                prediction = self.method.score(features, text)
            else:
                prediction = self._reference_method.score(features, text, memory)
            return Prediction(prediction.score.float().cpu(), prediction.map.float().cpu())

    def run(self, pixels: Tensor, object_name: str, memory: MemoryBank | None = None) -> Run:
        """Score a batch: see `Engine`."""
        text = self.text([object_name])
        start = time.perf_counter()
        features = self.encode(pixels, self.request(memory))
        self.synchronize()
        encoded = time.perf_counter()
        prediction = self.score(features, text, memory)
        return Run(prediction, encoded - start, time.perf_counter() - encoded)

    def synchronize(self) -> None:
        """Wait for the GPU, so that a measured time is that of the computation."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def build_memory_bank(self, batches: Iterable[Tensor], *, num_images: int, sampled: bool = False) -> MemoryBank:
        """Return the memory bank of reference images, on the engine's device.

        Args:
            batches: (B, 3, H, W) each, from `preprocess`; at least one, read lazily.
            num_images: Number of reference images at most.
            sampled: The references are a random sample of the set that is going to be scored.

        Raises:
            UsageError: The method takes no references.
        """
        method = self._reference_method

        def encode(pixels: Tensor) -> ImageFeatures:
            return self.encode(pixels, method.memory_request)

        with torch.inference_mode():
            return method.build_memory_bank(batches, encode, num_images=num_images, sampled=sampled)

    def reference_copies(self, image: Image.Image, number: int, count: int) -> Iterable[Image.Image]:
        """Return what is encoded for one reference image: see `ReferenceMethod.reference_copies`."""
        return self._reference_method.reference_copies(image, number, count)

    @property
    def _reference_method(self) -> ReferenceMethod:
        if not isinstance(self.method, ReferenceMethod):
            raise UsageError(f"{self.method.info.name} has no memory bank for reference images")
        return self.method


def prompt_name(method: Method, object_name: str) -> str:
    """Return the name that goes into the method's prompts: "object" if it is empty or makes no difference."""
    return (object_name or "object") if method.info.needs_object else "object"
