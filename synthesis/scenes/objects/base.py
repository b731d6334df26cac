"""Helpers for rendered things: a species and its instances, and the shading of a picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, normalise, plain, relight, smooth
from synthesis.scenes.drawing import Color
from synthesis.scenes.surfaces.textures import any_texture

Draw = Callable[[Rng, int], Sprite]


class Species:
    """A kind of object: `draw(rng, side)` returns colour and alpha of an instance."""

    def __init__(self, draw: Draw, name: str, material: str, turns: bool = True) -> None:
        self.draw, self.name, self.material, self.turns = draw, name, material, turns


def dome(alpha: np.ndarray, roundness: float, light: float, strength: float, gloss: float = 0.0) -> np.ndarray:
    """Return the brightness factor of a rounded body: Lambert shading plus a soft highlight."""
    side = alpha.shape[0]
    reach = max(1.5, roundness * side / 2)
    d = np.minimum(cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(reach), 1)
    height = cv2.GaussianBlur(np.sqrt(d * (2 - d)), (0, 0), max(0.8, side * 0.012)) * np.float32(reach)
    gx, gy = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    facing = (gx * math.cos(light) + gy * math.sin(light)) / np.sqrt(1 + gx * gx + gy * gy)
    factor = 1 + np.float32(strength) * (facing - 0.25 * np.hypot(gx, gy))
    if gloss > 0:
        factor += np.float32(gloss) * np.clip((facing - 0.3) * 1.6, 0, 1) ** 3
    return np.clip(factor, 0.1, 2.4).astype(np.float32)


def body_colour(rng: Rng, side: int, color: Color, amount: float, period: float = 0.15) -> np.ndarray:
    """Return a colour field with slight natural variation."""
    image = plain(side, color)
    return relight(image, (1 + amount * smooth(rng, side, max(2.0, side * period))).astype(np.float32))


class Look:
    """Shading shared by all instances of a picture."""

    def __init__(self, rng: Rng, photos: Photos = ()) -> None:
        self.skin: np.ndarray | None = None
        if chance(rng, 0.22):
            # For things of a textured material: the texture modulates their colour.
            texture = cv2.cvtColor(any_texture(rng, 224, photos)[0], cv2.COLOR_RGB2GRAY).astype(np.float32)
            self.skin = normalise(texture, loguni(rng, 0.03, 0.2)) + 0.5
        self.light = rng.uniform(0, 2 * math.pi)
        self.round = loguni(rng, 0.08, 1.0)
        self.strength = loguni(rng, 0.06, 0.8)
        self.gloss = rng.uniform(0.2, 1.0) if chance(rng, 0.5) else 0.0
        self.mottle = loguni(rng, 0.005, 0.12)

    def shade(self, image: np.ndarray, alpha: np.ndarray) -> Sprite:
        factor = dome(alpha, self.round, self.light, self.strength, self.gloss)
        side = alpha.shape[0]
        if self.skin is not None and side <= 224:
            factor = factor * self.skin[-side:, :side]
        return relight(image, factor), alpha
