"""Connected regions of a mask, with outlines along pixel edges.

Coordinates are image pixels, x to the right and y down. Points are pixel corners, so pixel (x, y) is the square from
(x, y) to (x + 1, y + 1), a box is half-open, and polygons enclose exactly the pixels of their region.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError

Ring = tuple[tuple[int, int], ...]
"""A closed outline: (x, y) corners. The last joins the first, and no three consecutive corners are on one line."""

_Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """One 8-connected region of a mask.

    Attributes:
        box: (x0, y0, x1, y1), half-open: the region covers columns x0..x1-1 and rows y0..y1-1.
        polygon: Rings along pixel edges; the first is the outline (clockwise on screen), the others are holes
            (counter-clockwise). Filling them by the even-odd rule reproduces the region.
        area: Number of pixels.
        peak: Highest value of the anomaly map inside.
        mean: Mean value of the anomaly map inside.
        centroid: (x, y) mean of the pixel centres.
    """

    box: tuple[int, int, int, int]
    polygon: tuple[Ring, ...]
    area: int
    peak: float
    mean: float
    centroid: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return dict(vars(self))


def find_regions(
    mask: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float32],
    *,
    min_area: int = 1,
    step: int = 1,
    size: tuple[int, int] | None = None,
) -> tuple[Region, ...]:
    """Split a mask into its 8-connected regions.

    Args:
        mask: (H, W) bool.
        values: (H, W) anomaly map, for the peak and the mean of each region.
        min_area: Minimum area in image pixels; smaller regions are left out.
        step: Side in image pixels of the square that one mask cell covers; it is cut at the right and lower edge.
        size: (width, height) of the image, for a `step` above 1; None is (W * step, H * step).

    Returns:
        Regions in image pixels, highest peak first; equal peaks by area, then from top to bottom.

    Raises:
        UsageError: The shapes differ or are not (H, W).
    """
    if mask.shape != values.shape or mask.ndim != 2:
        raise UsageError(f"mask and values must have the same shape (H, W), not {mask.shape} and {values.shape}.")
    width, height = (mask.shape[1] * step, mask.shape[0] * step) if size is None else size
    # Only the part with regions is looked at: most maps have little above a threshold.
    marked_rows = np.flatnonzero(mask.any(axis=1))
    if marked_rows.size == 0:
        return ()
    top, bottom = int(marked_rows[0]), int(marked_rows[-1]) + 1
    marked_columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(marked_columns[0]), int(marked_columns[-1]) + 1
    marked = mask[top:bottom, left:right]
    inside = values[top:bottom, left:right][marked]
    outlines = _Outlines.of(marked)
    # In image pixels, a run covers the box from (x0, y0) to (x1, y1). Sums over its pixels are differences of squares.
    x0, x1 = (outlines.run_starts + left) * step, np.minimum((outlines.run_ends + left) * step, width)
    y0 = (outlines.run_rows + top) * step
    y1 = np.minimum(y0 + step, height)
    owner = outlines.run_regions
    area = np.bincount(owner, weights=(x1 - x0) * (y1 - y0))
    centre_x = np.bincount(owner, weights=(x1**2 - x0**2) * (y1 - y0)) / (2 * area)
    centre_y = np.bincount(owner, weights=(y1**2 - y0**2) * (x1 - x0)) / (2 * area)
    lengths = outlines.run_ends - outlines.run_starts
    peak = np.full(area.size, -np.inf, dtype=inside.dtype)
    np.maximum.at(peak, owner, np.maximum.reduceat(inside, np.cumsum(lengths) - lengths))
    if step > 1:
        across = np.minimum(step, width - np.arange(left, right) * step)
        down = np.minimum(step, height - np.arange(top, bottom) * step)
        inside = inside * np.outer(down, across)[marked]
    mean = np.bincount(np.repeat(owner, lengths), weights=inside) / area
    rings = outlines.rings(np.minimum((outlines.x + left) * step, width), np.minimum((outlines.y + top) * step, height))
    regions = []
    for number in np.flatnonzero(area >= min_area).tolist():
        # The outline is the ring that reaches the left-most column of the region; a hole never does.
        polygon = sorted((rings[ring] for ring in outlines.region_rings[number]), key=lambda ring: min(ring)[0])
        across_, down_ = zip(*polygon[0], strict=True)
        regions.append(
            Region(
                box=(min(across_), min(down_), max(across_), max(down_)),
                polygon=tuple(polygon),
                area=int(area[number]),
                peak=float(peak[number]),
                mean=float(mean[number]),
                centroid=(float(centre_x[number]), float(centre_y[number])),
            )
        )
    regions.sort(key=lambda region: (-region.peak, -region.area, region.box[1], region.box[0]))
    return tuple(regions)


def trace(mask: npt.NDArray[np.bool_]) -> list[Ring]:
    """Trace the outlines of a mask along its pixel edges.

    Pixels that touch only at a corner are connected (8-connectivity), so a ring may touch itself there.

    Args:
        mask: (H, W) bool.

    Returns:
        Rings; outer outlines run clockwise on screen, holes counter-clockwise. Even-odd filling reproduces the mask.
    """
    outlines = _Outlines.of(mask)
    return outlines.rings(outlines.x, outlines.y)


@dataclass(frozen=True, eq=False)
class _Outlines:
    """The outlines of a mask, and its runs: the unbroken pieces of its rows, from top to bottom and left to right.

    Attributes:
        x: Corners of all rings, one ring after the other.
        y: The same.
        ends: Where each ring ends in them.
        run_rows: Row of each run.
        run_starts: First column of each run.
        run_ends: Column behind each run.
        run_regions: Region of each run; regions are numbered by their first pixel.
        region_rings: The rings of each region.
    """

    x: _Integers
    y: _Integers
    ends: _Integers
    run_rows: _Integers
    run_starts: _Integers
    run_ends: _Integers
    run_regions: _Integers
    region_rings: list[list[int]]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> _Outlines:
        """Return the outlines of a mask (H, W)."""
        height, width = mask.shape
        padded = np.zeros((height + 2, width + 2), dtype=bool)
        padded[1:-1, 1:-1] = mask
        # The four pixels around each corner. An edge leaves a corner with the mask on its right hand.
        nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        corners = (height + 1) * (width + 1)
        leaving = [np.flatnonzero(out) for out in (se > ne, sw > se, nw > sw, ne > nw)]  # right, down, left, up
        edges = np.concatenate([start + turn * corners for turn, start in enumerate(leaving)])
        heading = np.repeat(np.arange(4), [start.size for start in leaving])
        end = np.concatenate(
            [start + move for start, move in zip(leaving, (1, width + 1, -1, -width - 1), strict=True)]
        )
        # Two edges leave a corner where the mask touches itself diagonally; turning left keeps it connected.
        follow = np.zeros_like(edges)
        todo = np.arange(edges.size)
        for turn in (-1, 0, 1):
            candidate = (heading[todo] + turn) % 4 * corners + end[todo]
            index = np.minimum(np.searchsorted(edges, candidate), edges.size - 1)
            exists = edges[index] == candidate
            follow[todo[exists]] = index[exists]
            todo = todo[~exists]
        order, lengths = _cycles(follow)
        ring = np.empty_like(edges)
        ring[order] = np.repeat(np.arange(lengths.size), lengths)
        bends = order[heading[order] != heading[follow[order]]]
        down, up = (slice(*np.cumsum([0, *map(len, leaving)])[turn : turn + 2]) for turn in (1, 3))
        # Each run begins at an edge that goes up and ends at one that goes down: their rings are of one region.
        region_of, region_rings = _joined(lengths.size, ring[up], ring[down])
        run_rows, run_starts = np.divmod(end[up], width + 1)
        return cls(
            x=end[bends] % (width + 1),
            y=end[bends] // (width + 1),
            ends=np.cumsum(np.bincount(ring[bends], minlength=lengths.size)),
            run_rows=run_rows,
            run_starts=run_starts,
            run_ends=leaving[1] % (width + 1),
            run_regions=region_of[ring[up]],
            region_rings=region_rings,
        )

    def rings(self, x: _Integers, y: _Integers) -> list[Ring]:
        """Return the rings with these coordinates in place of `x` and `y`."""
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        return [tuple(points[start:end]) for start, end in pairwise([0, *self.ends.tolist()])]


def _cycles(follow: _Integers) -> tuple[_Integers, _Integers]:
    """Return the cycles of `follow`, one after the other and each from its smallest number on, and their lengths."""
    following = follow.tolist()
    visited = bytearray(len(following))
    order: list[int] = []
    starts = []
    first = visited.find(0)
    while first >= 0:
        starts.append(len(order))
        number = first
        while not visited[number]:
            visited[number] = 1
            order.append(number)
            number = following[number]
        first = visited.find(0, first)
    return np.array(order, dtype=np.int64), np.diff([*starts, len(order)])


def _joined(count: int, left: _Integers, right: _Integers) -> tuple[_Integers, list[list[int]]]:
    """Join numbers below `count` that stand for the same; return the group of each, and the numbers of each group.

    Args:
        count: How many numbers there are.
        left: Numbers.
        right: For each, a number that stands for the same.
    """
    smallest = list(range(count))

    def find(number: int) -> int:
        while smallest[number] != number:
            smallest[number] = number = smallest[smallest[number]]
        return number

    differ = left != right
    for first, second in set(zip(left[differ].tolist(), right[differ].tolist(), strict=True)):
        low, high = sorted((find(first), find(second)))
        smallest[high] = low
    groups: dict[int, list[int]] = {}
    for number in range(count):
        groups.setdefault(find(number), []).append(number)
    group_of = np.empty(count, dtype=np.int64)
    for group, numbers in enumerate(groups.values()):
        group_of[numbers] = group
    return group_of, list(groups.values())


def encode_mask(mask: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return the COCO run lengths of a bool mask (H, W).

    {"size": [height, width], "counts": [zeros, ones, zeros, ...]}, uncompressed, column by column from top to bottom,
    starting with the zeros (0 if the first pixel is set).
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return _from_changes(changes, mask.shape[0], mask.shape[1])


def encode_polygon(polygon: Iterable[Iterable[tuple[int, int]]], size: tuple[int, int]) -> dict[str, list[int]]:
    """Return the COCO run lengths of a polygon on pixel edges, filled by the even-odd rule, without drawing it.

    Args:
        polygon: Rings of (x, y) corners, each side along a pixel edge.
        size: (height, width) of the image.
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
    # A switch at the end of one column and one at the start of the next are the same position and cancel out.
    positions, times = np.unique(np.concatenate(changes), return_counts=True)
    return _from_changes(positions[times % 2 == 1], height, width)


