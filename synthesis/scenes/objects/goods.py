"""Rendered goods: stones and sweets, capsules, brushes, nuts, biscuits, bent things, toys, leaves, boxes."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Rng, Sprite, Theme, blend, chance, octaves, pick, plain, relight, smooth
from synthesis.scenes.drawing import box, disc, fill, line, polar, rounded, text, wobbly, word
from synthesis.scenes.objects.base import Look, Species, body_colour


def blob(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw ellipses, stones, beans or superellipses."""
    squash, power = rng.uniform(0.5, 1), rng.choice([2, 2, 2.6, 4])
    color, irregular = theme.color(), rng.choice([0, 0.02, 0.05, 0.1])
    t = np.arange(72) * (2 * math.pi / 72)
    base = (np.abs(np.cos(t)) ** power + np.abs(np.sin(t)) ** power) ** (-1 / power)
    base = 0.8 * base / base.max()

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = fill(side, polar(side, base * wobbly(rng, irregular), squash * rng.uniform(0.95, 1.05)))
        return look.shade(body_colour(rng, side, color, look.mottle), alpha)

    return Species(draw, pick(rng, "pebble", "bean", "candy", "button", "soap", "egg", "stone", "olive"), "smooth")


def capsule(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw capsules, tablets or batteries: a long round body in two colours with print or a groove."""
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
        image = body_colour(rng, side, first, look.mottle)
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


def brush(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw a handle with a head of bristle tufts in rows, a comb or a spatula."""
    rows, cols = int(rng.integers(2, 6)), int(rng.integers(4, 12))
    handle, tufts = theme.color(), [theme.color() for _ in range(int(rng.integers(1, 4)))]
    head, width = rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.2)

    def draw(rng: Rng, side: int) -> Sprite:
        alpha = np.zeros((side, side), np.uint8)
        box(alpha, 0.05 * side, (0.5 - width / 3) * side, 0.95 * side, (0.5 + width / 3) * side, 255)
        box(alpha, 0.05 * side, (0.5 - width) * side, (0.05 + head) * side, (0.5 + width) * side, 255)
        alpha = rounded(alpha, max(1, side * 0.015))
        image, alpha = look.shade(body_colour(rng, side, handle, look.mottle), alpha)
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
    """Draw hazelnut-like fruit: radial streaks and a pale cap."""
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
        image = blend(image, body_colour(rng, side, cap, 0.08, 0.05), patch)
        return look.shade(image, alpha)

    return Species(
        draw,
        pick(rng, "hazelnut", "nut", "chestnut", "walnut", "fruit", "acorn"),
        pick(rng, "brown", "natural", "shelled"),
    )


def cookie(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw baked discs, pralines or crackers: a rough surface with chips or docking holes."""
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
    """Draw bent thick strokes: cashews, macaroni, fryums, hooks, pipes, pasta springs."""
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
        image = body_colour(rng, side, color, look.mottle + 0.02)
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
    """Draw a figure from body, head, arms, legs and eyes; pose and proportions vary a little."""
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
        image = body_colour(rng, side, body, look.mottle)
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


def fibrous(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw leaves, feathers or fish-like outlines with a midrib and side veins."""
    color, vein = theme.color(low=50, high=200), theme.color()
    wide, n, slope = rng.uniform(0.15, 0.35), int(rng.integers(4, 16)), rng.uniform(0.3, 1.5)
    lobed = rng.choice([0, 0, 0.15])

    def draw(rng: Rng, side: int) -> Sprite:
        t = np.linspace(0, 1, 40)
        half = wide * np.sin(math.pi * t**0.8) * (1 + lobed * np.sin(t * 40)) * rng.uniform(0.9, 1.1)
        upper = np.stack([0.06 + 0.88 * t, 0.5 - half], -1)
        alpha = fill(side, np.concatenate([upper, upper[::-1] * [1, -1] + [0, 1]]) * side)
        image = body_colour(rng, side, color, look.mottle + 0.03)
        line(image, 0.06 * side, side / 2, 0.94 * side, side / 2, vein, max(1, side * 0.012))
        for x in np.linspace(0.1, 0.8, n):
            for sign in (-1, 1):
                line(image, x * side, side / 2, (x + wide / slope) * side, (0.5 + sign * wide) * side, vein)
        return look.shade(image, alpha)

    return Species(draw, pick(rng, "leaf", "feather", "fish", "seed", "petal"), pick(rng, "natural", "veined", "green"))


def box_thing(rng: Rng, theme: Theme, look: Look) -> Species:
    """Draw boxes, gum, phones, cards or slotted brackets: rectangles with an inner layout."""
    wide, tall = 0.42, rng.uniform(0.12, 0.42)
    color, trim, ink = theme.color(), theme.color(), theme.color()
    items = [
        (*rng.uniform(0.15, 0.7, 2), *rng.uniform(0.08, 0.3, 2), int(rng.integers(4)))
        for _ in range(int(rng.integers(0, 6)))
    ]
    label, soft, frame = word(rng, 3, 8), rng.uniform(0, 0.1), chance(rng, 0.5)

    def draw(rng: Rng, side: int) -> Sprite:
        image = body_colour(rng, side, color, look.mottle)
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
