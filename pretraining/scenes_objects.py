"""Rendered things on backgrounds: parts, food, toys, cables. A species is drawn once, its instances vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from scenes_base import (
    Photos,
    Rng,
    Scene,
    Theme,
    blend,
    chance,
    grain,
    lighting,
    loguni,
    normalise,
    octaves,
    pick,
    plain,
    relight,
    smooth,
    white,
)
from scenes_patterns import box, disc, line, text, word
from scenes_textures import any_texture

Color = Sequence[float]
Sprite = tuple[np.ndarray, np.ndarray]
Draw = Callable[[Rng, int], Sprite]


class Species:
    """How one kind of object looks: `draw(rng, side)` gives colour and alpha of one natural instance."""

    def __init__(self, draw: Draw, name: str, material: str, turns: bool = True) -> None:
        self.draw, self.name, self.material, self.turns = draw, name, material, turns


def polar(side: int, radii: np.ndarray, squash: float = 1.0) -> np.ndarray:
    """Contour from radii (relative to half a side) sampled evenly around the centre."""
    t = np.arange(len(radii)) * (2 * math.pi / len(radii))
    c = side / 2
    return np.stack([c + c * radii * np.cos(t), c + c * radii * squash * np.sin(t)], -1)


def fill(side: int, points: np.ndarray) -> np.ndarray:
    alpha = np.zeros((side, side), np.uint8)
    cv2.fillPoly(alpha, [(points * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    return alpha


def rounded(alpha: np.ndarray, radius: float) -> np.ndarray:
    """The same shape with corners rounded by about `radius` pixels."""
    field = cv2.GaussianBlur(alpha, (0, 0), radius).astype(np.float32)
    return np.clip((field - 127) * (1.2 * radius) + 127, 0, 255).astype(np.uint8)


def wobbly(rng: Rng, amount: float, n: int = 72, waves: int = 4) -> np.ndarray:
    """Radius profile 1 +- amount of low-frequency irregularity."""
    t = np.arange(n) * (2 * math.pi / n)
    total = np.zeros(n)
    for k in range(2, 2 + waves):
        total += rng.normal(0, 1) / k * np.cos(k * t + rng.uniform(0, 6.28))
    return 1 + amount * total


def dome(alpha: np.ndarray, roundness: float, light: float, strength: float, gloss: float = 0.0) -> np.ndarray:
    """Brightness factor of a rounded body: Lambert shading plus a soft highlight."""
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


def _body(rng: Rng, side: int, color: Color, amount: float, period: float = 0.15) -> np.ndarray:
    """A colour field with slight natural variation."""
    image = plain(side, color)
    return relight(image, (1 + amount * smooth(rng, side, max(2.0, side * period))).astype(np.float32))


class Look:
    """Shading shared by all instances of one picture."""

    def __init__(self, rng: Rng, photos: Photos = ()) -> None:
        self.skin: np.ndarray | None = None
        if chance(rng, 0.22):
            # Things made of a textured material: the texture modulates whatever colour they have.
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


def blob(rng: Rng, theme: Theme, look: Look) -> Species:
    """Ellipses, stones, beans, superellipses."""
    squash, power = rng.uniform(0.5, 1), rng.choice([2, 2, 2.6, 4])
    color, irregular = theme.color(), rng.choice([0, 0.02, 0.05, 0.1])
    t = np.arange(72) * (2 * math.pi / 72)
    base = (np.abs(np.cos(t)) ** power + np.abs(np.sin(t)) ** power) ** (-1 / power)
    base = 0.8 * base / base.max()

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = fill(side, polar(side, base * wobbly(rng, irregular), squash * rng.uniform(0.95, 1.05)))
        return look.shade(_body(rng, side, color, look.mottle), alpha)

    return Species(draw, pick(rng, "pebble", "bean", "candy", "button", "soap", "egg", "stone", "olive"), "smooth")


def polygon(rng: Rng, theme: Theme, look: Look) -> Species:
    """Rounded plates with regular corners, slots and an outline: brackets, tiles, parts."""
    n, color, ink = int(rng.integers(3, 9)), theme.color(), theme.color()
    squash, corner = rng.uniform(0.6, 1), rng.uniform(0.01, 0.08)
    holes = [(rng.uniform(0, 0.35), rng.uniform(0, 6.28), rng.uniform(0.04, 0.12)) for _ in range(rng.integers(0, 5))]
    symmetric = int(rng.integers(1, 7))
    rim = chance(rng, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = rounded(fill(side, polar(side, np.full(n, 0.85), squash)), max(1.0, corner * side))
        image = _body(rng, side, color, look.mottle)
        c = side / 2
        if rim:
            points = (polar(side, np.full(n, 0.62), squash) * 8).astype(np.int32)
            cv2.polylines(image, [points], True, ink, max(1, side // 60), cv2.LINE_AA, 3)
        for r, a, size in holes:
            for m in range(symmetric):
                b = a + m * 6.2832 / symmetric
                disc(alpha, c + r * side * math.cos(b), c + r * side * squash * math.sin(b), size * side * 0.6, 0)
        return look.shade(image, alpha)

    return Species(
        draw, pick(rng, "bracket", "plate", "part", "flange", "tile", "cover"), pick(rng, "metal", "plastic")
    )


def gear(rng: Rng, theme: Theme, look: Look) -> Species:
    """Gears, nuts, washers, gaskets: a lobed outline with a bore."""
    teeth, depth, sharp = int(rng.integers(3, 26)), rng.uniform(0.0, 0.3), rng.uniform(0.5, 8)
    bore, twist = rng.uniform(0.12, 0.65), rng.uniform(0, 1)
    color = theme.color(low=60)
    t = np.arange(240) * (2 * math.pi / 240)
    skew = t * teeth + twist * np.sin(t * teeth)
    profile = 0.9 - depth * 0.5 * (1 + np.tanh(sharp * np.sin(skew)) / math.tanh(sharp))
    bore = min(bore, profile.min() - 0.12)
    spokes, spoke_r = int(rng.choice([0, 0, 3, 4, 6])), (bore + profile.min()) / 2
    steps = [bore + (profile.min() - bore) * f for f in rng.uniform(0.2, 0.9, int(rng.integers(0, 3)))]
    hexagonal = chance(rng, 0.2)
    tone = theme.color(np.mean(color) * rng.uniform(0.6, 1.3))

    def draw(rng: Rng, side: int) -> Sprite:
        c = side / 2
        alpha = fill(side, polar(side, profile))
        image = _body(rng, side, color, look.mottle)
        for r in steps:
            disc(image, c, c, r * c, tone, max(1, side // 70))
        if spokes:
            for k in range(spokes):
                a = k * 6.2832 / spokes
                disc(alpha, c + spoke_r * c * math.cos(a), c + spoke_r * c * math.sin(a), (spoke_r - bore) * c * 0.6, 0)
        if bore > 0.08:
            if hexagonal:
                cv2.fillPoly(alpha, [(polar(side, np.full(6, bore)) * 8).astype(np.int32)], 0, cv2.LINE_AA, 3)
            else:
                disc(alpha, c, c, bore * c, 0)
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "metal nut", "gear", "washer", "gasket", "ring", "cog", "star nut"),
        pick(rng, "metal", "steel", "rubber"),
    )


def rings(rng: Rng, theme: Theme, look: Look) -> Species:
    """Round things from above: bottles, caps, lids, candles, bearings, plates."""
    n = int(rng.integers(2, 8))
    radii = np.sort(rng.uniform(0.1, 0.85, n))[::-1]
    radii[0] = 0.88
    colors = [theme.color() for _ in range(n)]
    balls = int(rng.choice([0, 0, 0, rng.integers(6, 24)]))
    glints = [(rng.uniform(0, 360), rng.uniform(10, 70), rng.integers(n)) for _ in range(int(rng.integers(0, 4)))]
    shine = theme.color(low=200, high=255)

    def draw(rng: Rng, side: int) -> Sprite:
        c = side / 2
        alpha = np.zeros((side, side), np.uint8)
        disc(alpha, c, c, radii[0] * c, 255)
        image = _body(rng, side, colors[0], look.mottle)
        wick = rng.normal(0, 0.01, 2) * side
        for r, color in zip(radii[1:], colors[1:], strict=True):
            disc(image, c + wick[0], c + wick[1], r * c, color)
        for k in range(balls):
            a = k * 6.2832 / balls
            r = radii[:2].mean() * c
            disc(image, c + r * math.cos(a), c + r * math.sin(a), (radii[0] - radii[1]) * c * 0.4, colors[-1])
        for start, sweep, k in glints:
            r = int(radii[k] * c * 0.93)
            cv2.ellipse(
                image, (int(c), int(c)), (r, r), 0, start, start + sweep, shine, max(1, side // 60), cv2.LINE_AA
            )
        return look.shade(image, alpha)

    names = ("bottle", "bottle cap", "lid", "candle", "bearing", "jar", "can", "button", "wheel", "lens", "speaker")
    return Species(draw, pick(rng, *names), pick(rng, "glass", "plastic", "metal", "wax"), turns=False)


def capsule(rng: Rng, theme: Theme, look: Look) -> Species:
    """Capsules, tablets, batteries: a long round body in two colours with print or a groove."""
    wide = rng.uniform(0.25, 0.9)
    first, second, ink = theme.color(low=80), theme.color(low=60), theme.color()
    split, mark, label = rng.uniform(0.35, 0.65), rng.integers(3), word(rng, 2, 5)

    def draw(rng: Rng, side: int) -> Sprite:
        r = side * wide / 2 * 0.9
        c, reach = side / 2, max(0.45 * side - side * wide / 2 * 0.9, 0.0)
        alpha = np.zeros((side, side), np.uint8)
        box(alpha, c - reach, c - r, c + reach, c + r, 255)
        disc(alpha, c - reach, c, r, 255)
        disc(alpha, c + reach, c, r, 255)
        image = _body(rng, side, first, look.mottle)
        if mark != 1:
            box(image, split * side, 0, side, side, second)
        else:
            line(image, c, c - r, c, c + r, second, max(1.0, side * 0.025))
        if mark != 2 and side > 30:
            text(image, label, c - reach * 0.6 - r * 0.4, c + r * 0.25, r * 0.7, ink)
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "capsule", "pill", "tablet", "battery", "fuse", "lozenge"),
        pick(rng, "coated", "glossy", "plastic"),
    )


def screw(rng: Rng, theme: Theme, look: Look) -> Species:
    """Screws, bolts, nails and pins seen from the side."""
    head, shaft, tip = rng.uniform(0.12, 0.28), rng.uniform(0.06, 0.14), rng.uniform(0, 0.2)
    length, pitch = rng.uniform(0.1, 0.25), rng.uniform(0.025, 0.08)
    color = theme.color(low=80)
    dark = theme.color(np.mean(color) * 0.5)
    threaded = chance(rng, 0.8)
    start = rng.uniform(0.3, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        x = np.array([0.06, 0.06, 0.06 + length, 0.06 + length, 0.94 - tip, 0.94])
        y = np.array([head * 0.6, head, head if length < 0.18 else shaft, shaft, shaft, 0.01])
        upper = np.stack([x, 0.5 - y], -1)
        if threaded:
            t = np.arange(start, 0.92 - tip, pitch / 2)
            zig = np.stack([t, 0.5 - shaft - 0.02 * (np.arange(len(t)) % 2)], -1)
            upper = np.concatenate([upper[:4], zig, upper[4:]])
        lower = upper[::-1] * [1, -1] + [0, 1]
        alpha = fill(side, np.concatenate([upper, lower]) * side)
        image = _body(rng, side, color, look.mottle)
        if threaded:
            for p in np.arange(start, 0.92 - tip, pitch):
                line(
                    image,
                    p * side,
                    (0.48 - shaft) * side,
                    (p + pitch * 0.5) * side,
                    (0.52 + shaft) * side,
                    dark,
                    pitch * side * 0.3,
                )
        return look.shade(image, alpha)

    return Species(draw, pick(rng, "screw", "bolt", "fastener", "nail", "pin"), pick(rng, "metal", "steel", "brass"))


def brush(rng: Rng, theme: Theme, look: Look) -> Species:
    """A handle with a head of bristle tufts in rows, or a comb or a spatula."""
    rows, cols = int(rng.integers(2, 6)), int(rng.integers(4, 12))
    handle, tufts = theme.color(), [theme.color() for _ in range(int(rng.integers(1, 4)))]
    head, width = rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.2)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = np.zeros((side, side), np.uint8)
        box(alpha, 0.05 * side, (0.5 - width / 3) * side, 0.95 * side, (0.5 + width / 3) * side, 255)
        box(alpha, 0.05 * side, (0.5 - width) * side, (0.05 + head) * side, (0.5 + width) * side, 255)
        alpha = rounded(alpha, max(1, side * 0.015))
        image, alpha = look.shade(_body(rng, side, handle, look.mottle), alpha)
        for i in range(cols):
            for j in range(rows):
                x = (0.05 + head * (i + 0.5) / cols) * side + rng.normal(0, 0.003) * side
                y = (0.5 - width + 2 * width * (j + 0.5) / rows) * side + rng.normal(0, 0.003) * side
                r = 0.42 * side * min(head / cols, 2 * width / rows)
                disc(image, x, y, r, tufts[j % len(tufts)])
                disc(
                    image,
                    x - r * 0.2,
                    y - r * 0.2,
                    r * 0.5,
                    np.minimum(np.array(tufts[j % len(tufts)]) * 1.25, 255).tolist(),
                )
        return image, alpha

    return Species(draw, pick(rng, "toothbrush", "brush", "brush head"), pick(rng, "plastic", "bristle"))


def nut(rng: Rng, theme: Theme, look: Look) -> Species:
    """Hazelnut-like fruit: radial streaks and a pale cap."""
    color, cap = theme.color(low=60, high=190), theme.color(low=120)
    lobes, capsize = int(rng.integers(8, 40)), rng.uniform(0.2, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = fill(side, polar(side, 0.82 * wobbly(rng, 0.05), rng.uniform(0.85, 1)))
        axis = np.linspace(-1, 1, side, dtype=np.float32)
        theta = np.arctan2(axis[:, None], axis[None, :] + np.float32(0.6))
        streak = np.sin(theta * lobes + 0.8 * smooth(rng, side, side * 0.2))
        factor = 1 + 0.12 * streak + 0.1 * octaves(rng, side, max(2, side * 0.15), 0.7)
        image = relight(plain(side, color), factor.astype(np.float32))
        patch = np.zeros((side, side), np.uint8)
        disc(patch, side * 0.16, side * 0.5, capsize * side / 2, 230)
        patch = cv2.GaussianBlur(patch, (0, 0), max(1, side * 0.02))
        image = blend(image, _body(rng, side, cap, 0.08, 0.05), patch)
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "hazelnut", "nut", "chestnut", "walnut", "fruit", "acorn"),
        pick(rng, "brown", "natural", "shelled"),
    )


def cookie(rng: Rng, theme: Theme, look: Look) -> Species:
    """Baked discs, pralines and crackers: rough surface with chips or docking holes."""
    color, chip = theme.color(low=90, high=220), theme.color(high=110)
    n, rough, regular = int(rng.integers(0, 26)), rng.uniform(0.05, 0.25), chance(rng, 0.3)
    squash = rng.uniform(0.7, 1)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = fill(side, polar(side, 0.84 * wobbly(rng, 0.03), squash))
        factor = 1 + rough * octaves(rng, side, max(2.0, side * 0.12), 0.75)
        image, _ = look.shade(relight(plain(side, color), factor.astype(np.float32)), alpha)
        for k in range(n):
            a, r = (
                (k * 2.4, 0.4 * math.sqrt((k + 0.5) / n))
                if regular
                else (rng.uniform(0, 6.28), 0.38 * math.sqrt(rng.random()))
            )
            s = side * (0.02 if regular else rng.uniform(0.02, 0.05))
            x, y = side * (0.5 + r * math.cos(a)), side * (0.5 + r * squash * math.sin(a))
            disc(image, x, y, s, chip)
        return image, alpha

    return Species(
        draw, pick(rng, "cookie", "biscuit", "cracker", "bun", "cake", "chocolate"), pick(rng, "baked", "crunchy")
    )


def bent(rng: Rng, theme: Theme, look: Look) -> Species:
    """Bent thick strokes: cashews, macaroni, fryums, hooks, pipes, springs of pasta."""
    sweep, thick = rng.uniform(0.6, 5.2), rng.uniform(0.1, 0.34)
    taper, color = rng.uniform(0, 0.5), theme.color(low=70)
    hollow = chance(rng, 0.3)
    vary = rng.uniform(0, 0.15)

    def draw(rng: Rng, side: int) -> Sprite:
        arc = np.linspace(-sweep / 2, sweep / 2, 14) * (1 + vary * rng.normal())
        radius = min(0.42 - thick / 2, 0.9 / sweep)
        alpha = np.zeros((side, side), np.uint8)
        cx = 0.5 - radius * (math.sin(sweep / 2) / (sweep / 2))
        for k, a in enumerate(arc):
            w = thick / 2 * (1 - taper * abs(k / 6.5 - 1)) * side
            disc(alpha, (cx + radius * math.cos(a)) * side, (0.5 + radius * math.sin(a)) * side, w, 255)
        points = np.stack([cx + radius * np.cos(arc), 0.5 + radius * np.sin(arc)], -1) * side * 8
        cv2.polylines(
            alpha, [points.astype(np.int32)], False, 255, max(1, int(thick * (1 - taper) * side)), cv2.LINE_AA, 3
        )
        image = _body(rng, side, color, look.mottle + 0.02)
        if hollow:
            end = points[0] / 8
            disc(image, end[0], end[1], thick * 0.3 * side, [c * 0.4 for c in color])
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "cashew", "macaroni", "fryum", "hook", "pipe fryum", "bean", "snack"),
        pick(rng, "curved", "fried", "natural"),
    )


def toy(rng: Rng, theme: Theme, look: Look) -> Species:
    """Figures from limbs: body, head, arms, legs, eyes; pose and proportions vary a little."""
    body, eye = theme.color(low=60, high=220), theme.color()
    tall, wide, head = rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.22), rng.uniform(0.08, 0.18)
    limbs = [
        (rng.uniform(0.5, 2.8), rng.uniform(0.15, 0.38), rng.uniform(0.03, 0.07))
        for _ in range(int(rng.integers(1, 4)))
    ]
    ears, belly = rng.choice([0, 0, 0.05, 0.08]), chance(rng, 0.3)
    symmetric, vary = chance(rng, 0.7), rng.uniform(0.01, 0.12)
    tone = theme.color(np.mean(body) * rng.uniform(0.8, 1.2)) if chance(rng, 0.3) else body
    light_belly = theme.color(np.mean(body) * 1.25)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = np.zeros((side, side), np.uint8)
        image = _body(rng, side, body, look.mottle)
        c, up = side * 0.5, side * (0.55 - tall)
        cv2.ellipse(
            alpha,
            (int(c * 8), int(side * 0.55 * 8)),
            (int(wide * side * 8), int(tall * side * 8)),
            0,
            0,
            360,
            255,
            -1,
            cv2.LINE_AA,
            3,
        )
        if belly:
            disc(image, c, side * 0.58, wide * side * 0.7, light_belly)
        for a, long, thick in limbs:
            for sign in (-1, 1) if symmetric else (1,):
                b = a + vary * rng.normal()
                y0 = side * (0.55 - tall * 0.6 * math.cos(a))
                x1, y1 = c + sign * long * side * math.sin(b) * 1.1, y0 - long * side * math.cos(b)
                x1, y1 = np.clip([x1, y1], side * 0.09, side * 0.91)
                line(alpha, c, y0, x1, y1, 255, thick * 2 * side)
                disc(alpha, x1, y1, thick * side, 255)
                disc(image, x1, y1, thick * side, tone)
        hx = c + vary * rng.normal() * side * 0.1
        hy = max(up, side * (head + 0.06))
        disc(alpha, hx, hy, head * side, 255)
        if ears:
            for sign in (-1, 1):
                disc(alpha, hx + sign * head * side * 0.75, hy - head * side * 0.7, ears * side, 255)
        image, alpha = look.shade(image, alpha)
        for sign in (-1, 1):
            disc(image, hx + sign * head * side * 0.4, hy - head * side * 0.1, head * side * 0.16, eye)
        return image, alpha

    return Species(
        draw,
        pick(rng, "toy figure", "figurine", "doll", "gummy bear", "toy", "gingerbread man"),
        pick(rng, "plastic", "rubber", "soft"),
    )


def cable(rng: Rng, theme: Theme, look: Look) -> Species:
    """Cross section of a cable: insulated cores full of strands in a sheath."""
    n, sheath = int(rng.integers(2, 5)), theme.color()
    cores = [theme.color() for _ in range(n)]
    inside, copper = theme.color(high=90), theme.color(low=120)
    strands, start = int(rng.integers(7, 40)), rng.uniform(0, 6.28)

    def draw(rng: Rng, side: int) -> Sprite:
        c = side / 2
        alpha = np.zeros((side, side), np.uint8)
        disc(alpha, c, c, 0.46 * side, 255)
        image = _body(rng, side, sheath, look.mottle)
        disc(image, c, c, 0.38 * side, inside)
        r = 0.38 * math.sin(math.pi / n) / (1 + math.sin(math.pi / n)) * 0.96
        for k in range(n):
            a = start + k * 6.2832 / n + rng.normal(0, 0.02)
            x, y = c + (0.38 - r) * side * math.cos(a), c + (0.38 - r) * side * math.sin(a)
            disc(image, x, y, r * side, cores[k])
            disc(image, x, y, r * side * 0.68, inside)
            s = 0.6 * r * side
            for m in range(strands):
                b, d = m * 2.39996 + a, s * math.sqrt((m + 0.5) / strands)
                disc(image, x + d * math.cos(b), y + d * math.sin(b), s / math.sqrt(strands) * 0.9, copper)
        return relight(image, (1 + 0.06 * white(rng, side)).astype(np.float32)), alpha

    return Species(draw, pick(rng, "cable", "cable cross section", "wire bundle"), pick(rng, "copper", "insulated"))


def transistor(rng: Rng, theme: Theme, look: Look) -> Species:
    """A body with legs, a hole and a print."""
    legs, wide, tall = int(rng.integers(2, 6)), rng.uniform(0.18, 0.36), rng.uniform(0.12, 0.22)
    body, metal, ink = theme.color(high=110), theme.color(low=130), theme.color(low=120)
    tab, label = chance(rng, 0.5), word(rng, 3, 6)

    def draw(rng: Rng, side: int) -> Sprite:
        image = _body(rng, side, metal, look.mottle)
        alpha = np.zeros((side, side), np.uint8)
        top = 0.3 * side
        bottom = top + 2 * tall * side
        for k in range(legs):
            x = side * (0.5 - wide + 2 * wide * (k + 0.5) / legs)
            line(alpha, x, bottom, x + rng.normal(0, 0.003) * side, 0.94 * side, 255, side * wide / legs * 0.7)
        box(alpha, (0.5 - wide) * side, top, (0.5 + wide) * side, bottom, 255)
        if tab:
            box(alpha, (0.5 - wide * 0.9) * side, 0.08 * side, (0.5 + wide * 0.9) * side, top, 255)
            disc(alpha, side * 0.5, 0.19 * side, 0.06 * side, 0)
        shaded, alpha = look.shade(image, alpha)
        box(shaded, (0.5 - wide) * side, top, (0.5 + wide) * side, bottom, body)
        text(shaded, label, side * (0.52 - wide), (top + bottom) / 2, wide * side * 0.45, ink)
        return shaded, alpha

    return Species(
        draw, pick(rng, "transistor", "capacitor", "electronic component", "sensor"), pick(rng, "electronic", "metal")
    )


def fibrous(rng: Rng, theme: Theme, look: Look) -> Species:
    """Leaves, feathers, fish-like outlines with a midrib and side veins."""
    color, vein = theme.color(low=50, high=200), theme.color()
    wide, n, slope = rng.uniform(0.15, 0.35), int(rng.integers(4, 16)), rng.uniform(0.3, 1.5)
    lobed = rng.choice([0, 0, 0.15])

    def draw(rng: Rng, side: int) -> Sprite:
        t = np.linspace(0, 1, 40)
        half = wide * np.sin(math.pi * t**0.8) * (1 + lobed * np.sin(t * 40)) * rng.uniform(0.9, 1.1)
        upper = np.stack([0.06 + 0.88 * t, 0.5 - half], -1)
        alpha = fill(side, np.concatenate([upper, upper[::-1] * [1, -1] + [0, 1]]) * side)
        image = _body(rng, side, color, look.mottle + 0.03)
        line(image, 0.06 * side, side / 2, 0.94 * side, side / 2, vein, max(1, side * 0.012))
        for x in np.linspace(0.1, 0.8, n):
            for sign in (-1, 1):
                line(image, x * side, side / 2, (x + wide / slope) * side, (0.5 + sign * wide) * side, vein)
        return look.shade(image, alpha)

    return Species(draw, pick(rng, "leaf", "feather", "fish", "seed", "petal"), pick(rng, "natural", "veined", "green"))


def box_thing(rng: Rng, theme: Theme, look: Look) -> Species:
    """Boxes, gum, phones, cards, brackets with slots: rectangles with an inner layout."""
    wide, tall = 0.42, rng.uniform(0.12, 0.42)
    color, trim, ink = theme.color(), theme.color(), theme.color()
    items = [
        (*rng.uniform(0.15, 0.7, 2), *rng.uniform(0.08, 0.3, 2), int(rng.integers(4)))
        for _ in range(int(rng.integers(0, 6)))
    ]
    label, soft, frame = word(rng, 3, 8), rng.uniform(0, 0.1), chance(rng, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        image = _body(rng, side, color, look.mottle)
        alpha = np.zeros((side, side), np.uint8)
        corners = np.array([[-wide, -tall], [wide, -tall], [wide, tall], [-wide, tall]])
        corners = corners + rng.normal(0, 0.004 + soft * 0.1, (4, 2)) + 0.5
        alpha = fill(side, corners * side)
        if soft > 0.02:
            alpha = rounded(alpha, max(1, soft * side))
        if frame:
            box(image, *((0.5 + np.array([-wide, -tall, wide, tall]) * 0.86) * side), trim)
        for x, y, w, h, kind in items:
            x0, y0 = side * (0.5 - wide + 2 * wide * x), side * (0.5 - tall + 2 * tall * y)
            x1, y1 = x0 + 2 * wide * w * side, y0 + 2 * tall * h * side
            if kind == 0:
                box(image, x0, y0, x1, y1, ink)
            elif kind == 1:
                disc(image, x0, y0, (y1 - y0) / 2, ink)
            elif kind == 2:
                text(image, label, x0, y1, (y1 - y0), ink)
            else:
                for k in range(4):
                    line(image, x0, y0 + (y1 - y0) * k / 4, x1, y0 + (y1 - y0) * k / 4, ink, max(1, side / 120))
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "box", "chewing gum", "phone", "card", "remote control", "eraser", "wafer biscuit", "package"),
        pick(rng, "plastic", "printed", "soft"),
    )


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
    """Plain, shaded, grained or textured ground; a conveyor or a tray's lines."""
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


