"""Detection, regions and tracing."""

from __future__ import annotations

import base64
import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from blemish.detection import Detection, Provenance, Timing
from blemish.errors import UsageError
from blemish.regions import encode_polygon, find_regions, trace
from helpers import decode_mask

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def fill(rings, shape):
    """Even-odd filling: a pixel is inside if a ray to the left crosses the rings an odd number of times."""
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, (*ring[1:], ring[0]), strict=True):
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] ^= True
    return inside


def detection(values=None, **settings):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4) if values is None else values
    given = {"score": 0.5, "anomaly_map": values, "map_range": (0.0, 1.0), "size": values.shape[::-1], **settings}
    return Detection(**given)


@given(MASKS)
def test_filling_the_outlines_gives_the_mask_back(mask):
    rings = trace(mask)
    np.testing.assert_array_equal(fill(rings, mask.shape), mask)
    for ring in rings:
        steps = np.diff([*ring, ring[0]], axis=0)
        assert ((steps == 0).sum(axis=1) == 1).all()  # along pixel edges
        assert ((steps[:-1] == 0) != (steps[1:] == 0)).all()  # bends at every corner


@given(MASKS, st.integers(1, 4))
def test_regions_are_the_8_connected_patches(mask, min_area):
    values = np.random.default_rng(0).random(mask.shape, dtype=np.float32)
    regions = find_regions(mask, values, min_area=min_area)
    together = np.zeros_like(mask)
    for region in regions:
        own = fill(region.polygon, mask.shape)
        rows, columns = np.nonzero(own)
        assert region.area == own.sum() >= min_area
        assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert region.peak == pytest.approx(values[own].max())
        assert region.mean == pytest.approx(values[own].mean(), rel=1e-5)
        assert region.centroid == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
        assert len(trace(own)) == len(region.polygon)
        assert not (together & own).any()
        np.testing.assert_array_equal(decode_mask(encode_polygon(region.polygon, mask.shape)), own)
        together |= own
    assert [region.peak for region in regions] == sorted((region.peak for region in regions), reverse=True)
    if min_area == 1:
        np.testing.assert_array_equal(together, mask)


@given(MASKS, st.integers(1, 4), st.data())
def test_regions_of_a_reduced_map_are_those_of_the_map_enlarged(mask, step, data):
    """Each cell stands for step x step pixels; the last row and column for as many as are left."""
    width, height = (step * cells - data.draw(st.integers(0, step - 1)) for cells in mask.shape[::-1])
    values = np.random.default_rng(0).random(mask.shape, dtype=np.float32)
    large = [np.kron(given, np.ones((step, step), given.dtype))[:height, :width] for given in (mask, values)]
    expected = find_regions(large[0] > 0, large[1])
    found = find_regions(mask, values, step=step, size=(width, height))
    for one, other in zip(found, expected, strict=True):
        assert (one.box, one.polygon, one.area, one.peak) == (other.box, other.polygon, other.area, other.peak)
        assert one.mean == pytest.approx(other.mean, rel=1e-5)
        assert one.centroid == pytest.approx(other.centroid)
    area = 2 * step
    kept = find_regions(mask, values, step=step, size=(width, height), min_area=area)
    assert [one.area for one in kept] == [one.area for one in expected if one.area >= area]


def test_diagonal_neighbours_are_one_region_and_a_hole_is_a_ring():
    mask = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0]], dtype=bool)
    (region,) = find_regions(mask, mask.astype(np.float32))
    outline, hole = region.polygon
    assert set(outline) == {(0, 0), (1, 0), (1, 1), (4, 1), (4, 4), (1, 4), (0, 1)}
    assert len(outline) == 8  # touches itself at (1, 1)
    assert set(hole) == {(2, 2), (3, 2), (3, 3), (2, 3)}
    assert region.box == (0, 0, 4, 4)
    assert region.area == 9


def test_an_empty_mask_has_no_regions():
    assert find_regions(np.zeros((3, 3), bool), np.zeros((3, 3), np.float32)) == ()
    assert trace(np.zeros((3, 3), bool)) == []


def test_regions_of_a_large_map_are_quick():
    y, x = np.mgrid[:1000, :1000]
    values = (np.sin(x / 60) * np.cos(y / 50)).astype(np.float32)
    start = time.perf_counter()
    assert len(find_regions(values > 0.5, values)) == 21
    assert time.perf_counter() - start < 20


