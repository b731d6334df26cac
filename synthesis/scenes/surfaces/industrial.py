"""Industrial surfaces under an inspection camera: metal, mineral, coatings, wood, composites, solar cells.

They are more muted than `textures.py`: realistic colours, low contrast, uneven light, slight defocus. Unevenness
is everywhere or at large scale only, so that nothing in a normal picture could be mistaken for a defect.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from synthesis.scenes.base import (
    Painter,
    Photos,
    Rng,
    Scene,
    Surface,
    cell_edges,
    cells,
    chance,
    full,
    loguni,
    normalise,
    octaves,
    pick,
    smooth,
    white,
)
from synthesis.scenes.surfaces.base import axes, develop, emboss, profile, sheen, streaks, tone, upright


def rolled(rng: Rng, size: int, photos: Photos) -> Surface:
    shade = 1 + loguni(rng, 0.008, 0.09) * streaks(rng, size)
    hot = chance(rng, 0.5)
    if hot:
        shade = shade + loguni(rng, 0.01, 0.1) * octaves(
            rng, size, loguni(rng, 2, 25), 0.7, loguni(rng, 1, 4), math.pi / 2
        )
    elif chance(rng, 0.4):
        shade = shade * (1 + rng.uniform(0.05, 0.4) * sheen(rng, size))
    image = develop(rng, upright(rng, shade), tone(rng, 60, 205, "metal"))
    return image, pick(rng, "steel strip", "hot-rolled steel", "steel surface", "metal sheet", "steel"), "rolled"


def machined(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw ground, milled or turned metal: straight, arched or circular tool marks with their own highlights."""
    x, y = axes(size)
    kind = pick(rng, "ground", "milled", "turned", "brushed")
    if kind in ("ground", "brushed"):
        marks = smooth(
            rng, size, loguni(rng, 1, 2.5), loguni(rng, 20, 150), rng.choice([0, math.pi / 2, rng.uniform(0, 3)])
        )
        band = sheen(rng, size)
    else:
        far = loguni(rng, 1.5, 8) if kind == "milled" else rng.uniform(0, 1.1)
        turn = rng.uniform(0, 2 * math.pi)
        dx, dy = x - far * math.cos(turn), y - far * math.sin(turn)
        distance = np.sqrt(dx * dx + dy * dy).astype(np.float32) * np.float32(size / 2)
        pitch = loguni(rng, 2.5, 22)
        table = profile(rng, 4096, loguni(rng, 1, 6))
        marks = 0.7 * table[(distance * np.float32(4)).astype(np.int32) & 4095]
        marks = marks + rng.uniform(0.2, 1) * np.cos(distance * np.float32(6.283 / pitch))
        angle = np.arctan2(dy, dx)
        band = np.cos(angle - rng.uniform(0, 6.3)) ** (2 * int(rng.integers(2, 12)))
    shade = 1 + loguni(rng, 0.015, 0.14) * marks
    shade = (shade + rng.uniform(0.05, 0.6) * band * shade) * rng.uniform(0.75, 1)
    image = develop(rng, shade, tone(rng, 70, 190, "metal"), 0.25)
    return image, pick(rng, "metal part", "metal surface", "machined metal", "aluminium", "steel plate"), kind