def places(rng: Rng, size: int, alone: bool = True) -> list[tuple[float, float, float]]:
    """(x, y, side) of the instances: one large, a grid or a loose heap without overlap."""
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
    found: list[tuple[float, float, float]] = []
    limit = int(rng.integers(2, 5)) if kind == 2 else 14
    for _ in range(40):
        x, y = rng.uniform(side * 0.5, size - side * 0.5, 2)
        if all((x - a) ** 2 + (y - b) ** 2 > (side * 0.92) ** 2 for a, b, _s in found):
            found.append((float(x), float(y), side * rng.uniform(0.93, 1.03)))
        if len(found) >= limit:
            break
    return found


def object_family(which: str) -> Callable[[Rng, int, Photos], Scene]:
    """A family of pictures with instances of one species."""

    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        theme, look = Theme(rng), Look(rng, photos)
        species = SPECIES[which][0](rng, theme, look)
        return assemble(rng, size, photos, theme, look, [species], places(rng, size))

    return family


_KINDS = list(SPECIES)


def kit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Several different things together: a set, a lunch box, a sorted tray. No order but its own."""
    theme, look = Theme(rng), Look(rng, photos)
    kinds = rng.choice(len(_KINDS), int(rng.integers(2, 5)))
    species = [SPECIES[_KINDS[k]][0](rng, theme if chance(rng, 0.5) else Theme(rng), look) for k in kinds]
    spots = places(rng, size, alone=False)
    scene = assemble(rng, size, photos, theme, look, species, spots)
    name = pick(rng, "kit", "set of parts", "assortment", "tray of objects", "food box", "toolbox", "collection")
    return replace(scene, name=name, material=pick(rng, "mixed", "assorted", "sorted"))


def heap(rng: Rng, size: int, photos: Photos) -> Scene:
    """Bulk goods: many instances of one species lying over one another."""
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
        species = kinds[k % len(kinds)]  # by turns: a single odd one among equals would look like a defect
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
