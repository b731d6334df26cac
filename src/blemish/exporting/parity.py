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

from blemish.engine import Engine
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
        if roi is not None:
            expected = prediction_inside(reference, expected, roi, memory)
        count += len(batch)
        if actual.map.shape != expected.map.shape:  # some runtimes return empty arrays instead of an error
            return Parity(count, images is not None, math.inf, math.inf, math.inf)
        difference = (actual.map - expected.map).abs() / (high - low)
        max_score = max(max_score, float((actual.score - expected.score.clamp(0, 1)).abs().max()))
        max_map, sum_map = max(max_map, float(difference.max())), sum_map + float(difference.mean()) * len(batch)
    return Parity(count, images is not None, max_score, max_map, sum_map / max(count, 1))


def prediction_inside(engine: Engine, prediction: Prediction, roi: Roi, memory: MemoryBank | None) -> Prediction:
    """Return what a file with a region of interest gives: scores of the inside, maps with their lowest value
    outside.
    """
    inside = torch.from_numpy(roi.resized(prediction.map.shape[-1], prediction.map.shape[-2]).copy())
    pairs = zip(prediction.score.tolist(), prediction.map, strict=True)
    scores = [engine.score_inside(score, one_map, inside, memory) for score, one_map in pairs]
    maps = prediction.map.masked_fill(~inside, engine.map_range(memory)[0])
    return Prediction(torch.tensor(scores), maps)


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
