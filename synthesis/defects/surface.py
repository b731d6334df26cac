"""Defects of a surface: scratches, cracks, holes, dents, contamination, threads, folds."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, colour, local_colour, photo_patch, shade, substance
from synthesis.defects.shapes import (
    Rng,
    blob,
    chance,
    curve,
    draw_line,
    fractal,
    grid,
    jagged,
    line_field,
    log_uniform,
    scatter,
    sign,
    soften,
    tree,
)


def _as_alpha(drawn: np.ndarray) -> np.ndarray:
    return drawn.astype(np.float32) / 255


def _line_colour(rng: Rng, canvas: Canvas, alpha: np.ndarray) -> np.ndarray:
    """Draw a colour for a line: mostly the local one, darker or brighter."""
    if chance(rng, 0.25):
        return colour(rng, canvas, alpha)
    local = local_colour(canvas, alpha)
    step = log_uniform(rng, 24, 160)
    up = chance(rng, np.clip(1 - float(local.mean()) / 255, 0.15, 0.85))
    return np.clip(local + (step if up else -step), 0, 255)


def scratch(rng: Rng, canvas: Canvas) -> Change:
    """Draw one curve or several parallel ones, even or tapering, sometimes with a bright edge along the dark groove."""
    size = canvas.size
    drawn, edge = np.zeros((2, size, size), np.uint8)
    length, width = log_uniform(rng, 0.05, 1.0) * size, log_uniform(rng, 0.6, 0.014 * size)
    points = curve(rng, canvas.somewhere(rng), length, 0.0 if chance(rng, 0.4) else log_uniform(rng, 0.03, 0.6))
    count = 1 if chance(rng, 0.7) else int(rng.integers(2, 7))
    apart = rng.normal(0, 1, 2) * width * 4
    taper = chance(rng, 0.5)
    for index in range(count):
        jitter = rng.normal(0, width, 2) if count > 1 else 0
        part = points[int(rng.integers(0, 6)) : len(points) - int(rng.integers(0, 6))]
        draw_line(drawn, part + apart * index + jitter, width * rng.uniform(0.7, 1.2), taper=taper)
        draw_line(edge, part + apart * index + jitter + width * 0.7 + 0.5, width, taper=taper)
    alpha = _as_alpha(drawn)
    if chance(rng, 0.3):  # gaps, where the tip lost contact
        alpha *= np.clip(fractal(rng, size, size, log_uniform(rng, 8, 40), 2) * 3 - 0.6, 0, 1)
    alpha = canvas.inside(soften(alpha, 0 if chance(rng, 0.5) else log_uniform(rng, 0.4, 1.5)))
    image = canvas.image
    tone = _line_colour(rng, canvas, alpha)
    if chance(rng, 0.35):
        light = canvas.inside(_as_alpha(edge)) * log_uniform(rng, 15, 90)
        image = shade(image, light if tone.mean() < local_colour(canvas, alpha).mean() else -light)
    return Change(blend(image, tone, alpha * log_uniform(rng, 0.45, 1)), cv2.dilate(alpha, np.ones((5, 5))))


def crack(rng: Rng, canvas: Canvas) -> Change:
    size = canvas.size
    drawn = np.zeros((size, size), np.uint8)
    length, width = log_uniform(rng, 0.06, 0.8) * size, log_uniform(rng, 0.6, 0.016 * size)
    start, heading = np.array(canvas.somewhere(rng)), rng.uniform(0, 2 * np.pi)
    tree(rng, drawn, start, heading, length * 0.6, width, 2)
    if chance(rng, 0.7):
        tree(rng, drawn, start, heading + np.pi + rng.normal(0, 0.3), length * 0.4, width, 1)
    for _ in range(int(rng.integers(1, 5)) if chance(rng, 0.2) else 0):  # star-shaped, from an impact
        tree(rng, drawn, start, rng.uniform(0, 2 * np.pi), length * 0.4, width, 1)
    alpha = canvas.inside(soften(_as_alpha(drawn), 0 if chance(rng, 0.6) else log_uniform(rng, 0.3, 1.0)))
    local = local_colour(canvas, alpha)
    tone = local * rng.uniform(0.0, 0.7) if chance(rng, 0.8) else np.minimum(local + log_uniform(rng, 30, 150), 255)
    image = canvas.image
    if chance(rng, 0.25):  # light catches on one side of the gap
        image = shade(image, np.roll(alpha, (1, 1), (0, 1)) * log_uniform(rng, 10, 60))
    return Change(blend(image, tone, alpha * log_uniform(rng, 0.5, 1)), cv2.dilate(alpha, np.ones((3, 3))))


def hole(rng: Rng, canvas: Canvas) -> Change:
    """Draw a hole: dark or showing the background, with a rim lit from one side."""
    radius = canvas.radius(rng, 0.0005, 0.06)
    core = canvas.inside(soften(blob(rng, canvas.size, canvas.somewhere(rng), radius), log_uniform(rng, 0.3, 1.5)))
    image = canvas.image
    if chance(rng, 0.7):
        wide = soften(core, max(0.8, radius * rng.uniform(0.08, 0.3)))
        rim = np.clip(wide - core * 0.5, 0, 1)
        lit = cv2.Sobel(wide, cv2.CV_32F, 1, 0) * sign(rng) + cv2.Sobel(wide, cv2.CV_32F, 0, 1) * sign(rng)
        image = shade(image, canvas.inside(rim * sign(rng) * log_uniform(rng, 8, 80) + lit * log_uniform(rng, 5, 40)))
    inner = local_colour(canvas, core) * rng.uniform(0, 0.45)
    if chance(rng, 0.15):
        inner = colour(rng, canvas, core)
    if canvas.coverage < 0.9 and chance(rng, 0.4):
        inner = canvas.backdrop
    return Change(blend(image, inner, core * rng.uniform(0.75, 1)), cv2.dilate(core, np.ones((9, 9))), True)


def dent(rng: Rng, canvas: Canvas) -> Change:
    """Draw a bump or hollow, lit from one side."""
    radius = canvas.radius(rng, 0.002, 0.2)
    height = soften(blob(rng, canvas.size, canvas.somewhere(rng), radius), radius * rng.uniform(0.2, 0.6))
    return Change(_relief(rng, canvas, height, radius, log_uniform(rng, 20, 130)), height > 0.02, True)


def _relief(rng: Rng, canvas: Canvas, height: np.ndarray, radius: float, strength: float) -> np.ndarray:
    turn = rng.uniform(0, 2 * np.pi)
    across, down = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    light = (across * float(np.cos(turn)) + down * float(np.sin(turn))) * (radius / 8)
    lit = canvas.inside(light * strength)
    image = canvas.image
    if chance(rng, 0.5):  # the surface's pattern bends along
        x, y = grid(canvas.size)
        push = np.float32(radius * rng.uniform(-0.6, 0.6))
        image = cv2.remap(image, x + across * push, y + down * push, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        if canvas.coverage < 0.99:
            image = np.where(canvas.foreground[..., None] > 0, image, canvas.image)
    image = shade(image, lit)
    if chance(rng, 0.2):
        image = shade(image, canvas.inside(np.clip(height - 0.9, 0, 1) * log_uniform(rng, 200, 1500)))
    return image


def contamination(rng: Rng, canvas: Canvas) -> Change:
    """Draw small foreign matter: one lump, a few crumbs, or a cluster of dust."""
    size, centre = canvas.size, canvas.somewhere(rng)
    make = rng.random()
    if make < 0.45:
        alpha = blob(rng, size, centre, canvas.radius(rng, 0.0005, 0.03))
    else:
        count = int(log_uniform(rng, 3, 60))
        alpha = scatter(rng, size, centre, log_uniform(rng, 0.02, 0.22) * size, count, log_uniform(rng, 0.7, 5))
    alpha = soften(alpha, 0 if chance(rng, 0.5) else log_uniform(rng, 0.3, 2))
    if chance(rng, 0.8):
        alpha = canvas.inside(alpha)
    image = canvas.image
    if chance(rng, 0.3):
        shadow = np.roll(soften(alpha, 1.5), (int(rng.integers(-3, 4)), int(rng.integers(-3, 4))), (0, 1))
        image = shade(image, -shadow * log_uniform(rng, 10, 60), factor=True)
    image = blend(image, substance(rng, canvas, alpha), alpha * rng.uniform(0.5, 1))
    return Change(image, cv2.dilate(alpha, np.ones((7, 7))) > 0.05)


def drops(rng: Rng, canvas: Canvas) -> Change:
    """Draw clear drops: each magnifies what lies under it, dark on one side, with a glint."""
    size, radius = canvas.size, log_uniform(rng, 0.008, 0.05) * canvas.size
    count = int(rng.integers(1, 9))
    alpha = scatter(rng, size, canvas.somewhere(rng), radius * (1 + 2 * count**0.5), count, radius)
    alpha = canvas.inside(alpha)
    lens = soften(alpha, radius * 0.35)
    image = _relief(rng, canvas, lens, radius, log_uniform(rng, 30, 110))
    glint = np.clip(np.roll(lens, (int(radius / 4),) * 2, (0, 1)) - 0.93, 0, 1) * alpha
    return Change(shade(image, glint * log_uniform(rng, 300, 2500)), lens > 0.05, True)


def fibre(rng: Rng, canvas: Canvas) -> Change:
    """Draw hair, lint or a loose thread lying on the picture, with a faint shadow."""
    size = canvas.size
    drawn = np.zeros((size, size), np.uint8)
    width = log_uniform(rng, 0.6, 0.014 * size)
    centre = canvas.somewhere(rng)
    for _ in range(1 if chance(rng, 0.7) else int(rng.integers(2, 5))):
        length = log_uniform(rng, 0.06, 0.8) * size
        draw_line(drawn, curve(rng, centre, length, log_uniform(rng, 0.2, 1.5), 40), width)
    alpha = soften(_as_alpha(drawn), 0 if chance(rng, 0.5) else log_uniform(rng, 0.3, 1))
    alpha = canvas.inside(alpha) if chance(rng, 0.7) else alpha
    image = canvas.image
    if chance(rng, 0.4):
        shadow = np.roll(soften(alpha, 1.0), (2, int(rng.integers(-2, 3))), (0, 1))
        image = shade(image, -shadow * log_uniform(rng, 10, 60), factor=True)
    return Change(blend(image, _line_colour(rng, canvas, alpha), alpha * rng.uniform(0.5, 1)), shade_reach(alpha))


def shade_reach(alpha: np.ndarray) -> np.ndarray:
    return cv2.dilate(alpha, np.ones((7, 7), np.uint8)) > 0.05


def pulled_thread(rng: Rng, canvas: Canvas) -> Change:
    """Draw a thread pulled tight: a narrow band along an axis, shifted along itself and recoloured."""
    size = canvas.size
    x, y = canvas.somewhere(rng)
    half, width = int(log_uniform(rng, 0.04, 0.5) * size), max(1, round(log_uniform(rng, 1, 0.025 * size)))
    alpha = np.zeros((size, size), np.float32)
    flat = chance(rng, 0.5)
    middle, away = (int(x), int(y)) if flat else (int(y), int(x))
    band = (slice(max(away, 0), away + width), slice(max(middle - half, 0), middle + half))
    alpha[band if flat else band[::-1]] = 1
    alpha = canvas.inside(soften(alpha, log_uniform(rng, 0.2, 0.8)))
    moved = np.roll(canvas.image, int(rng.integers(2, 12)), 1 if flat else 0)
    image = blend(canvas.image, moved, alpha)
    return Change(shade(image, alpha * sign(rng) * log_uniform(rng, 12, 100)), shade_reach(alpha))


def knot(rng: Rng, canvas: Canvas) -> Change:
    """Draw a small round lump with a dark ring, the grain flowing round it."""
    radius = canvas.radius(rng, 0.001, 0.03)
    x, y = grid(canvas.size)
    centre = canvas.somewhere(rng)
    turn, aspect = rng.uniform(0, np.pi), log_uniform(rng, 1, 1.6)
    along = (x - centre[0]) * np.float32(np.cos(turn)) + (y - centre[1]) * np.float32(np.sin(turn))
    across = (y - centre[1]) * np.float32(np.cos(turn)) - (x - centre[0]) * np.float32(np.sin(turn))
    distance = np.sqrt((along / aspect) ** 2 + (across * aspect) ** 2) / np.float32(radius)
    rings = np.clip(1.4 - distance, 0, 1) * (0.6 + 0.4 * np.cos(distance * np.float32(rng.uniform(3, 12))))
    lift = canvas.inside(np.exp(-np.square(np.minimum(distance, 4))))
    image = _relief(rng, canvas, lift, radius, log_uniform(rng, 15, 80))
    tone = local_colour(canvas, lift) * rng.uniform(0.3, 0.9)
    return Change(
        blend(image, tone.astype(np.float32), canvas.inside(rings) * rng.uniform(0.4, 0.9)), lift > 0.05, True
    )


def fold(rng: Rng, canvas: Canvas) -> Change:
    """Draw a crease: bright on one side of a line and dark on the other, fading out towards its ends."""
    size = canvas.size
    across, along = line_field(rng, size, canvas.somewhere(rng), 0.0 if chance(rng, 0.4) else log_uniform(rng, 0.2, 3))
    width = log_uniform(rng, 0.8, 0.04 * size)
    # Clipped, since numbers too small for float32's normal range are very slow.
    ends = np.square(np.clip(1 - np.square(along / np.float32(log_uniform(rng, 0.08, 0.9) * size)), 0, 1))
    steps = np.clip(across / np.float32(width), -4, 4)
    profile = (steps if chance(rng, 0.6) else np.float32(0.6)) * np.exp(-steps * steps / 2) * ends
    amount = canvas.inside(profile) * sign(rng) * log_uniform(rng, 28, 170)
    return Change(shade(canvas.image, amount), np.abs(amount) > 3, True)


def foreign_object(rng: Rng, canvas: Canvas) -> Change:
    """Draw a foreign object with its own outline, texture and shadow."""
    radius = canvas.radius(rng, 0.001, 0.08)
    alpha = soften(blob(rng, canvas.size, canvas.somewhere(rng), radius), log_uniform(rng, 0.2, 1.0))
    image = canvas.image
    if chance(rng, 0.6):
        step = max(1, int(radius * 0.25))
        shadow = np.roll(soften(alpha, step), (int(sign(rng)) * step, int(sign(rng)) * step), (0, 1))
        image = shade(image, -shadow * log_uniform(rng, 10, 60), factor=True)
    look = photo_patch(rng, canvas) if chance(rng, 0.4) else substance(rng, canvas, alpha)
    image = blend(image, look, alpha)
    if chance(rng, 0.5):  # roundness
        inner = soften(alpha, radius * 0.4)
        slope = cv2.Sobel(inner, cv2.CV_32F, 1, 0) + cv2.Sobel(inner, cv2.CV_32F, 0, 1)
        image = shade(image, slope * alpha * sign(rng) * radius * log_uniform(rng, 1, 8))
    return Change(image, shade_reach(soften(alpha, radius * 0.3)), True)


def scribble(rng: Rng, canvas: Canvas) -> Change:
    """Draw pen strokes: zigzags, loops or a crossing-out."""
    size = canvas.size
    drawn = np.zeros((size, size), np.uint8)
    reach, width = log_uniform(rng, 0.04, 0.35) * size, log_uniform(rng, 1, 0.02 * size)
    for _ in range(int(rng.integers(1, 4))):
        centre = np.array(canvas.somewhere(rng))
        angle = np.linspace(0, rng.uniform(3, 25), 60)
        loops = np.stack([np.cos(angle), np.sin(angle * rng.choice([1, 1, 2, 0.5]))], 1) * reach * 0.4
        drift = np.linspace(-1, 1, 60)[:, None] * rng.normal(0, reach * 0.5, 2)
        points = loops + drift if chance(rng, 0.6) else curve(rng, (0, 0), reach * 3, 0.8, 40)
        draw_line(drawn, jagged(rng, points, 0.3) + centre, width)
    alpha = soften(_as_alpha(drawn), log_uniform(rng, 0.2, 0.8))
    alpha = canvas.inside(alpha) if chance(rng, 0.8) else alpha
    ink = rng.uniform(0, 255, 3) * rng.uniform(0.2, 1) if chance(rng, 0.7) else np.full(3, rng.choice([10, 245]))
    return Change(blend(canvas.image, ink.astype(np.float32), alpha * rng.uniform(0.6, 1)), shade_reach(alpha))


def inactive(rng: Rng, canvas: Canvas) -> Change | None:
    """Darken or brighten an area that one to three straight or cracked lines cut off."""
    size = canvas.size
    within = canvas.foreground.astype(np.float32)
    parts = canvas.scene.instances
    if parts and chance(rng, 0.6):
        within = parts[int(rng.integers(len(parts)))].astype(np.float32) * within
    rows, columns = box(within)
    middle = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
    height, width = rows.stop - rows.start, columns.stop - columns.start
    area, edges = within, np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = (middle[1] + rng.uniform(-0.45, 0.45) * width, middle[0] + rng.uniform(-0.45, 0.45) * height)
        across, _along = line_field(rng, size, centre, 0.0 if chance(rng, 0.4) else log_uniform(rng, 0.3, 4))
        area = area * np.clip(across + 0.5, 0, 1)
        edges = np.maximum(edges, np.clip(log_uniform(rng, 0.7, 1.8) - np.abs(across), 0, 1))
    if not 0.0006 < float(area.mean()) < min(0.35, 0.75 * canvas.coverage):
        return None
    if chance(rng, 0.4):
        area = area * np.clip(fractal(rng, size, size, 3, 2) * 2, 0.2, 1)
    dark = chance(rng, 0.75)
    image = shade(canvas.image, area * (-log_uniform(rng, 12, 85) if dark else log_uniform(rng, 12, 80)), factor=True)
    border = edges * (soften(area, 2) > 0.03)
    if chance(rng, 0.5):
        image = shade(image, -border * log_uniform(rng, 20, 90), factor=True)
    return Change(image, (area + border) > 0.02, True)
