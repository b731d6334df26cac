"""Layout and photography of things: single, in rows and loose; the light and the lens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from synthesis.scenes.base import Rng, Scene, Sprite, blend, chance, loguni, relight, white
from synthesis.scenes.products.studio import Studio, Thing, cast_shadow


@dataclass(frozen=True)
class Spot:
    """Where an instance lies, how wide it is, and its kind."""

    x: float
    y: float
    side: float
    kind: int = 0


# --- the camera ---------------------------------------------------------------------------------------------------


def _field(rng: Rng, size: int, studio: Studio) -> np.ndarray:
    """Return the light over the picture: brighter towards the lamp, darker in the corners."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slope = math.cos(studio.azimuth) * axis[None] + math.sin(studio.azimuth) * axis[:, None]
    amount = loguni(rng, 0.02, 0.3)
    corner = loguni(rng, 0.01, 0.25)
    return 1 + amount * slope - corner * (axis[None] ** 2 + axis[:, None] ** 2) * np.float32(0.6)


def developed(rng: Rng, pictures: Sequence[np.ndarray], field: np.ndarray) -> list[np.ndarray]:
    """Apply light, exposure, white balance, lens and grain, the same to the picture and to the empty ground."""
    gain = rng.uniform(0.85, 1.1)
    cast = 1 + rng.normal(0, 0.025, 3) * float(chance(rng, 0.6))
    light = cv2.merge([field * np.float32(gain * c) for c in cast])
    curve = 255 * (np.arange(256) / 255) ** rng.uniform(0.8, 1.3) if chance(rng, 0.4) else None
    soft = loguni(rng, 0.4, 1.3) * len(field) / 256 if chance(rng, 0.35) else 0.0
    noise = white(rng, len(field)) * np.float32(loguni(rng, 0.4, 3.5))
    noise = cv2.merge([noise, noise, noise])
    done = []
    for image in pictures:
        image = cv2.multiply(image, light, dtype=cv2.CV_8U)
        image = image if curve is None else cv2.LUT(image, curve.astype(np.uint8))
        image = image if soft == 0 else cv2.GaussianBlur(image, (0, 0), soft)
        done.append(cv2.add(image, noise, dtype=cv2.CV_8U))
    return done


# --- laying things out -----------------------------------------------------------------------------------------


def compose(
    rng: Rng,
    size: int,
    studio: Studio,
    things: Sequence[Thing],
    spots: Sequence[Spot],
    back: np.ndarray,
    turn: float = 0.0,
    spread: float = 2.0,
    light: str = "lamp",
    heaped: bool = False,
) -> Scene:
    """Photograph instances of the things at the spots on the ground, turned by `turn` +- `spread` degrees."""
    layer, cover = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    masks: list[np.ndarray] = []
    stock: dict[int, list[tuple[float, Sprite]]] = {}
    often = {k: sum(s.kind == k for s in spots) for k in {s.kind for s in spots}}
    tone = loguni(rng, 0.004, 0.05)
    for spot in spots:
        drawn = stock.setdefault(spot.kind, [])
        n = int(np.clip(spot.side, 14, size))
        if len(drawn) < min(
            often[spot.kind], 4
        ):  # four instances differ enough; the others are turned and toned copies of them
            own = turn + spread * rng.uniform(-1, 1)
            drawn.append((own, things[spot.kind].draw(rng, n, own)))
            angle, (image, alpha) = drawn[-1]
        else:
            angle, (image, alpha) = drawn[int(rng.integers(len(drawn)))]
            angle += min(spread, 8.0) * rng.uniform(-1, 1)
        scale = spot.side / len(alpha) * rng.normal(1, 0.008)
        matrix = cv2.getRotationMatrix2D((len(alpha) / 2, len(alpha) / 2), angle, scale)
        matrix[:, 2] += [spot.x - len(alpha) / 2, spot.y - len(alpha) / 2]
        reach = int(spot.side * 0.72) + 2
        x0, y0 = max(0, int(spot.x) - reach), max(0, int(spot.y) - reach)
        x1, y1 = min(size, int(spot.x) + reach), min(size, int(spot.y) + reach)
        if x1 - x0 < 4 or y1 - y0 < 4:
            continue
        matrix[:, 2] -= [x0, y0]
        colors = cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        shape = cv2.warpAffine(alpha, matrix, (x1 - x0, y1 - y0))
        colors = cv2.convertScaleAbs(colors, alpha=float(np.clip(rng.normal(1, tone), 0.85, 1.15)))
        area = (slice(y0, y1), slice(x0, x1))
        below = np.ascontiguousarray(layer[area])
        if heaped:  # each darkens what it lies on
            dark = cv2.blur(shape, (int(spot.side * 0.07) | 1,) * 2).astype(np.float32)
            layer[area] = blend(relight(below, 1 - dark * np.float32(0.7 / 255)), colors, shape)
        else:
            layer[area] = cv2.copyTo(colors, shape, below)
        cover[area] = cv2.max(cover[area], shape)
        if len(masks) < 20 and not heaped:
            mask = np.zeros((size, size), bool)
            mask[area] = shape > 127
            masks.append(mask)
    field = _field(rng, size, studio)
    if light == "back":  # a light table: outlines, and a little light through the things
        layer = cv2.convertScaleAbs(layer, alpha=rng.uniform(0.04, 0.3), beta=rng.uniform(0, 12))
        glow = cv2.GaussianBlur(cover, (0, 0), size * 0.008).astype(np.float32)
        back = relight(back, 1 - glow * np.float32(rng.uniform(0, 0.15) / 255))
    if light == "dark":  # exposed so that the edges show
        brightness = np.percentile(layer[cover > 127][::5], 98) if (cover > 127).any() else 255.0
        layer = cv2.convertScaleAbs(layer, alpha=float(np.clip(170 / max(brightness, 1.0), 1, 5)))
    floor = back
    if light == "lamp":
        floor = relight(back, cast_shadow(rng, cover, studio))
    if chance(rng, 0.25):  # the lens is focused on the things
        soft = loguni(rng, 0.8, 4) * size / 256
        floor, back = (cv2.GaussianBlur(p, (0, 0), soft) for p in (floor, back))
    if chance(rng, 0.3):
        cover = cv2.GaussianBlur(cover, (0, 0), 0.7)
    image = blend(floor, layer, cover)
    image, back = developed(rng, (image, back), field)
    return Scene(image, cover > 127, things[0].name, things[0].material, tuple(masks), back)


