"""A whole detector as one traced graph, from images to scores and maps."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from blemish.clip import Backbone, resize_positions, resolve_position
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.exporting.header import IMAGE, MAP, Header
from blemish.methods.base import MemoryBank, Method, Prediction, ReferenceMethod
from blemish.profile import halved, roi_from_text

#: Geometries that a graph can resize to, and their interpolation: Pillow's, which differs from PyTorch's on 8 bits by a
#: level at most.
RESIZINGS: dict[str, str] = {"squash": "bicubic", "squash-torch": "bicubic", "squash-bilinear": "bilinear"}
#: Fields of a memory bank whose values are rows.
_ROWS = ("taps", "windows")


class DetectorGraph(nn.Module):
    """A detector with constant text features and memory bank.

    Args:
        engine: An engine on the CPU in float32; the graph shares its weights and leaves it unchanged.
        memory: Memory bank of the references; None for zero-shot.
        header: Header of the exported file.
        resize: Whether images of any size are resized to S x S in the graph.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    outside: Tensor | None
    counted: Tensor | None

    def __init__(self, engine: TorchEngine, memory: MemoryBank | None, header: Header, *, resize: bool) -> None:
        super().__init__()
        self.header, self.resize = header, resize
        self.method = _with_fixed_positions(engine.method)
        backbone = self.method.backbone
        # Register the towers as submodules, so that the tracer finds their weights.
        self.vision = backbone.vision
        if isinstance(backbone, Backbone):
            self.projection = backbone.towers.visual_projection
            if self.method.reads_pictures:
                self.sentences, self.text_projection = backbone.towers.text_model, backbone.towers.text_projection
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        with torch.no_grad():
            self.register_buffer("text", self.method.text_features([header.object_name or "object"])[0].clone())
            self.memory = None if memory is None else self._keep(memory)
        roi = None if header.roi is None else roi_from_text(header.roi)
        outside = counted = None
        if roi is not None:
            outside = torch.from_numpy(~roi.resized(header.size, header.size))
            side = self._raw_side()
            counted = torch.from_numpy(roi.resized(side, side).copy()).flatten().nonzero()[:, 0]
        self.register_buffer("outside", outside)
        self.register_buffer("counted", counted)  # numbers of the values of a raw map that the score is of

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) float32 RGB in [0, 1] to the header's outputs."""
        header, prediction = self.header, self._predict(self._pixels(image))
        low, high = header.map_range
        score, maps = prediction.score, prediction.map
        if header.smoothing is not None:
            maps = self.method.finish_map(maps, header.size, header.size)
        if self.outside is not None and self.counted is not None:
            score = self._score_counted(prediction.map.float().flatten(1), self.counted)
            maps = maps.masked_fill(self.outside, low)
        score, maps, raw = score.clamp(0, 1), (maps - low) / (high - low), (prediction.map - low) / (high - low)
        further = () if header.raw == MAP else (raw,)
        if header.threshold is None or header.pixel_threshold is None:
            return score, maps, *further
        return score, score >= header.threshold, maps, maps >= header.pixel_threshold, *further

    def _score_counted(self, values: Tensor, numbers: Tensor) -> Tensor:
        """Return the scores of some values of raw maps (B, n), as `Method.score_inside` does."""
        if len(numbers) == 0:
            return torch.zeros_like(values[:, 0])
        return self.method.score_part(values[:, numbers], self.header.map_range)

    def _raw_side(self) -> int:
        """Return the side of the method's own maps."""
        size = self.header.size
        return int(self._predict(torch.zeros(1, 3, size, size)).map.shape[-1])

    def _keep(self, memory: MemoryBank) -> MemoryBank:
        """Register what a score needs of a memory bank, in half precision where that loses nothing; return the bank."""
        if isinstance(self.method, ReferenceMethod):
            memory = self.method.condensed(memory, self.text)
        # Tensors that were made in inference mode cannot be traced, so they are copied.
        for kind in _ROWS:
            for number, rows in enumerate(getattr(memory, kind).values()):
                self.register_buffer(f"{kind}_{number}", halved(rows).clone())
        return memory

    def _bank(self, memory: MemoryBank) -> MemoryBank:
        """Return a memory bank with the registered rows in float32."""
        rows: dict[str, Any] = {
            kind: {key: self.get_buffer(f"{kind}_{number}").float() for number, key in enumerate(getattr(memory, kind))}
            for kind in _ROWS
        }
        # A bank without rows may have cached what it scores with, which a new one would not have.
        return replace(memory, **rows) if any(rows.values()) else memory

    def _pixels(self, image: Tensor) -> Tensor:
        """Preprocess like `Backbone.preprocess`: Pillow filters rows first and rounds to 8 bits in between."""
        if self.resize:
            size, mode = self.header.size, RESIZINGS[self.header.geometry]
            image = image * 255
            for sides in ((image.shape[-2], size), (size, size)):
                image = F.interpolate(image, sides, mode=mode, align_corners=False, antialias=True)
                image = image.round().clamp(0, 255)
            image = image / 255
        return (image - self.mean) / self.std

    def _predict(self, pixels: Tensor) -> Prediction:
        method = self.method
        if self.memory is not None and isinstance(method, ReferenceMethod):
            features = method.backbone.encode_image(pixels, method.memory_request, method.computation)
            return method.score(features, self.text, self._bank(self.memory))
        return method.score(method.backbone.encode_image(pixels, method.request, method.computation), self.text)


