"""Made things that fill the frame: module cells, wafers, boards, chips, labels, dials, printed repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from scenes_base import (
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
from scenes_textures import any_texture

Color = Sequence[float]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghikmnoprstuvxz-./+"
_FONTS = (0, 1, 2, 3, 4, 5, 6, 7)


def box(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
    """An antialiased upright rectangle given in pixels with fractions."""
    points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) * 8
    cv2.fillPoly(image, [points.astype(np.int32)], color, cv2.LINE_AA, 3)


def disc(image: np.ndarray, x: float, y: float, radius: float, color: Color, thickness: int = -1) -> None:
    cv2.circle(image, (int(x * 8), int(y * 8)), max(4, int(radius * 8)), color, thickness, cv2.LINE_AA, 3)


def line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: Color, width: float = 1) -> None:
    """A straight stroke; thin ones get their width from `cv2.line`, the rest are exact polygons."""
    if width <= 1.4:
        cv2.line(image, (int(x0 * 8), int(y0 * 8)), (int(x1 * 8), int(y1 * 8)), color, 1, cv2.LINE_AA, 3)
        return
    length = math.hypot(x1 - x0, y1 - y0) + 1e-6
    nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    points = np.array([[x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny]]) * 8
    cv2.fillPoly(image, [points.astype(np.int32)], color, cv2.LINE_AA, 3)


def word(rng: Rng, low: int = 2, high: int = 9) -> str:
    return "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=int(rng.integers(low, high))))


def text(
    image: np.ndarray, content: str, x: float, y: float, height: float, color: Color, font: int = 0, bold: int = 1
) -> float:
    """Write `content` with its baseline at y; the width it took."""
    scale = max(height, 4) / 22
    cv2.putText(image, content, (int(x), int(y)), font, scale, color, bold, cv2.LINE_AA)
    return float(cv2.getTextSize(content, font, scale, bold)[0][0])


def _level(value: float) -> tuple[float, float, float]:
    value = float(np.clip(value, 0, 255))
    return (value, value, value)


def module_cell(rng: Rng, size: int, photos: Photos) -> Scene:
    """Grey luminescence-like picture of one module cell: bars, fingers, crystal shading, rounded corners."""
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
        color = _level(base * (rng.uniform(1.05, 1.3) if bright else rng.uniform(0.7, 0.97)))
        layer = image.copy()
        for y in np.arange(rng.uniform(0, step), size, step):
            line(layer, 0, y, size, y, color)
        image = cv2.addWeighted(image, 0.5, layer, 0.5, 0) if chance(rng, 0.6) else layer
    n_bars = int(rng.integers(2, 6))
    width = loguni(rng, 1.5, 12)
    color = _level(base * (rng.uniform(1.2, 1.9) if bright else rng.uniform(0.05, 0.7)))
    offset = rng.normal(0, 0.02) * size
    for i in range(n_bars):
        x = size * (i + 0.5) / n_bars + offset
        box(image, x - width / 2, 0, x + width / 2, size, color)
    if chance(rng, 0.3):
        color = _level(base * rng.uniform(0.3, 1.6))
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
    """Chamfered or rounded corners and a dark (or bright) margin."""
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
    return blend(plain(size, _level(rim)), image, mask)


def _motif(rng: Rng, width: int, height: int, theme: Theme, base: Color) -> np.ndarray:
    """A small drawing of a few shapes, to be repeated."""
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
    """A grid of equal dies with streets between; sometimes the round wafer itself."""
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
    """Rows of keys, buttons or windows: equal frames with differing print."""
    width, angle = turned(rng, size)
    theme = Theme(rng)
    pitch = loguni(rng, 20, 90)
    gap = pitch * rng.uniform(0.05, 0.2)
    image = plain(width, theme.color())
    key, rim, ink = theme.color(), theme.color(), theme.color()
    print_it, font = chance(rng, 0.7), int(rng.choice(_FONTS))
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
        masks = tuple(_box_mask(size, b) for b in instances if min(b[:2]) > 2 and max(b[2:]) < size - 2)[:16]
    name = pick(rng, "keyboard", "keypad", "button panel", "window facade", "tray of tiles", "lockers", "solar panel")
    return Scene(lighting(rng, image), full(size), name, pick(rng, "plastic", "printed", "glass"), masks)


def _box_mask(size: int, b: Sequence[float]) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[int(b[1]) : int(b[3]) + 1, int(b[0]) : int(b[2]) + 1] = True
    return mask


def panel(rng: Rng, size: int, photos: Photos) -> Scene:
    """A structural panel: uneven but ordered frame bars, bolts at the crossings, texture in the fields."""
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


def _offset(points: np.ndarray, by: float) -> np.ndarray:
    """A polyline moved sideways with mitred bends, so that parallel traces stay parallel."""
    along = np.diff(points, axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    normal = np.stack([-along[:, 1], along[:, 0]], -1)
    first, second = np.concatenate([normal[:1], normal]), np.concatenate([normal, normal[-1:]])
    miter = (first + second) / (1 + np.sum(first * second, -1, keepdims=True)).clip(0.2)
    return points + by * miter


def _bus(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float, width: float) -> None:
    """Parallel traces with shared 45-degree bends, ending in pads; left out where they would touch others."""
    size = image.shape[0]
    n = int(rng.integers(1, 9))
    shortest = max(0.06 * size, n * pitch * 1.3)
    x, y = rng.uniform(-0.1, 1.0, 2) * size
    heading, turn = int(rng.integers(8)), int(rng.choice([-1, 1]))
    path = [(x, y)]
    for _ in range(int(rng.integers(1, 5))):
        reach = max(shortest, loguni(rng, 0.08, 0.6) * size)
        x, y = x + reach * math.cos(heading * math.pi / 4), y + reach * math.sin(heading * math.pi / 4)
        path.append((x, y))
        heading += turn
        turn = -turn
    ends = chance(rng, 0.7)
    radius = min(width * rng.uniform(0.9, 1.6), pitch * 0.45) if n > 1 else width * rng.uniform(0.9, 2.5)
    lines = [_offset(np.array(path), (k - (n - 1) / 2) * pitch) for k in range(n)]
    fixed = [(points * 8).astype(np.int32) for points in lines]
    claim = np.zeros_like(taken)
    cv2.polylines(claim, fixed, False, 255, round(max(width, 2 * radius) + pitch * 0.6), cv2.LINE_8, 3)
    if cv2.countNonZero(cv2.bitwise_and(claim, taken)):
        return
    cv2.bitwise_or(claim, taken, taken)
    cv2.polylines(image, fixed, False, color, max(1, round(width)), cv2.LINE_AA, 3)
    for points in lines if ends else ():
        for end in (points[0], points[-1]):
            disc(image, end[0], end[1], radius, color)
            if radius > 2.5:
                disc(image, end[0], end[1], radius * 0.45, dark)


def _route(
    rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float, width: float
) -> None:
    """Traces that walk a grid without touching anything, with pads at both ends."""
    size = image.shape[0]
    n = int(size / pitch) + 1
    blocked = cv2.resize(cv2.dilate(taken, np.ones((3, 3), np.uint8)), (n, n), interpolation=cv2.INTER_AREA) > 0
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    straight = rng.uniform(0.6, 0.95)
    diagonal = chance(rng, 0.6)
    radius = pitch * rng.uniform(0.25, 0.42)
    budget = min(420, n * n // 2)
    thickness = max(1, round(width))
    while budget > 0:
        budget -= 4
        i, j = (int(a) for a in rng.integers(n, size=2))
        if blocked[i, j]:
            continue
        blocked[i, j] = True
        heading = int(rng.integers(4)) * 2
        rolls = rng.random(24)
        path = [(j, i)]
        for k in range(int(rng.integers(2, 24))):
            if rolls[k] > straight:
                heading = (heading + (1 if diagonal else 2) * (1 if rolls[k] > 0.5 + straight / 2 else -1)) % 8
            di, dj = steps[heading][1], steps[heading][0]
            a, b = i + di, j + dj
            if not (0 <= a < n and 0 <= b < n) or blocked[a, b] or (di and dj and (blocked[i, b] or blocked[a, j])):
                break
            i, j = a, b
            blocked[i, j] = True
            path.append((j, i))
        budget -= len(path)
        points = (np.array(path) + 0.5) * pitch
        cv2.polylines(image, [(points * 8).astype(np.int32)], False, color, thickness, cv2.LINE_AA, 3)
        for x, y in (points[0], points[-1]):
            disc(image, x, y, radius, color)
            if radius > 2.5:
                disc(image, x, y, radius * 0.45, dark)


def _colors(rng: Rng) -> tuple[Color, Color, Color, Theme]:
    """Ground, copper and silkscreen of a board; pure black and white in a third."""
    roll = rng.random()
    theme = Theme(rng, grey=True if roll < 0.55 else None)
    if roll < 0.3:
        ground, trace = ((0.0,) * 3, (255.0,) * 3) if chance(rng, 0.6) else ((255.0,) * 3, (0.0,) * 3)
    else:
        ground, trace = theme.pair(loguni(rng, 25, 200))
    return ground, trace, theme.color(), theme


def circuit(rng: Rng, size: int, photos: Photos) -> Scene:
    """Pads, footprints, buses, traces, vias and text marks; nothing touches what it does not belong to."""
    width, angle = turned(rng, size)
    ground, trace, silk, _theme = _colors(rng)
    image = plain(width, ground)
    taken = np.zeros((width, width), np.uint8)
    pitch = loguni(rng, 6, 34)
    stroke = pitch * rng.uniform(0.15, 0.5)
    style = rng.integers(4)
    for _ in range(int(rng.integers(0, 6)) if chance(rng, 0.5) else 0):
        _pad_row(rng, image, taken, trace)
    for _ in range(int(rng.integers(1, 8)) if chance(rng, 0.4) else 0):
        _big_pad(rng, image, taken, trace, ground, pitch)
    if style != 0:
        for _ in range(int(rng.integers(6, 26))):
            thick = stroke * rng.choice([1, 1, 1, 1.6])
            _bus(rng, image, taken, trace, ground, max(pitch * 0.7, thick * 2.1), thick)
    if style != 1:
        _route(rng, image, taken, trace, ground, pitch, stroke)
    if chance(rng, 0.3):
        for _ in range(int(rng.integers(2, 6))):
            text(image, word(rng), *rng.uniform(0, width, 2), loguni(rng, 7, 20), silk, int(rng.choice(_FONTS)))
    image = untilt(image, size, angle)
    if chance(rng, 0.5):
        image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "circuit board", "PCB", "printed circuit", "PCB layout", "line drawing", "circuit pattern")
    return Scene(image, full(size), name, pick(rng, "copper", "printed", "etched", "black and white"))


def _claim(taken: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> bool:
    """Reserve a box of the board; False if something is already there."""
    area = taken[max(0, int(y0)) : max(0, int(y1)), max(0, int(x0)) : max(0, int(x1))]
    if area.size == 0 or area.any():
        return False
    area[:] = 255
    return True


def _big_pad(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color, dark: Color, pitch: float) -> None:
    """A large round or square pad, with or without a hole."""
    x, y = rng.uniform(0, image.shape[0], 2)
    r = pitch * rng.uniform(0.5, 1.6)
    if not _claim(taken, x - 1.4 * r, y - 1.4 * r, x + 1.4 * r, y + 1.4 * r):
        return
    if chance(rng, 0.6):
        disc(image, x, y, r, color)
    else:
        box(image, x - r, y - r, x + r, y + r, color)
    if chance(rng, 0.5):
        disc(image, x, y, r * 0.45, dark)


def _pad_row(rng: Rng, image: np.ndarray, taken: np.ndarray, color: Color) -> None:
    """A footprint: one or two rows of equal pads."""
    size = image.shape[0]
    n, pitch = int(rng.integers(2, 13)), loguni(rng, 5, 20)
    long, wide = pitch * rng.uniform(0.6, 2.5), pitch * rng.uniform(0.35, 0.65)
    gap = rng.choice([0, long * rng.uniform(1, 4)])
    x, y = rng.uniform(0, 0.8, 2) * size
    upright = chance(rng, 0.5)
    pad = 0.35 * pitch

    def at(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
        return (x + b, y + a, x + d, y + c) if upright else (x + a, y + b, x + c, y + d)

    if not _claim(taken, *at(-pad, -pad, (n - 1) * pitch + wide + pad, long + pad + (gap + long if gap else 0))):
        return
    for k in range(n):
        box(image, *at(k * pitch, 0, k * pitch + wide, long), color)
        if gap:
            box(image, *at(k * pitch, gap + long, k * pitch + wide, gap + 2 * long), color)


def populated(rng: Rng, size: int, photos: Photos) -> Scene:
    """A board with chips, resistors, capacitors and their prints."""
    width, angle = turned(rng, size)
    ground, trace, silk, theme = _colors(rng)
    if chance(rng, 0.5) and not theme.grey:
        ground = (float(rng.uniform(0, 40)), float(rng.uniform(50, 120)), float(rng.uniform(20, 80)))
    image = plain(width, ground)
    pitch = loguni(rng, 7, 20)
    _route(rng, image, np.zeros((width, width), np.uint8), trace, ground, pitch, pitch * 0.25)
    step = loguni(rng, 34, 90)
    metal, body = theme.color(low=140), theme.color(low=10, high=90)
    instances = []
    for y in cuts(rng, width, step, 0.2):
        for x in cuts(rng, width, step, 0.2):
            if chance(rng, 0.2):
                continue
            w, h = step * rng.uniform(0.25, 0.7), step * rng.uniform(0.2, 0.6)
            _part(rng, image, x, y, w, h, metal, body, silk)
            instances.append((x, y, x + w, y + h))
    image = grain(rng, untilt(image, size, angle), loguni(rng, 0.8, 7))
    masks: tuple[np.ndarray, ...] = ()
    if width == size and abs(angle) < 1e-6:
        masks = tuple(_box_mask(size, b) for b in instances if min(b) > 2 and max(b) < size - 2)[:16]
    name = pick(rng, "circuit board", "PCB", "electronic board", "PCB assembly", "motherboard")
    return Scene(lighting(rng, image), full(size), name, pick(rng, "electronic", "soldered", "green"), masks)


def _part(
    rng: Rng, image: np.ndarray, x: float, y: float, w: float, h: float, metal: Color, body: Color, silk: Color
) -> None:
    """One electronic component in the box (x, y, w, h)."""
    kind = rng.integers(4)
    if kind == 0:
        n = int(rng.integers(3, 9))
        for k in range(n):
            px = x + w * (k + 0.3) / n
            box(image, px, y, px + w * 0.45 / n, y + h, metal)
        box(image, x, y + h * 0.18, x + w, y + h * 0.82, body)
        text(image, word(rng, 2, 5), x + w * 0.08, y + h * 0.6, h * 0.25, silk)
    elif kind == 1:
        box(image, x, y, x + w, y + h * 0.6, metal)
        box(image, x + w * 0.22, y, x + w * 0.78, y + h * 0.6, body)
    elif kind == 2:
        r = min(w, h) / 2
        disc(image, x + r, y + r, r, metal)
        disc(image, x + r, y + r, r * 0.75, body)
        disc(image, x + r * 0.8, y + r * 0.8, r * 0.3, metal)
    else:
        n = int(rng.integers(2, 6))
        box(image, x, y, x + w, y + h * 0.5, silk)
        for k in range(n):
            disc(image, x + w * (k + 0.5) / n, y + h * 0.25, min(w / n, h * 0.5) * 0.33, metal)
            disc(image, x + w * (k + 0.5) / n, y + h * 0.25, min(w / n, h * 0.5) * 0.16, body)


def chip(rng: Rng, size: int, photos: Photos) -> Scene:
    """One package seen from above with pins on two or four sides, a dot and a marking."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    back, _, _ = any_texture(rng, width, photos) if chance(rng, 0.3) else (plain(width, theme.color()), "", "")
    image = back.copy()
    half = size * rng.uniform(0.2, 0.36)
    tall = half * rng.choice([1, 1, rng.uniform(0.4, 1)])
    c = width / 2
    metal, body, ink = theme.color(low=130), theme.color(high=110), theme.color(low=120)
    n, length = int(rng.integers(3, 16)), size * rng.uniform(0.03, 0.1)
    four = chance(rng, 0.5)
    mask = np.zeros((width, width, 3), np.uint8)
    pins = []
    for k in range(n):
        t = (k + 0.5) / n * 2 - 1
        thick = half / n * rng.uniform(0.5, 0.52)
        pins.append((c + t * half - thick, c - tall - length, c + t * half + thick, c + tall + length))
        if four:
            thin = min(thick, tall / n * 0.6)
            pins.append((c - half - length, c + t * tall - thin, c + half + length, c + t * tall + thin))
    for b in pins:
        box(image, *b, metal)
        box(mask, *b, _level(255))
    box(mask, c - half, c - tall, c + half, c + tall, _level(255))
    box(image, c - half, c - tall, c + half, c + tall, body)
    edge = half * rng.uniform(0.02, 0.1)
    box(image, c - half + edge, c - tall + edge, c + half - edge, c + tall - edge, theme.color(np.mean(body) * 1.2))
    disc(image, c - half * 0.75, c - tall * 0.65, half * 0.07, ink)
    rows, font = int(rng.integers(1, 4)), int(rng.choice(_FONTS[:6]))
    for r in range(rows):
        high = min(tall * 0.7 / rows, half * 0.3)
        text(image, word(rng, 3, 8), c - half * 0.6, c - tall * 0.3 + (r + 0.5) * high * 1.4, high * 0.7, ink, font)
    image, shape = untilt(image, size, angle), untilt(mask, size, angle)[..., 0] > 127
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "chip", "integrated circuit", "microchip", "IC package", "electronic component")
    return Scene(
        image, shape, name, pick(rng, "black plastic", "electronic", "moulded"), (shape,), untilt(back, size, angle)
    )


