"""Circuits drawn from above: traces and buses, pads, populated boards, chips."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import (
    Photos,
    Rng,
    Scene,
    Theme,
    chance,
    cuts,
    full,
    grain,
    lighting,
    loguni,
    pick,
    plain,
    turned,
    untilt,
)
from synthesis.scenes.drawing import FONTS, Color, box, box_mask, disc, level, text, word
from synthesis.scenes.surfaces.textures import any_texture


def _offset(points: np.ndarray, by: float) -> np.ndarray:
    """Return a polyline moved sideways with mitred bends, so that parallel traces stay parallel."""
    along = np.diff(points, axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    normal = np.stack([-along[:, 1], along[:, 0]], -1)
    first, second = np.concatenate([normal[:1], normal]), np.concatenate([normal, normal[-1:]])
    miter = (first + second) / (1 + np.sum(first * second, -1, keepdims=True)).clip(0.2)
    return points + by * miter


def bus(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float, width: float) -> None:
    """Draw parallel traces with shared 45-degree bends and pads at their ends; skip those that would touch others."""
    size = image.shape[0]
    n = int(rng.integers(1, 9))
    shortest = max(0.06 * size, n * pitch * 1.3)
    x, y = rng.uniform(-0.1, 1.0, 2) * size
    heading, turn = int(rng.integers(8)), int(rng.choice([-1, 1]))
    path = [(x, y)]
    for _ in range(int(rng.integers(1, 5))):
        reach = max(shortest, loguni(rng, 0.08, 0.6) * size)
        x, y = x + reach * math.cos(heading * math.pi / 4), y + reach * math.sin(heading * math.pi / 4)
        path.append((x, y))
        heading += turn
        turn = -turn
    ends = chance(rng, 0.7)
    radius = min(width * rng.uniform(0.9, 1.6), pitch * 0.45) if n > 1 else width * rng.uniform(0.9, 2.5)
    lines = [_offset(np.array(path), (k - (n - 1) / 2) * pitch) for k in range(n)]
    fixed = [(points * 8).astype(np.int32) for points in lines]
    claim = np.zeros_like(taken)
    cv2.polylines(claim, fixed, False, 255, round(max(width, 2 * radius) + pitch * 0.6), cv2.LINE_8, 3)
    if cv2.countNonZero(cv2.bitwise_and(claim, taken)):
        return
    cv2.bitwise_or(claim, taken, taken)
    cv2.polylines(image, fixed, False, color, max(1, round(width)), cv2.LINE_AA, 3)
    for points in lines if ends else ():
        for end in (points[0], points[-1]):
            disc(image, end[0], end[1], radius, color)
            if radius > 2.5:
                disc(image, end[0], end[1], radius * 0.45, dark)


def route(
    rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float, width: float
) -> None:
    """Draw traces along a grid that touch nothing, with pads at both ends."""
    size = image.shape[0]
    n = int(size / pitch) + 1
    blocked = cv2.resize(cv2.dilate(taken, np.ones((3, 3), np.uint8)), (n, n), interpolation=cv2.INTER_AREA) > 0
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    straight = rng.uniform(0.6, 0.95)
    diagonal = chance(rng, 0.6)
    radius = pitch * rng.uniform(0.25, 0.42)
    budget = min(420, n * n // 2)
    thickness = max(1, round(width))
    while budget > 0:
        budget -= 4
        i, j = (int(a) for a in rng.integers(n, size=2))
        if blocked[i, j]:
            continue
        blocked[i, j] = True
        heading = int(rng.integers(4)) * 2
        rolls = rng.random(24)
        path = [(j, i)]
        for k in range(int(rng.integers(2, 24))):
            if rolls[k] > straight:
                heading = (heading + (1 if diagonal else 2) * (1 if rolls[k] > 0.5 + straight / 2 else -1)) % 8
            di, dj = steps[heading][1], steps[heading][0]
            a, b = i + di, j + dj
            if not (0 <= a < n and 0 <= b < n) or blocked[a, b] or (di and dj and (blocked[i, b] or blocked[a, j])):
                break
            i, j = a, b
            blocked[i, j] = True
            path.append((j, i))
        budget -= len(path)
        points = (np.array(path) + 0.5) * pitch
        cv2.polylines(image, [(points * 8).astype(np.int32)], False, color, thickness, cv2.LINE_AA, 3)
        for x, y in (points[0], points[-1]):
            disc(image, x, y, radius, color)
            if radius > 2.5:
                disc(image, x, y, radius * 0.45, dark)


def _colors(rng: Rng) -> tuple[Color, Color, Color, Theme]:
    """Draw the colours of a board's ground, copper and silkscreen; pure black and white in a third."""
    roll = rng.random()
    theme = Theme(rng, grey=True if roll < 0.55 else None)
    if roll < 0.3:
        ground, trace = ((0.0,) * 3, (255.0,) * 3) if chance(rng, 0.6) else ((255.0,) * 3, (0.0,) * 3)
    else:
        ground, trace = theme.pair(loguni(rng, 25, 200))
    return ground, trace, theme.color(), theme


