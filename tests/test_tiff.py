"""TIFF files by bands of rows: the same pixels as read whole, whatever is inside; files that are not what they say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageError
from blemish.image_io import read_image
from blemish.image_io.tiff import TiffRowReader, open_tiff_rows
from blemish.tiling import Tiling, cut

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 157, 211


def picture(mode: str) -> Image.Image:
    """Noise on a gradient, in any mode."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plane = (40 + 0.8 * y + 0.2 * x)[..., None] + RNG.normal(0, 10, (HEIGHT, WIDTH, 4))
    if mode == "I;16":
        return Image.fromarray((plane[..., 0] * 37).clip(0, 65535).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray((plane[..., 0] * 1000 - 5e4).astype(np.int32 if mode == "I" else np.float32))
    rgba = Image.fromarray(plane.clip(0, 255).astype(np.uint8), "RGBA")
    return {"RGBA": rgba, "LA": rgba.convert("LA")}.get(mode) or rgba.convert("RGB").convert(mode)


def check(path: Path) -> None:
    """Any rows are those of the whole picture, and so is what was said about them."""
    whole = read_image(path)
    with open_tiff_rows(path) as bands:
        assert bands is not None
        assert bands.size == (WIDTH, HEIGHT)
        for top, bottom in ((0, HEIGHT), (0, 1), (HEIGHT - 1, HEIGHT), (50, 51), (63, 65), (100, 190)):
            band = bands.rows(top, bottom)
            assert band.mode == whole.image.mode
            np.testing.assert_array_equal(band, whole.image.crop((0, top, WIDTH, bottom)))
        assert set(bands.notes) == set(whole.notes)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "LAB", "I;16", "I", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_all_modes(mode: str, compression: str | None, tmp_path: Path) -> None:
    picture(mode).save(tmp_path / "a.tif", compression=compression, strip_size=3000)
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["jpeg", "packbits", "zstd", "webp", "lzma", "group3", "group4"])
@pytest.mark.parametrize("strip_size", [500, 5000, 10**7])
def test_all_compressions(compression: str, strip_size: int, tmp_path: Path) -> None:
    image = picture("1" if compression.startswith("group") else "RGB")
    try:
        image.save(tmp_path / "a.tif", compression=compression, strip_size=strip_size)
    except OSError:
        pytest.skip(f"this Pillow has no {compression}")
    check(tmp_path / "a.tif")


