"""Masks: what a pixel of a mask file means, and the mask of a picture from one or several files.

The rule, in this order:

1. A mask is read like a picture: turned by EXIF, "white is zero" undone, all pages of a TIFF together.
2. Its level is the brightest channel. Where opacity differs, it is the level if everything visible has one colour or is
   not black; otherwise what is transparent counts as black. A palette of one colour only is read by its numbers.
3. Levels that are labels mark every pixel above 0: 0/1, 0/255, one number per kind of defect. Levels with soft edges or
   the noise of a lossy format mark pixels from half of the brightest level.
4. What remains unclear is refused by name: grey areas in a soft or lossy mask, several colours without black, ...
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.datasets.annotations import ANNOTATION_SUFFIXES, AnnotationError, Drawing, load_annotations, rasterize
from blemish.errors import ImageError
from blemish.image_io import MAX_PIXELS, read_image
from blemish.image_io.pillow import decode, flatten, identify, is_deep, open_file, quiet_pillow, read_deep_png
from blemish.image_io.tiff import read_deep_tiff
from blemish.image_io.values import Samples

NEARLY_FULL = 0.9
"""Share of marked pixels from which a mask is called nearly full."""

EMPTY, FULL = "marks nothing", "marks every pixel"
"""Remarks on masks without and with anomalous pixels only."""

_ORIENTATION = 0x0112
_LOSSY = ("JPEG", "MPO", "AVIF", "HEIF")
#: Levels below this part of the brightest one are the noise of a lossy format.
_NOISE = 1 / 8
#: Lossless masks with more levels are no labels if their brightest level is dark.
_MAX_LABELS = 16
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class MaskReading:
    """A mask, and what people should know about it."""

    mask: NDArray[np.bool_]
    """(height, width), True where the picture is anomalous."""
    remarks: tuple[str, ...] = ()
    """Ends of sentences that begin with "the mask": "is resized from 32 x 24 pixels", ..."""


class MaskError(ImageError):
    """A mask that cannot be used. `kind` names the problem without the file."""

    def __init__(self, path: Path, reason: str, remedy: str, kind: str = "") -> None:
        super().__init__(f"the mask {path} {reason}; {remedy}.", path)
        self.kind = kind or f"mask that {reason}"


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a picture as `read_image` returns it (upright), if possible from its header alone.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            return _upright_size(image)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        with contextlib.suppress(ImageError):  # formats that Pillow does not know, such as DICOM
            return read_image(path).size
        raise ImageError(f"the picture {path} cannot be read ({_reason(error)}); copy it again.", path) from error


def read_mask(path: Path, size: tuple[int, int], picture: Path | None = None) -> MaskReading:
    """Read one mask file by the rule of this module.

    Args:
        path: A picture of any mode, or a file of annotations: see `blemish.datasets.annotations`.
        size: (width, height) of its picture in pixels, upright. A mask of the same aspect ratio is resized.
        picture: The picture, whose name selects its annotations in a file for many pictures.

    Raises:
        MaskError: The file cannot be read, does not fit the picture, or does not say what is anomalous.
    """
    if path.suffix.lower() in ANNOTATION_SUFFIXES:
        mask, remarks = _read_annotations(path, size, picture)
    else:
        mask, remarks = _read_pixels(path, size, picture)
    own_size = (mask.shape[1], mask.shape[0])
    if own_size != size:
        if not _same_aspect(own_size, size):
            raise _wrong_size(path, own_size, size, picture)
        mask = _resize(mask, size)
        remarks.append(f"is resized from {own_size[0]} x {own_size[1]} pixels")
    return MaskReading(mask, tuple(remarks))


def examine_masks(
    paths: Sequence[Path], picture: Path, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], list[tuple[Path, str]]]:
    """Merge all masks of a picture.

    Args:
        paths: Mask files.
        picture: The picture.
        size: (width, height) of the picture.

    Returns:
        (height, width) bool, and remarks by file, which also say if the masks mark nothing or next to everything.

    Raises:
        MaskError: Like `read_mask`.
    """
    merged = np.zeros((size[1], size[0]), bool)
    remarks: list[tuple[Path, str]] = []
    for path in paths:
        reading = read_mask(path, size, picture)
        merged |= reading.mask
        remarks += [(path, remark) for remark in reading.remarks]
    share = float(merged.mean())
    if share == 0.0:
        remarks += [(path, EMPTY) for path in paths]
    elif share == 1.0:
        remarks += [(path, FULL) for path in paths]
    elif share >= NEARLY_FULL:
        remarks += [(path, "marks nearly every pixel; white should be the anomaly") for path in paths]
    elif share > 0.5 and all(edge.all() for edge in (merged[0], merged[-1], merged[:, 0], merged[:, -1])):
        remarks += [
            (path, "marks more than half of the picture, up to its border; white should be the anomaly")
            for path in paths
        ]
    return merged, remarks


def merge_masks(paths: Sequence[Path], picture: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the union of all masks of a picture, (height, width) bool. Raises MaskError like `read_mask`."""
    return examine_masks(paths, picture, size)[0]


