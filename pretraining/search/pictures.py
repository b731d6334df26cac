"""The fixed pictures of the search: real ones, real undamaged ones with painted defects, and drawn ones.

Folders of real pictures are laid out like MVTec AD. A picture here is what is needed to open it, so that a cache of
features can be continued without opening what is done.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from blemish.datasets import read
from pretraining.search.painting import SIZE, middle, paint
from synthesis import make_sample

Source = Literal["real", "painted", "drawn"]
#: Name in sentences and kind of thing, by set. Kinds count alike when training is balanced.
SETS: dict[str, tuple[str, str]] = {
    "coffee_leaf": ("leaf", "plant"),
    "fundus_idrid": ("retina", "medical"),
    "grocery_good": ("object", "plant"),
    "lemon": ("lemon", "plant"),
    "paper_impurities": ("paper", "surface"),
    "soap_bottles_good": ("bottle", "part"),
    "soda_can": ("can", "part"),
    "soybean_leaf": ("leaf", "plant"),
    "trashnet_objects_good": ("object", "part"),
    "weld_seam": ("weld seam", "surface"),
}
#: Sets whose defects lie on an object in the middle, not on a surface that fills the picture.
OBJECTS = frozenset(name for name in SETS if name not in ("paper_impurities", "soybean_leaf", "weld_seam"))
#: Ending of the sets that have no damaged pictures. They are never left out, and defects are made from them.
UNDAMAGED = "_good"
#: Stream of the pictures that are painted and drawn.
SEED = 28
#: Pictures that defects are made from.
OTHERS = 24


@dataclass(frozen=True)
class Picture:
    """What opens a picture."""

    origin: str
    """Its set, or "drawn"."""
    source: Source
    label: int
    """1 = damaged, 0 = normal."""
    number: int = 0
    """Number in its stream, if painted or drawn."""
    path: Path | None = None
    """File of the real picture, also of the one that is painted on."""
    mask: Path | None = None
    """Mask of a real damaged picture; None if nobody drew one."""

    @property
    def name(self) -> str:
        """The thing's name in sentences."""
        return SETS[self.origin][0] if self.origin in SETS else "object"

    @property
    def kind(self) -> str:
        """The kind of thing."""
        return SETS[self.origin][1] if self.origin in SETS else self.origin


@dataclass(frozen=True)
class Numbers:
    """How many pictures there are of what."""

    real: int = 40
    """Normal ones of each set, and damaged ones."""
    painted: int = 16
    """Of each set, normal and damaged in turns."""
    drawn: int = 120


def list_pictures(folder: Path, numbers: Numbers | None = None) -> list[Picture]:
    """Return the fixed pictures of a folder of sets."""
    numbers = numbers or Numbers()
    pictures = []
    for name, samples in _by_set(folder).items():
        draw = random.Random(f"{SEED} {name}")
        for label in (0, 1):
            rows = [sample for sample in samples if sample.label == label]
            for sample in draw.sample(rows, min(numbers.real, len(rows))):
                mask = sample.masks[0] if sample.masks else None
                pictures.append(Picture(name, "real", label, 0, sample.path, mask))
        good = [sample.path for sample in samples if sample.label == 0]
        for number in range(numbers.painted):
            pictures.append(Picture(name, "painted", number % 2, number, draw.choice(good)))
    pictures += [Picture("drawn", "drawn", -1, number) for number in range(numbers.drawn)]
    return pictures


def _by_set(folder: Path) -> dict[str, list]:
    sets: dict[str, list] = {name: [] for name in SETS}
    for sample in read("folder", folder).samples:
        if sample.category in sets:
            sets[sample.category].append(sample)
    return {name: samples for name, samples in sets.items() if samples}


@lru_cache(maxsize=1)
def other_pictures(folder: Path) -> Sequence[np.ndarray]:
    """Return pictures (S, S, 3) uint8 of undamaged sets that defects are made from."""
    paths = sorted(path for name in SETS if name.endswith(UNDAMAGED) for path in (folder / name).glob("test/good/*"))
    return [open_square(path) for path in random.Random(SEED).sample(paths, min(OTHERS, len(paths)))]


def open_square(path: Path) -> np.ndarray:
    """Return a file's picture as (S, S, 3) uint8 RGB."""
    return np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def open_picture(picture: Picture, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a picture (H, W, 3) uint8 and the mask (H, W) bool of its defects, None if nobody drew one."""
    if picture.source == "drawn":
        image, mask, _ = make_sample(SEED, picture.number, size=SIZE)
        return image, mask
    assert picture.path is not None
    if picture.source == "painted":
        image = open_square(picture.path)
        rng = np.random.default_rng([SEED, list(SETS).index(picture.origin), picture.number])
        foreground = middle(SIZE) if picture.origin in OBJECTS else np.ones((SIZE, SIZE), bool)
        return paint(rng, image, foreground, other_pictures(folder), damaged=bool(picture.label))
    image = np.asarray(Image.open(picture.path).convert("RGB"))
    if not picture.label:
        return image, np.zeros(image.shape[:2], bool)
    if picture.mask is None:
        return image, None
    drawn = np.asarray(Image.open(picture.mask).convert("L")) > 0
    return image, cv2.resize(drawn.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
