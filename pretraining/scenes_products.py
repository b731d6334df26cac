"""Products as industry photographs them: cutouts and shaded parts, alone, in rows, in trays, on belts, back-lit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scenes_base import (
    Photos,
    Rng,
    Scene,
    blend,
    chance,
    full,
    loguni,
    pick,
    relight,
    smooth,
    white,
)
from scenes_boards import SHEETS
from scenes_parts import Thing, any_part
from scenes_patterns import box, disc
from scenes_studio import Skin, Sprite, Studio, blurred, cast_shadow, flat, ground, shaded, sober, sources_of

Family = Callable[[Rng, int, Photos], Scene]


@dataclass(frozen=True)
class Spot:
    """Where an instance lies, how wide it is, and which of the things it is."""

    x: float
    y: float
    side: float
    kind: int = 0


# --- cutouts ---------------------------------------------------------------------------------------------------


def cutout(rng: Rng, photos: Photos, studio: Studio, extent: int) -> Thing:
    """A real or rendered object from a cutout: as it is, greyed, recoloured, of another material, or cast in relief."""
    sources = sources_of(photos, 4)
    if not sources:
        return any_part(rng, studio, photos, extent)
    colors, alpha = _square(sources[int(rng.integers(len(sources)))], int(np.clip(extent, 48, 288)))
    grey = cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY)
    styles = ("own", "dull", "grey", "hue", "two", "material", "relief")
    style = str(rng.choice(styles, p=[0.2, 0.2, 0.1, 0.1, 0.13, 0.13, 0.14]))
    side = len(alpha)
    if style in ("own", "dull"):
        keep = rng.uniform(0.75, 1.0) if style == "own" else rng.uniform(0.15, 0.7)
        colors = cv2.addWeighted(colors, keep, cv2.merge([grey] * 3), 1 - keep, 0)
    elif style == "grey":
        colors = cv2.merge([grey] * 3)
    elif style == "hue":
        hsv = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + int(rng.integers(15, 165))) % 180
        hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=rng.uniform(0.3, 0.9))
        colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    elif style in ("two", "material"):  # its own lights and darks, in another colour
        base = np.array(sober(rng, 50))
        dark = base * rng.uniform(0.08, 0.4)
        light = base + (255 - base) * rng.uniform(0.1, 0.6)
        at = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.7, 1.5)
        table = (dark * (1 - at) + light * at).astype(np.uint8).reshape(1, 256, 3)
        colors = cv2.LUT(cv2.merge([_stretched(grey, alpha)] * 3), table)
    if style == "relief":
        skin = Skin(rng, photos, side, str(rng.choice(["metal", "metal", "cast", "plastic"])))
        albedo, detail = skin.lay(rng, side)
        low = blurred(_stretched(grey, alpha), max(1.0, side * loguni(rng, 0.005, 0.02)))
        depth = blurred(alpha, side * 0.02).astype(np.float32)
        height = (low.astype(np.float32) * np.float32(rng.uniform(0.02, 0.07)) + depth * 0.06) * np.float32(side / 255)
        height += detail * np.float32(skin.bump * 0.5)
    elif style == "material" or chance(rng, 0.25):
        texture = Skin(rng, photos, side, "photo" if style == "material" else None)
        colors = relight(colors, 1 + texture.lay(rng, side)[1])
    light = rng.uniform(0, 0.35) if chance(rng, 0.6) else 0.0
    bend = rng.uniform(0.002, 0.012) if chance(rng, 0.4) else 0.0
    noise, rim = loguni(rng, 0.004, 0.03), rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.5)])
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    inner = blurred(alpha, max(0.8, side * 0.012)).astype(np.float32) / 255

    def draw(rng: Rng, n: int, angle: float) -> Sprite:
        if style == "relief":
            image = shaded(albedo, height, skin.metal, skin.gloss, studio, angle, 0.35, alpha)
        else:
            a = studio.azimuth + math.radians(angle)
            slope = math.cos(a) * axis[None] + math.sin(a) * axis[:, None]
            factor = (1 + light * slope) * (1 + np.float32(noise) * white(rng, side))
            factor *= 1 + np.float32(rim) * np.clip(1.8 - 2 * inner, 0, 1)
            image = relight(colors, factor.astype(np.float32))
        shape = alpha
        if bend > 0:
            bent = [
                np.float32(bend * side) * smooth(rng, side, side * 0.4) + g
                for g in np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
            ]
            image, shape = (cv2.remap(m, *bent, cv2.INTER_LINEAR) for m in (image, shape))
        if n != side:
            way = cv2.INTER_AREA if n < side else cv2.INTER_LINEAR
            image, shape = (cv2.resize(m, (n, n), interpolation=way) for m in (image, shape))
        return image, shape

    names = ("object", "toy", "figure", "food", "tool", "part", "product", "item", "model", "ornament", "utensil")
    made = {"relief": "metal", "material": "textured", "grey": "grey"}.get(style, "plastic")
    rows = np.flatnonzero(alpha.max(1) > 60)
    tall = (rows[-1] - rows[0]) / side if len(rows) else 1.0
    return Thing(draw, pick(rng, *names), pick(rng, made, "coloured", "solid"), float(np.clip(tall, 0.3, 1)))


def _square(source: np.ndarray, side: int) -> Sprite:
    """A cutout trimmed to what is in it, on a square of `side`, its colours spread beyond its outline."""
    x, y, w, h = cv2.boundingRect((source[..., 3] > 40).astype(np.uint8))
    if min(w, h) < 4:
        x, y, (h, w) = 0, 0, source.shape[:2]
    scale = side * 0.94 / max(w, h)
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(source[y : y + h, x : x + w]), size, interpolation=way)
    canvas = np.zeros((side, side, 4), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    alpha = np.ascontiguousarray(canvas[..., 3])
    solid = (alpha > 200).astype(np.uint8) * np.uint8(255)
    colors = cv2.bitwise_and(*[np.ascontiguousarray(canvas[..., :3])] * 2, mask=solid)
    share = 255 / (cv2.blur(solid, (9, 9)) + np.float32(1))
    spread = cv2.multiply(cv2.blur(colors, (9, 9)), cv2.merge([share, share, share]), dtype=cv2.CV_8U)
    return cv2.copyTo(colors, solid, spread), alpha


def _stretched(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The object's brightness over the whole range."""
    inside = grey[alpha > 127][::7]
    if inside.size < 4:
        return grey
    low, high = np.percentile(inside, [2, 98])
    gain = 255 / max(high - low, 30.0)
    return cv2.LUT(grey, np.clip((np.arange(256) - low) * gain, 0, 255).astype(np.uint8))


