"""Values of more than 8 bits: one rule for files and arrays, and no hot pixel decides."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageError, UsageError
from blemish.image_io import read_image

RNG = np.random.default_rng(5)
EIGHT = RNG.integers(0, 256, (60, 80), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def file_of(values: np.ndarray, kind: str) -> bytes:
    """Encode values of any type as TIFF or PNG; tifffile writes what Pillow cannot."""
    stream = io.BytesIO()
    if kind == "PNG":
        Image.fromarray(values).save(stream, "PNG")
    else:
        pytest.importorskip("tifffile").imwrite(stream, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    return stream.getvalue()


def pixels(source, **options) -> np.ndarray:
    return np.asarray(read_image(source, **options).image)


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
@pytest.mark.parametrize("eight", [EIGHT, COLOUR], ids=["grey", "colour"])
def test_a_picture_of_any_depth_equals_the_same_of_8_bits(depth: int, eight: np.ndarray) -> None:
    eight = eight.copy()
    eight[:2] = 255
    deep = np.rint(eight / 255 * (2**depth - 1)).astype(np.uint16)
    for source in (deep, file_of(deep, "TIFF"), deep.astype(np.int32), deep.astype(np.float64)):
        np.testing.assert_array_equal(pixels(source), eight)
    if eight.ndim == 2:
        np.testing.assert_array_equal(pixels(file_of(deep, "PNG")), eight)
    assert read_image(deep).notes == (f"uint16 read as {depth} bits, 0..{2**depth - 1}",)


@pytest.mark.parametrize("kind", ["array", "TIFF", "PNG"])
@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("hot", [[65535], [65535, 65535, 60000], [0, 0]])
def test_hot_and_dead_pixels_change_only_themselves(kind: str, shape: tuple[int, ...], hot: list[int]) -> None:
    if kind == "PNG" and len(shape) == 3:
        pytest.skip("Pillow writes no such file")
    sound = RNG.integers(900, 3900, shape).astype(np.uint16)
    broken = sound.copy()
    broken.reshape(60 * 80, -1)[[7, 300, 4000][: len(hot)]] = np.array(hot, np.uint16)[:, None]
    one, two = (pixels(values if kind == "array" else file_of(values, kind)) for values in (sound, broken))
    changed = np.argwhere((one != two).reshape(60 * 80, -1).any(axis=1)).ravel()
    assert set(changed) <= {7, 300, 4000}
    note = read_image(broken).notes[0]
    assert note.startswith("uint16 read as 12 bits, 0..4095")
    assert (f"; values reach {broken.min()}..65535" in note) == (max(hot) == 65535)


@pytest.mark.parametrize(("side", "hot"), [(12, 1), (24, 1), (96, 40)])
def test_small_pictures_and_clusters_of_hot_pixels(side: int, hot: int) -> None:
    values = RNG.integers(900, 3900, (side, side)).astype(np.uint16)
    values.reshape(-1)[:hot] = 65535
    assert read_image(values).notes[0].startswith("uint16 read as 12 bits, 0..4095; values reach")
    floats = values.astype(np.float32) / 4095
    floats.reshape(-1)[1:] = np.minimum(floats.reshape(-1)[1:], 1)
    np.testing.assert_array_equal(pixels(floats).reshape(-1)[hot:], pixels(values).reshape(-1)[hot:])


def test_a_bright_spot_is_no_hot_pixel() -> None:
    values = RNG.integers(100, 900, (200, 200)).astype(np.uint16)
    values[50:53, 50:55] = np.linspace(1000, 4000, 15).reshape(3, 5)  # 15 of 40,000, with values of all sizes
    assert read_image(values).notes == ("uint16 read as 12 bits, 0..4095",)


def test_a_hot_pixel_in_floats() -> None:
    values = RNG.random((60, 80), np.float32)
    hot = values.copy()
    hot[3, 4] = 50.0
    for one, two in ((values, hot), (file_of(values, "TIFF"), file_of(hot, "TIFF"))):
        assert int((pixels(one) != pixels(two)).sum()) <= 1
    metres = values * 3 + 1.5
    hot = metres.copy()
    hot[3, 4] = -1e6
    difference = pixels(metres).astype(int) - pixels(hot)
    assert np.abs(np.delete(difference.ravel(), 3 * 80 + 4)).max() <= 1
    assert "nearly all values" in read_image(hot).notes[0]
    assert "values reach -1000000.." in read_image(hot).notes[0]


def test_signed_values_are_scaled_by_their_range() -> None:
    values = np.linspace(-1000, 3000, 4800).reshape(60, 80).astype(np.int16)
    assert read_image(values).notes == ("int16 scaled by its range -1000..3000",)
    assert (pixels(values)[0, 0], pixels(values)[-1, -1]) == (0, 255)
    assert read_image(file_of(values, "TIFF")).notes == ("16-bit scaled by its range -1000..3000",)


@pytest.mark.parametrize("kind", ["array", "TIFF", "PNG"])
def test_a_given_range_holds_for_all(kind: str) -> None:
    values = np.array([[0, 500, 1000, 1500, 60000]], np.uint16)
    picture = read_image(values if kind == "array" else file_of(values, kind), value_range=(500, 1500))
    assert np.asarray(picture.image).tolist() == [[0, 0, 128, 255, 255]]
    assert "scaled by the given range 500..1500; values reach 0..60000" in picture.notes[0]
    np.testing.assert_array_equal(pixels(EIGHT, value_range=(500, 1500)), EIGHT)  # 8 bits are what they are
    assert pixels(np.array([[-1.0, 0.0, 1.0]]), value_range=(-1, 1)).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf")), (1,), 5])
def test_impossible_ranges(value_range) -> None:
    with pytest.raises(UsageError, match="value_range must be two numbers, the smaller one first"):
        read_image(EIGHT, value_range=value_range)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_named(bad: float, tmp_path) -> None:
    values = RNG.random((60, 80), np.float32)
    values[5, 5] = bad
    path = tmp_path / "depth.tif"
    path.write_bytes(file_of(values, "TIFF"))
    with pytest.raises(ImageError, match=r"depth\.tif' holds NaN or infinity; replace them"):
        read_image(path)
    with pytest.raises(ImageError, match="NaN or infinity"):
        read_image(values, value_range=(0, 1))


def test_what_a_file_declares() -> None:
    tifffile = pytest.importorskip("tifffile")
    dark = RNG.integers(0, 300, (60, 80)).astype(np.uint16)

    def written(values: np.ndarray, *tags) -> bytes:
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, photometric="minisblack", extratags=tags)
        return stream.getvalue()

    largest = read_image(written(dark, (281, "H", 1, 4095, True)))
    assert largest.notes == ("16-bit scaled by its file's range 0..4095",)
    np.testing.assert_array_equal(largest.image, np.rint(dark / 4095 * 255))
    floats = RNG.random((60, 80), np.float32) + 5
    declared = read_image(written(floats, (340, "f", 1, 4.0, True), (341, "f", 1, 8.0, True)))
    assert declared.notes == ("float scaled by its file's range 4..8",)
    # A declaration that most values break is not believed; nor is the largest value that happens to occur.
    assert "its range" in read_image(written(floats, (340, "f", 1, 0.0, True), (341, "f", 1, 1.0, True))).notes[0]
    assert "9 bits" not in read_image(written(dark, (281, "H", 1, 299, True))).notes[0]


def test_opacity_beside_deep_colours() -> None:
    deep = np.dstack([COLOUR.astype(np.uint16) * 257, np.full((60, 80), 65535, np.uint16)])
    deep[:10, :, 3] = 0
    for source in (deep, file_of(deep[..., :3], "TIFF")):
        image = pixels(source)
        np.testing.assert_array_equal(image[10:], COLOUR[10:])
    assert (pixels(deep)[:10] == 255).all()