def test_verdict_mask_and_regions_follow_the_threshold():
    plain = detection()
    assert (plain.label, plain.mask, plain.regions, plain.mask_value) == (None, None, (), None)
    marked = plain.with_threshold(0.5)
    assert marked.label == 1
    assert marked.mask_threshold == 0.5
    assert marked.mask.sum() == 6
    assert [region.area for region in marked.regions] == [6]
    assert marked.regions is marked.regions
    assert plain.with_threshold(0.6).label == 0
    assert marked.with_threshold(0.5, 0.9).mask.sum() == 2
    assert marked.with_threshold(0.5, min_area=7).regions == ()
    assert marked.with_threshold(None).mask is None
    assert plain.threshold is None


def test_mask_threshold_is_a_fraction_of_the_range():
    values = np.array([[-2.0, 0.0, 1.9, 2.0]], dtype=np.float32)
    marked = detection(values, map_range=(-2.0, 6.0), mask_threshold=0.5)
    assert marked.mask_value == 2.0
    assert marked.label is None
    np.testing.assert_array_equal(marked.mask, [[False, False, False, True]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anomaly_map": np.zeros((3, 4))}, "float32 NumPy array, not float64"),
        ({"anomaly_map": [[0.0]]}, "not list"),
        ({"size": (3, 4)}, r"\(height, width\) = \(4, 3\), not \(3, 4\)"),
        ({"anomaly_map": np.zeros((0, 4), np.float32), "size": (4, 0)}, "empty"),
        ({"anomaly_map": np.full((3, 4), np.nan, np.float32)}, "NaN"),
        ({"anomaly_map": np.full((3, 4), -np.inf, np.float32)}, "infinity"),
        ({"score": 1.5}, r"\[0, 1\], not 1.5"),
        ({"score": float("nan")}, "not nan"),
        ({"map_range": (1.0, 1.0)}, "low < high"),
        ({"threshold": float("inf")}, "threshold must be a number from 0 to 1"),
        ({"mask_threshold": 1.01}, "mask_threshold must be a number from 0 to 1"),
        ({"min_area": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        detection(**{"values": None, **change})


def test_the_map_is_read_only_and_the_callers_array_is_left_alone():
    values = np.zeros((2, 2), np.float32)
    made = detection(values)
    with pytest.raises(ValueError, match="read-only"):
        made.anomaly_map[0, 0] = 1
    values[0, 0] = 1


def test_dictionary_is_json_and_holds_the_map_on_demand():
    source = Provenance("winclip", "builtin", "0123456789abcdef", config={"size": 240})
    made = detection(path="a.png", threshold=0.5, timing=Timing(0.1, 0.2, 0.3, 0.4), provenance=source, notes=("grey",))
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert plain["timing"]["total"] == pytest.approx(1.0)
    assert plain["provenance"]["config"] == {"size": 240}
    assert plain["regions"][0]["box"] == [0, 1, 4, 3]
    assert "anomaly_map" not in plain
    full = json.loads(json.dumps(made.to_dict(maps=True)))
    raw = np.frombuffer(base64.b64decode(full["anomaly_map"]["base64"]), "<f4").reshape(full["anomaly_map"]["shape"])
    np.testing.assert_array_equal(raw, made.anomaly_map)
    np.testing.assert_array_equal(decode_mask(full["mask"]), made.mask)
    assert detection().to_dict(maps=True)["mask"] is None


def test_survives_pickling():
    made = detection(threshold=0.5)
    assert made.regions
    again = pickle.loads(pickle.dumps(made))
    assert again.regions == made.regions
    np.testing.assert_array_equal(again.anomaly_map, made.anomaly_map)


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_marks_more(first, second):
    low, high = sorted((first, second))
    assert not (detection(mask_threshold=high).mask & ~detection(mask_threshold=low).mask).any()


def test_a_reduced_map_says_so():
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    reduced = detection(values, size=(19, 11), map_step=5, threshold=0.95)
    assert reduced.mask.shape == (3, 4)
    (region,) = reduced.regions
    assert (region.box, region.area) == ((15, 10, 19, 11), 4)
    assert reduced.to_dict()["map_step"] == 5
    assert reduced.heatmap().size == (4, 3)
    large = Image.new("RGB", (19, 11), "white")
    assert reduced.overlay(large).size == reduced.overlay(large.reduce(5)).size == (4, 3)
    with pytest.raises(UsageError, match="at map_step 5"):
        detection(values, size=(21, 11), map_step=5)
    with pytest.raises(UsageError, match="map_step must be at least 1"):
        detection(values, map_step=0)