def circuit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw pads, footprints, buses, traces, vias and text marks without unwanted contacts."""
    width, angle = turned(rng, size)
    ground, trace, silk, _theme = _colors(rng)
    image = plain(width, ground)
    taken = np.zeros((width, width), np.uint8)
    pitch = loguni(rng, 6, 34)
    stroke = pitch * rng.uniform(0.15, 0.5)
    style = rng.integers(4)
    for _ in range(int(rng.integers(0, 6)) if chance(rng, 0.5) else 0):
        _pad_row(rng, image, taken, trace)
    for _ in range(int(rng.integers(1, 8)) if chance(rng, 0.4) else 0):
        _big_pad(rng, image, taken, trace, ground, pitch)
    if style != 0:
        for _ in range(int(rng.integers(6, 26))):
            thick = stroke * rng.choice([1, 1, 1, 1.6])
            bus(rng, image, taken, trace, ground, max(pitch * 0.7, thick * 2.1), thick)
    if style != 1:
        route(rng, image, taken, trace, ground, pitch, stroke)
    if chance(rng, 0.3):
        for _ in range(int(rng.integers(2, 6))):
            text(image, word(rng), *rng.uniform(0, width, 2), loguni(rng, 7, 20), silk, int(rng.choice(FONTS)))
    image = untilt(image, size, angle)
    if chance(rng, 0.5):
        image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "circuit board", "PCB", "printed circuit", "PCB layout", "line drawing", "circuit pattern")
    return Scene(image, full(size), name, pick(rng, "copper", "printed", "etched", "black and white"))


def claim_box(taken: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> bool:
    """Reserve a box of the board; return False if something is already there."""
    area = taken[max(0, int(y0)) : max(0, int(y1)), max(0, int(x0)) : max(0, int(x1))]
    if area.size == 0 or area.any():
        return False
    area[:] = 255
    return True


def _big_pad(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float) -> None:
    """Draw a large round or square pad, with or without a hole."""
    x, y = rng.uniform(0, image.shape[0], 2)
    r = pitch * rng.uniform(0.5, 1.6)
    if not claim_box(taken, x - 1.4 * r, y - 1.4 * r, x + 1.4 * r, y + 1.4 * r):
        return
    if chance(rng, 0.6):
        disc(image, x, y, r, color)
    else:
        box(image, x - r, y - r, x + r, y + r, color)
    if chance(rng, 0.5):
        disc(image, x, y, r * 0.45, dark)


def _pad_row(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color) -> None:
    """Draw a footprint: one or two rows of equal pads."""
    size = image.shape[0]
    n, pitch = int(rng.integers(2, 13)), loguni(rng, 5, 20)
    long, wide = pitch * rng.uniform(0.6, 2.5), pitch * rng.uniform(0.35, 0.65)
    gap = rng.choice([0, long * rng.uniform(1, 4)])
    x, y = rng.uniform(0, 0.8, 2) * size
    upright = chance(rng, 0.5)
    pad = 0.35 * pitch

    def at(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
        return (x + b, y + a, x + d, y + c) if upright else (x + a, y + b, x + c, y + d)

    if not claim_box(taken, *at(-pad, -pad, (n - 1) * pitch + wide + pad, long + pad + (gap + long if gap else 0))):
        return
    for k in range(n):
        box(image, *at(k * pitch, 0, k * pitch + wide, long), color)
        if gap:
            box(image, *at(k * pitch, gap + long, k * pitch + wide, gap + 2 * long), color)


def populated(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a board with chips, resistors, capacitors and their prints."""
    width, angle = turned(rng, size)
    ground, trace, silk, theme = _colors(rng)
    if chance(rng, 0.5) and not theme.grey:
        ground = (float(rng.uniform(0, 40)), float(rng.uniform(50, 120)), float(rng.uniform(20, 80)))
    image = plain(width, ground)
    pitch = loguni(rng, 7, 20)
    route(rng, image, np.zeros((width, width), np.uint8), trace, ground, pitch, pitch * 0.25)
    step = loguni(rng, 34, 90)
    metal, body = theme.color(low=140), theme.color(low=10, high=90)
    instances = []
    for y in cuts(rng, width, step, 0.2):
        for x in cuts(rng, width, step, 0.2):
            if chance(rng, 0.2):
                continue
            w, h = step * rng.uniform(0.25, 0.7), step * rng.uniform(0.2, 0.6)
            _part(rng, image, x, y, w, h, metal, body, silk)
            instances.append((x, y, x + w, y + h))
    image = grain(rng, untilt(image, size, angle), loguni(rng, 0.8, 7))
    masks: tuple[np.ndarray, ...] = ()
    if width == size and abs(angle) < 1e-6:
        masks = tuple(box_mask(size, b) for b in instances if min(b) > 2 and max(b) < size - 2)[:16]
    name = pick(rng, "circuit board", "PCB", "electronic board", "PCB assembly", "motherboard")
    return Scene(lighting(rng, image), full(size), name, pick(rng, "electronic", "soldered", "green"), masks)


