"""Colours, contact sheets, run lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from blemish.detection import Detection, trace
from blemish.draw import COLOURS, heatmap, levels, overlay
from blemish.errors import UsageError
from blemish.image_io import LoadedImage
from blemish.outputs.sheet import caption, contact_sheet
from blemish.rle import decode_mask, encode_mask, encode_polygon

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
RAMP = np.linspace(-0.5, 1.5, 60, dtype=np.float32).reshape(6, 10)


def test_the_colour_table_is_turbo():
    assert COLOURS.shape == (256, 3)
    assert COLOURS.dtype == np.uint8
    # Colours of the published table at its quarters; the published polynomials stay within 20 of them.
    published = {64: (40, 188, 235), 128: (164, 252, 60), 192: (251, 126, 33)}
    for place, expected in published.items():
        assert np.abs(COLOURS[place].astype(int) - expected).max() <= 20
    with pytest.raises(ValueError, match="read-only"):
        COLOURS[0] = 0


def test_the_scale_is_fixed_and_ends_are_clipped():
    place = levels(RAMP, (0.0, 1.0))
    assert (place[RAMP <= 0] == 0).all()
    assert (place[RAMP >= 1] == 255).all()
    faint = np.full((3, 3), 0.1, np.float32)
    faint[1, 1] = 0.2
    assert levels(faint, (0.0, 1.0)).max() == 51  # not stretched to its own maximum
    assert levels(np.array([[-3e38, 3e38]], np.float32), (0.0, 1e-3)).tolist() == [[0, 255]]
    with pytest.raises(UsageError, match="lo < hi"):
        levels(RAMP, (1.0, 0.0))


def test_heatmap_and_legend():
    plain = heatmap(RAMP, (0.0, 1.0))
    assert (plain.mode, plain.size) == ("RGB", (10, 6))
    np.testing.assert_array_equal(np.asarray(plain)[0, 0], COLOURS[0])
    legend = heatmap(np.zeros((300, 400), np.float32), (0.0, 1.0), legend=True)
    assert legend.width == 400
    assert legend.height > 300
    np.testing.assert_array_equal(np.asarray(legend)[302, [0, -1]], COLOURS[[0, 255]])


def test_overlay_leaves_normal_parts_as_they_are():
    picture = Image.new("L", (10, 6), 77)
    laid = np.asarray(overlay(LoadedImage(picture), RAMP, (0.0, 1.0), alpha=0.6))
    assert (laid[RAMP <= 0] == 77).all()
    np.testing.assert_allclose(laid[-1, -1], 0.4 * 77 + 0.6 * COLOURS[255], atol=1)
    distance = np.abs(laid.astype(int) - 77).sum(axis=-1)
    assert distance[-1, -1] > distance[0, 0] == 0
    np.testing.assert_array_equal(np.asarray(overlay(picture, RAMP, (0.0, 1.0), alpha=0.0))[..., 0], 77)
    with pytest.raises(UsageError, match="10 x 6, not 6 x 10"):
        overlay(picture.rotate(90, expand=True), RAMP, (0.0, 1.0))
    with pytest.raises(UsageError, match="alpha"):
        overlay(picture, RAMP, (0.0, 1.0), alpha=2)


@given(MASKS)
def test_run_lengths_go_there_and_back(mask):
    runs = encode_mask(mask)
    assert sum(runs["counts"]) == mask.size
    assert all(count > 0 for count in runs["counts"][1:])
    np.testing.assert_array_equal(decode_mask(runs), mask)
    assert encode_polygon(trace(mask), mask.shape) == runs


def test_run_lengths_are_column_major():
    mask = np.array([[0, 1, 0], [1, 1, 0]], dtype=bool)
    assert encode_mask(mask) == {"size": [2, 3], "counts": [1, 3, 2]}
    assert encode_mask(~np.zeros((2, 2), bool)) == {"size": [2, 2], "counts": [0, 4]}
    assert encode_mask(np.zeros((2, 2), bool)) == {"size": [2, 2], "counts": [4]}
    with pytest.raises(UsageError, match="add up"):
        decode_mask({"size": [2, 2], "counts": [1, 2]})


@given(st.integers(1, 7), st.integers(1, 9), st.sampled_from([None, "A title"]))
def test_a_contact_sheet_has_room_for_all(columns, count, title):
    items = ((Image.new("L", (20 + i, 10)), f"päth-{i}-{'long' * i}.png\n0.500") for i in range(count))
    sheet = contact_sheet(items, columns=columns, cell=48, title=title)
    assert sheet.mode == "RGB"
    assert sheet.width >= min(columns, count) * 48
    assert sheet.height >= -(-count // columns) * 48


def test_an_empty_contact_sheet_is_refused():
    with pytest.raises(UsageError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(UsageError, match="at least 1"):
        contact_sheet([(Image.new("L", (1, 1)), "")], columns=0)


def test_captions():
    made = Detection(score=0.5, anomaly_map=RAMP, map_range=(0.0, 1.0), size=(10, 6), path="some/where/a.png")
    assert caption(made) == "a.png\n0.500"
    assert caption(made.with_threshold(0.4), "scratch") == "a.png\n0.500 anomalous (scratch)"
