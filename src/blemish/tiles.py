"""Large pictures in tiles: cut, scored like pictures, and put together again.

Every tile is preprocessed and scored as if it were a picture, so scores and maps keep the scale of untiled ones. The
anomaly map is the mean of the tiles' maps, each faded out towards its edges where it overlaps a neighbour. The
picture's score is the greatest of its tiles' scores: one flaw anywhere makes it anomalous, however large the rest. (So
a picture of many tiles has more chances of a high score than one of few: compare, and threshold, pictures of about one
size.) A picture no larger than a tile is scored whole.

Memory does not grow with the picture. A TIFF in strips or tiles is read a band of rows at a time (`blemish.bands`), and
above `MAP_PIXELS` the map and the preview to draw on are smaller than the picture by a whole number, `map_step` in the
detection; its regions stay in the picture's pixels. What cannot be read in bands (JPEG, PNG, ...) is decoded whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from blemish.bands import open_bands
from blemish.detection import Timing
from blemish.errors import ImageError
from blemish.image_io import ImageSource, LoadedImage, read_image
from blemish.tiling import OVERLAP, Span, Tiling

#: A map of a tiled picture holds at most about so many values: 64 MiB, finer than any backbone's patches.
MAP_PIXELS = 16_777_216

T = TypeVar("T")

__all__ = ["MAP_PIXELS", "OVERLAP", "Axis", "Canvas", "Piece", "Tiling", "batched", "cut", "resize"]


class Axis:
    """One side of a picture, and what brings the tiles' maps onto it.

    Everything along a side is linear: enlarging a tile's map to the tile, fading it, and the mean over the pixels of a
    cell. So each tile has one matrix a side, and the map is the sum of down @ tile @ across.

    Args:
        length: of the side, in pixels.
        tiling: how it is cut; None = not at all.
        step: pixels that one cell of the map stands for.
    """

    def __init__(self, length: int, tiling: Tiling | None, step: int) -> None:
        self.length, self.step = length, step
        self.spans: tuple[Span, ...] = ((0, length),) if tiling is None else tiling.spans(length)
        self.cells = -(-length // step)
        self._ramp = 0 if tiling is None else tiling.ramp
        self._known: dict[tuple[int, int], Tensor] = {}

    def _total(self, number: int) -> Tensor:
        """What the weights of a tile and of all that overlap it add up to, at each of its pixels."""
        start, end = self.spans[number]
        total = self._fade(end - start)
        for others in (range(number - 1, -1, -1), range(number + 1, len(self.spans))):
            for other in others:
                first, last = self.spans[other]
                inside = slice(max(first, start) - start, min(last, end) - start)
                if inside.start >= inside.stop:
                    break
                total[inside] += self._fade(last - first)[max(start - first, 0) : min(end, last) - first]
        return total

    def _fade(self, length: int) -> Tensor:
        """A tile's weight: 1 in the middle, falling towards both ends."""
        place = torch.arange(length, dtype=torch.float64) + 0.5
        return (torch.minimum(place, length - place) / max(self._ramp, 1)).clamp(max=1)

    def reach(self, number: int) -> slice:
        """The cells that a tile has a part in."""
        start, end = self.spans[number]
        return slice(start // self.step, -(-end // self.step))

    def matrix(self, number: int, size: int) -> Tensor:
        """From a tile's map along this side to its share of the cells it reaches: (cells, size) float32."""
        if (number, size) not in self._known:
            start, end = self.spans[number]
            eye = torch.eye(size, dtype=torch.float64)[None]
            enlarged = functional.interpolate(eye, end - start, mode="linear", align_corners=False)[0].T
            weights = self._fade(end - start) / self._total(number)
            cell = torch.arange(start, end) // self.step
            weights /= torch.clamp(self.length - cell * self.step, max=self.step)  # the last cell is of fewer pixels
            reach = self.reach(number)
            out = torch.zeros(reach.stop - reach.start, size, dtype=torch.float64)
            out.index_add_(0, cell - reach.start, enlarged * weights[:, None])
            self._known[number, size] = out.float()
        return self._known[number, size]


class Canvas:
    """One picture while its tiles are scored.

    Args:
        size: (width, height) in pixels.
        tiling: how it is cut; None = not at all.
        path: of the picture; None for one from memory.
        shown: the picture itself where it is in memory and its map is of its own size; None = to be drawn, smaller.
        limit: values of the map, at most about.

    Attributes:
        step: pixels of the picture to a value of the map, along each side.
        down, across: the two sides.
        score: the greatest of the tiles' so far, in [0, 1].
        timing: seconds spent so far.
        notes: of the picture.
    """

    def __init__(
        self,
        size: tuple[int, int],
        tiling: Tiling | None,
        *,
        path: str | None = None,
        shown: Image.Image | None = None,
        limit: int = MAP_PIXELS,
    ) -> None:
        width, height = self.size = size
        self.step = 1 if tiling is None else max(1, math.ceil(math.sqrt(width * height / limit)))
        self.across, self.down = (Axis(side, tiling, self.step) for side in size)
        self.path = path
        self.score = 0.0
        self.timing = Timing()
        self.notes: tuple[str, ...] = ()
        self._todo = len(self.across.spans) * len(self.down.spans)
        self._whole = self.step == self._todo == 1
        self._map: Tensor | None = None
        self._shown = shown if self.step == 1 else None
        self._drawn = self.down.cells if self._shown is not None else 0

    @property
    def done(self) -> bool:
        """Whether all tiles were added."""
        return self._todo == 0

    @property
    def picture(self) -> LoadedImage:
        """The picture at the size of the map, once all of it was drawn."""
        assert self._shown is not None
        return LoadedImage(self._shown, self.path, self.notes)

    @property
    def map(self) -> Tensor:
        """The anomaly map so far, (ceil(height / step), ceil(width / step)) float32."""
        assert self._map is not None
        return resize(self._map, self.down.length, self.across.length) if self._whole else self._map

    def take(self) -> Tensor:
        """Hand over the map, which the canvas keeps no longer: a batch of large ones would fill the memory."""
        found, self._map = self.map, None
        return found

    def draw(self, band: Image.Image, top: int) -> None:
        """Take the rows of a band, in order, into the preview; `top` is a multiple of `step`."""
        last = self.down.cells if top + band.height >= self.size[1] else (top + band.height) // self.step
        if last <= self._drawn:
            return
        if self._shown is None:
            self._shown = Image.new(band.mode, (self.across.cells, self.down.cells))
        part = band.crop((0, self._drawn * self.step - top, band.width, min(last * self.step - top, band.height)))
        self._shown.paste(part.reduce(self.step), (0, self._drawn))
        self._drawn = last

    def add(self, place: tuple[int, int], score: float, tile: Tensor, timing: Timing) -> None:
        """Take in what was found in a tile.

        Args:
            place: (row, column) of the tile, from 0.
            score: its image score.
            tile: its map (S, S), float32 on the CPU.
            timing: what it took.
        """
        self._todo -= 1
        worst = min(max(score, 0.0), 1.0)
        if worst > self.score or math.isnan(worst):  # what is no number must not be lost
            self.score = worst
        self.timing = self.timing + timing
        row, column = place
        if self._whole:
            self._map = tile  # brought to the picture's size when it is asked for: that may be in another thread
            return
        if self._map is None:
            self._map = torch.zeros(self.down.cells, self.across.cells)
        share = self.down.matrix(row, tile.shape[0]) @ tile @ self.across.matrix(column, tile.shape[1]).T
        self._map[self.down.reach(row), self.across.reach(column)] += share


@dataclass(frozen=True)
class Piece:
    """A tile, or a whole picture, on its way to the model."""

    canvas: Canvas
    place: tuple[int, int]
    image: Image.Image


def cut(source: ImageSource, tiling: Tiling | None, *, max_pixels: int) -> Iterator[Piece]:
    """Read a picture piece by piece, row by row of tiles.

    Args:
        source: as for `read_image`.
        tiling: None gives the whole picture as one piece.
        max_pixels: of what is decoded at once, which is a band of rows where the file can be read so, else the picture.

    Raises:
        ImageError: it cannot be read, maybe only after some of its pieces.
    """
    with ExitStack() as stack:
        bands = None
        if tiling is not None and isinstance(source, (str, os.PathLike)):
            bands = stack.enter_context(open_bands(source))
        if tiling is None or bands is None or bands.size[0] * bands.size[1] <= min(MAP_PIXELS, max_pixels):
            stack.close()
            yield from _whole(read_image(source, max_pixels=max_pixels), tiling)
            return
        canvas = Canvas(bands.size, tiling, path=bands.path, limit=MAP_PIXELS)
        width, height = bands.size
        at_once = width * min(height, tiling.side + canvas.step + 2 * bands.piece)
        if at_once > max_pixels:
            raise ImageError(
                f"{bands.path!r} has {width} x {height} pixels, of which {at_once:,} have to be decoded at once, more "
                f"than max_pixels = {max_pixels:,}; save it as TIFF in tiles or narrow strips, or raise max_pixels.",
                bands.path,
            )
        yield from _pieces(canvas, bands.rows, lambda: bands.notes)


def _whole(picture: LoadedImage, tiling: Tiling | None) -> Iterator[Piece]:
    image = picture.image
    canvas = Canvas(picture.size, tiling, path=picture.path, shown=image, limit=MAP_PIXELS)
    if tiling is None:
        canvas.notes = picture.notes
        yield Piece(canvas, (0, 0), image)
        return
    yield from _pieces(canvas, lambda top, bottom: image.crop((0, top, image.width, bottom)), lambda: picture.notes)


def _pieces(
    canvas: Canvas, rows: Callable[[int, int], Image.Image], notes: Callable[[], tuple[str, ...]]
) -> Iterator[Piece]:
    for row, (top, bottom) in enumerate(canvas.down.spans):
        start = top - top % canvas.step
        band = rows(start, bottom)
        canvas.draw(band, start)
        canvas.notes = notes()
        if canvas.step > 1:
            canvas.notes += (f"map and preview at 1/{canvas.step} of its size",)
        for column, (left, right) in enumerate(canvas.across.spans):
            yield Piece(canvas, (row, column), band.crop((left, top - start, right, bottom - start)))


def resize(anomaly_map: Tensor, height: int, width: int) -> Tensor:
    """Bilinear from (S, S) to (height, width), pixel centres aligned."""
    if anomaly_map.shape == (height, width):
        return anomaly_map.clone()
    resized = functional.interpolate(anomaly_map[None, None], (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last maybe shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
