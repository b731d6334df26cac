"""Region of interest: the part of a picture that counts, from a mask or a polygon.

Outside nothing scores: the image score is computed from the inside alone, and the map has its lowest value there. What
lies outside can still reach the inside as light does, since patches attend to each other and maps are smoothed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from blemish.errors import UsageError
from blemish.files import is_file, parse_json
from blemish.image_io import read_image
from blemish.types import PathLike

RoiSource: TypeAlias = "PathLike | Sequence[Sequence[float]] | npt.NDArray[Any] | Roi"
"""A region of interest, or what `read_roi` reads."""

#: Longest side of a stored region in pixels; a longer one is reduced.
_MAX_SIDE = 2048
#: Names of polygon files in other programs' JSON.
_POLYGON_KEYS = ("polygon", "points")


@dataclass(frozen=True, eq=False)
class Roi:
    """The part of a picture that counts.

    Attributes:
        inside: bool (H, W), read-only, over the whole picture; scaled to a picture of another size.
        source: Where it comes from: the name of a file, or "polygon".

    Raises:
        UsageError: Nothing is inside.
    """

    inside: npt.NDArray[np.bool_]
    source: str = "mask"

    def __post_init__(self) -> None:
        if self.inside.ndim != 2 or not self.inside.any():
            raise UsageError(f"the region of interest ({self.source}) is empty; mark what counts in white")
        view = self.inside.view()
        view.flags.writeable = False
        object.__setattr__(self, "inside", view)

    @property
    def share(self) -> float:
        """Share of the picture that is inside, in (0, 1]."""
        return float(self.inside.mean())

    @property
    def fingerprint(self) -> str:
        """Hash of it, 16 hex digits."""
        return hashlib.sha256(self.to_png()).hexdigest()[:16]

    def resized(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """Return it for a picture of this size: bool (height, width)."""
        return _resized(self, (0.0, 0.0, 1.0, 1.0), width, height)

    def part(
        self, size: tuple[int, int], box: tuple[int, int, int, int], shape: tuple[int, int]
    ) -> npt.NDArray[np.bool_]:
        """Return the part of a tile at the size of its map.

        Args:
            size: (width, height) of the picture.
            box: (x0, y0, x1, y1) of the tile in pixels of the picture.
            shape: Rows and columns of the map.

        Returns:
            bool (rows, columns).
        """
        (width, height), (x0, y0, x1, y1), (rows, columns) = size, box, shape
        return _resized(self, (x0 / width, y0 / height, x1 / width, y1 / height), columns, rows)

    def to_png(self) -> bytes:
        """Return it as the bytes of a PNG file, black and white."""
        buffer = io.BytesIO()
        Image.fromarray(self.inside).save(buffer, "PNG")
        return buffer.getvalue()

    @classmethod
    def from_png(cls, data: bytes, source: str) -> Roi:
        """Return what `to_png` wrote."""
        with Image.open(io.BytesIO(data)) as image:
            return cls(np.asarray(image.convert("1")), source)


@lru_cache(maxsize=8)
def _resized(roi: Roi, box: tuple[float, float, float, float], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return the value of the mask at the middle of each pixel of a part, given as fractions of the picture."""
    rows, columns = roi.inside.shape
    x0, y0, x1, y1 = box
    across = (x0 + (np.arange(width) + 0.5) / width * (x1 - x0)) * columns
    down = (y0 + (np.arange(height) + 0.5) / height * (y1 - y0)) * rows
    row, column = down.astype(np.intp).clip(0, rows - 1), across.astype(np.intp).clip(0, columns - 1)
    part: npt.NDArray[np.bool_] = roi.inside[row[:, None], column]
    part.flags.writeable = False
    return part


def read_roi(source: RoiSource, size: tuple[int, int]) -> Roi:
    """Return a region of interest.

    Args:
        source: A mask picture (what is not black counts), a JSON file with a polygon, a polygon as text
            ("10,10 400,10 400,300") or as points (x, y) in pixels of the picture, a mask array (H, W) bool, or a
            region.
        size: (width, height) of the pictures, which a polygon refers to.

    Raises:
        UsageError: It is empty, is no polygon, or lies outside the picture.
        ImageError: The mask cannot be read.
    """
    if isinstance(source, Roi):
        return source
    if isinstance(source, np.ndarray) and source.dtype == np.bool_:
        return Roi(_reduced(source))
    if isinstance(source, str) and "," in source and not is_file(source):
        return _from_polygon(_points(source.replace(";", " ").split(), source), size)
    if isinstance(source, (str, Path)) or hasattr(source, "__fspath__"):
        path = Path(source)
        if path.suffix.lower() == ".json":
            return _from_polygon(_read_polygon(path), size)
        if not path.exists():
            raise UsageError(f"there is no region of interest {path}; check the path")
        image = read_image(path).image.convert("L")
        return Roi(_reduced(np.asarray(image) > 0), path.name)
    return _from_polygon(_points(source, "the polygon"), size)


def _reduced(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    step = -(-max(inside.shape) // _MAX_SIDE)
    return np.ascontiguousarray(inside[step // 2 :: step, step // 2 :: step]) if step > 1 else inside


def _read_polygon(path: Path) -> list[tuple[float, float]]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"there is no region of interest {path}; check the path") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); write a polygon as [[x, y], [x, y], [x, y]]") from error
    if isinstance(value, dict):
        shapes = value.get("shapes")  # LabelMe
        if isinstance(shapes, list) and shapes and isinstance(shapes[0], dict):
            value = shapes[0]
        value = next((value[key] for key in _POLYGON_KEYS if key in value), None)
    return _points(value, str(path))


def _points(values: Any, name: str) -> list[tuple[float, float]]:
    """Return points of pairs, or of texts "x,y"."""
    try:
        points = [(float(x), float(y)) for x, y in (v.split(",") if isinstance(v, str) else v for v in values)]
    except (TypeError, ValueError) as error:
        raise UsageError(f'{name} is no polygon; write it as "x,y x,y x,y" in pixels of the picture') from error
    if len(points) < 3:
        raise UsageError(f"{name} has {len(points)} corners, and a polygon has at least 3")
    return points


def _from_polygon(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> Roi:
    width, height = size
    xs, ys = zip(*points, strict=True)
    if min(xs) < 0 or min(ys) < 0 or max(xs) > width or max(ys) > height:
        raise UsageError(
            f"the polygon reaches ({max(xs):g}, {max(ys):g}), outside the picture of {width} x {height} pixels; give "
            "its corners in pixels of the picture"
        )
    scale = min(1.0, _MAX_SIDE / max(size))
    canvas = Image.new("1", (max(1, round(width * scale)), max(1, round(height * scale))))
    ImageDraw.Draw(canvas).polygon([(x * scale, y * scale) for x, y in points], fill=1)
    return Roi(np.asarray(canvas), "polygon")
