"""Memory banks from pictures: normal references for few-shot methods, unlabelled ones for transductive methods.

Files are read one at a time and encoded batch by batch; only the memory bank stays in memory. All named references have
to be readable, since a missing one would change every score.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch
from torch import Tensor

from blemish.errors import ImageError, UsageError
from blemish.image_io import MAX_PIXELS, find_images
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
    reader = _Reader(engine, references, max_pixels, value_range, tiling)
    bank = engine.build_memory_bank(reader.batches(), num_images=len(references))
    return replace(bank, references=len(reader.digests), fingerprint=reader.fingerprint)


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
    reader = _Reader(engine, sample, max_pixels, value_range, None, skip_unreadable=True)
    batches = reader.batches()
    first = next(batches, None)
    if first is None:
        return None
    bank = engine.build_memory_bank(itertools.chain([first], batches), num_images=len(sample), sampled=True)
    return replace(bank, references=len(reader.digests), fingerprint=reader.fingerprint)


def list_references(references: References) -> list[ImageSource]:
    """Return the pictures, those of a folder or a pattern one by one. Raises UsageError for a path that is missing."""
    if isinstance(references, (str, os.PathLike)):
        return list(find_images([references]))
    return list(references)


def alike_batches(items: Iterable[T], pixels_of: Callable[[T], Tensor]) -> Iterator[list[T]]:
    """Yield batches of items in order; a batch ends where the shape of the pixels changes."""
    for _, alike in itertools.groupby(items, key=lambda item: pixels_of(item).shape):
        yield from batched(alike, BATCH)


def hash_pixels(digest: hashlib._Hash, image: Image.Image) -> None:
    """Add an image to a fingerprint. It is that of the pixels: a copy of the file under another name has the same."""
    digest.update(f"{image.mode} {image.size}\n".encode() + image.tobytes())


class _Reader:
    """Reads, prepares and fingerprints references."""

    def __init__(
        self,
        engine: TorchEngine,
        references: Sequence[ImageSource],
        max_pixels: int,
        value_range: ValueRange | None,
        tiling: Tiling | None,
        *,
        skip_unreadable: bool = False,
    ) -> None:
        self.digests: list[hashlib._Hash] = []
        self._engine, self._references = engine, references
        self._max_pixels, self._value_range, self._tiling = max_pixels, value_range, tiling
        self._skip_unreadable = skip_unreadable

    def batches(self) -> Iterator[Tensor]:
        """Yield prepared pixels (B, 3, H, W), in order; a batch ends where the shape changes."""
        return (torch.cat(batch) for batch in alike_batches(self._prepared(), lambda pixels: pixels))

    @property
    def fingerprint(self) -> str:
        """Hash of the pixels that were read, whatever their order and their files' names."""
        return hashlib.sha256(b"".join(sorted(digest.digest() for digest in self.digests))).hexdigest()[:16]

    def _prepared(self) -> Iterator[Tensor]:
        for number, source in enumerate(self._references):
            digest = hashlib.sha256()
            self.digests.append(digest)  # at once, since the consumer may stop after any image
            try:
                tiles = cut(source, self._tiling, max_pixels=self._max_pixels, value_range=self._value_range)
                for tile in tiles:
                    image = tile.image
                    hash_pixels(digest, image)
                    for copy in self._engine.reference_copies(image, number, len(self._references)):
                        yield self._engine.preprocess(copy)
            except ImageError as error:
                if self._skip_unreadable:
                    self.digests.pop()
                    continue
                raise ImageError(f"a reference picture cannot be used: {error}", error.path) from error
