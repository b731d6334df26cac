"""Helpers for pictures of bodies: a bent plane, soft organs, branching vessels, noise and marks of scanners."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from synthesis.scenes import base
from synthesis.scenes.base import (
    Rng,
    chance,
    loguni,
    pick,
    white,
)


def smooth(rng: Rng, size: int, period: float, aspect: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Return `base.smooth`, drawn small and enlarged where possible, which is several times faster."""
    part = 4 if period > 20 else 2 if period > 9 else 1
    if part == 1:
        return base.smooth(rng, size, period, aspect, angle)
    small = base.smooth(rng, size // part, period / part, aspect, angle)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR if part == 2 else cv2.INTER_CUBIC)


#: `base.octaves` with the fast waves.
octaves = functools.partial(base.octaves, wave=smooth)


def body_plane(rng: Rng, size: int, wobble: float = 0.0, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel in about [-1, 1], bent by smooth noise."""
    axis = np.linspace(-zoom, zoom, size, dtype=np.float32)
    x, y = np.repeat(axis[None], size, 0), np.repeat(axis[:, None], size, 1)
    if wobble > 0:
        period = size * rng.uniform(0.2, 0.5)
        x += wobble * smooth(rng, size, period)
        y += wobble * smooth(rng, size, period)
    return x, y


def draw_oval(
    x: np.ndarray, y: np.ndarray, cx: float, cy: float, a: float, b: float, turn: float = 0.0, soft: float = 0.02
) -> np.ndarray:
    """Return the alpha of an ellipse whose border is `soft` wide."""
    c, s = math.cos(turn), math.sin(turn)
    u, v = ((x - cx) * c + (y - cy) * s) / a, ((y - cy) * c - (x - cx) * s) / b
    return np.clip((1 - u * u - v * v) * (min(a, b) / (2 * soft)) + 0.5, 0, 1)


def lay_over(field: np.ndarray, alpha: np.ndarray, value: float | np.ndarray) -> None:
    field += alpha * (value - field)


def scanned(rng: Rng, field: np.ndarray, noise: tuple[float, float] = (0.7, 9.0)) -> np.ndarray:
    """Apply the traits of a scanner to a field in 0..255: low resolution, ringing or sharpening, noise."""
    size = len(field)
    if chance(rng, 0.25):
        small = max(48, int(size * rng.uniform(0.35, 0.8)))
        kind = cv2.INTER_CUBIC if chance(rng, 0.5) else cv2.INTER_LINEAR
        field = cv2.resize(
            cv2.resize(field, (small, small), interpolation=cv2.INTER_AREA), (size, size), None, 0, 0, kind
        )
    elif chance(rng, 0.3):
        sigma, amount = rng.uniform(1, 2.5), rng.uniform(0.3, 1.2)
        field = cv2.addWeighted(field, 1 + amount, cv2.GaussianBlur(field, (0, 0), sigma), -amount, 0)
    elif chance(rng, 0.4):
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.5, 1.2))
    grain = white(rng, size) * np.float32(loguni(rng, *noise))
    if chance(rng, 0.4):
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.6, 1.1)) * 2
    return field + grain


def flat_colour(size: int, colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    image = np.empty((size, size, 3), np.uint8)  # filling it by broadcasting takes ten times longer
    cv2.rectangle(image, (0, 0), (size, size), tuple(float(v) for v in colour), -1)
    return image


def toned(
    shade: np.ndarray,
    colour: tuple[float, ...] | np.ndarray,
    plus: np.ndarray | float = 0.0,
    by: tuple[float, float, float] = (0, 0, 0),
) -> np.ndarray:
    """Return a colour times a shade, plus another field by channel."""
    return cv2.merge(
        [cv2.convertScaleAbs(np.maximum(shade * float(c) + plus * b, 0)) for c, b in zip(colour, by, strict=True)]
    )


def grey_picture(field: np.ndarray) -> np.ndarray:
    return cv2.merge([np.clip(field, 0, 255).astype(np.uint8)] * 3)


def draw_branches(
    rng: Rng, drawn: np.ndarray, starts: list[tuple[float, ...]], bend: float = 0.16, spread: float = 0.45
) -> None:
    """Draw vessels (x, y, heading, width) that fork and thin into a uint8 array, generation by generation."""
    size, steps = len(drawn), 7
    x, y, heading, width = np.array(starts, float).T
    for _ in range(6):
        turns = heading[:, None] + np.cumsum(rng.normal(0, bend, (len(x), steps)), 1)
        step = (size * 0.022 * (0.6 + 0.25 * np.minimum(width, 3)))[:, None]
        xs = np.concatenate([x[:, None], x[:, None] + np.cumsum(np.cos(turns), 1) * step], 1)
        ys = np.concatenate([y[:, None], y[:, None] + np.cumsum(np.sin(turns), 1) * step], 1)
        points = np.stack([xs, ys], -1) * 8
        points, steps_of = points.astype(np.int32), np.ceil(np.where(width < 1, width * 3, width + 2)).astype(int)
        for w in set(steps_of.tolist()):  # one call for all of about the same width
            value, thick = (85 * max(w, 1), 1) if w <= 3 else (255, w - 2)
            cv2.polylines(drawn, list(points[steps_of == w]), False, value, thick, cv2.LINE_AA, 3)
        side = np.array([1.0, -1.0])
        heading = (turns[:, -1:] + side * spread * rng.uniform(0.3, 1.3, (len(x), 2))).ravel()
        width = (width[:, None] * rng.uniform(0.5, 0.9, (len(x), 2))).ravel()
        x, y = np.repeat(xs[:, -1], 2), np.repeat(ys[:, -1], 2)
        keep = np.flatnonzero((width > 0.4) & (x > -size / 2) & (x < 1.5 * size) & (y > -size / 2) & (y < 1.5 * size))
        if not keep.size:
            return
        keep = keep[:22]
        x, y, heading, width = x[keep], y[keep], heading[keep], width[keep]


def write_marks(rng: Rng, image: np.ndarray) -> None:
    """Write the letters and numbers that machines print into corners."""
    size = len(image)
    for _ in range(int(rng.integers(1, 4))):
        label = "".join(pick(rng, *"RLAPSF0123456789.:mAkV ") for _ in range(int(rng.integers(1, 7))))
        at = (int(size * rng.choice([0.02, 0.8])), int(size * rng.choice([0.06, 0.1, 0.93, 0.97])))
        cv2.putText(image, label, at, 0, size / 256 * rng.uniform(0.25, 0.45), (230, 230, 230), 1, cv2.LINE_AA)
