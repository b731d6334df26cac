"""Healthy trunks and limbs in scans and radiographs; `modality` decides which findings may occur.

`SCANS` also has the family of `heads.py`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Family, Photos, Rng, Scene, chance, full, loguni, pick
from synthesis.scenes.bodies.base import (
    body_plane,
    draw_branches,
    draw_oval,
    grey_picture,
    lay_over,
    octaves,
    scanned,
    smooth,
    write_marks,
)
from synthesis.scenes.bodies.heads import head_slice


def chest(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a frontal chest radiograph: lungs, ribs, clavicles, heart, spine, diaphragm, shoulders."""
    whole, size = size, size * 3 // 4  # a radiograph is soft: drawn smaller, it costs half
    zoom = rng.uniform(0.85, 1.15)
    x, y = body_plane(rng, size, rng.uniform(0.008, 0.025), zoom)
    x += rng.normal(0, 0.04)
    y += rng.normal(0, 0.05)
    out = np.abs(x)
    field = rng.uniform(120, 165) + 10 * smooth(rng, size, size * 0.5)
    field -= rng.uniform(10, 40) * np.clip(out - 0.6, 0, 1) * 2
    soft = rng.uniform(0.03, 0.08)
    lungs = np.zeros((size, size), np.float32)
    dark = rng.uniform(55, 105)
    heart_side = 1 if chance(rng, 0.9) else -1
    top, bottom = rng.uniform(-0.85, -0.7), rng.uniform(0.45, 0.75)
    for side in (-1, 1):
        cx, a = side * rng.uniform(0.4, 0.47), rng.uniform(0.3, 0.38)
        low = bottom + (0.05 if side == heart_side else -0.02) + rng.normal(0, 0.02)
        side_alpha = draw_oval(x, y, cx, 0.25 * (top + bottom), a, (bottom - top) * 0.75, side * 0.1, soft)
        dome = low + rng.uniform(0.5, 1.5) * (x - cx * 0.85) ** 2
        lungs = np.maximum(lungs, side_alpha * np.clip((dome - y) / soft + 0.5, 0, 1))
    field -= dark * lungs
    # Ribs slope down and outward behind, and back inward in front.
    pitch = rng.uniform(0.14, 0.2)
    cage = draw_oval(x, y, 0, 0, 0.86, 1.05, 0, 0.15) * np.clip((out - 0.1) * 8, 0, 1)
    wide = rng.uniform(0.3, 0.55)
    for slope, curve, strength in ((0.1, 0.9, 1.0), (0.9, -1.4, rng.uniform(0.2, 0.8))):
        phase = (y - slope * out - curve * (out - 0.35) ** 2 + rng.uniform(0, 1)) / pitch
        wave = np.cos(phase * np.float32(2 * math.pi))
        band = np.clip((wave - math.cos(math.pi * wide)) * 2.5, 0, 1)
        field += rng.uniform(8, 26) * strength * cage * (band + 0.35 * band * (1 - band) * 4)
    field += rng.uniform(25, 65) * np.exp(-((x / rng.uniform(0.09, 0.14)) ** 2))
    bones = np.exp(-((x / 0.08) ** 2)) * np.clip(np.cos(y * rng.uniform(30, 45)) * 3, -1, 1)
    field += rng.uniform(2, 9) * bones
    heart = draw_oval(x, y, heart_side * rng.uniform(0.08, 0.18), bottom - 0.15, rng.uniform(0.3, 0.44),
                  rng.uniform(0.26, 0.34), heart_side * 0.6, soft)  # fmt: skip
    heart = np.maximum(heart, draw_oval(x, y, 0.0, top + 0.4, rng.uniform(0.13, 0.19), 0.7, 0, soft * 1.5))
    heart = cv2.GaussianBlur(heart, (0, 0), size * 0.01)
    field += rng.uniform(0.5, 0.9) * dark * heart * np.clip(lungs * 2, 0, 1)
    field -= rng.uniform(8, 25) * np.exp(-((x / 0.05) ** 2)) * np.clip((top + 0.45 - y) * 4, 0, 1)
    vessels = np.zeros((size, size), np.uint8)
    per = size / (2 * zoom)
    for side in (-1, 1):
        hilum = (size / 2 + side * 0.2 * per, size / 2 - 0.02 * per)
        ahead = (0 if side > 0 else math.pi) + rng.uniform(-1.3, 1.3, 5)
        draw_branches(rng, vessels, [(*hilum, t, rng.uniform(1.5, 3.5) * size / 256) for t in ahead])
    field += rng.uniform(0.03, 0.13) * cv2.GaussianBlur(vessels, (0, 0), size * 0.006).astype(np.float32) * lungs
    field += rng.uniform(1, 5) * octaves(rng, size, size * 0.06, 0.6) * lungs
    drawn = np.zeros((size, size), np.uint8)
    for side in (-1, 1):
        points = np.array([[0.08, top + 0.12], [0.3, top + 0.02], [0.55, top + 0.05], [0.82, top - 0.1]])
        points[:, 1] += rng.normal(0, 0.02)
        points = (points * (side, 1) * per + size / 2) * 8
        cv2.polylines(drawn, [points.astype(np.int32)], False, 255, max(2, int(0.055 * per)), cv2.LINE_AA, 3)
    field += rng.uniform(15, 40) * cv2.GaussianBlur(drawn, (0, 0), size * 0.006).astype(np.float32) / 255
    if chance(rng, 0.5):  # the stomach's air
        field -= rng.uniform(15, 50) * draw_oval(x, y, heart_side * 0.4, bottom + 0.2, 0.13, 0.09, 0, 0.04)
    shoulders = np.clip((out - 0.78 - 0.35 * np.clip(y + 0.6, 0, 2)) * 6, 0, 1)
    field += shoulders * rng.uniform(-25, 25)
    air = np.clip((-0.62 - y + (out - 0.25) * -0.5) * 12, 0, 1) * np.clip((out - 0.25) * 8, 0, 1)
    air = np.maximum(air * 0.9, np.clip((out - 1.02 - 0.1 * y) * 20, 0, 1))
    field *= 1 - air * rng.uniform(0.5, 1.0)
    field = (field - 110) * rng.uniform(0.75, 1.3) + rng.uniform(90, 135)
    if chance(rng, 0.04):
        field = 255 - field
    field = cv2.resize(field, (whole, whole), interpolation=cv2.INTER_CUBIC)
    image = grey_picture(scanned(rng, field, (0.5, 6)))
    if chance(rng, 0.25):
        write_marks(rng, image)
    where = draw_oval(x, y, 0, 0.5 * (top + bottom), 0.82, (bottom - top) * 0.62) > 0.5
    if chance(rng, 0.6):  # findings lie in the lungs mostly
        where &= lungs > 0.4
    where = cv2.resize(where.astype(np.uint8), (whole, whole), interpolation=cv2.INTER_NEAREST) > 0
    name = pick(rng, "chest X-ray", "chest", "chest radiograph", "thorax", "lungs", "X-ray")
    return Scene(image, where, name, pick(rng, "grey", "medical"), modality="xray")