def trace(graph: DetectorGraph) -> ExportedProgram:
    """Trace a graph for any batch size and, with `resize`, any image size.

    Raises:
        UsageError: The steps of the method depend on the content of the image.
    """
    side = graph.header.size
    # No side may equal S or the batch size, since the tracer would treat equal sizes as the same.
    shape = (2, 3, side + 3, side + 5) if graph.resize else (2, 3, side, side)
    dynamic = {0: Dim("batch")}
    if graph.resize:
        dynamic |= {2: Dim("height", min=2), 3: Dim("width", min=2)}
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), quiet():
        graph(image)  # make the constants that methods cache now, as real tensors and not the tracer's
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                # The tracer prints the whole graph on a failure.
                return torch.export.export(graph, (image,), dynamic_shapes={IMAGE: dynamic}, strict=False)
        except Exception as error:  # the tracer has no common base for what it cannot follow
            name = graph.header.provenance.method
            raise UsageError(
                f"{name} cannot be exported: its steps depend on the picture, which graphs cannot express"
            ) from error


def linear_weights(graph: DetectorGraph) -> list[Tensor]:
    """Return the weights of all linear layers in the vision tower's blocks, which int8 quantises."""
    return [layer.weight.detach() for layer in graph.vision.encoder.modules() if isinstance(layer, nn.Linear)]


def digest(values: NDArray[Any]) -> bytes:
    """Return a hash of shape, dtype and bytes, which finds a weight in the graph after the exporter renamed it."""
    head = f"{values.shape} {values.dtype}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).digest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and logs of the exporters; failures are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _with_fixed_positions(method: Method) -> Method:
    """Return a copy whose position embeddings are resized to the grid; it shares all other weights."""
    backbone = method.backbone
    shared: list[Any] = [*method.parameters(), *backbone.parameters()]
    if isinstance(backbone, Backbone):
        shared.append(backbone.tokenizer)
    memo = {id(part): part for part in shared}
    copied = copy.deepcopy(method, memo)
    side = method.computation.size // backbone.patch
    embedding = copied.backbone.vision.embeddings.position_embedding
    position = resolve_position(method.computation.position, backbone.registers)
    resized = resize_positions(embedding.weight.detach(), (side, side), position)
    embedding.weight = nn.Parameter(resized, requires_grad=False)
    return copied
