"""Defects of an area: stains, burns, rust, foreign or displaced texture, warps, smears."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, local_colour, mean_colour, photo_patch, shade, tint
from synthesis.defects.shapes import Rng, blob, chance, fill_polygon, fractal, grid, log_uniform, sign, soften


def stain(rng: Rng, canvas: Canvas) -> Change:
    """Draw a soaked-in liquid: a tint, often with a darker tide line around it."""
    alpha = canvas.area(rng, 0.0008, 0.25)
    hue = 1 - rng.uniform(0, 1, 3) * log_uniform(rng, 0.2, 0.9)
    image = tint(canvas.image, hue.astype(np.float32), alpha)
    if chance(rng, 0.35):
        ring = np.clip(1 - np.abs(soften(alpha, 1.5) - 0.5) * 4, 0, 1)
        image = shade(image, -canvas.inside(ring) * log_uniform(rng, 8, 45), factor=True)
    return Change(image, alpha > 0.03, True)


def discolouration(rng: Rng, canvas: Canvas) -> Change:
    alpha = canvas.area(rng)
    make = rng.random()
    if make < 0.45:
        image = shade(canvas.image, alpha * sign(rng) * log_uniform(rng, 12, 110))
    elif make < 0.75:
        image = shade_colour(canvas.image, alpha, rng.normal(0, 1, 3) * log_uniform(rng, 15, 80))
    else:  # turn the hue
        where = box(alpha)
        hsv = cv2.cvtColor(np.ascontiguousarray(canvas.image[where]), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(15, 165))) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.8, 1.8) + rng.uniform(0, 60), 0, 255).astype(np.uint8)
        layer = canvas.image.copy()
        layer[where] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        image = blend(canvas.image, layer, alpha)
    return Change(image, alpha > 0.03, True)


def shade_colour(image: np.ndarray, alpha: np.ndarray, shift: np.ndarray) -> np.ndarray:
    where = box(alpha)
    result = image.copy()
    moved = image[where] + alpha[where][..., None] * shift.astype(np.float32)
    result[where] = np.clip(moved, 0, 255).astype(np.uint8)
    return result


def hot_spot(rng: Rng, canvas: Canvas) -> Change:
    """Draw a soft glow (or dark cloud) without any border."""
    alpha = canvas.area(rng, 0.002, 0.25, rng.uniform(0.4, 0.8))
    return Change(shade(canvas.image, alpha * sign(rng) * log_uniform(rng, 28, 160)), alpha > 0.03, True)


def burn(rng: Rng, canvas: Canvas) -> Change:
    """Draw a burn: charred in the middle, brown around it."""
    alpha = canvas.area(rng, 0.0015, 0.15, rng.uniform(0.2, 0.5))
    ragged = canvas.inside(alpha * (0.5 + fractal(rng, canvas.size, canvas.size, log_uniform(rng, 6, 40))))
    image = tint(canvas.image, np.float32([0.75, 0.5, 0.3]), np.clip(ragged * 1.3, 0, 1) * rng.uniform(0.5, 1))
    core = np.clip((ragged - 0.6) * 3, 0, 1)
    return Change(blend(image, np.float32([25, 20, 18]), core * rng.uniform(0.4, 1)), ragged > 0.03, True)


def rust(rng: Rng, canvas: Canvas) -> Change:
    """Draw orange to brown crust in islands."""
    size = canvas.size
    alpha = canvas.area(rng, 0.001, 0.2, rng.uniform(0.05, 0.5))
    where = box(alpha)
    rough = fractal(rng, *alpha[where].shape, log_uniform(rng, 4, 30), 3)
    crust = np.zeros_like(alpha)
    crust[where] = np.clip(alpha[where] * np.clip(rough * 3 - rng.uniform(0.2, 1.2), 0, 1), 0, 1)
    dark, light = np.float32([70, 35, 20]), np.float32([185, 100, 45])
    layer = np.empty((size, size, 3), np.float32)
    layer[where] = dark + (light - dark) * rough[..., None] + rng.normal(0, 12, 3)
    return Change(blend(canvas.image, layer, crust * rng.uniform(0.5, 1)), alpha > 0.02, True)


def mottling(rng: Rng, canvas: Canvas) -> Change:
    """Draw blotches lighter and darker inside an area."""
    alpha = canvas.area(rng, 0.004, 0.28)
    where = box(alpha)
    spots = fractal(rng, *alpha[where].shape, log_uniform(rng, 3, 25), 2) - 0.5
    amount = np.zeros_like(alpha)
    amount[where] = alpha[where] * spots * log_uniform(rng, 60, 260)
    return Change(shade(canvas.image, amount), alpha > 0.03, True)


def foreign_texture(rng: Rng, canvas: Canvas) -> Change:
    """Blend in another picture's content, sometimes with its mean fitted so that only texture differs."""
    alpha = canvas.area(rng, 0.0008, 0.25)
    layer = _fitted(rng, canvas, photo_patch(rng, canvas), alpha)
    opacity = 1.0 if chance(rng, 0.5) else rng.uniform(0.25, 1)
    return Change(blend(canvas.image, layer, alpha * opacity), alpha > 0.03, True)


