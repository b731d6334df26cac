"""Textures of metal: brushed, perforated, meshed from wire, embossed."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.scenes.base import (
    Photos,
    Rng,
    Surface,
    Theme,
    chance,
    grid,
    loguni,
    normalise,
    octaves,
    pick,
    rand_angle,
    smooth,
    tint,
    white,
)


def brushed(rng: Rng, size: int, photos: Photos) -> Surface:
    h = smooth(rng, size, loguni(rng, 1, 3), loguni(rng, 15, 120), rand_angle(rng))
    if chance(rng, 0.5):
        h = h + 0.4 * smooth(rng, size, loguni(rng, 3, 20), 30, rand_angle(rng))
    if chance(rng, 0.25):
        # Turned metal: the same grain bent around a centre.
        centre = (float(rng.uniform(-0.2, 1.2) * size), float(rng.uniform(-0.2, 1.2) * size))
        bars = cv2.GaussianBlur(white(rng, 1024, size), (0, 0), sigmaX=0.6, sigmaY=20)
        h = cv2.warpPolar(bars, (size, size), centre, size * 2.0, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    if chance(rng, 0.6):
        h = normalise(h, 0.5) + np.float32(rng.uniform(0.3, 1.5)) * smooth(rng, size, size * 0.7, 2, rand_angle(rng))
    theme = Theme(rng, grey=True) if chance(rng, 0.6) else Theme(rng)
    image = tint(rng, normalise(h, 0.2), theme, loguni(rng, 15, 150))
    return image, pick(rng, "metal sheet", "steel plate", "metal surface"), pick(rng, "brushed metal", "steel", "metal")


def perforated(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 5, 80)
    u, v = grid(rng, size, wobble=rng.uniform(0, 0.06) * period)
    row = np.floor(v / np.float32(period)) if chance(rng, 0.6) else np.float32(0)
    a = u / np.float32(period) + 0.5 * row
    b = v / np.float32(period)
    fa, fb = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
    kind = rng.integers(4)
    radius = rng.uniform(0.18, 0.4)
    if kind <= 1:
        d = np.sqrt(fa * fa + fb * fb)
    elif kind == 2:
        d = np.maximum(np.abs(fa), np.abs(fb))
    else:
        d = np.sqrt((fa * rng.uniform(0.4, 0.7)) ** 2 + fb * fb)
    edge = np.clip((radius - d) * np.float32(period), 0, 1)
    bevel = np.clip(1 - np.abs(d - radius) * np.float32(period / rng.uniform(1, 3)), 0, 1) * np.sign(fa + fb)
    h = edge * rng.uniform(0.5, 0.9) + bevel * rng.uniform(0, 0.4) + 0.05 * octaves(rng, size, 20, 0.9)
    image = tint(rng, h * 0.8 + 0.1, contrast=loguni(rng, 30, 220))
    name = pick(rng, "perforated plate", "speaker grille", "perforated sheet", "punched panel", "LED matrix")
    return image, name, pick(rng, "perforated", "metal", "plastic")


def mesh(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 5, 90)
    u, v = grid(rng, size, wobble=rng.uniform(0, 0.12) * period)
    if chance(rng, 0.3):
        u, v = u + v * np.float32(rng.uniform(0.3, 0.8)), v - u * np.float32(rng.uniform(0.2, 0.6))
    a, b = u / np.float32(period), v / np.float32(period * loguni(rng, 0.5, 2))
    fa, fb = np.abs(a - np.floor(a) - 0.5), np.abs(b - np.floor(b) - 0.5)
    wire = rng.uniform(0.05, 0.22)
    wa, wb = 1 - (fa / wire) ** 2, 1 - (fb / wire) ** 2
    over = (a.astype(np.int32) + b.astype(np.int32)) % 2 == 0
    h = np.maximum(wa, wb) if chance(rng, 0.5) else np.where(over & (wa > 0), wa, np.maximum(wb, wa - 0.3))
    gap = 0.1 * normalise(octaves(rng, size, loguni(rng, 3, 60), 0.6))
    h = np.where(h > 0, 0.45 + 0.5 * h, gap) + 0.04 * white(rng, size)
    image = tint(rng, h)
    return image, pick(rng, "grid", "wire mesh", "net", "screen", "fence", "sieve"), pick(rng, "wire", "mesh", "metal")


def diamond_plate(rng: Rng, size: int, photos: Photos) -> Surface:
    period = loguni(rng, 12, 80)
    u, v = grid(rng, size)
    a, b = u / np.float32(period), v / np.float32(period)
    ia, ib = np.floor(a), np.floor(b)
    fa, fb = a - ia - 0.5, b - ib - 0.5
    odd = (ia + ib) % 2 == 0
    x, y = np.where(odd, fa, fb), np.where(odd, fb, fa)
    slim = rng.uniform(0.08, 0.2)
    d = 1 - (x / 0.46) ** 2 - (y / slim) ** 2
    bump = np.sqrt(np.clip(d, 0, 1))
    h = 0.35 + 0.25 * bump * np.sign(y) + 0.3 * bump + 0.05 * octaves(rng, size, 25, 0.8)
    theme = Theme(rng, grey=chance(rng, 0.7))
    image = tint(rng, h, theme, loguni(rng, 40, 200))
    return image, pick(rng, "diamond plate", "tread plate", "anti-slip floor"), pick(rng, "embossed metal", "rubber")
