"""Drawing primitives: boxes, discs, strokes, text, and outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from synthesis.scenes.base import Rng

Color = Sequence[float]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghikmnoprstuvxz-./+"
FONTS = (0, 1, 2, 3, 4, 5, 6, 7)


def box(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
    """Draw an antialiased upright rectangle, in fractions of pixels."""
    points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) * 8
    cv2.fillPoly(image, [points.astype(np.int32)], color, cv2.LINE_AA, 3)


def disc(image: np.ndarray, x: float, y: float, radius: float, color: Color, thickness: int = -1) -> None:
    cv2.circle(image, (int(x * 8), int(y * 8)), max(4, int(radius * 8)), color, thickness, cv2.LINE_AA, 3)


def line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: Color, width: float = 1) -> None:
    """Draw a straight stroke; a thin one by `cv2.line`, others as exact polygons."""
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
    """Write `content` with its baseline at y and return its width."""
    scale = max(height, 4) / 22
    cv2.putText(image, content, (int(x), int(y)), font, scale, color, bold, cv2.LINE_AA)
    return float(cv2.getTextSize(content, font, scale, bold)[0][0])


def level(value: float) -> tuple[float, float, float]:
    value = float(np.clip(value, 0, 255))
    return (value, value, value)


def box_mask(size: int, b: Sequence[float]) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[int(b[1]) : int(b[3]) + 1, int(b[0]) : int(b[2]) + 1] = True
    return mask


def polar(side: int, radii: np.ndarray, squash: float = 1.0) -> np.ndarray:
    """Return a contour from radii (relative to half a side), sampled evenly around the centre."""
    t = np.arange(len(radii)) * (2 * math.pi / len(radii))
    c = side / 2
    return np.stack([c + c * radii * np.cos(t), c + c * radii * squash * np.sin(t)], -1)


def fill(side: int, points: np.ndarray) -> np.ndarray:
    alpha = np.zeros((side, side), np.uint8)
    cv2.fillPoly(alpha, [(points * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    return alpha


def rounded(alpha: np.ndarray, radius: float) -> np.ndarray:
    """Round the corners of a shape by about `radius` pixels."""
    field = cv2.GaussianBlur(alpha, (0, 0), radius).astype(np.float32)
    return np.clip((field - 127) * (1.2 * radius) + 127, 0, 255).astype(np.uint8)


def wobbly(rng: Rng, amount: float, n: int = 72, waves: int = 4) -> np.ndarray:
    """Return a radius profile of 1 +- amount, with low-frequency irregularity."""
    t = np.arange(n) * (2 * math.pi / n)
    total = np.zeros(n)
    for k in range(2, 2 + waves):
        total += rng.normal(0, 1) / k * np.cos(k * t + rng.uniform(0, 6.28))
    return 1 + amount * total
