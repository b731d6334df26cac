"""Findings in optical images and OCT: polyps, bleedings, skin lesions, ulcers, exudates, fluid, abnormal cells.

`FINDINGS` has the findings of every imaging method, with those of `scans.py`.
"""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, shade, tint
from synthesis.defects.shapes import (
    Rng,
    chance,
    draw_line,
    fill_polygon,
    fractal,
    grid,
    log_uniform,
    outline_points,
    scatter,
    soften,
    tree,
)
from synthesis.defects.tissue import depth_inside, grown, shape, spot, texture

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


def polyp(rng: Rng, canvas: Canvas) -> Change:
    """Draw a growth on a wall: domed, lobed or flat, redder or paler, with vessels, glints and a shaded foot."""
    size = canvas.size
    radius = canvas.radius(rng, 0.012, 0.22) if chance(rng, 0.6) else canvas.radius(rng, 0.0025, 0.05)
    at = spot(rng, canvas, radius * 0.8)
    body = shape(rng, canvas, at, radius, float(rng.choice([0.03, 0.07, 0.12])))
    if chance(rng, 0.25):
        for _ in range(int(rng.integers(1, 4))):
            angle, far = rng.uniform(0, 6.28), radius * rng.uniform(0.4, 0.9)
            near = (at[0] + far * np.cos(angle), at[1] + far * np.sin(angle))
            body = np.maximum(body, shape(rng, canvas, near, radius * rng.uniform(0.3, 0.6), 0.05))
    core = canvas.inside(soften(body, max(0.7, radius * log_uniform(rng, 0.03, 0.18))))
    flat = chance(rng, 0.25)
    depth = depth_inside(body)
    height = np.sqrt(np.clip(depth * (2 - depth), 0, 1)) * radius * (0.25 if flat else rng.uniform(0.5, 1.0))
    relief = texture(rng, size, core, (4, 30)) * radius * rng.uniform(0.0, 0.35)
    dome = soften((height + relief * body).astype(np.float32), max(0.8, radius * 0.12))
    image = canvas.image
    if chance(rng, 0.7):  # its foot
        foot = canvas.inside(np.clip(soften(body, radius * 0.22) * 1.6, 0, 1) * (1 - core))
        image = shade(image, -foot * log_uniform(rng, 8, 40), factor=True)
    image = grown(image, core, rng.uniform(-12, 22), rng.uniform(0.3, 0.95))
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
        wet = slope + rng.uniform(0.3, 1.5) * texture(rng, size, core, (6, 40))
        top = float(np.quantile(wet[core > 0.6][::7], rng.uniform(0.92, 0.99))) if (core > 0.6).sum() > 14 else 1.0
        glint = np.clip((wet - top) * 6, 0, 1) * core
        image = blend(image, np.float32([255, 250, 245]), glint.astype(np.float32))
    return Change(image, core > 0.05, True)


def bleed(rng: Rng, canvas: Canvas) -> Change:
    """Draw blood on a surface: a pool, small points, flames or streams."""
    size, roll = canvas.size, rng.random()
    radius = canvas.radius(rng, 0.001, 0.12)
    at = canvas.somewhere(rng)
    if roll < 0.5:
        alpha = soften(shape(rng, canvas, at, radius, 0.28), radius * log_uniform(rng, 0.02, 0.35))
        alpha = alpha * np.clip(0.9 + rng.uniform(0, 1) * texture(rng, size, alpha), 0, 1.2)
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
        glint = np.clip((texture(rng, size, alpha, (8, 50)) - 0.3) * 12, 0, 1) * (alpha > 0.7)
        image = blend(image, np.float32([255, 235, 230]), glint.astype(np.float32))
    return Change(image, alpha > 0.04, True)


def skin_lesion(rng: Rng, canvas: Canvas) -> Change:
    """Draw a mole or worse: uneven border, several browns, a network, dots, a veil; or a red or scaly patch."""
    size = canvas.size
    radius = canvas.radius(rng, 0.015, 0.32) if chance(rng, 0.6) else canvas.radius(rng, 0.002, 0.05)
    at = spot(rng, canvas, radius)
    if radius > 0.18 * size:
        at = tuple((np.array(at) * 0.4 + size * 0.3).tolist())
    rough = float(rng.choice([0.03, 0.08, 0.16, 0.25]))
    body = shape(rng, canvas, at, radius, rough)
    fringe = texture(rng, size, soften(body, radius * 0.2), (6, 40))
    edge = soften(body, max(0.8, radius * log_uniform(rng, 0.03, 0.35)))
    edge = canvas.inside(np.clip(edge * (1 + rng.uniform(0, 1.2) * fringe), 0, 1))
    if chance(rng, 0.2):  # red
        hue = np.float32([rng.uniform(0.8, 1.05), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.85)])
        image = tint(canvas.image, hue, edge * np.clip(0.8 + texture(rng, size, edge), 0, 1))
        if chance(rng, 0.5):
            scale = np.clip((texture(rng, size, edge, (10, 50)) - 0.08) * 6, 0, 1) * edge
            image = blend(image, np.float32([240, 230, 220]), scale * rng.uniform(0.2, 0.8))
        return Change(image, edge > 0.05, True)
    dark = log_uniform(rng, 0.15, 0.85)
    brown = np.float32([dark, dark * rng.uniform(0.6, 0.92), dark * rng.uniform(0.45, 0.9)])
    image = tint(canvas.image, brown, edge * rng.uniform(0.75, 1))
    for _ in range(int(rng.integers(0, 4))):  # other browns, black, blue-grey, white, pink
        spots = np.clip((texture(rng, size, edge, (2, 7)) - rng.uniform(0.0, 0.2)) * rng.uniform(3, 12), 0, 1) * edge
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
    """Return the dark network of a pigmented lesion: the ridges of noise."""
    where = box(edge, 2)
    height, width = edge[where].shape
    cells = np.clip(max(height, width) / size / log_uniform(rng, 0.012, 0.035), 4, 60)
    field = fractal(rng, height, width, cells, 1) - 0.5
    other = fractal(rng, height, width, cells * 0.8, 1) - 0.5
    net = np.zeros((size, size), np.float32)
    net[where] = np.exp(-((np.minimum(np.abs(field), np.abs(other)) * 14) ** 2)) * edge[where]
    return net


