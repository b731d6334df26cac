"""Rendered things on backgrounds: single, in sets and in heaps. Instances of a species vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from synthesis.scenes.base import (
    Photos,
    Rng,
    Scene,
    Theme,
    blend,
    chance,
    grain,
    lighting,
    loguni,
    pick,
    plain,
    relight,
)
from synthesis.scenes.drawing import box
from synthesis.scenes.objects.base import Look, Species
from synthesis.scenes.objects.goods import bent, blob, box_thing, brush, capsule, cookie, fibrous, nut, toy
from synthesis.scenes.objects.hardware import cable, gear, polygon, rings, screw, transistor
from synthesis.scenes.surfaces.textures import any_texture

SPECIES: dict[str, tuple[Callable[[Rng, Theme, Look], Species], float]] = {
    "blob": (blob, 1.0),
    "polygon": (polygon, 1.2),
    "gear": (gear, 1.8),
    "rings": (rings, 1.8),
    "capsule": (capsule, 1.5),
    "screw": (screw, 1.3),
    "brush": (brush, 0.9),
    "nut": (nut, 1.0),
    "cookie": (cookie, 1.2),
    "bent": (bent, 1.2),
    "toy": (toy, 1.8),
    "cable": (cable, 1.0),
    "transistor": (transistor, 1.0),
    "leaf": (fibrous, 0.6),
    "box_thing": (box_thing, 1.2),
}


def backdrop(rng: Rng, size: int, theme: Theme, photos: Photos) -> np.ndarray:
    """Draw plain, shaded, grained or textured ground, a conveyor or the lines of a tray."""
    roll = rng.random()
    if roll < 0.18:
        return plain(size, [float(rng.choice([0, 8, 20, 240, 255]))] * 3)
    if roll < 0.65:
        image = plain(size, (theme if chance(rng, 0.6) else Theme(rng)).color())
        image = lighting(rng, image, 0.7)
        return grain(rng, image, loguni(rng, 0.5, 9))
    if roll < 0.8:
        image, _, _ = any_texture(rng, size, photos)
        mean = float(image.mean())
        fade = rng.uniform(0.15, 0.6)
        return cv2.addWeighted(image, fade, image, 0, mean * (1 - fade))
    if roll < 0.9:
        return any_texture(rng, size, photos)[0]
    image = plain(size, theme.color())
    color, pitch = theme.color(), loguni(rng, 8, 90)
    for x in np.arange(rng.uniform(0, pitch), size, pitch):
        box(image, x, 0, x + max(1.0, pitch * 0.08), size, color)
    return grain(
        rng, image if chance(rng, 0.5) else np.ascontiguousarray(image.transpose(1, 0, 2)), loguni(rng, 0.5, 6)
    )


def draw_layout(rng: Rng, size: int, alone: bool = True) -> list[tuple[float, float, float]]:
    """Draw (x, y, side) of the instances: a single large one, a grid or loose ones without overlap."""
    kind = rng.choice(4, p=[0.52, 0.22, 0.16, 0.1] if alone else [0, 0.4, 0.2, 0.4])
    if kind == 0:
        side = size * rng.uniform(0.6, 1.02)
        slack = max(size - side, 0) / 2
        return [(size / 2 + slack * rng.uniform(-1, 1), size / 2 + slack * rng.uniform(-1, 1), side)]
    if kind == 1:
        nx, ny = int(rng.integers(1, 6)), int(rng.integers(1, 6))
        if nx * ny < 2:
            nx = 2
        step = size / max(nx, ny)
        side = step * rng.uniform(0.75, 1.0)
        jitter = step * rng.uniform(0, 0.05)
        x0, y0 = (size - nx * step) / 2, (size - ny * step) / 2
        return [
            (x0 + (i + 0.5) * step + rng.normal() * jitter, y0 + (j + 0.5) * step + rng.normal() * jitter, side)
            for j in range(ny)
            for i in range(nx)
        ]
    side = size * rng.uniform(0.18, 0.42)
    spots: list[tuple[float, float, float]] = []
    limit = int(rng.integers(2, 5)) if kind == 2 else 14
    for _ in range(40):
        x, y = rng.uniform(side * 0.5, size - side * 0.5, 2)
        if all((x - a) ** 2 + (y - b) ** 2 > (side * 0.92) ** 2 for a, b, _s in spots):
            spots.append((float(x), float(y), side * rng.uniform(0.93, 1.03)))
        if len(spots) >= limit:
            break
    return spots


def object_family(which: str) -> Callable[[Rng, int, Photos], Scene]:
    """Return a family of pictures with instances of one species."""

    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        theme, look = Theme(rng), Look(rng, photos)
        species = SPECIES[which][0](rng, theme, look)
        return assemble(rng, size, photos, theme, look, [species], draw_layout(rng, size))

    return family


_KINDS = list(SPECIES)


def kit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw several different things together: a set, a lunch box, a sorted tray."""
    theme, look = Theme(rng), Look(rng, photos)
    kinds = rng.choice(len(_KINDS), int(rng.integers(2, 5)))
    species = [SPECIES[_KINDS[k]][0](rng, theme if chance(rng, 0.5) else Theme(rng), look) for k in kinds]
    spots = draw_layout(rng, size, alone=False)
    scene = assemble(rng, size, photos, theme, look, species, spots)
    name = pick(rng, "kit", "set of parts", "assortment", "tray of objects", "food box", "toolbox", "collection")
    return replace(scene, name=name, material=pick(rng, "mixed", "assorted", "sorted"))