def _from_changes(changes: npt.NDArray[np.int64], height: int, width: int) -> dict[str, list[int]]:
    """Return the run lengths from the column-major positions where the mask switches, in ascending order."""
    inner = changes[changes < height * width]
    counts = np.diff(inner, prepend=0, append=height * width)
    return {"size": [height, width], "counts": counts.tolist()}


def decode_mask(runs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Return the bool mask (H, W) of COCO run lengths, uncompressed or compressed.

    Args:
        runs: {"size": [height, width], "counts": [zeros, ones, ...]}, or the text that pycocotools makes of the counts.

    Raises:
        ValueError: The counts do not fill the size.
    """
    height, width = (int(side) for side in runs["size"])
    counts = runs["counts"]
    lengths = _decompress(counts) if isinstance(counts, (str, bytes)) else [int(count) for count in counts]
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"run lengths of {sum(lengths)} pixels for {height} x {width}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(height, width, order="F")


def compress_counts(counts: Sequence[int]) -> str:
    """Return COCO's text of run lengths, as pycocotools writes it: the inverse of what `decode_mask` reads."""
    text = []
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text.append(chr(48 + (bits if done else bits | 32)))
            if done:
                break
    return "".join(text)


def _decompress(text: str | bytes) -> list[int]:
    """Return the run lengths of COCO's text: 5 bits per character, lowest first; from the fourth on, differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii") if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of this count; bit 4 is its sign
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def fill_polygon(rings: Iterable[Iterable[tuple[float, float]]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres lie inside a polygon, by the even-odd rule; the inverse of `trace`.

    Args:
        rings: Rings of (x, y) points in pixels, possibly beyond the image.
        size: (height, width) of the image.

    Returns:
        (H, W) bool.
    """
    height, width = size
    inside = np.zeros((height, width), dtype=bool)
    loops = [np.asarray(list(ring), dtype=np.float64).reshape(-1, 2) for ring in rings]
    corners = np.concatenate([np.empty((0, 2)), *loops])
    if not corners.size:
        return inside
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    x_start, x_end = (int(min(max(x, 0), width)) for x in (left, right))
    y_start, y_end = (int(min(max(y, 0), height)) for y in (top, bottom))
    switches = np.zeros((y_end - y_start, x_end - x_start + 1), dtype=np.int32)
    for loop in loops:
        for (x0, y0), (x1, y1) in zip(loop.tolist(), np.roll(loop, -1, axis=0).tolist(), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            # The centres of these rows are level with the side, which each of them crosses once.
            rows = np.arange(max(math.ceil(y0 - 0.5), y_start), min(math.ceil(y1 - 0.5), y_end))
            if rows.size:
                crossing = np.ceil(x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) - 0.5)
                columns = np.clip(crossing, x_start, x_end).astype(np.int64) - x_start
                np.add.at(switches, (rows - y_start, columns), 1)
    inside[y_start:y_end, x_start:x_end] = np.cumsum(switches, axis=1)[:, :-1] % 2 == 1
    return inside
