"""Flat assemblies as photographed: populated boards near and far, blister packs, zippers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from synthesis.scenes.base import (
    Family,
    Photos,
    Rng,
    Scene,
    blend,
    chance,
    full,
    grain,
    loguni,
    pick,
    relight,
    smooth,
    white,
)
from synthesis.scenes.drawing import box, disc, line, rounded
from synthesis.scenes.patterns.circuits import bus, claim_box, route
from synthesis.scenes.products.components import GOLD, TIN, Canvas, Kind, Rect
from synthesis.scenes.products.studio import Skin, Studio, cast_shadow, flat, ground, shaded, sober, stamp

_MASKS = (
    ((18, 88, 48), 0.42),  # green, dark green
    ((12, 62, 40), 0.62),
    ((20, 48, 120), 0.76),  # blue
    ((24, 24, 26), 0.88),  # black
    ((140, 24, 28), 0.94),  # red
    ((222, 222, 214), 1.01),  # white
)


_SMALL = ("resistor", "capacitor", "resistor", "capacitor", "diode", "sot")
_LARGE = ("so", "so", "quad", "can", "coil", "crystal", "socket", "header", "joints", "hole", "label")
_MARKS = {"resistor": "R", "capacitor": "C", "can": "C", "coil": "L", "so": "U", "quad": "U", "diode": "D", "sot": "Q"}
Placed = list[tuple[Kind, Rect, bool]]


def _layout(rng: Rng, unit: float, taken: np.ndarray) -> tuple[Placed, Placed]:
    """Place parts, large ones first, then rows of equal small ones; return all of them and the longest row."""
    size = len(taken)
    left, top, width, height = cv2.boundingRect(255 - taken)
    placed: Placed = []
    best: Placed = []
    full_of = rng.uniform(0.3, 1.0)
    kinds = [Kind(rng, unit, str(rng.choice(_LARGE))) for _ in range(int(rng.integers(2, 6)))]
    kinds += [Kind(rng, unit, str(rng.choice(_SMALL))) for _ in range(int(rng.integers(2, 6)))]
    tries = int(np.clip(60 * full_of, 8, 60))
    for t in range(tries):
        big = t < tries * 0.35
        fits = [k for k in kinds if (k.long > 3.2 * unit) == big] or kinds
        kind = fits[int(rng.integers(len(fits)))]
        up = chance(rng, 0.5)
        w, h = (kind.wide, kind.long) if up else (kind.long, kind.wide)
        n = 1 if big and chance(rng, 0.6) else int(rng.integers(1, 4 if big else 9))
        gap = unit * rng.uniform(0.9, 2.0)
        along = chance(rng, 0.25) != up
        x, y = np.round((rng.uniform(-0.05, 0.95, 2) * (width, height) + (left, top)) / (unit * 0.5)) * unit * 0.5
        row: Placed = []
        for k in range(n):
            dx, dy = (0.0, k * (h + gap)) if along is False else (k * (w + gap), 0.0)
            margin = unit * 0.55
            x0, y0 = x + dx, y + dy
            if not claim_box(taken, x0 - margin, y0 - margin, x0 + w + margin, y0 + h + margin):
                break
            row.append((kind, (x0, y0, x0 + w, y0 + h), up))
        placed += row
        whole = [p for p in row if min(p[1]) > 2 and max(p[1]) < size - 2]
        best = whole if len(whole) > len(best) else best
    return placed, best


def _bare(rng: Rng, size: int, unit: float, taken: np.ndarray) -> Canvas:
    """Draw the board without parts: solder mask, ground planes, traces, vias, silk-screen dots."""
    roll = rng.random()
    base = next(np.array(c, float) for c, limit in _MASKS if roll < limit)
    base = np.clip(base * rng.uniform(0.7, 1.35) + rng.normal(0, 5, 3), 4, 240)
    copper = np.zeros((size, size), np.uint8)
    pitch = unit * rng.uniform(0.8, 1.6)
    wide = max(1.0, pitch * rng.uniform(0.2, 0.45))
    lanes = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        bus(rng, copper, lanes, 255, 0, max(pitch * 0.7, 2.2 * wide), wide)  # type: ignore[arg-type]
    route(rng, copper, lanes, 255, 0, max(pitch, size / 28), wide)  # type: ignore[arg-type]
    if chance(rng, 0.55):  # a ground plane: copper everywhere except beside the traces
        gap = cv2.dilate(copper, np.ones((3, 3), np.uint8), iterations=max(1, round(pitch * 0.22)))
        copper = cv2.max(copper, 255 - gap)
    shine = 1 + rng.uniform(0.12, 0.45) * (1 if base.mean() < 150 else -0.25)
    a = cv2.GaussianBlur(copper, (0, 0), 0.7).astype(np.float32) / 255
    lit = np.clip(base * shine + rng.uniform(2, 12), 0, 250)
    albedo = cv2.blendLinear(flat(size, base), flat(size, lit), 1 - a, a)
    surface = np.zeros((size, size, 3), np.uint8)
    surface[..., 0] = copper // 60
    surface[..., 2] = rng.integers(60, 130)
    silk = (225.0, 225.0, 218.0) if base.mean() < 190 else (30.0, 30.0, 30.0)
    canvas = Canvas(albedo, surface, unit, GOLD if chance(rng, 0.2) else TIN, silk)
    radius = unit * rng.uniform(0.22, 0.38)
    for x, y in rng.uniform(0, size, (int(rng.integers(6, 46)), 2)):
        if not claim_box(taken, x - radius * 2, y - radius * 2, x + radius * 2, y + radius * 2):
            continue
        open_ring = unit > 5
        canvas.disc(x, y, radius * 1.7, canvas.tin if open_ring else tuple(lit), 4, 220 if open_ring else 0)
        canvas.disc(x, y, radius * 0.8, (18, 20, 18), 0)
    return canvas


def _photo_of(canvas: Canvas, studio: Studio, tilt: np.ndarray, noise: np.ndarray, shadows: bool) -> np.ndarray:
    """Photograph a board with light and cast shadows."""
    size = len(canvas.albedo)
    level, metal, gloss = cv2.split(canvas.surface)
    reach = canvas.unit * 2.2 / 255
    height = cv2.GaussianBlur(level, (0, 0), max(0.6, canvas.unit * 0.07)).astype(np.float32) * np.float32(reach)
    shine = metal.astype(np.float32) / 255
    wavy = height + noise * (0.25 + 0.9 * shine) + tilt
    image = shaded(canvas.albedo, wavy, shine, gloss.astype(np.float32) / 255, studio, 0.0, 0.25)
    if not shadows:
        return image
    half = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    dark = np.zeros_like(half)
    dx, dy = -math.cos(studio.azimuth), -math.sin(studio.azimuth)
    for k in (1.0, 2.2, 3.6):
        step = k * max(1.0, canvas.unit * 0.12)
        moved = cv2.warpAffine(half, np.float32([[1, 0, dx * step / 2], [0, 1, dy * step / 2]]), half.shape[::-1])
        dark = np.maximum(dark, moved - half - np.float32(step * 0.5))
    dark = cv2.resize(cv2.GaussianBlur(np.clip(dark * 1.5, 0, 1), (0, 0), 0.6), (size, size))
    return relight(image, 1 - np.float32(0.5) * dark)


def _board(rng: Rng, size: int, unit: float, studio: Studio, taken: np.ndarray, holes: Sequence[Rect] = ()) -> Scene:
    """Draw a board that fills the picture, with screw holes at `holes` and no parts where it is `taken`."""
    top = cv2.boundingRect(255 - taken)[1]
    placed, row = _layout(rng, unit, taken)
    canvas = _bare(rng, size, unit, taken)
    screw = Kind(rng, unit, "hole")
    placed += [(screw, r, False) for r in holes]
    letters, edged = max(5.0, unit * rng.uniform(0.6, 1.0)), chance(rng, 0.6)
    count = int(rng.integers(1, 60))
    for kind, r, up in placed:
        if edged and kind.name not in ("hole", "joints", "label"):
            m = unit * 0.32
            points = np.array([[r[0] - m, r[1] - m], [r[2] + m, r[1] - m], [r[2] + m, r[3] + m], [r[0] - m, r[3] + m]])
            wide = max(1, round(unit * 0.09))
            cv2.polylines(canvas.albedo, [(points * 8).astype(np.int32)], True, canvas.silk, wide, cv2.LINE_AA, 3)
        above = r[1] - unit * 0.4 - letters > top or top == 0
        if above and kind is not screw and (letters < unit * 1.2 or kind.long > 3 * unit):
            count += 1
            canvas.write(
                f"{_MARKS.get(kind.name, 'J')}{count}", r[0], r[1] - unit * 0.4 - letters / 2, letters, canvas.silk
            )
        kind.pads(canvas, r, up)
    for _ in range(int(rng.integers(0, 6))):  # names and numbers of the board, where they fit
        content, (x, y), tall = stamp(rng, 4, 10), rng.uniform(0, 0.85, 2) * size, letters * rng.choice([1, 1.5, 2.2])
        if claim_box(taken, x - unit, y - tall, x + 0.85 * tall * len(content), y + tall):
            canvas.write(content, x, y, tall, canvas.silk)
    empty = replace(canvas, albedo=canvas.albedo.copy(), surface=canvas.surface.copy())
    for kind, r, up in placed:
        kind.place(canvas, r, up)
    noise = cv2.GaussianBlur(white(rng, size), (0, 0), max(0.8, unit * 0.12)) * np.float32(0.5 + 0.04 * unit)
    tilt = smooth(rng, size, size * 0.5) * np.float32(size * 0.01)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    a, amount = rng.uniform(0, 6.28), loguni(rng, 0.02, 0.3)
    fall = rng.uniform(0.85, 1.15) * (1 + amount * (math.cos(a) * axis[None] + math.sin(a) * axis[:, None]))
    soft, fine = loguni(rng, 0.35, 1.1) * size / 256, white(rng, size) * np.float32(loguni(rng, 0.4, 3))
    pictures = []
    for c in (canvas, empty):
        image = relight(_photo_of(c, studio, tilt, noise, c is canvas), fall.astype(np.float32))
        pictures.append(cv2.add(cv2.GaussianBlur(image, (0, 0), soft), cv2.merge([fine] * 3), dtype=cv2.CV_8U))
    chosen = row if len(row) > 2 else [p for p in placed if p[0].name not in ("hole", "joints")]
    masks = []
    for _kind, (x0, y0, x1, y1), _up in chosen[:16]:
        mask = np.zeros((size, size), bool)
        m = unit * 0.1
        mask[max(int(y0 - m), 0) : max(int(y1 + m) + 1, 0), max(int(x0 - m), 0) : max(int(x1 + m) + 1, 0)] = True
        if mask.any():
            masks.append(mask)
    name = pick(rng, "circuit board", "PCB", "electronic board", "PCB assembly", "electronics")
    return Scene(pictures[0], full(size), name, pick(rng, "electronic", "soldered"), tuple(masks), pictures[1])


def board(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a populated board from above."""
    unit = size * loguni(rng, 0.022, 0.06)
    return _board(rng, size, unit, Studio(rng), np.zeros((size, size), np.uint8))


