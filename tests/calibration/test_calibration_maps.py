"""The level of a map: from which threshold on it shows no region."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats

from blemish.calibration import Calibration, region_level, region_levels
from blemish.errors import UsageError
from blemish.regions import find_regions


def level_by_trying(values: npt.NDArray[np.float32], min_area: int, **geometry: object) -> float:
    shows = [
        float(value)
        for value in np.unique(values)
        if find_regions(values >= value, values, min_area=min_area, **geometry)  # type: ignore[arg-type]
    ]
    return max(shows, default=-np.inf)


@pytest.mark.parametrize("min_area", [1, 2, 5, 20, 100, 299, 300, 301])
@pytest.mark.parametrize("kind", ["noise", "smooth", "tied", "constant"])
def test_level_is_that_of_trying_every_value(kind: str, min_area: int) -> None:
    values = np.random.default_rng(min_area).random((15, 20)).astype(np.float32)
    if kind == "smooth":
        values = ndimage.gaussian_filter(values, 2)
    elif kind == "tied":
        values = np.floor(values * 4) / 4
    elif kind == "constant":
        values = np.full_like(values, 0.5)
    level = region_level(values, min_area)
    assert level == level_by_trying(values, min_area)
    if np.isfinite(level):
        above = np.nextafter(np.float32(level), np.float32(np.inf))
        assert find_regions(values >= np.float32(level), values, min_area=min_area)
        assert not find_regions(values >= above, values, min_area=min_area)


@pytest.mark.parametrize("min_area", [1, 3, 10, 40, 150])
def test_level_of_a_coarse_map_counts_pixels_of_the_picture(min_area: int) -> None:
    values = np.random.default_rng(0).random((6, 7)).astype(np.float32)
    size = (20, 17)  # the last column is 2 pixels wide, the last row 2 pixels high
    level = region_level(values, min_area, step=3, size=size)
    assert level == level_by_trying(values, min_area, step=3, size=size)


def test_levels_of_good_pictures_calibrate_a_pixel_threshold() -> None:
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.random((400, 24, 24)), (0, 1, 1)).astype(np.float32)
    levels = region_levels(maps, 6)
    bound = Calibration(levels[:39]).guarantee(0.05).bound
    shown = []
    for _ in range(2000):
        chosen = rng.choice(400, 40, replace=False)
        threshold = Calibration(levels[chosen[:39]]).threshold(0.05).value
        new = maps[chosen[39]]
        shown.append(bool(find_regions(new >= np.float32(threshold), new, min_area=6)))
    assert np.sum(shown) <= stats.binom.ppf(1 - 1e-4, 2000, bound)
    assert np.sum(shown) >= stats.binom.ppf(1e-4, 2000, bound)


def test_pictures_that_are_too_small_for_a_region() -> None:
    levels = region_levels([np.ones((2, 2), np.float32), np.ones((5, 5), np.float32)], 9)
    assert levels[0] == np.finfo(np.float32).min
    assert levels[1] == 1
    assert np.isfinite(Calibration(levels).threshold(0.5).value)


def test_maps_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"\(height, width\)"):
        region_level(np.zeros(4, np.float32))
    with pytest.raises(UsageError, match="at least 1 pixel"):
        region_level(np.zeros((4, 4), np.float32), 0)
