"""Files of annotations as masks: labelme, COCO, VIA, CVAT and YOLO files become drawings, and drawings become masks.

`READERS` lists the formats. A reader returns what the file says of each picture; one rasterizer fills it in. Points are
in pixels of the upright picture, and pixel (x, y) is the square from (x, y) to (x + 1, y + 1). A polygon or ellipse
marks the pixels whose centres it contains. Only labelme's shapes are filled as labelme itself does, outline included.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from blemish.errors import BlemishError

ANNOTATION_SUFFIXES = (".json", ".xml", ".txt")
"""Suffixes of annotation files, in lower case."""

LINE_WIDTH = 10
"""Width in pixels of the lines of labelme, which has them as wide when it makes masks itself."""

#: Labels that people give to what is not anomalous.
_NORMAL = frozenset(("background", "_background_", "good", "normal", "ok"))

Point: TypeAlias = tuple[float, float]
Paint: TypeAlias = Callable[[NDArray[np.bool_]], None]
"""Marks a shape in a mask (H, W)."""


class AnnotationError(BlemishError):
    """A file that does not say what is anomalous; `masks.read_mask` adds its name.

    Attributes:
        reason: End of a sentence that begins with "the mask".
        remedy: What to do.
        damaged: Whether the file is no complete JSON or XML.
    """

    def __init__(self, reason: str, remedy: str, *, damaged: bool = False) -> None:
        super().__init__(f"the mask {reason}; {remedy}.")
        self.reason, self.remedy, self.damaged = reason, remedy, damaged


@dataclass(frozen=True)
class Drawing:
    """What a file says of one picture."""

    shapes: tuple[Paint, ...] = ()
    size: tuple[int, int] | None = None
    """(width, height) in pixels that the points refer to; None if the file does not say."""
    remarks: tuple[str, ...] = ()
    """Ends of sentences that begin with "the mask"."""


@dataclass(frozen=True)
class Annotations:
    """The drawings of a file, by the names of their pictures."""

    drawings: Mapping[str, Drawing]
    """The key "" stands for the only picture, whatever its name."""

    def of(self, picture: Path | None) -> Drawing:
        """Return the drawing of a picture: the one whose name shares the most of its path's end.

        Raises:
            AnnotationError: The file has no such picture, or several.
        """
        if "" in self.drawings:
            return self.drawings[""]
        if picture is None:
            raise AnnotationError("is for several pictures", "give the picture, too")
        shared = {name: _shared_end(name, picture) for name in self.drawings}
        longest = max(shared.values(), default=0)
        names = [name for name, length in shared.items() if length == longest]
        if longest == 0:
            raise AnnotationError(f"does not list the picture {picture.name}", "add it, or remove the picture")
        if len(names) > 1:
            raise AnnotationError(
                f"lists several pictures called {picture.name}", "give their folders in the file, too"
            )
        return self.drawings[names[0]]

    def lists(self, picture: Path) -> bool:
        """Return whether the file is about this picture."""
        return "" in self.drawings or any(_shared_end(name, picture) for name in self.drawings)


def load_annotations(path: Path) -> Annotations:
    """Read a file of annotations; the last ones stay in memory.

    Raises:
        AnnotationError: It is damaged, or of no format that is known.
        OSError: It cannot be opened.
    """
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


def rasterize(drawing: Drawing, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the union of a drawing's shapes, (height, width) bool."""
    mask = np.zeros((size[1], size[0]), bool)
    for paint in drawing.shapes:
        paint(mask)
    return mask


@functools.lru_cache(maxsize=16)
def _load(path: Path, modified: int, size: int) -> Annotations:
    suffix = path.suffix.lower()
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content: Any = json.loads(text) if suffix == ".json" else text
        if suffix == ".xml":
            if "<!ENTITY" in text:  # a few of them can make gigabytes of text
                raise ElementTree.ParseError("it declares entities, which no tool for annotations does")
            content = ElementTree.fromstring(text)
    except (UnicodeDecodeError, json.JSONDecodeError, ElementTree.ParseError, RecursionError) as error:
        kind = suffix[1:].upper()
        raise AnnotationError(
            f"is no complete {kind} ({str(error)[:80]})", "copy or export it again", damaged=True
        ) from error
    for reader in READERS:
        if reader.suffix == suffix and reader.fits(content):
            try:
                return Annotations(reader.read(content))
            except AnnotationError:
                raise
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise AnnotationError(
                    f"is not as {reader.name} writes it ({type(error).__name__}: {str(error)[:80]})", "export it again"
                ) from error
    known = ", ".join(reader.name for reader in READERS if reader.suffix == suffix)
    raise AnnotationError(f"is in no known format for {suffix} ({known})", "export it in one of them")


