"""Findings in scans, some of them in any picture of a body: tumours, nodules, swellings, blood, calcium, lesions."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, shade, tint
from synthesis.defects.shapes import (
    Rng,
    chance,
    draw_line,
    fill_polygon,
    grid,
    log_uniform,
    outline_points,
    scatter,
    sign,
    soften,
)
from synthesis.defects.tissue import contrast, depth_inside, grown, pushed, shape, solid, spot, texture


def tumor(rng: Rng, canvas: Canvas) -> Change:
    """Draw a mass that pushes tissue away, often with a bright rim, a dark core and soft oedema around it."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0012, 0.1)
    at = spot(rng, canvas, radius)
    body = shape(rng, canvas, at, radius)
    if chance(rng, 0.25):  # lobes or a satellite
        angle, far = rng.uniform(0, 6.28), radius * rng.uniform(0.6, 1.8)
        near = (at[0] + far * np.cos(angle), at[1] + far * np.sin(angle))
        body = np.maximum(body, shape(rng, canvas, near, radius * rng.uniform(0.3, 0.8)))
    image = pushed(rng, canvas, at, radius) if chance(rng, 0.6) else canvas.image
    strength = contrast(rng, canvas, body, 0.62)
    edge = soften(body, max(0.5, radius * log_uniform(rng, 0.03, 0.25)))
    region = edge > 0.06
    if chance(rng, 0.5):
        wide = radius * rng.uniform(1.2, 2.1)
        halo = soften(shape(rng, canvas, at, wide, 0.28), wide * rng.uniform(0.08, 0.3))
        halo = canvas.inside(np.clip(np.maximum(halo, edge * 0.5) * (0.85 + texture(rng, size, halo, (3, 9))), 0, 1))
        around = (strength if chance(rng, 0.6) else contrast(rng, canvas, halo)) * rng.uniform(0.25, 0.7)
        image = grown(image, halo, around, rng.uniform(0, 0.5))
        region |= halo > 0.06
    depth = depth_inside(body)
    grain = texture(rng, size, edge)
    offset = strength * (rng.uniform(0.5, 1) + rng.uniform(0, 1.2) * grain)
    if chance(rng, 0.5):  # the rim takes up contrast
        width = rng.uniform(0.12, 0.4)
        offset = offset + np.exp(-(((depth - width) / (0.5 * width)) ** 2)) * log_uniform(rng, 15, 110) * (1 + grain)
    if chance(rng, 0.45):
        start = rng.uniform(0.35, 0.7)
        dead = np.clip((depth + 0.5 * grain - start) * 8, 0, 1)
        offset = offset - dead * strength * rng.uniform(0.6, 1.9)
    image = grown(image, canvas.inside(edge), offset.astype(np.float32), rng.uniform(0.5, 1) * solid(canvas))
    return Change(image, region, True)


def nodule(rng: Rng, canvas: Canvas) -> Change:
    """Draw a round mass of another tissue, as the imaging method shows it."""
    how = canvas.scene.modality
    if how == "ultrasound" or (not how and chance(rng, 0.3)):
        return _echo(rng, canvas)
    size, radius = canvas.size, canvas.radius(rng, 0.0006, 0.06)
    at = spot(rng, canvas, radius)
    body = shape(rng, canvas, at, radius, float(rng.choice([0.03, 0.07, 0.15])))
    projected = how == "xray"
    strength = abs(contrast(rng, canvas, body, 0.9)) if projected else contrast(rng, canvas, body, 0.5)
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
    depth = depth_inside(body)
    offset = strength * (0.8 + rng.uniform(0, 0.8) * texture(rng, size, edge))
    if chance(rng, 0.15):  # a cavity
        offset = offset * (1 - 1.2 * np.clip((depth - 0.35) * 6, 0, 1))
    elif chance(rng, 0.25):
        offset = offset + np.exp(-(((depth - 0.2) / 0.12) ** 2)) * log_uniform(rng, 15, 90)
    image = grown(canvas.image, edge, offset.astype(np.float32), 0.0 if projected else rng.uniform(0.4, 1))
    return Change(image, edge > 0.05, True)


