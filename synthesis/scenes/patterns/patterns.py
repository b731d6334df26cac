"""Regular structures that fill the frame: module cells, wafers, keys, panels, printed repeats, rows of pins.

`PATTERNS` also has the families of `circuits.py` and `prints.py`.
"""

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
    cell_edges,
    cells,
    chance,
    cuts,
    full,
    grain,
    lighting,
    loguni,
    pick,
    plain,
    relight,
    smooth,
    turned,
    untilt,
    white,
)
from synthesis.scenes.drawing import FONTS, Color, box, box_mask, disc, level, line, text, word
from synthesis.scenes.patterns.circuits import chip, circuit, populated
from synthesis.scenes.patterns.prints import code, dial, label
from synthesis.scenes.surfaces.textures import any_texture


def module_cell(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a grey, luminescence-like picture of a module cell: bars, fingers, crystal shading, rounded corners."""
    base = rng.uniform(60, 215)
    shade = np.ones((size, size), np.float32)
    if chance(rng, 0.55):
        _, labels, n = cells(rng, size, loguni(rng, 6, 60))
        table = (1 + loguni(rng, 0.02, 0.2) * rng.standard_normal(n + 1)).astype(np.float32)
        shade *= cv2.GaussianBlur(table[labels], (0, 0), rng.uniform(0.6, 3))
        if chance(rng, 0.4):
            rim = cv2.GaussianBlur(cell_edges(labels), (0, 0), rng.uniform(0.7, 1.5))
            shade *= 1 - rim * np.float32(rng.uniform(0.0004, 0.002))
    shade *= 1 + rng.uniform(0.01, 0.12) * smooth(rng, size, size * rng.uniform(0.15, 0.6))
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    if chance(rng, 0.6):
        power = rng.choice([2, 4, 6, 8])
        shade *= 1 - rng.uniform(0.1, 0.6) * np.maximum(np.abs(axis[None]), np.abs(axis[:, None])) ** power
    if chance(rng, 0.4):
        shade *= 1 + rng.uniform(-0.25, 0.25) * (axis[None] if chance(rng, 0.5) else axis[:, None])
    shade *= 1 + rng.uniform(0.005, 0.08) * white(rng, size)
    value = cv2.convertScaleAbs(shade * np.float32(base))
    image = cv2.merge([value, value, value])
    bright = chance(rng, 0.25)
    if chance(rng, 0.6):
        step = loguni(rng, 2.2, 14)
        color = level(base * (rng.uniform(1.05, 1.3) if bright else rng.uniform(0.7, 0.97)))
        layer = image.copy()
        for y in np.arange(rng.uniform(0, step), size, step):
            line(layer, 0, y, size, y, color)
        image = cv2.addWeighted(image, 0.5, layer, 0.5, 0) if chance(rng, 0.6) else layer
    n_bars = int(rng.integers(2, 6))
    width = loguni(rng, 1.5, 12)
    color = level(base * (rng.uniform(1.2, 1.9) if bright else rng.uniform(0.05, 0.7)))
    offset = rng.normal(0, 0.02) * size
    for i in range(n_bars):
        x = size * (i + 0.5) / n_bars + offset
        box(image, x - width / 2, 0, x + width / 2, size, color)
    if chance(rng, 0.3):
        color = level(base * rng.uniform(0.3, 1.6))
        for i in range(n_bars):
            x = size * (i + 0.5) / n_bars + offset
            for k in range(8):
                box(image, x - width, size * (k + 0.4) / 8, x + width, size * (k + 0.6) / 8, color)
    image = cv2.GaussianBlur(image, (0, 0), loguni(rng, 0.4, 1.2))
    image = _cell_outline(rng, image, base)
    if chance(rng, 0.5):
        image = np.ascontiguousarray(np.rot90(image))
    if chance(rng, 0.12):
        image = cv2.LUT(image, Theme(rng, grey=False).ramp(200, 2).reshape(1, 256, 3))
    name = pick(rng, "solar cell", "photovoltaic cell", "module cell", "wafer cell", "electroluminescence image")
    return Scene(image, full(size), name, pick(rng, "grey", "silicon", "polycrystalline", "monocrystalline"))


def _cell_outline(rng: Rng, image: np.ndarray, base: float) -> np.ndarray:
    """Draw chamfered or rounded corners and a dark or bright margin."""
    size = image.shape[0]
    kind = rng.integers(4)
    margin = rng.uniform(0, 0.04) * size
    corner = rng.uniform(0.02, 0.16) * size
    if kind == 0:
        return image
    low, high = margin, size - margin
    if kind == 1:
        c = corner
        points = [
            (low + c, low),
            (high - c, low),
            (high, low + c),
            (high, high - c),
            (high - c, high),
            (low + c, high),
            (low, high - c),
            (low, low + c),
        ]
    elif kind == 2:
        points = [(low, low), (high, low), (high, high), (low, high)]
    else:
        t = np.linspace(0, 2 * math.pi, 120)
        r = size / 2 - margin
        radius = (size / 2) * rng.uniform(1.2, 1.36)
        points = [(size / 2 + np.clip(radius * a, -r, r), size / 2 + np.clip(radius * b, -r, r))
                  for a, b in zip(np.cos(t), np.sin(t), strict=True)]  # fmt: skip
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [(np.array(points) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2.5))
    rim = base * rng.uniform(0, 0.35) if chance(rng, 0.85) else base * 1.3
    return blend(plain(size, level(rim)), image, mask)


def _motif(rng: Rng, width: int, height: int, theme: Theme, base: Color) -> np.ndarray:
    """Draw a motif of a few shapes, to be repeated."""
    motif = np.empty((height, width, 3), np.uint8)
    motif[:] = np.array(base, np.uint8)
    for _ in range(int(rng.integers(1, 7))):
        color = theme.color()
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
        r = rng.uniform(0.05, 0.35) * min(width, height)
        kind = rng.integers(5)
        if kind == 0:
            disc(motif, x, y, r, color)
        elif kind == 1:
            box(motif, x - r, y - r * rng.uniform(0.3, 2), x + r, y + r, color)
        elif kind == 2:
            disc(motif, x, y, r, color, max(1, int(r / 4)))
        elif kind == 3:
            line(motif, x, y, rng.uniform(0, width), y, color, max(1, r / 4))
        else:
            angles = np.sort(rng.uniform(0, 6.28, int(rng.integers(3, 8))))
            points = np.stack([x + r * 1.4 * np.cos(angles), y + r * 1.4 * np.sin(angles)], -1) * 8
            cv2.fillPoly(motif, [points.astype(np.int32)], color, cv2.LINE_AA, 3)
    return motif


def wafer(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a grid of equal dies with streets between; sometimes the round wafer itself."""
    width, angle = turned(rng, size)
    theme = Theme(rng)
    w, h = int(loguni(rng, 8, 80)), int(loguni(rng, 8, 80))
    street = max(1, int(rng.uniform(0.03, 0.15) * min(w, h)))
    tile = np.zeros((h + street, w + street, 3), np.uint8)
    tile[:] = np.array(theme.color(), np.uint8)
    tile[:h, :w] = _motif(rng, w, h, theme, theme.color())
    image = np.tile(tile, (width // (h + street) + 2, width // (w + street) + 2, 1))
    y, x = int(rng.integers(h)), int(rng.integers(w))
    image = np.ascontiguousarray(image[y : y + width, x : x + width])
    image = relight(image, 1 + rng.uniform(0.01, 0.1) * smooth(rng, width, width / 3))
    image = untilt(image, size, angle)
    mask = full(size)
    name = pick(rng, "wafer", "semiconductor dies", "LED array", "patterned wafer", "microchip array")
    if chance(rng, 0.3):
        disc_mask = np.zeros((size, size), np.uint8)
        disc(disc_mask, size / 2, size / 2, size * rng.uniform(0.4, 0.48), 255)
        image, mask = blend(plain(size, theme.color()), image, disc_mask), disc_mask > 127
        name = pick(rng, "wafer", "silicon wafer")
    return Scene(lighting(rng, grain(rng, image, loguni(rng, 0.5, 6)), 0.4), mask, name, pick(rng, "silicon", "etched"))


def keyboard(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw rows of keys, buttons or windows: equal frames with differing print."""
    width, angle = turned(rng, size)
    theme = Theme(rng)
    pitch = loguni(rng, 20, 90)
    gap = pitch * rng.uniform(0.05, 0.2)
    image = plain(width, theme.color())
    key, rim, ink = theme.color(), theme.color(), theme.color()
    print_it, font = chance(rng, 0.7), int(rng.choice(FONTS))
    stagger = rng.choice([0, 0, 0.25, 0.5])
    tall = pitch * rng.choice([1, 1, 1.5])
    lip = pitch * rng.uniform(0.03, 0.12)
    instances = []
    for row, y in enumerate(np.arange(-pitch, width + pitch, tall)):
        x = -pitch * (1 + row * stagger % 1)
        while x < width:
            w = pitch * (1 if chance(rng, 0.85) or stagger == 0 else rng.choice([1.5, 2]))
            box(image, x + gap / 2, y + gap / 2, x + w - gap / 2, y + tall - gap / 2, rim)
            box(image, x + gap / 2 + lip, y + gap / 2 + lip / 2, x + w - gap / 2 - lip, y + tall - gap - lip, key)
            if print_it:
                text(image, word(rng, 1, 3), x + pitch * 0.3, y + tall * 0.65, pitch * 0.35, ink, font)
            instances.append((x + gap / 2, y + gap / 2, x + w - gap / 2, y + tall - gap / 2))
            x += w
    image = untilt(image, size, angle)
    image = grain(rng, image, loguni(rng, 0.5, 8))
    masks: tuple[np.ndarray, ...] = ()
    if width == size and abs(angle) < 1e-6 and len(instances) < 60:
        masks = tuple(box_mask(size, b) for b in instances if min(b[:2]) > 2 and max(b[2:]) < size - 2)[:16]
    name = pick(rng, "keyboard", "keypad", "button panel", "window facade", "tray of tiles", "lockers", "solar panel")
    return Scene(lighting(rng, image), full(size), name, pick(rng, "plastic", "printed", "glass"), masks)


def panel(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a structural panel: uneven but ordered frame bars, bolts at the crossings, texture in the fields."""
    width, angle = turned(rng, size)
    theme = Theme(rng)
    image, _, material = any_texture(rng, width, photos)
    if chance(rng, 0.5):
        image = cv2.GaussianBlur(image, (0, 0), 2)
    color, dark, bolt = theme.color(), theme.color(), theme.color()
    bar = loguni(rng, 2, 22)
    xs = cuts(rng, width, loguni(rng, 25, 130), rng.choice([0, 0, 0.4]))
    ys = cuts(rng, width, loguni(rng, 25, 130), rng.choice([0, 0, 0.4]))
    edge = max(1.0, bar * 0.12)
    for x in xs:
        box(image, x - bar / 2 - edge, 0, x + bar / 2 + edge, width, dark)
    for y in ys:
        box(image, 0, y - bar / 2 - edge, width, y + bar / 2 + edge, dark)
    for x in xs:
        box(image, x - bar / 2, 0, x + bar / 2, width, color)
    for y in ys:
        box(image, 0, y - bar / 2, width, y + bar / 2, color)
    if chance(rng, 0.4) and bar > 5:
        for x in xs:
            for y in ys:
                disc(image, x, y, bar * 0.3, dark)
                disc(image, x - bar * 0.05, y - bar * 0.05, bar * 0.24, bolt)
    image = lighting(rng, grain(rng, untilt(image, size, angle), loguni(rng, 0.5, 8)))
    name = pick(rng, "panel", "window grid", "solar panel", "door", "ceiling", "container wall", "cabinet")
    return Scene(image, full(size), name, material)


def repeat_print(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a motif repeated as on wallpaper, wrapping paper or printed cloth."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    w, h = int(loguni(rng, 10, 110)), int(loguni(rng, 10, 110))
    tile = _motif(rng, w, h, theme, theme.color())
    if chance(rng, 0.4):
        tile = np.concatenate([tile, tile[:, ::-1]], 1)
        if chance(rng, 0.5):
            tile = np.concatenate([tile, tile[::-1]], 0)
    elif chance(rng, 0.5):
        tile = np.concatenate([tile, np.roll(tile, w // 2, 1)], 0)
    image = np.tile(tile, (width // tile.shape[0] + 1, width // tile.shape[1] + 1, 1))[:width, :width]
    image = untilt(np.ascontiguousarray(image), size, angle)
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 12)))
    name = pick(rng, "wallpaper", "wrapping paper", "printed fabric", "pattern", "printed tile", "decor")
    return Scene(image, full(size), name, pick(rng, "printed", "patterned", "decorated"))


def connector(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw rows of pins, fins, teeth: zippers, heat sinks, terminal blocks, combs."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    image, _, _ = any_texture(rng, width, photos) if chance(rng, 0.4) else (plain(width, theme.color()), "", "")
    body, metal, dark = theme.color(), theme.color(low=120), theme.color(high=80)
    pitch = loguni(rng, 5, 36)
    rows = int(rng.integers(1, 4))
    high = width / rows * rng.uniform(0.3, 0.9)
    zipper = chance(rng, 0.4)
    duty, jitter = rng.uniform(0.3, 0.7), pitch * rng.uniform(0, 0.03)
    for row in range(rows):
        y = width * (row + 0.5) / rows
        box(image, 0, y - high / 2, width, y + high / 2, body)
        for k in range(int(width / pitch) + 2):
            x = k * pitch + rng.normal(0, 1) * jitter
            if zipper:
                side = 1 if k % 2 else -1
                y0, y1 = y - side * high * 0.06, y + side * high * 0.22
                box(image, x + 1, min(y0, y1) + 1, x + pitch * (duty + 0.3) + 1, max(y0, y1) + 1, dark)
                box(image, x, min(y0, y1), x + pitch * (duty + 0.3), max(y0, y1), metal)
            else:
                box(image, x, y - high * 0.4, x + pitch * duty, y + high * 0.4, dark)
                box(image, x + pitch * duty * 0.2, y - high * 0.33, x + pitch * duty * 0.8, y + high * 0.33, metal)
    image = lighting(rng, grain(rng, untilt(image, size, angle), loguni(rng, 0.8, 8)))
    name = (
        pick(rng, "zipper", "zip")
        if zipper
        else pick(rng, "connector", "heat sink", "terminal block", "comb", "grille")
    )
    return Scene(image, full(size), name, pick(rng, "metal", "plastic", "fabric" if zipper else "ribbed"))


PATTERNS: dict[str, tuple[Family, float]] = {
    "module_cell": (module_cell, 5.0),
    "wafer": (wafer, 1.5),
    "keyboard": (keyboard, 1.2),
    "panel": (panel, 1.8),
    "circuit": (circuit, 4.0),
    "populated": (populated, 2.0),
    "chip": (chip, 1.2),
    "label": (label, 1.5),
    "code": (code, 1.0),
    "repeat_print": (repeat_print, 1.5),
    "dial": (dial, 0.8),
    "connector": (connector, 1.2),
}
