"""Findings in bodies: tumours, nodules, bleedings, polyps, skin lesions and their like, from faint to gross.

Tissue that is replaced keeps the picture's own grain: what is smooth in it changes, the noise of the scanner stays.
"""

from __future__ import annotations

import cv2
import numpy as np
from defects_canvas import Canvas, Change, blend, box, shade, tint
from defects_shapes import (
    Rng,
    chance,
    draw_line,
    fill_polygon,
    fractal,
    grid,
    log_uniform,
    noise_island,
    outline_points,
    scatter,
    sign,
    soften,
    tree,
)

#: Which findings occur in which pictures, with weights.
FINDINGS: dict[str, dict[str, float]] = {
    "mri": {"tumor": 5, "lesion": 2, "oedema": 2, "haemorrhage": 1},
    "ct": {"tumor": 3, "nodule": 2, "lesion": 1.5, "haemorrhage": 2.5, "oedema": 1.5, "calcification": 0.5},
    "xray": {"nodule": 3, "oedema": 3, "lesion": 1.5, "calcification": 0.7, "tumor": 0.5},
    "ultrasound": {"nodule": 5, "lesion": 1.5, "calcification": 0.5, "tumor": 0.5},
    "oct": {"fluid": 4, "lesion": 1.5, "haemorrhage": 0.3},
    "mucosa": {"polyp": 6, "ulcer": 1.5, "bleed": 2, "lesion": 1},
    "skin": {"skin lesion": 6, "ulcer": 1, "bleed": 1, "lesion": 1},
    "retina": {"exudates": 3, "bleed": 1.5, "lesion": 0.7},
    "cells": {"abnormal cells": 5, "lesion": 1.5, "bleed": 0.3},
}


def _spot(rng: Rng, canvas: Canvas, radius: float) -> tuple[float, float]:
    """A place in the foreground that leaves room for a radius in it and in the picture, if there is one."""
    if chance(rng, 0.1):
        return canvas.somewhere(rng)
    depth = None if canvas.coverage > 0.97 else cv2.distanceTransform(canvas.foreground, cv2.DIST_L2, 3)
    best, deepest = canvas.somewhere(rng), -1.0
    for _ in range(6):
        at = canvas.somewhere(rng)
        here = min(*at, canvas.size - at[0], canvas.size - at[1])
        if depth is not None:
            here = min(here, float(depth[int(at[1]), int(at[0])]))
        if here > deepest:
            best, deepest = at, here
        if here > 0.7 * radius:
            break
    return best


def _shape(rng: Rng, canvas: Canvas, at: tuple[float, float], radius: float, rough: float | None = None) -> np.ndarray:
    """Alpha (hard) of a rounded, lobed or ragged thing, in the foreground."""
    rough = float(rng.choice([0.04, 0.1, 0.18, 0.28])) if rough is None else rough
    if chance(rng, 0.12):
        return canvas.inside(noise_island(rng, canvas.size, at, radius))
    points = outline_points(rng, radius, rough)
    if rough > 0.1:
        points *= 1 + 0.06 * rng.normal(0, 1, (len(points), 1))
    return canvas.inside(fill_polygon(canvas.size, points + at))