def ulcer(rng: Rng, canvas: Canvas) -> Change:
    """Draw a sunken sore, pale yellow or raw, with a red rim."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0015, 0.08)
    at = spot(rng, canvas, radius)
    body = shape(rng, canvas, at, radius)
    wide = canvas.inside(np.clip(soften(body, radius * rng.uniform(0.15, 0.4)) * 1.5, 0, 1))
    image = tint(canvas.image, np.float32([1.0, rng.uniform(0.5, 0.85), rng.uniform(0.5, 0.85)]), wide)
    bed = canvas.inside(soften(body, max(0.7, radius * 0.08)))
    pale = np.float32([rng.uniform(190, 240), rng.uniform(175, 225), rng.uniform(110, 190)])
    raw = np.float32([rng.uniform(110, 170), rng.uniform(25, 60), rng.uniform(25, 55)])
    base = pale if chance(rng, 0.7) else raw
    layer = np.clip(base + (texture(rng, size, bed, (4, 25)) * rng.uniform(20, 90))[..., None], 0, 255)
    image = blend(image, layer.astype(np.float32), bed * rng.uniform(0.4, 0.95))
    dip = soften(body, radius * 0.15)
    turn = rng.uniform(0, 6.28)
    slope = cv2.Sobel(dip, cv2.CV_32F, 1, 0) * np.cos(turn) + cv2.Sobel(dip, cv2.CV_32F, 0, 1) * np.sin(turn)
    image = shade(image, canvas.inside((slope * radius * rng.uniform(0.5, 2.5)).astype(np.float32)), factor=True)
    return Change(image, wide > 0.08, True)


def exudates(rng: Rng, canvas: Canvas) -> Change:
    """Draw leakage in a diseased retina: yellow specks in a cluster or a ring, woolly spots, red points and blots."""
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
                extent = size * log_uniform(rng, 0.012, 0.04)
                spots = np.maximum(spots, soften(shape(rng, canvas, near, extent, 0.18), extent * 0.4))
            colour = np.float32([level * 1.8, level * 1.75, level * 1.5])
        elif kind == 2:
            spots = scatter(rng, size, at, radius * 2, count, speck * 0.8)
            colour = np.float32([level * 0.75, level * 0.2, level * 0.15])
        else:
            spots = np.zeros((size, size), np.float32)
            for _ in range(int(rng.integers(1, 9))):
                near = np.array(at) + rng.normal(0, 1.5, 2) * radius
                extent = size * log_uniform(rng, 0.008, 0.05)
                points = outline_points(rng, extent, 0.18) + near
                spots = np.maximum(spots, fill_polygon(size, points))
            colour = np.float32([level * 0.7, level * 0.18, level * 0.12])
        alpha = canvas.inside(soften(spots.astype(np.float32), rng.uniform(0.5, 1.2)))
        image = blend(image, np.clip(colour, 0, 255), alpha * rng.uniform(0.45, 0.95))
        region |= alpha > 0.06
    return Change(image, region, False)


def fluid(rng: Rng, canvas: Canvas) -> Change:
    """Draw fluid between layers: dark cysts, a layer lifted by a bump or a blister, bright points."""
    size, roll = canvas.size, rng.random()
    at = spot(rng, canvas, 0.04 * size)
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
    """Draw crowded, large, dark, irregular nuclei in an area, or a few odd cells among normal ones."""
    size = canvas.size
    pixels = canvas.image[::6, ::6].reshape(-1, 3)
    shades = pixels.sum(1, dtype=np.int32)
    darkest = pixels[np.argsort(shades)[: max(4, len(pixels) // 25)]].mean(0)
    ink = np.clip(darkest * rng.uniform(0.5, 1.0) + rng.normal(0, 8, 3), 0, 255).astype(np.float32)
    radius = canvas.radius(rng, 0.006, 0.25)
    at = spot(rng, canvas, radius)
    unit = float(np.clip(size * log_uniform(rng, 0.01, 0.04), 0.02 * radius, 0.6 * radius))
    body = shape(rng, canvas, at, radius, 0.18)
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
            extent = outline_points(rng, unit * rng.lognormal(0, 0.3), 0.12, 20) + np.array([px, py])
            cv2.fillPoly(drawn, [(extent * 8).astype(np.int32)], int(rng.integers(130, 255)), cv2.LINE_AA, 3)
    nuclei = soften(drawn.astype(np.float32) / 255, 0.7)
    nuclei = nuclei * np.clip(0.95 + 0.8 * texture(rng, size, nuclei, (20, 60)), 0, 1)
    image = blend(image, ink, canvas.inside(nuclei.astype(np.float32)))
    return Change(image, np.maximum(region, nuclei) > 0.05, True)
