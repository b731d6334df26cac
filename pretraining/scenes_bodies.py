"""Healthy bodies as lenses, OCT and ultrasound picture them: mucosa, skin, eyes, organs, tissue, cells.

The families of `scenes_scans.py` are among `BODIES` too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from scenes_base import (
    Photos,
    Rng,
    Scene,
    blend,
    cells,
    chance,
    full,
    loguni,
    paint,
    pick,
    relight,
    white,
)
from scenes_bodies_base import (
    body_plane,
    draw_branches,
    draw_oval,
    flat_colour,
    grey_picture,
    lay_over,
    octaves,
    smooth,
    toned,
    write_marks,
)
from scenes_scans import SCANS

Family = Callable[[Rng, int, Photos], Scene]


def _table(*colours: tuple[float, float, float]) -> np.ndarray:
    """A 256-entry colour table through the given colours."""
    at, where = np.linspace(0, 1, len(colours)), np.linspace(0, 1, 256)
    knots = np.array(colours)
    return np.clip(np.stack([np.interp(where, at, knots[:, k]) for k in range(3)], -1), 0, 255).astype(np.uint8)


def _window(rng: Rng, size: int) -> np.ndarray:
    """What an endoscope's frame leaves free: all, a disc, an octagon or a square with cut corners (uint8)."""
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
    """The inside of a bowel or stomach: folds around a dark lumen or a wall near by, fine vessels, wet glints."""
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
    """Healthy skin under a dermatoscope or a camera: lines, pores, freckles, hairs, a ruler, dark corners."""
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
    """Marks of a ruler along one side."""
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
    """The back of an eye: arcades that bend round a dark macula, a bright disc with a cup."""
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


_OCT = np.array(  # thickness and brightness of the retina's layers from the vitreous down
    [
        (0.14, 0.75),
        (0.16, 0.5),
        (0.13, 0.3),
        (0.08, 0.55),
        (0.22, 0.16),
        (0.03, 0.4),
        (0.06, 0.9),
        (0.05, 0.35),
        (0.08, 1.0),
    ]
)


