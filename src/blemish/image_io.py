"""Reading: files, bytes, arrays and tensors become an upright grey or RGB `LoadedImage`; `find_images` lists files.

The notes of an image list what was done while reading it. Colour profiles (ICC) in files are ignored: the numbers are
taken as sRGB, as CLIP was trained.
"""

from __future__ import annotations

import contextlib
import glob
import io
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from blemish.errors import ImageError, UsageError
from blemish.files import absolute
from blemish.types import ImageSource, PathLike

MAX_PIXELS = 178_956_970
"""Largest picture that is read by default, in pixels: Pillow's own limit."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .dib .webp .tif .tiff .gif .ppm .pgm .pbm .pnm .pfm".split()  # noqa: SIM905
)
"""Suffixes of picture files in folders, in lower case."""

# Importing a plugin registers its format with Pillow; `Image.open` itself would load two dozen more.
_PLUGINS = (
    JpegImagePlugin,
    PngImagePlugin,
    BmpImagePlugin,
    WebPImagePlugin,
    TiffImagePlugin,
    GifImagePlugin,
    PpmImagePlugin,
)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_READABLE = "JPEG, PNG, BMP, WebP, TIFF, GIF and PPM"

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def read_image(source: ImageSource, *, max_pixels: int | None = MAX_PIXELS) -> LoadedImage:
    """Read one picture.

    EXIF orientation is applied. Grey stays grey ("L"), everything else becomes "RGB". Transparent parts become white.
    The first of several frames is read. Grey of more than 8 bits (files, PIL images, uint16 arrays) is scaled by its
    own smallest and largest value; an image of one constant value becomes mid-grey. Of colour with 16 bits per channel
    the upper 8 bits are read.

    Args:
        source: A path, bytes, a binary file object, a PIL image, a NumPy array or a torch tensor (or a `LoadedImage`,
            returned as it is). Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; a tensor whose first axis
            has length 1, 3 or 4 is (C, H, W). uint8 and integers within 0..255 are used as they are, bool is black and
            white, floats within [0, 1] are multiplied by 255; uint16 and all others are scaled by their true range.
        max_pixels: A larger picture is refused before it is decoded; None = no limit.

    Raises:
        ImageError: It is missing, unreadable, damaged, cut short, not a picture, or too large.
        UsageError: `max_pixels` is not a positive number.
    """
    if max_pixels is not None and (isinstance(max_pixels, bool) or max_pixels < 1):
        raise UsageError(f"max_pixels must be a positive number of pixels or None, not {max_pixels}.")
    if isinstance(source, LoadedImage):
        return source
    path: str | None = None
    name = "the picture"
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        name = repr(path)
    elif hasattr(source, "read"):
        file_name = getattr(source, "name", None)  # a number for a file made from a descriptor
        if isinstance(file_name, str):
            path, name = file_name, repr(file_name)
    try:
        with quiet_pillow():
            image, notes = _read(source, path, name, max_pixels)
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} is too large to decode; make it smaller.", path) from error
    except Exception as error:
        # A decoder may raise anything on damaged bytes; the cause stays attached.
        state = "cut short" if "truncated" in str(error).lower() else "damaged or not supported"
        raise ImageError(f"{name} is {state}; save it again or leave it out.", path) from error
    return LoadedImage(image, path, tuple(notes))


def _read(source: Any, path: str | None, name: str, max_pixels: int | None) -> tuple[Image.Image, list[str]]:
    if isinstance(source, Image.Image):
        return _finish(source, name, path, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        with open_file(source, name, path) as stream:
            return _finish(identify(stream, name, path), name, path, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _finish(identify(io.BytesIO(source), name, path), name, path, max_pixels)
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise ImageError(f"{name} gives text, not bytes; open the file in binary mode.", path)
        return _finish(identify(io.BytesIO(data), name, path), name, path, max_pixels)
    if hasattr(source, "__array__") or hasattr(source, "detach"):
        image, notes = _from_array(source, max_pixels)
        flat, more = _finish(image, name, path, max_pixels)
        return flat, notes + more
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; "
        "give a path, bytes, a file object, a PIL image, an array or a tensor."
    )


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


def identify(stream: IO[bytes], name: str, path: str | None) -> Image.Image:
    """Read the header.

    `Image.open` would apply Pillow's global size limit, which a library should neither change nor obey.
    """
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name} is empty; copy or save it again.", path)
    for kind in _FORMATS:
        factory, accept = Image.OPEN[kind]
        accepted = accept is None or accept(prefix)
        if isinstance(accepted, str):
            raise ImageError(f"{name} is {kind}, which this Pillow was built without; convert it to PNG.", path)
        if accepted:
            stream.seek(0)
            return factory(stream, path or "")
    raise ImageError(f"{name} is in no format that blemish reads ({_READABLE}); convert it to one of them.", path)


def _check_size(size: tuple[int, int], name: str, path: str | None, max_pixels: int | None) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}); leave it out.", path)
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels, more than max_pixels = {max_pixels:,}; "
            "make it smaller or raise max_pixels.",
            path,
        )


def _finish(image: Image.Image, name: str, path: str | None, max_pixels: int | None) -> tuple[Image.Image, list[str]]:
    """Decode, turn upright, and convert to "L" or "RGB"."""
    _check_size(image.size, name, path, max_pixels)
    notes: list[str] = []
    frame = image.tell()
    result = flatten(decode(image, notes), notes)
    if result is image or isinstance(result, type(image)):
        result = result.copy()
    result.info = {}  # so that nothing turns or blends it a second time
    note_frames(image, frame, notes)  # reads on in the file, so it comes after the pixels
    return result, notes


def decode(image: Image.Image, notes: list[str]) -> Image.Image:
    """Load the pixels and turn them upright, in any mode; add to the notes."""
    tags: Any = getattr(image, "tag_v2", {})
    orientation, photometric = tags.get(_ORIENTATION, 1), tags.get(262)
    deep = _deep_colour(image)
    image.load()
    result = image
    if orientation in _TRANSPOSES:
        notes.append("turned by EXIF")  # Pillow turns TIFF while decoding
    else:
        with contextlib.suppress(Exception):  # broken EXIF is no reason to refuse the pixels
            orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in _TRANSPOSES:
            result = image.transpose(_TRANSPOSES[orientation])
            notes.append("turned by EXIF")
    if deep:
        notes.append("16 bits a channel read by their upper 8")
    if photometric == 0 and result.mode.startswith("I;16"):
        # Pillow undoes "white is zero" for 8 bits and fewer, not for 16.
        result = Image.fromarray(np.uint16(65535) - np.asarray(result))
        notes.append("16-bit inverted, as its white is zero")
    return result


def note_frames(image: Image.Image, frame: int, notes: list[str]) -> None:
    """Note which of several frames was read."""
    frames = 1
    with contextlib.suppress(Exception):
        frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        notes.append(f"first of {frames} frames" if frame == 0 else f"frame {frame + 1} of {frames}")


def _deep_colour(image: Image.Image) -> bool:
    """Return whether Pillow will cut the channels from 16 to 8 bits; known only before decoding."""
    if image.mode.startswith(("I", "F")):
        return False
    tiles = getattr(image, "tile", None) or []
    return any(";16" in str(tile[3]) for tile in tiles)


def is_deep(mode: str) -> bool:
    """Return whether a mode is grey of more than 8 bits, which is scaled by its true range."""
    return mode.startswith("I") or mode == "F"


def flatten(image: Image.Image, notes: list[str], ends: tuple[float, float] | None = None) -> Image.Image:
    """Convert any mode to "L" or "RGB".

    Args:
        image: Decoded image.
        notes: Conversions are added.
        ends: Smallest and largest value of the whole deep grey image, if this is a part of it.
    """
    mode = image.mode
    if is_deep(mode):
        kind = "float" if mode == "F" else "32-bit" if mode == "I" else "16-bit"
        return Image.fromarray(_stretch(np.asarray(image), kind, notes, ends))
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


def _stretch(
    values: npt.NDArray[Any], kind: str, notes: list[str], ends: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """Scale numbers of any type to uint8 by `ends`, by default their own range; the shape stays."""
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    low, high = (values.min().item(), values.max().item()) if ends is None else ends
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(f"the {kind} picture holds NaN or infinity; replace them before reading it.")
    ends_text = (f"{low:.6g}", f"{high:.6g}") if isinstance(low, float) else (str(low), str(high))
    shrink = 0.5 if math.isinf(float(high) - float(low)) else 1.0
    start, span = float(low) * shrink, float(high) * shrink - float(low) * shrink
    result = np.full(values.shape, 128, dtype=np.uint8)
    if span == 0.0:
        notes.append(f"{kind} with one value only ({ends_text[0]}), taken as mid-grey")
        return result
    notes.append(f"{kind} scaled by its range {ends_text[0]}..{ends_text[1]}")
    rows = max(1, 1_000_000 // max(1, values[0].size))  # blocks, to save memory
    for top in range(0, values.shape[0], rows):
        block = values[top : top + rows].astype(np.float64)
        result[top : top + rows] = np.clip(np.rint((block * shrink - start) / span * 255.0), 0, 255)
    return result


def _from_array(source: Any, max_pixels: int | None) -> tuple[Image.Image, list[str]]:
    """Convert an array or tensor to a PIL image of mode "L", "RGB" or "RGBA"."""
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
    _check_size((array.shape[1], array.shape[0]), what, None, max_pixels)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError(f"{what} holds NaN or infinity; replace them before reading it.")
    notes: list[str] = []
    return Image.fromarray(np.ascontiguousarray(_to_bytes(array, notes))), notes


def _to_bytes(array: npt.NDArray[Any], notes: list[str]) -> npt.NDArray[np.uint8]:
    """Convert pixels of any type to uint8, by the rules of `read_image`."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if array.dtype.kind in "ui" and array.dtype != np.uint16 and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= -1e-6 and high <= 1 + 1e-6:  # rounding may exceed the ends
        return np.rint(np.clip(array.astype(np.float64), 0.0, 1.0) * 255.0).astype(np.uint8)
    kind = str(array.dtype)
    if array.ndim == 2 or array.shape[2] == 3:
        return _stretch(array, kind, notes)
    # Opacity is not scaled by its own range: full opacity is the maximum of the type, or of the array.
    alpha = array[:, :, 3].astype(np.float64)
    full = 65535.0 if array.dtype == np.uint16 else max(float(alpha.max()), 1.0)
    opacity = np.rint(np.clip(alpha / full, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.dstack([_stretch(array[:, :, :3], kind, notes), opacity])


def find_images(paths: PathLike | Iterable[PathLike], *, recursive: bool = False) -> Iterator[Path]:
    """Yield the picture files of paths, folders and patterns.

    A named file is taken whatever its suffix. A folder gives the files with a picture's suffix, in natural order
    (`2.png` before `10.png`), its own before those of its subfolders. A pattern (`*.png`, `parts/**/*.jpg`) that is no
    existing path gives its matches in natural order; unless it ends in a suffix, only those with a picture's suffix.
    Hidden files and folders are skipped unless named. Each file comes once.

    No file is read, and a folder is listed only when its turn comes, so errors come then, too.

    Args:
        paths: Files, folders, patterns; or one of them.
        recursive: Search subfolders, too.

    Yields:
        Paths as they were given, not resolved.

    Raises:
        UsageError: A path does not exist, or a folder or pattern has no pictures.
    """
    yielded: set[str] = set()
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for file in _expand(os.fsdecode(path), recursive):
            key = absolute(file)
            if key not in yielded:
                yielded.add(key)
                yield Path(file)


def _expand(path: str, recursive: bool) -> Iterator[str]:
    if os.path.isdir(path):  # noqa: PTH112 - a path may be any text here
        empty = True
        for file in _walk(path, recursive):
            empty = False
            yield file
        if empty:
            hint = "give another folder" if recursive else "give another folder, or search its subfolders (recursive)"
            raise UsageError(f"{path!r} holds no pictures; {hint}.")
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        suffix = os.path.splitext(path)[1]  # noqa: PTH122
        ends = bool(suffix) and not glob.has_magic(suffix)
        matches = [
            match
            for match in glob.iglob(path, recursive=True)  # noqa: PTH207 - keeps the pattern's own form
            if (ends or _is_picture(match)) and not os.path.isdir(match)  # noqa: PTH112
        ]
        if not matches:
            raise UsageError(f"no pictures match {path!r}; check the pattern.")
        yield from sorted(matches, key=natural_key)
    elif "://" in path:
        raise UsageError(f"{path!r} is an address, which blemish does not fetch; download it and give the file.")
    else:
        raise UsageError(f"{path!r} does not exist; check the path.")


def _walk(folder: str, recursive: bool) -> Iterator[str]:
    """Yield the files of a folder in natural order, then those of its subfolders; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder!r} cannot be listed ({error.strerror}); check its permissions.") from error
    folders = [entry.name for entry in visible if entry.is_dir(follow_symlinks=False)]
    # A broken link with a picture's suffix is kept, so that reading it reports an error.
    files = [entry.name for entry in visible if _is_picture(entry.name) and not entry.is_dir()]
    for name in sorted(files, key=natural_key):
        yield os.path.join(folder, name)  # noqa: PTH118
    if recursive:
        for name in sorted(folders, key=natural_key):
            yield from _walk(os.path.join(folder, name), recursive)  # noqa: PTH118


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def natural_key(path: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key: folder by folder, numbers by value, ignoring case; the path itself decides ties."""
    key: list[list[str | int]] = []
    for part in path.replace(os.sep, "/").split("/"):
        bits = re.split(r"([0-9]+)", part.casefold())  # text and numbers alternate, text first
        key.append([int(bit) if position % 2 else bit for position, bit in enumerate(bits)])
    return key, path


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