# Pillow does not read large files (BigTIFF) of the other byte order.
@pytest.mark.parametrize(("order", "big"), [("<", False), ("<", True), (">", False)])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1)])
def test_tiles_byte_orders_and_large_files(order: str, big: bool, predictor: bool, dtype, channels, tmp_path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.asarray(picture("RGB")) if channels == 3 else np.asarray(picture("I;16"))
    words = {"byteorder": order, "bigtiff": big}
    options = {"tile": (64, 48), "compression": "zlib"}
    if predictor:
        options["predictor"] = True
    try:
        tifffile.imwrite(tmp_path / "a.tif", values.astype(dtype), **words, **options)
    except ValueError:
        pytest.skip("the predictor needs imagecodecs")
    check(tmp_path / "a.tif")


def test_uncompressed_strips_of_any_height(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.asarray(picture("RGB"))
    for rows in (1, 7, 64, HEIGHT):
        tifffile.imwrite(tmp_path / "a.tif", values, rowsperstrip=rows)
        check(tmp_path / "a.tif")
        with open_tiff_rows(tmp_path / "a.tif") as bands:
            assert bands is not None
            assert bands.chunk_rows == 1  # uncompressed rows are read by themselves


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("RGB").save(tmp_path / "a.tif", compression="tiff_lzw", strip_size=WIDTH * 3 * 10)
    read: list[int] = []
    original = TiffRowReader._read
    monkeypatch.setattr(TiffRowReader, "_read", lambda self, *place: read.append(place[1]) or original(self, *place))
    with open_tiff_rows(tmp_path / "a.tif") as bands:
        assert bands is not None
        assert bands.chunk_rows == 10
        bands.rows(95, 125)
    assert len(read) == 4


def test_several_frames_are_said(tmp_path: Path) -> None:
    picture("RGB").save(tmp_path / "a.tif", save_all=True, append_images=[picture("RGB")], compression="tiff_lzw")
    check(tmp_path / "a.tif")


def test_what_cannot_be_read_in_bands(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB").save(tmp_path / "turned.tif", exif=exif)
    picture("RGB").save(tmp_path / "a.png")
    for name in ("turned.tif", "a.png"):
        with open_tiff_rows(tmp_path / name) as bands:
            assert bands is None


def test_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for compression in (None, "tiff_lzw"):
        picture("RGB").save(path, compression=compression, strip_size=3000)
        with Image.open(path) as stored:
            tags = stored.tag_v2
        data = path.read_bytes()
        end = max(tags[273]) + 100  # the directory is in front
        if end > len(data):
            continue
        path.write_bytes(data[:end])
        with pytest.raises(ImageError) as raised, open_tiff_rows(path):
            pass
        assert raised.value.path == str(path)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    """Sixty bytes that say they are 10^10 pixels are refused before anything is made for them."""
    entries = [
        (256, 4, 100_000),
        (257, 4, 100_000),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 4, 100_000),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in entries)
    (tmp_path / "bomb.tif").write_bytes(b"II*\0" + struct.pack("<L", 8) + directory + b"\0" * 4)
    with pytest.raises(ImageError, match="cut short"):
        next(cut(tmp_path / "bomb.tif", Tiling(64), max_pixels=10**6))


def test_damaged_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles before the damage were handed out; the error names the rows."""
    monkeypatch.setattr("blemish.tiling.MAX_MAP_PIXELS", 1_000)
    path = tmp_path / "a.tif"
    picture("RGB").save(path, compression="tiff_deflate", strip_size=WIDTH * 3 * 16)
    with Image.open(path) as stored:
        offset = stored.tag_v2[273][10]
    data = bytearray(path.read_bytes())
    data[offset : offset + 50] = b"\xff" * 50
    path.write_bytes(data)
    pieces = []
    with pytest.raises(ImageError, match=r"damaged in rows \d+ to \d+") as raised:
        pieces.extend(cut(path, Tiling(64), max_pixels=10**6))
    assert 0 < len(pieces) < 15
    assert raised.value.path == str(path)


def test_nan(tmp_path: Path) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    values[150, 20] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="NaN") as raised, open_tiff_rows(tmp_path / "a.tif"):
        pass
    assert raised.value.path == str(tmp_path / "a.tif")


@pytest.mark.parametrize("overlap", [0, 0.3])
@pytest.mark.parametrize("tiled", [False, True])
def test_cut_gives_the_same_tiles_from_bands_as_from_the_whole(
    tiled: bool, overlap: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    if tiled:
        pytest.importorskip("tifffile").imwrite(path, np.asarray(picture("I;16")), tile=(32, 32), compression="zlib")
    else:
        picture("RGB").save(path, compression="tiff_lzw", strip_size=4000)
    expected = list(cut(read_image(path), Tiling(65, overlap), max_pixels=10**6))
    monkeypatch.setattr("blemish.tiling.MAX_MAP_PIXELS", 3_000)
    found = list(cut(path, Tiling(65, overlap), max_pixels=40_000))
    assert [one.index for one in found] == [one.index for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    assert found[0].merger.step == 4
    np.testing.assert_array_equal(found[0].merger.image.image, read_image(path).image.reduce(4))
    assert found[0].merger.image.path == str(path)


def test_a_band_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.tiling.MAX_MAP_PIXELS", 1_000)
    path = tmp_path / "a.tif"
    picture("RGB").save(path, compression="tiff_lzw", strip_size=10**7)  # one piece
    with pytest.raises(ImageError, match="decoded at once"):
        list(cut(path, Tiling(64), max_pixels=20_000))
    assert len(list(cut(path, Tiling(64), max_pixels=50_000))) == 15