def _part(
    rng: Rng, image: np.ndarray, x: float, y: float, w: float, h: float, metal: Color, body: Color, silk: Color
) -> None:
    """Draw an electronic component in the box (x, y, w, h)."""
    kind = rng.integers(4)
    if kind == 0:
        n = int(rng.integers(3, 9))
        for k in range(n):
            px = x + w * (k + 0.3) / n
            box(image, px, y, px + w * 0.45 / n, y + h, metal)
        box(image, x, y + h * 0.18, x + w, y + h * 0.82, body)
        text(image, word(rng, 2, 5), x + w * 0.08, y + h * 0.6, h * 0.25, silk)
    elif kind == 1:
        box(image, x, y, x + w, y + h * 0.6, metal)
        box(image, x + w * 0.22, y, x + w * 0.78, y + h * 0.6, body)
    elif kind == 2:
        r = min(w, h) / 2
        disc(image, x + r, y + r, r, metal)
        disc(image, x + r, y + r, r * 0.75, body)
        disc(image, x + r * 0.8, y + r * 0.8, r * 0.3, metal)
    else:
        n = int(rng.integers(2, 6))
        box(image, x, y, x + w, y + h * 0.5, silk)
        for k in range(n):
            disc(image, x + w * (k + 0.5) / n, y + h * 0.25, min(w / n, h * 0.5) * 0.33, metal)
            disc(image, x + w * (k + 0.5) / n, y + h * 0.25, min(w / n, h * 0.5) * 0.16, body)


def chip(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a package from above with pins on two or four sides, a dot and a marking."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    back, _, _ = any_texture(rng, width, photos) if chance(rng, 0.3) else (plain(width, theme.color()), "", "")
    image = back.copy()
    half = size * rng.uniform(0.2, 0.36)
    tall = half * rng.choice([1, 1, rng.uniform(0.4, 1)])
    c = width / 2
    metal, body, ink = theme.color(low=130), theme.color(high=110), theme.color(low=120)
    n, length = int(rng.integers(3, 16)), size * rng.uniform(0.03, 0.1)
    four = chance(rng, 0.5)
    mask = np.zeros((width, width, 3), np.uint8)
    pins = []
    for k in range(n):
        t = (k + 0.5) / n * 2 - 1
        thick = half / n * rng.uniform(0.5, 0.52)
        pins.append((c + t * half - thick, c - tall - length, c + t * half + thick, c + tall + length))
        if four:
            thin = min(thick, tall / n * 0.6)
            pins.append((c - half - length, c + t * tall - thin, c + half + length, c + t * tall + thin))
    for b in pins:
        box(image, *b, metal)
        box(mask, *b, level(255))
    box(mask, c - half, c - tall, c + half, c + tall, level(255))
    box(image, c - half, c - tall, c + half, c + tall, body)
    edge = half * rng.uniform(0.02, 0.1)
    box(image, c - half + edge, c - tall + edge, c + half - edge, c + tall - edge, theme.color(np.mean(body) * 1.2))
    disc(image, c - half * 0.75, c - tall * 0.65, half * 0.07, ink)
    rows, font = int(rng.integers(1, 4)), int(rng.choice(FONTS[:6]))
    for r in range(rows):
        high = min(tall * 0.7 / rows, half * 0.3)
        text(image, word(rng, 3, 8), c - half * 0.6, c - tall * 0.3 + (r + 0.5) * high * 1.4, high * 0.7, ink, font)
    image, shape = untilt(image, size, angle), untilt(mask, size, angle)[..., 0] > 127
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "chip", "integrated circuit", "microchip", "IC package", "electronic component")
    return Scene(
        image, shape, name, pick(rng, "black plastic", "electronic", "moulded"), (shape,), untilt(back, size, angle)
    )
