"""Helpers for findings in bodies: free places, rounded shapes, pushed and replaced tissue, contrast.

Replaced tissue keeps the noise of the scanner; only its smooth part changes.
"""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, box
from synthesis.defects.shapes import Rng, chance, fill_polygon, fractal, grid, log_uniform, noise_island, outline_points


def spot(rng: Rng, canvas: Canvas, radius: float) -> tuple[float, float]:
    """Return a place in the foreground with free space of a radius around it, if there is one."""
    if chance(rng, 0.1):
        return canvas.somewhere(rng)
    depth = None if canvas.coverage > 0.97 else cv2.distanceTransform(canvas.foreground, cv2.DIST_L2, 3)
    best, deepest = canvas.somewhere(rng), -1.0
    for _ in range(6):
        at = canvas.somewhere(rng)
        here = min(*at, canvas.size - at[0], canvas.size - at[1])
        if depth is not None:
            here = min(here, float(depth[int(at[1]), int(at[0])]))
        if here > deepest:
            best, deepest = at, here
        if here > 0.7 * radius:
            break
    return best


def shape(rng: Rng, canvas: Canvas, at: tuple[float, float], radius: float, rough: float | None = None) -> np.ndarray:
    """Return a hard alpha of a rounded, lobed or ragged shape, inside the foreground."""
    rough = float(rng.choice([0.04, 0.1, 0.18, 0.28])) if rough is None else rough
    if chance(rng, 0.12):
        return canvas.inside(noise_island(rng, canvas.size, at, radius))
    points = outline_points(rng, radius, rough)
    if rough > 0.1:
        points *= 1 + 0.06 * rng.normal(0, 1, (len(points), 1))
    return canvas.inside(fill_polygon(canvas.size, points + at))


def pushed(rng: Rng, canvas: Canvas, at: tuple[float, float], radius: float) -> np.ndarray:
    """Push tissue away from a place, as a growing mass does."""
    reach = int(2.2 * radius) + 2
    left, top = max(int(at[0]) - reach, 0), max(int(at[1]) - reach, 0)
    right, bottom = min(int(at[0]) + reach, canvas.size), min(int(at[1]) + reach, canvas.size)
    if right - left < 4 or bottom - top < 4:
        return canvas.image
    x, y = (part[top:bottom, left:right] for part in grid(canvas.size))
    dx, dy = x - np.float32(at[0]), y - np.float32(at[1])
    nearer = np.float32(rng.uniform(0.15, 0.5)) * np.exp(-(dx * dx + dy * dy) / np.float32(radius * radius))
    image = canvas.image.copy()
    moved = cv2.remap(canvas.image, x - dx * nearer, y - dy * nearer, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = canvas.foreground[top:bottom, left:right, None] > 0
    image[top:bottom, left:right] = np.where(inside, moved, canvas.image[top:bottom, left:right])
    return image


def grown(image: np.ndarray, alpha: np.ndarray, offset: np.ndarray | float, keep: float = 1.0) -> np.ndarray:
    """Replace tissue by the local mean plus an offset; with `keep` below 1 the old structure stays visible."""
    where = box(alpha, 2)
    patch = np.ascontiguousarray(image[where]).astype(np.float32)
    part = alpha[where]
    low = cv2.GaussianBlur(patch, (0, 0), max(0.8, len(image) / 220))
    total = max(float(part.sum()), 1e-3)
    mean = (low * part[..., None]).sum((0, 1)) / total
    plus = offset[where][..., None] if isinstance(offset, np.ndarray) else np.float32(offset)
    moved = patch + part[..., None] * (keep * (mean + plus - low) + (1 - keep) * plus)
    result = image.copy()
    result[where] = np.clip(moved + 0.5, 0, 255).astype(np.uint8)
    return result


def solid(canvas: Canvas) -> float:
    """Return how far tissue may be replaced: less in speckle, where a flat area would not look like tissue."""
    return 0.35 if canvas.scene.modality in ("ultrasound", "oct") else 1.0


def texture(rng: Rng, size: int, alpha: np.ndarray, cells: tuple[float, float] = (3, 30)) -> np.ndarray:
    """Return smooth noise in about [-0.5, 0.5] inside the alpha, 0 elsewhere."""
    where = box(alpha, 2)
    field = np.zeros((size, size), np.float32)
    height, width = field[where].shape
    half = max(height // 2, 4), max(width // 2, 4)  # it is smooth: half the size will do
    small = fractal(rng, *half, min(log_uniform(rng, *cells), max(half) / 3), 3) - 0.5
    field[where] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return field


def depth_inside(alpha: np.ndarray) -> np.ndarray:
    """Return the depth inside a shape, from 0 at its border to 1 in its middle."""
    depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return depth / max(float(depth.max()), 1.0)


def contrast(rng: Rng, canvas: Canvas, alpha: np.ndarray, bright: float = 0.5) -> float:
    """Draw a signed change of brightness that fits the local one: dark places can only get brighter."""
    where = box(alpha)
    level = float(canvas.gray[where].mean())
    room_up, room_down = 250 - level, level - 4
    up = chance(rng, bright)
    if room_up < 30 or (room_down > 30 and not up):
        return -min(log_uniform(rng, 16, 130), max(room_down, 16))
    return min(log_uniform(rng, 16, 130), max(room_up, 16))
