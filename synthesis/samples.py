"""Photographs of scenes, with and without defects. Each depends on a seed and a number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from synthesis.camera import camera
from synthesis.defects import add_defects
from synthesis.defects.distractors import add_distractors
from synthesis.scenes import Photos, Rng, Scene, make_scene

#: Side of the pictures that the built-in model is trained with, in pixels.
SIZE = 384
#: Kind of a defect that the camera moved out of the picture: neither normal nor defective.
LOST = "lost"
#: Part of the pictures of `make_sample` that are meant to be defective.
DEFECTIVE = 0.62
#: Number of pixels below which a defect counts as moved out of the picture.
MIN_PIXELS = 6


class Caption(NamedTuple):
    """Words for a picture: its object, material, kind of defect ("" if normal, or `LOST`) and the defect's place."""

    name: str
    material: str
    kind: str
    place: str


class Sample(NamedTuple):
    """A picture (size, size, 3) uint8, the mask of its defects (size, size) bool, and its words."""

    image: np.ndarray
    mask: np.ndarray
    caption: Caption


def make_sample(seed: int, index: int, photos: Photos = (), size: int = SIZE) -> Sample:
    """Draw picture `index` of stream `seed`, defective or not."""
    rng = np.random.default_rng([seed, index])
    return photograph(rng, make_scene(rng, size, photos), DEFECTIVE, photos)


def make_product(seed: int, index: int, photos: Photos = (), size: int = SIZE, count: int = 2) -> list[Sample]:
    """Draw scene `index` of stream `seed` and photograph it `count` times: normal and defective in turns."""
    rng = np.random.default_rng([seed, index, 2])
    scene = make_scene(rng, size, photos)
    return [photograph(rng, scene, number % 2, photos) for number in range(count)]


def photograph(rng: Rng, scene: Scene, defective: float, photos: Sequence[np.ndarray]) -> Sample:
    """Photograph a scene, with a defect at probability `defective`."""
    size = len(scene.image)
    if rng.random() < 0.3:
        scene = replace(scene, image=add_distractors(rng, scene))
    image, mask, kind = scene.image, np.zeros((size, size), bool), ""
    if rng.random() < defective:
        defect = add_defects(rng, scene, photos)
        if defect is not None:
            image, mask, kind = defect.image, defect.mask, defect.kind
    image, mask = camera(rng, image, mask)
    if kind and mask.sum() < MIN_PIXELS:
        mask, kind = np.zeros_like(mask), LOST
    return Sample(image, mask, Caption(scene.name, scene.material, kind, place_of(mask) if mask.any() else ""))


def place_of(mask: np.ndarray) -> str:
    """Return words for the place of a mask that is not empty ("in the top left")."""
    y, x = np.nonzero(mask)
    return place_at(x.mean() / mask.shape[1], y.mean() / mask.shape[0])


def place_at(x: float, y: float) -> str:
    """Return words for the place of a point, given as fractions of the width and the height."""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"in the {row} {column}".strip().replace("  ", " ") if row or column else "in the middle"