def remark_sentences(remarks: Mapping[str, Iterable[Path]], max_names: int = 5) -> list[str]:
    """Return a sentence for each remark, with the names of its masks; of more than `max_names` only the first."""
    sentences = []
    for remark, files in remarks.items():
        paths = list(files)
        which = "the mask" if len(paths) == 1 else f"each of {len(paths):,} masks"
        sentences.append(f"{which} {remark}: {short_names(paths, max_names)}")
    return sentences


def short_names(paths: Sequence[Path], max_names: int = 5) -> str:
    """Return the names of files with their folders; of more than `max_names` only the first."""
    names = [f"{path.parent.name}/{path.name}" for path in paths[:max_names]]
    return ", ".join(names) + (f" and {len(paths) - max_names:,} more" if len(paths) > max_names else "")


def resize_mask(mask: Image.Image | NDArray[np.generic] | None, size: int) -> NDArray[np.bool_]:
    """Return a mask at the size of the model's input, as the papers' code prepares it.

    Every value above 0 is anomalous. The mask is resized like its picture (bilinear, without keeping the aspect ratio)
    and thresholded at one half.

    Args:
        mask: Picture of any mode, array (H, W), or None for a normal picture.
        size: Side in pixels.

    Returns:
        (size, size) bool.
    """
    if mask is None:
        return np.zeros((size, size), bool)
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    return _resize(pixels > 0, (size, size))


def count_vanished(mask: NDArray[np.bool_], reduced: NDArray[np.bool_]) -> tuple[int, int]:
    """Count the regions of a mask that leave no pixel in its reduced form.

    Args:
        mask: (H, W).
        reduced: (h, w), the same mask in another size.

    Returns:
        (vanished regions, all regions); regions are 8-connected.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=_EIGHT)
    rows, columns = np.nonzero(labels)
    down, across = (np.arange(full) * small // full for full, small in zip(mask.shape, reduced.shape, strict=True))
    kept = np.unique(labels[rows, columns][reduced[down[rows], across[columns]]])
    return int(count) - kept.size, int(count)


def is_marked(path: Path, picture: Path | None = None) -> bool:
    """Return whether a mask marks any pixel as anomalous. Raises ImageError."""
    if path.suffix.lower() in ANNOTATION_SUFFIXES:
        return bool(_drawing(path, picture).shapes)
    return bool(_read_pixels(path)[0].any())


def mask_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of a mask from its header; None for annotations, which have no size. Raises ImageError."""
    if path.suffix.lower() in ANNOTATION_SUFFIXES:
        return None
    try:
        with Image.open(path) as image:
            return _upright_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _read_annotations(path: Path, size: tuple[int, int], picture: Path | None) -> tuple[NDArray[np.bool_], list[str]]:
    drawing = _drawing(path, picture)
    stated = drawing.size or size
    # Before anything is allocated in a size that only the file knows:
    if not _same_aspect(stated, size) or stated[0] * stated[1] > max(MAX_PIXELS, size[0] * size[1]):
        raise _wrong_size(path, stated, size, picture)
    try:
        return rasterize(drawing, stated), list(drawing.remarks)
    except AnnotationError as error:
        raise MaskError(path, error.reason, error.remedy) from error


