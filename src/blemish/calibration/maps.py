"""Calibration of pixel thresholds: from which value on a good picture shows no region.

A pixel threshold is calibrated like a picture threshold, with one number per good picture: the highest threshold at
which its map still has a region (`region_level`). At a threshold right above the k-th highest of these levels, a new
good picture shows a region with the probability that the scheme bounds. What raises a map raises its level. So if a map
is monotone in the references (no value rises when references are added), its level is too, and leave-one-out levels are
exact for the same reason as leave-one-out scores.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import Scores
from blemish.errors import UsageError

_EIGHT = np.ones((3, 3), dtype=bool)
#: Growth of the number of highest pixels among which a large enough region is looked for.
_GROWTH = 4


def region_level(
    anomaly_map: npt.NDArray[np.float32], min_area: int = 1, *, step: int = 1, size: tuple[int, int] | None = None
) -> float:
    """Return the highest value v at which {map >= v} has an 8-connected region of at least `min_area` pixels.

    The area of the largest region grows as v falls, so the level is exact: it is found among the values of the map.
    Regions and areas are those of `blemish.regions.find_regions`.

    Args:
        anomaly_map: (H, W) float32, finite.
        min_area: Smallest region that counts, in pixels of the picture.
        step: Side in pixels of the picture of the square that one value covers; cut at the right and lower edge.
        size: (width, height) of the picture, for a `step` above 1; None is (W * step, H * step).

    Returns:
        The level; -inf if the whole picture is smaller than `min_area`.

    Raises:
        UsageError: The map is not (H, W) or empty, or `min_area` is below 1.
    """
    values = np.asarray(anomaly_map, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise UsageError(f"an anomaly map must be (height, width), not {values.shape}")
    if min_area < 1:
        raise UsageError(f"min_area must be at least 1 pixel, not {min_area}")
    if min_area == 1:
        return float(values.max())
    height, width = values.shape
    across, down = (width * step, height * step) if size is None else size
    area = np.outer(
        np.minimum(step, down - np.arange(height) * step), np.minimum(step, across - np.arange(width) * step)
    )
    if int(area.sum()) < min_area:
        return -np.inf
    ranked = np.sort(values, axis=None)[::-1]

    def large_enough(level: np.float32) -> bool:
        return _largest_area(values >= level, area) >= min_area

    # A region of that area needs that many pixels, so the search starts there and widens.
    high = -(-min_area // (step * step)) - 1
    low = high
    while not large_enough(ranked[low]):
        high = low + 1
        low = min(low * _GROWTH + 1, ranked.size - 1)
    while high < low:
        middle = (high + low) // 2
        if large_enough(ranked[middle]):
            low = middle
        else:
            high = middle + 1
    return float(ranked[low])


def region_levels(
    anomaly_maps: Iterable[npt.NDArray[np.float32]],
    min_area: int = 1,
    *,
    step: int = 1,
    size: tuple[int, int] | None = None,
) -> Scores:
    """Return the `region_level` of each map, (n,) float32: the scores that a pixel threshold is calibrated with."""
    levels = [region_level(values, min_area, step=step, size=size) for values in anomaly_maps]
    # A picture without any region of that size is below every threshold; float32 has a lowest finite number for it.
    return np.maximum(np.asarray(levels, dtype=np.float32), np.finfo(np.float32).min)


def _largest_area(mask: npt.NDArray[np.bool_], area: npt.NDArray[np.int64]) -> int:
    """Return the area of the largest 8-connected region of a mask with at least one pixel set."""
    from scipy import ndimage  # takes a while to import, and is needed here only

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(mask[box], structure=_EIGHT)
    sums = np.bincount(labels.ravel(), weights=area[box].ravel())
    return round(float(sums[1:].max()))
