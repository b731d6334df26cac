"""`read_image`: files, bytes, arrays and tensors become an upright grey or RGB `LoadedImage`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.errors import ImageError, UsageError
from blemish.files import split_page
from blemish.image_io import medical, video
from blemish.image_io.find import DICOM, NIFTI, RAW, VIDEO, kind_of
from blemish.image_io.pillow import (
    check_size,
    decode,
    flatten,
    identify,
    is_deep,
    is_inverted,
    note_frames,
    open_file,
    quiet_pillow,
    raw_error,
    read_deep_png,
    read_head,
    samples_of,
)
from blemish.image_io.tiff import is_tiff, read_deep_tiff
from blemish.image_io.values import Samples, Statistics, range_of, to_bytes
from blemish.types import ImageSource, ValueRange, check_value_range

MAX_PIXELS = 178_956_970
"""Largest picture that is read by default, in pixels: Pillow's own limit."""


@dataclass(frozen=True)
class LoadedImage:
    """A picture in the form that methods take.

    Attributes:
        image: Image of mode "L" or "RGB", upright, 8 bits per channel.
        path: File; None for a picture from memory.
        notes: What was done while reading: "turned by EXIF", "first of 7 frames", ...
    """

    image: Image.Image
    path: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size


@dataclass(frozen=True)
class _Wish:
    """What is read, and how."""

    name: str
    path: str | None
    index: int
    max_pixels: int | None
    value_range: ValueRange | None


def read_image(
    source: ImageSource,
    *,
    max_pixels: int | None = MAX_PIXELS,
    value_range: ValueRange | None = None,
    page: int | None = None,
) -> LoadedImage:
    """Read one picture.

    EXIF orientation is applied. Grey stays grey ("L"), everything else becomes "RGB". Transparent parts become white.

    Values of more than 8 bits, from files and arrays, grey and colour, are scaled by `value_range`; without it by the
    range that the file declares, else whole numbers by the full range of the smallest bit depth (8, 10, 12, 14, 16)
    that holds nearly all of them, numbers within [0, 1] by that range, and others by their own range. A few hot pixels
    decide nothing. A note says what was done. See `blemish.image_io.values`.

    Args:
        source: A path, bytes, a binary file object, a PIL image, a NumPy array or a torch tensor (or a `LoadedImage`,
            returned as it is). Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; a tensor whose first axis
            has length 1, 3 or 4 is (C, H, W). uint8 and bool are used as they are, everything else as above.
        max_pixels: A larger picture is refused before it is decoded; None = no limit.
        value_range: (low, high), the values that become black and white in pictures of more than 8 bits; what is
            outside is cut off. Pictures of 8 bits are read as they are.
        page: Which of several pages, frames or slices of a file is read, from 1; None reads the first, of a volume the
            middle one. A path may say so itself: `scan.tif#2`.

    Raises:
        ImageError: It is missing, unreadable, damaged, cut short, not a picture, or too large.
        UsageError: `max_pixels`, `value_range` or `page` is not possible.
    """
    if max_pixels is not None and (isinstance(max_pixels, bool) or max_pixels < 1):
        raise UsageError(f"max_pixels must be a positive number of pixels or None, not {max_pixels}.")
    check_value_range("value_range", value_range)
    if page is not None and (isinstance(page, bool) or page < 1):
        raise UsageError(f"page must be a number from 1, not {page}.")
    if isinstance(source, LoadedImage):
        return source
    path: str | None = None
    name = "the picture"
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        name = repr(path)
        source, number = split_page(path)
        page = page if number is None else number
    elif hasattr(source, "read"):
        file_name = getattr(source, "name", None)  # a number for a file made from a descriptor
        if isinstance(file_name, str):
            path, name = file_name, repr(file_name)
    wish = _Wish(name, path, -1 if page is None else page - 1, max_pixels, value_range)
    with image_errors(name, path), quiet_pillow():
        image, notes = _read(source, wish)
    return LoadedImage(image, path, tuple(notes))


@contextlib.contextmanager
def image_errors(name: str, path: str | None) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} is too large to decode; make it smaller.", path) from error
    except Exception as error:
        # A decoder may raise anything on damaged bytes; the cause stays attached.
        state = "cut short" if "truncated" in str(error).lower() else "damaged or not supported"
        raise ImageError(f"{name} is {state}; save it again or leave it out.", path) from error


def _read(source: Any, wish: _Wish) -> tuple[Image.Image, list[str]]:
    if isinstance(source, Image.Image):
        return _finish(source, wish)
    if isinstance(source, (str, os.PathLike)):
        with open_file(source, wish.name, wish.path) as stream:
            return _read_stream(stream, wish, os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_stream(io.BytesIO(source), wish)
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise ImageError(f"{wish.name} gives text, not bytes; open the file in binary mode.", wish.path)
        return _read_stream(io.BytesIO(data), wish)
    if hasattr(source, "__array__") or hasattr(source, "detach"):
        pixels = _from_array(source, wish)
        if isinstance(pixels, Samples):
            return _flatten_samples(pixels, wish, [])
        return _finish(Image.fromarray(np.ascontiguousarray(pixels)), wish)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; "
        "give a path, bytes, a file object, a PIL image, an array or a tensor."
    )