def abdomen(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a CT slice of a trunk in Hounsfield units under some window; a quarter are slices of a chest."""
    zoom = rng.uniform(0.95, 1.25) if chance(rng, 0.8) else rng.uniform(0.6, 0.95)
    x, y = body_plane(rng, size, wobble := rng.uniform(0.015, 0.04), zoom)
    shift = rng.uniform(-0.3, 0.3) if zoom < 0.95 else 0.0
    x += shift
    flip = -1 if chance(rng, 0.15) else 1
    x *= flip
    soft = 3.2 * zoom / size

    def lay(
        value: float | np.ndarray, cx: float, cy: float, a: float, b: float, turn: float = 0.0,
        soft: float = soft, within: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Fill a small oval, computing only the part of the picture around it."""
        reach = max(a, b) + 3.5 * wobble + 2 * soft
        middle = (flip * cx - shift) / zoom, cy / zoom
        (left, right), (top, bottom) = (
            (max(int((m - reach / zoom + 1) * size / 2), 0), max(int((m + reach / zoom + 1) * size / 2) + 1, 0))
            for m in middle
        )
        if right <= left or bottom <= top:
            return
        at = slice(top, bottom), slice(left, right)
        alpha = draw_oval(x[at], y[at], cx, cy, a, b, turn, soft)
        if within is not None:
            alpha *= within[at]
        lay_over(field[at], alpha, value[at] if isinstance(value, np.ndarray) else value)

    tall = rng.uniform(0.62, 0.82)
    fat = rng.uniform(0.03, 0.16)
    body = draw_oval(x, y, 0, 0, 0.94, tall, 0, soft)
    field = np.full((size, size), -900, np.float32)
    lay_over(field, body, rng.uniform(-20, 20))
    lay_over(field, draw_oval(x, y, 0, 0, 0.94 - 1.5 * soft, tall - 1.5 * soft, 0, soft), -105.0)
    a, b = 0.92 - fat, tall - 0.02 - fat * rng.uniform(0.7, 1.2)
    wall = draw_oval(x, y, 0, 0, a, b, 0, soft)
    lay_over(field, wall, rng.uniform(40, 65))
    thick = rng.uniform(0.05, 0.09)
    cavity = draw_oval(x, y, 0, -0.03, a - thick, b - thick, 0, soft)
    lay_over(field, cavity, -95 + 10 * smooth(rng, size, size * 0.05))
    contrast = rng.uniform(0, 1) if chance(rng, 0.7) else 0.0
    blood = 45 + 160 * contrast
    thorax = chance(rng, 0.25)
    vessels = np.zeros((size, size), np.uint8)
    tree = 0.5 * size
    where = cavity > 0.5
    if thorax:
        lungs = np.zeros_like(field)
        for side in (-1, 1):
            lungs = np.maximum(
                lungs,
                draw_oval(x, y, side * 0.42, 0.0, 0.33 * rng.uniform(0.9, 1.1), (b - thick) * 0.88, side * 0.1, soft),
            )
        for side in (-1, 1):
            ahead = (0 if side > 0 else math.pi) + rng.uniform(-1.2, 1.2, 4)
            at = (tree * (1 + side * 0.2 / zoom), tree)
            draw_branches(rng, vessels, [(*at, t, 3.0 * size / 256) for t in ahead])
        lay_over(field, lungs, -850 + 25 * smooth(rng, size, size * 0.03) + 3.2 * vessels)
        lay(30 + blood / 2, 0.1, -0.1, rng.uniform(0.24, 0.34), rng.uniform(0.22, 0.3), 0.5)
        lay(blood, 0.12, -0.12, 0.13, 0.11, 0.5, soft=soft * 2)
        if chance(rng, 0.5):
            where = lungs > 0.5
    else:
        organ = 55 + 55 * contrast * rng.uniform(0.6, 1.1)
        for _ in range(int(rng.integers(6, 15))):  # loops of bowel
            bx, by = rng.uniform(-0.2, 0.6), rng.uniform(-0.45, 0.3)
            r, q = rng.uniform(0.05, 0.12), rng.uniform(0.6, 1.0)
            turn = rng.uniform(0, 3)
            lay(40 + 50 * contrast, bx, by, r, r * q, turn, within=cavity)
            inside = float(rng.choice([10.0, 25.0, -600.0, 180.0], p=[0.35, 0.35, 0.2, 0.1]))
            lay(inside, bx, by, r * 0.7, r * q * 0.65, turn, within=cavity)
        for side in (-1, 1):  # kidneys: cortex, medulla, fat where the vessels enter
            if chance(rng, 0.75):
                kx, ky, turn = side * rng.uniform(0.36, 0.44), rng.uniform(0.2, 0.3), side * rng.uniform(-0.6, 0.2)
                lay(40 + 150 * contrast, kx, ky, 0.13, 0.1, turn)
                lay(35 + 70 * contrast, kx - side * 0.02, ky, 0.08, 0.055, turn, soft=4 * soft)
                lay(-70.0, kx - side * 0.06, ky - 0.01, 0.05, 0.03, turn, soft=3 * soft)
        if chance(rng, 0.85):
            spleen = draw_oval(x, y, 0.6, 0.12, 0.15, 0.3, -0.35, soft) * cavity
            lay_over(field, spleen, organ + 20 * contrast)
        if chance(rng, 0.7):
            sx, sy, r = rng.uniform(0.25, 0.4), rng.uniform(-0.3, -0.15), rng.uniform(0.14, 0.24)
            lay(45.0, sx, sy, r, r * 0.75, 0.4, within=cavity)
            belly = draw_oval(x, y, sx, sy, r - 0.025, r * 0.75 - 0.025, 0.4, soft) * cavity
            level = sy + rng.uniform(-0.1, 0.08)
            lay_over(field, belly, float(rng.choice([12.0, 30.0, 150.0])))
            lay_over(field, belly * np.clip((level - y) / soft + 0.5, 0, 1), -900.0)
        big = rng.uniform(0.7, 1.15)
        liver = draw_oval(x, y, -0.46, -0.06, 0.34 * big, 0.46 * big, rng.uniform(-0.2, 0.3), soft)
        if chance(rng, 0.7):
            liver = np.maximum(
                liver, draw_oval(x, y, -0.1, -0.28, 0.36 * big, 0.17 * big, rng.uniform(-0.2, 0.2), soft)
            )
        liver *= cavity
        roots = [(tree * (1 + flip * rng.uniform(-0.35, -0.2)), tree * rng.uniform(0.8, 1.1)) for _ in range(3)]
        draw_branches(rng, vessels, [(*at, rng.uniform(0, 6.28), rng.uniform(2, 4) * size / 256) for at in roots])
        shine = (blood - organ) * rng.uniform(0.2, 0.7) * contrast - 8
        texture = 4 * smooth(rng, size, size * 0.04)
        lay_over(
            field, liver, organ + texture + shine * cv2.GaussianBlur(vessels, (0, 0), 1.2).astype(np.float32) / 255
        )
        if chance(rng, 0.4):
            lay(8.0, -0.25, 0.02, 0.06, 0.09, 0.5, within=cavity)
        if chance(rng, 0.4):
            where = liver > 0.5
    back = b - 0.19
    for side in (-1, 1):
        lay(55.0, side * 0.2, back + 0.06, 0.13, 0.11, 0)
    lay(550.0, 0, back - 0.06, 0.115, 0.1, 0)
    lay(190 + 40 * smooth(rng, size, size * 0.01), 0, back - 0.06, 0.095, 0.08, 0)
    for side in (-1, 1):
        lay(480.0, side * 0.11, back + 0.05, 0.1, 0.022, side * 0.3)
    lay(480.0, 0, back + 0.12, 0.02, 0.08, 0)
    lay(30.0, 0, back + 0.045, 0.045, 0.035, 0)
    lay(blood, 0.05, back - 0.21, 0.05, 0.05, 0)
    lay(blood * 0.8, -0.09, back - 0.2, 0.05, 0.04, 0.3)
    for k in range(int(rng.integers(0, 7))):
        for side in (-1, 1):
            t = 0.5 + 0.38 * k + rng.normal(0, 0.05)
            rx, ry = side * math.sin(t) * (a - thick * 0.6), math.cos(t) * (b - thick * 0.6)
            lean = math.atan2(-rx * (b / a), ry * (a / b))
            lay(rng.uniform(250, 700), rx, ry, 0.06, 0.018, lean)
    if chance(rng, 0.4):  # the table
        bed = y - tall - 0.04 + 0.12 * x * x
        field += (np.abs(bed) < 0.012) * np.float32(rng.uniform(300, 800))
    width, centre = (loguni(rng, 180, 500), rng.uniform(10, 90)) if not thorax or chance(rng, 0.5) else (1500.0, -500.0)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.5, 1.0))
    windowed = np.clip((field - centre) / width + 0.5, 0, 1) * np.float32(255)
    windowed = scanned(rng, windowed, (1.0, 12.0))
    if chance(rng, 0.5):
        windowed *= cv2.dilate(body, np.ones((3, 3), np.uint8))
    image = grey_picture(windowed)
    if chance(rng, 0.1):
        write_marks(rng, image)
    names = ("chest CT", "lung CT", "thorax") if thorax else ("liver CT", "abdominal CT", "liver", "CT scan", "abdomen")
    return Scene(image, where, pick(rng, *names), pick(rng, "grey", "medical", "soft tissue"), modality="ct")