def label(rng: Rng, size: int, photos: Photos) -> Scene:
    """A printed label: lines of text, rules, a barcode, a logo."""
    theme = Theme(rng)
    width, angle = turned(rng, size)
    paper_color, ink = theme.pair(loguni(rng, 50, 220))
    image = plain(width, paper_color)
    y, margin = rng.uniform(0, 20), rng.uniform(0, 0.1) * width
    font = int(rng.choice(_FONTS))
    while y < width:
        kind = rng.integers(6)
        height = loguni(rng, 8, 46)
        if kind <= 2:
            x = margin
            bold = 1 if height < 18 else int(rng.integers(1, 4))
            while x < width - margin:
                x += text(image, word(rng), x, y + height * 0.85, height, ink, font, bold) + height * 0.5
        elif kind == 3:
            line(image, margin, y + height / 2, width - margin, y + height / 2, ink, loguni(rng, 1, 5))
        elif kind == 4:
            _barcode(rng, image[int(y) : int(y + height)], ink, margin)
        else:
            shade = theme.color()
            for x in np.arange(margin, width, height * 1.5):
                disc(image, x + height / 2, y + height / 2, height * 0.4, shade)
        y += height * rng.uniform(1.1, 1.6)
    image = untilt(image, size, angle)
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 6)))
    name = pick(rng, "label", "printed text", "document", "packaging", "sticker", "box", "newspaper")
    return Scene(image, full(size), name, pick(rng, "printed", "paper", "cardboard"))


