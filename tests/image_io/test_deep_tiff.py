"""TIFF with values of more than 8 bits, however they are stored; read whole and in bands."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from blemish.errors import ImageError
from blemish.image_io import open_tiff_rows, read_image
from blemish.image_io.tiff import TiffRowReader, _tiff, read_deep_tiff

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(1)
HEIGHT, WIDTH = 61, 83
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def values(dtype: str, channels: int) -> np.ndarray:
    kind = np.dtype(dtype)
    plane = np.dstack([RAMP**power for power in range(1, channels + 1)]) + RNG.random((HEIGHT, WIDTH, 1)) / 50
    scaled = plane * 3 - 1 if kind.kind == "f" else plane * (4000 if kind.itemsize < 4 else 1_000_000)
    return scaled.astype(kind)[..., 0] if channels == 1 else scaled.astype(kind)


def decoded(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        samples = read_deep_tiff(stream, 0, "it", str(path), None, [])
    assert samples is not None
    return samples.values


@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"rowsperstrip": 7},
        {"tile": (32, 16), "compression": "zlib"},
        {"tile": (32, 16)},
        {"byteorder": ">"},
        {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 9},
        {"bigtiff": True},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()) or "plain",
)
def test_every_way_of_storing(dtype: str, channels: int, options: dict, tmp_path: Path) -> None:
    if channels == 1 and "planarconfig" in options:
        pytest.skip("one channel has one plane")
    stored, path = values(dtype, channels), tmp_path / "a.tif"
    if "planarconfig" in options:
        tifffile.imwrite(path, np.moveaxis(stored, -1, 0), photometric="rgb", **options)
    else:
        tifffile.imwrite(path, stored, photometric="rgb" if channels == 3 else "minisblack", **options)
    np.testing.assert_array_equal(decoded(path), stored)
    whole = read_image(path)
    with open_tiff_rows(path) as bands:
        assert bands is not None
        for top, bottom in ((0, HEIGHT), (0, 1), (30, 47), (HEIGHT - 1, HEIGHT)):
            np.testing.assert_array_equal(bands.rows(top, bottom), whole.image.crop((0, top, WIDTH, bottom)))
        assert bands.notes == whole.notes


def by_hand(path: Path, data: bytes, bits: int, channels: int, predictor: int = 1) -> None:
    """Write what no library here writes: one strip, deflated."""
    data = zlib.compress(data)
    entries = {256: (4, (WIDTH,)), 257: (4, (HEIGHT,)), 258: (3, (bits,) * channels), 259: (3, (8,))}
    entries |= {262: (3, (2 if channels == 3 else 1,)), 277: (3, (channels,)), 317: (3, (predictor,))}
    entries |= {273: (4, (0,)), 278: (4, (HEIGHT,)), 279: (4, (len(data),))}
    entries[339] = (3, (3 if predictor == 3 else 1,) * channels)
    path.write_bytes(_tiff("<", entries, 273, [data]))


def horizontal(stored: np.ndarray) -> np.ndarray:
    """Differences to the left neighbour, as the predictor 2 stores them."""
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    return np.concatenate([unsigned[:, :1], unsigned[:, 1:] - unsigned[:, :-1]], axis=1)


def floating(stored: np.ndarray) -> np.ndarray:
    """Bytes as the predictor 3 stores them."""
    rows = stored.reshape(HEIGHT, -1)
    big = rows.astype(rows.dtype.newbyteorder(">")).view(np.uint8).reshape(HEIGHT, -1, rows.dtype.itemsize)
    planes = big.swapaxes(1, 2).reshape(HEIGHT, -1)
    step = stored.shape[2] if stored.ndim == 3 else 1
    planes[:, step:] -= planes[:, :-step].copy()
    return planes


@pytest.mark.parametrize(("dtype", "predictor"), [("u2", 2), ("u4", 2), ("f4", 3), ("f2", 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_predictors(dtype: str, predictor: int, channels: int, tmp_path: Path) -> None:
    stored, path = values(dtype, channels), tmp_path / "a.tif"
    data = horizontal(stored) if predictor == 2 else floating(stored)
    by_hand(path, np.ascontiguousarray(data).tobytes(), stored.dtype.itemsize * 8, channels, predictor)
    np.testing.assert_array_equal(decoded(path), stored)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_packed_bits(bits: int, channels: int, tmp_path: Path) -> None:
    stored = RNG.integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    digits = (stored[..., None] >> np.arange(bits)[::-1]) & 1
    packed = np.packbits(digits.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    by_hand(tmp_path / "a.tif", packed.tobytes(), bits, channels)
    picture = read_image(tmp_path / "a.tif")
    expected = np.rint(stored / (2**bits - 1) * 255)
    np.testing.assert_array_equal(picture.image, expected if channels == 3 else expected[..., 0])
    assert picture.notes == (f"{bits}-bit scaled by its file's range 0..{2**bits - 1}",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colours_are_turned_upright(orientation: int) -> None:
    deep, eight = io.BytesIO(), io.BytesIO()
    colour = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    colour[0, 0] = 255
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(deep, colour.astype(np.uint16) * 257, photometric="rgb", extratags=tag)
    tifffile.imwrite(eight, colour, photometric="rgb", extratags=tag)
    one, two = (read_image(stream.getvalue()) for stream in (deep, eight))
    np.testing.assert_array_equal(one.image, two.image)
    assert ("turned by EXIF" in one.notes) == (orientation > 1)


def test_white_is_zero_and_channels_that_are_no_opacity(tmp_path: Path) -> None:
    floats = RAMP.astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", floats, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").image, 255 - np.rint(floats * 255.0))
    four = values("u2", 4)
    four[..., 3] = 0
    tifffile.imwrite(tmp_path / "b.tif", four, photometric="rgb", extrasamples=["unspecified"])
    assert "transparent parts laid on white" not in read_image(tmp_path / "b.tif").notes
    tifffile.imwrite(tmp_path / "c.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    assert "transparent parts laid on white" in read_image(tmp_path / "c.tif").notes


def test_raw_and_damaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values("u2", 1), extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    (tmp_path / "b.nef").write_bytes((tmp_path / "a.tif").read_bytes())
    tifffile.imwrite(tmp_path / "c.tif", values("u2", 3), photometric="rgb", compression="zlib")
    data = (tmp_path / "c.tif").read_bytes()
    (tmp_path / "c.tif").write_bytes(data[: len(data) // 2])
    for name, says in (
        ("a.tif", "camera raw: develop it"),
        ("b.nef", "camera raw: develop it"),
        ("c.tif", "cut short"),
    ):
        with pytest.raises(ImageError, match=says) as raised:
            read_image(tmp_path / name)
        assert raised.value.path == str(tmp_path / name)


def test_a_given_range_needs_no_first_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values("u2", 3), photometric="rgb", compression="zlib", rowsperstrip=9)
    whole = read_image(tmp_path / "a.tif", value_range=(100, 3000))
    reads: list[int] = []
    original = TiffRowReader._read
    monkeypatch.setattr(TiffRowReader, "_read", lambda self, *place: reads.append(place[1]) or original(self, *place))
    with open_tiff_rows(tmp_path / "a.tif", value_range=(100, 3000)) as bands:
        assert bands is not None
        assert len(reads) == 1
        np.testing.assert_array_equal(bands.rows(20, 30), whole.image.crop((0, 20, WIDTH, 30)))
        assert bands.notes == ("16-bit scaled by the given range 100..3000",)
