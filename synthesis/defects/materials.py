"""Flaws of materials: along the material's direction, often faint, lit from one side."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, local_colour, mean_colour, photo_patch, shade, tint
from synthesis.defects.shapes import (
    Rng,
    blob,
    chance,
    curve,
    draw_line,
    fractal,
    grid,
    log_uniform,
    scatter,
    sign,
    soften,
    tree,
)


def _direction(rng: Rng, canvas: Canvas) -> float:
    """Return the direction of threads, grain or rolling (structure tensor); upright or across where there is none."""
    small = cv2.resize(canvas.gray, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float(np.vdot(*pair)) for pair in ((across, across), (down, down), (across, down)))
    if np.hypot(xx - yy, 2 * xy) < 0.12 * (xx + yy + 1e-3):
        return float(rng.choice([0.0, np.pi / 2]))
    return float(0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2)


def _frame(canvas: Canvas, centre: tuple[float, float], turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of pixels along and across a direction, from `centre`."""
    x, y = grid(canvas.size)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    return dx * c + dy * s, dy * c - dx * s


def _step(rng: Rng, canvas: Canvas, low: float = 14, high: float = 110) -> float:
    """Draw a change of brightness within the range that is left; `low` is visible on an even surface."""
    level = float(cv2.mean(canvas.gray)[0])
    return log_uniform(rng, low, high) * (1 if chance(rng, float(np.clip(1 - level / 230, 0.12, 0.85))) else -1)


def _lit(height: np.ndarray, turn: float, strength: float) -> np.ndarray:
    across, down = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return (across * np.float32(np.cos(turn)) + down * np.float32(np.sin(turn))) * np.float32(strength)


def _near(alpha: np.ndarray, reach: int = 5) -> np.ndarray:
    return cv2.dilate(alpha, np.ones((reach, reach), np.uint8)) > 0.04


def yarn_flaw(rng: Rng, canvas: Canvas) -> Change:
    """Draw missing, thick or pulled yarns and needle lines: narrow bands along or across the cloth's direction."""
    centre, size = canvas.somewhere(rng), canvas.size
    turn = _direction(rng, canvas) + (np.pi / 2 if chance(rng, 0.3) else 0)
    along, across = _frame(canvas, centre, turn)
    half = log_uniform(rng, 0.03, 1.2) * size
    width = log_uniform(rng, 0.7, 0.014 * size)
    swell = np.clip(1 - np.square(along / np.float32(half)), 0, 1)
    local = np.float32(width) * (
        np.sqrt(swell) if chance(rng, 0.4) else (swell > 0)
    )  # a slub tapers, a float has an end
    alpha = np.clip(local + 0.5 - np.abs(across), 0, 1)
    if chance(rng, 0.2):
        pitch = np.float32(width * rng.uniform(3, 8))
        alpha = np.maximum(alpha, np.clip(local + 0.5 - np.abs(across - pitch), 0, 1))
    alpha = canvas.inside(soften(alpha, log_uniform(rng, 0.3, 1)))
    shift = rng.uniform(2, 9) * np.array([np.cos(turn), np.sin(turn)])
    moved = cv2.warpAffine(
        canvas.image, np.float64([[1, 0, shift[0]], [0, 1, shift[1]]]), (size, size), borderMode=cv2.BORDER_REFLECT
    )
    image = blend(canvas.image, moved, alpha) if chance(rng, 0.6) else canvas.image
    return Change(shade(image, alpha * _step(rng, canvas, 18, 110)), _near(alpha))


