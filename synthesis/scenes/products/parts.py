"""Things in product pictures, shaded from height maps: soft, grown and packed ones.

`PARTS` also has those of `machined.py` and `electrics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, normalise, octaves, pick, smooth
from synthesis.scenes.drawing import box, disc, fill, polar, rounded, wobbly
from synthesis.scenes.products.electrics import cable_end, housing, leaded
from synthesis.scenes.products.machined import lathe, plate, round_part, spring
from synthesis.scenes.products.studio import Relief, Skin, Studio, Thing, photo_window, sober, sources_of, stamp


def lump(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a rounded body with a grown or baked surface: biscuit, nut, pasta, bread, sweet, soap, stone."""
    kind = pick(rng, "biscuit", "nut", "bean", "bread", "sweet", "bent", "stone", "ring")
    skin = Skin(rng, photos, extent, "photo" if chance(rng, 0.5) else "cast")
    tables = {
        "biscuit": ((150, 220), (100, 165), (50, 105)),
        "nut": ((105, 190), (70, 125), (40, 80)),
        "bean": ((60, 230), (40, 200), (30, 160)),
        "bread": ((160, 215), (105, 160), (55, 105)),
        "bent": ((200, 240), (165, 215), (90, 160)),
    }
    low_high = tables.get(kind)
    color = np.array([rng.uniform(*c) for c in low_high]) if low_high else np.array(sober(rng))
    gain = color / np.maximum(np.array(skin.color), 8)
    skin.bump *= 0.35  # crumb and shell are finer than castings
    squash, wobble, flat = rng.uniform(0.55, 1.0), loguni(rng, 0.008, 0.06), rng.uniform(0.12, 1.0)
    rough, mottle, bake = loguni(rng, 0.0006, 0.008), rng.uniform(0.03, 0.2), rng.uniform(0, 0.5)
    gloss = rng.uniform(0.3, 0.9) if kind in ("sweet", "bean") else rng.uniform(0, 0.25)
    bits = int(rng.integers(6, 26)) if kind == "biscuit" and chance(rng, 0.6) else 0
    bit_color, bit = np.array(sober(rng, 20, 120)), rng.uniform(0.02, 0.06)
    docks = kind == "biscuit" and not bits and chance(rng, 0.7)
    lobes = int(rng.integers(5, 30)) if kind == "biscuit" and chance(rng, 0.4) else 0
    streaks = kind == "nut"
    sweep, thick = rng.uniform(1.2, 4.5), rng.uniform(0.09, 0.2)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        c = side / 2
        if kind in ("bent", "ring"):
            arc = np.linspace(0, 6.2832 if kind == "ring" else sweep * rng.uniform(0.93, 1.07), 60)
            points = (c + (0.45 - thick) * side * np.stack([np.cos(arc), np.sin(arc)], -1)) * 8
            cv2.polylines(
                relief.alpha, [points.astype(np.int32)], kind == "ring", 255, max(2, int(thick * 2 * side)), 16, 3
            )
            reach = thick * side
        else:
            radii = 0.86 * wobbly(rng, wobble, 96)
            if lobes:
                radii = radii * (1 + 0.025 * np.cos(np.arange(96) * 6.2832 / 96 * lobes))
            relief.alpha = fill(side, polar(side, radii, squash * rng.uniform(0.97, 1.03)))
            reach = max(2.0, flat * squash * side * 0.43)
        depth = cv2.distanceTransform((relief.alpha > 127).astype(np.uint8), cv2.DIST_L2, 5)
        d = np.minimum(depth / np.float32(reach), 1)
        body = cv2.GaussianBlur(np.sqrt(d * (2 - d)), (0, 0), max(0.8, side * 0.015))
        relief.height += body * np.float32(min(reach, side * 0.3))
        relief.height += np.float32(rough * side) * octaves(rng, side, max(2.0, side * 0.06), 0.6)
        tone = 1 + np.float32(mottle) * smooth(rng, side, side * rng.uniform(0.1, 0.3))
        tone *= 1 - np.float32(bake) * (1 - body) ** 2
        if streaks:
            axis = np.linspace(-1, 1, side, dtype=np.float32)
            turn = np.arctan2(axis[:, None], axis[None] + np.float32(0.7))
            fine = rng.normal(0, 1, 256).astype(np.float32)
            tone *= 1 + np.float32(0.1) * fine[((turn + 3.1416) * 40).astype(np.int32) % 256]
        field = cv2.merge([tone * np.float32(g) for g in gain])
        relief.albedo = cv2.multiply(relief.albedo, np.maximum(field, 0), dtype=cv2.CV_8U)
        if bits:
            mask = relief.mask()
            for x, y in rng.uniform(-0.36, 0.36, (bits, 2)):
                disc(mask, c + x * side, c + y * side * squash, bit * side * rng.uniform(0.5, 1.2), 255)
            mask = cv2.min(mask, relief.alpha)
            relief.lift(mask, bit * 0.5, bit * 0.4)
            relief.albedo[mask > 127] = bit_color
        if docks:
            mask = relief.mask()
            for x in (-0.2, 0, 0.2):
                for y in (-0.2, 0, 0.2):
                    disc(mask, c + x * side, c + y * side * squash, 0.014 * side, 255)
            relief.lift(mask, -0.02, 0.006)
        relief.gloss = gloss
        return relief.shade(studio, angle)

    names = {
        "biscuit": ("biscuit", "cookie", "cracker"),
        "nut": ("hazelnut", "nut", "almond"),
        "bean": ("bean", "coffee bean", "olive"),
        "bread": ("bread roll", "bun", "pastry"),
        "sweet": ("candy", "soap", "chocolate", "tablet"),
        "bent": ("pasta", "macaroni", "cashew", "snack"),
        "stone": ("stone", "pebble", "potato"),
        "ring": ("ring", "seal ring", "doughnut"),
    }[kind]
    return Thing(draw, pick(rng, *names), pick(rng, "natural", "baked", "soft"), squash if kind != "ring" else 1.0)