def oct_scan(rng: Rng, size: int, photos: Photos) -> Scene:
    """Retinal OCT: the layers in their order, a pit, vessels' shadows, the choroid's holes, speckle."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    floor = rng.uniform(0.5, 0.75) + rng.normal(0, 0.06) * x + rng.uniform(-0.08, 0.1) * x * x
    thick = rng.uniform(0.16, 0.34) * (1 + 0.06 * smooth(rng, size, size * 0.4)[0])
    pit = np.exp(-((x - rng.normal(0, 0.2)) ** 2) / rng.uniform(0.01, 0.06)) * (
        chance(rng, 0.7) * rng.uniform(0.25, 0.65)
    )
    sizes = _OCT[:, 0] * np.exp(rng.normal(0, 0.12, len(_OCT)))
    values = np.clip(_OCT[:, 1] * np.exp(rng.normal(0, 0.12, len(_OCT))), 0.05, 1.1)
    edges = np.concatenate([[0], np.cumsum(sizes / sizes.sum())])
    # The pit presses on the inner layers alone; the outer ones keep their place.
    depth = 1 - (floor[None] - y) / thick[None]
    squeeze = pit[None] * 0.6
    depth = np.where(depth < 0.6, (depth - squeeze) / np.maximum(1 - squeeze / 0.6, 0.05), depth).astype(np.float32)
    table = np.interp(np.linspace(-0.25, 1.25, 512), np.repeat(edges, 2)[1:-1] + np.tile([1e-3, -1e-3], len(_OCT)),
                      np.repeat(values, 2), left=0.0, right=0.0)  # fmt: skip
    index = np.clip((depth + 0.25) / 1.5 * 511, 0, 511).astype(np.int32)
    field = table.astype(np.float32)[index]
    below = np.clip((y - floor[None]) / rng.uniform(0.12, 0.3), 0, 3)
    holes = 0.75 + 0.3 * smooth(rng, size, size * 0.05, 1.6)
    field = np.where(y > floor[None], rng.uniform(0.4, 0.7) * np.exp(-below * rng.uniform(0.8, 1.5)) * holes, field)
    for _ in range(int(rng.integers(0, 5))):  # vessels cast shadows
        at, wide = rng.uniform(-1, 1), rng.uniform(0.008, 0.025)
        shadow = rng.uniform(0.2, 0.6) * np.exp(-(((x - at) / wide) ** 2))
        field *= 1 - shadow[None] * (depth > 0.12)
    field = cv2.GaussianBlur(field.astype(np.float32), (0, 0), rng.uniform(0.6, 1.6) * size / 256)
    speckle = cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=rng.uniform(0.7, 1.6), sigmaY=0.6) * 1.8
    base = rng.uniform(4, 45)
    field = base + (rng.uniform(150, 230) - base) * field * (1 + rng.uniform(0.1, 0.4) * speckle)
    field += rng.uniform(2, 10) * np.abs(white(rng, size))
    if chance(rng, 0.08):
        field = 255 - field
    where = (depth > -0.05) & (y < floor[None] + 0.06)
    name = pick(rng, "retinal OCT", "OCT scan", "retina", "OCT image", "retinal layers")
    return Scene(grey_picture(field), where, name, pick(rng, "layered", "grey"), modality="oct")


# --- ultrasound ------------------------------------------------------------------------------------------------------


def sonogram(rng: Rng, size: int, photos: Photos) -> Scene:
    """Echoes of layered tissue: thyroid, breast, liver or muscle; speckle; from a straight or a curved probe."""
    x, y = body_plane(rng, size, rng.uniform(0.01, 0.04))
    deep = (y + 1) / 2
    stretch = rng.uniform(2, 5)
    layers = smooth(rng, size, size * rng.uniform(0.04, 0.12), stretch, rng.normal(0, 0.12))
    echo = 0.45 + rng.uniform(0.04, 0.14) * layers + 0.06 * smooth(rng, size, size * 0.3)
    skin, fat = rng.uniform(0.03, 0.07), rng.uniform(0.12, 0.3)
    lay_over(echo, np.clip((skin - deep) * 60, 0, 1), rng.uniform(0.6, 0.95))
    organ = pick(rng, "thyroid", "thyroid", "breast", "breast", "liver", "muscle")
    if organ == "thyroid":
        strands = smooth(rng, size, size * 0.02, 6, 0.0)
        muscle = np.clip(1 - np.abs(deep - fat) * 14, 0, 1)
        lay_over(echo, muscle, 0.28 + 0.08 * strands)
        side = -1 if chance(rng, 0.5) else 1
        for cx in (0.0,) if chance(rng, 0.5) else (-0.42, 0.42):
            a, b = (0.75, 0.3) if cx == 0 else (0.36, 0.33)
            lobe = draw_oval(x, y, cx, 0.02, a * rng.uniform(0.85, 1.1), b * rng.uniform(0.85, 1.1), side * 0.1, 0.06)
            lay_over(echo, lobe, rng.uniform(0.5, 0.68) + 0.03 * layers)
        if chance(rng, 0.6):
            vessel = draw_oval(x, y, side * 0.8, 0.05, 0.13, 0.12, 0, 0.03)
            lay_over(echo, draw_oval(x, y, side * 0.8, 0.05, 0.15, 0.14, 0, 0.03), 0.7)
            lay_over(echo, vessel, 0.04)
    elif organ == "breast":
        septa = np.abs(smooth(rng, size, size * rng.uniform(0.08, 0.16), 1.8, rng.normal(0, 0.3)))
        lay_over(echo, np.clip((fat + 0.12 - deep) * 9, 0, 1), 0.22 + 0.4 * np.exp(-septa * 9))
        lay_over(echo, np.clip(1 - np.abs(deep - fat - 0.22) * 6, 0, 1), 0.62 + 0.06 * layers)
        strands = smooth(rng, size, size * 0.02, 8, rng.normal(0, 0.08))
        lay_over(echo, np.clip((deep - rng.uniform(0.6, 0.75)) * 14, 0, 1), 0.3 + 0.1 * strands)
    elif organ == "liver":
        echo = 0.5 + 0.05 * smooth(rng, size, size * 0.2)
        holes = np.zeros((size, size), np.uint8)
        roots = rng.uniform(
            (0.2 * size, 0.2 * size, 0, 4 * size / 256), (0.8 * size, 0.8 * size, 6.28, 10 * size / 256), (2, 4)
        )
        draw_branches(rng, holes, roots.tolist())
        lay_over(echo, cv2.GaussianBlur(holes, (0, 0), 1.5).astype(np.float32) / 255, 0.1)
        if chance(rng, 0.6):
            arc = np.abs(deep - 0.85 + rng.uniform(0.1, 0.3) * (x - rng.normal(0, 0.3)) ** 2)
            echo += 0.5 * np.exp(-((arc / 0.015) ** 2))
    else:
        strands = smooth(rng, size, size * 0.025, 9, rng.normal(0, 0.15))
        echo = 0.35 + 0.13 * strands
        for _ in range(int(rng.integers(1, 4))):
            at, lean = rng.uniform(0.15, 0.8), rng.normal(0, 0.08)
            echo += 0.4 * np.exp(-(((deep - at - lean * x) / 0.012) ** 2))
    for _ in range(int(rng.integers(0, 4))):  # fascia
        at = rng.uniform(0.1, 0.9)
        bent = deep - at - rng.normal(0, 0.06) * x - rng.normal(0, 0.05) * x * x
        echo += rng.uniform(0.1, 0.35) * np.exp(-((bent / rng.uniform(0.006, 0.015)) ** 2))
    if chance(rng, 0.4):
        echo *= np.exp(-rng.uniform(0.2, 1.5) * np.clip(deep - 0.3, 0, 1))
    wide = rng.uniform(0.8, 2.6) * size / 256
    fine = [cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=wide, sigmaY=0.75) for _ in range(2)]
    speckle = cv2.magnitude(*fine)
    speckle *= np.float32(1 / max(float(speckle.mean()), 1e-6))
    rough = rng.uniform(0.45, 1.0)
    field = np.clip(echo, 0.0, 1.3) ** rng.uniform(0.9, 1.7) * (1 - rough + rough * speckle) * rng.uniform(150, 255)
    field = np.clip(field, 0, 255).astype(np.float32)
    mask = np.ones((size, size), bool)
    if chance(rng, 0.45):  # a curved probe: beams fan out
        opening, start = rng.uniform(0.4, 0.8), rng.uniform(0.15, 0.6)
        gx, gy = body_plane(rng, size)
        py = (gy + 1) / 2 * (1 + start * 0.02) + start
        radius, angle = np.sqrt((gx * 0.62) ** 2 + py * py), np.arctan2(gx * 0.62, py)
        mask = (np.abs(angle) < opening) & (radius > start) & (radius < 1 + start - 0.01)
        at_x, at_y = (angle / opening + 1) * (size / 2), (radius - start) * size
        field = np.where(mask, cv2.remap(field, at_x, at_y, cv2.INTER_LINEAR), 0)
    if chance(rng, 0.3):
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 0.9))
    image = grey_picture(field)
    if chance(rng, 0.2):
        tint = np.array([rng.uniform(0.85, 1.0), 0.95, rng.uniform(0.8, 1.1)])
        image = np.clip(image * tint, 0, 255).astype(np.uint8)
    if chance(rng, 0.2):
        for k in range(8):
            cv2.circle(image, (size - 4, int((k + 0.5) * size / 8)), 1, (220, 220, 220), -1)
    names = {"thyroid": ("thyroid ultrasound", "thyroid"), "breast": ("breast ultrasound", "breast tissue")}
    name = pick(rng, "ultrasound", "sonogram", "ultrasound image", *names.get(organ, (f"{organ} ultrasound",)))
    return Scene(image, mask, name, pick(rng, "grey", "speckled"), modality="ultrasound")


# --- cells -----------------------------------------------------------------------------------------------------------


def histology(rng: Rng, size: int, photos: Photos) -> Scene:
    """H&E: pink strands with scattered purple nuclei, glands lined by them, sometimes bubbles of fat."""
    pink = np.array([rng.uniform(205, 240), rng.uniform(130, 195), rng.uniform(175, 220)])
    purple = np.array([rng.uniform(65, 125), rng.uniform(40, 90), rng.uniform(105, 160)])
    white_ = rng.uniform(225, 248) + np.array([3, 0, 4])
    angle = rng.uniform(0, 3.14)
    strands = octaves(rng, size, size * rng.uniform(0.03, 0.1), 0.65, rng.uniform(1, 5), angle)
    image = toned(1 + 0.03 * strands, pink, strands, (0.0, 8.0, 2.0))
    gaps = np.clip((strands - rng.uniform(1.2, 2.4)) * 200, 0, 230).astype(np.uint8)
    image = blend(image, flat_colour(size, white_), cv2.GaussianBlur(gaps, (0, 0), 0.7))
    unit = size * loguni(rng, 0.008, 0.026)  # a nucleus
    nuclei = np.zeros((size, size), np.uint8)
    taken = np.zeros((size, size), np.uint8)
    places: list[tuple[float, float, float, float]] = []
    kind = rng.random()
    if kind < 0.5:
        ring = max(unit * rng.uniform(4, 8), size / 18)
        per = max(2, int(size / (ring * rng.uniform(2.3, 3.2))))
        for gy in range(per + 1):
            for gx in range(per + 1):
                if chance(rng, 0.15):
                    continue
                cx, cy = (np.array([gx, gy]) + rng.uniform(-0.25, 0.25, 2)) * size / per
                a, b, turn = ring * rng.uniform(0.75, 1.1), ring * rng.uniform(0.55, 1.0), rng.uniform(0, 3.14)
                at, lean = (int(cx * 8), int(cy * 8)), math.degrees(turn)
                wall = tuple(np.clip(pink * (0.92, 0.82, 0.95), 0, 255).tolist())
                cv2.ellipse(image, at, (int(a * 8), int(b * 8)), lean, 0, 360, wall, -1, cv2.LINE_AA, 3)
                inner = rng.uniform(0.2, 0.55)
                hole = (int(a * inner * 8), int(b * inner * 8))
                cv2.ellipse(image, at, hole, lean, 0, 360, white_.tolist(), -1, cv2.LINE_AA, 3)
                cv2.ellipse(taken, at, (int(a * 8), int(b * 8)), lean, 0, 360, 255, -1, 8, 3)
                count = int(2 * math.pi * math.sqrt(a * b) / (unit * 2.1))
                for t in np.arange(count) * 2 * math.pi / max(count, 1):
                    u, v = 0.84 * a * math.cos(t), 0.84 * b * math.sin(t)
                    px, py = cx + u * math.cos(turn) - v * math.sin(turn), cy + u * math.sin(turn) + v * math.cos(turn)
                    places.append((px, py, t + turn, 1.3))
    elif kind < 0.65:  # fat
        _, labels, _n = cells(rng, size, size * rng.uniform(0.12, 0.25), 0.4)
        bubbles = (cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((5, 5))) == 0).astype(
            np.uint8
        )
        image = blend(image, flat_colour(size, white_), cv2.GaussianBlur(bubbles * 255, (0, 0), 1.2))
        taken |= bubbles * 255
    crowd = rng.uniform(0.06, 0.3)
    for px, py in rng.uniform(0, size, (int(min(500, crowd * size * size / (unit * unit * 3.14))), 2)):
        if not taken[int(py), int(px)]:
            places.append((px, py, angle + rng.normal(0, 0.4), rng.uniform(1.0, 2.2)))
    order = rng.permutation(len(places))[:480]
    for k in order:
        px, py, turn, long = places[k]
        r = unit * rng.uniform(0.8, 1.15)
        axes = (int(r * long**0.5 * 4), int(r / long**0.5 * 4))
        at = (int(px * 8), int(py * 8))
        cv2.ellipse(nuclei, at, axes, math.degrees(turn), 0, 360, int(rng.integers(150, 250)), -1, cv2.LINE_AA, 3)
    rough = np.clip(1 + 0.15 * smooth(rng, size, 2.5), 0, 1.1)
    nuclei = np.clip(cv2.GaussianBlur(nuclei, (0, 0), 0.6) * rough, 0, 255).astype(np.uint8)
    image = blend(image, flat_colour(size, purple), nuclei)
    if chance(rng, 0.3):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.0))
    name = pick(rng, "histology slide", "tissue section", "histopathology image", "tissue", "microscope slide")
    return Scene(image, full(size), name, pick(rng, "stained", "cellular", "pink"), modality="cells")


def blood(rng: Rng, size: int, photos: Photos) -> Scene:
    """A blood smear: pale-centred red cells, a few white ones; or a culture of round cells in phase contrast."""
    grey = chance(rng, 0.25)
    ground = np.array([rng.uniform(215, 245)] * 3) + rng.normal(0, 7, 3)
    red = np.array([rng.uniform(190, 225), rng.uniform(120, 165), rng.uniform(130, 175)])
    if grey:
        ground[:] = rng.uniform(110, 170)
        red[:] = ground * rng.uniform(0.75, 1.2)
    image = flat_colour(size, np.clip(ground, 0, 255))
    r = size * loguni(rng, 0.018, 0.06)
    n = max(3, int(size / (r * rng.uniform(2.2, 3.6))))
    spots = (np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1)), -1).reshape(-1, 2)) * size / n
    spots = spots + rng.normal(0, 0.22, spots.shape) * size / n
    edge = tuple(np.clip(red * rng.uniform(0.8, 0.95), 0, 255).tolist())
    pale = tuple(np.clip(red * 0.3 + ground * 0.7, 0, 255).tolist())
    hollow = rng.uniform(0.25, 0.5)
    for x, y in spots[rng.random(len(spots)) < rng.uniform(0.6, 0.98)]:
        a, b, turn = r * rng.uniform(0.9, 1.1), r * rng.uniform(0.85, 1.1), rng.uniform(0, 180)
        at = (int(x * 8), int(y * 8))
        cv2.ellipse(image, at, (int(a * 8), int(b * 8)), turn, 0, 360, edge, -1, cv2.LINE_AA, 3)
        cv2.ellipse(image, at, (int(a * 7), int(b * 7)), turn, 0, 360, red.tolist(), -1, cv2.LINE_AA, 3)
        cv2.ellipse(image, at, (int(a * hollow * 8), int(b * hollow * 8)), turn, 0, 360, pale, -1, cv2.LINE_AA, 3)
    image = cv2.GaussianBlur(image, (0, 0), max(0.6, r * 0.07))
    shade = (1 + 0.03 * smooth(rng, size, size * 0.5) + 0.012 * white(rng, size)).astype(np.float32)
    image = cv2.multiply(image, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
    name = pick(rng, "blood smear", "red blood cells", "microscope image", "cells", "micrograph")
    return Scene(image, full(size), name, pick(rng, "cellular", "round", "stained"), modality="cells")


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
