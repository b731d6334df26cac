"""Scenes composed of several surfaces: side by side, within a border, and with bands across them."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.scenes.base import (
    Photos,
    Rng,
    Scene,
    Theme,
    blend,
    cells,
    chance,
    cuts,
    full,
    lighting,
    loguni,
    pick,
    plain,
    relight,
    smooth,
    turned,
    untilt,
)
from synthesis.scenes.drawing import Color, box, disc, line, text, word
from synthesis.scenes.surfaces.textures import any_texture


def regions(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw two to four surfaces side by side, divided by straight, wavy or cellular seams."""
    index = _partition(rng, size)
    painted = [any_texture(rng, size, photos) for _ in range(int(index.max()) + 1)]
    image = painted[0][0]
    soft = rng.uniform(0.5, 1.5)
    seam = np.zeros((size, size), np.uint8)
    for k in range(1, len(painted)):
        mask = cv2.GaussianBlur((index == k).astype(np.uint8) * 255, (0, 0), soft)
        image = blend(image, painted[k][0], mask)
        seam = cv2.max(seam, cv2.min(mask, 255 - mask) * 2)
    if chance(rng, 0.5):
        width = int(loguni(rng, 1, 9))
        image = blend(image, plain(size, Theme(rng).color()), cv2.dilate(seam, np.ones((width, width), np.uint8)))
    name = pick(rng, "assembly", "patchwork", "joint", "furniture", "upholstery", "facade", "product surface")
    return Scene(lighting(rng, image, 0.5), full(size), name, painted[0][2])


def _partition(rng: Rng, size: int) -> np.ndarray:
    kind = rng.integers(4)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 6.28)
    field = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    if kind == 0:
        return (field > rng.uniform(-0.4, 0.4)).astype(np.int32)
    if kind == 1:
        field = field + rng.uniform(0.05, 0.4) * smooth(rng, size, size * 0.4)
        return np.digitize(field, np.sort(rng.uniform(-0.6, 0.6, int(rng.integers(1, 4))))).astype(np.int32)
    if kind == 2:
        period = rng.uniform(0.4, 1.5)
        return (np.floor(field / period).astype(np.int32) % int(rng.integers(2, 4))).astype(np.int32)
    _, labels, _n = cells(rng, size, size / 2)
    return (labels % int(rng.integers(2, 4))).astype(np.int32)


def framed(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a surface within a border: a mat, a bezel or a table edge around another surface."""
    theme = Theme(rng)
    inner, name, material = any_texture(rng, size, photos)
    back = any_texture(rng, size, photos)[0] if chance(rng, 0.4) else plain(size, theme.color())
    sides = np.where(rng.random(4) < 0.75, rng.uniform(0.02, 0.22, 4), 0.0) * size
    if chance(rng, 0.5):
        sides[:] = sides.max()
    image, mask = back, np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(0, 3))):
        grow = rng.uniform(1, 10)
        box(image, sides[0] - grow, sides[1] - grow, size - sides[2] + grow, size - sides[3] + grow, theme.color())
    box(mask, sides[0], sides[1], size - sides[2], size - sides[3], 255)  # type: ignore[arg-type]
    image = blend(image, inner, mask)
    return Scene(lighting(rng, image, 0.4), mask > 127, name, material)


def banded(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a surface with bands across it: stitched seams, rivets, folds, welds, print or ribbons."""
    width, angle = turned(rng, size)
    image, name, material = any_texture(rng, width, photos)
    theme = Theme(rng)
    first, second = theme.color(), theme.color()
    for y in cuts(rng, width, width * rng.choice([0.35, 0.5, 0.9]), rng.uniform(0, 0.2)):
        if 0 < y < width:
            _band(rng, image, float(y), int(rng.integers(6)), first, second)
    image = untilt(image, size, angle)
    if chance(rng, 0.5):
        image = cv2.GaussianBlur(image, (0, 0), 0.6)
    return Scene(lighting(rng, image, 0.4), full(size), name, material)


def _band(rng: Rng, image: np.ndarray, y: float, kind: int, first: Color, second: Color) -> None:
    """Draw one band across the image at height y, in place."""
    width = image.shape[0]
    scale = loguni(rng, 2, 12)
    if kind == 0:  # stitches
        line(image, 0, y, width, y, second, max(1, scale * 0.2))
        for x in np.arange(0, width, scale * 2.2):
            line(image, x, y + rng.normal() * 0.2, x + scale * 1.4, y + rng.normal() * 0.2, first, scale * 0.5)
    elif kind == 1:  # rivets or screws
        r = scale * 0.8
        for x in np.arange(r, width, r * rng.uniform(3, 9)):
            disc(image, x + r * 0.15, y + r * 0.15, r * 1.15, (20, 20, 20))
            disc(image, x, y, r, first)
            disc(image, x - r * 0.2, y - r * 0.2, r * 0.6, second)
    elif kind in (2, 3):  # a fold or a weld bead: light on one side, shade on the other, ripples for the bead
        scale = max(scale, 5.0)  # a narrow one would pass for a scratch
        rows = (np.arange(width, dtype=np.float32) - y) / scale
        profile = rows * np.exp(-(rows**2))
        factor = np.repeat(profile[:, None], width, 1)
        if kind == 3:
            x = np.arange(width, dtype=np.float32)
            ripple = np.sin((x[None] + 0.4 * scale * rows[:, None] ** 2) * np.float32(3 / scale))
            factor = factor + 0.5 * np.exp(-((rows[:, None] / 1.4) ** 4)) * ripple
        image[:] = relight(image, (1 + rng.uniform(0.2, 0.9) * factor).astype(np.float32))
    elif kind == 4:  # a print
        x = rng.uniform(0, 30)
        while x < width:
            x += (
                text(image, word(rng, 3, 9), x, y, scale * 3.5, first, int(rng.integers(8)), 1 + int(scale > 6))
                + scale * 3
            )
    else:  # an inlay or a ribbon
        box(image, 0, y - scale - 1, width, y + scale + 1, second)
        box(image, 0, y - scale, width, y + scale, first)
