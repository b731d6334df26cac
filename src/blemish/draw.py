"""Drawing of arrays: anomaly maps in colours, contact sheets, quick PNG files.

Maps are drawn on a scale that the caller gives, the method's fixed one, and never stretched to their own maximum.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image, ImageDraw, ImageFont

from blemish.errors import UsageError

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: PNG's number of each mode.
_PNG_COLOURS = {"L": 0, "RGB": 2}
#: PNG's number of the filter "difference to the pixel on the left".
PNG_SUB_FILTER = 1
#: Bytes of rows that are filtered and compressed together.
_PNG_BLOCK = 2**20

# The colours are "Turbo" (Anton Mikhailov, Google, Apache-2.0): blue is low, green is middle, red is high. These are
# the published degree-5 polynomials (Ruofei Du), one row per channel, powers ascending.
_TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)


def _table() -> npt.NDArray[np.uint8]:
    powers = np.linspace(0.0, 1.0, 256)[:, None] ** np.arange(6)
    table: npt.NDArray[np.uint8] = np.round(np.clip(powers @ np.array(_TURBO).T, 0.0, 1.0) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


COLOURS = _table()
"""uint8 (256, 3): the colour of each 1/255 of the scale, low to high."""


def levels(values: npt.NDArray[np.float32], map_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the position of each value on the scale, uint8 (H, W): 0 at or below `low`, 255 at or above `high`."""
    low, high = map_range
    if not low < high:
        raise UsageError(f"map_range must be (low, high) with low < high, not {map_range}.")
    scaled = values - np.float32(low)
    with np.errstate(over="ignore"):  # values far outside are clipped anyway
        scaled *= np.float32(255.0 / (high - low))
    np.clip(scaled, 0.0, 255.0, out=scaled)
    position: npt.NDArray[np.uint8] = np.round(scaled, out=scaled).astype(np.uint8)
    return position


def heatmap(values: npt.NDArray[np.float32], map_range: tuple[float, float], *, legend: bool = False) -> Image.Image:
    """Draw an anomaly map in colours.

    Args:
        values: Anomaly map (H, W).
        map_range: (low, high), the ends of the scale.
        legend: Add a colour bar below.

    Returns:
        RGB image (W, H), higher by the legend if there is one.
    """
    image = _colour(Image.fromarray(levels(values, map_range)))
    return with_legend(image, map_range) if legend else image


def overlay(
    image: Image.Image,
    values: npt.NDArray[np.float32],
    map_range: tuple[float, float],
    *,
    alpha: float = 0.6,
    legend: bool = False,
) -> Image.Image:
    """Draw an anomaly map over its image.

    Opacity grows with the value, from 0 at `low` to `alpha` at `high`, so normal parts stay visible as they are.

    Args:
        image: Image of the map's size.
        values: Anomaly map (H, W).
        map_range: (low, high), the ends of the scale.
        alpha: Opacity at the upper end, in [0, 1].
        legend: Add a colour bar below.

    Returns:
        RGB image (W, H), higher by the legend if there is one.

    Raises:
        UsageError: The sizes differ, or alpha is out of range.
    """
    size = (values.shape[1], values.shape[0])
    if image.size != size:
        raise UsageError(f"the map belongs to a picture of {size[0]} x {size[1]}, not {image.width} x {image.height}.")
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha must be in [0, 1], not {alpha}.")
    position = Image.fromarray(levels(values, map_range))
    opacity = np.round(np.arange(256) * alpha).astype(np.uint8)
    result = Image.composite(_colour(position), image.convert("RGB"), position.point(opacity.tolist()))
    return with_legend(result, map_range) if legend else result


def _colour(position: Image.Image) -> Image.Image:
    """Return levels (mode L) in RGB. Pillow looks colours up several times faster than NumPy."""
    indexed = position.copy()
    indexed.putpalette(COLOURS.tobytes())
    return indexed.convert("RGB")


