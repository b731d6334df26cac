"""Connected regions of a mask, with outlines along pixel edges.

Coordinates are image pixels, x to the right and y down. Points are pixel corners, so pixel (x, y) is the square from
(x, y) to (x + 1, y + 1), a box is half-open, and polygons enclose exactly the pixels of their region.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from blemish.errors import UsageError

Ring = tuple[tuple[int, int], ...]
"""A closed outline: (x, y) corners. The last joins the first, and no three consecutive corners are on one line."""

_EIGHT = np.ones((3, 3), dtype=bool)


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
        return asdict(self)


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
    marked_rows, marked_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if marked_rows.size == 0:
        return ()
    # Only the part with regions is looked at: most maps have little above a threshold.
    top, left = int(marked_rows[0]), int(marked_columns[0])
    part = slice(top, marked_rows[-1] + 1), slice(left, marked_columns[-1] + 1)
    labels, count = ndimage.label(mask[part], structure=_EIGHT)
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns]
    inside = values[part][rows, columns]
    rows, columns = rows + top, columns + left
    across, down = np.minimum(step, width - columns * step), np.minimum(step, height - rows * step)
    pixels = across * down
    area = np.rint(np.bincount(owner, weights=pixels, minlength=count + 1)).astype(np.int64)
    divisor = np.maximum(area, 1)
    mean = np.bincount(owner, weights=inside * pixels, minlength=count + 1) / divisor
    centre_x = np.bincount(owner, weights=(columns * step + across / 2) * pixels, minlength=count + 1) / divisor
    centre_y = np.bincount(owner, weights=(rows * step + down / 2) * pixels, minlength=count + 1) / divisor
    peak = np.full(count + 1, -np.inf)
    np.maximum.at(peak, owner, inside)
    kept = area >= min_area
    kept[0] = False
    rings: dict[int, list[Ring]] = {}
    if kept.any():
        for ring in trace(kept[labels]):
            # The pixel to the right of a ring's first edge is inside, whichever way that edge points.
            moved = tuple((x + left, y + top) for x, y in ring)
            rings.setdefault(int(labels[_inner_pixel(ring)]), []).append(moved)
    boxes = ndimage.find_objects(labels)
    regions = []
    for label in np.flatnonzero(kept).tolist():
        row_range, column_range = boxes[label - 1]
        # The outline is the ring that reaches the left-most column of the region; a hole never does.
        outlines = sorted(rings[label], key=lambda ring: min(x for x, _ in ring))
        regions.append(
            Region(
                box=(
                    (column_range.start + left) * step,
                    (row_range.start + top) * step,
                    min((column_range.stop + left) * step, width),
                    min((row_range.stop + top) * step, height),
                ),
                polygon=tuple(
                    tuple((min(x * step, width), min(y * step, height)) for x, y in ring) for ring in outlines
                ),
                area=int(area[label]),
                peak=float(peak[label]),
                mean=float(mean[label]),
                centroid=(float(centre_x[label]), float(centre_y[label])),
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
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    # The four pixels around each corner. An edge leaves a corner with the mask on its right hand.
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    corners = (height + 1) * (width + 1)
    leaving = (se & ~ne, sw & ~se, nw & ~sw, ne & ~nw)  # to the right, down, left, up
    edges = np.concatenate([np.flatnonzero(out) + turn * corners for turn, out in enumerate(leaving)])
    if edges.size == 0:
        return []
    heading, start = np.divmod(edges, corners)
    end = start + np.array([1, width + 1, -1, -width - 1])[heading]
    # Two edges leave a corner where the mask touches itself diagonally; turning left keeps it connected.
    follow = np.empty_like(edges)
    todo = np.ones(edges.size, dtype=bool)
    for turn in (-1, 0, 1):
        candidate = (heading + turn) % 4 * corners + end
        index = np.minimum(np.searchsorted(edges, candidate), edges.size - 1)
        exists = todo & (edges[index] == candidate)
        follow[exists] = index[exists]
        todo &= ~exists
    bends = heading != heading[follow]
    return _rings(follow.tolist(), bends.tolist(), (end % (width + 1)).tolist(), (end // (width + 1)).tolist())


def _rings(follow: list[int], bends: list[bool], x: list[int], y: list[int]) -> list[Ring]:
    """Return the cycles of `follow`, reduced to the corners where the outline bends."""
    rings = []
    visited = bytearray(len(follow))
    for first in range(len(follow)):
        if visited[first]:
            continue
        ring = []
        edge = first
        while not visited[edge]:
            visited[edge] = 1
            if bends[edge]:
                ring.append((x[edge], y[edge]))
            edge = follow[edge]
        rings.append(tuple(ring))
    return rings


def _inner_pixel(ring: Ring) -> tuple[int, int]:
    """Return (row, column) of the pixel to the right of a ring's first edge."""
    (x0, y0), (x1, y1) = ring[:2]
    if y0 == y1:
        return (y0, x0) if x1 > x0 else (y0 - 1, x0 - 1)
    return (y0, x0 - 1) if y1 > y0 else (y0 - 1, x0)


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
