"""Prints to be read: labels, bar codes and matrix codes, dials, rulers."""

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
    full,
    grain,
    lighting,
    loguni,
    pick,
    plain,
    turned,
    untilt,
)
from synthesis.scenes.drawing import FONTS, Color, disc, line, text, word


def label(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a printed label: lines of text, rules, a barcode, a logo."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    paper_color, ink = theme.pair(loguni(rng, 50, 220))
    image = plain(width, paper_color)
    y, margin = rng.uniform(0, 20), rng.uniform(0, 0.1) * width
    font = int(rng.choice(FONTS))
    while y < width:
        kind = rng.integers(6)
        height = loguni(rng, 8, 46)
        if kind <= 2:
            x = margin
            bold = 1 if height < 18 else int(rng.integers(1, 4))
            while x < width - margin:
                x += text(image, word(rng), x, y + height * 0.85, height, ink, font, bold) + height * 0.5
        elif kind == 3:
            line(image, margin, y + height / 2, width - margin, y + height / 2, ink, loguni(rng, 1, 5))
        elif kind == 4:
            _barcode(rng, image[int(y) : int(y + height)], ink, margin)
        else:
            shade = theme.color()
            for x in np.arange(margin, width, height * 1.5):
                disc(image, x + height / 2, y + height / 2, height * 0.4, shade)
        y += height * rng.uniform(1.1, 1.6)
    image = untilt(image, size, angle)
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 6)))
    name = pick(rng, "label", "printed text", "document", "packaging", "sticker", "box", "newspaper")
    return Scene(image, full(size), name, pick(rng, "printed", "paper", "cardboard"))


def _barcode(rng: Rng, band: np.ndarray, ink: Color, margin: float = 0) -> None:
    widths = rng.integers(1, 5, 400) * max(1, int(loguni(rng, 1, 4)))
    bits = np.repeat(np.arange(400) % 2, widths)[: band.shape[1]].astype(bool)
    bits[: int(margin)] = False
    band[:, bits] = np.array(ink, np.uint8)


def code(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw barcodes, matrix codes, Truchet tiles or mazes: irregular, but by rule."""
    theme = Theme(rng, grey=True if chance(rng, 0.4) else None)
    width, angle = turned(rng, size)
    light, dark = theme.pair(loguni(rng, 40, 250))
    pitch = int(loguni(rng, 4, 36))
    n = width // pitch + 2
    kind = rng.integers(4)
    if kind == 0:
        image = plain(width, light)
        _barcode(rng, image, dark)
        text(image, word(rng, 6, 12), width * 0.3, width * 0.98, 18, dark)
    elif kind == 1:
        bits = (rng.random((n, n)) < rng.uniform(0.35, 0.65)).astype(np.uint8)
        big = cv2.resize(bits, None, fx=pitch, fy=pitch, interpolation=cv2.INTER_NEAREST)[:width, :width]
        image = np.where(big[..., None] > 0, np.array(dark, np.uint8), np.array(light, np.uint8))
    else:
        image = plain(width, light)
        stroke = max(1, round(pitch * rng.uniform(0.1, 0.35)))
        n = min(n, 26)
        pitch = max(pitch, width // n + 1)
        bits = rng.random((n, n)) < 0.5
        for i in range(n):
            for j in range(n):
                _truchet(image, j * pitch, i * pitch, pitch, bool(bits[i, j]), kind == 2, dark, stroke)
    image = untilt(np.ascontiguousarray(image), size, angle)
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "barcode", "maze", "printed pattern", "matrix code", "print", "line pattern")
    return Scene(image, full(size), name, pick(rng, "printed", "black and white", "graphic"))


def _truchet(image: np.ndarray, x: int, y: int, p: int, flip: bool, arcs: bool, color: Color, stroke: int) -> None:
    if not arcs:
        ends = ((x, y), (x + p, y + p)) if flip else ((x + p, y), (x, y + p))
        cv2.line(image, *ends, color, stroke, cv2.LINE_AA)
        return
    corners = ((x, y, 0), (x + p, y + p, 180)) if flip else ((x + p, y, 90), (x, y + p, 270))
    for cx, cy, start in corners:
        cv2.ellipse(image, (cx, cy), (p // 2, p // 2), start, 0, 90, color, stroke, cv2.LINE_AA)


def dial(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw gauges, clocks and rulers: ticks, numbers, a needle."""
    theme = Theme(rng)
    face, ink = theme.pair(loguni(rng, 60, 220))
    image = plain(size, theme.color())
    c, r = size / 2, size * rng.uniform(0.36, 0.49)
    mask = np.zeros((size, size), np.uint8)
    if chance(rng, 0.3):
        return _ruler(rng, size, face, ink)
    disc(mask, c, c, r, 255)
    disc(image, c, c, r, theme.color())
    disc(image, c, c, r * rng.uniform(0.85, 0.95), face)
    start, sweep = rng.uniform(0, 6.28), rng.choice([6.2832, 4.7, 3.5])
    major, minor = int(rng.integers(4, 13)), int(rng.integers(1, 6))
    n = major * minor
    for k in range(n + 1):
        a = start + sweep * k / n
        inner = r * (0.68 if k % minor == 0 else 0.76)
        ca, sa = math.cos(a), math.sin(a)
        line(
            image,
            c + inner * ca,
            c + inner * sa,
            c + r * 0.82 * ca,
            c + r * 0.82 * sa,
            ink,
            2.2 if k % minor == 0 else 1,
        )
        if k % minor == 0:
            text(image, str(k // minor), c + r * 0.55 * ca - 6, c + r * 0.55 * sa + 5, r * 0.14, ink)
    for _ in range(int(rng.integers(1, 4))):
        a, long = rng.uniform(0, 6.28), r * rng.uniform(0.35, 0.7)
        line(
            image, c, c, c + long * math.cos(a), c + long * math.sin(a), theme.color(np.mean(ink)), loguni(rng, 1.5, 6)
        )
    disc(image, c, c, r * 0.06, ink)
    name = pick(rng, "gauge", "dial", "clock", "meter", "watch face")
    return Scene(lighting(rng, grain(rng, image, loguni(rng, 0.5, 6))), mask > 127, name, pick(rng, "printed", "metal"))


def _ruler(rng: Rng, size: int, face: Color, ink: Color) -> Scene:
    width, angle = turned(rng, size)
    image = plain(width, face)
    step = loguni(rng, 3, 12)
    band = loguni(rng, 50, 200)
    for top in np.arange(0, width, band):
        for k, x in enumerate(np.arange(0, width, step)):
            long = band * (0.4 if k % 10 == 0 else 0.28 if k % 5 == 0 else 0.18)
            line(image, x, top, x, top + long, ink)
            if k % 10 == 0:
                text(image, str(k // 10), x + 2, top + band * 0.65, min(18, band * 0.25), ink)
    image = lighting(rng, grain(rng, untilt(image, size, angle), loguni(rng, 0.5, 6)))
    return Scene(image, full(size), pick(rng, "ruler", "scale", "measuring tape"), pick(rng, "printed", "steel"))