def _read_stream(stream: IO[bytes], wish: _Wish, file: str = "") -> tuple[Image.Image, list[str]]:
    """Read a picture from an open file, by its content; the suffix decides only where the content cannot."""
    head, kind, notes = read_head(stream, wish.name, wish.path), kind_of(file), list[str]()
    if kind is RAW:
        raise raw_error(wish.name, wish.path)
    if head[128:132] == b"DICM" or (kind is DICOM and not is_tiff(head)):
        _require(DICOM, wish)
        return _flatten_samples(
            medical.read_dicom(stream, wish.index, wish.name, wish.path, wish.max_pixels, notes), wish, notes
        )
    if kind is NIFTI:
        _require(NIFTI, wish)
        return _flatten_samples(
            medical.read_nifti(file, wish.index, wish.name, wish.path, wish.max_pixels, notes), wish, notes
        )
    if kind is VIDEO:
        _require(VIDEO, wish)
        image = video.read_frame(file, max(wish.index, 0), wish.name, wish.path, wish.max_pixels, notes)
        return image, notes
    if is_tiff(head):
        samples = read_deep_tiff(stream, max(wish.index, 0), wish.name, wish.path, wish.max_pixels, notes)
        if samples is not None:
            return _flatten_samples(samples, wish, notes)
    image = identify(stream, wish.name, wish.path)
    if wish.index > 0:
        try:
            image.seek(wish.index)
        except EOFError:
            raise ImageError(
                f"{wish.name} has no picture {wish.index + 1}; give a smaller number.", wish.path
            ) from None
    check_size(image.size, wish.name, wish.path, wish.max_pixels)
    deep = read_deep_png(image, stream, wish.path)
    if deep is not None:
        return _flatten_samples(deep, wish, notes)
    return _finish(image, wish)


def _require(kind: Any, wish: _Wish) -> None:
    if not kind.installed:
        raise ImageError(f"{wish.name} is {kind.name}, which needs an optional part: {kind.advice}.", wish.path)


def _finish(image: Image.Image, wish: _Wish) -> tuple[Image.Image, list[str]]:
    """Decode, turn upright, and convert to "L" or "RGB"."""
    check_size(image.size, wish.name, wish.path, wish.max_pixels)
    notes: list[str] = []
    frame = image.tell()
    file_format, inverted = image.format, is_inverted(image)
    decoded = decode(image, notes, invert=False)
    if is_deep(decoded.mode):
        decoded.format = file_format
        result, notes = _flatten_samples(samples_of(decoded, inverted), wish, notes)
    else:
        result = flatten(decoded, notes)
    if result is image or isinstance(result, type(image)):
        result = result.copy()
    result.info = {}  # so that nothing turns or blends it a second time
    note_frames(image, frame, notes)  # reads on in the file, so it comes after the pixels
    return result, notes


def _flatten_samples(samples: Samples, wish: _Wish, notes: list[str]) -> tuple[Image.Image, list[str]]:
    """Scale values of more than 8 bits and convert them to "L" or "RGB"."""
    height, width = samples.values.shape[:2]
    check_size((width, height), wish.name, wish.path, wish.max_pixels)
    statistics = Statistics(samples.colour.size, wish.name, wish.path)
    statistics.add(samples.colour)
    value_range, note = range_of(statistics, samples, wish.value_range)
    notes += [note] * bool(note)
    pixels = np.ascontiguousarray(to_bytes(samples, value_range))
    result = flatten(Image.fromarray(pixels), notes)
    return result, notes


def _from_array(source: Any, wish: _Wish) -> Samples | npt.NDArray[np.uint8]:
    """Return an array or tensor as samples, or as bytes that are used as they are."""
    tensor = hasattr(source, "detach")
    if tensor:
        source = source.detach().cpu()
        if not any(name in str(source.dtype) for name in ("float16", "float32", "float64", "int", "bool")) or (
            "bfloat16" in str(source.dtype)
        ):
            source = source.float()  # NumPy lacks bfloat16 and the 8-bit floats
        source = source.numpy()
    array = np.asarray(source)
    what = f"the {'tensor' if tensor else 'array'} of shape {array.shape} and type {array.dtype}"
    if array.ndim == 3 and tensor and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"{what} is not one picture; give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).")
    if array.dtype.kind not in "buif":
        raise ImageError(f"{what} does not hold numbers of pixels; give uint8, uint16, or floats in [0, 1].")
    check_size((array.shape[1], array.shape[0]), what, None, wish.max_pixels)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError(f"{what} holds NaN or infinity; replace them before reading it.")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return Samples(array.astype(array.dtype.newbyteorder("="), copy=False), str(array.dtype))