def frayed_hole(rng: Rng, canvas: Canvas) -> Change:
    """Draw a hole or tear: dark or bright behind, its rim ragged, loose ends of yarn across it."""
    radius, centre = canvas.radius(rng, 0.0008, 0.04), canvas.somewhere(rng)
    core = blob(rng, canvas.size, centre, radius)
    ragged = fractal(rng, canvas.size, canvas.size, canvas.size / max(2.0, radius * 0.5), 2)
    core = canvas.inside(np.clip((soften(core, radius * 0.2) + 0.6 * (ragged - 0.5) - 0.4) * 5, 0, 1))
    ends = np.zeros((canvas.size,) * 2, np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        place = np.array(centre) + rng.normal(0, radius * 0.7, 2)
        draw_line(ends, curve(rng, (place[0], place[1]), radius * rng.uniform(0.5, 2), 0.5), rng.uniform(0.6, 1.6))
    local = local_colour(canvas, core)
    behind = local * rng.uniform(0.05, 0.5) if chance(rng, 0.75) else np.minimum(local * rng.uniform(1.4, 2.2), 250)
    image = blend(canvas.image, behind.astype(np.float32), core * rng.uniform(0.7, 1))
    threads = canvas.inside(ends.astype(np.float32) / 255)
    image = blend(image, np.minimum(local * rng.uniform(0.8, 1.4), 255), threads * rng.uniform(0.4, 0.9))
    return Change(image, _near(np.maximum(core, threads)), True)


def oil_spot(rng: Rng, canvas: Canvas) -> Change:
    """Draw oil or water soaked in: darker, soft, a tide line, sometimes with rings of a dried drop."""
    alpha = canvas.area(rng, 0.0008, 0.12, log_uniform(rng, 0.05, 0.5))
    colour = 1 - log_uniform(rng, 0.1, 0.6) * rng.uniform(0.7, 1.0, 3)
    inner = alpha * rng.uniform(0.05, 1)
    ring = np.clip(1 - np.abs(alpha - 0.5) * rng.uniform(2.5, 6), 0, 1)
    image = tint(canvas.image, colour.astype(np.float32), np.maximum(inner, canvas.inside(ring) * rng.uniform(0, 1)))
    return Change(image, alpha > 0.03, True)


def inclusions(rng: Rng, canvas: Canvas) -> Change:
    """Draw slivers, resin streaks, bundled scratches and broken fingers: long specks along the material's direction."""
    size, turn, centre = canvas.size, _direction(rng, canvas), np.array(canvas.somewhere(rng))
    drawn = np.zeros((size, size), np.uint8)
    way, side = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    reach, spread = log_uniform(rng, 0.03, 0.5) * size, log_uniform(rng, 0.004, 0.06) * size
    width = log_uniform(rng, 0.7, 0.012 * size)
    for _ in range(int(log_uniform(rng, 1, 14))):
        middle = centre + way * rng.normal(0, reach * 0.4) + side * rng.normal(0, spread)
        half = way * reach * rng.uniform(0.1, 0.6) + side * rng.normal(0, 0.4)
        points = middle + np.linspace(-1, 1, 12)[:, None] * half + rng.normal(0, 0.25, (12, 2))
        draw_line(drawn, points, width * rng.uniform(0.6, 1.4), taper=chance(rng, 0.7))
    alpha = canvas.inside(soften(drawn.astype(np.float32) / 255, log_uniform(rng, 0.3, 1.2)))
    return Change(shade(canvas.image, alpha * _step(rng, canvas, 22, 150)), _near(alpha))


def scale(rng: Rng, canvas: Canvas) -> Change:
    """Draw rolled-in scale, patches or a worn coat: ragged islands stretched along the direction, of low contrast."""
    size = canvas.size
    along, across = _frame(canvas, canvas.somewhere(rng), _direction(rng, canvas))
    radius, aspect = canvas.radius(rng, 0.002, 0.2), np.float32(log_uniform(rng, 1, 3))
    envelope = np.clip(1.2 - np.hypot(along / aspect, across * aspect) / np.float32(radius), 0, 1)
    field = fractal(rng, size, size, log_uniform(rng, 8, 50), 3)
    alpha = canvas.inside(np.clip((field * envelope - rng.uniform(0.15, 0.35)) * log_uniform(rng, 4, 25), 0, 1))
    rough = 0.6 + 0.8 * fractal(rng, size, size, log_uniform(rng, 20, 90), 2)
    image = shade(canvas.image, alpha * rough * _step(rng, canvas, 16, 90))
    return Change(image, alpha > 0.05, True)


def pitting(rng: Rng, canvas: Canvas) -> Change:
    """Draw pits, pinholes, craters, wormholes or spatter: small round relief, single or many, lit from one side."""
    size, speck, light = canvas.size, log_uniform(rng, 0.8, 0.02 * canvas.size), rng.uniform(0, 2 * np.pi)
    count = int(log_uniform(rng, 1, 50 if speck < 3 else 8))
    pits = scatter(rng, size, canvas.somewhere(rng), log_uniform(rng, 0.02, 0.25) * size, count, speck)
    pits = canvas.inside(soften(pits, max(0.4, speck * 0.3)))
    amount = _lit(pits, light, log_uniform(rng, 8, 60)) + pits * _step(rng, canvas, 10, 110) * rng.uniform(0.3, 1)
    return Change(shade(canvas.image, canvas.inside(amount)), _near(pits))


def gouge(rng: Rng, canvas: Canvas) -> Change:
    """Draw a groove with raised edges: one flank dark, the other bright, with a glint at the bottom."""
    size, width = canvas.size, log_uniform(rng, 1, 0.02 * canvas.size)
    drawn = np.zeros((size, size), np.uint8)
    bend = 0.0 if chance(rng, 0.4) else log_uniform(rng, 0.03, 0.4)
    points = curve(rng, canvas.somewhere(rng), log_uniform(rng, 0.04, 0.6) * size, bend)
    draw_line(drawn, points, width, taper=True)
    core = drawn.astype(np.float32) / 255
    height = 0.7 * soften(core, width * 0.9 + 0.5) - soften(core, 0.5)
    amount = _lit(height, rng.uniform(0, 2 * np.pi), log_uniform(rng, 12, 70) * max(1.0, width / 3))
    amount = canvas.inside(amount + core * _step(rng, canvas, 8, 60))
    return Change(shade(canvas.image, amount), _near(soften(core, width * 0.5), 7))


def hairline(rng: Rng, canvas: Canvas) -> Change:
    """Draw a crack of varying width and contrast, often faint; in wood a split along the grain."""
    size = canvas.size
    drawn = np.zeros((size, size), np.uint8)
    length, width = log_uniform(rng, 0.08, 1.0) * size, log_uniform(rng, 0.6, 0.007 * size)
    heading = _direction(rng, canvas) + rng.normal(0, 0.15) if chance(rng, 0.35) else rng.uniform(0, 2 * np.pi)
    start = np.array(canvas.somewhere(rng))
    for part in (0.0, np.pi):
        tree(rng, drawn, start, heading + part, length * rng.uniform(0.3, 0.6), width, int(rng.integers(0, 3)))
    uneven = 0.35 + 0.65 * fractal(rng, size, size, log_uniform(rng, 6, 30), 2)
    alpha = canvas.inside(soften(drawn.astype(np.float32) / 255, log_uniform(rng, 0.3, 0.8)) * uneven)
    return Change(shade(canvas.image, alpha * _step(rng, canvas, 30, 170)), _near(alpha, 3))


def peeling(rng: Rng, canvas: Canvas) -> Change:
    """Draw a flaked or blistered coat, whose edge is bright towards the light and dark away from it."""
    radius, light = canvas.radius(rng, 0.0008, 0.12), rng.uniform(0, 2 * np.pi)
    core = canvas.inside(soften(blob(rng, canvas.size, canvas.somewhere(rng), radius), log_uniform(rng, 0.4, 1.2)))
    image = canvas.image
    blister = chance(rng, 0.35)
    if not blister:
        ground = np.clip(local_colour(canvas, core) + _step(rng, canvas, 14, 110) + rng.normal(0, 6, 3), 0, 255)
        image = blend(image, ground.astype(np.float32), core * rng.uniform(0.6, 0.95))
    sigma = radius * 0.3 if blister else log_uniform(rng, 0.6, 2)
    edge = _lit(soften(core, sigma), light, log_uniform(rng, 12, 60) * max(1.0, sigma))
    return Change(shade(image, canvas.inside(edge)), _near(core), True)


def dead_area(rng: Rng, canvas: Canvas) -> Change:
    """Darken a part of a solar cell between straight bounds, fading on one side."""
    x, y = canvas.somewhere(rng)
    turn = _direction(rng, canvas) + (np.pi / 2 if chance(rng, 0.5) else 0)
    along, across = _frame(canvas, (x, y), turn)
    long, wide = log_uniform(rng, 0.03, 0.5) * canvas.size, log_uniform(rng, 0.008, 0.2) * canvas.size
    ends = np.clip((np.float32(long) - np.abs(along)) / np.float32(log_uniform(rng, 0.8, max(1, long * 0.6))), 0, 1)
    alpha = canvas.inside(ends * np.clip(np.float32(wide) - np.abs(across) + 0.5, 0, 1))
    level = log_uniform(rng, 12, 90) * (-1 if chance(rng, 0.85) else 1)
    return Change(shade(canvas.image, alpha * level, factor=True), alpha > 0.03, True)


def real_patch(rng: Rng, canvas: Canvas) -> Change:
    """Blend in another photograph, or this picture at another scale, through a cloudy mask; mostly faint."""
    size = canvas.size
    alpha = canvas.area(rng, 0.001, 0.3, log_uniform(rng, 0.03, 0.5))
    if chance(rng, 0.6):
        cloud = fractal(rng, size, size, log_uniform(rng, 4, 30), 3)
        alpha = alpha * np.clip((cloud - rng.uniform(0.2, 0.45)) * log_uniform(rng, 3, 15), 0, 1)
    if chance(rng, 0.7):
        layer = photo_patch(rng, canvas).astype(np.float32)
    else:
        matrix = cv2.getRotationMatrix2D(canvas.somewhere(rng), rng.uniform(0, 360), log_uniform(rng, 0.4, 2.5))
        layer = cv2.warpAffine(canvas.image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    if chance(rng, 0.7):  # as in Poisson blending: the structure is new, the mean is the local one plus a little
        where = box(alpha)
        mean = mean_colour(np.ascontiguousarray(layer[where]))
        goal = local_colour(canvas, alpha) + sign(rng) * log_uniform(rng, 1, 50)
        layer = np.clip((layer - mean) * np.float32(log_uniform(rng, 0.4, 1.5)) + goal, 0, 255).astype(np.float32)
    return Change(blend(canvas.image, layer, alpha * log_uniform(rng, 0.15, 1)), alpha > 0.03, True)