def _echo(rng: Rng, canvas: Canvas) -> Change:
    """Draw a nodule in ultrasound: other speckle, a rim or halo, a shadow or bright tail, bright specks."""
    size, radius = canvas.size, canvas.radius(rng, 0.004, 0.16)
    at = spot(rng, canvas, radius)
    points = outline_points(rng, radius, float(rng.choice([0.03, 0.08, 0.16, 0.25]))) * (1.15, 0.87)
    body = canvas.inside(fill_polygon(size, points + at))
    edge = canvas.inside(soften(body, max(0.7, radius * log_uniform(rng, 0.03, 0.2))))
    where = box(edge, 3)
    patch = canvas.image[where].astype(np.float32)
    low = cv2.GaussianBlur(patch, (0, 0), size / 85)
    level = float((low * edge[where][..., None]).sum() / max(3 * float(edge[where].sum()), 1e-3))
    gain = rng.uniform(0.02, 0.65) if level > 30 and chance(rng, 0.85) else rng.uniform(1.5, 2.8)
    grain = 1 + rng.uniform(0, 0.8) * texture(rng, size, edge)[where]
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
    if chance(rng, 0.4):  # less sound, or more, reaches what lies below
        x, y = grid(size)
        below = np.clip((y - at[1]) / radius, 0, 1) * np.exp(-np.clip(y - at[1], 0, None) / (2 * radius))
        beam = np.exp(-(((x - at[0]) / (0.7 * radius)) ** 4)) * below * (1 - edge)
        image = shade(image, canvas.inside(beam) * (-40.0 if chance(rng, 0.6) else 45.0), factor=True)
    return Change(image, edge > 0.08, True)


def oedema(rng: Rng, canvas: Canvas) -> Change:
    """Draw a patchy cloud without a border (infiltrated lung, swollen tissue), or fluid that has sunk down."""
    size = canvas.size
    radius = canvas.radius(rng, 0.006, 0.22)
    at = spot(rng, canvas, radius * 0.5)
    if canvas.scene.modality == "xray" and canvas.coverage < 0.9 and chance(rng, 0.25):
        x, y = grid(size)
        level = at[1] - rng.uniform(0.05, 0.25) * np.abs(x - at[0]) ** 1.2 / max(size / 256, 0.5) ** 0.2
        half = x > size / 2 if at[0] > size / 2 else x < size / 2
        cloud = canvas.inside(np.clip((y - level) / (0.06 * size) + 0.5, 0, 1) * half)
        cloud = cloud * (0.85 + texture(rng, size, cloud, (2, 6)))
    else:
        cloud = soften(shape(rng, canvas, at, radius, 0.28), radius * rng.uniform(0.12, 0.45))
        patchy = 0.5 + rng.uniform(0.3, 1.3) * texture(rng, size, cloud, (3, 24))
        cloud = canvas.inside(np.clip(cloud * (0.5 + patchy), 0, 1))
    if float(cloud.max()) < 0.1:
        cloud = canvas.inside(shape(rng, canvas, at, radius))
    if canvas.scene.modality == "xray":  # lungs have no sharp border in a projection
        cloud = soften(cloud.astype(np.float32), 0.016 * size)
    strength = contrast(rng, canvas, cloud, 0.92 if canvas.scene.modality == "xray" else 0.5)
    if canvas.scene.modality == "xray":
        strength = float(np.clip(strength, -75, 75))
    image = grown(canvas.image, cloud, strength, rng.uniform(0.2, 0.8))
    return Change(image, cloud > 0.05, True)


