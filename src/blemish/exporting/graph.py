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
from blemish.exporting.header import IMAGE, Header
from blemish.methods.base import MemoryBank, Method, Prediction, ReferenceMethod
from blemish.profile import roi_from_text


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
    inside: Tensor | None

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
        self.memory = _without_inference_mode(memory)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        roi = None if header.roi is None else roi_from_text(header.roi)
        inside = None if roi is None else torch.from_numpy(roi.resized(header.size, header.size).copy())
        self.register_buffer("inside", inside)
        with torch.no_grad():
            self.register_buffer("text", self.method.text_features([header.object_name or "object"])[0].clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) float32 RGB in [0, 1] to the header's outputs."""
        prediction = self._predict(self._pixels(image))
        low, high = self.header.map_range
        if self.inside is not None:
            score = self.method.score_inside(prediction.map, self.inside, (low, high))
            prediction = Prediction(score, prediction.map.masked_fill(~self.inside, low))
        score, maps = prediction.score.clamp(0, 1), (prediction.map - low) / (high - low)
        if self.header.threshold is None or self.header.pixel_threshold is None:
            return score, maps
        return score, score >= self.header.threshold, maps, maps >= self.header.pixel_threshold

    def _pixels(self, image: Tensor) -> Tensor:
        """Preprocess like `Backbone.preprocess`: Pillow filters rows first and rounds to 8 bits in between."""
        if self.resize:
            size = self.header.size
            image = image * 255
            for sides in ((image.shape[-2], size), (size, size)):
                image = F.interpolate(image, sides, mode="bicubic", align_corners=False, antialias=True)
                image = image.round().clamp(0, 255)
            image = image / 255
        return (image - self.mean) / self.std

    def _predict(self, pixels: Tensor) -> Prediction:
        method = self.method
        if self.memory is not None and isinstance(method, ReferenceMethod):
            features = method.backbone.encode_image(pixels, method.memory_request, method.computation)
            return method.score(features, self.text, self.memory)
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


def _without_inference_mode(memory: MemoryBank | None) -> MemoryBank | None:
    """Copy the tensors of a memory bank, since tensors made in inference mode cannot be traced."""
    if memory is None:
        return None
    taps = {tap: rows.clone() for tap, rows in memory.taps.items()}
    return replace(memory, taps=taps, windows={side: rows.clone() for side, rows in memory.windows.items()})
