"""Memory banks from pictures: normal references for few-shot methods, unlabelled ones for transductive methods.

Files are read a few at a time and encoded batch by batch; only the memory bank stays in memory. All named references
have to be readable, since a missing one would change every score.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch
from torch import Tensor

from blemish.concurrency import prefetch
from blemish.errors import ImageError, UsageError
from blemish.image_io import MAX_PIXELS, LoadedImage, find_images
from blemish.methods import METHODS, MethodInfo, info
from blemish.methods.base import MemoryBank, TransductiveMethod
from blemish.tiling import Tiling, batched, cut
from blemish.types import ImageSource, ValueRange

if TYPE_CHECKING:
    from PIL import Image

    from blemish.engine import TorchEngine

T = TypeVar("T")

References: TypeAlias = str | os.PathLike[str] | Sequence[ImageSource]
"""Pictures as `read_image` takes them, at least one; or one path: a file, a folder or a pattern."""

#: References that go through the backbone together.
BATCH = 8
#: References that are read ahead. Each may have dozens of copies, so they are few.
_PREFETCHED = 2


@dataclass(frozen=True)
class ReadPicture:
    """A picture that was read, cut and prepared: a reference, or one that is compared with references."""

    name: str
    """Its file, or "picture 3"."""
    fingerprint: str
    """Hash of its pixels, 16 hex digits: a copy of the file under another name has the same."""
    size: tuple[int, int]
    """(width, height) in pixels."""
    indices: list[tuple[int, int]]
    """(row, column) of each tile."""
    pixels: list[Tensor]
    """Prepared pixels of each tile, (1, 3, H, W)."""
    copies: list[Tensor]
    """Prepared pixels of what goes into a memory bank: each tile, or what the method makes of it."""


def require_reference_method(method: MethodInfo) -> None:
    """Raise a UsageError unless the method takes references."""
    if not method.takes_references:
        names = [name for name in METHODS if info(name).takes_references]
        raise UsageError(f"{method.name} takes no reference pictures; the methods that do are {', '.join(names)}")


def build_memory_bank(
    engine: TorchEngine,
    references: References,
    *,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    tiling: Tiling | None = None,
) -> MemoryBank:
    """Return the memory bank of named references.

    Args:
        engine: Runs a few-shot or transductive method.
        references: See `References`.
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`.
        tiling: How scored pictures are cut; references are cut alike, so that both have one scale.

    Raises:
        UsageError: The method takes no references, there are none, or a path does not exist.
        ImageError: A reference cannot be read.
    """
    require_reference_method(engine.method.info)
    references = list_references(references)
    if len(references) == 0:
        raise UsageError("there are no reference pictures: give at least one, or None to score without")

    def fail(error: ImageError) -> None:
        raise ImageError(f"a reference picture cannot be used: {error}", error.path) from error

    pictures = read_pictures(
        engine, references, max_pixels=max_pixels, value_range=value_range, tiling=tiling, on_error=fail
    )
    bank = _bank(engine, pictures, len(references))
    assert bank is not None  # there is a reference, and an unreadable one has raised
    return bank


def sample_memory_bank(
    engine: TorchEngine,
    images: Sequence[ImageSource],
    *,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> MemoryBank | None:
    """Return the memory bank of a transductive method for the set that it is going to score.

    Args:
        engine: Runs a transductive method.
        images: The set. From a large one the method's `sample_size` are drawn, always the same ones.
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`.

    Returns:
        The memory bank of the sampled images that can be read; None if none can, or if the set has fewer than two,
        since there is nothing to compare with. Unreadable images are skipped here and reported when they are scored.

    Raises:
        UsageError: The method is not transductive.
    """
    method = engine.method
    if not isinstance(method, TransductiveMethod):
        raise UsageError(
            f"{method.info.name} does not compare the pictures of a set; load it with references, or without"
        )
    # In random order, since the method may need only the first ones, and those of a folder are often of one kind.
    sample = random.Random(0).sample(images, method.sample_size(len(images)))
    if len(sample) < 2:
        return None
    pictures = read_pictures(
        engine, sample, max_pixels=max_pixels, value_range=value_range, on_error=lambda error: None
    )
    return _bank(engine, pictures, len(sample), sampled=True)


def _bank(
    engine: TorchEngine, pictures: Generator[ReadPicture, None, None], count: int, *, sampled: bool = False
) -> MemoryBank | None:
    """Return the memory bank of the pictures that the method asks for; None without any."""
    fingerprints: list[str] = []

    def copies() -> Iterator[Tensor]:
        for picture in pictures:
            fingerprints.append(picture.fingerprint)  # at once, since the method may stop after any picture
            yield from picture.copies

    with contextlib.closing(pictures):
        batches = copy_batches(copies())
        first = next(batches, None)
        if first is None:
            return None
        bank = engine.build_memory_bank(itertools.chain([first], batches), num_images=count, sampled=sampled)
    return replace(bank, references=len(fingerprints), fingerprint=set_fingerprint(fingerprints))


def list_references(references: References) -> list[ImageSource]:
    """Return the pictures, those of a folder or a pattern one by one. Raises UsageError for a path that is missing."""
    if isinstance(references, (str, os.PathLike)):
        return list(find_images([references]))
    return list(references)


def read_pictures(
    engine: TorchEngine,
    sources: Sequence[ImageSource],
    *,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    tiling: Tiling | None = None,
    names: Sequence[str] | None = None,
    copies: bool = True,
    on_error: Callable[[ImageError], object],
) -> Generator[ReadPicture, None, None]:
    """Yield pictures as they are read, in order, by threads that read ahead.

    Args:
        engine: Prepares them.
        sources: The pictures.
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`.
        tiling: How they are cut.
        names: Their names; None for `picture_names`.
        copies: Make what goes into a memory bank, too.
        on_error: Called for a picture that cannot be read, which is left out unless it raises.
    """

    def prepare(item: tuple[int, tuple[ImageSource, str]]) -> Generator[ReadPicture, None, None]:
        number, (source, name) = item
        fingerprint = Fingerprint()
        indices: list[tuple[int, int]] = []
        pixels: list[Tensor] = []
        own: list[Tensor] = []
        size = (0, 0)
        for tile in cut(source, tiling, max_pixels=max_pixels, value_range=value_range):
            image, size = tile.image, tile.merger.size
            fingerprint.add(image)
            indices.append(tile.index)
            pixels.append(engine.preprocess(image))
            for copy in engine.reference_copies(image, number, len(sources)) if copies else ():
                own.append(pixels[-1] if copy is image else engine.preprocess(copy))
        yield ReadPicture(name, fingerprint.text, size, indices, pixels, own)

    named = zip(sources, picture_names(sources) if names is None else names, strict=True)
    with contextlib.closing(prefetch(enumerate(named), prepare, _PREFETCHED)) as pictures:
        for picture in pictures:
            if isinstance(picture, ImageError):
                on_error(picture)
            elif isinstance(picture, BaseException):
                raise picture
            else:
                yield picture


def picture_names(sources: Sequence[ImageSource]) -> list[str]:
    """Return the file of each picture; "picture 3" for one from memory."""

    def name(number: int, source: ImageSource) -> str:
        if isinstance(source, (str, os.PathLike)):
            return os.fsdecode(source)
        return getattr(source, "path", None) or f"picture {number}"

    return [name(number, source) for number, source in enumerate(sources, 1)]


def copy_batches(copies: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield prepared pixels (B, 3, H, W) of images (1, 3, H, W), in order; a batch ends where the shape changes."""
    return (torch.cat(batch) for batch in alike_batches(copies, lambda pixels: pixels))


def alike_batches(items: Iterable[T], pixels_of: Callable[[T], Tensor]) -> Iterator[list[T]]:
    """Yield batches of items in order; a batch ends where the shape of the pixels changes."""
    for _, alike in itertools.groupby(items, key=lambda item: pixels_of(item).shape):
        yield from batched(alike, BATCH)


class Fingerprint:
    """The fingerprint of a picture. It is that of the pixels: a copy of the file under another name has the same."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, tile: Image.Image) -> None:
        """Add the next tile of the picture."""
        self._digest.update(f"{tile.mode} {tile.size}\n".encode())
        self._digest.update(tile.tobytes())

    @property
    def text(self) -> str:
        """16 hex digits over the tiles so far."""
        return self._digest.hexdigest()[:16]


def picture_fingerprint(picture: LoadedImage, tiling: Tiling | None = None) -> str:
    """Return the fingerprint that a profile with this tiling has of a picture: see `ReadPicture.fingerprint`."""
    fingerprint = Fingerprint()
    for tile in cut(picture, tiling, max_pixels=math.prod(picture.size)):
        fingerprint.add(tile.image)
    return fingerprint.text


def set_fingerprint(fingerprints: Iterable[str]) -> str:
    """Return 16 hex digits over the pictures of a set, whatever their order."""
    return hashlib.sha256("".join(sorted(fingerprints)).encode()).hexdigest()[:16]
