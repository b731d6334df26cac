"""Healthy tissue and blood under the microscope: stained fibres, nuclei, glands, scattered cells."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Scene, blend, cells, chance, full, loguni, pick, white
from synthesis.scenes.bodies.base import flat_colour, octaves, smooth, toned


def histology(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw H&E: pink strands with scattered purple nuclei, glands lined by them, sometimes bubbles of fat."""
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
    positions: list[tuple[float, float, float, float]] = []
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
                    positions.append((px, py, t + turn, 1.3))
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
            positions.append((px, py, angle + rng.normal(0, 0.4), rng.uniform(1.0, 2.2)))
    order = rng.permutation(len(positions))[:480]
    for k in order:
        px, py, turn, long = positions[k]
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
    """Draw a blood smear: pale-centred red cells, a few white ones; or a culture of round cells in phase contrast."""
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
