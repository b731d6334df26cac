"""Pictures' maps and masks, one at a time, into a ranking of all their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from blemish.metrics.checks import Bools, Floats, MetricInputError, as_binary, as_scores
from blemish.metrics.ranking import Keys, Ranking, from_keys, rank_regions, to_keys

Pictures = ArrayLike | Iterable[ArrayLike]
MaybeMasks = ArrayLike | Iterable[ArrayLike | None]

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
_MISSING: Any = object()


def pairs(masks: MaybeMasks, maps: Pictures) -> Iterator[tuple[Bools | None, Floats]]:
    """Yield (mask or None, map) per picture, checked; None is a mask without a single anomalous pixel.

    Raises:
        MetricInputError: counts or shapes differ, a picture is not 2-D, a mask is not 0/1, a map is not finite.
    """
    for index, (mask, scores) in enumerate(
        zip_longest(_one_by_one(masks, "masks"), _one_by_one(maps, "maps"), fillvalue=_MISSING)
    ):
        if mask is _MISSING or scores is _MISSING:
            fewer = "masks" if mask is _MISSING else "maps"
            raise MetricInputError(f"masks and maps must be equally many, but there are only {index} {fewer}.")
        yield checked_pair(mask, scores, f" of picture {index}")


def checked_pair(mask: ArrayLike | None, scores: ArrayLike, which: str = "") -> tuple[Bools | None, Floats]:
    """Check one picture; `which` completes the messages, as in "the map of picture 3"."""
    values = as_scores(scores, f"the map{which}")
    if values.ndim != 2:
        raise MetricInputError(f"the map{which} must be (height, width), but has shape {values.shape}.")
    if mask is None:
        return None, values
    flags = as_binary(mask, f"the mask{which}")
    if flags.shape != values.shape:
        raise MetricInputError(
            f"the mask{which} must be as large as its map, but their shapes are {flags.shape} and {values.shape}."
        )
    return (flags if flags.any() else None), values


def label_regions(mask: Bools) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Regions of a mask with at least one pixel set: pixels that touch, corners included (8 neighbours).

    Returns:
        (P,) region number from 0 of each set pixel in row-major order, and (R,) pixels per region.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Only the box around the defect is labelled: most of a picture is sound.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labelled, _ = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)
    numbers: NDArray[np.int32] = labelled[box].astype(np.int32) - np.int32(1)
    return numbers, np.bincount(numbers).astype(np.int64)


def rank_pixels(masks: MaybeMasks, maps: Pictures) -> Ranking:
    """Rank all pixels of all pictures, remembering the region of each anomalous one.

    Raises:
        MetricInputError: as `pairs`, or there is not one pixel.
    """
    negatives, positives = _Growing(_pixel_count(maps)), _Growing()
    regions: list[NDArray[np.int32]] = []
    areas: list[NDArray[np.int64]] = []
    known = 0
    for mask, scores in pairs(masks, maps):
        keys = to_keys(scores)
        if mask is None:
            negatives.add(keys.ravel())
            continue
        negatives.add(keys[~mask])
        positives.add(keys[mask])
        numbers, sizes = label_regions(mask)
        regions.append(numbers + np.int32(known))
        areas.append(sizes)
        known += sizes.size
    if negatives.filled + positives.filled == 0:
        raise MetricInputError("there is nothing to measure: no picture has a pixel.")
    low, high = negatives.values(), positives.values()
    if low.dtype != high.dtype:
        low, high = _widened(low), _widened(high)
    none = np.empty(0, dtype=np.int64)
    return rank_regions(high, np.concatenate([none.astype(np.int32), *regions]), low, np.concatenate([none, *areas]))


def _one_by_one(pictures: Any, what: str) -> Iterator[Any]:
    if isinstance(pictures, np.ndarray) and pictures.ndim == 2:
        return iter((pictures,))
    try:
        return iter(pictures)
    except TypeError as problem:
        raise MetricInputError(f"{what} must be one array per picture, not {type(pictures).__name__}.") from problem


def _pixel_count(maps: Any) -> int:
    """How many pixels to expect where that can be known without reading a file; 0 otherwise."""
    if isinstance(maps, np.ndarray):
        return maps.size
    if isinstance(maps, list | tuple) and all(isinstance(one, np.ndarray) for one in maps):
        return sum(one.size for one in maps)
    return 0


def _widened(keys: Keys) -> Keys:
    return keys if keys.dtype == np.int64 else to_keys(from_keys(keys).astype(np.float64))


class _Growing:
    """Keys gathered from many pictures into one array, held once.

    Room that was reserved but never written costs no memory, so a known total is reserved at once.
    """

    def __init__(self, expected: int = 0) -> None:
        self._room: Keys = np.empty(max(expected, 1 << 16), dtype=np.int32)
        self.filled = 0

    def add(self, keys: Keys) -> None:
        if keys.dtype != self._room.dtype:
            # One float64 map among float32 ones: all become float64, which keeps every value as it is.
            keys = _widened(keys)
            if self._room.dtype != np.int64:
                narrow, self._room = self._room, np.empty(self._room.size, dtype=np.int64)
                self._room[: self.filled] = _widened(narrow[: self.filled])
        end = self.filled + keys.size
        if end > self._room.size:
            held = self._room[: self.filled]
            self._room = np.empty(max(end, 2 * self._room.size), dtype=self._room.dtype)
            self._room[: self.filled] = held
        self._room[self.filled : end] = keys
        self.filled = end

    def values(self) -> Keys:
        return self._room[: self.filled]