def bristles(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a brush head: tufts of fine bristles, light tips over dark roots, set in a body."""
    skin = Skin(rng, photos, extent, "plastic")
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(5, 12))
    tall, corner = rng.uniform(0.16, 0.42), rng.uniform(0.3, 1.0)
    colors = [np.array(sober(rng, 90)) for _ in range(int(rng.integers(1, 4)))]
    order, spread = rng.integers(3), rng.uniform(0.4, 0.56)
    strand, lie = rng.uniform(1.5, 7), rng.uniform(0, math.pi)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        c = side / 2
        box(relief.alpha, *(c + side * np.array([-0.45, -tall - 0.03, 0.45, tall + 0.03])), 255)  # type: ignore[arg-type]
        relief.alpha = rounded(relief.alpha, max(1.0, corner * 0.035 * side))
        relief.lift(relief.alpha, 0.06, 0.02)
        fibres = smooth(rng, side, max(1.0, side * 0.008), strand, lie) + 0.5 * smooth(rng, side, side * 0.05)
        tips = np.clip(normalise(fibres, 0.13) + 0.28, 0.2, 1.2)
        radius = spread * side * min(0.84 / columns, 2 * tall / rows)
        for j in range(rows):
            for i in range(columns):
                x = c + side * 0.84 * ((i + 0.5) / columns - 0.5) + rng.normal() * side * 0.003
                y = c + side * 2 * tall * ((j + 0.5) / rows - 0.5) + rng.normal() * side * 0.003
                r = int(radius * 1.1) + 2
                area = (slice(max(int(y) - r, 0), int(y) + r), slice(max(int(x) - r, 0), int(x) + r))
                patch = relief.albedo[area]
                alpha = np.zeros(patch.shape[:2], np.uint8)
                disc(alpha, x - area[1].start, y - area[0].start, radius, 255)
                soft = alpha.astype(np.float32)[..., None] / 255
                color = colors[(i, j, min(j, rows - 1 - j))[order] % len(colors)]
                dark = 0.55 + 0.6 * cv2.GaussianBlur(alpha, (0, 0), radius * 0.5)[..., None] / 255  # roots lie in shade
                tuft = tips[area][..., None] * color * dark
                relief.albedo[area] = np.clip(patch * (1 - soft) + tuft * soft, 0, 255).astype(np.uint8)
                relief.height[area] += soft[..., 0] * np.float32(0.03 * side)
        return relief.shade(studio, angle)

    return Thing(draw, pick(rng, "brush", "toothbrush head", "brush head"), "bristle", min(1.0, 2.3 * tall))


def package(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a printed box, pouch, bar or card: blocks of colour, lines of text, a bar code, crimped ends."""
    skin = Skin(rng, photos, extent, str(rng.choice(["paint", "plastic", "photo"])))
    kind = pick(rng, "box", "pouch", "bar", "card")
    wide, tall = 0.44, rng.uniform(0.18, 0.44)
    inks = [np.array(sober(rng)) for _ in range(3)]
    at = rng.uniform(-0.6, 0.2, 2)
    blocks = [(-1.2, at[0], 2.4, rng.uniform(0.3, 1.0), 0), (at[1], -1.2, rng.uniform(0.3, 0.9), 2.4, 1)]
    blocks = [blocks[k] for k in rng.permutation(2)[: int(rng.integers(0, 3))]]
    n = int(rng.integers(1, 5))
    first, step = rng.uniform(-0.65, -0.3), rng.uniform(0.28, 0.4)
    lines = [(stamp(rng, 3, 10), float(rng.choice([-0.75, -0.2])), first + k * step, step * 0.6) for k in range(n)]
    bars = rng.random(26) < 0.5 if chance(rng, 0.4) else None
    picture = photo_window(rng, sources_of(photos, 3), 96) if sources_of(photos, 3) and chance(rng, 0.5) else None
    crimp = kind in ("pouch", "bar")
    swell, segments = rng.uniform(0.05, 0.25), int(rng.integers(2, 7)) if kind == "bar" and chance(rng, 0.5) else 0

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, skin), side / 2
        w, h = wide * side, tall * side
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) + rng.normal(0, 0.004, (4, 2)) * side + c
        relief.alpha = fill(side, corners)
        if kind == "card":
            relief.alpha = rounded(relief.alpha, max(1.0, 0.03 * side))
        for x, y, bw, bh, ink in () if segments else blocks:
            x0, y0 = c + x * w, c + y * h
            box(relief.albedo, x0, y0, x0 + bw * w, y0 + bh * h, inks[ink].tolist())
        if picture is not None and not segments:
            n = max(4, int(0.9 * min(w, h)))
            y0, x0 = int(c - n / 2), int(c - w * 0.8)
            relief.albedo[y0 : y0 + n, x0 : x0 + n] = cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA)
        for content, x, y, high in lines if side > 50 and not segments else ():
            space = (0.25 if bars is not None and y > 0.25 else 0.9) - x
            scale = max(min(high * h, space * w / (0.85 * len(content))), 4.0) / 22
            at = (int(c + x * w), int(c + y * h))
            cv2.putText(relief.albedo, content, at, 0, scale, inks[2].tolist(), max(1, int(scale * 2)), cv2.LINE_AA)
        if bars is not None and not segments:
            x0, y0, pitch = c + 0.35 * w, c + 0.4 * h, 0.5 * w / 26
            box(relief.albedo, x0 - pitch, y0 - 2, x0 + 27 * pitch, y0 + 0.42 * h, (240, 240, 238))
            for k in np.flatnonzero(bars):
                box(relief.albedo, x0 + k * pitch, y0, x0 + (k + 1) * pitch, y0 + 0.36 * h, (24, 24, 24))
        axis = np.linspace(-1, 1, side, dtype=np.float32)
        if crimp:
            u = np.clip(1 - (axis[None] / np.float32(1.7 * wide)) ** 4, 0, 1)
            v = np.clip(1 - (axis[:, None] / np.float32(2.2 * tall)) ** 2, 0, 1)
            relief.height += np.sqrt(u * v) * np.float32(swell * tall * 2 * side)
            relief.height += smooth(rng, side, side * 0.15) * np.float32(0.004 * side)
            ends = np.clip((np.abs(axis) - 1.72 * wide) * 60, 0, 1)[None]
            relief.height += ends * np.sin(axis * np.float32(side * 0.9))[None] * np.float32(0.008 * side)
        if segments:
            wave = np.abs(np.sin((axis / np.float32(2 * wide) + 0.5) * np.float32(math.pi * segments)))
            relief.height += np.minimum(wave * 3, 1)[None] * np.float32(0.03 * side)
        relief.lift(relief.alpha, 0.03, 0.008)
        return relief.shade(studio, angle, 0.25)

    names = {
        "box": ("box", "package", "carton"),
        "pouch": ("pouch", "bag", "sachet"),
        "bar": ("bar", "chocolate bar", "wafer", "chewing gum"),
        "card": ("card", "label", "cassette"),
    }[kind]
    return Thing(draw, pick(rng, *names), pick(rng, "printed", "plastic", "paper"), min(1.0, 2.3 * tall))


PARTS: dict[str, tuple[Callable[[Rng, Studio, Photos, int], Thing], float]] = {
    "round": (round_part, 3.0),
    "plate": (plate, 2.6),
    "lathe": (lathe, 2.4),
    "spring": (spring, 0.6),
    "lump": (lump, 2.2),
    "bristles": (bristles, 0.5),
    "package": (package, 1.1),
    "housing": (housing, 1.2),
    "cable_end": (cable_end, 0.4),
    "leaded": (leaded, 0.8),
}
_KINDS = list(PARTS)
_SHARES = np.array([w for _, w in PARTS.values()]) / sum(w for _, w in PARTS.values())


def any_part(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    return PARTS[_KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]][0](rng, studio, photos, extent)
