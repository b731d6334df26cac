"""Regions are found in runs and along outlines; here they are found pixel by pixel, and both are equal to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from blemish.regions import Region, Ring, find_regions, trace

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14))


def walked(mask) -> list[Ring]:
    """Walk along the pixel edges with the mask on the right hand, each ring from its first edge to the right on."""
    height, width = mask.shape

    def is_set(x, y) -> bool:
        return 0 <= x < width and 0 <= y < height and bool(mask[y, x])

    def is_edge(x, y, turn) -> bool:
        """Whether an edge leaves a corner to the right, down, left or up."""
        nw, ne, sw, se = (is_set(x + dx, y + dy) for dy in (-1, 0) for dx in (-1, 0))
        return ((se and not ne), (sw and not se), (nw and not sw), (ne and not nw))[turn]

    rings, seen = [], set()
    for first in [(x, y, 0) for y in range(height) for x in range(width) if is_edge(x, y, 0)]:
        ring, edge = [], first
        while edge not in seen:
            seen.add(edge)
            x, y, turn = edge
            x, y = x + (1, 0, -1, 0)[turn], y + (0, 1, 0, -1)[turn]
            after = next(t % 4 for t in (turn - 1, turn, turn + 1) if is_edge(x, y, t % 4))
            if after != turn:
                ring.append((x, y))
            edge = (x, y, after)
        if ring:
            rings.append(tuple(ring))
    return rings


def expected_regions(mask, values, min_area, step, size) -> list[Region]:
    width, height = size
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    regions = []
    for label in range(1, count + 1):
        rows, columns = np.nonzero(labels == label)
        across, down = np.minimum(step, width - columns * step), np.minimum(step, height - rows * step)
        area = int((across * down).sum())
        rings = [
            tuple((min(x * step, width), min(y * step, height)) for x, y in ring) for ring in walked(labels == label)
        ]
        inside = values[rows, columns]
        x, y = zip(*rings[0], strict=True)
        if area >= min_area:
            regions.append(
                Region(
                    box=(min(x), min(y), max(x), max(y)),
                    polygon=tuple(sorted(rings, key=lambda ring: min(x for x, _ in ring))),
                    area=area,
                    peak=float(inside.max()),
                    mean=float(np.cumsum(inside * (across * down))[-1] / area),
                    centroid=(
                        float(((columns * step + across / 2) * across * down).sum() / area),
                        float(((rows * step + down / 2) * across * down).sum() / area),
                    ),
                )
            )
    return sorted(regions, key=lambda region: (-region.peak, -region.area, region.box[1], region.box[0]))


@given(MASKS)
def test_outlines_are_those_that_a_walk_gives(mask) -> None:
    assert trace(mask) == walked(mask)


@given(MASKS, st.integers(1, 5), st.integers(1, 3), st.sampled_from([2, 5, 10**6]), st.data())
def test_regions_are_those_of_labels_to_the_bit(mask, min_area, step, levels, data) -> None:
    """With few levels, peaks are equal, and the order is decided by area and place."""
    size = tuple(step * cells - data.draw(st.integers(0, step - 1)) for cells in mask.shape[::-1])
    seed = data.draw(st.integers(0, 2**32 - 1))
    values = (np.random.default_rng(seed).integers(0, levels, mask.shape) / levels).astype(np.float32)
    found = find_regions(mask, values, min_area=min_area, step=step, size=size)
    assert list(found) == expected_regions(mask, values, min_area, step, size)


def test_regions_of_noise_on_a_large_map_are_those_of_labels_to_the_bit() -> None:
    values = ndimage.gaussian_filter(np.random.default_rng(0).random((120, 150), dtype=np.float32), 1)
    for share in (0.3, 0.5, 0.7):
        mask = values >= np.quantile(values, share)
        assert list(find_regions(mask, values)) == expected_regions(mask, values, 1, 1, (150, 120))