def _fitted(rng: Rng, canvas: Canvas, layer: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Move the layer's mean onto the local one, at probability one half; then only structure differs."""
    if chance(rng, 0.5):
        return layer
    where = box(alpha)
    shift = local_colour(canvas, alpha) - mean_colour(np.ascontiguousarray(layer[where]))
    result = np.empty(layer.shape, np.float32)
    result[where] = layer[where] + shift * rng.uniform(0.5, 1)
    return result


def cut_paste(rng: Rng, canvas: Canvas) -> Change:
    """Copy the picture's own content to another place: a patch or a scar-like strip, turned and recoloured."""
    size = canvas.size
    if chance(rng, 0.4):
        length, width = log_uniform(rng, 0.05, 0.45) * size, log_uniform(rng, 0.008, 0.05) * size
        box_points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2)
        turn = rng.uniform(0, np.pi)
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        alpha = canvas.inside(fill_polygon(size, box_points @ spin + canvas.somewhere(rng)))
        alpha = soften(alpha, 0 if chance(rng, 0.4) else log_uniform(rng, 0.3, 2))
    else:
        alpha = canvas.area(rng, 0.001, 0.2)
    layer = _moved(rng, canvas, float(rng.choice([0, 0, 90, 180, rng.uniform(0, 360)])), rng.uniform(0.8, 1.25))
    if chance(rng, 0.4 if canvas.ordered else 0.9):
        layer = np.clip(layer * rng.uniform(0.6, 1.4, 3) + rng.normal(0, 15, 3), 0, 255).astype(np.float32)
    else:
        layer = _fitted(rng, canvas, layer, alpha) if chance(rng, 0.4) else layer
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def _moved(rng: Rng, canvas: Canvas, turn: float, scale: float, shift: float = 0.5) -> np.ndarray:
    size = canvas.size
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), turn, scale)
    matrix[:, 2] += rng.uniform(-shift, shift, 2) * size
    return cv2.warpAffine(canvas.image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def texture_change(rng: Rng, canvas: Canvas) -> Change:
    """Make the texture finer, coarser or turned inside an area."""
    alpha = canvas.area(rng, 0.004, 0.28)
    rows, columns = box(alpha)
    middle = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    turn, scale = (
        (rng.uniform(20, 160), 1.0)
        if canvas.ordered and chance(rng, 0.5)
        else (0.0, log_uniform(rng, 1.3, 3) ** sign(rng))
    )
    matrix = cv2.getRotationMatrix2D(middle, turn, scale)
    layer = cv2.warpAffine(canvas.image, matrix, canvas.gray.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def contrast_change(rng: Rng, canvas: Canvas) -> Change:
    """Raise or lower the local contrast, or add grain."""
    alpha = canvas.area(rng, 0.002, 0.28)
    where = box(alpha)
    patch = canvas.image[where].astype(np.float32)
    if chance(rng, 0.6):
        factor = rng.uniform(0.1, 0.6) if chance(rng, 0.5) else rng.uniform(1.6, 3.5)
        patch = (patch - patch.mean((0, 1))) * factor + patch.mean((0, 1))
    else:
        patch = patch + (rng.random(patch.shape[:2], dtype=np.float32) - 0.5)[..., None] * log_uniform(rng, 60, 240)
    layer = np.empty(canvas.image.shape, np.float32)
    layer[where] = np.clip(patch, 0, 255)
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def smear(rng: Rng, canvas: Canvas) -> Change:
    """Smear an area along a direction, or blur it."""
    alpha = canvas.area(rng, 0.002, 0.25)
    length = max(5, int(log_uniform(rng, 0.025, 0.14) * canvas.size)) | 1
    kernel = np.zeros((length, length), np.float32)
    reach = (length // 2) * np.array([np.cos(turn := rng.uniform(0, np.pi)), np.sin(turn)])
    first, last = ((length // 2 + step * reach).astype(int).tolist() for step in (-1, 1))
    cv2.line(kernel, first, last, 1.0)
    where = box(alpha, length)
    patch = np.ascontiguousarray(canvas.image[where])
    layer = canvas.image.copy()
    if chance(rng, 0.4):
        layer[where] = cv2.blur(patch, (length, length))
    elif length <= 13:
        layer[where] = cv2.filter2D(patch, -1, kernel / kernel.sum())
    else:
        axis = (length, 1) if chance(rng, 0.5) else (1, length)
        layer[where] = cv2.blur(patch, axis)
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def warp(rng: Rng, canvas: Canvas) -> Change | None:
    """Swirl, pinch, stretch or push the picture inside a disc."""
    if not canvas.ordered:
        return None
    centre, radius = canvas.somewhere(rng), max(8.0, canvas.radius(rng, 0.006, 0.25))
    reach = int(radius) + 1
    x, y = (part[: 2 * reach, : 2 * reach] - reach for part in grid(2 * reach))
    fade = np.clip(1 - np.hypot(x, y) / np.float32(radius), 0, 1)
    fade = fade * fade * (3 - 2 * fade)
    make = rng.random()
    if make < 0.3:
        angle = fade * np.float32(sign(rng) * rng.uniform(0.5, 2.5))
        dx, dy = x * np.cos(angle) - y * np.sin(angle) - x, x * np.sin(angle) + y * np.cos(angle) - y
    elif make < 0.55:
        power = np.float32(rng.uniform(0.3, 0.75) * sign(rng))
        dx, dy = -x * fade * power, -y * fade * power
    else:
        turn, push = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5) * radius
        dx, dy = fade * np.float32(push * np.cos(turn)), fade * np.float32(push * np.sin(turn))
    left, top = int(centre[0]) - reach, int(centre[1]) - reach
    region = np.zeros((canvas.size + 2 * reach,) * 2, np.uint8)
    region[top + reach : top + 3 * reach, left + reach : left + 3 * reach] = fade > 0.02
    moved = cv2.remap(
        canvas.image, x + dx + left + reach, y + dy + top + reach, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    image = canvas.image.copy()
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + 2 * reach, canvas.size), min(left + 2 * reach, canvas.size)
    image[y0:y1, x0:x1] = moved[y0 - top : y1 - top, x0 - left : x1 - left]
    return Change(image, region[reach:-reach, reach:-reach], True)


def turned_patch(rng: Rng, canvas: Canvas) -> Change | None:
    """Turn or mirror a round or square piece, or replace it by its neighbour."""
    if not canvas.ordered:
        return None
    radius, centre = max(6.0, canvas.radius(rng, 0.004, 0.12)), canvas.somewhere(rng)
    size = canvas.size
    if chance(rng, 0.5):
        alpha = np.clip(radius + 0.5 - np.hypot(grid(size)[0] - centre[0], grid(size)[1] - centre[1]), 0, 1)
    else:
        alpha = blob(rng, size, centre, radius)
    alpha = canvas.inside(alpha)
    matrix = cv2.getRotationMatrix2D(centre, float(rng.choice([90, 180, 270, rng.uniform(15, 345)])), 1.0)
    if chance(rng, 0.25):
        matrix = np.array([[-1.0, 0, 2 * centre[0]], [0, 1, 0]])
    layer = cv2.warpAffine(canvas.image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def shifted_band(rng: Rng, canvas: Canvas) -> Change | None:
    """Slide a band along itself, so that rows or columns no longer meet."""
    if not canvas.ordered:
        return None
    size = canvas.size
    width = max(2, round(log_uniform(rng, 0.01, 0.2) * size))
    x, y = (int(part) for part in canvas.somewhere(rng))
    half = int(log_uniform(rng, 0.08, 1.0) * size)
    step = int(sign(rng) * log_uniform(rng, 0.01, 0.12) * size) or 2
    alpha = np.zeros((size, size), np.float32)
    flat = chance(rng, 0.5)
    if flat:
        alpha[max(y - width // 2, 0) : y + width // 2 + 1, max(x - half, 0) : x + half] = 1
    else:
        alpha[max(y - half, 0) : y + half, max(x - width // 2, 0) : x + width // 2 + 1] = 1
    alpha = canvas.inside(alpha)
    return Change(blend(canvas.image, np.roll(canvas.image, step, 1 if flat else 0), alpha), alpha > 0, True)