def limb(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw bones of hands, joints and limbs: dense borders, spongy insides, a halo of flesh."""
    bones = np.zeros((size, size), np.uint8)
    flesh = np.zeros((size, size), np.uint8)
    unit, angle = size / 2, rng.normal(0, 0.15)
    c, s = math.cos(angle), math.sin(angle)

    def rod(x0: float, y0: float, x1: float, y1: float, shaft: float, ends: float, coat: float) -> None:
        p, q = ((np.array([c * u - s * v, s * u + c * v]) + 1) * unit for u, v in ((x0, y0), (x1, y1)))
        t = np.linspace(0, 1, 14)
        half = (shaft + (ends - shaft) * np.abs(2 * t - 1) ** 3) * unit
        along = (q - p) / max(float(np.linalg.norm(q - p)), 1.0)
        across = np.array([-along[1], along[0]])
        middle = p + (q - p) * t[:, None]
        cap = np.array([math.sin(k) for k in np.linspace(0, math.pi, 5)])
        lid = np.linspace(-1, 1, 5)
        end = q + along * (cap * ends * 0.6 * unit)[:, None] - across * (lid * ends * unit)[:, None]
        start = p - along * (cap * ends * 0.6 * unit)[:, None] + across * (lid * ends * unit)[:, None]
        outline = np.concatenate([middle + across * half[:, None], end, (middle - across * half[:, None])[::-1], start])
        cv2.fillPoly(bones, [(outline * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        ends_at = [tuple((e * 8).astype(int).tolist()) for e in (p, q)]
        cv2.line(flesh, ends_at[0], ends_at[1], 255, max(2, int(coat * 2 * unit)), cv2.LINE_AA, 3)

    kind = rng.random()
    if kind < 0.45:  # a hand
        for k in range(5):
            fan = (k - 2) * rng.uniform(0.1, 0.16) + rng.normal(0, 0.02)
            x0, y0 = (k - 2) * 0.13, 0.3 + 0.03 * abs(k - 2)
            lengths = np.array([0.42, 0.3, 0.19, 0.13]) * (0.75 if k == 0 else 1 - 0.06 * abs(k - 2))
            for n, long in enumerate(lengths[: 3 if k == 0 else 4]):
                x1, y1 = x0 + math.sin(fan) * long, y0 - math.cos(fan) * long
                shaft = 0.034 - 0.006 * n
                rod(x0, y0, x1, y1, shaft, shaft * 1.35, 0.075 if n else 0.11)
                x0, y0 = x1 + math.sin(fan) * 0.055, y1 - math.cos(fan) * 0.055
        for k in range(7):
            rod(-0.22 + 0.15 * (k % 4), 0.42 + 0.12 * (k // 4), -0.2 + 0.15 * (k % 4), 0.45 + 0.12 * (k // 4), 0.05,
                0.055, 0.13)  # fmt: skip
        rod(-0.14, 0.72, -0.16, 1.3, 0.075, 0.11, 0.17)
        rod(0.14, 0.74, 0.16, 1.3, 0.055, 0.08, 0.15)
    elif kind < 0.8:  # a knee, an elbow or an ankle
        wide = rng.uniform(0.12, 0.2)
        bend, gap = rng.normal(0, 0.25), rng.uniform(0.02, 0.05)
        rod(bend * 0.8, -1.5, 0, -gap - wide, wide, wide * 1.7, wide * 2.6)
        rod(0, gap + wide, -bend * 0.5, 1.5, wide * 0.85, wide * 1.6, wide * 2.3)
        if chance(rng, 0.7):
            rod(wide * 1.6, gap + wide + 0.2, wide * 1.5 - bend * 0.5, 1.5, wide * 0.35, wide * 0.5, wide * 1.2)
    else:  # one or two shafts
        for k in range(int(rng.integers(1, 3))):
            rod(k * 0.45 - 0.2, -1.4, k * 0.4 - 0.2 + rng.normal(0, 0.1), 1.4, rng.uniform(0.09, 0.15), 0.2, 0.4)
    bone = bones.astype(np.float32) / 255
    depth = cv2.distanceTransform((bones > 127).astype(np.uint8), cv2.DIST_L2, 3)
    cortex = np.exp(-depth / (size * rng.uniform(0.008, 0.02))) * bone
    coat = cv2.GaussianBlur(cv2.max(flesh, bones), (0, 0), size * rng.uniform(0.01, 0.03)).astype(np.float32) / 255
    field = rng.uniform(5, 25) + rng.uniform(45, 95) * coat * (1 + 0.08 * smooth(rng, size, size * 0.2))
    sponge = octaves(rng, size, size * 0.02, 0.7, 2.5, angle + math.pi / 2)
    field += bone * (rng.uniform(40, 70) + rng.uniform(2, 9) * sponge) + rng.uniform(20, 60) * cortex
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.6, 1.4))
    if chance(rng, 0.08):
        field = 255 - field
    image = grey_picture(scanned(rng, field, (0.5, 6)))
    if chance(rng, 0.3):
        write_marks(rng, image)
    where = (bones if chance(rng, 0.6) else cv2.max(flesh, bones)) > 127
    name = pick(rng, "hand X-ray", "bone X-ray", "joint X-ray", "bone", "knee X-ray", "radiograph")
    return Scene(image, where if where.mean() > 0.03 else full(size), name, pick(rng, "grey", "bony"), modality="xray")


def breast(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a mammogram: a half oval of fat and strands that run to the nipple."""
    x, y = body_plane(rng, size, 0.02)
    deep, tall = rng.uniform(0.9, 1.6), rng.uniform(0.75, 1.1)
    shape = draw_oval(x, y, -1.05, 0.0, deep, tall, 0, 0.03)
    radius = np.sqrt(((x + 1.05) / deep) ** 2 + (y / tall) ** 2)
    strands = octaves(rng, size, size * rng.uniform(0.05, 0.12), 0.65, rng.uniform(1.5, 4), rng.normal(0, 0.3))
    gland = np.clip(1.1 - radius * rng.uniform(0.9, 1.6) + 0.25 * smooth(rng, size, size * 0.25), 0, 1)
    field = rng.uniform(50, 90) + rng.uniform(30, 110) * gland * (1 + rng.uniform(0.2, 0.4) * strands)
    field += rng.uniform(2, 8) * strands
    field *= np.clip((1.03 - radius) * 6, 0, 1)
    if chance(rng, 0.6):
        edge = x + 1 - rng.uniform(0.3, 0.8) * (-y - rng.uniform(-0.3, 0.2))
        lay_over(field, np.clip(-edge * 10, 0, 1) * shape, rng.uniform(110, 190) + 5 * strands)
    field = scanned(rng, cv2.GaussianBlur(field * shape, (0, 0), 0.7), (0.5, 5))
    where = shape > 0.7
    if chance(rng, 0.5):
        field, where = np.ascontiguousarray(field[:, ::-1]), np.ascontiguousarray(where[:, ::-1])
    name = pick(rng, "mammogram", "breast", "breast X-ray")
    return Scene(grey_picture(field), where, name, pick(rng, "grey", "soft tissue"), modality="xray")


SCANS: dict[str, tuple[Family, float]] = {
    "head_slice": (head_slice, 2.6),
    "chest": (chest, 1.8),
    "abdomen": (abdomen, 1.8),
    "limb": (limb, 0.5),
    "breast": (breast, 0.5),
}
