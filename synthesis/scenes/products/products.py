"""Industrial product photographs: cutouts and shaded parts, single, in rows, in trays, on belts, back-lit."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from synthesis.scenes.base import Family, Photos, Rng, Scene, chance, full, loguni, pick, relight
from synthesis.scenes.drawing import box, disc
from synthesis.scenes.products.boards import SHEETS
from synthesis.scenes.products.cutouts import thing
from synthesis.scenes.products.layouts import Spot, compose, loose_spots, one_spot, row_spots
from synthesis.scenes.products.parts import any_part
from synthesis.scenes.products.studio import Skin, Studio, blurred, flat, ground, shaded, sober


def _single(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """Draw one large thing on a ground."""
        studio = Studio(rng)
        what = thing(rng, photos, studio, size, cut)
        turn = float(rng.choice([0, 0, 90, 180, rng.uniform(-180, 180)]))
        back = ground(rng, size, photos, studio)
        return compose(rng, size, studio, [what], one_spot(rng, size), back, turn)

    return family


def _rows(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """Draw rows of one thing, sometimes of two in turns."""
        studio = Studio(rng)
        kinds = 2 if chance(rng, 0.15) else 1
        things = [thing(rng, photos, studio, size // 2, cut) for _ in range(kinds)]
        spots, turn = row_spots(rng, size, max(t.tall for t in things), kinds=kinds)
        turn += float(rng.choice([0, 0, 180, rng.normal(0, 4)]))
        return compose(rng, size, studio, things, spots, ground(rng, size, photos, studio), turn)

    return family


def _loose(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """Draw several loose things of one kind."""
        studio = Studio(rng)
        what = thing(rng, photos, studio, size // 2, cut)
        spots = loose_spots(rng, size)
        return compose(rng, size, studio, [what], spots, ground(rng, size, photos, studio), 0.0, 180.0)

    return family


def product_kit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw different things together: a set, a plate of food, an assortment."""
    studio = Studio(rng)
    spots = loose_spots(rng, size, kinds=99)
    if len(spots) < 2:
        spots = [Spot(size * at, size / 2, size * 0.44, k) for k, at in enumerate((0.27, 0.73))]
    things = [thing(rng, photos, studio, int(spots[0].side), 0.65) for _ in spots]
    spread = float(rng.choice([5, 30, 180]))
    scene = compose(rng, size, studio, things, spots, ground(rng, size, photos, studio), 0.0, spread)
    name = pick(rng, "kit", "set of parts", "assortment", "collection", "food", "toolbox", "snack box")
    return replace(scene, name=name, material=pick(rng, "mixed", "assorted"))