def _shared_end(name: str, picture: Path) -> int:
    """Return how many of their last parts a name in a file and a path have in common."""
    written = [unicodedata.normalize("NFC", part) for part in PurePosixPath(name.replace("\\", "/")).parts]
    actual = [unicodedata.normalize("NFC", part) for part in picture.parts]
    count = 0
    for a, b in zip(reversed(written), reversed(actual), strict=False):
        if a != b:
            break
        count += 1
    return count


# Shapes


def _polygon(rings: Sequence[Sequence[Point]]) -> Paint:
    for ring in rings:
        if len(ring) < 3:
            raise AnnotationError(f"has a polygon of {len(ring)} points, which has no area", "draw it again")

    def paint(mask: NDArray[np.bool_]) -> None:
        from blemish.regions import fill_polygon

        mask |= fill_polygon(rings, (mask.shape[0], mask.shape[1]))

    return paint


def _box(left: float, top: float, right: float, bottom: float) -> Paint:
    return _polygon([[(left, top), (right, top), (right, bottom), (left, bottom)]])


def _ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Paint:
    if across <= 0 or down <= 0:
        raise AnnotationError("has an ellipse without radius", "draw it again")

    def paint(mask: NDArray[np.bool_]) -> None:
        rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
        right, below = columns + 0.5 - x, rows + 0.5 - y
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        along, aside = right * cosine + below * sine, below * cosine - right * sine
        mask |= (along / across) ** 2 + (aside / down) ** 2 <= 1

    return paint


def _bitmap(pixels: NDArray[np.bool_], left: int, top: int) -> Paint:
    def paint(mask: NDArray[np.bool_]) -> None:
        if left < 0 or top < 0 or top + pixels.shape[0] > mask.shape[0] or left + pixels.shape[1] > mask.shape[1]:
            raise AnnotationError("has a mask that is larger than its picture", "export it again")
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] |= pixels

    return paint


def _pen(draw: Callable[[ImageDraw.ImageDraw], object]) -> Paint:
    """Return a shape that Pillow draws."""

    def paint(mask: NDArray[np.bool_]) -> None:
        canvas = Image.new("1", (mask.shape[1], mask.shape[0]))
        draw(ImageDraw.Draw(canvas))
        mask |= np.asarray(canvas)

    return paint


def _no_area(kind: str) -> AnnotationError:
    return AnnotationError(f"has a {kind}, which has no area", "draw the anomaly as a polygon")