def one_spot(rng: Rng, size: int, low: float = 0.62, high: float = 1.0) -> list[Spot]:
    side = size * rng.uniform(low, high)
    slack = max(size - side, 0) / 2
    return [Spot(size / 2 + slack * rng.uniform(-1, 1), size / 2 + slack * rng.uniform(-1, 1), side)]


def row_spots(rng: Rng, size: int, tall: float, max_columns: int = 5, kinds: int = 1) -> tuple[list[Spot], float]:
    """Return a grid of equal spots for things whose height is `tall` times their width, and their turn."""
    nx = int(rng.integers(1, max_columns + 1))
    upright = chance(rng, 0.5)
    side = size / nx * rng.uniform(0.86, 1.0)
    step_x, step_y = size / nx, side * min(tall * rng.uniform(1.08, 1.35) + 0.03, 1.05)
    ny = int(np.clip(size // step_y, 1, 6))
    if nx * ny < 2:
        nx, ny, side, step_x, step_y = 2, 2, size * 0.46, size * 0.5, size * 0.5
    step_y = max(step_y, size / ny * rng.uniform(0.8, 1.0))
    jitter = side * rng.choice([0, 0.008, 0.025])
    spots = []
    for j in range(ny):
        for i in range(nx):
            x = size / 2 + (i - (nx - 1) / 2) * step_x + rng.normal() * jitter
            y = size / 2 + (j - (ny - 1) / 2) * step_y + rng.normal() * jitter
            kind = i % kinds if nx >= kinds else j % kinds
            spots.append(Spot(y, x, side, kind) if upright else Spot(x, y, side, kind))
    if any(sum(s.kind == k for s in spots) < 2 for k in range(kinds)):  # a single instance of a kind would look wrong
        spots = [replace(s, kind=0) for s in spots]
    return spots, 90.0 if upright else 0.0


def loose_spots(rng: Rng, size: int, kinds: int = 1) -> list[Spot]:
    side = size * loguni(rng, 0.2, 0.48)
    spots: list[Spot] = []
    limit = int(rng.integers(2, 13))
    for _ in range(60):
        x, y = rng.uniform(side * 0.42, size - side * 0.42, 2)
        if all((x - s.x) ** 2 + (y - s.y) ** 2 > (side * 0.95) ** 2 for s in spots):
            spots.append(Spot(float(x), float(y), side, len(spots) % kinds))
        if len(spots) >= limit:
            break
    return spots