def board_close(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a few components near by, with their solder joints."""
    unit = size * loguni(rng, 0.065, 0.16)
    return _board(rng, size, unit, Studio(rng), np.zeros((size, size), np.uint8))


def board_whole(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw a whole module with its edges and screw holes, on a ground."""
    studio, unit = Studio(rng), size * loguni(rng, 0.02, 0.05)
    wide, tall = size * rng.uniform(0.36, 0.48), size * rng.uniform(0.2, 0.46)
    wide, tall = (wide, tall) if chance(rng, 0.7) else (tall, wide)
    x, y = size / 2 + rng.normal(0, 0.01, 2) * size
    outline, inside = np.zeros((size, size), np.uint8), np.full((size, size), 255, np.uint8)
    box(outline, x - wide, y - tall, x + wide, y + tall, 255)  # type: ignore[arg-type]
    if chance(rng, 0.5):
        outline = rounded(outline, max(1.0, size * 0.012))
    m, holes = unit * 0.9, []
    box(inside, x - wide + m, y - tall + m, x + wide - m, y + tall - m, 0)  # type: ignore[arg-type]
    if chance(rng, 0.7):
        d, h = unit * 2.6, unit * 1.7
        for sx in (-1, 1):
            for sy in (-1, 1):
                hx, hy = x + sx * (wide - d), y + sy * (tall - d)
                box(inside, hx - d, hy - d, hx + d, hy + d, 255)  # type: ignore[arg-type]
                holes.append((hx - h, hy - h, hx + h, hy + h))
    scene = _board(rng, size, unit, studio, inside, holes)
    floor = ground(rng, size, photos, studio)
    shade = cast_shadow(rng, outline, studio)
    edge = cv2.GaussianBlur(outline, (0, 0), 0.7)
    floor = relight(floor, shade)
    image, bare = (blend(floor, p, edge) for p in (scene.image, scene.background))
    inner = outline > 127
    return replace(scene, image=image, background=bare, foreground=inner)


def blister(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw tablets or capsules behind clear domes in a sheet of foil."""
    studio = Studio(rng)
    foil = Skin(rng, photos, size, "metal" if chance(rng, 0.6) else "plastic")
    albedo, detail = foil.lay(rng, size)
    nx, ny = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    step_x, step_y = size / (nx - rng.uniform(0, 0.5)), size / (ny - rng.uniform(0, 0.5))
    r = min(step_x, step_y) * rng.uniform(0.3, 0.38)
    long = rng.uniform(0, 0.8) * (max(step_x, step_y) * 0.4 - r) if chance(rng, 0.5) else 0.0
    long = max(long, 0.0)
    lying = step_x >= step_y
    first, second = ((sober(rng, 150) if chance(rng, 0.7) else sober(rng, 70)) for _ in range(2))
    halves, groove = long > r * 0.3 and chance(rng, 0.6), chance(rng, 0.5)
    x0, y0 = rng.uniform(0.35, 0.65) * step_x, rng.uniform(0.35, 0.65) * step_y
    foil_lines = np.zeros((size, size), np.float32)
    if chance(rng, 0.6):  # the foil is pressed in small squares
        axis = np.arange(size, dtype=np.float32) * np.float32(6.2832 / (size * loguni(rng, 0.012, 0.03)))
        foil_lines = (np.sin(axis)[None] * np.sin(axis)[:, None]) * np.float32(0.25)
    domes, pills, ink = (np.zeros((size, size), np.uint8) for _ in range(3))
    parts, wide = [], r * rng.uniform(0.72, 0.9)

    def bar(canvas: np.ndarray, x: float, y: float, radius: float, value: int = 255) -> None:
        dx, dy = (long, 0.0) if lying else (0.0, long)
        line(canvas, x - dx, y - dy, x + dx, y + dy, value, 2 * radius)  # type: ignore[arg-type]
        disc(canvas, x - dx, y - dy, radius, value)  # type: ignore[arg-type]
        disc(canvas, x + dx, y + dy, radius, value)  # type: ignore[arg-type]

    for j in range(ny + 1):
        for i in range(nx + 1):
            x, y = x0 + (i - 0.0) * step_x - step_x * 0.0, y0 + j * step_y
            bar(domes, x, y, r)
            px, py = x + rng.normal(0, 0.02) * r, y + rng.normal(0, 0.02) * r
            bar(pills, px, py, wide)
            if halves:
                dx, dy = (long + wide, wide) if lying else (wide, long + wide)
                box(ink, px, py - (dy if lying else 0), px + dx, py + dy, 255)  # type: ignore[arg-type]
                if not lying:
                    box(ink, px - dx, py, px + dx, py + dy, 255)  # type: ignore[arg-type]
            elif groove:
                g = wide * 0.75
                line(ink, px - g, py, px + g, py, 255, max(1.0, wide * 0.09))  # type: ignore[arg-type]
            mask = np.zeros((size, size), np.uint8)
            bar(mask, px, py, wide)
            if mask.any() and len(parts) < 20:
                parts.append(mask > 127)
    rise = cv2.GaussianBlur(domes, (0, 0), max(1.0, r * 0.12)).astype(np.float32) * np.float32(0.5 * r / 255)
    base = detail * np.float32(foil.bump * 0.5) + foil_lines * (1 - domes.astype(np.float32) / 255)
    floor = shaded(albedo, base + rise * 0.5, foil.metal, foil.gloss, studio, 0.0, 0.3)
    depth = cv2.distanceTransform((pills > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(wide)
    body = np.sqrt(np.clip(depth * (2 - depth), 0, 1)) * np.float32(wide * rng.uniform(0.25, 0.8))
    color = flat(size, first)
    a = ink.astype(np.float32) / 255
    if halves:
        color = cv2.blendLinear(color, flat(size, second), 1 - a, a)
    elif groove:
        body = body - cv2.GaussianBlur(a, (0, 0), 0.8) * np.float32(wide * 0.12)
    color = relight(color, 1 + 0.012 * white(rng, size))
    tablets = shaded(color, cv2.GaussianBlur(body, (0, 0), 0.8), 0.0, rng.uniform(0, 0.7), studio, 0.0, 0.3)
    p = cv2.GaussianBlur(pills, (0, 0), 0.7).astype(np.float32) / 255
    shade = 1 - rng.uniform(0.1, 0.5) * cv2.GaussianBlur(pills, (0, 0), r * 0.12).astype(np.float32) / 255
    clear = rng.uniform(0.05, 0.35)
    top = shaded(np.zeros_like(color), rise * 1.6, 0.0, rng.uniform(0.4, 1.2), studio, 0.0, 0.0)
    veil = flat(size, (230, 232, 235))
    pictures = []
    fine, soft = loguni(rng, 0.4, 3), loguni(rng, 0.35, 0.9)
    d = domes.astype(np.float32) * np.float32(clear * 0.4 / 255)
    for inside in (cv2.blendLinear(relight(floor, shade), tablets, 1 - p, p), floor):
        image = cv2.add(cv2.blendLinear(inside, veil, 1 - d, d), top)
        pictures.append(grain(rng, cv2.GaussianBlur(image, (0, 0), soft), fine))
    name = pick(rng, "blister pack", "tablets", "capsules", "pills in a blister", "candy tray")
    return Scene(pictures[0], full(size), name, pick(rng, "foil", "plastic"), tuple(parts), pictures[1])


def zip_fastener(rng: Rng, size: int, photos: Photos) -> Scene:
    """Draw interlocked teeth between two woven tapes, with their seams."""
    studio = Studio(rng)
    tape = Skin(rng, photos, size, "plastic")
    metal = Skin(rng, photos, size, "metal" if chance(rng, 0.6) else "plastic")
    albedo, _ = tape.lay(rng, size)
    step = size * loguni(rng, 0.008, 0.02)
    x, y = np.arange(size, dtype=np.float32)[None], np.arange(size, dtype=np.float32)[:, None]
    lean = rng.uniform(0.5, 1.5)
    ridge = np.sin((y + lean * np.abs(x - size / 2)) * np.float32(6.2832 / step))
    ridge = ridge * np.float32(0.6) + np.sin(x * np.float32(6.2832 / (step * 1.3))) * np.float32(0.35)
    albedo = relight(albedo, 1 + 0.1 * ridge + 0.05 * white(rng, size))
    height = ridge * np.float32(step * 0.12)
    pitch, reach, deep = size * rng.uniform(0.035, 0.09), size * rng.uniform(0.05, 0.12), rng.uniform(0.02, 0.05)
    teeth = np.zeros((size, size), np.uint8)
    masks, first = [], rng.uniform(0, pitch)
    for k in range(-1, int(size / pitch * 2) + 2):
        side, ty = (1 if k % 2 else -1), first + k * pitch / 2
        mask = np.zeros((size, size), np.uint8)
        inner, outer = size / 2 - side * reach * 0.22, size / 2 + side * reach
        box(mask, min(inner, outer), ty - pitch * 0.2, max(inner, outer), ty + pitch * 0.2, 255)  # type: ignore[arg-type]
        disc(mask, inner, ty, pitch * 0.27, 255)  # type: ignore[arg-type]
        teeth = cv2.max(teeth, mask)
        if 0 < ty < size and len(masks) < 16:
            masks.append(mask > 127)
    bare = height.copy(), albedo
    soft = cv2.GaussianBlur(teeth, (0, 0), max(0.9, pitch * 0.06)).astype(np.float32) / 255
    height = height * (1 - soft) + soft * np.float32(deep * size)
    a = cv2.GaussianBlur(teeth, (0, 0), 0.7).astype(np.float32) / 255
    around = cv2.GaussianBlur(teeth, (0, 0), pitch * 0.2).astype(np.float32) / 255
    albedo = relight(albedo, 1 - 0.5 * around)
    albedo = cv2.blendLinear(albedo, metal.lay(rng, size)[0], 1 - a, a)
    for offset in (reach * rng.uniform(1.25, 1.6), size * rng.uniform(0.25, 0.4)):  # seams
        thread = np.zeros((size, size), np.uint8)
        for sign in (-1, 1):
            for ty in np.arange(0, size, step * 3):
                line(thread, size / 2 + sign * offset, ty, size / 2 + sign * offset, ty + step * 2.1, 255, step * 0.7)  # type: ignore[arg-type]
        t = cv2.GaussianBlur(thread, (0, 0), 0.8).astype(np.float32) / 255
        height = height + t * np.float32(step * 0.5)
        bare = bare[0] + t * np.float32(step * 0.5), bare[1]
    fine, blur = loguni(rng, 0.4, 3), loguni(rng, 0.35, 0.9)
    pictures = []
    for h, c, m, g in ((height, albedo, a * metal.metal, 0.05 + a * metal.gloss), (*bare, 0.0, 0.05)):
        image = shaded(c, h, m, g, studio, 0.0, 0.4)
        pictures.append(grain(rng, cv2.GaussianBlur(image, (0, 0), blur), fine))
    image, back = pictures
    if chance(rng, 0.4):
        image, back = (np.ascontiguousarray(p.transpose(1, 0, 2)) for p in pictures)
        masks = [np.ascontiguousarray(m.T) for m in masks]
    return Scene(image, full(size), pick(rng, "zipper", "zip"), pick(rng, "metal", "fabric"), tuple(masks), back)


SHEETS: dict[str, tuple[Family, float]] = {
    "board": (board, 3.0),
    "board_close": (board_close, 1.6),
    "board_whole": (board_whole, 2.0),
    "blister": (blister, 0.8),
    "zip_fastener": (zip_fastener, 0.7),
}
