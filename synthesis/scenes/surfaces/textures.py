"""Surfaces that fill the picture: cloth, wood, stone, tiles, prints and texture photographs.

`TEXTURES` also has those of `metals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from synthesis.scenes.base import (
    Painter,
    Photos,
    Rng,
    Scene,
    Surface,
    Theme,
    blend,
    cell_edges,
    cells,
    chance,
    full,
    grain,
    grid,
    lighting,
    loguni,
    normalise,
    octaves,
    only,
    paint,
    pick,
    plain,
    rand_angle,
    smooth,
    tint,
    white,
)
from synthesis.scenes.surfaces.metals import brushed, diamond_plate, mesh, perforated


def _threads(rng: Rng, index: np.ndarray, amount: float) -> np.ndarray:
    """Return a small random brightness for every thread, tile or stripe number."""
    table = (amount * rng.standard_normal(512)).astype(np.float32)
    return table[index & 511]


def weave(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 3, 42)
    u, v = grid(rng, size, wobble=period * rng.uniform(0, 0.5))
    aspect = loguni(rng, 0.6, 1.6)
    a, b = u / np.float32(period), v / np.float32(period * aspect)
    ia, ib = a.astype(np.int32), b.astype(np.int32)
    kind = pick(rng, "plain", "plain", "twill", "twill", "satin", "basket")
    if kind == "plain":
        over = (ia + ib) % 2 == 0
    elif kind == "basket":
        over = ((ia >> 1) + (ib >> 1)) % 2 == 0
    elif kind == "twill":
        n = int(rng.integers(3, 6))
        over = (ia + ib) % n < max(1, n // 2)
    else:
        over = (2 * ia + ib) % 5 == 0
    fa, fb = a - ia - 0.5, b - ib - 0.5
    jitter = rng.uniform(0.02, 0.15)
    round_ = rng.uniform(1.5, 4.5)
    warp = 1 - round_ * fa * fa * 0.9 - fb * fb + _threads(rng, ia, jitter)
    weft = 1 - round_ * fb * fb * 0.9 - fa * fa + _threads(rng, ib, jitter)
    noise = white(rng, size) * np.float32(rng.uniform(0.02, 0.15))
    theme = Theme(rng)
    if chance(rng, 0.4):
        first, second = theme.pair()
        shade = loguni(rng, 25, 150)
        tables = [_shades(c, shade) for c in (first, second)]
        image = np.where(over[..., None], paint(warp + noise, tables[0]), paint(weft + noise, tables[1]))
    else:
        image = tint(rng, np.where(over, warp, weft) + noise, theme)
    return image, pick(rng, "fabric", "cloth", "textile", "canvas", "linen"), pick(rng, "woven", kind, "cotton")


def _shades(color: tuple[float, ...], contrast: float) -> np.ndarray:
    ramp = np.linspace(-0.6, 0.4, 256)[:, None] * contrast + np.array(color)[None, :]
    return np.clip(ramp, 0, 255).astype(np.uint8)


def knit(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 6, 50)
    u, v = grid(rng, size, wobble=period * rng.uniform(0, 0.4))
    a, b = u / np.float32(period), v / np.float32(period * rng.uniform(0.6, 1.0))
    ia = a.astype(np.int32)
    fa = np.abs(a - ia - 0.5)
    slant = b - fa * np.float32(rng.uniform(0.8, 2))
    fb = slant - np.floor(slant) - 0.5
    strand = 1 - 3 * fb * fb - 4 * (fa - 0.27) ** 2 * 4
    fibre = 0.15 * np.sin(fa * np.float32(rng.uniform(20, 60)) + slant * 6)
    h = strand + fibre + _threads(rng, ia, 0.05) + 0.08 * white(rng, size)
    return tint(rng, h * 0.8 + 0.1), pick(rng, "knit", "sweater", "wool fabric"), pick(rng, "knitted", "woollen")


def noise(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 2, size / 3)
    aspect = 1.0 if chance(rng, 0.5) else loguni(rng, 1.5, 12)
    h = octaves(rng, size, period, rng.uniform(0.3, 0.95), aspect, rand_angle(rng))
    kind = rng.integers(4)
    if kind == 0:
        h = np.abs(h)
    elif kind == 1:
        h = np.tanh(h * np.float32(rng.uniform(1, 4)))
    elif kind == 2:
        h = np.sin(h * np.float32(rng.uniform(2, 6)))
    return tint(rng, normalise(h)), pick(rng, "surface", "texture", "plaster", "coating"), pick(rng, "mottled", "rough")


def wood(rng: Rng, size: int, photos: Photos) -> Surface:
    angle = rand_angle(rng)
    period = loguni(rng, 4, 50)
    u, v = grid(rng, size, angle)
    bend = period * rng.uniform(0.5, 4) * smooth(rng, size, size * rng.uniform(0.15, 0.5), rng.uniform(3, 8), angle)
    x = (v + bend) / np.float32(period)
    if chance(rng, 0.4):
        plank = loguni(rng, 25, 120)
        iv = (v / plank).astype(np.int32)
        x = x + 40 * np.abs(_threads(rng, iv, 1.0))
    saw = x - np.floor(x)
    h = saw * saw if chance(rng, 0.6) else 0.5 + 0.5 * np.sin(x * 6.28)
    h = 0.5 * h + 0.2 * smooth(rng, size, 1.5, 30, angle) + 0.1 * smooth(rng, size, 12, 10, angle)
    if "plank" in locals():
        h = h + _threads(rng, iv, 0.3)
        h[(v - iv * np.float32(plank)) < max(1.2, plank * 0.03)] = -0.5 if chance(rng, 0.8) else 1.5
    theme = Theme(rng)
    if not theme.grey and chance(rng, 0.7):
        theme.hue, theme.spread, theme.saturation = float(rng.uniform(5, 22)), 4, float(rng.uniform(0.3, 0.8))
    image = tint(rng, h * 0.7 + 0.2, theme, loguni(rng, 20, 140))
    return image, pick(rng, "wood", "wooden board", "plank", "veneer"), pick(rng, "wooden", "timber")


def leather(rng: Rng, size: int, photos: Photos) -> Surface:
    distance, labels, _n = cells(rng, size, loguni(rng, 5, 40), rng.choice([0, 0.4, 0.8]))
    edge = cv2.GaussianBlur(cell_edges(labels), (0, 0), loguni(rng, 0.6, 2.2)).astype(np.float32) / 255
    h = 0.7 - edge + _threads(rng, labels, 0.06) + 0.08 * octaves(rng, size, 30, 0.6)
    if chance(rng, 0.4):
        h = h + 0.3 * (1 - distance / distance.max())
    image = paint(h, Theme(rng).ramp(loguni(rng, 25, 160), 2))
    return image, pick(rng, "leather", "hide", "faux leather", "upholstery"), pick(rng, "leather", "grained", "pebbled")


def marble(rng: Rng, size: int, photos: Photos) -> Surface:
    angle = rand_angle(rng)
    base = octaves(rng, size, size * rng.uniform(0.15, 0.6), rng.uniform(0.4, 0.65), loguni(rng, 1, 4), angle)
    veins = np.exp(-np.abs(np.sin(base * np.float32(rng.uniform(1, 5)))) * np.float32(rng.uniform(3, 15)))
    h = 0.8 * veins + 0.15 * octaves(rng, size, size / 4, 0.7) + 0.2
    return (
        tint(rng, h),
        pick(rng, "marble", "stone slab", "stone tile"),
        pick(rng, "marble", "veined stone", "polished"),
    )


def granite(rng: Rng, size: int, photos: Photos) -> Surface:
    _, labels, n = cells(rng, size, loguni(rng, 2.5, 18))
    table = (rng.random(n + 1) ** rng.uniform(0.4, 3)).astype(np.float32)
    h = table[labels]
    if chance(rng, 0.5):
        h = cv2.GaussianBlur(h, (0, 0), rng.uniform(0.5, 1.4))
    h = h + 0.08 * white(rng, size)
    return tint(rng, h), pick(rng, "granite", "terrazzo", "stone", "countertop"), pick(rng, "speckled", "granite")


def carpet(rng: Rng, size: int, photos: Photos) -> Surface:
    sigma = loguni(rng, 0.6, 4)
    fine = cv2.GaussianBlur(white(rng, size), (0, 0), sigma)
    h = normalise(fine - cv2.GaussianBlur(fine, (0, 0), sigma * 1.6), 0.25)
    if chance(rng, 0.5):
        u, _ = grid(rng, size, wobble=rng.uniform(0, 4))
        h = h + 0.2 * np.sin(u * np.float32(6.283 / loguni(rng, 4, 40)))
    h = h + 0.08 * smooth(rng, size, size / 3)
    return tint(rng, h), pick(rng, "carpet", "rug", "felt", "fleece", "towel"), pick(rng, "carpet", "fuzzy", "tufted")


def tiles(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 14, 120)
    u, v = grid(rng, size)
    ratio = rng.choice([1, 1, 2, 3, 0.5])
    wide = period * ratio
    iv = np.floor(v / np.float32(period))
    shift = iv * np.float32(rng.choice([0, 0, 0.5, 0.33])) * np.float32(wide)
    iu = np.floor((u + shift) / np.float32(wide))
    fu, fv = u + shift - iu * np.float32(wide), v - iv * np.float32(period)
    border = np.minimum(np.minimum(fu, wide - fu), np.minimum(fv, period - fv))
    grout = rng.uniform(0.01, 0.06) * period + 0.6
    index = (iu * 7 + iv * 31).astype(np.int32)
    h = 0.5 + _threads(rng, index, rng.uniform(0.01, 0.15)) + 0.06 * octaves(rng, size, loguni(rng, 3, 60), 0.7)
    h = h + np.float32(rng.uniform(-0.2, 0.2)) * np.clip(1 - (border - grout) / np.float32(period * 0.1), 0, 1)
    theme = Theme(rng)
    image = tint(rng, h, theme)
    joint = np.clip((grout - border) * 255, 0, 255).astype(np.uint8)
    image = blend(image, plain(size, theme.color()), joint)
    if ratio >= 2:
        return image, pick(rng, "brick wall", "bricks", "paving"), pick(rng, "brick", "masonry")
    return image, pick(rng, "tiles", "tiled floor", "mosaic", "ceramic tiles"), pick(rng, "ceramic", "tiled")


def paper(rng: Rng, size: int, photos: Photos) -> Surface:
    h = 0.3 * octaves(rng, size, loguni(rng, 2, 60), rng.uniform(0.6, 1.0))
    image = tint(rng, normalise(h, 0.15), contrast=loguni(rng, 8, 45))
    theme = Theme(rng)
    if chance(rng, 0.5):
        u, v = grid(rng, size)
        period = loguni(rng, 8, 45)
        lines = np.abs(v % np.float32(period) - period / 2) < 0.7
        if chance(rng, 0.5):
            lines |= np.abs(u % np.float32(period) - period / 2) < 0.7
        alpha = cv2.GaussianBlur(lines.astype(np.uint8) * int(rng.integers(60, 220)), (0, 0), 0.6)
        image = blend(image, plain(size, theme.color()), alpha)
    return image, pick(rng, "paper", "cardboard", "sheet", "wallpaper"), pick(rng, "paper", "matte", "fibrous")


def foam(rng: Rng, size: int, photos: Photos) -> Surface:
    h = np.full((size, size), 0.75, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        distance, labels, _n = cells(rng, size, loguni(rng, 6, 40), rng.choice([0, 0.5]))
        radius = (0.8 + 0.4 * _threads(rng, labels, 1.0)) * np.float32(loguni(rng, 1.2, 6))
        h -= np.float32(rng.uniform(0.3, 0.7)) * np.clip(radius - distance, 0, 1)
    h = cv2.GaussianBlur(h, (0, 0), rng.uniform(0.5, 1.5)) + 0.06 * octaves(rng, size, 12, 0.8)
    return tint(rng, h), pick(rng, "foam", "sponge", "bread", "cork", "pumice"), pick(rng, "porous", "foam", "spongy")


def rust(rng: Rng, size: int, photos: Photos) -> Surface:
    a = octaves(rng, size, loguni(rng, 10, 90), rng.uniform(0.55, 0.85))
    theme = Theme(rng)
    image = tint(rng, normalise(a), theme)
    pits = np.clip((octaves(rng, size, loguni(rng, 2, 8), 0.6) - rng.uniform(0.5, 1.2)) * 160, 0, 255)
    image = blend(image, plain(size, theme.color()), pits.astype(np.uint8))
    return (
        image,
        pick(rng, "concrete", "cast iron", "wall", "asphalt", "patina"),
        pick(rng, "weathered", "rough", "cast"),
    )


def gabor(rng: Rng, size: int, photos: Photos) -> Surface:
    h = np.zeros((size, size), np.float32)
    period = loguni(rng, 3, 50)
    spread = rng.choice([0.05, 0.3, 3.0])
    centre = rng.uniform(0, math.pi)
    for _ in range(int(rng.integers(2, 6))):
        u, _v = grid(rng, size, float(centre + rng.normal(0, spread)))
        phase = rng.uniform(0.3, 2) * smooth(rng, size, period * rng.uniform(2, 8))
        h += np.cos(u * np.float32(6.283 / (period * loguni(rng, 0.7, 1.4))) + phase)
    return tint(rng, normalise(h)), pick(rng, "ripples", "sand", "corrugated surface", "fingerprint pattern"), "rippled"


def stripes(rng: Rng, size: int, photos: Photos) -> Surface:
    theme = Theme(rng)
    period = loguni(rng, 4, 110)
    u, v = grid(rng, size, wobble=rng.uniform(0, 0.05) * period)
    colors = np.array([theme.color() for _ in range(int(rng.integers(2, 6)))], np.float32)
    profile = np.repeat(colors[rng.integers(len(colors), size=16)], rng.integers(1, 9, 16), axis=0)
    n = len(profile)
    image = profile[((u * np.float32(n / period)).astype(np.int32)) % n]
    if chance(rng, 0.5):
        image = 0.5 * image + 0.5 * profile[((v * np.float32(n / period)).astype(np.int32)) % n]
    image = cv2.GaussianBlur(image, (0, 0), 0.6)
    image = grain(rng, np.clip(image, 0, 255).astype(np.uint8), rng.uniform(0.5, 8))
    name = pick(rng, "striped fabric", "plaid", "ribbon", "corrugated sheet", "blinds", "tablecloth")
    return image, name, pick(rng, "striped", "printed", "checked")


def photo(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw a window of a texture photograph: rescaled, turned, mirrored into tiles and recoloured."""
    sources = only(photos, 3)
    if not sources:
        return noise(rng, size, photos)
    source = sources[int(rng.integers(len(sources)))]
    side = min(source.shape[:2])
    window = float(min(loguni(rng, 0.2, 1.0) * side, side))
    y, x = rng.uniform(0, source.shape[0] - window), rng.uniform(0, source.shape[1] - window)
    crop = source[int(y) : int(y + window), int(x) : int(x + window)]
    scale = window / size
    if scale > 2:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        scale = 1.0
    repeat = 1.0 if chance(rng, 0.94) else rng.uniform(1.5, 5)
    angle = rand_angle(rng)
    # Turned squares shrink to fit the window, so that no mirrored corner shows.
    fit = 1.0 if repeat > 1 else abs(math.cos(angle)) + abs(math.sin(angle))
    k = scale * repeat / fit
    c, s = math.cos(angle) * k, math.sin(angle) * k
    h, w = crop.shape[:2]
    matrix = np.array([[c, s, w / 2 - (c + s) * size / 2], [-s, c, h / 2 - (c - s) * size / 2]])
    if repeat > 1.3:
        crop = cv2.GaussianBlur(crop, (0, 0), 0.35 * repeat)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(crop, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    roll = rng.random()
    if roll < 0.35:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        theme = Theme(rng, grey=roll < 0.3)
        image = tint(rng, normalise(grey), theme) if chance(rng, 0.25) else cv2.merge([cv2.convertScaleAbs(grey)] * 3)
    elif roll < 0.4:
        image = image[..., rng.permutation(3)]
    if chance(rng, 0.5):
        image = cv2.convertScaleAbs(image, alpha=loguni(rng, 0.6, 1.3), beta=float(rng.uniform(0, 30)))
    return np.ascontiguousarray(image), pick(rng, "texture", "surface", "material", "wall", "ground"), "natural"


TEXTURES: dict[str, tuple[Painter, float]] = {
    "weave": (weave, 2.0),
    "knit": (knit, 1.0),
    "noise": (noise, 1.0),
    "brushed": (brushed, 1.0),
    "wood": (wood, 1.2),
    "leather": (leather, 1.0),
    "marble": (marble, 0.7),
    "granite": (granite, 0.7),
    "carpet": (carpet, 1.0),
    "perforated": (perforated, 1.0),
    "mesh": (mesh, 1.2),
    "diamond_plate": (diamond_plate, 0.4),
    "tiles": (tiles, 1.2),
    "paper": (paper, 0.6),
    "foam": (foam, 0.6),
    "rust": (rust, 0.6),
    "gabor": (gabor, 0.5),
    "stripes": (stripes, 0.8),
    "photo": (photo, 5.0),
}
_NAMES = list(TEXTURES)
_WEIGHTS = np.array([w for _, w in TEXTURES.values()])


def any_texture(rng: Rng, size: int, photos: Photos) -> Surface:
    name = _NAMES[int(rng.choice(len(_NAMES), p=_WEIGHTS / _WEIGHTS.sum()))]
    return TEXTURES[name][0](rng, size, photos)


def texture_scene(painter: Painter) -> Callable[[Rng, int, Photos], Scene]:
    """Return a family of full-frame pictures from a painter."""

    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        image, name, material = painter(rng, size, photos)
        return Scene(lighting(rng, image, 0.4), full(size), name, material)

    return family
