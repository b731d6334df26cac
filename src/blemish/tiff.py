"""Rows of TIFF files that are too large for the memory.

A TIFF holds its pixels in chunks (strips, or tiles), each compressed on its own. The chunks that contain the requested
rows are wrapped as a small TIFF and given to Pillow, so every compression and pixel format that Pillow reads is read
here, too, by the rules of `read_image`.
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

from blemish.errors import ImageError
from blemish.image_io import decode, flatten, identify, is_deep, note_frames, open_file, quiet_pillow
from blemish.types import PathLike

# TIFF tags.
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _ORIENTATION = 256, 257, 259, 262, 284, 274
_STRIPS, _ROWS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 278, 279, 322, 323, 324, 325
#: Tags that define how the bits of a chunk become pixels: depth, compression, colours, fill order, samples, fax
#: options, predictor, colour map, inks, tile sides, opacity, number format, JPEG tables, chroma.
_COPIED = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, 530, 531)
_UNCOMPRESSED, _OLD_JPEG, _YCBCR = 1, 6, 6
#: `struct` letter of each number type; the tags above use no others.
_LETTERS = {1: "B", 3: "H", 4: "L", 7: "B"}
_LONG = 4


class TiffRowReader:
    """An open TIFF that returns any of its rows. Not for several threads at once.

    Attributes:
        size: (width, height) of the image.
        path: The file.
        chunk_rows: Rows that are decoded together, however few of them are requested.
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
            self.chunk_rows, self._tiles_per_row = int(tags[_TILE_HEIGHT]), math.ceil(width / int(tags[_TILE_WIDTH]))
        else:
            self.chunk_rows, self._tiles_per_row = min(int(tags.get(_ROWS, height)), height), 1
        self._offsets = _numbers(tags[_TILES if self._tiled else _STRIPS])
        self._lengths = _numbers(tags.get(_TILE_BYTES if self._tiled else _STRIP_BYTES, ()))
        self._row_bytes = 0  # of a row that can be read on its own; 0 if rows cannot
        if tags.get(_COMPRESSION, 1) == _UNCOMPRESSED and not self._tiled:
            bits, samples = _numbers(tags.get(258, 1)), int(tags.get(277, 1))
            self._row_bytes = (width * (sum(bits) if len(bits) == samples else bits[0] * samples) + 7) // 8
            self._strip_rows, self.chunk_rows = self.chunk_rows, 1
        note_frames(image, 0, self._notes)
        self._check()
        self._value_range = self._find_range() if is_deep(image.mode) else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on reading, as in `LoadedImage`; complete once all rows were read."""
        return tuple(dict.fromkeys(self._notes))

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Return rows `top` to `bottom` - 1 over the full width, mode "L" or "RGB".

        Raises:
            ImageError: They are damaged or cut short.
        """
        return flatten(self._decode(top, bottom), self._notes, self._value_range)

    def _decode(self, top: int, bottom: int) -> Image.Image:
        first, last = top // self.chunk_rows, math.ceil(bottom / self.chunk_rows)
        start, stop = first * self.chunk_rows, min(last * self.chunk_rows, self.size[1])
        try:
            with quiet_pillow():
                wrapped = self._wrap(start, stop, self._read_chunks(first, last))
                # Without the path, by which Pillow would map the rows of the file itself into memory.
                image = decode(identify(io.BytesIO(wrapped), repr(self.path), None), self._notes)
        except MemoryError as error:
            raise ImageError(f"{self.path!r} needs too much memory; save it as TIFF in tiles.", self.path) from error
        except Exception as error:  # as in read_image: a decoder may raise anything on damaged bytes
            raise ImageError(
                f"{self.path!r} is damaged in rows {top} to {bottom - 1}; save it again or leave it out.", self.path
            ) from error
        return image.crop((0, top - start, self.size[0], bottom - start))

    def _find_range(self) -> tuple[float, float]:
        """Return the smallest and the largest value of the whole file."""
        lows, highs = [], []
        step = max(self.chunk_rows, 256)
        for top in range(0, self.size[1], step):
            values = np.asarray(self._decode(top, min(top + step, self.size[1])))
            lows.append(values.min())
            highs.append(values.max())
        low, high = np.min(lows).item(), np.max(highs).item()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ImageError(f"{self.path!r} holds NaN or infinity; replace them before reading it.", self.path)
        return low, high

    def _check(self) -> None:
        """Raise ImageError unless the file is as large as its header says: a header alone may claim any size."""
        height = self.size[1]
        rows = self._strip_rows if self._row_bytes else self.chunk_rows
        count = math.ceil(height / rows) * self._tiles_per_row
        end = os.fstat(self._stream.fileno()).st_size
        if self._row_bytes:
            lengths = tuple(self._row_bytes * min(rows, height - top) for top in range(0, height, rows))
        else:
            lengths = self._lengths
        cut_short = len(self._offsets) < count or len(lengths) < count
        if cut_short or any(a + b > end for a, b in zip(self._offsets[:count], lengths[:count], strict=True)):
            raise ImageError(f"{self.path!r} is cut short; save it again or leave it out.", self.path)

    def _read_chunks(self, first: int, last: int) -> list[bytes]:
        """Return the bytes of rows of chunks; of uncompressed strips only the rows themselves, as one chunk."""
        if not self._row_bytes:
            numbers = range(first * self._tiles_per_row, last * self._tiles_per_row)
            return [self._read(self._offsets[number], self._lengths[number]) for number in numbers]
        parts = []
        while first < last:
            strip, inside = divmod(first, self._strip_rows)
            count = min(last - first, self._strip_rows - inside)
            parts.append(self._read(self._offsets[strip] + inside * self._row_bytes, count * self._row_bytes))
            first += count
        return [b"".join(parts)]

    def _read(self, offset: int, length: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(length)
        if len(data) < length:
            raise EOFError("truncated")
        return data

    def _wrap(self, start: int, stop: int, chunks: Sequence[bytes]) -> bytes:
        """Return a TIFF of these rows only."""
        entries = {tag: self._entry(tag) for tag in _COPIED if tag in self._tags}
        entries[_WIDTH], entries[_HEIGHT] = (_LONG, (self.size[0],)), (_LONG, (stop - start,))
        lengths = (_LONG, tuple(map(len, chunks)))
        if self._tiled:
            entries[_TILES], entries[_TILE_BYTES] = (_LONG, (0,) * len(chunks)), lengths
        else:
            entries[_STRIPS], entries[_STRIP_BYTES] = (_LONG, (0,) * len(chunks)), lengths
            entries[_ROWS] = (_LONG, (stop - start if self._row_bytes else self.chunk_rows,))
        return _tiff(self._order, entries, _TILES if self._tiled else _STRIPS, chunks)

    def _entry(self, tag: int) -> tuple[int, tuple[int, ...]]:
        kind, value = self._tags.tagtype[tag], self._tags[tag]
        return kind if kind in _LETTERS else _LONG, tuple(value) if isinstance(value, bytes) else _numbers(value)


@contextlib.contextmanager
def open_tiff_rows(path: PathLike) -> Iterator[TiffRowReader | None]:
    """Open a picture file for reading it by rows.

    Yields:
        None for a file that cannot be read by rows: anything but TIFF, TIFF with an orientation, with colours in
        separate planes, or with old-style JPEG.

    Raises:
        ImageError: It is no picture file, or cut short.
    """
    name = os.fsdecode(path)
    with open_file(path, repr(name), name) as stream:
        try:
            with quiet_pillow():
                image = identify(stream, repr(name), name)
                reader = TiffRowReader(stream, image, name) if _has_rows(image) else None
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name!r} is damaged or not supported; save it again or leave it out.", name) from error
        yield reader


