"""Files that Pillow decodes: recognise, decode, turn upright, convert to "L" or "RGB"."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from blemish.errors import ImageError
from blemish.image_io.find import HEIC, RAW
from blemish.image_io.values import Samples
from blemish.types import ValueRange

# Importing a plugin registers its format with Pillow; `Image.open` itself would load two dozen more.
_PLUGINS = (
    JpegImagePlugin,
    PngImagePlugin,
    BmpImagePlugin,
    WebPImagePlugin,
    TiffImagePlugin,
    GifImagePlugin,
    PpmImagePlugin,
    Jpeg2KImagePlugin,
    AvifImagePlugin,
)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
_READABLE = "JPEG, PNG, BMP, WebP, TIFF, GIF, PPM, JPEG 2000 and AVIF"
#: Brands of HEIC in the first box of a file.
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")
_CONTAINER_BRANDS = (b"mif1", b"msf1")
#: Beginnings of camera raw files: Canon (two kinds), Fuji, Olympus, Panasonic, Sigma, Minolta.
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0", b"FOVb", b"\0MRM")
_HEAD = 132
"""Bytes that show the format of a file."""

ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_file(source: str | os.PathLike[str], name: str, path: str | None) -> IO[bytes]:
    """Open a picture file; every failure becomes an ImageError."""
    try:
        # A pipe would block on open and a device may never end, so look before opening.
        status = os.stat(source)  # noqa: PTH116
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a folder; give the pictures in it (find_images lists them).", path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name} is not a regular file; pass its bytes instead.", path)
        return open(source, "rb")  # noqa: PTH123 - the caller closes it
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path.", path) from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read; check its permissions.", path) from error
    except ValueError as error:
        raise ImageError(f"{name} is not a possible path; check it.", path) from error
    except OSError as error:
        raise ImageError(f"{name} cannot be opened ({error.strerror}); check the path.", path) from error


def read_head(stream: IO[bytes], name: str, path: str | None) -> bytes:
    """Return the first bytes of a file and go back to its beginning. Raises ImageError if it is empty."""
    stream.seek(0)
    head = stream.read(_HEAD)
    if not head:
        raise ImageError(f"{name} is empty; copy or save it again.", path)
    stream.seek(0)
    return head


def is_raw(head: bytes) -> bool:
    """Return whether a file begins like camera raw."""
    return head.startswith(_RAW_STARTS) or head[8:11] == b"CR\2" or head[4:12] == b"ftypcrx "


def raw_error(name: str, path: str | None) -> ImageError:
    """Return the error for camera raw."""
    return ImageError(f"{name} is {RAW.remedy}.", path)


def identify(stream: IO[bytes], name: str, path: str | None) -> Image.Image:
    """Read the header.

    `Image.open` would apply Pillow's global size limit, which a library should neither change nor obey.
    """
    head = read_head(stream, name, path)
    if is_raw(head):
        raise raw_error(name, path)
    if _is_heic(head):
        return _open_heic(stream, name, path)
    for kind in _FORMATS:
        factory, accept = Image.OPEN[kind]
        accepted = accept is None or accept(head[:16])
        if isinstance(accepted, str):
            raise ImageError(f"{name} is {kind}, which this Pillow was built without; convert it to PNG.", path)
        if accepted:
            stream.seek(0)
            return factory(stream, path or "")
    raise ImageError(f"{name} is in no format that blemish reads ({_READABLE}); convert it to one of them.", path)


def _is_heic(head: bytes) -> bool:
    if head[4:8] != b"ftyp":
        return False
    return head[8:12] in _HEIC_BRANDS or (head[8:12] in _CONTAINER_BRANDS and b"avif" not in head[16:])


def _open_heic(stream: IO[bytes], name: str, path: str | None) -> Image.Image:
    if not HEIC.installed:
        raise ImageError(f"{name} is HEIC, which needs an optional part: {HEIC.advice}.", path)
    import pillow_heif

    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()
    return Image.OPEN["HEIF"][0](stream, path or "")


def check_size(size: tuple[int, int], name: str, path: str | None, max_pixels: int | None) -> None:
    """Raise ImageError for a picture without pixels, or with too many."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}); leave it out.", path)
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels, more than max_pixels = {max_pixels:,}; "
            "make it smaller or raise max_pixels (--max-pixels).",
            path,
        )


def decode(image: Image.Image, notes: list[str], *, invert: bool = True) -> Image.Image:
    """Load the pixels and turn them upright, in any mode; add to the notes.

    Pillow undoes "white is zero" in a TIFF for 8 bits and fewer. `invert` does so for 16 bits, too.
    """
    tags: Any = getattr(image, "tag_v2", {})
    orientation = tags.get(ORIENTATION, 1)
    inverted = is_inverted(image)
    deep = _cuts_depth(image)
    image.load()
    result = image
    if orientation in _TRANSPOSES:
        notes.append("turned by EXIF")  # Pillow turns TIFF while decoding
    else:
        with contextlib.suppress(Exception):  # broken EXIF is no reason to refuse the pixels
            orientation = image.getexif().get(ORIENTATION, 1)
        if orientation in _TRANSPOSES:
            result = image.transpose(_TRANSPOSES[orientation])
            notes.append("turned by EXIF")
    if deep:
        notes.append("16 bits a channel read by their upper 8")
    if invert and inverted and result.mode.startswith("I;16"):
        result = Image.fromarray(np.uint16(65535) - np.asarray(result))
        notes.append("16-bit inverted, as its white is zero")
    return result


