"""Healthy bodies in optical images: mucosa, skin, eyes.

`BODIES` also has the families of `scans.py`, `echoes.py` and `cells.py`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Family, Photos, Rng, Scene, blend, cells, chance, full, loguni, paint, pick, relight
from synthesis.scenes.bodies.base import (
    body_plane,
    draw_branches,
    draw_oval,
    flat_colour,
    octaves,
    smooth,
    toned,
    write_marks,
)
from synthesis.scenes.bodies.cells import blood, histology
from synthesis.scenes.bodies.echoes import oct_scan, sonogram
from synthesis.scenes.bodies.scans import SCANS


def _table(*colours: tuple[float, float, float]) -> np.ndarray:
    """Return a colour table of 256 entries through the given colours."""
    at, where = np.linspace(0, 1, len(colours)), np.linspace(0, 1, 256)
    knots = np.array(colours)
    return np.clip(np.stack([np.interp(where, at, knots[:, k]) for k in range(3)], -1), 0, 255).astype(np.uint8)


def _window(rng: Rng, size: int) -> np.ndarray:
    """Draw the field of view of an endoscope (uint8): all, a disc, an octagon or a square with cut corners."""
    shape = np.zeros((size, size), np.uint8)
    kind, half = rng.random(), size / 2
    if kind < 0.3:
        shape[:] = 255
    elif kind < 0.5:
        cv2.circle(shape, (int(half), int(half)), int(size * rng.uniform(0.45, 0.62)), 255, -1, cv2.LINE_AA)
    else:
        w, h, cut = half * rng.uniform(0.85, 1.0), half * rng.uniform(0.8, 1.0), half * rng.uniform(0.1, 0.55)
        corners = [(-w, -h + cut), (-w + cut, -h), (w - cut, -h), (w, -h + cut)]
        corners += [(-a, -b) for a, b in corners]
        points = (np.array(corners) + half + rng.normal(0, 0.02, 2) * size) * 8
        cv2.fillPoly(shape, [points.astype(np.int32)], 255, cv2.LINE_AA, 3)
    return shape


def mucosa(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw the inside of a bowel or stomach: folds around a dark lumen or a wall near by, fine vessels, wet glints."""
    half = size // 2  # all but the fine grain is smooth
    x, y = body_plane(rng, half, rng.uniform(0.02, 0.08))
    relief = smooth(rng, half, half * rng.uniform(0.2, 0.5))
    if chance(rng, 0.7):
        lx, ly = rng.uniform(-0.7, 0.7, 2)
        u, v = x - lx, y - ly
        angle = np.arctan2(v, u)
        corner = int(rng.integers(2, 5))  # folds are often triangular
        bulge = 1 + rng.uniform(0, 0.22) * np.cos(corner * angle + rng.uniform(0, 6.28))
        r = np.sqrt(u * u + v * v) * bulge + 0.03
        far = np.log(r)
        phase = far * rng.uniform(5, 16) + rng.uniform(0.2, 1.2) * relief + rng.uniform(0, 6.28)
        ridge = np.sin(phase + 0.7 * np.sin(phase))
        fade = np.clip(1.2 - np.abs(np.cos(angle * 0.5 + rng.uniform(0, 6))) * rng.uniform(0, 1.0), 0, 1)
        folds = ridge * fade * rng.uniform(0.04, 0.2)
        h = rng.uniform(0.5, 0.62) + rng.uniform(0.16, 0.3) * np.tanh(far + rng.uniform(0.3, 1.4)) + folds
        h -= rng.uniform(0.2, 0.5) * np.exp(-((r / rng.uniform(0.1, 0.3)) ** 2))
    else:
        folds = rng.uniform(0.02, 0.1) * np.sin(relief * rng.uniform(1, 3))
        lamp_x, lamp_y = rng.uniform(-0.5, 0.5, 2)
        h = 0.72 + folds - rng.uniform(0.1, 0.4) * ((x - lamp_x) ** 2 + (y - lamp_y) ** 2)
    h, folds = (cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in (h + 0.03 * relief, folds))
    h += rng.uniform(0.003, 0.02) * octaves(rng, size, size * rng.uniform(0.012, 0.05), 0.7)
    kind = rng.random()
    if kind < 0.92:
        warm = rng.uniform(0.0, 1.0)
        table = _table(
            (25, 5, 6),
            (120 + 20 * warm, 35 + 25 * warm, 30 + 10 * warm),
            (rng.uniform(185, 225), rng.uniform(90, 135), rng.uniform(65, 115)),
            (250, rng.uniform(170, 215), rng.uniform(140, 195)),
        )
        red = (rng.uniform(120, 170), rng.uniform(30, 60), rng.uniform(30, 60))
    else:  # narrow-band light
        table = _table((10, 15, 15), (70, 80, 70), (150, 165, 140), (215, 225, 205))
        red = (70, 60, 40)
    image = paint(h, table)
    image = relight(image, np.clip(1 + rng.uniform(0.5, 2.5) * folds, 0.5, 1.5).astype(np.float32))
    vessels = np.zeros((size, size), np.uint8)
    roots = rng.uniform(0, (size, size, 6.28, 1), (int(rng.integers(1, 7)), 4))
    roots[:, 3] = (0.8 + 1.6 * roots[:, 3] ** 2) * size / 256
    draw_branches(rng, vessels, roots.tolist(), 0.3)
    strength = rng.uniform(0.15, 0.55)
    image = blend(
        image, flat_colour(size, red), cv2.convertScaleAbs(cv2.GaussianBlur(vessels, (0, 0), 0.8), alpha=strength)
    )
    if chance(rng, 0.85):
        wet = smooth(rng, size, size * rng.uniform(0.012, 0.04)) + 0.7 * smooth(rng, size, size * 0.15) + 9 * folds
        glint = np.clip((wet + 1.2 * h - rng.uniform(3.4, 4.4)) * 400, 0, 255).astype(np.uint8)
        if chance(rng, 0.5):
            glint = cv2.dilate(glint, np.ones((1, 3), np.uint8))
        image = blend(image, flat_colour(size, (255, 252, 248)), cv2.GaussianBlur(glint, (0, 0), rng.uniform(0.5, 1.1)))
    if chance(rng, 0.4):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.8))
    shape = _window(rng, size)
    if chance(rng, 0.5):  # the light falls off towards the corners
        fall = 1 - rng.uniform(0.2, 0.6) * np.clip((x * x + y * y) / 2, 0, 1)
        fall = cv2.resize(fall, (size, size), interpolation=cv2.INTER_LINEAR)
        image = cv2.multiply(image, cv2.merge([fall] * 3), dtype=cv2.CV_8U)
    image = blend(flat_colour(size, (rng.uniform(0, 12),) * 3), image, shape)
    if shape[2, 2] < 128 and chance(rng, 0.25):
        write_marks(rng, image)
    name = pick(rng, "colonoscopy image", "endoscopy image", "colon", "intestine", "bowel wall", "stomach", "mucosa")
    return Scene(image, shape > 127, name, pick(rng, "pink", "moist", "soft tissue"), modality="mucosa")


