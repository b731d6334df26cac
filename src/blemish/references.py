"""Reference pictures: normal examples of the object, which a few-shot method compares every picture with.

Files are read one at a time and remembered batch by batch, on the engine's device; what stays in memory is what the
method remembers of them. All have to be read: a reference that is missing would change every score.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from blemish.errors import PictureError, UsageError
from blemish.methods import METHODS, MethodInfo, info
from blemish.pictures import MAX_PIXELS, Picture, PictureSource, find_pictures, read_picture

if TYPE_CHECKING:
    from blemish.engine import TorchEngine

References: TypeAlias = str | os.PathLike[str] | Sequence[PictureSource]
"""Pictures as `read_picture` takes them, at least one; or one path: a file, a folder, a pattern."""

#: References that go through the backbone together.
BATCH = 8


def check_method(method: MethodInfo) -> None:
    """Raise a UsageError unless the method can be shown references."""
    if not method.few_shot:
        able = [name for name in METHODS if info(name).few_shot]
        raise UsageError(f"{method.name} takes no reference pictures; the methods that do are {', '.join(able)}")


def show(engine: TorchEngine, references: References, *, max_pixels: int = MAX_PIXELS) -> None:
    """Let an engine remember normal pictures; from then on it scores few-shot.

    Args:
        engine: Of a few-shot method; not in use yet.
        references: See `References`.
        max_pixels: A larger picture is refused.

    Raises:
        UsageError: The method takes none, there are none, or a path does not exist.
        PictureError: One of them cannot be read.
    """
    check_method(engine.method.info)
    digests: list[bytes] = []

    def pixels() -> Iterator[Tensor]:
        for picture in _read(references, max_pixels):
            digests.append(_digest(picture))
            yield engine.preprocess(picture.image)

    memory = engine.remember(batches(pixels(), BATCH))
    engine.show(memory, len(digests), hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16])


def batches(pixels: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """(1, 3, S, S) after (1, 3, S, S) to (B, 3, S, S), with B = `size` but for the last."""
    batch: list[Tensor] = []
    for one in pixels:
        batch.append(one)
        if len(batch) == size:
            yield torch.cat(batch)
            batch = []
    if batch:
        yield torch.cat(batch)


def _read(references: References, max_pixels: int) -> Iterator[Picture]:
    if isinstance(references, (str, os.PathLike)):
        references = list(find_pictures([references]))
    if len(references) == 0:
        raise UsageError("there are no reference pictures: give at least one, or None to score without")
    for source in references:
        try:
            yield read_picture(source, max_pixels=max_pixels)
        except PictureError as error:
            raise PictureError(f"a reference picture cannot be used: {error}", error.path) from error


def _digest(picture: Picture) -> bytes:
    """Of the pixels as they are read, so that a copy of a file under another name is the same reference."""
    image = picture.image
    return hashlib.sha256(f"{image.mode} {image.size}\n".encode() + image.tobytes()).digest()
