"""How far an exported file is from PyTorch, on pictures."""

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
from blemish.methods.base import MemoryBank

#: Pictures that are made where none are given.
MADE = 4
#: Of a float32 file: a larger difference, of the score or of the map on its scale from 0 to 1, is a wrong file.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """Differences between a file and PyTorch, each from the picture to the result."""

    pictures: int
    given: bool
    """The pictures were the user's; else textures made at random."""
    score: float
    """The largest difference of the image score."""
    map: float
    """The largest difference at any pixel, on the map's scale from 0 to 1."""
    mean_map: float
    """The mean over all pixels."""


def compare(
    ours: Engine,
    theirs: Engine,
    pictures: Iterable[LoadedImage] | None,
    object_name: str,
    memory: MemoryBank | None = None,
) -> Parity:
    """Run two engines over the same pictures, one alone and then two at a time: a file takes any batch.

    Args:
        ours: The one that is right.
        theirs: The exported file.
        pictures: None makes textures.
        object_name: What they show.
        memory: References of the engine that is right; in the file they are folded in.

    Raises:
        ImageError: A picture cannot be read.
    """
    low, high = ours.map_range(memory)
    sizes = chain([1], repeat(2))
    shown = iter(textures() if pictures is None else pictures)
    count, scores, maps, means = 0, 0.0, 0.0, 0.0
    while batch := list(islice(shown, next(sizes))):
        expected, found = (
            engine.run(torch.cat([engine.preprocess(picture.image) for picture in batch]), object_name, bank).prediction
            for engine, bank in ((ours, memory), (theirs, None))
        )
        count += len(batch)
        if found.map.shape != expected.map.shape:  # runtimes have been seen to give nothing, and no error either
            return Parity(count, pictures is not None, math.inf, math.inf, math.inf)
        apart = (found.map - expected.map).abs() / (high - low)
        scores = max(scores, float((found.score - expected.score.clamp(0, 1)).abs().max()))
        maps, means = max(maps, float(apart.max())), means + float(apart.mean()) * len(batch)
    return Parity(count, pictures is not None, scores, maps, means / max(count, 1))


def textures(count: int = MADE, size: tuple[int, int] = (480, 360)) -> Iterator[LoadedImage]:
    """Grainy surfaces with a spot on each, the same every time.

    Args:
        count: How many.
        size: (width, height) in pixels.
    """
    width, height = size
    for number in range(count):
        rng = np.random.default_rng(number)
        fine, coarse = (ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (s, s, 0)) for s in (1, 12))
        grain = fine / fine.std() * 12 + coarse / coarse.std() * 25 + rng.uniform(80, 170, 3)
        y, x = rng.integers(40, height - 40), rng.integers(40, width - 40)
        grain[y - 15 : y + 15, x - 10 : x + 10] += rng.choice([-70, 70])
        yield LoadedImage(Image.fromarray(grain.clip(0, 255).astype(np.uint8)), notes=("made at random",))
