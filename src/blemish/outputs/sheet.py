"""One picture of many: overlays side by side with their scores below."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from blemish.detection import Detection
from blemish.draw import font
from blemish.errors import UsageError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption(detection: Detection, label: str | None = None) -> str:
    """Two lines: the file's name, then score, verdict where there is one, and a label where one is given."""
    words = [f"{detection.score:.3f}"]
    if detection.anomalous is not None:
        words.append("anomalous" if detection.anomalous else "normal")
    if label:
        words.append(f"({label})")
    name = Path(detection.path).name if detection.path else f"{detection.size[0]} x {detection.size[1]}"
    return f"{name}\n{' '.join(words)}"


def contact_sheet(
    items: Iterable[tuple[Image.Image, str]], *, columns: int = 4, cell: int = 256, title: str | None = None
) -> Image.Image:
    """Lay pictures out in rows with their captions.

    Each picture is made small as it comes, so the items may be a generator over large ones.

    Args:
        items: pictures (overlays, as a rule) with a caption of one or more lines.
        columns: pictures in a row.
        cell: side of the square, in pixels, that each picture is fitted into; smaller ones are enlarged.
        title: a line at the top.

    Returns:
        RGB picture; save it under any name that Pillow takes.

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
    """The text with its middle left out until it is narrow enough; letters that the font lacks become '?'."""
    coding = "utf-8" if isinstance(letters, ImageFont.FreeTypeFont) else "latin-1"
    text = text.encode(coding, "replace").decode(coding)
    for keep in range(len(text), 0, -1):
        shown = text if keep == len(text) else f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
        if letters.getlength(shown) <= width:
            return shown
    return ""
