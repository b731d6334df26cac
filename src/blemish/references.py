"""Reference pictures: normal examples of the object, which a few-shot method compares every picture with.

Files are read one at a time and remembered batch by batch, on the engine's device; what stays in memory is what the
method remembers of them. All have to be read: a reference that is missing would change every score.

A mutual method (`musc`) is shown unlabelled pictures instead. Where none are named, some of those that are to be scored
take their place (`meet`); what cannot be read among these is left out, since it is reported when its turn comes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from blemish.errors import ImageError, UsageError
from blemish.image_io import MAX_PIXELS, ImageSource, find_images
from blemish.methods import METHODS, MethodInfo, info
from blemish.methods.base import View
from blemish.tiles import Tiling, batched, cut

if TYPE_CHECKING:
    from blemish.engine import TorchEngine

References: TypeAlias = str | os.PathLike[str] | Sequence[ImageSource]
"""Pictures as `read_image` takes them, at least one; or one path: a file, a folder, a pattern."""

#: References that go through the backbone together.
BATCH = 8
#: Of a set that is to be scored, at most so many pictures are remembered: looked at in one way, and in several.
#: Time and memory grow with them.
PEERS, VIEWED_PEERS = 32, 16
#: Of so many it is found out in which ways they are looked at.
ASKED = 4


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
        ImageError: One of them cannot be read.
    """
    check_method(engine.method.info)
    _show(engine, _listed(references), max_pixels, tiling, lenient=False)


def meet(engine: TorchEngine, pictures: Sequence[ImageSource], *, max_pixels: int = MAX_PIXELS) -> int:
    """Let the engine of a mutual method remember pictures of the set that it is going to score.

    Args:
        engine: Not in use yet.
        pictures: The set. Of more than `PEERS` (or `VIEWED_PEERS`) as many are drawn, the same ones every time.
        max_pixels: See `show`.

    Returns:
        How many are remembered: those that can be read, and none of a single picture, which has nothing to be compared
        with.

    Raises:
        UsageError: The method compares no pictures.
    """
    check_method(engine.method.info)
    engine.forget()
    # In an order of chance, since the first of them may be enough, and a folder's first ones are of one kind.
    pictures = random.Random(0).sample(pictures, min(len(pictures), PEERS))
    return _show(engine, pictures, max_pixels, None, lenient=True) if len(pictures) > 1 else 0


def _show(
    engine: TorchEngine, references: Sequence[ImageSource], max_pixels: int, tiling: Tiling | None, *, lenient: bool
) -> int:
    digests: list[bytes] = []
    most = len(references)

    def pixels() -> Iterator[Tensor]:
        for source in references:
            if len(digests) >= most:
                return
            digest = hashlib.sha256()
            try:
                for piece in cut(source, tiling, max_pixels=max_pixels):
                    image = piece.image
                    # Of the pixels as they are read: a copy of a file under another name is the same reference.
                    digest.update(f"{image.mode} {image.size}\n".encode() + image.tobytes())
                    yield engine.preprocess(image)
            except ImageError as error:
                if lenient:
                    continue
                raise ImageError(f"a reference picture cannot be used: {error}", error.path) from error
            digests.append(digest.digest())

    batches: Iterator[Tensor] = (torch.cat(batch) for batch in batched(pixels(), BATCH))
    first = next(batches, None)
    if first is None:  # none can be read
        return 0
    # Many that are named show their things in many ways already, and several views of each would be too much.
    views = engine.views(first[:ASKED]) if lenient or len(references) <= PEERS else (View(),)
    if lenient and len(views) > 1:
        most = VIEWED_PEERS
    memory = engine.build_memory_bank(itertools.chain([first], batches), views)
    engine.show(memory, len(digests), hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16])
    return len(digests)


def _listed(references: References) -> Sequence[ImageSource]:
    if isinstance(references, (str, os.PathLike)):
        references = list(find_images([references]))
    if len(references) == 0:
        raise UsageError("there are no reference pictures: give at least one, or None to score without")
    return references
