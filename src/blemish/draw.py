"""Anomaly maps in colours, always on the method's fixed scale and never stretched to a picture's own maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.image_io import LoadedImage

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
    """Place on the fixed scale, uint8 (H, W): 0 at or below `lo`, 255 at or above `hi`."""
    low, high = map_range
    if not low < high:
        raise UsageError(f"map_range must be (lo, hi) with lo < hi, not {map_range}.")
    scaled = values - np.float32(low)
    with np.errstate(over="ignore"):  # far outside the scale is the end of the scale
        scaled *= np.float32(255.0 / (high - low))
    np.clip(scaled, 0.0, 255.0, out=scaled)
    place: npt.NDArray[np.uint8] = np.round(scaled, out=scaled).astype(np.uint8)
    return place


def heatmap(values: npt.NDArray[np.float32], map_range: tuple[float, float], *, legend: bool = False) -> Image.Image:
    """An anomaly map in colours.

    Args:
        values: anomaly map (H, W).
        map_range: (lo, hi), the ends of the scale; the same for every picture of a method.
        legend: add a colour bar with its ends below.

    Returns:
        RGB picture (W, H), higher by the legend where there is one.
    """
    picture = _coloured(Image.fromarray(levels(values, map_range)))
    return with_legend(picture, map_range) if legend else picture


def overlay(
    picture: LoadedImage | Image.Image,
    values: npt.NDArray[np.float32],
    map_range: tuple[float, float],
    *,
    alpha: float = 0.6,
    legend: bool = False,
) -> Image.Image:
    """The picture with its anomaly map laid over it.

    The colour covers the more the higher the value, from nothing at `lo` to `alpha` at `hi`, so that what is normal
    stays visible as it is.

    Args:
        picture: `LoadedImage` or PIL image of the map's size.
        values: anomaly map (H, W).
        map_range: (lo, hi), the ends of the scale.
        alpha: cover at the upper end, in [0, 1].
        legend: add a colour bar with its ends below.

    Returns:
        RGB picture (W, H), higher by the legend where there is one.

    Raises:
        UsageError: the sizes differ, or alpha is out of range.
    """
    image = picture if isinstance(picture, Image.Image) else picture.image
    size = (values.shape[1], values.shape[0])
    if image.size != size:
        raise UsageError(f"the map belongs to a picture of {size[0]} x {size[1]}, not {image.width} x {image.height}.")
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha must be in [0, 1], not {alpha}.")
    place = Image.fromarray(levels(values, map_range))
    cover = np.round(np.arange(256) * alpha).astype(np.uint8)
    result = Image.composite(_coloured(place), image.convert("RGB"), place.point(cover.tolist()))
    return with_legend(result, map_range) if legend else result


def _coloured(place: Image.Image) -> Image.Image:
    """RGB of levels (mode L). Pillow looks colours up several times as fast as NumPy does."""
    indexed = place.copy()
    indexed.putpalette(COLOURS.tobytes())
    return indexed.convert("RGB")


def with_legend(picture: Image.Image, map_range: tuple[float, float]) -> Image.Image:
    """The picture with a colour bar below it, `lo` written at the left end and `hi` at the right one."""
    width = max(picture.width, 96)
    bar = max(8, min(24, picture.height // 40))
    text = font(max(10, bar))
    line = max(10, bar) + 6
    sheet = Image.new("RGB", (width, picture.height + bar + line), "white")
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    ramp = COLOURS[np.linspace(0, 255, width).round().astype(np.intp)]
    sheet.paste(Image.fromarray(np.broadcast_to(ramp, (bar, width, 3)).copy()), (0, picture.height))
    draw = ImageDraw.Draw(sheet)
    low, high = (f"{end:.4g}" for end in map_range)
    top = picture.height + bar + 1
    draw.text((3, top), low, fill="black", font=text)
    draw.text((width - 3 - draw.textlength(high, font=text), top), high, fill="black", font=text)
    return sheet


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels; its small bitmap font where Pillow lacks FreeType."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()