def _drawing(shapes: Iterable[tuple[str, Paint]], size: tuple[int, int] | None, remarks: Iterable[str] = ()) -> Drawing:
    """Return a drawing of shapes with labels; those with a label for what is normal are left out."""
    pairs = list(shapes)
    kept = tuple(paint for label, paint in pairs if label.strip().lower() not in _NORMAL)
    names = sorted({label for label, _ in pairs if label.strip().lower() in _NORMAL})
    left_out = [f"has shapes called {', '.join(names)}, which are left out"] if names else []
    return Drawing(kept, size, tuple(dict.fromkeys([*remarks, *left_out])))


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return a stated size; None without one."""
    try:
        size = int(float(width)), int(float(height))
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None


# labelme


def _labelme(content: Any) -> dict[str, Drawing]:
    shapes, remarks = [], []
    for shape in content["shapes"]:
        kind = shape.get("shape_type") or "polygon"
        shapes.append((str(shape.get("label") or ""), _labelme_shape(kind, shape)))
        if kind in ("line", "linestrip"):
            remarks.append(f"has lines, which are {LINE_WIDTH} pixels wide as in labelme's own masks")
    return {"": _drawing(shapes, _size(content.get("imageWidth"), content.get("imageHeight")), remarks)}


def _labelme_shape(kind: str, shape: Mapping[str, Any]) -> Paint:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    number = len(points)
    if kind == "mask" and number == 2:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            return _bitmap(np.asarray(image.convert("L")) > 0, int(points[0][0]), int(points[0][1]))
    if kind == "rectangle" and number == 2:
        (left, right), (top, bottom) = (sorted(axis) for axis in zip(*points, strict=True))
        return _pen(lambda pen: pen.rectangle((left, top, right, bottom), fill=1))
    if kind == "circle" and number == 2:
        (x, y), rim = points[0], math.dist(*points)
        if rim > 0:
            return _pen(lambda pen: pen.ellipse((x - rim, y - rim, x + rim, y + rim), fill=1, outline=1))
    if kind in ("line", "linestrip") and number >= 2:
        return _pen(lambda pen: pen.line(points, fill=1, width=LINE_WIDTH))
    if kind in ("polygon", "rectangle", "oriented_rectangle") and number >= 3:
        return _pen(lambda pen: pen.polygon(points, fill=1, outline=1))
    raise _no_area(f"{kind} of {number} {'point' if number == 1 else 'points'}")


# COCO


def _coco(content: Any) -> dict[str, Drawing]:
    from blemish.regions import decode_mask

    labels = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
    shapes: dict[Any, list[tuple[str, Paint]]] = {entry["id"]: [] for entry in content["images"]}
    boxes = set()
    for entry in content["annotations"]:
        image, label = entry["image_id"], labels.get(entry.get("category_id"), "")
        if image not in shapes:
            raise AnnotationError(
                f"has an annotation of the picture {image}, which it does not list", "export it again"
            )
        segmentation = entry.get("segmentation")
        if isinstance(segmentation, dict):
            shapes[image].append((label, _bitmap(decode_mask(segmentation), 0, 0)))
        elif segmentation:
            shapes[image] += [(label, _polygon([_pairs(ring)])) for ring in segmentation]
        elif entry.get("bbox"):
            left, top, width, height = map(float, entry["bbox"])
            shapes[image].append((label, _box(left, top, left + width, top + height)))
            boxes.add(image)
    return {
        str(entry["file_name"]): _drawing(
            shapes[entry["id"]],
            _size(entry.get("width"), entry.get("height")),
            [_BOXES] if entry["id"] in boxes else [],
        )
        for entry in content["images"]
    }


_BOXES = "has boxes, which are taken as anomalous as a whole"


def _pairs(flat: Sequence[Any]) -> list[Point]:
    """Return the points of [x, y, x, y, ...]."""
    if len(flat) % 2:
        raise AnnotationError("has a polygon with an odd number of coordinates", "export it again")
    return [(float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]


# VGG Image Annotator


def _via(content: Any) -> dict[str, Drawing]:
    entries = content.get("_via_img_metadata", content)
    drawings = {}
    for entry in entries.values():
        regions = entry.get("regions") or []
        shapes = []
        for region in regions.values() if isinstance(regions, dict) else regions:
            attributes = (region.get("region_attributes") or {}).values()
            label = next((value for value in attributes if isinstance(value, str)), "")
            shapes.append((label, _via_shape(region["shape_attributes"])))
        drawings[str(entry["filename"])] = _drawing(shapes, None)
    return drawings


def _via_shape(shape: Mapping[str, Any]) -> Paint:
    kind = shape["name"]
    if kind == "polygon":
        return _polygon([[*zip(map(float, shape["all_points_x"]), map(float, shape["all_points_y"]), strict=True)]])
    if kind == "rect":
        left, top = float(shape["x"]), float(shape["y"])
        return _box(left, top, left + float(shape["width"]), top + float(shape["height"]))
    if kind == "circle":
        return _ellipse(float(shape["cx"]), float(shape["cy"]), float(shape["r"]), float(shape["r"]))
    if kind == "ellipse":
        x, y, across, down = (float(shape[name]) for name in ("cx", "cy", "rx", "ry"))
        return _ellipse(x, y, across, down, math.degrees(float(shape.get("theta") or 0)))
    raise _no_area(kind)


# CVAT


def _cvat(content: ElementTree.Element) -> dict[str, Drawing]:
    if content.find("track") is not None:
        raise AnnotationError("has the tracks of a video", 'export it as "CVAT for images"')
    drawings = {}
    for image in content.iter("image"):
        shapes = [(shape.get("label", ""), _cvat_shape(shape)) for shape in image if shape.tag != "tag"]
        drawings[image.attrib["name"]] = _drawing(shapes, _size(image.get("width"), image.get("height")))
    return drawings


def _cvat_shape(shape: ElementTree.Element) -> Paint:
    def number(name: str, default: str | None = None) -> float:
        return float(shape.get(name, default) if default is not None else shape.attrib[name])

    if shape.tag == "polygon":
        corners = (pair.split(",") for pair in shape.attrib["points"].split(";"))
        return _polygon([[(float(x), float(y)) for x, y in corners]])
    if shape.tag == "box":
        left, top, right, bottom = (number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        turn = math.radians(number("rotation", "0"))
        x, y = (left + right) / 2, (top + bottom) / 2
        corners_of_box = ((left, top), (right, top), (right, bottom), (left, bottom))
        return _polygon(
            [
                [
                    (
                        x + (a - x) * math.cos(turn) - (b - y) * math.sin(turn),
                        y + (a - x) * math.sin(turn) + (b - y) * math.cos(turn),
                    )
                    for a, b in corners_of_box
                ]
            ]
        )
    if shape.tag == "ellipse":
        return _ellipse(number("cx"), number("cy"), number("rx"), number("ry"), number("rotation", "0"))
    if shape.tag == "mask":
        width, height = int(number("width")), int(number("height"))
        runs = [int(run) for run in shape.attrib["rle"].split(",")]
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return _bitmap(pixels.reshape(height, width), int(number("left")), int(number("top")))
    raise _no_area(shape.tag)


# YOLO


def _is_yolo(text: str) -> bool:
    try:
        return all(float(word) >= 0 for word in text.split())
    except ValueError:
        return False


def _yolo(text: str) -> dict[str, Drawing]:
    """Read lines of a class and a polygon, or of a class and a box, as fractions of the picture's sides."""
    shapes: list[tuple[str, Paint]] = []
    remarks = []
    for line, words in enumerate(filter(None, map(str.split, text.splitlines())), start=1):
        values = [float(word) for word in words[1:]]
        if len(values) % 2 or len(values) < 4 or max(values) > 1.001:
            raise AnnotationError(
                f"has no polygon of fractions in line {line}", "write a class, then x and y of each point from 0 to 1"
            )
        if len(values) == 4:
            x, y, width, height = values
            values = [x - width / 2, y - height / 2, x + width / 2, y - height / 2]
            values += [x + width / 2, y + height / 2, x - width / 2, y + height / 2]
            remarks.append(_BOXES)
        shapes.append(("", _scaled_polygon(_pairs(values))))
    return {"": _drawing(shapes, None, remarks)}


def _scaled_polygon(points: Sequence[Point]) -> Paint:
    def paint(mask: NDArray[np.bool_]) -> None:
        height, width = mask.shape
        _polygon([[(x * width, y * height) for x, y in points]])(mask)

    return paint


@dataclass(frozen=True)
class Reader:
    """A format: which contents are in it, and how to read them."""

    name: str
    suffix: str
    fits: Callable[[Any], bool]
    read: Callable[[Any], dict[str, Drawing]]


def _has_via_pictures(content: Any) -> bool:
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    return (
        isinstance(entries, dict)
        and bool(entries)
        and all(isinstance(entry, dict) and "filename" in entry for entry in entries.values())
    )


READERS = (
    Reader("labelme", ".json", lambda content: isinstance(content, dict) and "shapes" in content, _labelme),
    Reader(
        "COCO", ".json", lambda content: isinstance(content, dict) and {"images", "annotations"} <= {*content}, _coco
    ),
    Reader("VIA", ".json", _has_via_pictures, _via),
    Reader("CVAT", ".xml", lambda content: content.tag == "annotations", _cvat),
    Reader("YOLO", ".txt", _is_yolo, _yolo),
)
"""The formats, tried in this order."""
