"""Rendered hardware: plates with bores, gears, rings, screws, cut cables, transistors."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Rng, Sprite, Theme, chance, pick, relight, white
from synthesis.scenes.drawing import box, disc, fill, line, polar, rounded, text, word
from synthesis.scenes.objects.base import Look, Species, body_colour


def polygon(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw rounded plates with regular corners, slots and an outline: brackets, tiles, parts."""
    n, color, ink = int(rng.integers(3, 9)), theme.color(), theme.color()
    squash, corner = rng.uniform(0.6, 1), rng.uniform(0.01, 0.08)
    holes = [(rng.uniform(0, 0.35), rng.uniform(0, 6.28), rng.uniform(0.04, 0.12)) for _ in range(rng.integers(0, 5))]
    symmetric = int(rng.integers(1, 7))
    rim = chance(rng, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = rounded(fill(side, polar(side, np.full(n, 0.85), squash)), max(1.0, corner * side))
        image = body_colour(rng, side, color, look.mottle)
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
    """Draw gears, nuts, washers or gaskets: a lobed outline with a bore."""
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
        image = body_colour(rng, side, color, look.mottle)
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
    """Draw round things from above: bottles, caps, lids, candles, bearings, plates."""
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
        image = body_colour(rng, side, colors[0], look.mottle)
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


def screw(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw screws, bolts, nails or pins from the side."""
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
        image = body_colour(rng, side, color, look.mottle)
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


def cable(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw the cross section of a cable: insulated cores full of strands in a sheath."""
    n, sheath = int(rng.integers(2, 5)), theme.color()
    cores = [theme.color() for _ in range(n)]
    inside, copper = theme.color(high=90), theme.color(low=120)
    strands, start = int(rng.integers(7, 40)), rng.uniform(0, 6.28)

    def draw(rng: Rng, side: int) -> Sprite:
        c = side / 2
        alpha = np.zeros((side, side), np.uint8)
        disc(alpha, c, c, 0.46 * side, 255)
        image = body_colour(rng, side, sheath, look.mottle)
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
    """Draw a transistor: a body with legs, a hole and a print."""
    legs, wide, tall = int(rng.integers(2, 6)), rng.uniform(0.18, 0.36), rng.uniform(0.12, 0.22)
    body, metal, ink = theme.color(high=110), theme.color(low=130), theme.color(low=120)
    tab, label = chance(rng, 0.5), word(rng, 3, 6)

    def draw(rng: Rng, side: int) -> Sprite:
        image = body_colour(rng, side, metal, look.mottle)
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
