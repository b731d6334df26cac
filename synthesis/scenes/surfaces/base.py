"""Helpers for surfaces: tones, uneven light, sheen, reliefs, streaks, slight defocus and grain."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Rng, chance, loguni, normalise, smooth, white

#: Colours of such surfaces, as fractions of full light; rarely vivid.
_TONES = {
    "metal": ((1.0, 0.99, 0.97), (0.96, 0.99, 1.0), (1.0, 0.95, 0.88)),
    "brown": ((1.0, 0.8, 0.58), (1.0, 0.72, 0.5), (1.0, 0.87, 0.7), (0.95, 0.62, 0.42)),
    "pale": ((1.0, 0.97, 0.9), (1.0, 1.0, 0.97), (0.97, 0.94, 0.86)),
    "blue": ((0.45, 0.6, 1.0), (0.3, 0.42, 0.72), (0.65, 0.8, 1.0)),
    "paint": (
        (1.0, 0.3, 0.25),
        (0.3, 0.6, 0.4),
        (0.98, 0.8, 0.25),
        (0.3, 0.45, 0.8),
        (0.85, 0.88, 0.9),
        (1.0, 0.6, 0.3),
    ),
}


def tone(rng: Rng, low: float, high: float, *families: str) -> np.ndarray:
    """Draw a colour of the given brightness: grey in half of the pictures, else from a family of colours."""
    level = rng.uniform(low, high)
    if chance(rng, 0.5) or not families:
        return np.full(3, level)
    table = _TONES[families[int(rng.integers(len(families)))]]
    return np.clip(level * np.array(table[int(rng.integers(len(table)))]) * rng.normal(1, 0.03, 3), 3, 252)


def axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y from -1 to 1, to be broadcast."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return axis[None, :], axis[:, None]


def light(rng: Rng, size: int, max_amount: float = 0.35) -> np.ndarray:
    """Return uneven light around 1: a slope, a vignette or lamp, and faint broad clouds."""
    x, y = axes(size)
    turn = rng.uniform(0, 2 * math.pi)
    field = 1 + loguni(rng, 0.02, max_amount) * (math.cos(turn) * x + math.sin(turn) * y)
    if chance(rng, 0.5):
        cx, cy = rng.normal(0, 0.35, 2)
        field = field + loguni(rng, 0.03, max_amount) * (0.5 - ((x - cx) ** 2 + (y - cy) ** 2) / 2)
    if chance(rng, 0.6):
        field = field + loguni(rng, 0.01, 0.08) * smooth(rng, size, size * rng.uniform(0.2, 0.7))
    return np.maximum(field, 0.25).astype(np.float32)


def develop(rng: Rng, shade: np.ndarray, colour: np.ndarray, lit: float = 0.35) -> np.ndarray:
    """Photograph a surface: reflectance around 1 times colour, in uneven light, slightly soft and noisy."""
    shade = np.maximum(shade * light(rng, shade.shape[0], lit), 0).astype(np.float32)
    return finish(rng, cv2.merge([cv2.convertScaleAbs(shade, alpha=float(c)) for c in colour]))


def finish(rng: Rng, image: np.ndarray) -> np.ndarray:
    if chance(rng, 0.45):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    noise = white(rng, image.shape[0]) * np.float32(loguni(rng, 0.4, 6))
    return cv2.add(image, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)


def emboss(height: np.ndarray, turn: float, depth: float) -> np.ndarray:
    """Return the shading of a relief under light from direction `turn`."""
    across, down = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return normalise(math.cos(turn) * across + math.sin(turn) * down, depth) - 0.5


def profile(rng: Rng, count: int, sigma: float) -> np.ndarray:
    """Return smooth noise of unit variance on a line."""
    line = rng.standard_normal((1, count)).astype(np.float32)
    if sigma > 0.3:
        line = cv2.GaussianBlur(line, (0, 0), sigma)
    return (line / (line.std() + 1e-6)).ravel()


def streaks(rng: Rng, size: int) -> np.ndarray:
    """Return streaks of unit variance down the picture: fine, broad, some fading along their length."""
    fine = profile(rng, size, loguni(rng, 0.3, 1.5))[None, :]
    broad = profile(rng, size, loguni(rng, 3, size / 8))[None, :]
    passing = smooth(rng, size, loguni(rng, 1, 5), loguni(rng, 15, 80), math.pi / 2)
    return rng.uniform(0, 0.6) * fine + rng.uniform(0, 0.7) * broad + rng.uniform(0.3, 1) * passing


def upright(rng: Rng, shade: np.ndarray) -> np.ndarray:
    """Transpose the drawing at probability one half."""
    return np.ascontiguousarray(shade.T) if chance(rng, 0.4) else shade


def sheen(rng: Rng, size: int) -> np.ndarray:
    """Return one or two broad bands of mirrored light, around 0."""
    x, y = axes(size)
    turn, total = rng.uniform(0, math.pi), np.zeros((size, size), np.float32)
    along = (math.cos(turn) * x + math.sin(turn) * y).astype(np.float32)
    for _ in range(int(rng.integers(1, 3))):
        where = np.minimum(np.abs(along - rng.uniform(-1, 1)) / np.float32(rng.uniform(0.15, 0.6)), 4)
        total += np.exp(-where * where)
    return total
