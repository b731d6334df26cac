"""Differences between an exported file and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from blemish.engine import Engine
from blemish.exporting.engine import ExportedEngine
from blemish.exporting.header import MAP
from blemish.image_io import LoadedImage
from blemish.methods.base import MemoryBank, Prediction
from blemish.roi import Roi

#: Number of random textures.
TEXTURES = 4
#: Largest allowed difference of a float32 file, for the score and for the map scaled to [0, 1].
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """Differences between a file and PyTorch, from the image to the result."""

    pictures: int
    """Number of images."""
    given: bool
    """Whether the images were given; else they are random textures."""
    score: float
    """Largest difference of the image score."""
    map: float
    """Largest difference at any pixel of the map scaled to [0, 1]."""
    mean_map: float
    """Mean difference over all pixels of the map scaled to [0, 1]."""


def compare(
    reference: Engine,
    exported: Engine,
    images: Iterable[LoadedImage] | None,
    object_name: str,
    memory: MemoryBank | None = None,
    roi: Roi | None = None,
) -> Parity:
    """Run two engines over the same images, first one image and then two at a time, since a file takes any batch.

    Args:
        reference: The engine of the detector.
        exported: The engine of the exported file.
        images: The images; None makes random textures.
        object_name: Name of the object.
        memory: Memory bank of the reference engine; the file contains its own.
        roi: Region of interest that is part of the file.

    Raises:
        ImageError: An image cannot be read.
    """
    low, high = reference.map_range(memory)
    batch_sizes = chain([1], repeat(2))
    remaining = iter(textures() if images is None else images)
    count, max_score, max_map, sum_map = 0, 0.0, 0.0, 0.0
    while batch := list(islice(remaining, next(batch_sizes))):
        expected, actual = (
            engine.run(torch.cat([engine.preprocess(image.image) for image in batch]), object_name, bank).prediction
            for engine, bank in ((reference, memory), (exported, None))
        )
        pairs = [(actual.map, expected.map)]
        if isinstance(exported, ExportedEngine) and exported.header.raw != MAP:
            pixels = torch.cat([exported.preprocess(image.image) for image in batch])
            final = exported.final_maps(pixels) * (high - low) + low
            pairs.append((final, _final_maps(reference, expected.map, exported.size, roi, low)))
        if roi is not None:
            expected = _scored_inside(reference, expected, roi, memory)
        count += len(batch)
        if any(
            actual_map.shape != expected_map.shape for actual_map, expected_map in pairs
        ):  # some runtimes return empty arrays, and no error
            return Parity(count, images is not None, math.inf, math.inf, math.inf)
        max_score = max(max_score, float((actual.score - expected.score.clamp(0, 1)).abs().max()))
        differences = [(actual_map - expected_map).abs() / (high - low) for actual_map, expected_map in pairs]
        max_map = max(max_map, *(float(each.max()) for each in differences))
        sum_map += float(differences[0].mean()) * len(batch)
    return Parity(count, images is not None, max_score, max_map, sum_map / max(count, 1))


def _scored_inside(engine: Engine, prediction: Prediction, roi: Roi, memory: MemoryBank | None) -> Prediction:
    """Return a prediction with the scores of the region of interest."""
    inside = torch.from_numpy(roi.resized(prediction.map.shape[-1], prediction.map.shape[-2]).copy())
    pairs = zip(prediction.score.tolist(), prediction.map, strict=True)
    scores = [engine.score_inside(score, one_map, inside, memory) for score, one_map in pairs]
    return Prediction(torch.tensor(scores), prediction.map)


def _final_maps(engine: Engine, maps: Tensor, size: int, roi: Roi | None, low: float) -> Tensor:
    """Return what a file gives to others for maps (B, h, w): finished at S x S, with the lowest value outside."""
    finished = torch.stack([engine.finish_map(one_map, size, size) for one_map in maps])
    if roi is None:
        return finished
    return finished.masked_fill(torch.from_numpy(~roi.resized(size, size)), low)


def textures(count: int = TEXTURES, size: tuple[int, int] = (480, 360)) -> Iterator[LoadedImage]:
    """Yield grainy surfaces with a spot on each, the same in every call.

    Args:
        count: Number of textures.
        size: Width and height in pixels.
    """
    width, height = size
    for number in range(count):
        rng = np.random.default_rng(number)
        fine, coarse = (ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (s, s, 0)) for s in (1, 12))
        grain = fine / fine.std() * 12 + coarse / coarse.std() * 25 + rng.uniform(80, 170, 3)
        y, x = rng.integers(40, height - 40), rng.integers(40, width - 40)
        grain[y - 15 : y + 15, x - 10 : x + 10] += rng.choice([-70, 70])
        yield LoadedImage(Image.fromarray(grain.clip(0, 255).astype(np.uint8)), notes=("made at random",))
