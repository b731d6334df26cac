"""Large images in tiles: cut, scored like images, and merged again.

Every tile is preprocessed and scored like an image of its own, so scores and maps keep the scale of untiled ones. The
anomaly map is the mean of the tiles' maps, each faded out towards its edges where it overlaps a neighbour. The image
score is the maximum over the tiles: one flaw anywhere makes the image anomalous, however large the rest. An image of
many tiles therefore has more chances of a high score than one of few, so compare, and threshold, images of similar
size. An image no larger than a tile is scored whole.

Memory does not grow with the image. A TIFF in strips or tiles is read a few rows at a time (`blemish.image_io.tiff`),
and above `MAX_MAP_PIXELS` the map and the preview to draw on are smaller than the image by a whole number, `map_step`
in the detection; its regions stay in pixels of the image. Other formats (JPEG, PNG, ...) are decoded whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from blemish.detection import Timing
from blemish.errors import ImageError
from blemish.image_io import LoadedImage, open_tiff_rows, read_image
from blemish.methods.ops import resize
from blemish.types import DEFAULT_OVERLAP, ImageSource, Span, Tiling, ValueRange

__all__ = ["DEFAULT_OVERLAP", "MAX_MAP_PIXELS", "Tile", "TileMerger", "Tiling", "batched", "cut", "resize"]

#: Most values in the map of a tiled image: 64 MiB, which is finer than the patches of any backbone.
MAX_MAP_PIXELS = 16_777_216

FinishMap: TypeAlias = Callable[[Tensor, int, int], Tensor]
"""A function that brings a map (H, W) to a height and a width, such as `resize`."""

T = TypeVar("T")


class BlendAxis:
    """One side of an image, and the matrices that bring the tiles' maps onto it.

    Everything along a side is linear: enlarging a tile's map to the tile, fading it, and the mean over the pixels of a
    map cell. So each tile has one matrix per side, and the map is the sum of down @ tile @ across over the tiles.

    Args:
        length: Length of the side in pixels.
        tiling: How the side is cut; None = not at all.
        step: Pixels per cell of the map.
    """

    def __init__(self, length: int, tiling: Tiling | None, step: int) -> None:
        self.length, self.step = length, step
        self.spans: tuple[Span, ...] = ((0, length),) if tiling is None else tiling.spans(length)
        self.cells = -(-length // step)
        self._ramp = 0 if tiling is None else tiling.ramp
        self._matrices: dict[tuple[int, int], Tensor] = {}

    def _total_weight(self, number: int) -> Tensor:
        """Return the summed weights of a tile and of all that overlap it, at each of the tile's pixels."""
        start, end = self.spans[number]
        total = self._weight(end - start)
        for neighbours in (range(number - 1, -1, -1), range(number + 1, len(self.spans))):
            for neighbour in neighbours:
                first, last = self.spans[neighbour]
                shared = slice(max(first, start) - start, min(last, end) - start)
                if shared.start >= shared.stop:
                    break
                total[shared] += self._weight(last - first)[max(start - first, 0) : min(end, last) - first]
        return total

    def _weight(self, length: int) -> Tensor:
        """Return the weight of a tile at each of its pixels: 1 in the middle, falling towards both ends."""
        centre = torch.arange(length, dtype=torch.float64) + 0.5
        return (torch.minimum(centre, length - centre) / max(self._ramp, 1)).clamp(max=1)

    def cells_of(self, number: int) -> slice:
        """Return the cells of the map that a tile contributes to."""
        start, end = self.spans[number]
        return slice(start // self.step, -(-end // self.step))

    def matrix(self, number: int, size: int) -> Tensor:
        """Return the matrix from a tile's map (size) to its share of the cells: (cells, size) float32."""
        if (number, size) not in self._matrices:
            start, end = self.spans[number]
            eye = torch.eye(size, dtype=torch.float64)[None]
            enlarged = functional.interpolate(eye, end - start, mode="linear", align_corners=False)[0].T
            weights = self._weight(end - start) / self._total_weight(number)
            cell = torch.arange(start, end) // self.step
            # The last cell may have fewer pixels than the others.
            weights /= torch.clamp(self.length - cell * self.step, max=self.step)
            cells = self.cells_of(number)
            out = torch.zeros(cells.stop - cells.start, size, dtype=torch.float64)
            out.index_add_(0, cell - cells.start, enlarged * weights[:, None])
            self._matrices[number, size] = out.float()
        return self._matrices[number, size]


class TileMerger:
    """Merges the results of the tiles of one image.

    Args:
        size: (width, height) of the image in pixels.
        tiling: How the image is cut; None = not at all.
        path: File of the image; None for one from memory.
        preview: The image itself if it is in memory; None = collected row by row with `add_preview_rows`.
        max_map_pixels: About the most values that the map may hold.

    Attributes:
        step: Pixels per value of the map, along each side.
        down, across: The two sides.
        score: Maximum of the tiles' scores so far, in [0, 1].
        timing: Seconds spent so far.
        notes: Notes on reading the image.
    """

    def __init__(
        self,
        size: tuple[int, int],
        tiling: Tiling | None,
        *,
        path: str | None = None,
        preview: Image.Image | None = None,
        max_map_pixels: int = MAX_MAP_PIXELS,
    ) -> None:
        width, height = self.size = size
        self.step = 1 if tiling is None else max(1, math.ceil(math.sqrt(width * height / max_map_pixels)))
        self.across, self.down = (BlendAxis(side, tiling, self.step) for side in size)
        self.path = path
        self.score = 0.0
        self.timing = Timing()
        self.notes: tuple[str, ...] = ()
        self._todo = len(self.across.spans) * len(self.down.spans)
        self._whole = self.step == self._todo == 1
        self._map: Tensor | None = None
        self._preview = preview if self.step == 1 else None
        self._preview_rows = self.down.cells if self._preview is not None else 0

    @property
    def done(self) -> bool:
        """Whether all tiles were added."""
        return self._todo == 0

    @property
    def map_pixels(self) -> int:
        """Number of values in the map."""
        return self.across.cells * self.down.cells

    @property
    def image(self) -> LoadedImage:
        """The image at the size of the map, once all of its rows were added."""
        assert self._preview is not None
        return LoadedImage(self._preview, self.path, self.notes)

    @property
    def is_whole(self) -> bool:
        """Whether the image is scored in one piece, and its map is as large as the image."""
        return self._whole

    @property
    def map(self) -> Tensor:
        """The anomaly map so far, (ceil(height / step), ceil(width / step)) float32."""
        return self._finished(resize)

    @property
    def model_map(self) -> Tensor | None:
        """The map of an image that was scored in one piece, at the model's size; None for tiles."""
        return self._map if self._whole else None

    def take_map(self, finish: FinishMap = resize) -> Tensor:
        """Return the map and forget it, since the large maps of a whole batch would fill the memory.

        Args:
            finish: Brings the map of an image that was scored in one piece to its size.
        """
        anomaly_map, self._map = self._finished(finish), None
        return anomaly_map

    def _finished(self, finish: FinishMap) -> Tensor:
        assert self._map is not None
        return finish(self._map, self.down.length, self.across.length) if self._whole else self._map

    def add_preview_rows(self, rows: Image.Image, top: int) -> None:
        """Add rows of the image to the preview, in order; `top` is a multiple of `step`."""
        last = self.down.cells if top + rows.height >= self.size[1] else (top + rows.height) // self.step
        if last <= self._preview_rows:
            return
        if self._preview is None:
            self._preview = Image.new(rows.mode, (self.across.cells, self.down.cells))
        first = self._preview_rows
        part = rows.crop((0, first * self.step - top, rows.width, min(last * self.step - top, rows.height)))
        self._preview.paste(part.reduce(self.step), (0, first))
        self._preview_rows = last

    def tile_size(self, index: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of a tile in pixels."""
        (top, bottom), (left, right) = self.down.spans[index[0]], self.across.spans[index[1]]
        return bottom - top, right - left

    def add(self, index: tuple[int, int], score: float, tile_map: Tensor, timing: Timing) -> None:
        """Add the result of one tile.

        Args:
            index: (row, column) of the tile, from 0.
            score: Image score of the tile.
            tile_map: Anomaly map of the tile (H, W), float32 on the CPU, at any size.
            timing: Seconds spent on the tile.
        """
        self._todo -= 1
        score = min(max(score, 0.0), 1.0)
        if score > self.score or math.isnan(score):  # NaN must not get lost
            self.score = score
        self.timing = self.timing + timing
        row, column = index
        if self._whole:
            self._map = tile_map  # resized on demand, maybe in another thread
            return
        if self._map is None:
            self._map = torch.zeros(self.down.cells, self.across.cells)
        share = self.down.matrix(row, tile_map.shape[0]) @ tile_map @ self.across.matrix(column, tile_map.shape[1]).T
        self._map[self.down.cells_of(row), self.across.cells_of(column)] += share


@dataclass(frozen=True)
class Tile:
    """A tile, or a whole image, on its way to the model."""

    merger: TileMerger
    """Takes the result."""
    index: tuple[int, int]
    """(row, column), from 0."""
    image: Image.Image


def cut(
    source: ImageSource, tiling: Tiling | None, *, max_pixels: int, value_range: ValueRange | None = None
) -> Iterator[Tile]:
    """Read an image tile by tile, row by row of tiles.

    Args:
        source: Image as `read_image` takes it.
        tiling: None gives the whole image as one tile.
        max_pixels: Most pixels that are decoded at once: some rows of a TIFF that can be read so, else the whole image.
        value_range: As in `read_image`.

    Raises:
        ImageError: It cannot be read, maybe only after some of its tiles.
    """
    with ExitStack() as stack:
        reader = None
        if tiling is not None and isinstance(source, (str, os.PathLike)):
            reader = stack.enter_context(open_tiff_rows(source, value_range=value_range))
        if tiling is None or reader is None or math.prod(reader.size) <= min(MAX_MAP_PIXELS, max_pixels):
            stack.close()
            yield from _cut_loaded(read_image(source, max_pixels=max_pixels, value_range=value_range), tiling)
            return
        merger = TileMerger(reader.size, tiling, path=reader.path, max_map_pixels=MAX_MAP_PIXELS)
        width, height = reader.size
        decoded = width * min(height, tiling.side + merger.step + 2 * reader.chunk_rows)
        if decoded > max_pixels:
            raise ImageError(
                f"{reader.path!r} has {width} x {height} pixels, of which {decoded:,} have to be decoded at once, more "
                f"than max_pixels = {max_pixels:,}; save it as TIFF in tiles or narrow strips, or raise "
                "max_pixels (--max-pixels).",
                reader.path,
            )
        yield from _cut_rows(merger, reader.rows, lambda: reader.notes)


def _cut_loaded(loaded: LoadedImage, tiling: Tiling | None) -> Iterator[Tile]:
    image = loaded.image
    merger = TileMerger(loaded.size, tiling, path=loaded.path, preview=image, max_map_pixels=MAX_MAP_PIXELS)
    if tiling is None:
        merger.notes = loaded.notes
        yield Tile(merger, (0, 0), image)
        return
    yield from _cut_rows(merger, lambda top, bottom: image.crop((0, top, image.width, bottom)), lambda: loaded.notes)


def _cut_rows(
    merger: TileMerger, read_rows: Callable[[int, int], Image.Image], notes: Callable[[], tuple[str, ...]]
) -> Iterator[Tile]:
    for row, (top, bottom) in enumerate(merger.down.spans):
        start = top - top % merger.step
        rows = read_rows(start, bottom)
        merger.add_preview_rows(rows, start)
        merger.notes = notes()
        if merger.step > 1:
            merger.notes += (f"map and preview at 1/{merger.step} of its size",)
        for column, (left, right) in enumerate(merger.across.spans):
            yield Tile(merger, (row, column), rows.crop((left, top - start, right, bottom - start)))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