def thing(rng: Rng, photos: Photos, studio: Studio, extent: int, cut: float = 0.5) -> Thing:
    make_cutout = chance(rng, cut) and bool(sources_of(photos, 4))
    return cutout(rng, photos, studio, extent) if make_cutout else any_part(rng, studio, photos, extent)


# --- the camera ---------------------------------------------------------------------------------------------------


def _field(rng: Rng, size: int, studio: Studio) -> np.ndarray:
    """How the light falls over the whole picture: brighter towards the lamp, darker in the corners."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slope = math.cos(studio.azimuth) * axis[None] + math.sin(studio.azimuth) * axis[:, None]
    amount = loguni(rng, 0.02, 0.3)
    corner = loguni(rng, 0.01, 0.25)
    return 1 + amount * slope - corner * (axis[None] ** 2 + axis[:, None] ** 2) * np.float32(0.6)


def developed(rng: Rng, pictures: Sequence[np.ndarray], field: np.ndarray) -> list[np.ndarray]:
    """Light, exposure, white balance, lens and grain: the same for the picture and for the empty ground."""
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
    """Instances of the things at the spots on the ground, turned by `turn` +- `spread` degrees, photographed."""
    layer, cover = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    masks: list[np.ndarray] = []
    stock: dict[int, list[tuple[float, Sprite]]] = {}
    often = {k: sum(s.kind == k for s in spots) for k in {s.kind for s in spots}}
    tone = loguni(rng, 0.004, 0.05)
    for spot in spots:
        made = stock.setdefault(spot.kind, [])
        n = int(np.clip(spot.side, 14, size))
        if len(made) < min(often[spot.kind], 4):  # four differ enough: the rest are turned and toned copies of them
            own = turn + spread * rng.uniform(-1, 1)
            made.append((own, things[spot.kind].draw(rng, n, own)))
            angle, (image, alpha) = made[-1]
        else:
            angle, (image, alpha) = made[int(rng.integers(len(made)))]
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
    if light == "back":  # a light table: only the outlines are left, and what shines through a little
        layer = cv2.convertScaleAbs(layer, alpha=rng.uniform(0.04, 0.3), beta=rng.uniform(0, 12))
        glow = cv2.GaussianBlur(cover, (0, 0), size * 0.008).astype(np.float32)
        back = relight(back, 1 - glow * np.float32(rng.uniform(0, 0.15) / 255))
    if light == "dark":  # exposed so that the edges show
        shown = np.percentile(layer[cover > 127][::5], 98) if (cover > 127).any() else 255.0
        layer = cv2.convertScaleAbs(layer, alpha=float(np.clip(170 / max(shown, 1.0), 1, 5)))
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


def row_spots(rng: Rng, size: int, tall: float, most: int = 5, kinds: int = 1) -> tuple[list[Spot], float]:
    """A grid of equal spots for things of a height of `tall` their width, and how they are turned."""
    nx = int(rng.integers(1, most + 1))
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
    if any(sum(s.kind == k for s in spots) < 2 for k in range(kinds)):  # a single one among others looks wrong
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


# --- families --------------------------------------------------------------------------------------------------


def _single(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """One large thing on a ground."""
        studio = Studio(rng)
        what = thing(rng, photos, studio, size, cut)
        turn = float(rng.choice([0, 0, 90, 180, rng.uniform(-180, 180)]))
        back = ground(rng, size, photos, studio)
        return compose(rng, size, studio, [what], one_spot(rng, size), back, turn)

    return family


def _rows(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """Rows of the same thing, sometimes two kinds by turns."""
        studio = Studio(rng)
        kinds = 2 if chance(rng, 0.15) else 1
        things = [thing(rng, photos, studio, size // 2, cut) for _ in range(kinds)]
        spots, turn = row_spots(rng, size, max(t.tall for t in things), kinds=kinds)
        turn += float(rng.choice([0, 0, 180, rng.normal(0, 4)]))
        return compose(rng, size, studio, things, spots, ground(rng, size, photos, studio), turn)

    return family


def _loose(cut: float) -> Family:
    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        """Several of one kind lying anyhow."""
        studio = Studio(rng)
        what = thing(rng, photos, studio, size // 2, cut)
        spots = loose_spots(rng, size)
        return compose(rng, size, studio, [what], spots, ground(rng, size, photos, studio), 0.0, 180.0)

    return family


def product_kit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Different things together: a set, a plate of food, an assortment."""
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
    """Bulk goods: many of one kind over one another."""
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
    """A tray or a box with compartments, each with its thing: all alike, by columns, or each with its own."""
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
    """Things passing on a belt between rails, or on rollers."""
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
    room = size - 2 * wide
    side = min(room * 0.95 / max(what.tall, 0.5), size / n * 0.95)
    first = rng.uniform(0.25, 0.75) if n > 1 else 0.5
    spots = [Spot((k + first) * size / n, size / 2 + rng.normal(0, 0.01) * size, side) for k in range(n)]
    return compose(rng, size, studio, [what], spots, back, float(rng.choice([0, 180])), float(rng.choice([1, 5])))


def closeup(rng: Rng, size: int, photos: Photos) -> Scene:
    """A detail: the thing is larger than the picture, or goes beyond its border."""
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
    """Light that grazes: edges and relief shine on black."""
    studio = Studio(rng, dark=True)
    what = any_part(rng, studio, photos, size)
    back = flat(size, [rng.uniform(2, 22)] * 3)
    if chance(rng, 0.6):
        spots, turn = one_spot(rng, size), float(rng.choice([0, 90, rng.uniform(-180, 180)]))
    else:
        spots, turn = row_spots(rng, size, what.tall, 3)
    return compose(rng, size, studio, [what], spots, back, turn, light="dark")


def back_lit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Outlines before a light table."""
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
