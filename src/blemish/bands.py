"""TIFF files that are too large for the memory, some rows at a time.

A TIFF holds its pixels in pieces (strips, or tiles), each compressed on its own. The pieces that a band of rows lies in
are wrapped up as a small TIFF of their own and given to Pillow, so that every compression and every kind of pixel that
Pillow reads is read here too, by the rules of `read_image`.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, TypeGuard

import numpy as np
from PIL import Image, TiffImagePlugin

from blemish._quiet import quiet_pillow
from blemish.errors import ImageError
from blemish.image_io import decode, flatten, identify, is_deep, note_frames, open_file

# TIFF tags.
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _ORIENTATION = 256, 257, 259, 262, 284, 274
_STRIPS, _ROWS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 278, 279, 322, 323, 324, 325
#: What says how the bits of a piece become pixels: depth, compression, colours, fill order, samples, fax options,
#: predictor, colour map, inks, tiles' sides, opacity, numbers' format, JPEG tables, chroma.
_COPIED = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, 530, 531)
_UNCOMPRESSED, _OLD_JPEG, _YCBCR = 1, 6, 6
#: struct's letter for each type of number that is copied; the rest is in none of the tags above.
_LETTERS = {1: "B", 3: "H", 4: "L", 7: "B"}
_LONG = 4


class Bands:
    """An open TIFF that gives any of its rows. Not for several threads at once.

    Attributes:
        size: (width, height) of the picture.
        path: the file.
        notes: what was done while reading, as in `LoadedImage`; all there once all rows were read.
        piece: rows that are decoded together, however few of them are asked for.
    """

    def __init__(self, stream: IO[bytes], image: TiffImagePlugin.TiffImageFile, path: str) -> None:
        tags = image.tag_v2
        self.size, self.path = image.size, path
        self._stream, self._tags = stream, tags
        self._order = "<" if image.tag_v2.prefix == b"II" else ">"
        self._notes: list[str] = []
        self._tiled = _TILES in tags
        width, height = self.size
        if self._tiled:
            self.piece, self._across = int(tags[_TILE_HEIGHT]), math.ceil(width / int(tags[_TILE_WIDTH]))
        else:
            self.piece, self._across = min(int(tags.get(_ROWS, height)), height), 1
        self._offsets = _numbers(tags[_TILES if self._tiled else _STRIPS])
        self._lengths = _numbers(tags.get(_TILE_BYTES if self._tiled else _STRIP_BYTES, ()))
        self._stride = 0  # bytes of a row that can be read by itself
        if tags.get(_COMPRESSION, 1) == _UNCOMPRESSED and not self._tiled:
            bits, samples = _numbers(tags.get(258, 1)), int(tags.get(277, 1))
            self._stride = (width * (sum(bits) if len(bits) == samples else bits[0] * samples) + 7) // 8
            self._rows, self.piece = self.piece, 1
        note_frames(image, 0, self._notes)
        self._check()
        self._ends = self._range() if is_deep(image.mode) else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Each note once, although every band was read like a picture."""
        return tuple(dict.fromkeys(self._notes))

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Rows `top` to `bottom` - 1 over the full width, mode "L" or "RGB".

        Raises:
            ImageError: they are damaged or cut short.
        """
        return flatten(self._decoded(top, bottom), self._notes, self._ends)

    def _decoded(self, top: int, bottom: int) -> Image.Image:
        first, last = top // self.piece, math.ceil(bottom / self.piece)
        start, stop = first * self.piece, min(last * self.piece, self.size[1])
        try:
            with quiet_pillow():
                packed = self._packed(start, stop, self._pieces(first, last))
                # Without the path: by it Pillow would map the rows of the file itself into memory.
                image = decode(identify(io.BytesIO(packed), repr(self.path), None), self._notes)
        except MemoryError as error:
            raise ImageError(f"{self.path!r} needs too much memory; save it as TIFF in tiles.", self.path) from error
        except Exception as error:  # as in read_image: decoders meet broken bytes with whatever they stumble over
            raise ImageError(
                f"{self.path!r} is damaged in rows {top} to {bottom - 1}; save it again or leave it out.", self.path
            ) from error
        return image.crop((0, top - start, self.size[0], bottom - start))

    def _range(self) -> tuple[float, float]:
        """The smallest and the largest value, from a first walk through the whole file."""
        lows, highs = [], []
        step = max(self.piece, 256)
        for top in range(0, self.size[1], step):
            values = np.asarray(self._decoded(top, min(top + step, self.size[1])))
            lows.append(values.min())
            highs.append(values.max())
        low, high = np.min(lows).item(), np.max(highs).item()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ImageError(f"{self.path!r} holds NaN or infinity; replace them before reading it.", self.path)
        return low, high

    # pieces

    def _check(self) -> None:
        """Whether the file holds what its header promises: a header alone may promise any size."""
        height = self.size[1]
        rows = self._rows if self._stride else self.piece
        count = math.ceil(height / rows) * self._across
        end = os.fstat(self._stream.fileno()).st_size
        if self._stride:
            lengths = tuple(self._stride * min(rows, height - top) for top in range(0, height, rows))
        else:
            lengths = self._lengths
        cut_short = len(self._offsets) < count or len(lengths) < count
        if cut_short or any(a + b > end for a, b in zip(self._offsets[:count], lengths[:count], strict=True)):
            raise ImageError(f"{self.path!r} is cut short; save it again or leave it out.", self.path)

    def _pieces(self, first: int, last: int) -> list[bytes]:
        """The bytes of rows of pieces; for uncompressed strips those of the rows themselves, as one piece."""
        if not self._stride:
            places = range(first * self._across, last * self._across)
            return [self._read(self._offsets[place], self._lengths[place]) for place in places]
        parts = []
        while first < last:
            strip, inside = divmod(first, self._rows)
            count = min(last - first, self._rows - inside)
            parts.append(self._read(self._offsets[strip] + inside * self._stride, count * self._stride))
            first += count
        return [b"".join(parts)]

    def _read(self, offset: int, length: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(length)
        if len(data) < length:
            raise EOFError("truncated")
        return data

    def _packed(self, start: int, stop: int, pieces: Sequence[bytes]) -> bytes:
        """A TIFF of these rows only."""
        entries = {tag: self._entry(tag) for tag in _COPIED if tag in self._tags}
        entries[_WIDTH], entries[_HEIGHT] = (_LONG, (self.size[0],)), (_LONG, (stop - start,))
        lengths = (_LONG, tuple(map(len, pieces)))
        if self._tiled:
            entries[_TILES], entries[_TILE_BYTES] = (_LONG, (0,) * len(pieces)), lengths
        else:
            entries[_STRIPS], entries[_STRIP_BYTES] = (_LONG, (0,) * len(pieces)), lengths
            entries[_ROWS] = (_LONG, (stop - start if self._stride else self.piece,))
        return _tiff(self._order, entries, _TILES if self._tiled else _STRIPS, pieces)

    def _entry(self, tag: int) -> tuple[int, tuple[int, ...]]:
        kind, value = self._tags.tagtype[tag], self._tags[tag]
        return kind if kind in _LETTERS else _LONG, tuple(value) if isinstance(value, bytes) else _numbers(value)


@contextlib.contextmanager
def open_bands(path: str | os.PathLike[str]) -> Iterator[Bands | None]:
    """Open a picture file for reading it by rows.

    Yields:
        None for what cannot be read so: anything but TIFF, TIFF turned by its orientation, with its colours in separate
        planes, or with JPEG of the old style.

    Raises:
        ImageError: no picture file, or cut short.
    """
    name = os.fsdecode(path)
    with open_file(path, repr(name), name) as stream:
        try:
            with quiet_pillow():
                image = identify(stream, repr(name), name)
                bands = Bands(stream, image, name) if _in_pieces(image) else None
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name!r} is damaged or not supported; save it again or leave it out.", name) from error
        yield bands


def _in_pieces(image: Image.Image) -> TypeGuard[TiffImagePlugin.TiffImageFile]:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    packing, colours = tags.get(_COMPRESSION, 1), tags.get(_PHOTOMETRIC)
    return (
        (_TILES in tags or _STRIPS in tags)
        and tags.get(_ORIENTATION, 1) == 1
        and tags.get(_PLANAR, 1) == 1
        and packing != _OLD_JPEG
        and (packing, colours) != (_UNCOMPRESSED, _YCBCR)
    )


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in value) if isinstance(value, (tuple, list)) else (int(value),)


def _tiff(
    order: str, entries: Mapping[int, tuple[int, tuple[int, ...]]], offsets: int, pieces: Sequence[bytes]
) -> bytes:
    """A TIFF with one directory.

    Args:
        order: "<" or ">", as the samples in the pieces have it.
        entries: tag -> (type, numbers).
        offsets: the tag whose numbers become the places of the pieces.
        pieces: the pixels.
    """
    place = 8 + 2 + 12 * len(entries) + 4  # where what does not fit into an entry goes
    sizes = {tag: struct.calcsize(f"{order}{len(values)}{_LETTERS[kind]}") for tag, (kind, values) in entries.items()}
    start = place + sum(size for size in sizes.values() if size > 4)
    places = [start]
    for piece in pieces[:-1]:
        places.append(places[-1] + len(piece))
    directory, beside = [struct.pack(f"{order}H", len(entries))], []
    for tag in sorted(entries):
        kind, values = entries[tag]
        data = struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *(places if tag == offsets else values))
        directory.append(struct.pack(f"{order}HHL", tag, kind, len(values)))
        if len(data) <= 4:
            directory.append(data.ljust(4, b"\0"))
            continue
        directory.append(struct.pack(f"{order}L", place))
        beside.append(data)
        place += len(data)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8)
    return b"".join([head, *directory, b"\0" * 4, *beside, *pieces])