def is_inverted(image: Image.Image) -> bool:
    """Return whether a TIFF says that white is zero, and Pillow leaves it so."""
    tags: Any = getattr(image, "tag_v2", {})
    return bool(tags.get(262) == 0 and is_deep(image.mode))


def turn(values: np.ndarray[Any, Any], orientation: int, notes: list[str]) -> np.ndarray[Any, Any]:
    """Turn an array (H, W[, C]) upright, as `decode` does with images."""
    if orientation not in _TRANSPOSES:
        return values
    notes.append("turned by EXIF")
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    return values[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def note_frames(image: Image.Image, frame: int, notes: list[str]) -> None:
    """Note which of several frames was read."""
    note_number(frame, count_frames(image), "frame", notes)


def note_number(index: int, total: int, word: str, notes: list[str]) -> None:
    """Note which of several pictures of a file was read; `index` is from 0."""
    if total > 1:
        notes.append(f"first of {total:,} {word}s" if index == 0 else f"{word} {index + 1:,} of {total:,}")


def count_frames(image: Image.Image) -> int:
    """Return the number of frames."""
    with contextlib.suppress(Exception):
        return int(getattr(image, "n_frames", 1))
    return 1


def _cuts_depth(image: Image.Image) -> bool:
    """Return whether Pillow will cut the channels from 16 to 8 bits; known only before decoding."""
    if image.mode.startswith(("I", "F")):
        return False
    return any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", None) or [])


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def read_deep_png(image: Image.Image, stream: IO[bytes], path: str | None) -> Samples | None:
    """Read a PNG with 16 bits in each of several channels; None for any other picture.

    Pillow keeps the upper byte of each value. With the other byte order it keeps the lower one, so two passes give
    both. The two channels of grey with opacity look like RGBA of 8 bits to the decoder.
    """
    if not isinstance(image, PngImagePlugin.PngImageFile) or "transparency" in image.info or image.tell() != 0:
        return None
    raw = _raw_mode(image.tile[0]) if len(image.tile) == 1 else ""
    if raw not in ("RGB;16B", "RGBA;16B", "LA;16B"):
        return None

    def decoded(raw_mode: str) -> np.ndarray[Any, Any]:
        stream.seek(0)
        part = PngImagePlugin.PngImageFile(stream, path or "")
        part._mode = "RGBA" if raw.startswith("LA") else part.mode
        part.tile = [ImageFile._Tile(*part.tile[0][:3], raw_mode)]
        part.load()
        return np.asarray(part).astype(np.uint16)

    if raw.startswith("LA"):
        values = decoded("RGBA")
        return Samples(values[..., 0::2] * np.uint16(256) + values[..., 1::2], "16-bit")
    return Samples(decoded(raw) * np.uint16(256) + decoded(raw.replace(";16B", ";16L")), "16-bit")


def is_deep(mode: str) -> bool:
    """Return whether a mode is grey of more than 8 bits."""
    return mode.startswith("I") or mode == "F"


def samples_of(image: Image.Image, inverted: bool) -> Samples:
    """Return the values of a decoded image of a deep mode; `inverted` as in `Samples`."""
    values = np.asarray(image)
    declared: ValueRange | None = None
    if image.format in ("PPM", "JPEG2000") and image.mode.startswith("I"):
        declared = (0.0, 65535.0)  # Pillow brings their own depth to 16 bits
    kind = "float" if image.mode == "F" else "32-bit" if image.mode == "I" and declared is None else "16-bit"
    return Samples(np.ascontiguousarray(values, values.dtype.newbyteorder("=")), kind, declared, inverted)


def flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert a mode of 8 bits to "L" or "RGB"; conversions are added to the notes."""
    mode = image.mode
    if image.has_transparency_data:
        grey = mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        solid = image.convert("L" if grey else "RGB")
        if alpha.getextrema() == (255, 255):
            return solid
        notes.append("transparent parts laid on white")
        white = Image.new(solid.mode, solid.size, "white")
        white.paste(solid, mask=alpha)
        return white
    if mode in ("L", "RGB"):
        return image
    if mode == "LAB":
        # ImageCms' types leave out that None cannot come back without inPlace.
        converted = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return converted if converted is not None else image.convert("RGB")
    return image.convert("L" if mode == "1" else "RGB")


_PILLOW = r"PIL\."
_quiet_lock = threading.Lock()
_quiet_users = 0


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about unusual files; `warnings.catch_warnings` is not thread-safe.

    One filter for Pillow's modules is added as long as any thread reads. Other filters are left alone.
    """
    global _quiet_users
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            warnings.filterwarnings("ignore", module=_PILLOW)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                for entry in [f for f in warnings.filters if getattr(f[3], "pattern", None) == _PILLOW]:
                    with contextlib.suppress(ValueError, AttributeError):
                        warnings.filters.remove(entry)  # type: ignore[attr-defined]
