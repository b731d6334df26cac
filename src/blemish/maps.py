"""Anomaly maps as 16-bit PNG: one format for files of results, the service and pages.

A map is a grey PNG with text entries: a value is low + grey / 65535 * (high - low).

    blemish:low, blemish:high   the values of black and white; they enclose all values, so that nothing is cut
    blemish:step                side of the square, in pixels of the picture, that one value stands for
    blemish:size                width and height, where the map has to be enlarged to them (bilinear, pixel centres
                                aligned) before a step counts

Nothing is lost but the rounding to 16 bits: at most half of 1/65535 of the scale.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from blemish.draw import PNG_SUB_FILTER, save_deep_png
from blemish.errors import ImageError, UsageError

if TYPE_CHECKING:
    from blemish.detection import Detection

FloatMap: TypeAlias = npt.NDArray[np.float32]

_WHITE = 65535
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bits, colour, compression, filters and interlacing in the header of a PNG.
_GREY_16_BITS = [16, 0, 0, 0, 0]
#: What Pillow and zlib raise for damaged files.
_DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    SyntaxError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
#: Values of an enlarged map, at most: as many as a picture has pixels that is read by default.
_MAX_VALUES = 178_956_970


class DecodedMap(NamedTuple):
    """A map as it was read.

    Attributes:
        values: float32 (rows, columns).
        low: The value of black.
        high: The value of white.
        step: Side of the square, in pixels of the picture, that one value stands for.
    """

    values: FloatMap
    low: float
    high: float
    step: int


def encode_map(detection: Detection, max_side: int | None = None, *, small: bool = False) -> bytes:
    """Return the map of a detection as PNG.

    Args:
        detection: The detection.
        max_side: Reduce a longer side to at most this many values, by the maximum over squares, so that no peak gets
            lost and a picture reaches a threshold exactly if its map does; the step grows accordingly. None keeps the
            map's size.
        small: Write the map as the model gave it, where that is all that the full map is made of
            (`Detection.model_map`): a photo of 12 megapixels takes 0.1 MB instead of 6 MB. `decode_map` enlarges it.

    Raises:
        UsageError: `max_side` is below 1.
    """
    if max_side is not None and max_side < 1:
        raise UsageError(f"max_side must be at least 1, not {max_side}.")
    values, step, size = detection.anomaly_map, detection.map_step, None
    if max_side is not None and (times := -(-max(values.shape) // max_side)) > 1:
        values, step = block_maximum(values, times), step * times
    elif small and detection.model_map is not None:
        size, values = (values.shape[1], values.shape[0]), detection.model_map
    low, high = detection.map_range
    # As float32, in which values are compared; a double beside them might cut the last digit.
    low, high = min(low, float(values.min())), max(high, float(values.max()))
    share = (values.astype(np.float64) - low) * (_WHITE / (high - low))
    text = {"blemish:low": repr(float(low)), "blemish:high": repr(float(high)), "blemish:step": str(step)}
    if size is not None:
        text["blemish:size"] = f"{size[0]} {size[1]}"
    stream = io.BytesIO()
    save_deep_png(np.rint(share).astype(np.uint16), stream, text)
    return stream.getvalue()


def decode_map(data: bytes) -> DecodedMap:
    """Return the map in a PNG that `encode_map` made, enlarged where it was written small.

    Raises:
        ImageError: The file is no such map, is cut short or damaged.
    """
    grey, low, high, step, size = _read(data)
    values = (low + grey.astype(np.float64) * ((high - low) / _WHITE)).astype(np.float32)
    return DecodedMap(values if size is None else enlarge(values, size), low, high, step)


def _read(data: bytes) -> tuple[npt.NDArray[np.uint16], float, float, int, tuple[int, int] | None]:
    """Return the grey values of a map, the values of black and white, the step, and the size to enlarge to."""
    try:
        chunks = _chunks(data)
        if (own := _read_own(chunks)) is not None:
            grey, text = own
        else:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                grey = np.asarray(image).astype(np.uint16, copy=False)
                text = image.text  # type: ignore[attr-defined]
        low, high, step = float(text["blemish:low"]), float(text["blemish:high"]), int(text["blemish:step"])
        size = None
        if "blemish:size" in text:
            width, height = (int(side) for side in text["blemish:size"].split())
            size = (width, height)
    except _DAMAGED as error:
        raise ImageError(f"this is no anomaly map, or it is damaged ({type(error).__name__}: {error}).") from error
    if grey.ndim != 2 or not -math.inf < low < high < math.inf or step < 1:
        raise ImageError("this is no anomaly map: it is not grey, or its scale is empty.")
    if size is not None and (min(size) < 1 or size[0] * size[1] > _MAX_VALUES):
        raise ImageError(f"this is no anomaly map: it would have {size[0]} x {size[1]} values.")
    return grey, low, high, step, size


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of each chunk of a PNG.

    Raises:
        ValueError: A checksum is wrong. Pillow leaves out those of the pixels.
    """
    if data[:8] != _SIGNATURE:
        raise ValueError("it is no PNG")
    chunks = []
    start = 8
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if data[end : end + 4] != zlib.crc32(data[start + 4 : end]).to_bytes(4, "big"):
            raise ValueError("a checksum is another one")
        chunks.append((kind, data[start + 8 : end]))
        start = end + 4
    return chunks


def _read_own(chunks: list[tuple[bytes, bytes]]) -> tuple[npt.NDArray[np.uint16], dict[str, str]] | None:
    """Return the grey values and text entries of a PNG as `save_deep_png` writes it, twice as fast as Pillow.

    None stands for any other file, and for one that does not unpack: Pillow reads or refuses it.
    """
    kinds = [kind for kind, _ in chunks]
    if kinds[:1] != [b"IHDR"] or kinds[-1] != b"IEND" or {*kinds[1:-1]} - {b"tEXt", b"IDAT"}:
        return None
    width, height, *form = struct.unpack(">IIBBBBB", chunks[0][1])
    if form != _GREY_16_BITS or not 0 < width * height <= _MAX_VALUES:
        return None
    size = height * (1 + 2 * width)
    unpacker = isal_zlib.decompressobj()
    try:
        raw = unpacker.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"), size + 1)
    except isal_zlib.IsalError:  # type: ignore[misc]  # its stub calls it an instance
        return None
    if len(raw) != size or not unpacker.eof:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + 2 * width)
    if (rows[:, 0] != PNG_SUB_FILTER).any():
        return None
    grey = np.cumsum(rows[:, 1:].reshape(height, width, 2), axis=1, dtype=np.uint8)
    texts = (content.decode("latin-1").partition("\0") for kind, content in chunks if kind == b"tEXt")
    return grey.view(">u2")[:, :, 0].astype(np.uint16), {name: words for name, _, words in texts}


def enlarge(values: FloatMap, size: tuple[int, int]) -> FloatMap:
    """Enlarge a map to (width, height), bilinear with pixel centres aligned, as the models' maps are."""
    resized = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def block_maximum(values: FloatMap, times: int) -> FloatMap:
    """Return the maximum of each square of `times` x `times` values; squares are cut at the right and lower edge."""
    rows = np.maximum.reduceat(values, np.arange(0, values.shape[0], times), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, values.shape[1], times), axis=1)
