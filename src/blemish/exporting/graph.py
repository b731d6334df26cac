"""A whole detector as one traced graph: pictures in, score and map out."""

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

from blemish.clip import resize_positions
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.exporting.header import IMAGE, Header
from blemish.methods.base import MemoryBank, Method, Prediction, ReferenceMethod


class Whole(nn.Module):
    """A detector with its text features and references folded in.

    Args:
        engine: float32, on the CPU; it is copied where it has to be changed, and shares its weights.
        memory: References that are folded in; None for zero-shot.
        header: Of the file it is to be.
        resize: Take pictures of any size; without, they are S x S.
    """

    mean: Tensor
    std: Tensor
    text: Tensor

    def __init__(self, engine: TorchEngine, memory: MemoryBank | None, header: Header, *, resize: bool) -> None:
        super().__init__()
        self.header, self.resize = header, resize
        self.method = _fixed(engine.method)
        model = self.method.backbone.towers
        # submodules, so that their weights are found
        self.vision, self.projection = model.vision_model, model.visual_projection
        if self.method.reads_pictures:
            self.sentences, self.text_projection = model.text_model, model.text_projection
        self.memory = _plain(memory)
        backbone = self.method.backbone
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        with torch.no_grad():
            self.register_buffer("text", self.method.text_features([header.object_name or "object"])[0].clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 RGB in [0, 1] to the header's outputs."""
        found = self._predict(self._pixels(image))
        low, high = self.header.map_range
        score, maps = found.score.clamp(0, 1), (found.map - low) / (high - low)
        if self.header.threshold is None or self.header.pixel_threshold is None:
            return score, maps
        return score, score >= self.header.threshold, maps, maps >= self.header.pixel_threshold

    def _pixels(self, image: Tensor) -> Tensor:
        """As `Backbone.preprocess`: Pillow's filter goes along rows first, and rounds to whole 255ths in between."""
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


def trace(whole: Whole) -> ExportedProgram:
    """The graph of a detector, for any batch and, with `resize`, any picture size.

    Raises:
        UsageError: The method does with a picture what no fixed graph can do.
    """
    side = whole.header.size
    # no side equal to S or to the batch: the tracer would take them for one and the same
    shape = (2, 3, side + 3, side + 5) if whole.resize else (2, 3, side, side)
    dynamic = {0: Dim("batch")}
    if whole.resize:
        dynamic |= {2: Dim("height", min=2), 3: Dim("width", min=2)}
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), quiet():
        whole(image)  # constants that methods keep are then real tensors, not the tracer's
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                # on a failure the tracer prints the whole graph
                return torch.export.export(whole, (image,), dynamic_shapes={IMAGE: dynamic}, strict=False)
        except Exception as error:  # the tracer has no common base for what it cannot follow
            name = whole.header.provenance.method
            raise UsageError(
                f"{name} cannot be exported: its steps depend on the picture, which no fixed graph can hold"
            ) from error


def linear_weights(whole: Whole) -> list[Tensor]:
    """The weights of all linear layers in the vision tower's blocks: what int8 is for."""
    return [one.weight.detach() for one in whole.vision.encoder.modules() if isinstance(one, nn.Linear)]


def digest(values: NDArray[Any]) -> bytes:
    """What tells one array from another: shape, type and bytes. Exporters rename weights, but do not change them."""
    told = f"{values.shape} {values.dtype}".encode()
    return hashlib.sha256(told + np.ascontiguousarray(values).tobytes()).digest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings and logs to themselves: what fails is raised, and the rest is no one's business."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _fixed(method: Method) -> Method:
    """A copy that shares all weights but the positions, which are resized to the grid once and for all."""
    backbone = method.backbone
    shared = [*method.parameters(), *backbone.parameters()]
    memo = {id(one): one for one in [*shared, backbone.tokenizer]}
    copied = copy.deepcopy(method, memo)
    side = method.computation.size // backbone.patch
    embedding = copied.backbone.towers.vision_model.embeddings.position_embedding
    resized = resize_positions(embedding.weight.detach(), (side, side), method.computation.position)
    embedding.weight = nn.Parameter(resized, requires_grad=False)
    return copied


def _plain(memory: MemoryBank | None) -> MemoryBank | None:
    """The memory in ordinary tensors: those made in inference mode cannot be traced."""
    if memory is None:
        return None
    taps = {tap: rows.clone() for tap, rows in memory.taps.items()}
    return replace(memory, taps=taps, windows={side: rows.clone() for side, rows in memory.windows.items()})