def haemorrhage(rng: Rng, canvas: Canvas) -> Change:
    """Draw blood in tissue: an even, bright pool with a thin dark edge, or a crescent along the border."""
    size = canvas.size
    if canvas.coverage < 0.9 and chance(rng, 0.35):
        depth = cv2.distanceTransform(canvas.foreground, cv2.DIST_L2, 3)
        x, y = grid(size)
        rows, columns = box(canvas.foreground.astype(np.float32))
        cx, cy = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
        angle = np.arctan2(y - cy, x - cx) - rng.uniform(-np.pi, np.pi)
        angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)
        wide, thick = rng.uniform(0.3, 1.4), rng.uniform(0.02, 0.09) * size
        border = thick * np.clip(1 - (angle / wide) ** 2, 0, 1) + 0.02 * size * texture(rng, size, depth + 1, (5, 12))
        alpha = canvas.inside(np.clip((border - depth) / 1.5, 0, 1) * (angle < wide))
        strength = log_uniform(rng, 30, 120) * (1 if chance(rng, 0.8) else -1)
        keep, image = 1.0, canvas.image
    else:
        radius = canvas.radius(rng, 0.0008, 0.08)
        at = spot(rng, canvas, radius)
        body = shape(rng, canvas, at, radius)
        alpha = canvas.inside(soften(body, log_uniform(rng, 0.6, 2.5)))
        strength = abs(contrast(rng, canvas, alpha, 1.0)) * (1 if chance(rng, 0.8) else -1)
        image = pushed(rng, canvas, at, radius) if chance(rng, 0.4) else canvas.image
        if chance(rng, 0.5):
            ring = canvas.inside(np.clip(soften(body, radius * 0.25) * 2, 0, 1)) * (1 - alpha)
            image = shade(image, -ring * log_uniform(rng, 8, 30))
        keep = rng.uniform(0.7, 1)
    offset = strength * (1 + 0.4 * texture(rng, size, alpha))
    return Change(grown(image, alpha, offset.astype(np.float32), keep), alpha > 0.05, True)


def calcification(rng: Rng, canvas: Canvas) -> Change:
    """Draw a cluster of bright hard specks, or a shell."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0015, 0.03)
    at = spot(rng, canvas, radius)
    if chance(rng, 0.65):
        grains = scatter(rng, size, at, radius, int(rng.integers(4, 30)), size * log_uniform(rng, 0.003, 0.012))
    else:
        body = shape(rng, canvas, at, radius * 0.6)
        grains = body * np.clip(1.3 - 2 * depth_inside(body) + texture(rng, size, body, (4, 12)), 0, 1)
    alpha = canvas.inside(soften(grains, rng.uniform(0.3, 0.9)))
    value = np.float32(rng.uniform(190, 255))
    return Change(blend(canvas.image, np.full(3, value, np.float32), alpha * rng.uniform(0.6, 1)), alpha > 0.05, False)


def lesion(rng: Rng, canvas: Canvas) -> Change:
    """Draw tissue unlike its surroundings: brighter or darker, sharp or soft, with a ring or a core."""
    size = canvas.size
    radius = canvas.radius(rng, 0.0012, 0.14)
    at = spot(rng, canvas, radius)
    body = shape(rng, canvas, at, radius)
    alpha = canvas.inside(soften(body, radius * log_uniform(rng, 0.03, 0.5)))
    strength = contrast(rng, canvas, alpha)
    grain = texture(rng, size, alpha, (3, 40))
    offset = strength * (0.9 + rng.uniform(0, 1.2) * grain)
    if chance(rng, 0.35):
        offset = offset + np.clip(1 - np.abs(alpha - 0.55) * 4, 0, 1) * abs(strength)
    if chance(rng, 0.25):
        offset = offset - np.clip((depth_inside(body) + 0.4 * grain - 0.5) * 6, 0, 1) * strength * 1.3
    image = pushed(rng, canvas, at, radius) if chance(rng, 0.2) else canvas.image
    image = grown(image, alpha, offset.astype(np.float32), float(rng.choice([0.0, 0.5, 1.0])) * solid(canvas))
    if canvas.scene.modality in ("mucosa", "skin", "retina", "cells") and chance(rng, 0.7):
        hue = 1 + rng.normal(0, 0.16, 3)
        image = tint(image, np.clip(hue, 0.5, 1.4).astype(np.float32), alpha)
    return Change(image, alpha > 0.04, True)
