"""TIFF beyond Pillow: bands of rows of files that are too large for the memory, and values of more than 8 bits.

A TIFF holds its pixels in chunks (strips, or tiles), each compressed on its own. The chunks that contain the requested
rows are wrapped as a small TIFF and given to Pillow, so every compression and pixel format that Pillow reads is read
here, too, by the rules of `read_image`.

Pillow cuts colours of 16 bits to 8 and refuses colours in floating point. Chunks with values of more than 8 bits are
therefore wrapped as grey of 8 bits, which are then the decompressed bytes; what they mean is worked out here.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from blemish.errors import ImageError
from blemish.files import split_page
from blemish.image_io.pillow import (
    check_size,
    decode,
    flatten,
    identify,
    note_number,
    open_file,
    quiet_pillow,
    raw_error,
    read_head,
    turn,
)
from blemish.image_io.values import Samples, Statistics, given_note, range_of, to_bytes
from blemish.types import PathLike, ValueRange

# TIFF tags.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 266, 277, 284
_STRIPS, _ROWS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 278, 279, 322, 323, 324, 325
_ORIENTATION, _MAX_VALUE, _PREDICTOR, _EXTRA, _FORMAT, _S_MIN, _S_MAX, _DNG = 274, 281, 317, 338, 339, 340, 341, 50706
#: Tags that define how the bits of a chunk become pixels: depth, compression, colours, fill order, samples, fax
#: options, predictor, colour map, inks, tile sides, opacity, number format, JPEG tables, chroma.
_COPIED = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, 530, 531)
_UNCOMPRESSED, _OLD_JPEG, _YCBCR = 1, 6, 6
#: Compressions of bytes, whatever they mean: none, LZW, deflate (two numbers), PackBits, LZMA, Zstandard.
_OF_BYTES = (1, 5, 8, 32946, 32773, 34925, 50000)
#: Colours of camera raw: a filter array, and linear raw.
_RAW_COLOURS = (32803, 34892)
_HORIZONTAL, _FLOATING = 2, 3
#: `struct` letter of each number type; the tags above use no others.
_LETTERS = {1: "B", 3: "H", 4: "L", 7: "B"}
_SHORT, _LONG = 3, 4
#: More directories are taken for a loop.
_MAX_PAGES = 100_000

Tags = TiffImagePlugin.ImageFileDirectory_v2


@dataclass(frozen=True)
class _Layout:
    """How values of more than 8 bits are stored."""

    bits: int
    kind: str
    """u, i or f."""
    order: str
    """Byte order, < or >."""
    channels: int
    planes: int
    """1, or as many as channels if each is stored on its own."""
    predictor: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values in the file."""
        return np.dtype(f"{self.order}{self.kind}{self.bits // 8}")

    @property
    def packed(self) -> bool:
        """Whether values do not begin at bytes."""
        return self.bits % 8 != 0

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a row of a chunk."""
        return (width * self.bits * self.channels // self.planes + 7) // 8

    def values(self, data: npt.NDArray[np.uint8], width: int) -> npt.NDArray[Any]:
        """Return the values (rows, width, channels of a plane) of rows of bytes (rows, row_bytes(width))."""
        rows, channels = len(data), self.channels // self.planes
        if self.packed:
            bits = np.unpackbits(data, axis=1)[:, : width * channels * self.bits]
            weights = (1 << np.arange(self.bits)[::-1]).astype(np.uint16)
            numbers: npt.NDArray[Any] = bits.reshape(rows, width, channels, self.bits) @ weights
            return numbers.astype(np.uint16)
        if self.predictor == _FLOATING:
            # Bytes of equal significance stand together, the most significant first, as differences.
            size = self.dtype.itemsize
            data = np.cumsum(data.reshape(rows, -1, channels), axis=1, dtype=np.uint8).reshape(rows, size, -1)
            big = np.ascontiguousarray(data.swapaxes(1, 2)).reshape(rows, -1)
            return (
                big.view(self.dtype.newbyteorder(">"))
                .astype(self.dtype.newbyteorder("="))
                .reshape(rows, width, channels)
            )
        numbers = np.ascontiguousarray(data).view(self.dtype).astype(self.dtype.newbyteorder("="), copy=False)
        numbers = numbers.reshape(rows, width, channels)
        if self.predictor == _HORIZONTAL:
            unsigned = numbers.view(f"u{self.dtype.itemsize}")
            numbers = np.cumsum(unsigned, axis=1, dtype=unsigned.dtype).view(numbers.dtype)
        return numbers


def _layout(tags: Tags) -> _Layout | None:
    """Return how values of more than 8 bits are stored; None if Pillow keeps all of this file's bits, or reads it."""
    bits, samples = set(_numbers(tags.get(_BITS, 1))), int(tags.get(_SAMPLES, 1))
    formats = set(_numbers(tags.get(_FORMAT, 1)))
    colours, compression = tags.get(_PHOTOMETRIC), tags.get(_COMPRESSION, 1)
    if len(bits) != 1 or len(formats) != 1 or colours not in (0, 1, 2) or compression not in _OF_BYTES:
        return None
    depth, number_format = bits.pop(), formats.pop()
    kind = {1: "u", 2: "i", 3: "f"}.get(number_format)
    known = depth in {"u": (*range(9, 17), 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}.get(kind or "", ())
    if not known or kind is None or tags.get(_FILL, 1) != 1 or not 1 <= samples <= 4:
        return None
    order = "<" if tags.prefix == b"II" else ">"
    planes = samples if tags.get(_PLANAR, 1) == 2 else 1
    layout = _Layout(depth, kind, order, samples, planes, int(tags.get(_PREDICTOR, 1)))
    return None if layout.packed and layout.predictor != 1 else layout


def is_tiff(head: bytes) -> bool:
    """Return whether a file begins like a TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+")


def read_pages(stream: IO[bytes]) -> list[Tags]:
    """Return the directories of all pages of a TIFF."""
    stream.seek(0)
    head = stream.read(8)
    if head[2:3] == b"+" or head[3:4] == b"+":
        head += stream.read(8)
    place = Tags(head)
    offset, visited, pages = place.next, set[int](), list[Tags]()
    while offset and offset not in visited and len(pages) < _MAX_PAGES:
        visited.add(offset)
        stream.seek(offset)
        tags = Tags(head)
        try:
            tags.load(stream)
        except Exception:  # a directory is damaged in any way; those before it may be sound
            if not pages:
                raise
            break
        pages.append(tags)
        offset = tags.next
    return pages


def read_deep_tiff(
    stream: IO[bytes], index: int, name: str, path: str | None, max_pixels: int | None, notes: list[str]
) -> Samples | None:
    """Read a page of a TIFF with values of more than 8 bits; None for any other TIFF.

    Args:
        stream: The file.
        index: Number of the page, from 0.
        name: Name of the picture in errors.
        path: Its file.
        max_pixels: As in `read_image`.
        notes: What was done is added.

    Raises:
        ImageError: It is camera raw or too large.
    """
    pages = read_pages(stream)
    if any(_DNG in tags or tags.get(_PHOTOMETRIC) in _RAW_COLOURS for tags in pages):
        raise raw_error(name, path)
    if index >= len(pages) or _layout(pages[index]) is None or not _has_chunks(pages[index]):
        return None
    tags = pages[index]
    check_size((int(tags[_WIDTH]), int(tags[_HEIGHT])), name, path, max_pixels)
    reader = TiffRowReader(stream, tags, path or "", name)
    samples = reader.samples(0, reader.size[1])
    upright = turn(samples.values, int(tags.get(_ORIENTATION, 1)), notes)
    note_number(index, len(pages), "frame", notes)
    return Samples(upright, samples.kind, samples.declared, samples.inverted)


def _declared(tags: Tags, layout: _Layout) -> ValueRange | None:
    """Return the range of values that a file declares: by its bit depth, or by a tag for it."""
    if layout.packed:
        return 0.0, float(2**layout.bits - 1)
    with contextlib.suppress(TypeError, ValueError, KeyError):
        low, high = min(_floats(tags[_S_MIN])), max(_floats(tags[_S_MAX]))
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    if layout.kind == "u" and layout.bits == 16 and _MAX_VALUE in tags:
        largest = max(_numbers(tags[_MAX_VALUE]))
        if largest in (1023, 4095, 16383):  # a bit depth; else it may be the largest value that occurs
            return 0.0, float(largest)
    return None


class TiffRowReader:
    """An open TIFF that returns any of its rows. Not for several threads at once.

    Attributes:
        size: (width, height) of the image.
        path: The file.
        chunk_rows: Rows that are decoded together, however few of them are requested.
    """

    def __init__(self, stream: IO[bytes], tags: Tags, path: str, name: str | None = None) -> None:
        self.size, self.path = (int(tags[_WIDTH]), int(tags[_HEIGHT])), path
        self._name = repr(path) if name is None else name
        self._stream, self._tags = stream, tags
        self._order = "<" if tags.prefix == b"II" else ">"
        self._layout = _layout(tags)
        self._planes = 1 if self._layout is None else self._layout.planes
        self._notes: list[str] = []
        self._range: ValueRange | None = None
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
            bits, samples = _numbers(tags.get(_BITS, 1)), int(tags.get(_SAMPLES, 1))
            depth = sum(bits) if len(bits) == samples else bits[0] * samples
            self._row_bytes = (width * (depth // self._planes) + 7) // 8
            self._strip_rows, self.chunk_rows = self.chunk_rows, 1
        self._check()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on reading, as in `LoadedImage`; complete once all rows were read."""
        return tuple(dict.fromkeys(self._notes))

    def prepare(self, index: int, total: int, value_range: ValueRange | None) -> None:
        """Find out how values of more than 8 bits are scaled, in a first pass over the file, and note which page it is.

        Args:
            index: Number of the page, from 0.
            total: Number of pages.
            value_range: As in `read_image`.
        """
        note_number(index, total, "frame", self._notes)
        if self._layout is None:
            return
        if value_range is not None:
            self._range = value_range
            self._notes.append(given_note(self._whole(0, 1).kind, value_range))
            return
        width, height = self.size
        channels = self._layout.channels - (self._layout.channels in (2, 4))
        statistics, step = Statistics(width * height * channels, self._name, self.path), max(self.chunk_rows, 256)
        for top in range(0, height, step):
            samples = self._whole(top, min(top + step, height))
            statistics.add(samples.colour)
        self._range, note = range_of(statistics, samples, None)
        self._notes += [note] * bool(note)

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Return rows `top` to `bottom` - 1 over the full width, mode "L" or "RGB".

        Raises:
            ImageError: They are damaged or cut short.
        """
        if self._layout is None:
            return flatten(self._checked(self._decode, top, bottom), self._notes)
        return flatten(Image.fromarray(to_bytes(self._whole(top, bottom), self._range)), self._notes)

    def _whole(self, top: int, bottom: int) -> Samples:
        samples: Samples = self._checked(self.samples, top, bottom)
        return samples

    def _checked(self, read: Any, top: int, bottom: int) -> Any:
        """Return what a function reads; every failure becomes an ImageError."""
        try:
            with quiet_pillow():
                return read(top, bottom)
        except MemoryError as error:
            raise ImageError(f"{self.path!r} needs too much memory; save it as TIFF in tiles.", self.path) from error
        except Exception as error:  # as in read_image: a decoder may raise anything on damaged bytes
            raise ImageError(
                f"{self.path!r} is damaged in rows {top} to {bottom - 1}; save it again or leave it out.", self.path
            ) from error

    def _decode(self, top: int, bottom: int) -> Image.Image:
        first, last, start, stop = self._span(top, bottom)
        wrapped = self._wrap(start, stop, self._read_chunks(first, last))
        # Without the path, by which Pillow would map the rows of the file itself into memory.
        image = decode(identify(io.BytesIO(wrapped), self._name, None), self._notes)
        return image.crop((0, top - start, self.size[0], bottom - start))

    def samples(self, top: int, bottom: int) -> Samples:
        """Return rows of a file with values of more than 8 bits, neither scaled nor turned."""
        layout = self._layout
        assert layout is not None
        first, last, start, stop = self._span(top, bottom)
        width = self.size[0]
        chunk_width = int(self._tags[_TILE_WIDTH]) if self._tiled else width
        row_bytes, planes = layout.row_bytes(chunk_width), []
        for plane in range(layout.planes):
            wrapped = self._wrap(start, stop, self._read_chunks(first, last, plane), row_bytes)
            image = identify(io.BytesIO(wrapped), self._name, None)
            image.load()
            data = np.asarray(image).reshape(stop - start, self._tiles_per_row, row_bytes)
            chunks = [layout.values(data[:, number], chunk_width) for number in range(self._tiles_per_row)]
            planes.append(np.concatenate(chunks, axis=1)[top - start : bottom - start, :width])
        values = np.concatenate(planes, axis=2)
        if values.shape[2] == 4 or (values.shape[2] == 2 and _EXTRA in self._tags):
            extra = _numbers(self._tags.get(_EXTRA, 0))[0]
            values = values if extra in (1, 2) else values[..., :-1]  # else it is no opacity
        elif values.shape[2] == 2:
            values = values[..., :1]
        kind = "float" if layout.kind == "f" else f"{layout.bits}-bit"
        return Samples(
            values[..., 0] if values.shape[2] == 1 else values,
            kind,
            _declared(self._tags, layout),
            inverted=self._tags.get(_PHOTOMETRIC) == 0,
        )

    def _span(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Return the first row of chunks and the one after the last, and the rows of pixels that these hold."""
        first, last = top // self.chunk_rows, math.ceil(bottom / self.chunk_rows)
        return first, last, first * self.chunk_rows, min(last * self.chunk_rows, self.size[1])

    def _check(self) -> None:
        """Raise ImageError unless the file is as large as its header says: a header alone may claim any size."""
        height = self.size[1]
        rows = self._strip_rows if self._row_bytes else self.chunk_rows
        self._chunks = math.ceil(height / rows) * self._tiles_per_row  # in each plane
        count = self._chunks * self._planes
        end = self._stream.seek(0, os.SEEK_END)
        cut_short = ImageError(f"{self._name} is cut short; save it again or leave it out.", self.path)
        if len(self._offsets) < count:  # before a length for each of the rows, of which there may be billions
            raise cut_short
        if self._row_bytes:
            lengths = tuple(self._row_bytes * min(rows, height - top) for top in range(0, height, rows)) * self._planes
        else:
            lengths = self._lengths
        ends = (a + b for a, b in zip(self._offsets[:count], lengths[:count], strict=False))
        if len(lengths) < count or any(place > end for place in ends):
            raise cut_short

    def _read_chunks(self, first: int, last: int, plane: int = 0) -> list[bytes]:
        """Return the bytes of rows of chunks; of uncompressed strips only the rows themselves, as one chunk."""
        before = plane * self._chunks
        if not self._row_bytes:
            numbers = range(before + first * self._tiles_per_row, before + last * self._tiles_per_row)
            return [self._read(self._offsets[number], self._lengths[number]) for number in numbers]
        parts = []
        while first < last:
            strip, inside = divmod(first, self._strip_rows)
            count = min(last - first, self._strip_rows - inside)
            start = self._offsets[before + strip] + inside * self._row_bytes
            parts.append(self._read(start, count * self._row_bytes))
            first += count
        return [b"".join(parts)]

    def _read(self, offset: int, length: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(length)
        if len(data) < length:
            raise EOFError("truncated")
        return data

    def _wrap(self, start: int, stop: int, chunks: Sequence[bytes], row_bytes: int | None = None) -> bytes:
        """Return a TIFF of these rows only; with `row_bytes`, the bytes of a row of a chunk, as grey of 8 bits."""
        if row_bytes is None:
            entries = {tag: self._entry(tag) for tag in _COPIED if tag in self._tags}
            width = self.size[0]
        else:
            entries = {_BITS: (_SHORT, (8,)), _PHOTOMETRIC: (_SHORT, (1,)), _SAMPLES: (_SHORT, (1,))}
            entries[_COMPRESSION] = (_SHORT, (int(self._tags.get(_COMPRESSION, 1)),))
            width = row_bytes * self._tiles_per_row
            if self._tiled:
                entries[_TILE_WIDTH], entries[_TILE_HEIGHT] = (_LONG, (row_bytes,)), (_LONG, (self.chunk_rows,))
        entries[_WIDTH], entries[_HEIGHT] = (_LONG, (width,)), (_LONG, (stop - start,))
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
def open_tiff_rows(path: PathLike, *, value_range: ValueRange | None = None) -> Iterator[TiffRowReader | None]:
    """Open a picture file for reading it by rows.

    Args:
        path: The file; `scan.tif#2` is its second page.
        value_range: As in `read_image`.

    Yields:
        None for a file that cannot be read by rows: anything but TIFF, camera raw, TIFF with an orientation, with 8-bit
        colours in separate planes, or with old-style JPEG.

    Raises:
        ImageError: The file cannot be opened, or is a TIFF that is damaged or cut short.
    """
    name = os.fsdecode(path)
    file, number = split_page(path)
    index = 0 if number is None else number - 1
    with open_file(file, repr(name), name) as stream:
        if not is_tiff(read_head(stream, repr(name), name)):
            yield None
            return
        try:
            with quiet_pillow():
                pages = read_pages(stream)
                if not pages or _WIDTH not in pages[0]:
                    raise EOFError("truncated")
                tags = pages[index] if index < len(pages) else None
                reader = None
                if tags is not None and _has_rows(tags) and not any(_DNG in page for page in pages):
                    reader = TiffRowReader(stream, tags, name)
                    reader.prepare(index, len(pages), value_range)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name!r} is damaged or not supported; save it again or leave it out.", name) from error
        yield reader


def _has_chunks(tags: Tags) -> bool:
    return (_TILES in tags or _STRIPS in tags) and _WIDTH in tags and _HEIGHT in tags


def _has_rows(tags: Tags) -> bool:
    compression, colours = tags.get(_COMPRESSION, 1), tags.get(_PHOTOMETRIC)
    return (
        _has_chunks(tags)
        and tags.get(_ORIENTATION, 1) == 1
        and (tags.get(_PLANAR, 1) == 1 or _layout(tags) is not None)
        and compression != _OLD_JPEG
        and (compression, colours) != (_UNCOMPRESSED, _YCBCR)
        and colours not in _RAW_COLOURS
    )


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in value) if isinstance(value, (tuple, list)) else (float(value),)


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
