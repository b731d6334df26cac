"""Reading pictures: every kind in, "L" or "RGB" out, and nothing but ImageError on the way."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from blemish.errors import ImageError, UsageError
from blemish.image_io import LoadedImage, pillow, read_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
GREY = ["1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"]
MODES = [*GREY, "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def colour():
    return Image.fromarray(COLOUR)


def of_mode(mode, size=(13, 9)):
    width, height = size
    if mode in ("I;16", "I;16B", "I;16L"):
        return Image.frombytes(mode, size, RNG.integers(0, 65536, (height, width)).astype("<u2").tobytes())
    if mode == "LAB":
        return Image.frombytes(mode, size, RNG.bytes(width * height * 3))
    rgba = Image.fromarray(RNG.integers(0, 256, (height, width, 4), dtype=np.uint8))
    steps = {"RGBa": ["RGBa"], "RGBX": ["RGB", "RGBX"], "La": ["LA", "La"], "LA": ["LA"], "RGBA": [], "PA": ["P", "PA"]}
    for step in steps.get(mode, ["RGB", mode]):
        rgba = rgba.convert(step)
    return rgba


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_grey_or_colour(mode):
    image = of_mode(mode)
    assert image.mode == mode
    picture = read_image(image)
    assert picture.image.mode == ("L" if mode in GREY else "RGB")
    assert picture.size == (13, 9)
    assert type(picture.image) is Image.Image
    assert picture.image.info == {}


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_every_format_is_read_the_same_from_path_bytes_and_file(kind, tmp_path):
    data = encode(colour(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / "picture.dat"
    path.write_bytes(data)
    with path.open("rb") as stream:
        read = [read_image(path), read_image(str(path)), read_image(data), read_image(stream)]
    assert [picture.path for picture in read] == [str(path), str(path), None, str(path)]
    for picture in read:
        assert picture.image.mode == "RGB"
        np.testing.assert_array_equal(picture.image, read[0].image)
        if kind not in ("GIF", "JPEG"):
            np.testing.assert_array_equal(picture.image, COLOUR)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}.get(kind, {})
    picture = read_image(encode(colour(), kind, exif=exif, **options))
    turned = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.swapaxes(0, 1),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(COLOUR),
    }[orientation]
    assert picture.size == turned.shape[1::-1]
    assert picture.notes == (() if orientation == 1 else ("turned by EXIF",))
    if kind != "JPEG":
        np.testing.assert_array_equal(picture.image, turned)
    assert read_image(picture.image).notes == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_read_by_its_bit_depth(kind):
    values = np.linspace(102, 3890, 117).astype(np.uint16).reshape(9, 13)
    picture = read_image(encode(Image.fromarray(values), kind))
    assert picture.image.mode == "L"
    assert picture.notes == ("16-bit read as 12 bits, 0..4095",)
    np.testing.assert_array_equal(picture.image, np.rint(values / 4095 * 255))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_and_float_tiff_keep_their_range(dtype):
    values = np.linspace(-100000, 70000, 117).astype(dtype).reshape(9, 13)
    pixels = np.asarray(read_image(encode(Image.fromarray(values), "TIFF")).image)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) == 117


def test_a_constant_picture_is_read_by_its_bit_depth_or_is_mid_grey():
    picture = read_image(encode(Image.fromarray(np.full((4, 5), 900, np.uint16))))
    assert (np.asarray(picture.image) == round(900 / 1023 * 255)).all()
    assert picture.notes == ("16-bit read as 10 bits, 0..1023",)
    picture = read_image(np.full((4, 5), -7.5))
    assert (np.asarray(picture.image) == 128).all()
    assert picture.notes == ("float64 with one value only (-7.5), taken as mid-grey",)


def test_16_bit_tiff_with_white_zero_is_inverted():
    values = np.linspace(0, 1000, 12).astype(np.uint16).reshape(3, 4)
    data = encode(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(data)).tag_v2[262] == 0
    pixels = np.asarray(read_image(data).image)
    np.testing.assert_array_equal(pixels, 255 - np.rint(values / 1023 * 255))


def test_transparency_is_laid_on_white():
    rgba = np.dstack([COLOUR, np.zeros((9, 13), np.uint8)])
    picture = read_image(rgba)
    assert (np.asarray(picture.image) == 255).all()
    assert picture.notes == ("transparent parts laid on white",)
    rgba[..., 3] = 255
    solid = read_image(encode(Image.fromarray(rgba)))
    np.testing.assert_array_equal(solid.image, COLOUR)
    assert solid.notes == ()


@pytest.mark.parametrize(
    ("image", "transparency", "mode"),
    [
        (Image.new("L", (4, 3), 7), 7, "L"),
        (Image.new("1", (4, 3), 0), 0, "L"),
        (Image.new("RGB", (4, 3), (1, 2, 3)), (1, 2, 3), "RGB"),
        (Image.fromarray(np.full((3, 4), 5, np.uint8)).convert("P"), 5, "RGB"),
        (Image.fromarray(np.full((3, 4), 1, np.uint8)).convert("P"), b"\xff\x00", "RGB"),
    ],
)
def test_a_transparent_colour_is_laid_on_white(image, transparency, mode):
    picture = read_image(encode(image, transparency=transparency))
    assert picture.image.mode == mode
    assert (np.asarray(picture.image) == 255).all()


def test_the_first_of_several_frames_is_taken_and_said():
    frames = [Image.new("L", (5, 4), value) for value in (10, 20, 30)]
    for kind in ("TIFF", "GIF", "PNG"):
        picture = read_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert picture.notes == ("first of 3 frames",)
        assert (np.asarray(picture.image) == 10).all()


def test_a_lazy_16_bit_image_of_pillow_says_what_is_lost():
    rows = b"".join(b"\x00" + bytes(12) for _ in range(2))

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert read_image(Image.open(io.BytesIO(data))).notes == ("16 bits a channel read by their upper 8",)
    assert read_image(data).notes == ("16-bit read as 8 bits, 0..255",)


ARRAYS = [
    (COLOUR, "RGB", None),
    (COLOUR[..., 0], "L", None),
    (COLOUR[..., :1], "L", None),
    (COLOUR[::-1, ::2], "RGB", None),
    (COLOUR.astype(np.int64), "RGB", None),
    (COLOUR / np.float32(255), "RGB", None),
    (COLOUR[..., 0] > 99, "L", None),
    (COLOUR.astype(np.uint16), "RGB", "uint16 read as 8 bits, 0..255"),
    (COLOUR.astype(np.float32), "RGB", None),
    (COLOUR + np.float32(0.5), "RGB", "float32 scaled by its range"),
    (COLOUR.astype(np.int16) - 5, "RGB", "int16 scaled by its range"),
    (torch.from_numpy(COLOUR), "RGB", None),
    (torch.from_numpy(COLOUR).permute(2, 0, 1) / 255, "RGB", None),
    (torch.from_numpy(COLOUR[..., 0]), "L", None),
    (torch.from_numpy(COLOUR[..., 0])[None].bfloat16() / 255, "L", None),
    (torch.rand(4, 9, 13, requires_grad=True), "RGB", "transparent"),
]


@pytest.mark.parametrize(("array", "mode", "note"), ARRAYS)
def test_arrays_and_tensors(array, mode, note):
    picture = read_image(array)
    assert picture.image.mode == mode
    assert picture.size in ((13, 9), (7, 9))
    assert picture.path is None
    assert (picture.notes == ()) if note is None else picture.notes[0].startswith(note)


def test_array_values():
    np.testing.assert_array_equal(read_image(COLOUR / 255).image, COLOUR)
    np.testing.assert_array_equal(read_image(COLOUR.astype(np.int64)).image, COLOUR)
    np.testing.assert_array_equal(read_image(torch.from_numpy(COLOUR).permute(2, 0, 1) / 255).image, COLOUR)
    pixels = np.asarray(read_image(np.array([[0.0, 5e-324]])).image)
    np.testing.assert_array_equal(pixels, [[0, 0]])
    pixels = np.asarray(read_image(np.array([[-1.7e308, 0.0, 1.7e308]])).image)
    np.testing.assert_array_equal(pixels, [[0, 128, 255]])
    pixels = np.asarray(read_image(np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]])).image)
    np.testing.assert_array_equal(pixels, [[0, 255]])
    opaque = np.full((2, 2, 4), 65535, np.uint16)
    opaque[0, 0, :3] = 0
    np.testing.assert_array_equal(np.asarray(read_image(opaque).image)[..., 0], [[0, 255], [255, 255]])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((1, 3, 5, 5)), "not one picture"),
        (np.zeros((3, 5, 5), np.uint8), "not one picture"),
        (np.zeros((5, 5, 2)), "not one picture"),
        (np.zeros((0, 5)), "no pixels"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), np.inf, np.float16), "infinity"),
        (np.zeros((2, 2), complex), "numbers of pixels"),
        (np.array([["a"]]), "numbers of pixels"),
        (Image.new("L", (0, 5)), "no pixels"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "NaN"),
        (b"", "empty"),
        (b"hello, this is no picture at all", "no format"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (io.StringIO("text"), "binary mode"),
        (None, "cannot read a picture from NoneType"),
        ([[1, 2]], "cannot read a picture from list"),
        ("", "does not exist"),
        ("nowhere.png", "'nowhere.png' does not exist"),
        ("a\0b", "not a possible path"),
        ("x" * 5000, "cannot be opened"),
        (Path(), "is a folder"),
        (os.devnull, "not a regular file"),
    ],
)
def test_what_is_no_picture_is_said_in_one_sentence(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_image(source)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(colour()))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="may not be read") as caught:
        read_image(path)
    monkeypatch.undo()
    assert caught.value.path == str(path)


def test_cut_short(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(colour().resize((200, 200)), "JPEG")[:-600])
    with pytest.raises(ImageError, match=r"a\.jpg' is cut short; save it again"):
        read_image(path)


def test_one_pixel_is_a_picture():
    assert read_image(encode(Image.new("L", (1, 1)))).size == (1, 1)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    header = b"P5 30000 30000 255\n"  # nothing behind it to decode
    with pytest.raises(ImageError, match="30000 x 30000 = 900,000,000 pixels, more than max_pixels = 178,956,970"):
        read_image(header)
    for source in (COLOUR, colour(), encode(colour())):
        with pytest.raises(ImageError, match="117 pixels, more than max_pixels = 116"):
            read_image(source, max_pixels=116)
        assert read_image(source, max_pixels=117).size == (13, 9)
    # A limit above Pillow's own is obeyed without touching Pillow's.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(encode(colour()), max_pixels=None).size == (13, 9)
    with pytest.raises(UsageError, match="positive number"):
        read_image(COLOUR, max_pixels=0)


def test_a_picture_is_handed_back():
    picture = LoadedImage(colour())
    assert read_image(picture) is picture


def test_threads_and_warnings():
    sound = encode(colour(), "TIFF")
    odd = sound.replace(b"\x1c\x01\x03\x00\x01", b"\x1c\x01\x03\x00\x02")  # two values where one belongs
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(odd)).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        failed = []

        def work():
            for _ in range(20):
                try:
                    assert read_image(sound).size == read_image(odd).size == (13, 9)
                except BaseException as error:
                    failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert list(warnings.filters) == before
    assert pillow._quiet_users == 0


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM", b"P6")]),
)
def test_random_bytes_raise_nothing_else(data, start):
    with contextlib.suppress(ImageError):
        assert read_image(start + data, max_pixels=10**6).image.mode in ("L", "RGB")


ENCODED = {kind: encode(colour(), kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")} | {
    "LZW": encode(colour(), "TIFF", compression="tiff_lzw"),
    "16": encode(of_mode("I;16"), "TIFF"),
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ENCODED)), st.floats(0, 1), st.binary(max_size=4))
def test_truncated_and_damaged_files_raise_nothing_else(kind, where, damage):
    data = ENCODED[kind]
    at = int(where * len(data))
    for broken in (data[:at], data[:at] + damage + data[at + len(damage) :]):
        with contextlib.suppress(ImageError):
            assert read_image(broken, max_pixels=10**6).image.mode in ("L", "RGB")


DTYPES = st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, bool])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_array_of_the_right_shape_is_read(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)) + data.draw(
        st.sampled_from([(), (1,), (3,), (4,)])
    )
    array = data.draw(hnp.arrays(data.draw(DTYPES), shape))
    finite = np.isfinite(array).all()
    try:
        picture = read_image(array)
    except ImageError:
        assert not finite
    else:
        assert finite
        assert picture.image.mode == ("L" if len(shape) == 2 or shape[2] == 1 else "RGB")
        assert picture.size == shape[1::-1]