def _barcode(rng: Rng, band: np.ndarray, ink: Color, margin: float = 0) -> None:
    widths = rng.integers(1, 5, 400) * max(1, int(loguni(rng, 1, 4)))
    bits = np.repeat(np.arange(400) % 2, widths)[: band.shape[1]].astype(bool)
    bits[: int(margin)] = False
    band[:, bits] = np.array(ink, np.uint8)


def code(rng: Rng, size: int, photos: Photos) -> Scene:
    """Barcodes, matrix codes and truchet or maze layouts: irregular but lawful."""
    theme = Theme(rng, grey=True if chance(rng, 0.4) else None)
    width, angle = turned(rng, size)
    light, dark = theme.pair(loguni(rng, 40, 250))
    pitch = int(loguni(rng, 4, 36))
    n = width // pitch + 2
    kind = rng.integers(4)
    if kind == 0:
        image = plain(width, light)
        _barcode(rng, image, dark)
        text(image, word(rng, 6, 12), width * 0.3, width * 0.98, 18, dark)
    elif kind == 1:
        bits = (rng.random((n, n)) < rng.uniform(0.35, 0.65)).astype(np.uint8)
        big = cv2.resize(bits, None, fx=pitch, fy=pitch, interpolation=cv2.INTER_NEAREST)[:width, :width]
        image = np.where(big[..., None] > 0, np.array(dark, np.uint8), np.array(light, np.uint8))
    else:
        image = plain(width, light)
        stroke = max(1, round(pitch * rng.uniform(0.1, 0.35)))
        n = min(n, 26)
        pitch = max(pitch, width // n + 1)
        bits = rng.random((n, n)) < 0.5
        for i in range(n):
            for j in range(n):
                _truchet(image, j * pitch, i * pitch, pitch, bool(bits[i, j]), kind == 2, dark, stroke)
    image = untilt(np.ascontiguousarray(image), size, angle)
    image = lighting(rng, grain(rng, image, loguni(rng, 0.5, 8)))
    name = pick(rng, "barcode", "maze", "printed pattern", "matrix code", "print", "line pattern")
    return Scene(image, full(size), name, pick(rng, "printed", "black and white", "graphic"))


def _truchet(image: np.ndarray, x: int, y: int, p: int, flip: bool, arcs: bool, color: Color, stroke: int) -> None:
    if not arcs:
        ends = ((x, y), (x + p, y + p)) if flip else ((x + p, y), (x, y + p))
        cv2.line(image, *ends, color, stroke, cv2.LINE_AA)
        return
    corners = ((x, y, 0), (x + p, y + p, 180)) if flip else ((x + p, y, 90), (x, y + p, 270))
    for cx, cy, start in corners:
        cv2.ellipse(image, (cx, cy), (p // 2, p // 2), start, 0, 90, color, stroke, cv2.LINE_AA)


def repeat_print(rng: Rng, size: int, photos: Photos) -> Scene:
    """A motif repeated as on wallpaper, wrapping paper or printed cloth."""
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


def dial(rng: Rng, size: int, photos: Photos) -> Scene:
    """Gauges, clocks and rulers: ticks, numbers, a needle."""
    theme = Theme(rng)
    face, ink = theme.pair(loguni(rng, 60, 220))
    image = plain(size, theme.color())
    c, r = size / 2, size * rng.uniform(0.36, 0.49)
    mask = np.zeros((size, size), np.uint8)
    if chance(rng, 0.3):
        return _ruler(rng, size, face, ink)
    disc(mask, c, c, r, 255)
    disc(image, c, c, r, theme.color())
    disc(image, c, c, r * rng.uniform(0.85, 0.95), face)
    start, sweep = rng.uniform(0, 6.28), rng.choice([6.2832, 4.7, 3.5])
    major, minor = int(rng.integers(4, 13)), int(rng.integers(1, 6))
    n = major * minor
    for k in range(n + 1):
        a = start + sweep * k / n
        inner = r * (0.68 if k % minor == 0 else 0.76)
        ca, sa = math.cos(a), math.sin(a)
        line(
            image,
            c + inner * ca,
            c + inner * sa,
            c + r * 0.82 * ca,
            c + r * 0.82 * sa,
            ink,
            2.2 if k % minor == 0 else 1,
        )
        if k % minor == 0:
            text(image, str(k // minor), c + r * 0.55 * ca - 6, c + r * 0.55 * sa + 5, r * 0.14, ink)
    for _ in range(int(rng.integers(1, 4))):
        a, long = rng.uniform(0, 6.28), r * rng.uniform(0.35, 0.7)
        line(
            image, c, c, c + long * math.cos(a), c + long * math.sin(a), theme.color(np.mean(ink)), loguni(rng, 1.5, 6)
        )
    disc(image, c, c, r * 0.06, ink)
    name = pick(rng, "gauge", "dial", "clock", "meter", "watch face")
    return Scene(lighting(rng, grain(rng, image, loguni(rng, 0.5, 6))), mask > 127, name, pick(rng, "printed", "metal"))


def _ruler(rng: Rng, size: int, face: Color, ink: Color) -> Scene:
    width, angle = turned(rng, size)
    image = plain(width, face)
    step = loguni(rng, 3, 12)
    band = loguni(rng, 50, 200)
    for top in np.arange(0, width, band):
        for k, x in enumerate(np.arange(0, width, step)):
            long = band * (0.4 if k % 10 == 0 else 0.28 if k % 5 == 0 else 0.18)
            line(image, x, top, x, top + long, ink)
            if k % 10 == 0:
                text(image, str(k // 10), x + 2, top + band * 0.65, min(18, band * 0.25), ink)
    image = lighting(rng, grain(rng, untilt(image, size, angle), loguni(rng, 0.5, 6)))
    return Scene(image, full(size), pick(rng, "ruler", "scale", "measuring tape"), pick(rng, "printed", "steel"))


def connector(rng: Rng, size: int, photos: Photos) -> Scene:
    """Rows of pins, fins, teeth: zippers, heat sinks, terminal blocks, combs."""
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


Family = Callable[[Rng, int, Photos], Scene]
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