def _has_rows(image: Image.Image) -> TypeGuard[TiffImagePlugin.TiffImageFile]:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    compression, colours = tags.get(_COMPRESSION, 1), tags.get(_PHOTOMETRIC)
    return (
        (_TILES in tags or _STRIPS in tags)
        and tags.get(_ORIENTATION, 1) == 1
        and tags.get(_PLANAR, 1) == 1
        and compression != _OLD_JPEG
        and (compression, colours) != (_UNCOMPRESSED, _YCBCR)
    )


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in value) if isinstance(value, (tuple, list)) else (int(value),)


def _tiff(
    order: str, entries: Mapping[int, tuple[int, tuple[int, ...]]], offsets: int, chunks: Sequence[bytes]
) -> bytes:
    """Return a TIFF with one directory.

    Args:
        order: "<" or ">", the byte order of the samples in the chunks.
        entries: Tag -> (type, numbers).
        offsets: The tag whose numbers become the offsets of the chunks.
        chunks: The pixels.
    """
    position = 8 + 2 + 12 * len(entries) + 4  # of values that do not fit into an entry
    sizes = {tag: struct.calcsize(f"{order}{len(values)}{_LETTERS[kind]}") for tag, (kind, values) in entries.items()}
    start = position + sum(size for size in sizes.values() if size > 4)
    starts = [start]
    for chunk in chunks[:-1]:
        starts.append(starts[-1] + len(chunk))
    directory, large = [struct.pack(f"{order}H", len(entries))], []
    for tag in sorted(entries):
        kind, values = entries[tag]
        data = struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *(starts if tag == offsets else values))
        directory.append(struct.pack(f"{order}HHL", tag, kind, len(values)))
        if len(data) <= 4:
            directory.append(data.ljust(4, b"\0"))
            continue
        directory.append(struct.pack(f"{order}L", position))
        large.append(data)
        position += len(data)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8)
    return b"".join([head, *directory, b"\0" * 4, *large, *chunks])
