"""Run lengths of masks as COCO keeps them: uncompressed counts, column by column.

`{"size": [height, width], "counts": [zeros, ones, zeros, ...]}`, starting with the zeros (0 if the first pixel is
set), the pixels taken from top to bottom and then from left to right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError


def encode_mask(mask: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """Run lengths of a bool mask (H, W)."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return _from_changes(changes, mask.shape[0], mask.shape[1])


def encode_polygon(polygon: Iterable[Iterable[tuple[int, int]]], size: tuple[int, int]) -> dict[str, list[int]]:
    """Run lengths of a polygon on pixel edges, filled by the even-odd rule, without drawing it.

    Args:
        polygon: rings of (x, y) corners, each side along a pixel edge.
        size: (height, width) of the picture.
    """
    height, width = size
    changes = [np.empty(0, dtype=np.int64)]
    for ring in polygon:
        corners = np.asarray(list(ring), dtype=np.int64).reshape(-1, 2)
        after = np.roll(corners, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(corners.tolist(), after.tolist(), strict=True):
            if y0 == y1:
                # Going down a column, each horizontal side switches between outside and inside.
                changes.append(np.arange(min(x0, x1), max(x0, x1), dtype=np.int64) * height + y0)
    # A switch at the foot of one column and one at the head of the next are the same place and cancel out.
    places, times = np.unique(np.concatenate(changes), return_counts=True)
    return _from_changes(places[times % 2 == 1], height, width)


def decode_mask(runs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The bool mask (H, W) of uncompressed COCO run lengths.

    Raises:
        UsageError: the run lengths do not fill the picture.
    """
    height, width = runs["size"]
    counts = np.asarray(runs["counts"], dtype=np.int64)
    if counts.sum() != height * width or (counts < 0).any():
        raise UsageError(f"the run lengths must be positive and add up to {height} x {width} = {height * width}.")
    values = np.arange(counts.size) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")


def _from_changes(changes: npt.NDArray[np.int64], height: int, width: int) -> dict[str, list[int]]:
    """Counts from the column-major places where the mask switches, in ascending order."""
    inner = changes[changes < height * width]
    counts = np.diff(inner, prepend=0, append=height * width)
    return {"size": [height, width], "counts": counts.tolist()}
