"""Drawn pictures of healthy bodies: slices, radiographs, ultrasound, mucosa, skin and cells."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import (
    Family,
    Photos,
    Rng,
    Scene,
    Theme,
    blend,
    cells,
    chance,
    full,
    loguni,
    normalise,
    octaves,
    paint,
    pick,
    plain,
    relight,
    smooth,
    white,
)
from synthesis.scenes.drawing import disc, fill, line, polar, wobbly


def _ellipse(field: np.ndarray, x: float, y: float, a: float, b: float, angle: float, value: float) -> None:
    centre, axes = (int(x * 8), int(y * 8)), (max(1, int(a * 8)), max(1, int(b * 8)))
    cv2.ellipse(field, centre, axes, angle, 0, 360, value, -1, cv2.LINE_AA, 3)


def _bright(theme: Theme, middle: float, contrast: float) -> np.ndarray:
    """Return a dark-to-bright colour table around a brightness; flesh is never inverted."""
    low, high = theme.color(middle - contrast / 2), theme.color(middle + contrast / 2)
    where = np.linspace(0, 1, 256)[:, None]
    return (np.array(low) * (1 - where) + np.array(high) * where).astype(np.uint8)


def slice_scan(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a head or trunk slice: bright ring, two-sided folds, symmetric cavities."""
    c = size / 2
    squash = rng.uniform(0.7, 1.0)
    outline = polar(size, rng.uniform(0.78, 0.93) * wobbly(rng, 0.02), squash)
    shape = fill(size, outline)
    inner = fill(size, (outline - c) * rng.uniform(0.8, 0.92) + c)
    tissue = np.full((size, size), rng.uniform(70, 150), np.float32)
    half = octaves(rng, size, size * rng.uniform(0.1, 0.25), 0.35)
    if chance(rng, 0.7):
        half = 0.8 * (half + half[:, ::-1]) + 0.3 * smooth(rng, size, size * 0.06)
    folds = np.cos(half * rng.uniform(1, 2.5))
    depth = cv2.distanceTransform((inner > 127).astype(np.uint8), cv2.DIST_L2, 3) / size
    tissue += rng.uniform(4, 22) * folds * np.clip(1.3 - depth * rng.uniform(2, 8), 0, 1)
    cavities = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        dx, y = rng.uniform(0.03, 0.2) * size, c + rng.uniform(-0.2, 0.2) * size
        a, b, turn = rng.uniform(0.02, 0.07) * size, rng.uniform(0.04, 0.14) * size, rng.uniform(-40, 40)
        value = int(rng.integers(80, 255))
        _ellipse(cavities, c - dx, y, a, b, turn, value)
        _ellipse(cavities, c + dx, y, a * rng.uniform(0.93, 1.07), b, -turn, value)
    soft = cv2.GaussianBlur(cavities, (0, 0), size * 0.008).astype(np.float32) / 255
    tissue += rng.choice([-1, 1], p=[0.7, 0.3]) * rng.uniform(20, 70) * soft
    if chance(rng, 0.6):
        gap = np.exp(-(((np.arange(size) - c) / (size * 0.006)) ** 2)).astype(np.float32)
        tissue -= rng.uniform(10, 50) * gap[None, :]
    ring = rng.uniform(120, 255) if chance(rng, 0.6) else rng.uniform(20, 60)
    mask = cv2.GaussianBlur(inner, (0, 0), 1.0).astype(np.float32) / 255
    field = (tissue * mask + ring * (1 - mask)) * (cv2.GaussianBlur(shape, (0, 0), 1.0).astype(np.float32) / 255)
    field += rng.uniform(1, 8) * cv2.GaussianBlur(white(rng, size), (0, 0), 0.7)
    image = cv2.merge([cv2.convertScaleAbs(np.clip(field, 0, 255))] * 3)
    name = pick(rng, "brain scan", "brain MRI", "head CT", "CT slice", "liver CT", "organ slice")
    return Scene(image, shape > 127, name, pick(rng, "grey", "medical", "soft tissue"), modality="mri")