def heap(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw bulk goods: many overlapping instances of one species."""
    theme, look = Theme(rng), Look(rng, photos)
    species = SPECIES[pick(rng, "blob", "nut", "bent", "screw", "capsule", "cookie", "leaf", "gear")][0](
        rng, theme, look
    )
    side = size * loguni(rng, 0.16, 0.45)
    n = int(np.clip(side, 12, 96))
    stock = [species.draw(rng, n) for _ in range(4)]
    image = plain(size, [c * 0.35 for c in theme.color()])
    angle, spread = rng.uniform(0, 360), rng.choice([15, 180, 180])
    step = max(side * rng.uniform(0.4, 0.6), size / 8)
    spots = [(x, y) for y in np.arange(0, size + step, step) for x in np.arange(0, size + step, step)]
    order = rng.permutation(len(spots))[:80]
    for k in order:
        colors, alpha = stock[int(rng.integers(4))]
        matrix = cv2.getRotationMatrix2D((n / 2, n / 2), angle + spread * rng.uniform(-1, 1), side / n)
        x, y = spots[k][0] + rng.normal() * step * 0.3, spots[k][1] + rng.normal() * step * 0.3
        reach = int(side * 0.6) + 2
        x0, y0, x1, y1 = (
            max(0, int(x) - reach),
            max(0, int(y) - reach),
            min(size, int(x) + reach),
            min(size, int(y) + reach),
        )
        if x1 - x0 < 3 or y1 - y0 < 3:
            continue
        matrix[:, 2] += [x - n / 2 - x0, y - n / 2 - y0]
        top = cv2.warpAffine(colors, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        shape = cv2.warpAffine(alpha, matrix, (x1 - x0, y1 - y0))
        area = image[y0:y1, x0:x1]
        dark = cv2.convertScaleAbs(cv2.blur(shape, (5, 5)), alpha=0.5)
        image[y0:y1, x0:x1] = blend(blend(area, np.zeros_like(area), dark), top, shape)
    name = pick(rng, f"pile of {species.name}s", "bulk goods", f"{species.name}s", "heap")
    return Scene(lighting(rng, image, 0.3), np.ones((size, size), bool), name, species.material)


def assemble(
    rng: Rng,
    size: int,
    photos: Photos,
    theme: Theme,
    look: Look,
    kinds: Sequence[Species],
    spots: list[tuple[float, float, float]],
) -> Scene:
    """Lay instances at the spots on a backdrop, with shadows."""
    back = backdrop(rng, size, theme, photos)
    shadow, soft = rng.uniform(0, 0.6) if chance(rng, 0.75) else 0.0, loguni(rng, 0.01, 0.08)
    fall = rng.uniform(0.0, 0.06)
    base_angle, spread = rng.choice([0.0, 0.0, 90.0, 180.0, rng.uniform(-180, 180)]), rng.choice([0, 3, 15, 180])
    layer = np.zeros((size, size, 3), np.uint8)
    cover = np.zeros((size, size), np.uint8)
    masks: list[np.ndarray] = []
    for k, (x, y, side) in enumerate(spots):
        n = int(np.clip(side, 12, 224))
        species = kinds[k % len(kinds)]  # in turns, since a single odd thing among equals would look like a defect
        image, alpha = species.draw(rng, n)
        angle = base_angle + spread * rng.uniform(-1, 1)
        matrix = cv2.getRotationMatrix2D((n / 2, n / 2), angle, side / n)
        matrix[:, 2] += [x - n / 2, y - n / 2]
        # Only the box around the instance is touched: heaps of small things stay cheap.
        reach = int(side * 0.72) + 2
        x0, y0 = max(0, int(x) - reach), max(0, int(y) - reach)
        x1, y1 = min(size, int(x) + reach), min(size, int(y) + reach)
        matrix[:, 2] -= [x0, y0]
        window = (x1 - x0, y1 - y0)
        colors = cv2.warpAffine(image, matrix, window, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shape = cv2.warpAffine(alpha, matrix, window, flags=cv2.INTER_LINEAR)
        area = (slice(y0, y1), slice(x0, x1))
        layer[area] = cv2.copyTo(colors, shape, np.ascontiguousarray(layer[area]))
        cover[area] = cv2.max(cover[area], shape)
        if len(masks) < 20:
            mask = np.zeros((size, size), bool)
            mask[area] = shape > 127
            masks.append(mask)
    ground = back
    if shadow > 0:
        dx, dy = -fall * size * math.cos(look.light), -fall * size * math.sin(look.light)
        moved = cv2.warpAffine(cover, np.array([[1, 0, dx], [0, 1, dy]]), (size, size))
        dark = cv2.GaussianBlur(cv2.resize(moved, None, fx=0.5, fy=0.5), (0, 0), max(1.0, soft * size / 2))
        dark = cv2.resize(dark, (size, size)).astype(np.float32)
        ground = relight(back, (1 - shadow / 255 * dark).astype(np.float32))
    image = blend(ground, layer, cover)
    image = lighting(rng, image, 0.3)
    return Scene(image, cover > 127, species.name, species.material, tuple(masks), back)
