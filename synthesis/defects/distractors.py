"""Marks of normal pictures: everywhere or in a regular order.

Without them a model learns that dust, strokes or text are defects as such, instead of what breaks the picture's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from synthesis.defects.canvas import blend, shade
from synthesis.defects.shapes import Rng, chance, fractal, grid, log_uniform, noise, sign, soften

if TYPE_CHECKING:
    from synthesis.scenes.base import Scene


def add_distractors(rng: Rng, scene: Scene) -> np.ndarray:
    """Return the scene's picture with one kind of marks."""
    make = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
    image = make(rng, scene.image)
    if chance(rng, 0.5) and not scene.foreground.all():  # on the objects only
        return np.where(scene.foreground[..., None], image, scene.image)
    return image


def _tone(rng: Rng, image: np.ndarray) -> np.ndarray:
    mean = np.array(cv2.mean(image)[:3])
    return np.clip(mean + sign(rng) * log_uniform(rng, 15, 140) + rng.normal(0, 10, 3), 0, 255).astype(np.float32)


def _even_dust(rng: Rng, image: np.ndarray) -> np.ndarray:
    size = image.shape[0]
    drawn = np.zeros((size, size), np.uint8)
    speck = log_uniform(rng, 0.5, 3)
    for x, y, part in rng.uniform(0, 1, (int(log_uniform(rng, 40, 300)), 3)):
        cv2.circle(
            drawn, (int(x * size * 8), int(y * size * 8)), int(speck * (0.5 + part) * 8), 255, -1, cv2.LINE_AA, 3
        )
    return blend(image, _tone(rng, image), soften(drawn.astype(np.float32) / 255, 0.4) * rng.uniform(0.4, 1))


def _even_strokes(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Draw scratches or fibres everywhere, along one direction or all."""
    size = image.shape[0]
    drawn = np.zeros((size, size), np.uint8)
    turn, spread = rng.uniform(0, np.pi), 0.05 if chance(rng, 0.6) else 3.0
    count, length = int(log_uniform(rng, 30, 200)), log_uniform(rng, 0.04, 0.6) * size
    for x, y, wobble, part in rng.uniform(0, 1, (count, 4)):
        angle = turn + (wobble - 0.5) * spread
        reach = np.array([np.cos(angle), np.sin(angle)]) * length * (0.5 + part) / 2
        first, last = (np.array([x, y]) * size + step * reach for step in (-1, 1))
        cv2.line(drawn, *((end * 8).astype(int).tolist() for end in (first, last)), 255, 1, cv2.LINE_AA, 3)
    return blend(image, _tone(rng, image), drawn.astype(np.float32) / 255 * log_uniform(rng, 0.15, 0.9))


def _mottled_all_over(rng: Rng, image: np.ndarray) -> np.ndarray:
    size = image.shape[0]
    return shade(image, (fractal(rng, size, size, log_uniform(rng, 3, 40)) - 0.5) * log_uniform(rng, 15, 110))


def _lighting(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Add uneven light: soft shadows, a gradient or a glow."""
    size = image.shape[0]
    return shade(image, (noise(rng, size, size, rng.uniform(1, 3)) - 0.5) * log_uniform(rng, 20, 110), factor=True)


def _regular_marks(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Draw the same mark in rows and columns."""
    size = image.shape[0]
    drawn = np.zeros((size, size), np.uint8)
    step = log_uniform(rng, 0.06, 0.4) * size
    mark = max(1, int(step * rng.uniform(0.04, 0.25)))
    shape, start = int(rng.integers(3)), rng.uniform(0, step, 2)
    for y in np.arange(start[1], size, step):
        for x in np.arange(start[0], size, step):
            middle = (int(x), int(y))
            if shape == 0:
                cv2.circle(drawn, middle, mark, 255, -1, cv2.LINE_AA)
            elif shape == 1:
                cv2.drawMarker(drawn, middle, 255, cv2.MARKER_CROSS, mark * 2, 1, cv2.LINE_AA)
            else:
                cv2.rectangle(drawn, (middle[0] - mark, middle[1] - mark), (middle[0] + mark, middle[1] + mark), 255, 1)
    return blend(image, _tone(rng, image), drawn.astype(np.float32) / 255 * rng.uniform(0.3, 1))


def _regular_lines(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Draw lines or a grid over everything."""
    x, y = grid(image.shape[0])
    step, width = log_uniform(rng, 0.04, 0.4) * image.shape[0], log_uniform(rng, 0.8, 4)
    turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    alpha = np.zeros_like(x)
    for angle in (turn, turn + np.pi / 2)[: 1 + int(chance(rng, 0.4))]:
        place = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) % np.float32(step)
        alpha = np.maximum(alpha, np.clip(width - np.minimum(place, step - place) * 2, 0, 1).astype(np.float32))
    return blend(image, _tone(rng, image), alpha * np.float32(log_uniform(rng, 0.15, 1)))


def _label(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Write text into a corner, as scanners and microscopes do."""
    result, size = image.copy(), image.shape[0]
    tone = tuple(int(part) for part in _tone(rng, image))
    letters = "".join(rng.choice(list("ABCDEFGHKLMNRSTUX0123456789.-:/ "), int(rng.integers(2, 14))))
    place = (int(rng.uniform(0.02, 0.6) * size), int(rng.choice([0.07, 0.95]) * size))
    cv2.putText(
        result, letters, place, int(rng.integers(0, 4)), size / 256 * rng.uniform(0.3, 0.7), tone, 1, cv2.LINE_AA
    )
    return result


def _border(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Draw a frame, a scale bar or corner marks."""
    result, size = image.copy(), image.shape[0]
    tone = tuple(int(part) for part in _tone(rng, image))
    gap = int(rng.uniform(0, 0.08) * size)
    make = rng.random()
    if make < 0.4:
        cv2.rectangle(result, (gap, gap), (size - 1 - gap, size - 1 - gap), tone, int(rng.integers(1, 4)))
    elif make < 0.7:
        first = (gap + 4, size - 8 - gap)
        cv2.line(result, first, (first[0] + int(rng.uniform(0.1, 0.3) * size), first[1]), tone, 2)
    else:
        for x in (gap + 6, size - 7 - gap):
            for y in (gap + 6, size - 7 - gap):
                cv2.drawMarker(result, (x, y), tone, cv2.MARKER_CROSS, int(rng.integers(6, 14)), 1)
    return result


DISTRACTORS = (
    _even_dust, _even_strokes, _mottled_all_over, _lighting, _regular_marks, _regular_lines, _label, _border,
)  # fmt: skip
