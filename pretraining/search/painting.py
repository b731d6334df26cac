"""Defects painted on real undamaged pictures, and harmless edits that normal and damaged pictures get alike.

What is painted are the kinds of `synthesis` (cracks, stains, missing parts, blur, local deformation and others), and
the recipes of published methods: moved pieces (CutPaste), other pictures through a mask of noise (DRAEM), pieces
blended in by Poisson's equation (NSA). Without the harmless edits a head would learn that blur is damage.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pretraining.validation.out_of_distribution import add_defect
from synthesis.camera import camera
from synthesis.defects import add_defects
from synthesis.defects.distractors import add_distractors
from synthesis.scenes.base import Rng, Scene, smooth

#: Side of painted pictures in pixels.
SIZE = 384
#: Part of the damaged pictures whose defect is one of the published methods' recipes.
PUBLISHED = 0.4
#: Part of the pictures, normal or damaged, that are edited without harm.
EDITED = 0.6
#: Attempts at a visible defect.
ATTEMPTS = 6
#: Minimum pixels of a defect after the camera.
MIN_PIXELS = 20


def harmless(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Edit a whole picture (S, S, 3) uint8 as defects edit a part: blur, colour, contrast, grain or deformation."""
    values = image.astype(np.float32)
    make = int(rng.integers(5))
    if make == 0:
        values = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.6, 2.5)))
    elif make == 1:
        values = values * rng.uniform(0.7, 1.25, 3).astype(np.float32) + np.float32(rng.uniform(-25, 25))
    elif make == 2:
        mean = values.mean((0, 1))
        values = (values - mean) * np.float32(rng.uniform(0.5, 1.5)) + mean
    elif make == 3:
        values = values + rng.standard_normal(image.shape[:2]).astype(np.float32)[..., None] * rng.uniform(4, 14)
    else:
        size = len(image)
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        reach = np.float32(rng.uniform(0.01, 0.03) * size)
        x, y = columns + reach * smooth(rng, size, size / 2), rows + reach * smooth(rng, size, size / 2)
        values = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    result: np.ndarray = values.clip(0, 255).astype(np.uint8)
    return result


def middle(size: int) -> np.ndarray:
    """Return an ellipse (S, S) bool in the middle of a picture, where a photographed object is."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) - 0.5
    inside: np.ndarray = np.hypot(rows / 0.38, columns / 0.3) < 1
    return inside


def paint(
    rng: Rng, image: np.ndarray, foreground: np.ndarray, others: Sequence[np.ndarray], *, damaged: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a real picture again, damaged or not.

    Args:
        rng: Source of all draws.
        image: Undamaged picture (S, S, 3) uint8.
        foreground: Where defects may lie, (S, S) bool.
        others: Pictures (S, S, 3) uint8 that defects are made from.
        damaged: Whether a defect is painted.

    Returns:
        The picture and the mask of its defect (S, S) bool, empty if it is normal or no attempt was visible.
    """
    scene = Scene(image, foreground, "object", "")
    if rng.random() < EDITED:
        edited = harmless(rng, image) if rng.random() < 0.6 else add_distractors(rng, scene)
        scene = Scene(edited, foreground, "object", "")
    result, mask = scene.image, np.zeros(foreground.shape, bool)
    for _ in range(ATTEMPTS if damaged else 0):
        if rng.random() < PUBLISHED:
            painted = add_defect(rng, scene.image, foreground, others)
        else:
            defect = add_defects(rng, scene, others)
            painted = None if defect is None else (defect.image, defect.mask)
        if painted is not None:
            result, mask = painted
            break
    result, mask = camera(rng, result, mask)
    return result, mask if mask.sum() >= MIN_PIXELS else np.zeros_like(mask)