def _pushed(rng: Rng, canvas: Canvas, at: tuple[float, float], radius: float) -> np.ndarray:
    """The picture with its tissue pushed away from a place, as a growing mass does."""
    reach = int(2.2 * radius) + 2
    left, top = max(int(at[0]) - reach, 0), max(int(at[1]) - reach, 0)
    right, bottom = min(int(at[0]) + reach, canvas.size), min(int(at[1]) + reach, canvas.size)
    if right - left < 4 or bottom - top < 4:
        return canvas.image
    x, y = (part[top:bottom, left:right] for part in grid(canvas.size))
    dx, dy = x - np.float32(at[0]), y - np.float32(at[1])
    nearer = np.float32(rng.uniform(0.15, 0.5)) * np.exp(-(dx * dx + dy * dy) / np.float32(radius * radius))
    image = canvas.image.copy()
    moved = cv2.remap(canvas.image, x - dx * nearer, y - dy * nearer, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = canvas.foreground[top:bottom, left:right, None] > 0
    image[top:bottom, left:right] = np.where(inside, moved, canvas.image[top:bottom, left:right])
    return image


def _grown(image: np.ndarray, alpha: np.ndarray, offset: np.ndarray | float, keep: float = 1.0) -> np.ndarray:
    """Tissue replaced by the local mean plus an offset; with `keep` below 1 the old structure shows through."""
    where = box(alpha, 2)
    patch = np.ascontiguousarray(image[where]).astype(np.float32)
    part = alpha[where]
    low = cv2.GaussianBlur(patch, (0, 0), max(0.8, len(image) / 220))
    total = max(float(part.sum()), 1e-3)
    mean = (low * part[..., None]).sum((0, 1)) / total
    plus = offset[where][..., None] if isinstance(offset, np.ndarray) else np.float32(offset)
    moved = patch + part[..., None] * (keep * (mean + plus - low) + (1 - keep) * plus)
    result = image.copy()
    result[where] = np.clip(moved + 0.5, 0, 255).astype(np.uint8)
    return result


def _solid(canvas: Canvas) -> float:
    """How far tissue may be replaced: where it is seen by its speckle, a flat thing would be no tissue."""
    return 0.35 if canvas.scene.modality in ("ultrasound", "oct") else 1.0


def _texture(rng: Rng, size: int, alpha: np.ndarray, cells: tuple[float, float] = (3, 30)) -> np.ndarray:
    """Smooth noise in about [-0.5, 0.5] where the alpha is, 0 elsewhere."""
    where = box(alpha, 2)
    field = np.zeros((size, size), np.float32)
    height, width = field[where].shape
    half = max(height // 2, 4), max(width // 2, 4)  # it is smooth: half the size will do
    small = fractal(rng, *half, min(log_uniform(rng, *cells), max(half) / 3), 3) - 0.5
    field[where] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return field


def _depth(alpha: np.ndarray) -> np.ndarray:
    """How far inside a shape, from 0 at its border to 1 in its middle."""
    depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return depth / max(float(depth.max()), 1.0)


def _contrast(rng: Rng, canvas: Canvas, alpha: np.ndarray, bright: float = 0.5) -> float:
    """A signed change of brightness that fits what is there: dark places can only get brighter."""
    where = box(alpha)
    level = float(canvas.gray[where].mean())
    room_up, room_down = 250 - level, level - 4
    up = chance(rng, bright)
    if room_up < 30 or (room_down > 30 and not up):
        return -min(log_uniform(rng, 16, 130), max(room_down, 16))
    return min(log_uniform(rng, 16, 130), max(room_up, 16))


def tumor(rng: Rng, canvas: Canvas) -> Change:
    """A mass with a body, often a bright rim, a dead core, soft oedema round it, and pushed tissue."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0012, 0.1)
    at = _spot(rng, canvas, radius)
    body = _shape(rng, canvas, at, radius)
    if chance(rng, 0.25):  # lobes or a satellite
        angle, far = rng.uniform(0, 6.28), radius * rng.uniform(0.6, 1.8)
        near = (at[0] + far * np.cos(angle), at[1] + far * np.sin(angle))
        body = np.maximum(body, _shape(rng, canvas, near, radius * rng.uniform(0.3, 0.8)))
    image = _pushed(rng, canvas, at, radius) if chance(rng, 0.6) else canvas.image
    strength = _contrast(rng, canvas, body, 0.62)
    edge = soften(body, max(0.5, radius * log_uniform(rng, 0.03, 0.25)))
    region = edge > 0.06
    if chance(rng, 0.5):
        wide = radius * rng.uniform(1.2, 2.1)
        halo = soften(_shape(rng, canvas, at, wide, 0.28), wide * rng.uniform(0.08, 0.3))
        halo = canvas.inside(np.clip(np.maximum(halo, edge * 0.5) * (0.85 + _texture(rng, size, halo, (3, 9))), 0, 1))
        around = (strength if chance(rng, 0.6) else _contrast(rng, canvas, halo)) * rng.uniform(0.25, 0.7)
        image = _grown(image, halo, around, rng.uniform(0, 0.5))
        region |= halo > 0.06
    depth = _depth(body)
    grain = _texture(rng, size, edge)
    offset = strength * (rng.uniform(0.5, 1) + rng.uniform(0, 1.2) * grain)
    if chance(rng, 0.5):  # the rim takes up contrast
        width = rng.uniform(0.12, 0.4)
        offset = offset + np.exp(-(((depth - width) / (0.5 * width)) ** 2)) * log_uniform(rng, 15, 110) * (1 + grain)
    if chance(rng, 0.45):
        start = rng.uniform(0.35, 0.7)
        dead = np.clip((depth + 0.5 * grain - start) * 8, 0, 1)
        offset = offset - dead * strength * rng.uniform(0.6, 1.9)
    image = _grown(image, canvas.inside(edge), offset.astype(np.float32), rng.uniform(0.5, 1) * _solid(canvas))
    return Change(image, region, True)


def nodule(rng: Rng, canvas: Canvas) -> Change:
    """A round thing that belongs to another tissue, as the picture's make shows it."""
    how = canvas.scene.modality
    if how == "ultrasound" or (not how and chance(rng, 0.3)):
        return _echo(rng, canvas)
    size, radius = canvas.size, canvas.radius(rng, 0.0006, 0.06)
    at = _spot(rng, canvas, radius)
    body = _shape(rng, canvas, at, radius, float(rng.choice([0.03, 0.07, 0.15])))
    projected = how == "xray"
    strength = abs(_contrast(rng, canvas, body, 0.9)) if projected else _contrast(rng, canvas, body, 0.5)
    if projected and canvas.gray[0, 0] > 200 and canvas.gray.mean() > 150:
        strength = -strength  # an inverted radiograph
    edge = canvas.inside(soften(body, max(0.6, radius * log_uniform(rng, 0.05, 0.4))))
    if chance(rng, 0.25):  # spikes
        spikes = np.zeros((size, size), np.uint8)
        for angle in rng.uniform(0, 6.28, int(rng.integers(6, 18))):
            far = radius * rng.uniform(1.2, 2.0)
            points = np.array([at, (at[0] + far * np.cos(angle), at[1] + far * np.sin(angle))])
            draw_line(spikes, points, max(1.0, radius * 0.08), int(rng.integers(60, 200)))
        edge = np.maximum(edge, canvas.inside(soften(spikes.astype(np.float32) / 255, 0.8)) * 0.7)
    depth = _depth(body)
    offset = strength * (0.8 + rng.uniform(0, 0.8) * _texture(rng, size, edge))
    if chance(rng, 0.15):  # a cavity
        offset = offset * (1 - 1.2 * np.clip((depth - 0.35) * 6, 0, 1))
    elif chance(rng, 0.25):
        offset = offset + np.exp(-(((depth - 0.2) / 0.12) ** 2)) * log_uniform(rng, 15, 90)
    image = _grown(canvas.image, edge, offset.astype(np.float32), 0.0 if projected else rng.uniform(0.4, 1))
    return Change(image, edge > 0.05, True)


def _echo(rng: Rng, canvas: Canvas) -> Change:
    """In ultrasound: darker or brighter speckle, a rim or halo, a shadow or a bright tail below, bright specks."""
    size, radius = canvas.size, canvas.radius(rng, 0.004, 0.16)
    at = _spot(rng, canvas, radius)
    points = outline_points(rng, radius, float(rng.choice([0.03, 0.08, 0.16, 0.25]))) * (1.15, 0.87)
    body = canvas.inside(fill_polygon(size, points + at))
    edge = canvas.inside(soften(body, max(0.7, radius * log_uniform(rng, 0.03, 0.2))))
    where = box(edge, 3)
    patch = canvas.image[where].astype(np.float32)
    low = cv2.GaussianBlur(patch, (0, 0), size / 85)
    level = float((low * edge[where][..., None]).sum() / max(3 * float(edge[where].sum()), 1e-3))
    gain = rng.uniform(0.02, 0.65) if level > 30 and chance(rng, 0.85) else rng.uniform(1.5, 2.8)
    grain = 1 + rng.uniform(0, 0.8) * _texture(rng, size, edge)[where]
    speckle = np.clip(patch / np.maximum(low, 4), 0, 3)
    inner = (level * gain * grain)[..., None] * speckle
    layer = canvas.image.astype(np.float32)
    layer[where] = np.clip(inner, 0, 255)
    image = blend(canvas.image, layer, edge)
    if chance(rng, 0.4):
        depth = soften(body, 1.0)
        ring = canvas.inside(np.clip(1 - np.abs(depth - 0.5) * 3, 0, 1))
        image = shade(image, ring * sign(rng) * log_uniform(rng, 20, 70), factor=True)
    if chance(rng, 0.35):
        specks = canvas.inside(scatter(rng, size, at, radius * 0.7, int(rng.integers(2, 10)), 0.005 * size)) * edge
        image = shade(image, specks * rng.uniform(80, 200))
    if chance(rng, 0.4):  # what lies below gets less sound, or more
        x, y = grid(size)
        below = np.clip((y - at[1]) / radius, 0, 1) * np.exp(-np.clip(y - at[1], 0, None) / (2 * radius))
        beam = np.exp(-(((x - at[0]) / (0.7 * radius)) ** 4)) * below * (1 - edge)
        image = shade(image, canvas.inside(beam) * (-40.0 if chance(rng, 0.6) else 45.0), factor=True)
    return Change(image, edge > 0.08, True)


def oedema(rng: Rng, canvas: Canvas) -> Change:
    """A soft cloud: infiltrated lung or swollen tissue, patchy, without a border; or fluid that has sunk down."""
    size = canvas.size
    radius = canvas.radius(rng, 0.006, 0.22)
    at = _spot(rng, canvas, radius * 0.5)
    if canvas.scene.modality == "xray" and canvas.coverage < 0.9 and chance(rng, 0.25):
        x, y = grid(size)
        level = at[1] - rng.uniform(0.05, 0.25) * np.abs(x - at[0]) ** 1.2 / max(size / 256, 0.5) ** 0.2
        half = x > size / 2 if at[0] > size / 2 else x < size / 2
        cloud = canvas.inside(np.clip((y - level) / (0.06 * size) + 0.5, 0, 1) * half)
        cloud = cloud * (0.85 + _texture(rng, size, cloud, (2, 6)))
    else:
        cloud = soften(_shape(rng, canvas, at, radius, 0.28), radius * rng.uniform(0.12, 0.45))
        patchy = 0.5 + rng.uniform(0.3, 1.3) * _texture(rng, size, cloud, (3, 24))
        cloud = canvas.inside(np.clip(cloud * (0.5 + patchy), 0, 1))
    if float(cloud.max()) < 0.1:
        cloud = canvas.inside(_shape(rng, canvas, at, radius))
    if canvas.scene.modality == "xray":  # lungs have no sharp border in a projection
        cloud = soften(cloud.astype(np.float32), 0.016 * size)
    strength = _contrast(rng, canvas, cloud, 0.92 if canvas.scene.modality == "xray" else 0.5)
    if canvas.scene.modality == "xray":
        strength = float(np.clip(strength, -75, 75))
    image = _grown(canvas.image, cloud, strength, rng.uniform(0.2, 0.8))
    return Change(image, cloud > 0.05, True)


def haemorrhage(rng: Rng, canvas: Canvas) -> Change:
    """Blood in tissue: an even, bright pool with a thin dark edge, or a crescent along the border."""
    size = canvas.size
    if canvas.coverage < 0.9 and chance(rng, 0.35):
        depth = cv2.distanceTransform(canvas.foreground, cv2.DIST_L2, 3)
        x, y = grid(size)
        rows, columns = box(canvas.foreground.astype(np.float32))
        cx, cy = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
        angle = np.arctan2(y - cy, x - cx) - rng.uniform(-np.pi, np.pi)
        angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)
        wide, thick = rng.uniform(0.3, 1.4), rng.uniform(0.02, 0.09) * size
        border = thick * np.clip(1 - (angle / wide) ** 2, 0, 1) + 0.02 * size * _texture(rng, size, depth + 1, (5, 12))
        alpha = canvas.inside(np.clip((border - depth) / 1.5, 0, 1) * (angle < wide))
        strength = log_uniform(rng, 30, 120) * (1 if chance(rng, 0.8) else -1)
        keep, image = 1.0, canvas.image
    else:
        radius = canvas.radius(rng, 0.0008, 0.08)
        at = _spot(rng, canvas, radius)
        body = _shape(rng, canvas, at, radius)
        alpha = canvas.inside(soften(body, log_uniform(rng, 0.6, 2.5)))
        strength = abs(_contrast(rng, canvas, alpha, 1.0)) * (1 if chance(rng, 0.8) else -1)
        image = _pushed(rng, canvas, at, radius) if chance(rng, 0.4) else canvas.image
        if chance(rng, 0.5):
            ring = canvas.inside(np.clip(soften(body, radius * 0.25) * 2, 0, 1)) * (1 - alpha)
            image = shade(image, -ring * log_uniform(rng, 8, 30))
        keep = rng.uniform(0.7, 1)
    offset = strength * (1 + 0.4 * _texture(rng, size, alpha))
    return Change(_grown(image, alpha, offset.astype(np.float32), keep), alpha > 0.05, True)


def calcification(rng: Rng, canvas: Canvas) -> Change:
    """Bright hard specks in a cluster, or one shell."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0015, 0.03)
    at = _spot(rng, canvas, radius)
    if chance(rng, 0.65):
        grains = scatter(rng, size, at, radius, int(rng.integers(4, 30)), size * log_uniform(rng, 0.003, 0.012))
    else:
        body = _shape(rng, canvas, at, radius * 0.6)
        grains = body * np.clip(1.3 - 2 * _depth(body) + _texture(rng, size, body, (4, 12)), 0, 1)
    alpha = canvas.inside(soften(grains, rng.uniform(0.3, 0.9)))
    value = np.float32(rng.uniform(190, 255))
    return Change(blend(canvas.image, np.full(3, value, np.float32), alpha * rng.uniform(0.6, 1)), alpha > 0.05, False)


def lesion(rng: Rng, canvas: Canvas) -> Change:
    """Something that is not like the tissue around: brighter or darker, sharp or soft, with a ring or a core."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0012, 0.14)
    at = _spot(rng, canvas, radius)
    body = _shape(rng, canvas, at, radius)
    alpha = canvas.inside(soften(body, radius * log_uniform(rng, 0.03, 0.5)))
    strength = _contrast(rng, canvas, alpha)
    grain = _texture(rng, size, alpha, (3, 40))
    offset = strength * (0.9 + rng.uniform(0, 1.2) * grain)
    if chance(rng, 0.35):
        offset = offset + np.clip(1 - np.abs(alpha - 0.55) * 4, 0, 1) * abs(strength)
    if chance(rng, 0.25):
        offset = offset - np.clip((_depth(body) + 0.4 * grain - 0.5) * 6, 0, 1) * strength * 1.3
    image = _pushed(rng, canvas, at, radius) if chance(rng, 0.2) else canvas.image
    image = _grown(image, alpha, offset.astype(np.float32), float(rng.choice([0.0, 0.5, 1.0])) * _solid(canvas))
    if canvas.scene.modality in ("mucosa", "skin", "retina", "cells") and chance(rng, 0.7):
        hue = 1 + rng.normal(0, 0.16, 3)
        image = tint(image, np.clip(hue, 0.5, 1.4).astype(np.float32), alpha)
    return Change(image, alpha > 0.04, True)


def polyp(rng: Rng, canvas: Canvas) -> Change:
    """A growth on a wall: domed or lobed or flat, redder or paler, with its own vessels, glints and a shaded foot."""
    size = canvas.size
    radius = canvas.radius(rng, 0.012, 0.22) if chance(rng, 0.6) else canvas.radius(rng, 0.0025, 0.05)
    at = _spot(rng, canvas, radius * 0.8)
    body = _shape(rng, canvas, at, radius, float(rng.choice([0.03, 0.07, 0.12])))
    if chance(rng, 0.25):
        for _ in range(int(rng.integers(1, 4))):
            angle, far = rng.uniform(0, 6.28), radius * rng.uniform(0.4, 0.9)
            near = (at[0] + far * np.cos(angle), at[1] + far * np.sin(angle))
            body = np.maximum(body, _shape(rng, canvas, near, radius * rng.uniform(0.3, 0.6), 0.05))
    core = canvas.inside(soften(body, max(0.7, radius * log_uniform(rng, 0.03, 0.18))))
    flat = chance(rng, 0.25)
    depth = _depth(body)
    height = np.sqrt(np.clip(depth * (2 - depth), 0, 1)) * radius * (0.25 if flat else rng.uniform(0.5, 1.0))
    relief = _texture(rng, size, core, (4, 30)) * radius * rng.uniform(0.0, 0.35)
    dome = soften((height + relief * body).astype(np.float32), max(0.8, radius * 0.12))
    image = canvas.image
    if chance(rng, 0.7):  # its foot
        foot = canvas.inside(np.clip(soften(body, radius * 0.22) * 1.6, 0, 1) * (1 - core))
        image = shade(image, -foot * log_uniform(rng, 8, 40), factor=True)
    image = _grown(image, core, rng.uniform(-12, 22), rng.uniform(0.3, 0.95))
    warm = rng.uniform((0.9, 0.65, 0.65), (1.2, 0.98, 0.98)) if chance(rng, 0.65) else rng.uniform(0.95, 1.3, 3)
    image = tint(image, warm.astype(np.float32), core)
    across, down = cv2.Sobel(dome, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(dome, cv2.CV_32F, 0, 1, scale=0.125)
    turn = rng.uniform(0, 2 * np.pi)
    slope = across * np.float32(np.cos(turn)) + down * np.float32(np.sin(turn))
    steep = across * across + down * down
    light = (slope * rng.uniform(0.3, 1.0) + 1.0) / np.sqrt(1 + steep) - 1
    image = shade(image, np.clip(light, -0.8, 0.6).astype(np.float32) * core * rng.uniform(40, 110), factor=True)
    if chance(rng, 0.5):
        drawn = np.zeros((size, size), np.uint8)
        for _ in range(int(rng.integers(1, 5))):
            start = np.array(at) + rng.normal(0, 0.4, 2) * radius
            tree(rng, drawn, start, rng.uniform(0, 6.28), radius * rng.uniform(0.5, 1.2), size / 200, 1)
        vessels = soften(drawn.astype(np.float32) / 255, 0.7) * core
        image = tint(image, np.float32([0.75, 0.4, 0.45]), vessels * rng.uniform(0.3, 0.8))
    if chance(rng, 0.7):
        wet = slope + rng.uniform(0.3, 1.5) * _texture(rng, size, core, (6, 40))
        top = float(np.quantile(wet[core > 0.6][::7], rng.uniform(0.92, 0.99))) if (core > 0.6).sum() > 14 else 1.0
        glint = np.clip((wet - top) * 6, 0, 1) * core
        image = blend(image, np.float32([255, 250, 245]), glint.astype(np.float32))
    return Change(image, core > 0.05, True)


def bleed(rng: Rng, canvas: Canvas) -> Change:
    """Blood on a surface: a pool, small points, flames or streams."""
    size, roll = canvas.size, rng.random()
    radius = canvas.radius(rng, 0.001, 0.12)
    at = canvas.somewhere(rng)
    if roll < 0.5:
        alpha = soften(_shape(rng, canvas, at, radius, 0.28), radius * log_uniform(rng, 0.02, 0.35))
        alpha = alpha * np.clip(0.9 + rng.uniform(0, 1) * _texture(rng, size, alpha), 0, 1.2)
    elif roll < 0.75:
        count = int(rng.integers(5, 60))
        alpha = soften(scatter(rng, size, at, radius * 1.3, count, size * log_uniform(rng, 0.004, 0.016)), 0.8)
    else:
        drawn = np.zeros((size, size), np.uint8)
        heading = rng.uniform(0, 6.28)
        for _ in range(int(rng.integers(2, 9))):
            start = np.array(at) + rng.normal(0, 0.3, 2) * radius
            turns = heading + np.cumsum(rng.normal(0, 0.12, 10))
            points = start + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * radius * 0.2, 0)
            draw_line(drawn, points, max(1.2, radius * rng.uniform(0.05, 0.25)), taper=True)
        alpha = soften(drawn.astype(np.float32) / 255, 0.8)
    alpha = canvas.inside(np.clip(alpha, 0, 1).astype(np.float32))
    red = np.float32([rng.uniform(0.5, 1.0), rng.uniform(0.05, 0.45), rng.uniform(0.05, 0.45)])
    image = tint(canvas.image, red, alpha * rng.uniform(0.4, 1))
    if chance(rng, 0.3):  # wet
        glint = np.clip((_texture(rng, size, alpha, (8, 50)) - 0.3) * 12, 0, 1) * (alpha > 0.7)
        image = blend(image, np.float32([255, 235, 230]), glint.astype(np.float32))
    return Change(image, alpha > 0.04, True)


def skin_lesion(rng: Rng, canvas: Canvas) -> Change:
    """A mole or worse: uneven border, several browns, a network, dots, a veil; or a red or scaly patch."""
    size = canvas.size
    radius = canvas.radius(rng, 0.015, 0.32) if chance(rng, 0.6) else canvas.radius(rng, 0.002, 0.05)
    at = _spot(rng, canvas, radius)
    if radius > 0.18 * size:
        at = tuple((np.array(at) * 0.4 + size * 0.3).tolist())
    rough = float(rng.choice([0.03, 0.08, 0.16, 0.25]))
    body = _shape(rng, canvas, at, radius, rough)
    fringe = _texture(rng, size, soften(body, radius * 0.2), (6, 40))
    edge = soften(body, max(0.8, radius * log_uniform(rng, 0.03, 0.35)))
    edge = canvas.inside(np.clip(edge * (1 + rng.uniform(0, 1.2) * fringe), 0, 1))
    if chance(rng, 0.2):  # red
        hue = np.float32([rng.uniform(0.8, 1.05), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.85)])
        image = tint(canvas.image, hue, edge * np.clip(0.8 + _texture(rng, size, edge), 0, 1))
        if chance(rng, 0.5):
            scale = np.clip((_texture(rng, size, edge, (10, 50)) - 0.08) * 6, 0, 1) * edge
            image = blend(image, np.float32([240, 230, 220]), scale * rng.uniform(0.2, 0.8))
        return Change(image, edge > 0.05, True)
    dark = log_uniform(rng, 0.15, 0.85)
    brown = np.float32([dark, dark * rng.uniform(0.6, 0.92), dark * rng.uniform(0.45, 0.9)])
    image = tint(canvas.image, brown, edge * rng.uniform(0.75, 1))
    for _ in range(int(rng.integers(0, 4))):  # other browns, black, blue-grey, white, pink
        spots = np.clip((_texture(rng, size, edge, (2, 7)) - rng.uniform(0.0, 0.2)) * rng.uniform(3, 12), 0, 1) * edge
        other = rng.uniform((0.3, 0.25, 0.2), (0.9, 0.8, 0.75)).astype(np.float32)
        if chance(rng, 0.25):
            veil = np.float32([rng.uniform(110, 170), rng.uniform(115, 170), rng.uniform(140, 195)])
            image = blend(image, veil, spots * rng.uniform(0.2, 0.7))
        elif chance(rng, 0.2):
            image = blend(image, np.float32([225, 180, 175]), spots * rng.uniform(0.2, 0.7))
        else:
            image = tint(image, other, spots)
    if chance(rng, 0.45):
        image = shade(image, _network(rng, size, edge) * -log_uniform(rng, 10, 45), factor=True)
    if chance(rng, 0.35):
        dots = scatter(rng, size, at, radius * 0.9, int(rng.integers(5, 50)), size * log_uniform(rng, 0.004, 0.012))
        image = tint(image, np.float32([0.5, 0.42, 0.4]), soften(dots, 0.7) * edge * rng.uniform(0.4, 1))
    return Change(image, edge > 0.05, True)


