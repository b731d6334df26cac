"""Reference pictures: normal examples of the object, which a few-shot method compares every picture with.

Files are read one at a time and remembered batch by batch, on the engine's device; what stays in memory is what the
method remembers of them. All have to be read: a reference that is missing would change every score.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from blemish.errors import PictureError, UsageError
from blemish.methods import METHODS, MethodInfo, info
from blemish.pictures import MAX_PIXELS, PictureSource, find_pictures
from blemish.tiles import Tiling, batched, cut

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


def show(
    engine: TorchEngine, references: References, *, max_pixels: int = MAX_PIXELS, tiling: Tiling | None = None
) -> None:
    """Let an engine remember normal pictures; from then on it scores few-shot.

    Args:
        engine: Of a few-shot method; not in use yet.
        references: See `References`.
        max_pixels: As in `blemish.load`.
        tiling: How pictures are cut that are to be scored; references are cut alike, so that what is compared has one
            scale.

    Raises:
        UsageError: The method takes none, there are none, or a path does not exist.
        PictureError: One of them cannot be read.
    """
    check_method(engine.method.info)
    digests: list[bytes] = []

    def pixels() -> Iterator[Tensor]:
        for source in _listed(references):
            digest = hashlib.sha256()
            try:
                for piece in cut(source, tiling, max_pixels=max_pixels):
                    image = piece.image
                    # Of the pixels as they are read: a copy of a file under another name is the same reference.
                    digest.update(f"{image.mode} {image.size}\n".encode() + image.tobytes())
                    yield engine.preprocess(image)
            except PictureError as error:
                raise PictureError(f"a reference picture cannot be used: {error}", error.path) from error
            digests.append(digest.digest())

    memory = engine.remember(torch.cat(batch) for batch in batched(pixels(), BATCH))
    engine.show(memory, len(digests), hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16])


def _listed(references: References) -> Sequence[PictureSource]:
    if isinstance(references, (str, os.PathLike)):
        references = list(find_pictures([references]))
    if len(references) == 0:
        raise UsageError("there are no reference pictures: give at least one, or None to score without")
    return references