def dermoscopy(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw healthy skin under a dermatoscope or a camera: lines, pores, freckles, hairs, a ruler, dark corners."""
    x, y = body_plane(rng, size)
    tone = np.array(
        [(238, 200, 185), (225, 175, 150), (205, 150, 118), (160, 108, 80), (105, 68, 50), (225, 160, 160)]
    )[int(rng.choice(6, p=[0.26, 0.26, 0.16, 0.1, 0.06, 0.16]))] + rng.normal(0, 5, 3)
    relief = 0.5 * smooth(rng, size, size * 0.4) + 0.3 * octaves(rng, size, size * rng.uniform(0.02, 0.06), 0.7)
    if chance(rng, 0.6):
        _, labels, _n = cells(rng, size, size * loguni(rng, 0.02, 0.08), 0.3)
        lines = cv2.GaussianBlur((labels % 13).astype(np.float32) / 13 - 0.5, (0, 0), size * 0.004)
        relief += rng.uniform(0.2, 1.0) * lines
    factor = 1 + loguni(rng, 0.02, 0.09) * relief
    blush = smooth(rng, size, size * rng.uniform(0.08, 0.3)) * rng.uniform(0.5, 4)
    image = toned(factor, tone, blush, (0.3, -1.0, -0.7))
    if chance(rng, 0.35):  # freckles all over
        spots = np.zeros((size, size), np.uint8)
        for _ in range(int(rng.integers(15, 90))):
            at = (int(rng.uniform(0, size) * 8), int(rng.uniform(0, size) * 8))
            cv2.circle(spots, at, int(size * loguni(rng, 0.004, 0.012) * 8), int(rng.integers(60, 160)), -1, 16, 3)
        brown = tone * rng.uniform(0.6, 0.85)
        image = blend(image, flat_colour(size, np.clip(brown, 0, 255)), cv2.GaussianBlur(spots, (0, 0), size * 0.005))
    if chance(rng, 0.3):
        pores = np.clip((smooth(rng, size, size * rng.uniform(0.012, 0.03)) - 1.9) * 200, 0, 255).astype(np.uint8)
        image = blend(image, flat_colour(size, np.clip(tone * rng.uniform(0.65, 0.9), 0, 255)), pores)
    if chance(rng, 0.25):
        vessels = np.zeros((size, size), np.uint8)
        draw_branches(rng, vessels, [(*rng.uniform(0, size, 2), rng.uniform(0, 6), 1.2) for _ in range(4)], 0.3)
        vessels = cv2.convertScaleAbs(cv2.GaussianBlur(vessels, (0, 0), 1.0), alpha=rng.uniform(0.1, 0.4))
        image = blend(image, flat_colour(size, np.clip(tone * (0.9, 0.6, 0.65), 0, 255)), vessels)
    if chance(rng, 0.5):
        hairs = np.zeros((size, size), np.uint8)
        heading, thick = rng.uniform(0, 6.28), loguni(rng, 0.6, 2.2) * size / 256
        for _ in range(int(loguni(rng, 3, 50))):
            turns = heading + rng.normal(0, 0.5) + np.linspace(0, rng.normal(0, 0.8), 10)
            step = size * rng.uniform(0.015, 0.07)
            points = rng.uniform(0, size, 2) + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], -1) * step, 0)
            cv2.polylines(hairs, [(points * 8).astype(np.int32)], False, 230, max(1, round(thick)), cv2.LINE_AA, 3)
        colour = tone * rng.uniform(0.1, 0.6) if chance(rng, 0.85) else np.array([235, 225, 205])
        image = blend(image, flat_colour(size, np.clip(colour, 0, 255)), cv2.GaussianBlur(hairs, (0, 0), 0.6))
    if chance(rng, 0.2):
        _rule(rng, image)
    if chance(rng, 0.15):  # bubbles in the gel
        for _ in range(int(rng.integers(3, 20))):
            at = (int(rng.uniform(0, size)), int(rng.uniform(0, size)))
            cv2.circle(image, at, int(rng.uniform(0.008, 0.025) * size), (250, 245, 240), 1, cv2.LINE_AA)
    radius, mask = np.sqrt(x * x + y * y), full(size)
    if chance(rng, 0.35):
        reach, soft = rng.uniform(0.95, 1.3), rng.uniform(0.02, 0.3)
        lit = np.clip((reach - radius) / soft + 0.5, 0, 1)
        image = cv2.multiply(image, cv2.merge([0.03 + 0.97 * lit] * 3), dtype=cv2.CV_8U)
        mask = lit > 0.7
    name = pick(rng, "skin", "dermoscopy image", "skin image", "patch of skin", "human skin", "dermatoscope image")
    return Scene(image, mask, name, pick(rng, "soft", "natural", "smooth"), modality="skin")


def _rule(rng: Rng, image: np.ndarray) -> None:
    """Draw the marks of a ruler along a side."""
    size = len(image)
    pitch, at, side = size * rng.uniform(0.03, 0.07), rng.uniform(0.01, 0.06) * size, int(rng.integers(4))
    level = int(rng.uniform(10, 60)) if chance(rng, 0.7) else 240
    for k in range(int(size / pitch) + 1):
        far = int(size * (0.05 if k % 10 == 0 else 0.035 if k % 5 == 0 else 0.022))
        p, q = (int(k * pitch), int(at)), (int(k * pitch), int(at + far))
        if side % 2:
            p, q = p[::-1], q[::-1]
        if side > 1:
            p, q = (size - p[0], size - p[1]), (size - q[0], size - q[1])
        cv2.line(image, p, q, (level, level, level), max(1, size // 256), cv2.LINE_AA)


def fundus(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw the back of an eye: arcades that bend round a dark macula, a bright disc with a cup."""
    x, y = body_plane(rng, size, 0.01)
    zoom = rng.uniform(0.88, 1.0) if chance(rng, 0.7) else rng.uniform(1.0, 1.6)
    half = size / 2
    nasal = -1 if chance(rng, 0.5) else 1
    mx, my = rng.normal(0, 0.12), rng.normal(0, 0.06)
    dx, dy = mx + nasal * rng.uniform(0.45, 0.58) * zoom, my - rng.uniform(-0.02, 0.08)
    tone = np.array([rng.uniform(150, 230), rng.uniform(65, 120), rng.uniform(15, 65)])
    grey = chance(rng, 0.12)
    if grey:
        tone[:] = rng.uniform(90, 150)  # red-free
    shade = 1 + 0.1 * smooth(rng, size, size * 0.4) + rng.uniform(0.005, 0.03) * octaves(rng, size, size * 0.03, 0.7)
    shade -= rng.uniform(0.05, 0.3) * (x * x + y * y)
    macula = np.exp(-((x - mx) ** 2 + (y - my) ** 2) / rng.uniform(0.01, 0.035))
    shade -= rng.uniform(0.1, 0.35) * macula
    if chance(rng, 0.3):  # the choroid's vessels shine through
        shade += rng.uniform(0.02, 0.08) * np.abs(smooth(rng, size, size * 0.06, 2.5, rng.uniform(0, 3)))
    image = toned(shade, tone)
    for vein in (False, True):
        drawn = np.zeros((size, size), np.uint8)
        width = (rng.uniform(2.0, 3.6) if vein else rng.uniform(1.4, 2.6)) * size / 256 * zoom
        for sign in (-1, 1):
            t = np.linspace(0, 1, 26)
            sweep, tall = rng.uniform(1.3, 1.9), rng.uniform(0.5, 0.75) * zoom
            arc_x = dx - nasal * sweep * t**1.5 * zoom + rng.normal(0, 0.02) + 0.015 * np.sin(t * rng.uniform(8, 20))
            arc_y = (
                dy + sign * tall * np.sin(t * rng.uniform(1.7, 2.3)) ** 0.75 + 0.015 * np.sin(t * rng.uniform(8, 20))
            )
            points = np.stack([arc_x + 1, arc_y + 1], -1) * half
            for k in range(0, 24, 2):
                w = max(1, round(width * (1 - 0.6 * k / 24)))
                cv2.polylines(drawn, [(points[k : k + 3] * 8).astype(np.int32)], False, 255, w, cv2.LINE_AA, 3)
            out = (0 if nasal > 0 else math.pi) + sign * rng.uniform(0.2, 1.0)
            starts = [((dx + 1) * half, (dy + 1) * half, out, width * 0.6)]
            for k in rng.integers(3, 22, 5):
                ahead = points[k + 1] - points[k]
                heading = math.atan2(ahead[1], ahead[0]) + (1 if chance(rng, 0.5) else -1) * rng.uniform(0.5, 1.1)
                starts.append((*points[k], heading, width * rng.uniform(0.3, 0.6)))
            draw_branches(rng, drawn, starts, 0.13, 0.35)
        colour = (
            tone * ((0.5,) * 3 if grey else (0.55, 0.35, 0.45) if vein else (0.78, 0.5, 0.5)) * rng.uniform(0.8, 1.1)
        )
        drawn = cv2.convertScaleAbs(cv2.GaussianBlur(drawn, (0, 0), 0.6 * size / 256), alpha=rng.uniform(0.5, 0.9))
        image = blend(image, flat_colour(size, np.clip(colour, 0, 255)), drawn)
    r = rng.uniform(0.1, 0.15) * zoom
    bright = np.clip(tone * 1.25 + ((40,) * 3 if grey else (25, 65, 50)), 0, 255)
    rim = (draw_oval(x, y, dx, dy, r, r * 1.1, 0, 0.03) * rng.uniform(170, 230)).astype(np.uint8)
    image = blend(image, flat_colour(size, bright), rim)
    cup = rng.uniform(0.25, 0.55)
    image = blend(
        image,
        flat_colour(size, np.clip(bright + 35, 0, 255)),
        (draw_oval(x, y, dx, dy, r * cup, r * cup, 0, 0.03) * 180).astype(np.uint8),
    )
    if chance(rng, 0.3):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.2))
    shape = np.zeros((size, size), np.uint8)
    cv2.circle(shape, (int(half), int(half)), int(size * rng.uniform(0.45, 0.56)), 255, -1, cv2.LINE_AA)
    image = blend(flat_colour(size, (rng.uniform(0, 10),) * 3), image, shape)
    name = pick(rng, "retina", "fundus image", "eye fundus", "retinal photograph", "retinal image")
    return Scene(image, shape > 127, name, pick(rng, "orange", "vascular"), modality="retina")


BODIES: dict[str, tuple[Family, float]] = {
    **SCANS,
    "mucosa": (mucosa, 2.4),
    "dermoscopy": (dermoscopy, 2.0),
    "fundus": (fundus, 1.2),
    "oct_scan": (oct_scan, 1.2),
    "sonogram": (sonogram, 1.6),
    "histology": (histology, 1.2),
    "blood": (blood, 0.5),
}