def product_pile(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw bulk goods: many overlapping things of one kind."""
    studio = Studio(rng)
    what = thing(rng, photos, studio, size // 3, 0.45)
    side = size * loguni(rng, 0.17, 0.4)
    step = max(side * rng.uniform(0.45, 0.6) * math.sqrt(max(what.tall, 0.45)), size / 7)
    n = int(size / step) + 1
    step = size / (n - 1)
    at = rng.permutation(n * n)
    jitter = rng.normal(0, 0.3, (n * n, 2))
    spots = [Spot((k % n + jitter[k, 0]) * step, (k // n + jitter[k, 1]) * step, side) for k in at]
    back = flat(size, sober(rng, 15, 60))
    scene = compose(rng, size, studio, [what], spots, back, rng.uniform(0, 360), 180.0, heaped=True)
    name = pick(rng, f"{what.name}s", f"pile of {what.name}s", "bulk goods")
    return Scene(scene.image, full(size), name, scene.material)


def product_tray(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a tray or box with a thing in each compartment: all alike, alike by columns, or all different."""
    studio = Studio(rng)
    nx, ny = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    nx = 2 if nx * ny < 2 else nx
    step_x, step_y = size / nx, size / ny
    if max(step_x, step_y) > 2.2 * min(step_x, step_y):
        nx, ny, step_x, step_y = 3, 3, size / 3, size / 3
    side = min(step_x, step_y) * rng.uniform(0.74, 0.84)
    order = rng.choice(["alike", "columns", "own"], p=[0.5, 0.2, 0.3]) if nx * ny <= 9 else "alike"
    count = {"alike": 1, "columns": nx, "own": nx * ny}[str(order)]
    things = [thing(rng, photos, studio, int(side), 0.6) for _ in range(count)]
    skin = Skin(rng, photos, size, str(rng.choice(["plastic", "plastic", "photo", "cast", "metal"])))
    albedo, detail = skin.lay(rng, size)
    pockets, spots = np.zeros((size, size), np.uint8), []
    around, gap = chance(rng, 0.35), rng.uniform(0.03, 0.07)
    for j in range(ny):
        for i in range(nx):
            x, y = (i + 0.5) * step_x, (j + 0.5) * step_y
            if around:
                disc(pockets, x, y, min(step_x, step_y) * (0.5 - gap), 255)  # type: ignore[arg-type]
            else:
                w, h = step_x / 2 - gap * size / max(nx, ny), step_y / 2 - gap * size / max(nx, ny)
                box(pockets, x - w, y - h, x + w, y + h, 255)  # type: ignore[arg-type]
            spots.append(Spot(x, y, side, {"alike": 0, "columns": i, "own": j * nx + i}[str(order)]))
    corner = max(1.0, size * loguni(rng, 0.006, 0.02))
    deep = blurred(pockets, corner).astype(np.float32) * np.float32(-rng.uniform(0.02, 0.06) * size / 255)
    shade = 1 - blurred(pockets, corner * 2).astype(np.float32) * np.float32(rng.uniform(0.0, 0.35) / 255)
    back = shaded(relight(albedo, shade), deep + detail * np.float32(skin.bump * 0.4), skin.metal, skin.gloss, studio)
    turn = float(rng.choice([0, 0, 90, 180, rng.uniform(-180, 180)]))
    scene = compose(rng, size, studio, things, spots, back, turn, float(rng.choice([1, 4])))
    name = scene.name if order == "alike" else pick(rng, "tray", "food tray", "lunch box", "parts tray", "organizer")
    return replace(scene, name=name)


def conveyor(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw things on a belt between rails, or on rollers."""
    studio = Studio(rng)
    what = thing(rng, photos, studio, size // 2, 0.5)
    skin = Skin(rng, photos, size, str(rng.choice(["cast", "plastic", "photo"])))
    rail = Skin(rng, photos, size, "metal")
    albedo, detail = skin.lay(rng, size)
    albedo = cv2.convertScaleAbs(albedo, alpha=rng.uniform(0.35, 0.9))
    height = detail * np.float32(skin.bump)
    metal: float | np.ndarray = skin.metal
    if chance(rng, 0.35):  # rollers
        pitch = size * rng.uniform(0.06, 0.2)
        x = (np.arange(size, dtype=np.float32) / np.float32(pitch)) % 1
        roll = np.sqrt(np.clip(1 - (2.1 * x - 1.05) ** 2, 0, 1)) * np.float32(pitch / 2)
        height = height + roll[None]
    wide = size * rng.uniform(0.06, 0.18)
    edge = np.zeros((size, size), np.uint8)
    box(edge, 0, 0, size, wide, 255)  # type: ignore[arg-type]
    box(edge, 0, size - wide, size, size, 255)  # type: ignore[arg-type]
    a = edge.astype(np.float32) / 255
    albedo = cv2.blendLinear(albedo, rail.lay(rng, size)[0], 1 - a, a)
    height = height * (1 - a) + cv2.GaussianBlur(a, (0, 0), max(1.0, size * 0.008)) * np.float32(0.04 * size)
    back = shaded(albedo, height, metal * (1 - a) + rail.metal * a, 0.2, studio)
    n = int(rng.integers(1, 5))
    space = size - 2 * wide
    side = min(space * 0.95 / max(what.tall, 0.5), size / n * 0.95)
    first = rng.uniform(0.25, 0.75) if n > 1 else 0.5
    spots = [Spot((k + first) * size / n, size / 2 + rng.normal(0, 0.01) * size, side) for k in range(n)]
    return compose(rng, size, studio, [what], spots, back, float(rng.choice([0, 180])), float(rng.choice([1, 5])))


def closeup(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a detail: the thing is larger than the picture, or goes beyond its border."""
    studio = Studio(rng)
    what = thing(rng, photos, studio, size, 0.4)
    side = size * loguni(rng, 0.9, 1.7)
    reach = 0.3 * side
    x, y = (size / 2 + rng.uniform(-1, 1, 2) * reach).tolist()
    turn = float(rng.choice([0, 0, 90, 180, rng.uniform(-180, 180)]))
    back = ground(rng, size, photos, studio)
    scene = compose(rng, size, studio, [what], [Spot(x, y, side)], back, turn)
    if scene.foreground.mean() < 0.05:  # the corner of it is empty: take the middle
        scene = compose(rng, size, studio, [what], [Spot(size / 2, size / 2, size * 0.95)], back, turn)
    return scene


def dark_field(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a thing in grazing light: edges and relief shine on black."""
    studio = Studio(rng, dark=True)
    what = any_part(rng, studio, photos, size)
    back = flat(size, [rng.uniform(2, 22)] * 3)
    if chance(rng, 0.6):
        spots, turn = one_spot(rng, size), float(rng.choice([0, 90, rng.uniform(-180, 180)]))
    else:
        spots, turn = row_spots(rng, size, what.tall, 3)
    return compose(rng, size, studio, [what], spots, back, turn, light="dark")


def back_lit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw outlines on a light table."""
    studio = Studio(rng)
    what = thing(rng, photos, studio, size, 0.5)
    back = flat(size, np.clip(rng.uniform(205, 255) + rng.normal(0, 3, 3), 0, 255))
    if chance(rng, 0.6):
        spots, turn = one_spot(rng, size), float(rng.choice([0, 90, rng.uniform(-180, 180)]))
    else:
        spots, turn = row_spots(rng, size, what.tall, 4)
    scene = compose(rng, size, studio, [what], spots, back, turn, light="back")
    return replace(scene, material=pick(rng, "back-lit", "dark"))


# name -> (family, weight)
PRODUCTS: dict[str, tuple[Family, float]] = {
    "cutout_one": (_single(1.0), 4.0),
    "cutout_rows": (_rows(1.0), 3.0),
    "cutout_loose": (_loose(1.0), 1.2),
    "part_one": (_single(0.0), 5.0),
    "part_rows": (_rows(0.0), 3.0),
    "part_loose": (_loose(0.0), 1.2),
    "product_kit": (product_kit, 1.6),
    "product_pile": (product_pile, 0.7),
    "product_tray": (product_tray, 1.8),
    "conveyor": (conveyor, 1.0),
    "closeup": (closeup, 2.0),
    "dark_field": (dark_field, 0.8),
    "back_lit": (back_lit, 0.6),
    **SHEETS,
}