def blasted(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw sand-blasted metal, cast iron, ferrite: fine isotropic relief, dark to mid grey."""
    kind = pick(rng, "sand-blasted metal", "cast iron", "ferrite", "magnetic tile", "sintered metal")
    depth = loguni(rng, 0.02, 0.16)
    relief = octaves(rng, size, loguni(rng, 1.2, 9), rng.uniform(0.5, 0.95))
    shade = 1 + emboss(relief, rng.uniform(0, 6.3), depth) + 0.4 * depth * relief
    if kind in ("ferrite", "magnetic tile"):
        shade = shade + rng.uniform(0.01, 0.06) * upright(rng, streaks(rng, size))
        shade = shade + rng.uniform(0, 0.12) * smooth(rng, size, size * rng.uniform(0.1, 0.4))
    return develop(rng, shade, tone(rng, 40, 150, "metal")), kind, pick(rng, "rough", "metal", "cast")


def coated(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw paint, powder coat, enamel, glaze or plastic: flat colour, orange peel, mirrored lamps."""
    shade = np.ones((size, size), np.float32)
    if chance(rng, 0.7):
        shade = shade + emboss(smooth(rng, size, loguni(rng, 2.5, 14)), rng.uniform(0, 6.3), loguni(rng, 0.006, 0.09))
    if chance(rng, 0.3):  # metallic flakes or speckled glaze, everywhere
        shade = shade + loguni(rng, 0.02, 0.12) * smooth(rng, size, loguni(rng, 1, 2.5))
    if chance(rng, 0.5):
        shade = shade + rng.uniform(0.05, 0.35) * sheen(rng, size)
    image = develop(rng, shade, tone(rng, 45, 225, "paint", "pale", "blue"))
    name = pick(
        rng, "painted sheet", "coated surface", "ceramic tile", "enamel", "plastic panel", "car body", "lacquer"
    )
    return image, name, pick(rng, "painted", "powder-coated", "glossy", "glazed")


def glass(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw glass, a display or foil that mirrors a smooth scene."""
    shade = 1 + rng.uniform(0.05, 0.3) * smooth(rng, size, size * rng.uniform(0.3, 0.8))
    for _ in range(int(rng.integers(0, 4))):
        bar = np.zeros((size, size), np.uint8)
        corners = (rng.uniform(-0.2, 1.2, (1, 2)) + rng.normal(0, 0.35, (4, 2))) * size
        cv2.fillConvexPoly(bar, cv2.convexHull(corners.astype(np.int32)), 255)
        bar = cv2.GaussianBlur(cv2.resize(bar, (64, 64)), (0, 0), loguni(rng, 1, 8))
        shade = shade + cv2.resize(bar, (size, size)) * np.float32(rng.uniform(0.05, 0.4) / 255)
    image = develop(rng, shade, tone(rng, 25, 190, "blue", "pale"), 0.3)
    return image, pick(rng, "glass", "glass pane", "display glass", "film", "mirror", "screen"), "smooth"


def galvanised(rng: Rng, size: int, photos: Photos) -> Surface:
    _, labels, n = cells(rng, size, loguni(rng, 10, 60))
    warp = smooth(rng, size, 20) * 3
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    table = profile(rng, n + 1, 0)
    grains = cv2.remap(table[labels], x + warp, y - warp, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    feather = smooth(rng, size, 1.5, 8, 0.5) * np.sign(grains) + smooth(rng, size, 1.5, 8, 2.1)
    shade = 1 + loguni(rng, 0.03, 0.14) * grains + loguni(rng, 0.01, 0.05) * feather
    return develop(rng, shade, tone(rng, 90, 200, "metal")), "galvanised sheet", pick(rng, "zinc", "spangled", "metal")


def mineral(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw concrete, asphalt, plaster, stone: grains or trowelled relief."""
    kind = pick(rng, "concrete", "asphalt", "plaster", "stone", "pavement", "road", "brick")
    relief = octaves(rng, size, loguni(rng, 4, 40), rng.uniform(0.55, 0.95), loguni(rng, 1, 3), rng.uniform(0, 3))
    if kind in ("asphalt", "road", "pavement"):
        _, labels, n = cells(rng, size, loguni(rng, 2.5, 11))
        stones = profile(rng, n + 1, 0)[labels]
        shade = 1 + loguni(rng, 0.06, 0.25) * cv2.GaussianBlur(stones, (0, 0), 0.7) + 0.06 * relief
        colour = tone(rng, 45, 140, "metal", "pale")
    else:
        depth = loguni(rng, 0.015, 0.14)
        shade = 1 + emboss(relief, rng.uniform(0, 6.3), depth) + loguni(rng, 0.01, 0.08) * relief
        shade = shade + loguni(rng, 0.01, 0.06) * white(rng, size)
        colour = tone(rng, 90, 225, "brown" if kind == "brick" else "pale", "pale")
    return develop(rng, shade, colour), kind, pick(rng, "mineral", "rough", "grey")


def _knots(rng: Rng, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow of the grain around knots, and their darkness."""
    push, dark = np.zeros_like(x + y), np.zeros_like(x + y)
    for _ in range(int(rng.integers(3, 8))):  # several, as in rustic planks, since a single one might be a defect
        cx, cy = rng.uniform(-1, 1, 2)
        radius = rng.uniform(0.04, 0.1)
        d = np.minimum(((x - cx) / radius) ** 2 + ((y - cy) / (1.5 * radius)) ** 2, 30)
        push += np.sign(x - cx) * np.float32(radius) * np.exp(-d / 5)
        dark += np.exp(-d * 0.9) * (0.8 + 0.2 * np.cos(np.sqrt(d) * 7))
    return push.astype(np.float32), dark.astype(np.float32)


def veneer(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw veneer or planks: growth rings as straight grain or cathedrals, pores, sometimes knots in rustic wood."""
    x, y = axes(size)
    width = rng.uniform(0.3, 0.9)
    number = np.zeros((1, size), np.int32)
    planks = chance(rng, 0.35)
    if planks:
        number = np.floor((x + 3) / width).astype(np.int32)
    own = rng.normal(0, 1, (2, 32))
    xs = x + (own[0][number] * 0.8 * planks + rng.uniform(-1.5, 1.5)).astype(np.float32)
    ys = y + (own[1][number] * planks).astype(np.float32)
    wave = rng.uniform(0.005, 0.05) * smooth(rng, size, size * 0.12, 6, math.pi / 2)
    push, dark = _knots(rng, x, y) if planks and chance(rng, 0.4) else (np.float32(0), np.float32(0))
    if chance(rng, 0.5):
        rings = np.sqrt(xs * xs + (ys * rng.uniform(0.02, 0.25)) ** 2 + 0.01) + wave - push
    else:
        rings = xs + wave - push
    table = profile(rng, 4096, loguni(rng, 1.5, 8))
    grain = table[(rings * np.float32(loguni(rng, 120, 500)) + 2048).astype(np.int32) & 4095]
    pores = np.maximum(smooth(rng, size, 1.1, loguni(rng, 6, 25), math.pi / 2) - rng.uniform(0.6, 1.6), 0)
    shade = 1 + loguni(rng, 0.02, 0.14) * grain - rng.uniform(0, 0.15) * pores - 0.45 * dark
    if planks:
        shade = shade * (1 + 0.08 * own[0][number])
        joint = np.abs((x + 3) / width - np.round((x + 3) / width)) * width * size / 2 < rng.uniform(0.6, 1.6)
        shade = np.where(joint, shade * rng.uniform(0.3, 0.8), shade)
    image = develop(rng, upright(rng, shade.astype(np.float32)), tone(rng, 80, 215, "brown"), 0.25)
    return image, pick(rng, "wood", "veneer", "wooden board", "plank", "parquet"), pick(rng, "wooden", "oak", "pine")


def hide(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw leather: cells of several sizes raised between furrows, pores in the furrows."""
    distance, labels, _ = cells(rng, size, loguni(rng, 4, 22), rng.choice([0.0, 0.3, 0.7]))
    height = cv2.GaussianBlur(cell_edges(labels), (0, 0), loguni(rng, 0.7, 2)).astype(np.float32) * (-1 / 255)
    height = height - 0.02 * distance + 0.1 * smooth(rng, size, 3)
    depth = loguni(rng, 0.025, 0.14)
    shade = 1 + emboss(height, rng.uniform(0, 6.3), depth) + (normalise(height, depth * 0.7) - 0.5)
    shade = shade + 0.5 * depth * smooth(rng, size, size * 0.15)
    image = develop(rng, shade, tone(rng, 35, 190, "brown", "brown", "paint", "pale"))
    return image, pick(rng, "leather", "faux leather", "hide", "upholstery"), pick(rng, "leather", "grained")


def soft(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw rubber, foam, cork, felt, paper and cardboard."""
    kind = pick(rng, "rubber", "foam", "cork", "cardboard", "paper", "felt", "sponge")
    shade = 1 + loguni(rng, 0.01, 0.05) * octaves(rng, size, loguni(rng, 3, 30), 0.8)
    if kind == "rubber":
        return develop(rng, shade, tone(rng, 25, 80, "metal"), 0.4), kind, "rubber"
    if kind in ("foam", "sponge"):
        distance, labels, _ = cells(rng, size, loguni(rng, 3, 11))
        bubble = normalise(np.minimum(distance, 4) - cv2.GaussianBlur(distance, (0, 0), 3), 1.0) - 0.5
        shade = shade + loguni(rng, 0.02, 0.12) * bubble
        return develop(rng, shade, tone(rng, 50, 225, "pale", "blue", "paint")), kind, "porous"
    if kind == "cork":
        for period in (loguni(rng, 4, 9), loguni(rng, 9, 24)):
            _, labels, n = cells(rng, size, period)
            shade = shade + loguni(rng, 0.04, 0.1) * cv2.GaussianBlur(profile(rng, n + 1, 0)[labels], (0, 0), 0.8)
        return develop(rng, shade, tone(rng, 110, 190, "brown")), kind, "granular"
    fibres = smooth(rng, size, 1.3, loguni(rng, 3, 9), rng.uniform(0, 3)) + smooth(rng, size, 1.3, 5, rng.uniform(0, 3))
    shade = shade + loguni(rng, 0.008, 0.05) * fibres
    if kind == "cardboard":
        x, _ = axes(size)
        shade = upright(rng, shade * (1 + loguni(rng, 0.01, 0.08) * np.cos(x * np.float32(loguni(rng, 30, 120)))))
    colour = tone(rng, 120, 235, "brown" if kind == "cardboard" else "pale", "pale")
    return develop(rng, shade, colour), kind, pick(rng, "fibrous", "pressed", "plain")


def carbon(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw carbon or glass cloth in resin: tows of fine fibres, whose brightness depends on their direction."""
    tow, n = loguni(rng, 7, 34), int(rng.choice([2, 4, 4, 5]))
    axis = np.arange(size, dtype=np.float32) + np.float32(rng.uniform(0, 500))
    bend = 0.06 * tow * smooth(rng, size, size / 3)
    a, b = (axis[None, :] + bend) / np.float32(tow), (axis[:, None] + bend) / np.float32(tow)
    ia, ib = a.astype(np.int32), b.astype(np.int32)
    over = (ia + ib) % n < max(1, n // 2)
    fa, fb = a - ia - 0.5, b - ib - 0.5
    fine = loguni(rng, 0.02, 0.12)
    down = 1 - 1.2 * fa * fa + fine * profile(rng, size, 0.6)[None, :]
    across = 1 - 1.2 * fb * fb + fine * profile(rng, size, 0.6)[:, None]
    ratio = loguni(rng, 0.35, 1)
    shade = np.where(over, down, across * ratio) * (1 + 0.04 * profile(rng, 512, 0)[(ia * 7 + ib * 13) & 511])
    shade = shade * (1 + rng.uniform(0, 0.5) * sheen(rng, size))
    image = develop(rng, shade.astype(np.float32), tone(rng, 45, 150, "metal", "pale"))
    return image, pick(rng, "carbon fibre", "composite", "glass fibre", "laminate"), "woven"


def rail(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw a rail head or a worn track: a bright running band between rough dark sides."""
    x, _ = axes(size)
    edge, half = rng.uniform(0.02, 0.15), rng.uniform(0.25, 0.7)
    off = np.abs(x - rng.normal(0, 0.1) + 0.02 * profile(rng, size, size / 6)[:, None])
    band = 1 / (1 + np.exp(np.clip((off - half) / edge * 3, -20, 20)))
    rough = 1 + 0.12 * octaves(rng, size, loguni(rng, 3, 12), 0.8)
    shade = rng.uniform(0.3, 0.7) * rough * (1 - band) + band * (1 + loguni(rng, 0.02, 0.08) * streaks(rng, size))
    image = develop(rng, upright(rng, shade.astype(np.float32)), tone(rng, 120, 210, "metal"), 0.2)
    return image, pick(rng, "rail", "rail head", "rail surface", "guide rail", "steel track"), "steel"


def solar(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw a solar cell in electroluminescence or in daylight: crystal grains or none, fingers, busbars, darker rim."""
    x, y = axes(size)
    poly, glowing = chance(rng, 0.55), chance(rng, 0.75)
    shade = 1 + loguni(rng, 0.01, 0.06) * smooth(rng, size, size * rng.uniform(0.2, 0.6))
    if poly:
        for _ in range(int(rng.integers(1, 3))):
            _, labels, n = cells(rng, size, loguni(rng, 9, 50))
            grains = cv2.GaussianBlur(profile(rng, n + 1, 0)[labels], (0, 0), rng.uniform(0.6, 1.5))
            shade = shade + loguni(rng, 0.02, 0.1) * grains
        if glowing:  # dislocation clouds: dark veins all over the crystal
            veins = np.maximum(octaves(rng, size, loguni(rng, 10, 40), 0.7) - rng.uniform(0.2, 1.0), 0)
            shade = shade - rng.uniform(0, 0.18) * veins
    rim = np.maximum(np.abs(x), np.abs(y))
    shade = shade * (1 - rng.uniform(0.02, 0.35) * rim ** int(rng.choice([4, 8, 16])))
    fingers = 0.5 + 0.5 * np.cos(y * np.float32(math.pi * size / 2 / loguni(rng, 1.3, 5)))
    amount = loguni(rng, 0.01, 0.15) * (-1 if glowing else 1)
    shade = shade * (1 + amount * fingers**2)
    count, width = int(rng.integers(2, 7)), loguni(rng, 0.008, 0.035)
    near = np.abs((x + 1) / 2 * count - np.floor((x + 1) / 2 * count) - 0.5) * 2 / count
    bar = np.clip((width - near) * size / 2 + 0.5, 0, 1)
    shade = shade * (1 - bar) + bar * (rng.uniform(0.15, 0.75) if glowing else rng.uniform(1.3, 3.5))
    corner = np.clip((rng.uniform(1.78, 1.95) - np.abs(x) - np.abs(y)) * size / 2, 0.1, 1)
    if not poly and chance(rng, 0.7):
        shade = shade * corner
    margin = np.clip((1 - rng.uniform(0.0, 0.05) - rim) * size / 2, 0.12, 1)
    shade = upright(rng, (shade * margin).astype(np.float32))
    level = rng.uniform(70, 190) if glowing else rng.uniform(30, 80)
    colour = np.full(3, level) if glowing or chance(rng, 0.3) else level * np.array([0.5, 0.7, rng.uniform(1.2, 1.8)])
    name = pick(rng, "solar cell", "photovoltaic cell", "electroluminescence image", "solar module")
    return develop(rng, shade, colour, 0.15), name, "polycrystalline" if poly else "monocrystalline"


def surface_scene(painter: Painter) -> Callable[[Rng, int, Photos], Scene]:
    """Return a family of full-frame pictures from a painter; the light is already in them."""

    def family(rng: Rng, size: int, photos: Photos) -> Scene:
        image, name, material = painter(rng, size, photos)
        return Scene(image, full(size), name, material)

    return family


SURFACES: dict[str, tuple[Painter, float]] = {
    "rolled": (rolled, 2.2),
    "machined": (machined, 1.8),
    "blasted": (blasted, 1.6),
    "coated": (coated, 1.6),
    "glass": (glass, 0.8),
    "galvanised": (galvanised, 0.6),
    "mineral": (mineral, 1.8),
    "veneer": (veneer, 1.6),
    "hide": (hide, 1.4),
    "soft": (soft, 1.4),
    "carbon": (carbon, 0.7),
    "rail": (rail, 0.6),
    "solar": (solar, 2.4),
}