def _network(rng: Rng, size: int, edge: np.ndarray) -> np.ndarray:
    """The dark net of a pigmented lesion: the ridges between noise's bumps."""
    where = box(edge, 2)
    height, width = edge[where].shape
    cells = np.clip(max(height, width) / size / log_uniform(rng, 0.012, 0.035), 4, 60)
    field = fractal(rng, height, width, cells, 1) - 0.5
    other = fractal(rng, height, width, cells * 0.8, 1) - 0.5
    net = np.zeros((size, size), np.float32)
    net[where] = np.exp(-((np.minimum(np.abs(field), np.abs(other)) * 14) ** 2)) * edge[where]
    return net


def ulcer(rng: Rng, canvas: Canvas) -> Change:
    """A sore: a pale yellow or raw bed that lies lower, with a red rim."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0015, 0.08)
    at = _spot(rng, canvas, radius)
    body = _shape(rng, canvas, at, radius)
    wide = canvas.inside(np.clip(soften(body, radius * rng.uniform(0.15, 0.4)) * 1.5, 0, 1))
    image = tint(canvas.image, np.float32([1.0, rng.uniform(0.5, 0.85), rng.uniform(0.5, 0.85)]), wide)
    bed = canvas.inside(soften(body, max(0.7, radius * 0.08)))
    pale = np.float32([rng.uniform(190, 240), rng.uniform(175, 225), rng.uniform(110, 190)])
    raw = np.float32([rng.uniform(110, 170), rng.uniform(25, 60), rng.uniform(25, 55)])
    base = pale if chance(rng, 0.7) else raw
    layer = np.clip(base + (_texture(rng, size, bed, (4, 25)) * rng.uniform(20, 90))[..., None], 0, 255)
    image = blend(image, layer.astype(np.float32), bed * rng.uniform(0.4, 0.95))
    dip = soften(body, radius * 0.15)
    turn = rng.uniform(0, 6.28)
    slope = cv2.Sobel(dip, cv2.CV_32F, 1, 0) * np.cos(turn) + cv2.Sobel(dip, cv2.CV_32F, 0, 1) * np.sin(turn)
    image = shade(image, canvas.inside((slope * radius * rng.uniform(0.5, 2.5)).astype(np.float32)), factor=True)
    return Change(image, wide > 0.08, True)


def exudates(rng: Rng, canvas: Canvas) -> Change:
    """What leaks in a sick retina: yellow specks in a cluster or a ring, woolly spots, red points and blots."""
    size, image = canvas.size, canvas.image
    level = max(float(canvas.gray[canvas.foreground > 0].mean()), 40.0)
    region = np.zeros((size, size), bool)
    at, radius = canvas.somewhere(rng), canvas.radius(rng, 0.003, 0.08)
    kinds = rng.permutation(4)[: int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))]
    for kind in kinds.tolist():
        if chance(rng, 0.5):
            at = canvas.somewhere(rng)
        count, speck = int(rng.integers(4, 45)), size * log_uniform(rng, 0.004, 0.012)
        if kind == 0:
            spots = scatter(rng, size, at, radius * 1.3, count, speck)
            if chance(rng, 0.3):
                x, y = grid(size)
                spots = spots * np.exp(-((np.hypot(x - at[0], y - at[1]) / radius - 1) ** 2) * 8)
            colour = np.float32([level * 1.9, level * 1.7, level * rng.uniform(0.8, 1.3)])
        elif kind == 1:
            spots = np.zeros((size, size), np.float32)
            for _ in range(int(rng.integers(1, 6))):
                near = tuple((np.array(at) + rng.normal(0, 1.5, 2) * radius).tolist())
                one = size * log_uniform(rng, 0.012, 0.04)
                spots = np.maximum(spots, soften(_shape(rng, canvas, near, one, 0.18), one * 0.4))
            colour = np.float32([level * 1.8, level * 1.75, level * 1.5])
        elif kind == 2:
            spots = scatter(rng, size, at, radius * 2, count, speck * 0.8)
            colour = np.float32([level * 0.75, level * 0.2, level * 0.15])
        else:
            spots = np.zeros((size, size), np.float32)
            for _ in range(int(rng.integers(1, 9))):
                near = np.array(at) + rng.normal(0, 1.5, 2) * radius
                one = size * log_uniform(rng, 0.008, 0.05)
                points = outline_points(rng, one, 0.18) + near
                spots = np.maximum(spots, fill_polygon(size, points))
            colour = np.float32([level * 0.7, level * 0.18, level * 0.12])
        alpha = canvas.inside(soften(spots.astype(np.float32), rng.uniform(0.5, 1.2)))
        image = blend(image, np.clip(colour, 0, 255), alpha * rng.uniform(0.45, 0.95))
        region |= alpha > 0.06
    return Change(image, region, False)


def fluid(rng: Rng, canvas: Canvas) -> Change:
    """Between layers: dark cysts, a layer lifted by a bump or a blister, bright points."""
    size, roll = canvas.size, rng.random()
    at = _spot(rng, canvas, 0.04 * size)
    image, alpha = canvas.image, np.zeros((size, size), np.float32)
    moved = np.zeros((size, size), bool)
    x, y = grid(size)
    if roll < 0.55:  # what lies above a place is lifted, and the gap is filled
        wide, tall = size * log_uniform(rng, 0.02, 0.2), size * log_uniform(rng, 0.012, 0.09)
        line = at[1]
        bump = np.exp(-(np.abs((x - at[0]) / wide) ** 3)) * tall
        above = np.clip(1 - (line - y) / (tall * 2 + 0.08 * size), 0, 1)
        lift = bump * above * (y < line + 1)
        image = cv2.remap(image, x, y + lift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = np.clip((y - (line - bump)) + 0.5, 0, 1) * np.clip(line - y + 0.5, 0, 1) * (bump > 0.6)
        alpha = soften(alpha.astype(np.float32), 0.8)
        moved = (lift > 1.5) & (y > line - 2 * tall - 0.05 * size)
    else:
        for _ in range(int(rng.integers(1, 8))):
            near = (at[0] + rng.normal(0, 0.09) * size, at[1] + rng.normal(0, 0.02) * size)
            points = outline_points(rng, size * log_uniform(rng, 0.012, 0.07), 0.08) * (1.2, 0.75) + near
            alpha = np.maximum(alpha, canvas.inside(soften(fill_polygon(size, points), 0.9)))
    level = rng.uniform(0.05, 0.5) if chance(rng, 0.75) else rng.uniform(1.3, 2.0)
    where = box(alpha, 2)
    patch = image[where].astype(np.float32)
    low = cv2.blur(patch, (5, 5))
    target = float(canvas.gray[canvas.foreground > 0].mean()) * level
    layer = image.astype(np.float32)
    layer[where] = np.clip(target * np.clip(patch / np.maximum(low, 5), 0.3, 1.8), 0, 255)
    image = blend(image, layer, alpha)
    region = (alpha > 0.06) | moved
    if chance(rng, 0.25):
        points = canvas.inside(scatter(rng, size, at, 0.08 * size, int(rng.integers(3, 12)), 0.005 * size))
        image = shade(image, points * rng.uniform(60, 150))
        region |= points > 0.06
    return Change(image, region, True)


def abnormal_cells(rng: Rng, canvas: Canvas) -> Change:
    """Crowded, large, dark and unlike nuclei in one area, or a few odd cells among like ones."""
    size = canvas.size
    pixels = canvas.image[::6, ::6].reshape(-1, 3)
    shades = pixels.sum(1, dtype=np.int32)
    darkest = pixels[np.argsort(shades)[: max(4, len(pixels) // 25)]].mean(0)
    ink = np.clip(darkest * rng.uniform(0.5, 1.0) + rng.normal(0, 8, 3), 0, 255).astype(np.float32)
    radius = canvas.radius(rng, 0.006, 0.25)
    at = _spot(rng, canvas, radius)
    unit = float(np.clip(size * log_uniform(rng, 0.01, 0.04), 0.02 * radius, 0.6 * radius))
    body = _shape(rng, canvas, at, radius, 0.18)
    rows, columns = box(body)
    count = int(np.clip(float(body.sum()) / (unit * unit * 3.14) * rng.uniform(0.15, 0.8), 2, 90))
    image = canvas.image
    region = np.zeros((size, size), np.float32)
    if chance(rng, 0.5):  # the ground changes too
        soft = soften(body, radius * 0.12)
        image = tint(image, rng.uniform((0.7, 0.6, 0.75), (1.0, 0.95, 1.0)).astype(np.float32), soft)
        region = soft
    drawn = np.zeros((size, size), np.uint8)
    for px, py in rng.uniform((columns.start, rows.start), (columns.stop, rows.stop), (count * 2, 2)):
        if body[min(int(py), size - 1), min(int(px), size - 1)] > 0.5:
            one = outline_points(rng, unit * rng.lognormal(0, 0.3), 0.12, 20) + np.array([px, py])
            cv2.fillPoly(drawn, [(one * 8).astype(np.int32)], int(rng.integers(130, 255)), cv2.LINE_AA, 3)
    nuclei = soften(drawn.astype(np.float32) / 255, 0.7)
    nuclei = nuclei * np.clip(0.95 + 0.8 * _texture(rng, size, nuclei, (20, 60)), 0, 1)
    image = blend(image, ink, canvas.inside(nuclei.astype(np.float32)))
    return Change(image, np.maximum(region, nuclei) > 0.05, True)
