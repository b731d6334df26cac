"""Healthy bodies by reflection: the layers of an eye in OCT, organs in ultrasound."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Scene, chance, pick, white
from synthesis.scenes.bodies.base import body_plane, draw_branches, draw_oval, grey_picture, lay_over, smooth

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
    """Draw retinal OCT: the layers in their order, a pit, vessels' shadows, the choroid's holes, speckle."""
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


def sonogram(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw echoes of layered tissue: thyroid, breast, liver or muscle; speckle; from a straight or a curved probe."""
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