def radiograph(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw ribs, a spine and lung fields, or castings and welds under X-rays."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    field = rng.uniform(100, 150) + 14 * smooth(rng, size, size * 0.6) + 6 * octaves(rng, size, size * 0.2, 0.6)
    wide = rng.uniform(0.25, 0.4)
    for sign in (-1, 1):
        lung = np.exp(-((((x - sign * 0.45) / wide) ** 2 + ((y + 0.05) / 0.75) ** 2) ** 2))
        field -= rng.uniform(40, 80) * lung
    field += rng.uniform(20, 80) * np.exp(-((x / 0.12) ** 2)) * np.ones_like(y)
    n, bend = rng.uniform(5, 11), rng.uniform(0.2, 0.8)
    phase = (y + bend * (np.abs(x) - 0.4) ** 2 - 0.2 * np.abs(x)) * np.float32(n * math.pi)
    field += rng.uniform(5, 22) * np.maximum(np.sin(phase), 0) ** 0.7 * np.clip(np.abs(x) * 3 - 0.2, 0, 1)
    field += rng.uniform(1, 6) * white(rng, size)
    if chance(rng, 0.2):
        field = 255 - field
    image = cv2.merge([cv2.convertScaleAbs(np.clip(field, 0, 255))] * 3)
    name = pick(rng, "chest X-ray", "radiograph", "X-ray", "ribcage")
    return Scene(image, full(size), name, pick(rng, "grey", "medical"), modality="xray")


def ultrasound(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw speckle that widens with depth, layered tissue, in a sector or a full frame."""
    rows = cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=loguni(rng, 1, 4), sigmaY=0.9)
    speckle = np.abs(normalise(rows, 1.0) - 0.5) + 0.2
    layers = smooth(rng, size, size * rng.uniform(0.06, 0.2), rng.uniform(2, 8), rng.normal(0, 0.2))
    field = rng.uniform(50, 120) * speckle * np.exp(rng.uniform(0.2, 0.8) * layers)
    mask = np.ones((size, size), bool)
    if chance(rng, 0.6):
        sector = np.zeros((size, size), np.uint8)
        opening = rng.uniform(25, 50)
        top, reach = -0.05 * size, int(size * rng.uniform(0.95, 1.05))
        cv2.ellipse(sector, (size // 2, int(top)), (reach, reach), 90, -opening, opening, 255, -1, cv2.LINE_AA)
        disc(sector, size / 2, top, size * rng.uniform(0.1, 0.25), 0)
        bent = cv2.warpPolar(
            np.ascontiguousarray(np.tile(field.T[:, :size], (2, 1))), (size, size), (size / 2, top), size * 1.1,
            cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        mask = sector > 127
        field = np.where(mask, bent, 0)  # outside the sector the warp writes nothing
    fade = np.linspace(rng.uniform(0.9, 1.3), rng.uniform(0.3, 1.0), size, dtype=np.float32)
    image = cv2.merge([cv2.convertScaleAbs(np.clip(field * fade[:, None], 0, 255))] * 3)
    return Scene(
        image,
        mask,
        pick(rng, "ultrasound", "sonogram", "ultrasound image"),
        pick(rng, "grey", "speckled"),
        modality="ultrasound",
    )


def _vessels(rng: Rng, image: np.ndarray, color: tuple[float, ...], n: int, width: float) -> None:
    """Draw branching curved lines all over the picture."""
    size = image.shape[0]
    stack = [(*rng.uniform(0, size, 2), rng.uniform(0, 6.28), width) for _ in range(n)]
    budget = 60
    while stack and budget:
        budget -= 1
        x, y, heading, w = stack.pop()
        turns = heading + np.cumsum(rng.normal(0, 0.25, 10))
        step = size * 0.03
        xs, ys = x + np.cumsum(np.cos(turns)) * step, y + np.cumsum(np.sin(turns)) * step
        points = (np.stack([xs, ys], -1) * 8).astype(np.int32)
        cv2.polylines(image, [points], False, color, max(1, round(w)), cv2.LINE_AA, 3)
        if w > 0.9:
            stack.append((xs[-1], ys[-1], turns[-1] + 0.4, w * 0.7))
            stack.append((xs[-1], ys[-1], turns[-1] - 0.5, w * 0.7))


def endoscopy(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw pink mucosa: folds, a dark lumen, fine vessels, specular highlights; sometimes in a round frame."""
    theme = Theme(rng, grey=False)
    theme.hue, theme.spread, theme.saturation = float(rng.uniform(-4, 12) % 180), 4.0, float(rng.uniform(0.35, 0.75))
    relief = octaves(rng, size, size * rng.uniform(0.2, 0.5), 0.4)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    cx, cy = rng.uniform(-0.6, 0.6, 2)
    radius = np.sqrt((axis[None] - cx) ** 2 + (axis[:, None] - cy) ** 2)
    folds = np.sin(radius * rng.uniform(6, 20) + relief * 0.8) * rng.uniform(0, 0.18)
    h = 0.45 + 0.3 * np.tanh(radius * 1.5) + folds + 0.06 * relief
    image = paint(h, _bright(theme, rng.uniform(110, 170), rng.uniform(80, 170)))
    lines = image.copy()
    _vessels(rng, lines, theme.color(rng.uniform(60, 130)), int(rng.integers(3, 12)), loguni(rng, 1, 3))
    image = cv2.addWeighted(image, 0.65, cv2.GaussianBlur(lines, (0, 0), 0.8), 0.35, 0)
    if chance(rng, 0.75):
        wet = smooth(rng, size, size * rng.uniform(0.02, 0.05)) + 3 * folds + 0.6 * smooth(rng, size, size * 0.2)
        glint = np.clip((wet - rng.uniform(2.2, 3.0)) * 500, 0, 255).astype(np.uint8)
        image = blend(image, plain(size, (255, 250, 245)), cv2.GaussianBlur(glint, (0, 0), 0.9))
    mask = full(size)
    if chance(rng, 0.4):
        round_ = np.zeros((size, size), np.uint8)
        disc(round_, size / 2, size / 2, size * rng.uniform(0.44, 0.6), 255)
        image, mask = blend(plain(size, (4, 4, 4)), image, round_), round_ > 127
    name = pick(rng, "endoscopy image", "colonoscopy image", "mucosa", "intestine", "stomach lining")
    return Scene(image, mask, name, pick(rng, "pink", "moist", "soft tissue"), modality="mucosa")


def retina(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw an orange fundus with a bright disc and vessels springing from it."""
    theme = Theme(rng, grey=False)
    theme.hue, theme.spread, theme.saturation = float(rng.uniform(3, 14)), 3.0, float(rng.uniform(0.6, 0.95))
    h = 0.55 + 0.1 * smooth(rng, size, size * 0.5) + 0.02 * octaves(rng, size, 8, 0.8)
    image = paint(h, _bright(theme, rng.uniform(110, 170), rng.uniform(60, 150)))
    x, y = size * rng.choice([0.25, 0.75]) + rng.normal(0, 5), size * rng.uniform(0.4, 0.6)
    color = theme.color(rng.uniform(60, 110))
    lines = image.copy()
    for k in range(int(rng.integers(5, 10))):
        stack = [(x, y, k * 0.8 + rng.normal(0, 0.2), loguni(rng, 2, 4))]
        while stack and len(stack) < 12:
            a, b, heading, w = stack.pop()
            turns = heading + np.cumsum(rng.normal(0, 0.1, 8))
            xs, ys = a + np.cumsum(np.cos(turns)) * 7, b + np.cumsum(np.sin(turns)) * 7
            cv2.polylines(lines, [(np.stack([xs, ys], -1) * 8).astype(np.int32)], False, color, max(1, round(w)), 16, 3)
            if w > 1:
                stack += [(xs[-1], ys[-1], turns[-1] + s, w * 0.72) for s in (0.35, -0.35)]
    image = cv2.addWeighted(image, 0.4, lines, 0.6, 0)
    glow = np.zeros((size, size), np.uint8)
    disc(glow, x, y, size * rng.uniform(0.05, 0.08), 220)
    image = blend(image, plain(size, theme.color(250)), cv2.GaussianBlur(glow, (0, 0), 2.5))
    round_ = np.zeros((size, size), np.uint8)
    disc(round_, size / 2, size / 2, size * rng.uniform(0.45, 0.52), 255)
    name = pick(rng, "retina", "fundus image", "eye fundus", "retinal photograph")
    image = blend(plain(size, (3, 3, 3)), image, round_)
    return Scene(image, round_ > 127, name, pick(rng, "orange", "vascular"), modality="retina")


def skin(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw skin with pores or furrows and hairs spread evenly."""
    theme = Theme(rng, grey=False)
    theme.hue, theme.spread, theme.saturation = float(rng.uniform(4, 16)), 4.0, float(rng.uniform(0.15, 0.65))
    _, labels, _n = cells(rng, size, loguni(rng, 5, 22), 0.4)
    relief = cv2.GaussianBlur((labels % 17).astype(np.float32), (0, 0), rng.uniform(0.8, 2))
    h = normalise(relief, 0.1) + 0.15 * smooth(rng, size, size * 0.4) + 0.05 * octaves(rng, size, 6, 0.8)
    image = paint(h * 0.6 + 0.2, _bright(theme, rng.uniform(70, 225), loguni(rng, 25, 90)))
    if chance(rng, 0.5):
        color, heading = theme.color(rng.uniform(20, 90)), rng.uniform(0, 6.28)
        for _ in range(int(rng.integers(20, 70))):
            x, y = rng.uniform(0, size, 2)
            t, long = heading + rng.normal(0, 0.35), size * rng.uniform(0.06, 0.2)
            line(image, x, y, x + long * math.cos(t), y + long * math.sin(t), color)
        image = cv2.GaussianBlur(image, (0, 0), 0.6)
    return Scene(
        image,
        full(size),
        pick(rng, "skin", "human skin", "skin surface", "dermoscopy image"),
        pick(rng, "soft", "natural", "porous"),
        modality="skin",
    )


def microscopy(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw many similar cells with nuclei: smears, tissue sections, colonies."""
    theme = Theme(rng)
    ground, membrane, nucleus = theme.color(), theme.color(), theme.color()
    period = loguni(rng, 12, 60)
    if chance(rng, 0.4):
        distance, _labels, _n = cells(rng, size, period, 0.5)
        image = paint(normalise(distance, 0.2), theme.ramp(stops=2))
        spot = np.clip((period * rng.uniform(0.12, 0.3) - distance) * 200, 0, 255).astype(np.uint8)
        image = blend(image, plain(size, nucleus), spot)
    else:
        image = plain(size, ground)
        count = int(min(160, (size / period) ** 2 * rng.uniform(0.5, 1.0)))
        ring, inner = chance(rng, 0.5), rng.uniform(0.3, 0.6)
        for x, y, r, t in zip(
            *rng.uniform(0, size, (2, count)), rng.normal(1, 0.12, count), rng.uniform(0, 180, count), strict=True
        ):
            a = period * 0.42 * r
            _ellipse(image, x, y, a, a * 0.85, t, membrane)  # type: ignore[arg-type]
            _ellipse(image, x, y, a * inner, a * inner * 0.8, t, nucleus if not ring else ground)  # type: ignore[arg-type]
        image = cv2.GaussianBlur(image, (0, 0), loguni(rng, 0.6, 2))
    image = relight(image, (1 + 0.05 * octaves(rng, size, 20, 0.8)).astype(np.float32))
    return Scene(
        image,
        full(size),
        pick(rng, "cells", "tissue section", "blood smear", "histology", "bacteria colony"),
        pick(rng, "stained", "cellular"),
        modality="cells",
    )


def trunk_slice(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a slice of the trunk: wall, a vertebra, ribs around, one large organ and a few smaller ones."""
    c, squash = size / 2, rng.uniform(0.62, 0.85)
    outline = polar(size, rng.uniform(0.85, 0.97) * wobbly(rng, 0.02), squash)
    shape = fill(size, outline)
    field = cv2.convertScaleAbs(shape, alpha=rng.uniform(0.15, 0.4))
    wall = rng.uniform(60, 130)
    inner = ((outline - c) * 0.86 + c) * 8
    cv2.fillPoly(field, [inner.astype(np.int32)], wall, cv2.LINE_AA, 3)
    for t in np.linspace(0.3, 6.0, int(rng.integers(8, 16))):
        _ellipse(field, c + 0.4 * size * math.cos(t), c + 0.4 * size * squash * math.sin(t), size * 0.022, size * 0.01,
                 math.degrees(t) + 90, 215)  # fmt: skip
    organs = [(-0.17, -0.05, 0.17, 0.16), (0.2, -0.02, 0.1, 0.11), (0.08, 0.12, 0.06, 0.07), (-0.14, 0.16, 0.06, 0.07)]
    for dx, dy, a, b in organs:
        x, y = c + size * (dx + rng.normal(0, 0.02)), c + size * squash * (dy + rng.normal(0, 0.02))
        points = polar(200, wobbly(rng, 0.07)) / 100 - 1
        points = points * [a * size, b * size * squash] + [x, y]
        cv2.fillPoly(field, [(points * 8).astype(np.int32)], rng.uniform(110, 180), cv2.LINE_AA, 3)
    disc(field, c, c + 0.25 * size * squash, size * rng.uniform(0.05, 0.07), 210)
    disc(field, c, c + 0.34 * size * squash, size * 0.03, 190)
    soft = cv2.GaussianBlur(field, (0, 0), loguni(rng, 0.8, 2.5)).astype(np.float32)
    soft *= 1 + rng.uniform(0.01, 0.06) * octaves(rng, size, size * 0.05, 0.8)
    soft += rng.uniform(1, 6) * white(rng, size) * (shape > 0)
    image = cv2.merge([cv2.convertScaleAbs(np.clip(soft, 0, 255))] * 3)
    name = pick(rng, "liver CT", "abdominal CT", "trunk slice", "CT slice", "body scan")
    return Scene(image, shape > 127, name, pick(rng, "grey", "medical", "soft tissue"), modality="ct")


def layers(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw layered tissue as in retinal OCT: smooth bright and dark bands under speckle."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    pit = rng.uniform(0, 0.12) * np.exp(-((x - rng.normal(0, 0.15)) ** 2) / rng.uniform(0.02, 0.1))
    top = rng.uniform(0.25, 0.5) + rng.uniform(-0.12, 0.12) * x + rng.uniform(-0.1, 0.15) * x * x
    depth = np.linspace(0, 1, size, dtype=np.float32)[:, None] - top[None]
    thick = rng.uniform(0.2, 0.4)
    n = int(rng.integers(4, 10))
    level = np.concatenate([[rng.uniform(5, 30)], rng.uniform(40, 200, n), [rng.uniform(10, 60)]]).astype(np.float32)
    place = (depth - pit[None] * np.clip(1 - depth / thick, 0, 1)) / np.float32(thick) * n + 1
    field = level[np.clip(place, 0, n + 1).astype(np.int32)]
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(1, 2.5))
    field *= 1 + rng.uniform(0.1, 0.35) * cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=1.2, sigmaY=0.7) * 1.8
    image = cv2.merge([cv2.convertScaleAbs(np.clip(field + 3 * white(rng, size), 0, 255))] * 3)
    name = pick(rng, "retinal OCT", "OCT scan", "tissue layers")
    return Scene(image, full(size), name, pick(rng, "layered", "grey"), modality="oct")


MEDICAL: dict[str, tuple[Family, float]] = {
    "slice_scan": (slice_scan, 1.6),
    "trunk_slice": (trunk_slice, 1.0),
    "layers": (layers, 0.8),
    "radiograph": (radiograph, 0.8),
    "ultrasound": (ultrasound, 0.7),
    "endoscopy": (endoscopy, 1.2),
    "retina": (retina, 0.8),
    "skin": (skin, 1.0),
    "microscopy": (microscopy, 0.9),
}