def with_legend(
    image: Image.Image, map_range: tuple[float, float], *, threshold: float | None = None, caption: str | None = None
) -> Image.Image:
    """Return the image with a colour bar below it, labelled with both ends of the scale.

    Args:
        image: RGB image.
        map_range: (low, high), the ends of the scale.
        threshold: A value on the scale that gets a mark and its number; None or one outside gets none.
        caption: A line below the colour bar.
    """
    width = max(image.width, 96)
    bar = max(8, min(24, image.height // 40))
    size = max(10, bar)
    text = font(size)
    line = size + 6
    height = image.height + bar + line * (1 if caption is None else 2)
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(image, ((width - image.width) // 2, 0))
    ramp = COLOURS[np.linspace(0, 255, width).round().astype(np.intp)]
    canvas.paste(Image.fromarray(np.broadcast_to(ramp, (bar, width, 3)).copy()), (0, image.height))
    draw = ImageDraw.Draw(canvas)
    low, high = map_range
    ends = [f"{end:.4g}" for end in map_range]
    top = image.height + bar + 1
    lengths = [draw.textlength(end, font=text) for end in ends]
    draw.text((3, top), ends[0], fill="black", font=text)
    draw.text((width - 3 - lengths[1], top), ends[1], fill="black", font=text)
    if threshold is not None and low <= threshold <= high:
        place = round((threshold - low) / (high - low) * (width - 1))
        draw.rectangle((place - 1, image.height, place + 1, image.height + bar), fill="black")
        mark = f"{threshold:.4g}"
        length = draw.textlength(mark, font=text)
        left = place - length / 2
        if 3 + lengths[0] + size / 2 < left and left + length + size / 2 < width - 3 - lengths[1]:
            draw.text((left, top), mark, fill="black", font=text)
    if caption is not None:
        draw.text((3, top + line - 2), _shorten(caption, width - 6, text), fill="black", font=text)
    return canvas


def outlined(image: Image.Image, rings: Iterable[Sequence[tuple[float, float]]]) -> Image.Image:
    """Return the image with closed outlines, white with dark edges, so that they are seen on any ground.

    Args:
        image: RGB image.
        rings: Corners (x, y) of each outline in pixels of the image.
    """
    result = image.copy()
    draw = ImageDraw.Draw(result)
    width = max(1, round(max(image.size) / 500))
    lines = [[*ring, ring[0], ring[1]] for ring in rings if len(ring) > 1]
    for line in lines:
        draw.line(line, fill=(20, 20, 20), width=width + 2)
    for line in lines:
        draw.line(line, fill="white", width=width)
    return result


def font(size: int) -> Font:
    """Return Pillow's own font at a size in pixels; its small bitmap font if Pillow lacks FreeType."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def contact_sheet(
    items: Iterable[tuple[Image.Image, str]], *, columns: int = 4, cell: int = 256, title: str | None = None
) -> Image.Image:
    """Lay images out in rows with their captions.

    Each image is reduced as it comes, so the items may be a generator over large ones.

    Args:
        items: Images, each with a caption of one or more lines.
        columns: Images in a row.
        cell: Side of the square, in pixels, that each image is fitted into; smaller ones are enlarged.
        title: A line at the top.

    Returns:
        RGB image.

    Raises:
        UsageError: no items, or a size below 1.
    """
    if columns < 1 or cell < 1:
        raise UsageError(f"columns and cell must be at least 1, not {columns} and {cell}.")
    small = [(_fit(image, cell), text.splitlines() or [""]) for image, text in items]
    if not small:
        raise UsageError("a contact sheet needs at least one picture.")
    columns = min(columns, len(small))
    gap, size = max(4, cell // 24), max(10, cell // 16)
    letters = font(size)
    line = size + size // 3
    tall = cell + max(len(lines) for _, lines in small) * line + gap
    head = 0 if title is None else 2 * line
    rows = math.ceil(len(small) / columns)
    sheet = Image.new("RGB", (gap + columns * (cell + gap), head + gap + rows * (tall + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    if title is not None:
        draw.text((gap, line // 2), _shorten(title, sheet.width - 2 * gap, letters), fill="black", font=letters)
    for index, (image, lines) in enumerate(small):
        row, column = divmod(index, columns)
        left, top = gap + column * (cell + gap), head + gap + row * (tall + gap)
        sheet.paste(image, (left + (cell - image.width) // 2, top + (cell - image.height) // 2))
        for number, text in enumerate(lines):
            place = (left, top + cell + gap // 2 + number * line)
            draw.text(place, _shorten(text, cell, letters), fill="black", font=letters)
    return sheet


def _fit(image: Image.Image, cell: int) -> Image.Image:
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BOX if scale > 1 else Image.Resampling.LANCZOS)


def _shorten(text: str, width: int, letters: Font) -> str:
    """Return the text without its middle, so that it is narrow enough; letters that the font lacks become "?"."""
    coding = "utf-8" if isinstance(letters, ImageFont.FreeTypeFont) else "latin-1"
    text = text.encode(coding, "replace").decode(coding)
    for keep in range(len(text), 0, -1):
        short = text if keep == len(text) else f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
        if letters.getlength(short) <= width:
            return short
    return ""


def save_png(image: Image.Image, stream: IO[bytes]) -> None:
    """Write an image of mode L or RGB as PNG, several times faster than Pillow and a few percent larger.

    A general encoder tries five filters on every row and searches far back for repetitions. Photographs have none, so
    every row gets one filter (the difference to the pixel on the left) and is compressed by Intel's ISA-L at a low
    level. Flat areas and masks stay small, because their differences are runs of zeros.
    """
    pixels = np.asarray(image)
    rows = pixels.reshape(pixels.shape[0], -1)
    _write_png(stream, rows, rows.shape[1] // pixels.shape[1], 8, _PNG_COLOURS[image.mode], {})


def save_deep_png(grey: npt.NDArray[np.uint16], stream: IO[bytes], text: Mapping[str, str]) -> None:
    """Write uint16 (H, W) as 16-bit grey PNG in the same way, with Latin-1 text entries."""
    rows = np.ascontiguousarray(grey, dtype=">u2").view(np.uint8).reshape(grey.shape[0], -1)
    _write_png(stream, rows, 2, 16, _PNG_COLOURS["L"], text)


def _write_png(
    stream: IO[bytes], rows: npt.NDArray[np.uint8], step: int, depth: int, colour: int, text: Mapping[str, str]
) -> None:
    """Write rows of bytes as PNG.

    Args:
        stream: Binary file.
        rows: uint8 (H, W * step).
        step: Bytes of a pixel.
        depth: Bits of a sample.
        colour: PNG's number of the mode.
        text: Text entries.
    """
    height, width = rows.shape[0], rows.shape[1] // step
    stream.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    for name, words in text.items():
        _write_chunk(stream, b"tEXt", f"{name}\0{words}".encode("latin-1"))
    packer = isal_zlib.compressobj(1)
    block = max(1, _PNG_BLOCK // rows.shape[1])
    for top in range(0, height, block):
        part = rows[top : top + block]
        filtered = np.empty((part.shape[0], 1 + part.shape[1]), np.uint8)
        filtered[:, 0] = PNG_SUB_FILTER
        filtered[:, 1 : 1 + step] = part[:, :step]
        np.subtract(part[:, step:], part[:, :-step], out=filtered[:, 1 + step :])
        if packed := packer.compress(filtered.data):
            _write_chunk(stream, b"IDAT", packed)
    _write_chunk(stream, b"IDAT", packer.flush())
    _write_chunk(stream, b"IEND", b"")


def _write_chunk(stream: IO[bytes], name: bytes, data: bytes) -> None:
    stream.write(struct.pack(">I", len(data)) + name)
    stream.write(data)
    stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))
