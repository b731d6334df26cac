"""What computes behind a `Detector`: prepared pictures in, a prediction out. Here in PyTorch.

Another engine (a model exported to ONNX or OpenVINO: `blemish.export`) takes the same and gives the same, so that
reading, tiling, thresholds and outputs are the detector's alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

import blemish
from blemish.clip import ImageFeatures
from blemish.clip.backbone import fingerprint_of
from blemish.detection import Provenance
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import FewShotMethod, MemoryBank, Method, Prediction, View

if TYPE_CHECKING:
    from PIL import Image


#: A precision of matrix products, by its name in PyTorch.
Kind: TypeAlias = Literal["float32", "bfloat16", "float16"]


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

    @property
    def map_range(self) -> tuple[float, float]:
        """The fixed scale of its maps."""

    @property
    def needs_object(self) -> bool:
        """Whether the object's name makes a difference."""

    def preprocess(self, picture: Image.Image) -> Tensor:
        """One picture as it takes it: (1, 3, S, S) on the CPU."""

    def run(self, pixels: Tensor, object_name: str) -> Run:
        """Score a batch.

        Args:
            pixels: (B, 3, S, S), from `preprocess`.
            object_name: What all of them show.

        Raises:
            UsageError: It knows another object only.
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
        precision: Kind = "float32",
        windows: Kind | None = None,
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
        self._memory: MemoryBank | None = None
        self._text = lru_cache(maxsize=256)(self._encode_text)

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return self.method.computation.size

    @property
    def map_range(self) -> tuple[float, float]:
        """The fixed scale of its maps."""
        return self.method.map_range if self._memory is None else self._few_shot.few_shot_map_range

    @property
    def needs_object(self) -> bool:
        """Whether the object's name makes a difference."""
        return self.method.info.needs_object

    def preprocess(self, picture: Image.Image) -> Tensor:
        """One picture as it takes it: (1, 3, S, S) float32 on the CPU."""
        return self.backbone.preprocess([picture], self.size)

    def run(self, pixels: Tensor, object_name: str) -> Run:
        """Score a batch: see `Engine`."""
        text = self._text(object_name)
        start = time.perf_counter()
        with torch.inference_mode():
            features = self._encode(pixels, few_shot=self._memory is not None)
            self._settle()
            encoded = time.perf_counter()
            prediction = self.score(features, text)
        return Run(prediction, encoded - start, time.perf_counter() - encoded)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """What the method says, with its memory if it has one; on the CPU, float32. Arguments as in `Method.score`."""
        memory = self._memory
        found = self.method.score(features, text) if memory is None else self._few_shot.score(features, text, memory)
        return Prediction(found.score.float().cpu(), found.map.float().cpu())

    def views(self, pixels: Tensor) -> tuple[View, ...]:
        """In which ways references like these (B, 3, S, S) are to be looked at; some of them are enough."""
        method = self._few_shot
        if len(method.turned_views) == 0 or len(pixels) < 2:
            return method.views
        with torch.inference_mode():
            turned = method.are_turned([self._seen(pixels, view) for view in method.turned_views])
        return method.turned_views if turned else method.views

    def build_memory_bank(self, batches: Iterable[Tensor], views: Sequence[View] = (View(),)) -> MemoryBank:
        """What the method keeps of normal pictures, on its device.

        Args:
            batches: (B, 3, S, S) each, from `preprocess`; at least one.
            views: In which ways each is looked at.
        """
        with torch.inference_mode():
            return MemoryBank.joined(
                [self._few_shot.build_memory_bank(*(self._seen(one, v) for v in views)) for one in batches]
            )

    def show(self, memory: MemoryBank, references: int, fingerprint: str) -> None:
        """Score with this memory from now on; not while another thread scores.

        Args:
            memory: From `build_memory_bank`.
            references: How many pictures it was made of.
            fingerprint: Of these pictures.
        """
        self._memory = memory
        self.provenance = replace(self.provenance, references=references, references_fingerprint=fingerprint)

    def forget(self) -> None:
        """Score zero-shot from now on; not while another thread scores."""
        self._memory = None
        self.provenance = replace(self.provenance, references=0, references_fingerprint=None)

    @property
    def memory(self) -> MemoryBank | None:
        """What is kept of reference pictures; None scores zero-shot."""
        return self._memory

    @property
    def _few_shot(self) -> FewShotMethod:
        if not isinstance(self.method, FewShotMethod):
            raise UsageError(f"{self.method.info.name} has no memory to keep reference pictures in")
        return self.method

    def _encode(self, pixels: Tensor, *, few_shot: bool) -> ImageFeatures:
        request = self._few_shot.few_shot_request if few_shot else self.method.request
        pixels, computation = pixels.to(self.device), self.method.computation
        return self.backbone.encode_image(pixels, request, computation, precision=self.precision, windows=self.windows)

    def _seen(self, pixels: Tensor, view: View) -> ImageFeatures:
        down, right = (round(part * self.backbone.patch) for part in view.shift)
        return self._encode(moved(turned(pixels, view.degrees), down, right), few_shot=True)

    def _encode_text(self, object_name: str) -> Tensor:
        """Text features (2, E) of one object name; kept, since they cost more than a picture."""
        with torch.inference_mode():
            return self.method.text_features([object_name])[0]

    def _settle(self) -> None:
        """Wait for the GPU, so that the timing says what it means."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def turned(pixels: Tensor, degrees: float) -> Tensor:
    """Pictures (B, 3, S, S) turned about their middle, counterclockwise; what comes in at the corners is mirrored."""
    if degrees % 90 == 0:
        return pixels.rot90(int(degrees // 90), (2, 3))
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = pixels.new_tensor([[c, -s, 0], [s, c, 0]]).expand(len(pixels), 2, 3)
    at = functional.affine_grid(turn, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, at, mode="bicubic", padding_mode="reflection", align_corners=False)


def moved(pixels: Tensor, down: int, right: int) -> Tensor:
    """Pictures (B, 3, S, S) moved by pixels, at least 0; what comes in at the edges is mirrored."""
    height, width = pixels.shape[2:]
    return functional.pad(pixels, (right, 0, down, 0), mode="reflect")[:, :, :height, :width]