def _drawing(path: Path, picture: Path | None) -> Drawing:
    try:
        return load_annotations(path).of(picture)
    except AnnotationError as error:
        raise MaskError(path, error.reason, error.remedy, "unreadable mask" if error.damaged else "") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_pixels(
    path: Path, size: tuple[int, int] | None = None, picture: Path | None = None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Read a mask that is a picture, in its own size, upright.

    What does not fit its picture, of `size`, or is far too large, is refused before it is decoded.
    """
    max_pixels = MAX_PIXELS if size is None else max(MAX_PIXELS, math.prod(size))
    masks: list[NDArray[np.bool_]] = []
    remarks: list[str] = []
    try:
        with quiet_pillow(), open_file(path, "it", str(path)) as stream:
            lossy = _is_lossy_webp(stream)
            image = identify(stream, "it", str(path))
            lossy |= image.format in _LOSSY
            for page in _pages(image, path):
                image.seek(page)
                if math.prod(image.size) > max_pixels:
                    reason = f"has {image.size[0]} x {image.size[1]} pixels, which is too large"
                    raise MaskError(path, reason, "save it in the size of its picture")
                if not masks and size is not None and not _same_aspect(_upright_size(image), size):
                    raise _wrong_size(path, _upright_size(image), size, picture)
                lossy |= image.info.get("compression") == "jpeg"
                mask, more = _marked(_levels(stream, image, page, lossy, path), lossy, path)
                masks.append(mask)
                remarks += more
    except MaskError:
        raise
    except Exception as error:
        # Decoders raise all kinds of exceptions for damaged files; the cause stays attached.
        raise _unreadable(path, error) from error
    if len({mask.shape for mask in masks}) > 1:
        raise MaskError(path, "has pages of several sizes", "keep the page that marks the anomalies")
    if len(masks) > 1:
        remarks.append(f"has {len(masks)} pages, which are merged")
    return np.logical_or.reduce(np.stack(masks)), list(dict.fromkeys(remarks))


def _pages(image: Image.Image, path: Path) -> list[int]:
    """Return the numbers of the pages to read; a TIFF may hold smaller copies for previews, which are left out."""
    count = int(getattr(image, "n_frames", 1))
    if count > 1 and image.format == "MPO":
        return [0]  # the others are previews and views of the same scene
    if count > 1 and image.format != "TIFF":
        raise MaskError(path, f"has {count} frames", "save the one that marks the anomalies as PNG")
    pages = []
    for number in range(count):
        if count > 1:
            image.seek(number)
        tags: Any = getattr(image, "tag_v2", {})
        if not int(tags.get(254, 0)) & 1:
            pages.append(number)
    return pages or [0]


def _levels(stream: IO[bytes], image: Image.Image, page: int, lossy: bool, path: Path) -> NDArray[Any]:
    """Return one level per pixel of a page, (H, W), 0 = normal: steps 1 and 2 of the rule."""
    if image.format == "TIFF":
        samples = read_deep_tiff(stream, page, "it", str(path), None, [])
    else:
        samples = read_deep_png(image, stream, str(path))
    if samples is not None:
        return _visible(_upright_values(samples.colour, samples), samples.opacity, None, lossy, path)
    image = decode(image, [])
    if image.mode == "1" or is_deep(image.mode):
        levels = np.asarray(image)
        return levels.astype(levels.dtype.newbyteorder("="))
    indices = np.asarray(image) if image.mode == "P" else None
    if not image.has_transparency_data:
        return _visible(np.asarray(flatten(image, [])), None, indices, lossy, path)
    pixels = np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    return _visible(pixels[..., :3], pixels[..., 3], indices, lossy, path)


def _upright_values(values: NDArray[Any], samples: Samples) -> NDArray[Any]:
    """Return values of which 0 is black."""
    if not samples.inverted:
        return values
    if samples.declared is not None:
        white = samples.declared[1]
    else:
        white = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else values.max()
    return (white - values).astype(values.dtype)


def _visible(
    colours: NDArray[Any],
    opacity: NDArray[Any] | None,
    indices: NDArray[np.uint8] | None,
    lossy: bool,
    path: Path,
) -> NDArray[Any]:
    """Return one level per pixel.

    Args:
        colours: (H, W) grey or (H, W, 3).
        opacity: (H, W), of the same type.
        indices: (H, W) numbers in a palette. They are arbitrary, so they decide only if all colours are the same.
        lossy: Whether colours may differ a little from what was meant.
        path: For errors.
    """
    if colours.ndim == 2:
        if opacity is None:
            return colours
        colours = colours[..., None]
    level: NDArray[Any] = colours.max(axis=2)
    dark = _NOISE * (255 if colours.dtype == np.uint8 else 65535)
    if opacity is None or opacity.min() == opacity.max():
        if _uniform(colours, lossy):
            return level if indices is None else indices
        if level.min() >= dark:
            raise MaskError(path, "has several colours, and none is black", "make what is normal black")
        return level
    top = int(opacity.max())
    visible = opacity > top / 2
    if _uniform(colours[visible], lossy) or level[visible].min() >= dark:
        return opacity
    shade: NDArray[Any] = (level.astype(np.uint64) * opacity // top).astype(level.dtype)
    return shade


def _uniform(colours: NDArray[Any], lossy: bool) -> bool:
    """Return whether all pixels (..., 3) have one colour; a lossy format may change it a little."""
    flat = colours.reshape(-1, colours.shape[-1])
    return bool((np.ptp(flat, axis=0) <= (8 if lossy else 0)).all())


def _marked(levels: NDArray[Any], lossy: bool, path: Path) -> tuple[NDArray[np.bool_], list[str]]:
    """Return where levels mark an anomaly: steps 3 and 4 of the rule."""
    if levels.dtype == bool:
        return levels, []
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        raise MaskError(path, "holds NaN or infinity", "write 0 for normal and 1 for anomalous")
    if levels.min() < 0:
        raise MaskError(path, "holds negative values", "write 0 for normal and positive numbers for anomalous")
    values = np.flatnonzero(np.bincount(levels.ravel())) if levels.dtype.itemsize <= 2 else np.unique(levels)
    top = values[-1].item()
    labels: NDArray[np.bool_] = levels > 0
    number = int((values > 0).sum())
    remarks = []
    if not lossy and number > 2 and top >= 128 and (ground := _ground(levels, top)):
        # A lossy format that was decoded before may turn 0 into 1 everywhere.
        levels = np.where(levels > ground, levels, 0)
        remarks.append(f"has level {ground} where it is darkest, which is taken as normal")
        number -= int((values > 0).sum()) - int((values > ground).sum())
        labels = levels > 0
    soft = lossy or (number > 1 and _is_soft(levels, number, top))
    if not soft and number > 1 and labels.all():
        raise MaskError(path, f"has {number} levels, and none is 0", "make what is normal black")
    if number == 0 or not soft:
        return labels, remarks
    bright = top / _full_scale(levels, top)
    if not lossy and bright < 0.5 and number <= _MAX_LABELS:
        return labels, remarks
    if bright < (_NOISE if lossy else 0.5):
        remedy = "save it as PNG with 0 for normal and 255 for anomalous"
        raise MaskError(path, f"is nearly black (its brightest level is {top:g})", remedy)
    if grey := _grey_area(levels, top):
        reason = f"has grey areas, such as level {grey:g} of {top:g}, which may be anomalous or not"
        raise MaskError(path, reason, "save it in black and white, as PNG")
    marked: NDArray[np.bool_] = levels >= top / 2
    remarks.append("has levels between black and white and is cut at half of the brightest")
    if faint := _count_faint(levels >= top * 3 / 8, marked):
        areas = "a faint area" if faint == 1 else f"{faint} faint areas"
        remarks.append(f"has {areas} darker than half of its brightest level, not marked")
    return marked, remarks


def _ground(levels: NDArray[Any], top: float) -> int:
    """Return the level of what is normal in a mask with next to no 0; 0 if 0 is."""
    if levels.dtype.kind == "f" or float((levels == 0).mean()) > 0.05:
        return 0
    low = levels[levels <= top * _NOISE / 2]
    common = int(np.bincount(low).argmax()) if low.size else 0
    return common if common and float((levels == common).mean()) > 0.5 else 0


def _count_faint(faint: NDArray[np.bool_], marked: NDArray[np.bool_]) -> int:
    """Count the regions of more than two pixels that hold no marked one."""
    from scipy import ndimage

    labels, count = ndimage.label(faint, structure=_EIGHT)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[np.unique(labels[marked])] = 0
    return int((areas[1:] > 2).sum())


def _full_scale(levels: NDArray[Any], top: float) -> float:
    """Return the brightest level that a mask of such levels could have."""
    scales = (1.0,) if levels.dtype.kind == "f" else ()
    return next((scale for scale in (*scales, 255.0, 1023.0, 4095.0, 65535.0) if top <= scale), top)


def _is_soft(levels: NDArray[Any], number: int, top: float) -> bool:
    """Return whether levels between 0 and the brightest belong to slopes and noise, not to areas of their own.

    On a slope a pixel has both a darker and a brighter neighbour; in an area with a label all neighbours are equal.
    Where there are few levels, stripes of labels could look like slopes, but they also jump from the brightest level
    to 0. The noise beside edges is dark, thin, and less than what it surrounds.
    """
    from scipy import ndimage

    lowest, highest = ndimage.minimum_filter(levels, 3), ndimage.maximum_filter(levels, 3)
    slope, even = (lowest < levels) & (highest > levels), lowest == highest
    if number > _MAX_LABELS:
        between = (levels > 0) & (levels < top * (1 - _NOISE / 2))
        return bool(between.any() and (slope[between].mean() > 0.5 or even[between].mean() < 0.1))
    grey = (levels > top * _NOISE) & (levels < top * (1 - _NOISE))
    if grey.any():
        return bool(slope[grey].mean() > 0.5) and _jumps(levels, top) < 0.1
    noise, bright = (levels > 0) & (levels <= top * _NOISE), levels >= top / 2
    if not noise.any() or even[noise].any() or 2 * noise.sum() > bright.sum():
        return False
    return not (noise & ~ndimage.maximum_filter(bright, 17)).any()


def _jumps(levels: NDArray[Any], top: float) -> float:
    """Return the share of direct jumps between dark and bright among all steps across half of the brightest level."""
    crossings = jumps = 0
    for levels_a, levels_b in ((levels[1:], levels[:-1]), (levels[:, 1:], levels[:, :-1])):
        across = (levels_a >= top / 2) != (levels_b >= top / 2)
        steps = np.abs(levels_a[across].astype(np.float64) - levels_b[across])
        crossings, jumps = crossings + steps.size, jumps + int((steps > top * (1 - _NOISE)).sum())
    return jumps / max(crossings, 1)


def _grey_area(levels: NDArray[Any], top: float) -> float | None:
    """Return the level of what is neither dark nor bright: an even area of 5 x 5 pixels, or a third of the picture."""
    from scipy import ndimage

    grey = (levels > top * _NOISE) & (levels < top * 5 / 8)
    if grey.mean() < 1 / 3:
        grey &= ndimage.maximum_filter(levels, 5).astype(np.float64) - ndimage.minimum_filter(levels, 5) <= top / 32
    return float(levels[grey][0]) if grey.any() else None


def _is_lossy_webp(stream: IO[bytes]) -> bool:
    """Return whether a file is a WebP with a lossy picture; the stream is left at its start."""
    head = stream.read(16)
    lossy = False
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        stream.seek(12)
        while len(chunk := stream.read(8)) == 8 and not lossy:
            lossy = chunk[:4] in (b"VP8 ", b"ANMF")
            length = int.from_bytes(chunk[4:], "little")
            stream.seek(length + length % 2, 1)
    stream.seek(0)
    return lossy


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)) > 127.5


def _same_aspect(size_a: tuple[int, int], size_b: tuple[int, int]) -> bool:
    """Return whether one size is the other times a factor, up to one pixel and 3 % of the smaller."""
    (width, height), (large_width, large_height) = sorted((size_a, size_b))
    wrong_height, wrong_width = width * large_height / large_width - height, height * large_width / large_height - width
    return abs(wrong_height) <= min(1.0, 0.03 * height) and abs(wrong_width) <= min(1.0, 0.03 * width)


def _wrong_size(path: Path, own: tuple[int, int], size: tuple[int, int], picture: Path | None) -> MaskError:
    of = f" as its picture {picture} has" if picture is not None else ""
    kind = f"mask of {own[0]} x {own[1]} for a picture of {size[0]} x {size[1]} pixels"
    remedy = "turn it like its picture" if own[::-1] == size else "one of the two is not the other's"
    return MaskError(path, f"has {own[0]} x {own[1]} pixels, not {size[0]} x {size[1]}{of}", remedy, kind)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Image.Image) -> int:
    # For PNG, `getexif` decodes the whole picture in case the tag follows the pixels, where it is not used in practice.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


def _unreadable(path: Path, error: Exception) -> MaskError:
    return MaskError(path, f"cannot be read ({_reason(error)})", "copy it again", "unreadable mask")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
        return "it does not exist"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text.partition(";")[0].splitlines()[0][:120]
