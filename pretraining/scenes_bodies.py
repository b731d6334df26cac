"""Healthy bodies as clinics picture them: slices of heads and trunks, radiographs, scopes, skin, eyes, tissue, cells.

Most are drawn in a plane of coordinates in [-1, 1] that is bent a little, so that no organ is a perfect ellipse.
`modality` of the scenes tells the defects which findings may occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import scenes_base
from scenes_base import (
    Photos,
    Rng,
    Scene,
    blend,
    cells,
    chance,
    full,
    loguni,
    only,
    paint,
    pick,
    relight,
    white,
)
from scenes_medical import slice_scan

Family = Callable[[Rng, int, Photos], Scene]


def smooth(rng: Rng, size: int, period: float, aspect: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """`scenes_base.smooth`, made small and enlarged where it is smooth enough for that: several times faster."""
    part = 4 if period > 20 else 2 if period > 9 else 1
    if part == 1:
        return scenes_base.smooth(rng, size, period, aspect, angle)
    small = scenes_base.smooth(rng, size // part, period / part, aspect, angle)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR if part == 2 else cv2.INTER_CUBIC)


def octaves(rng: Rng, size: int, period: float, decay: float, aspect: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Noise from `period` down to pixels, as `scenes_base.octaves` makes it."""
    total, weight = np.zeros((size, size), np.float32), 1.0
    for _ in range(5):
        total += weight * (smooth(rng, size, period, aspect, angle) if period > 1.6 else white(rng, size))
        weight, period = weight * decay, period / 2.2
        if period < 0.8 or weight < 0.05:
            break
    return total


def _plane(rng: Rng, size: int, wobble: float = 0.0, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel in about [-1, 1], bent by smooth noise."""
    axis = np.linspace(-zoom, zoom, size, dtype=np.float32)
    x, y = np.repeat(axis[None], size, 0), np.repeat(axis[:, None], size, 1)
    if wobble > 0:
        period = size * rng.uniform(0.2, 0.5)
        x += wobble * smooth(rng, size, period)
        y += wobble * smooth(rng, size, period)
    return x, y


def _oval(
    x: np.ndarray, y: np.ndarray, cx: float, cy: float, a: float, b: float, turn: float = 0.0, soft: float = 0.02
) -> np.ndarray:
    """Alpha of an ellipse whose border is `soft` wide."""
    c, s = math.cos(turn), math.sin(turn)
    u, v = ((x - cx) * c + (y - cy) * s) / a, ((y - cy) * c - (x - cx) * s) / b
    return np.clip((1 - u * u - v * v) * (min(a, b) / (2 * soft)) + 0.5, 0, 1)


def _over(field: np.ndarray, alpha: np.ndarray, value: float | np.ndarray) -> None:
    field += alpha * (value - field)


def _scanned(rng: Rng, field: np.ndarray, noise: tuple[float, float] = (0.7, 9.0)) -> np.ndarray:
    """What every scanner does to a field of 0..255: low resolution, ringing or sharpening, noise."""
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


def _flat(size: int, colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    image = np.empty((size, size, 3), np.uint8)  # filling it by broadcasting takes ten times longer
    cv2.rectangle(image, (0, 0), (size, size), tuple(float(v) for v in colour), -1)
    return image


def _toned(
    shade: np.ndarray,
    colour: tuple[float, ...] | np.ndarray,
    plus: np.ndarray | float = 0.0,
    by: tuple[float, float, float] = (0, 0, 0),
) -> np.ndarray:
    """A colour times a shade, plus another field in its own amounts."""
    return cv2.merge(
        [cv2.convertScaleAbs(np.maximum(shade * float(c) + plus * b, 0)) for c, b in zip(colour, by, strict=True)]
    )


def _grey(field: np.ndarray) -> np.ndarray:
    return cv2.merge([np.clip(field, 0, 255).astype(np.uint8)] * 3)


def _branches(
    rng: Rng, drawn: np.ndarray, starts: list[tuple[float, ...]], bend: float = 0.16, spread: float = 0.45
) -> None:
    """Vessels (x, y, heading, width) that fork and thin, into a uint8 picture; all of one generation at once."""
    size, steps = len(drawn), 7
    x, y, heading, width = np.array(starts, float).T
    for _ in range(6):
        turns = heading[:, None] + np.cumsum(rng.normal(0, bend, (len(x), steps)), 1)
        step = (size * 0.022 * (0.6 + 0.25 * np.minimum(width, 3)))[:, None]
        xs = np.concatenate([x[:, None], x[:, None] + np.cumsum(np.cos(turns), 1) * step], 1)
        ys = np.concatenate([y[:, None], y[:, None] + np.cumsum(np.sin(turns), 1) * step], 1)
        points = np.stack([xs, ys], -1) * 8
        points, steps_of = points.astype(np.int32), np.ceil(np.where(width < 1, width * 3, width + 2)).astype(int)
        for w in set(steps_of.tolist()):  # one call for all of about one width
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


def _write(rng: Rng, image: np.ndarray) -> None:
    """Letters and numbers that machines print into corners."""
    size = len(image)
    for _ in range(int(rng.integers(1, 4))):
        said = "".join(pick(rng, *"RLAPSF0123456789.:mAkV ") for _ in range(int(rng.integers(1, 7))))
        at = (int(size * rng.choice([0.02, 0.8])), int(size * rng.choice([0.06, 0.1, 0.93, 0.97])))
        cv2.putText(image, said, at, 0, size / 256 * rng.uniform(0.25, 0.45), (230, 230, 230), 1, cv2.LINE_AA)


# --- heads -----------------------------------------------------------------------------------------------------------

_SEEN = np.array([0, 0.12, 0.3, 0.56, 0.8, 1.1, 1.4])  # T1: air, bone, fluid, grey matter, white matter, fat
_CONTRASTS: dict[str, tuple[float, ...]] = {
    "T1": (0.0, 0.1, 0.25, 0.55, 0.8, 1.0, 1.0),
    "T2": (0.0, 0.3, 0.95, 0.56, 0.36, 0.5, 0.6),
    "FLAIR": (0.0, 0.06, 0.14, 0.62, 0.46, 0.6, 0.7),
    "PD": (0.0, 0.3, 0.75, 0.78, 0.6, 0.7, 0.8),
    "CT": (0.3, 0.3, 0.36, 0.5, 0.45, 0.46, 0.46),
}


def _brain(t1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Head and brain (uint8 0/1) of a T1 slice in [0, 1]: the brain is what holds together once thin ties are cut."""
    size = len(t1)
    soft = cv2.GaussianBlur(t1, (0, 0), size * 0.006)
    head = np.zeros((size, size), np.uint8)
    outer, _ = cv2.findContours((soft > 0.1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if outer:
        cv2.drawContours(head, [max(outer, key=cv2.contourArea)], -1, 1, -1)
    width = max(3, round(size * 0.035)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    inner = cv2.erode(((soft > 0.36) & (soft < 0.97)).astype(np.uint8), kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inner)
    brain = np.zeros((size, size), np.uint8)
    if count > 1:
        best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        grown = cv2.morphologyEx(cv2.dilate((labels == best).astype(np.uint8), kernel), cv2.MORPH_CLOSE, kernel)
        outer, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(brain, [max(outer, key=cv2.contourArea)], -1, 1, -1)
    share = cv2.countNonZero(brain) / max(cv2.countNonZero(head), 1)
    if not 0.2 < share < 0.92:
        depth = cv2.distanceTransform(head, cv2.DIST_L2, 3)
        brain = (depth > 0.09 * size).astype(np.uint8)
    return head, brain & head


def _bared(t1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for a slice without a skull: furrows and ventricles belong to the brain, a head is put around it."""
    size = len(t1)
    width = round(size * 0.05) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    padded = cv2.copyMakeBorder((t1 > 0.2).astype(np.uint8), width, width, width, width, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[width:-width, width:-width]
    brain = np.zeros((size, size), np.uint8)
    outer, _ = cv2.findContours(np.ascontiguousarray(closed), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(brain, outer, -1, 1, -1)
    away = cv2.distanceTransform(1 - brain, cv2.DIST_L2, 3)
    return (away < 0.075 * size).astype(np.uint8), brain


def head_slice(rng: Rng, size: int, photos: Photos) -> Scene:
    """A slice of a real healthy head, bent, turned and given another sequence's or scanner's contrast."""
    slices = only(photos, 1)
    if not slices or chance(rng, 0.05):
        return slice_scan(rng, size, photos)
    raw = slices[int(rng.integers(len(slices)))]
    left, top, width, height = cv2.boundingRect((raw > 24).astype(np.uint8))
    if min(width, height) < 32:
        return slice_scan(rng, size, photos)
    x, y = _plane(rng, size)
    amount, period = loguni(rng, 0.004, 0.045), size * rng.uniform(0.15, 0.5)
    u = x + amount * smooth(rng, size, period)
    v = y + amount * smooth(rng, size, period)
    if chance(rng, 0.3):  # one half a little larger than the other
        u = u + rng.normal(0, 0.06) * u * u
    angle = rng.normal(0, 0.1) if chance(rng, 0.85) else rng.uniform(-math.pi, math.pi)
    part = rng.uniform(0.95, 1.3) if chance(rng, 0.8) else rng.uniform(0.55, 0.95)
    side, squash = max(width, height) / 2 * part, math.exp(rng.normal(0, 0.07))
    mirror = -1 if chance(rng, 0.5) else 1
    c, s = math.cos(angle), math.sin(angle)
    loose = 0.05 if part > 0.95 else 0.25
    dx, dy = rng.uniform(-loose, loose, 2) * side
    at_x = mirror * squash * side * (c * u + s * v) + np.float32(left + width / 2 + dx)
    at_y = side / squash * (c * v - s * u) + np.float32(top + height / 2 + dy)
    t1 = cv2.remap(raw, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(np.float32)
    t1 /= max(float(np.percentile(t1[::4, ::4], 97)), 30.0)
    seen_part = raw[::4, ::4][raw[::4, ::4] > 24]
    bare = float((seen_part < 90).mean()) < 0.16  # a slice of a brain without its skull
    if bare:
        head, brain = _bared(t1)
        t1 = np.maximum(t1, np.float32(0.27) * brain)
    else:
        head, brain = _brain(t1)
    within = t1[::3, ::3][brain[::3, ::3] > 0]
    if within.size > 50:
        t1 *= 0.8 / max(float(np.percentile(within, 80)), 0.2)
    roll = rng.random()
    which = pick(rng, "T1", "T1", "T2", "T2", "FLAIR", "FLAIR", "PD") if roll < 0.68 else "CT" if roll < 0.92 else ""
    seen = np.array(_CONTRASTS[which]) if which else np.append([0.0, 0.1], rng.uniform(0.1, 1, 5))
    spread = 0.012 if which == "CT" else 0.05
    seen[1:] = np.maximum(seen[1:] + rng.normal(0, spread, 6), 0)
    index = np.clip(t1 * 180, 0, 255).astype(np.uint8)
    levels = np.arange(256) / 180
    tissue = cv2.LUT(index, np.interp(levels, _SEEN, seen).astype(np.float32))
    soft_brain = cv2.GaussianBlur(brain.astype(np.float32), (0, 0), size * 0.005)
    if which == "CT":
        outside = 0.3 + 0.1 * np.clip(t1, 0, 1)
        depth = cv2.distanceTransform(head, cv2.DIST_L2, 3)
        away = cv2.distanceTransform(1 - brain, cv2.DIST_L2, 3)
        thick, scalp = rng.uniform(0.03, 0.075) * size, rng.uniform(0.004, 0.03) * size
        bone = np.clip((depth - scalp) / 2 + 0.5, 0, 1) * np.clip((thick - away) / 2 + 0.5, 0, 1)
        outside += bone * (rng.uniform(1.1, 1.5) - outside)
        outside *= np.clip(depth / 2, 0, 1)
        tissue = cv2.GaussianBlur(tissue, (0, 0), rng.uniform(0.6, 2.2))
        tissue = (tissue - 0.42) * rng.uniform(0.5, 2.0) + rng.uniform(0.3, 0.6)
    else:  # scalp and bone take a map without turns: the rim to the air would light up otherwise
        scale = rng.uniform(0.4, 1.0)
        outside = cv2.LUT(index, (np.interp(levels, _SEEN, (0, 0.07, 0.15, 0.35, 0.5, 0.8, 0.95)) * scale).astype("f4"))
    field = (tissue * soft_brain + outside * (1 - soft_brain)) * np.float32(rng.uniform(170, 240))
    stripped = (bare and which != "CT") or chance(rng, 0.1 if which == "CT" else 0.25)
    if stripped:
        field *= soft_brain
    if which != "CT":
        field *= 1 + rng.uniform(0, 0.2) * smooth(rng, size, size * rng.uniform(0.6, 1.2))
    field = _scanned(rng, field, (0.5, 3.0))
    level = loguni(rng, 0.5, 9)
    if chance(rng, 0.5):  # Rician: what is dark gets the noise's size
        field = cv2.magnitude(np.maximum(field, 0) + level * white(rng, size), level * white(rng, size))
    if chance(rng, 0.5):
        field *= soft_brain if stripped else cv2.GaussianBlur(head.astype(np.float32), (0, 0), 1.0)
    image = _grey(field)
    if chance(rng, 0.06):
        _write(rng, image)
    where = brain > 0
    if which == "CT":
        name, modality = pick(rng, "head CT", "brain CT", "CT scan of a head", "head", "brain"), "ct"
    else:
        name, modality = pick(rng, "brain MRI", "brain scan", "brain", "head MRI", "brain slice", "MRI slice"), "mri"
    return Scene(image, where, name, pick(rng, "grey", "medical", "soft tissue"), modality=modality)


# --- trunks ----------------------------------------------------------------------------------------------------------


def chest(rng: Rng, size: int, photos: Photos) -> Scene:
    """A frontal chest radiograph: lungs, ribs, clavicles, heart, spine, diaphragm, shoulders."""
    whole, size = size, size * 3 // 4  # a radiograph is soft: drawn smaller, it costs half
    zoom = rng.uniform(0.85, 1.15)
    x, y = _plane(rng, size, rng.uniform(0.008, 0.025), zoom)
    x += rng.normal(0, 0.04)
    y += rng.normal(0, 0.05)
    out = np.abs(x)
    field = rng.uniform(120, 165) + 10 * smooth(rng, size, size * 0.5)
    field -= rng.uniform(10, 40) * np.clip(out - 0.6, 0, 1) * 2
    soft = rng.uniform(0.03, 0.08)
    lungs = np.zeros((size, size), np.float32)
    dark = rng.uniform(55, 105)
    heart_side = 1 if chance(rng, 0.9) else -1
    top, bottom = rng.uniform(-0.85, -0.7), rng.uniform(0.45, 0.75)
    for side in (-1, 1):
        cx, a = side * rng.uniform(0.4, 0.47), rng.uniform(0.3, 0.38)
        low = bottom + (0.05 if side == heart_side else -0.02) + rng.normal(0, 0.02)
        one = _oval(x, y, cx, 0.25 * (top + bottom), a, (bottom - top) * 0.75, side * 0.1, soft)
        dome = low + rng.uniform(0.5, 1.5) * (x - cx * 0.85) ** 2
        lungs = np.maximum(lungs, one * np.clip((dome - y) / soft + 0.5, 0, 1))
    field -= dark * lungs
    # Ribs slope down and outward behind, and back inward in front.
    pitch = rng.uniform(0.14, 0.2)
    cage = _oval(x, y, 0, 0, 0.86, 1.05, 0, 0.15) * np.clip((out - 0.1) * 8, 0, 1)
    wide = rng.uniform(0.3, 0.55)
    for slope, curve, strength in ((0.1, 0.9, 1.0), (0.9, -1.4, rng.uniform(0.2, 0.8))):
        phase = (y - slope * out - curve * (out - 0.35) ** 2 + rng.uniform(0, 1)) / pitch
        wave = np.cos(phase * np.float32(2 * math.pi))
        band = np.clip((wave - math.cos(math.pi * wide)) * 2.5, 0, 1)
        field += rng.uniform(8, 26) * strength * cage * (band + 0.35 * band * (1 - band) * 4)
    field += rng.uniform(25, 65) * np.exp(-((x / rng.uniform(0.09, 0.14)) ** 2))
    bones = np.exp(-((x / 0.08) ** 2)) * np.clip(np.cos(y * rng.uniform(30, 45)) * 3, -1, 1)
    field += rng.uniform(2, 9) * bones
    heart = _oval(x, y, heart_side * rng.uniform(0.08, 0.18), bottom - 0.15, rng.uniform(0.3, 0.44),
                  rng.uniform(0.26, 0.34), heart_side * 0.6, soft)  # fmt: skip
    heart = np.maximum(heart, _oval(x, y, 0.0, top + 0.4, rng.uniform(0.13, 0.19), 0.7, 0, soft * 1.5))
    heart = cv2.GaussianBlur(heart, (0, 0), size * 0.01)
    field += rng.uniform(0.5, 0.9) * dark * heart * np.clip(lungs * 2, 0, 1)
    field -= rng.uniform(8, 25) * np.exp(-((x / 0.05) ** 2)) * np.clip((top + 0.45 - y) * 4, 0, 1)
    vessels = np.zeros((size, size), np.uint8)
    per = size / (2 * zoom)
    for side in (-1, 1):
        hilum = (size / 2 + side * 0.2 * per, size / 2 - 0.02 * per)
        ahead = (0 if side > 0 else math.pi) + rng.uniform(-1.3, 1.3, 5)
        _branches(rng, vessels, [(*hilum, t, rng.uniform(1.5, 3.5) * size / 256) for t in ahead])
    field += rng.uniform(0.03, 0.13) * cv2.GaussianBlur(vessels, (0, 0), size * 0.006).astype(np.float32) * lungs
    field += rng.uniform(1, 5) * octaves(rng, size, size * 0.06, 0.6) * lungs
    drawn = np.zeros((size, size), np.uint8)
    for side in (-1, 1):
        points = np.array([[0.08, top + 0.12], [0.3, top + 0.02], [0.55, top + 0.05], [0.82, top - 0.1]])
        points[:, 1] += rng.normal(0, 0.02)
        points = (points * (side, 1) * per + size / 2) * 8
        cv2.polylines(drawn, [points.astype(np.int32)], False, 255, max(2, int(0.055 * per)), cv2.LINE_AA, 3)
    field += rng.uniform(15, 40) * cv2.GaussianBlur(drawn, (0, 0), size * 0.006).astype(np.float32) / 255
    if chance(rng, 0.5):  # the stomach's air
        field -= rng.uniform(15, 50) * _oval(x, y, heart_side * 0.4, bottom + 0.2, 0.13, 0.09, 0, 0.04)
    shoulders = np.clip((out - 0.78 - 0.35 * np.clip(y + 0.6, 0, 2)) * 6, 0, 1)
    field += shoulders * rng.uniform(-25, 25)
    air = np.clip((-0.62 - y + (out - 0.25) * -0.5) * 12, 0, 1) * np.clip((out - 0.25) * 8, 0, 1)
    air = np.maximum(air * 0.9, np.clip((out - 1.02 - 0.1 * y) * 20, 0, 1))
    field *= 1 - air * rng.uniform(0.5, 1.0)
    field = (field - 110) * rng.uniform(0.75, 1.3) + rng.uniform(90, 135)
    if chance(rng, 0.04):
        field = 255 - field
    field = cv2.resize(field, (whole, whole), interpolation=cv2.INTER_CUBIC)
    image = _grey(_scanned(rng, field, (0.5, 6)))
    if chance(rng, 0.25):
        _write(rng, image)
    where = _oval(x, y, 0, 0.5 * (top + bottom), 0.82, (bottom - top) * 0.62) > 0.5
    if chance(rng, 0.6):  # findings lie in the lungs mostly
        where &= lungs > 0.4
    where = cv2.resize(where.astype(np.uint8), (whole, whole), interpolation=cv2.INTER_NEAREST) > 0
    name = pick(rng, "chest X-ray", "chest", "chest radiograph", "thorax", "lungs", "X-ray")
    return Scene(image, where, name, pick(rng, "grey", "medical"), modality="xray")


def abdomen(rng: Rng, size: int, photos: Photos) -> Scene:
    """A CT slice of a trunk in Hounsfield units, seen through some window; a quarter are slices of a chest."""
    zoom = rng.uniform(0.95, 1.25) if chance(rng, 0.8) else rng.uniform(0.6, 0.95)
    x, y = _plane(rng, size, wobble := rng.uniform(0.015, 0.04), zoom)
    shift = rng.uniform(-0.3, 0.3) if zoom < 0.95 else 0.0
    x += shift
    flip = -1 if chance(rng, 0.15) else 1
    x *= flip
    soft = 3.2 * zoom / size

    def lay(
        value: float | np.ndarray, cx: float, cy: float, a: float, b: float, turn: float = 0.0,
        soft: float = soft, within: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Fill a small oval, looking only at the part of the picture around it."""
        reach = max(a, b) + 3.5 * wobble + 2 * soft
        middle = (flip * cx - shift) / zoom, cy / zoom
        (left, right), (top, bottom) = (
            (max(int((m - reach / zoom + 1) * size / 2), 0), max(int((m + reach / zoom + 1) * size / 2) + 1, 0))
            for m in middle
        )
        if right <= left or bottom <= top:
            return
        at = slice(top, bottom), slice(left, right)
        alpha = _oval(x[at], y[at], cx, cy, a, b, turn, soft)
        if within is not None:
            alpha *= within[at]
        _over(field[at], alpha, value[at] if isinstance(value, np.ndarray) else value)

    tall = rng.uniform(0.62, 0.82)
    fat = rng.uniform(0.03, 0.16)
    body = _oval(x, y, 0, 0, 0.94, tall, 0, soft)
    field = np.full((size, size), -900, np.float32)
    _over(field, body, rng.uniform(-20, 20))
    _over(field, _oval(x, y, 0, 0, 0.94 - 1.5 * soft, tall - 1.5 * soft, 0, soft), -105.0)
    a, b = 0.92 - fat, tall - 0.02 - fat * rng.uniform(0.7, 1.2)
    wall = _oval(x, y, 0, 0, a, b, 0, soft)
    _over(field, wall, rng.uniform(40, 65))
    thick = rng.uniform(0.05, 0.09)
    cavity = _oval(x, y, 0, -0.03, a - thick, b - thick, 0, soft)
    _over(field, cavity, -95 + 10 * smooth(rng, size, size * 0.05))
    contrast = rng.uniform(0, 1) if chance(rng, 0.7) else 0.0
    blood = 45 + 160 * contrast
    thorax = chance(rng, 0.25)
    vessels = np.zeros((size, size), np.uint8)
    tree = 0.5 * size
    where = cavity > 0.5
    if thorax:
        lungs = np.zeros_like(field)
        for side in (-1, 1):
            lungs = np.maximum(
                lungs, _oval(x, y, side * 0.42, 0.0, 0.33 * rng.uniform(0.9, 1.1), (b - thick) * 0.88, side * 0.1, soft)
            )
        for side in (-1, 1):
            ahead = (0 if side > 0 else math.pi) + rng.uniform(-1.2, 1.2, 4)
            at = (tree * (1 + side * 0.2 / zoom), tree)
            _branches(rng, vessels, [(*at, t, 3.0 * size / 256) for t in ahead])
        _over(field, lungs, -850 + 25 * smooth(rng, size, size * 0.03) + 3.2 * vessels)
        lay(30 + blood / 2, 0.1, -0.1, rng.uniform(0.24, 0.34), rng.uniform(0.22, 0.3), 0.5)
        lay(blood, 0.12, -0.12, 0.13, 0.11, 0.5, soft=soft * 2)
        if chance(rng, 0.5):
            where = lungs > 0.5
    else:
        organ = 55 + 55 * contrast * rng.uniform(0.6, 1.1)
        for _ in range(int(rng.integers(6, 15))):  # loops of bowel
            bx, by = rng.uniform(-0.2, 0.6), rng.uniform(-0.45, 0.3)
            r, q = rng.uniform(0.05, 0.12), rng.uniform(0.6, 1.0)
            turn = rng.uniform(0, 3)
            lay(40 + 50 * contrast, bx, by, r, r * q, turn, within=cavity)
            inside = float(rng.choice([10.0, 25.0, -600.0, 180.0], p=[0.35, 0.35, 0.2, 0.1]))
            lay(inside, bx, by, r * 0.7, r * q * 0.65, turn, within=cavity)
        for side in (-1, 1):  # kidneys: cortex, medulla, fat where the vessels enter
            if chance(rng, 0.75):
                kx, ky, turn = side * rng.uniform(0.36, 0.44), rng.uniform(0.2, 0.3), side * rng.uniform(-0.6, 0.2)
                lay(40 + 150 * contrast, kx, ky, 0.13, 0.1, turn)
                lay(35 + 70 * contrast, kx - side * 0.02, ky, 0.08, 0.055, turn, soft=4 * soft)
                lay(-70.0, kx - side * 0.06, ky - 0.01, 0.05, 0.03, turn, soft=3 * soft)
        if chance(rng, 0.85):
            spleen = _oval(x, y, 0.6, 0.12, 0.15, 0.3, -0.35, soft) * cavity
            _over(field, spleen, organ + 20 * contrast)
        if chance(rng, 0.7):
            sx, sy, r = rng.uniform(0.25, 0.4), rng.uniform(-0.3, -0.15), rng.uniform(0.14, 0.24)
            lay(45.0, sx, sy, r, r * 0.75, 0.4, within=cavity)
            belly = _oval(x, y, sx, sy, r - 0.025, r * 0.75 - 0.025, 0.4, soft) * cavity
            level = sy + rng.uniform(-0.1, 0.08)
            _over(field, belly, float(rng.choice([12.0, 30.0, 150.0])))
            _over(field, belly * np.clip((level - y) / soft + 0.5, 0, 1), -900.0)
        big = rng.uniform(0.7, 1.15)
        liver = _oval(x, y, -0.46, -0.06, 0.34 * big, 0.46 * big, rng.uniform(-0.2, 0.3), soft)
        if chance(rng, 0.7):
            liver = np.maximum(liver, _oval(x, y, -0.1, -0.28, 0.36 * big, 0.17 * big, rng.uniform(-0.2, 0.2), soft))
        liver *= cavity
        roots = [(tree * (1 + flip * rng.uniform(-0.35, -0.2)), tree * rng.uniform(0.8, 1.1)) for _ in range(3)]
        _branches(rng, vessels, [(*at, rng.uniform(0, 6.28), rng.uniform(2, 4) * size / 256) for at in roots])
        shine = (blood - organ) * rng.uniform(0.2, 0.7) * contrast - 8
        texture = 4 * smooth(rng, size, size * 0.04)
        _over(field, liver, organ + texture + shine * cv2.GaussianBlur(vessels, (0, 0), 1.2).astype(np.float32) / 255)
        if chance(rng, 0.4):
            lay(8.0, -0.25, 0.02, 0.06, 0.09, 0.5, within=cavity)
        if chance(rng, 0.4):
            where = liver > 0.5
    back = b - 0.19
    for side in (-1, 1):
        lay(55.0, side * 0.2, back + 0.06, 0.13, 0.11, 0)
    lay(550.0, 0, back - 0.06, 0.115, 0.1, 0)
    lay(190 + 40 * smooth(rng, size, size * 0.01), 0, back - 0.06, 0.095, 0.08, 0)
    for side in (-1, 1):
        lay(480.0, side * 0.11, back + 0.05, 0.1, 0.022, side * 0.3)
    lay(480.0, 0, back + 0.12, 0.02, 0.08, 0)
    lay(30.0, 0, back + 0.045, 0.045, 0.035, 0)
    lay(blood, 0.05, back - 0.21, 0.05, 0.05, 0)
    lay(blood * 0.8, -0.09, back - 0.2, 0.05, 0.04, 0.3)
    for k in range(int(rng.integers(0, 7))):
        for side in (-1, 1):
            t = 0.5 + 0.38 * k + rng.normal(0, 0.05)
            rx, ry = side * math.sin(t) * (a - thick * 0.6), math.cos(t) * (b - thick * 0.6)
            lean = math.atan2(-rx * (b / a), ry * (a / b))
            lay(rng.uniform(250, 700), rx, ry, 0.06, 0.018, lean)
    if chance(rng, 0.4):  # the table
        bed = y - tall - 0.04 + 0.12 * x * x
        field += (np.abs(bed) < 0.012) * np.float32(rng.uniform(300, 800))
    width, centre = (loguni(rng, 180, 500), rng.uniform(10, 90)) if not thorax or chance(rng, 0.5) else (1500.0, -500.0)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.5, 1.0))
    shown = np.clip((field - centre) / width + 0.5, 0, 1) * np.float32(255)
    shown = _scanned(rng, shown, (1.0, 12.0))
    if chance(rng, 0.5):
        shown *= cv2.dilate(body, np.ones((3, 3), np.uint8))
    image = _grey(shown)
    if chance(rng, 0.1):
        _write(rng, image)
    names = ("chest CT", "lung CT", "thorax") if thorax else ("liver CT", "abdominal CT", "liver", "CT scan", "abdomen")
    return Scene(image, where, pick(rng, *names), pick(rng, "grey", "medical", "soft tissue"), modality="ct")


def limb(rng: Rng, size: int, photos: Photos) -> Scene:
    """Bones of hands, joints and limbs: dense borders, spongy insides, a halo of flesh."""
    bones = np.zeros((size, size), np.uint8)
    flesh = np.zeros((size, size), np.uint8)
    unit, angle = size / 2, rng.normal(0, 0.15)
    c, s = math.cos(angle), math.sin(angle)

    def rod(x0: float, y0: float, x1: float, y1: float, shaft: float, ends: float, coat: float) -> None:
        p, q = ((np.array([c * u - s * v, s * u + c * v]) + 1) * unit for u, v in ((x0, y0), (x1, y1)))
        t = np.linspace(0, 1, 14)
        half = (shaft + (ends - shaft) * np.abs(2 * t - 1) ** 3) * unit
        along = (q - p) / max(float(np.linalg.norm(q - p)), 1.0)
        across = np.array([-along[1], along[0]])
        middle = p + (q - p) * t[:, None]
        cap = np.array([math.sin(k) for k in np.linspace(0, math.pi, 5)])
        lid = np.linspace(-1, 1, 5)
        end = q + along * (cap * ends * 0.6 * unit)[:, None] - across * (lid * ends * unit)[:, None]
        start = p - along * (cap * ends * 0.6 * unit)[:, None] + across * (lid * ends * unit)[:, None]
        outline = np.concatenate([middle + across * half[:, None], end, (middle - across * half[:, None])[::-1], start])
        cv2.fillPoly(bones, [(outline * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        ends_at = [tuple((e * 8).astype(int).tolist()) for e in (p, q)]
        cv2.line(flesh, ends_at[0], ends_at[1], 255, max(2, int(coat * 2 * unit)), cv2.LINE_AA, 3)

    kind = rng.random()
    if kind < 0.45:  # a hand
        for k in range(5):
            fan = (k - 2) * rng.uniform(0.1, 0.16) + rng.normal(0, 0.02)
            x0, y0 = (k - 2) * 0.13, 0.3 + 0.03 * abs(k - 2)
            lengths = np.array([0.42, 0.3, 0.19, 0.13]) * (0.75 if k == 0 else 1 - 0.06 * abs(k - 2))
            for n, long in enumerate(lengths[: 3 if k == 0 else 4]):
                x1, y1 = x0 + math.sin(fan) * long, y0 - math.cos(fan) * long
                shaft = 0.034 - 0.006 * n
                rod(x0, y0, x1, y1, shaft, shaft * 1.35, 0.075 if n else 0.11)
                x0, y0 = x1 + math.sin(fan) * 0.055, y1 - math.cos(fan) * 0.055
        for k in range(7):
            rod(-0.22 + 0.15 * (k % 4), 0.42 + 0.12 * (k // 4), -0.2 + 0.15 * (k % 4), 0.45 + 0.12 * (k // 4), 0.05,
                0.055, 0.13)  # fmt: skip
        rod(-0.14, 0.72, -0.16, 1.3, 0.075, 0.11, 0.17)
        rod(0.14, 0.74, 0.16, 1.3, 0.055, 0.08, 0.15)
    elif kind < 0.8:  # a knee, an elbow or an ankle
        wide = rng.uniform(0.12, 0.2)
        bend, gap = rng.normal(0, 0.25), rng.uniform(0.02, 0.05)
        rod(bend * 0.8, -1.5, 0, -gap - wide, wide, wide * 1.7, wide * 2.6)
        rod(0, gap + wide, -bend * 0.5, 1.5, wide * 0.85, wide * 1.6, wide * 2.3)
        if chance(rng, 0.7):
            rod(wide * 1.6, gap + wide + 0.2, wide * 1.5 - bend * 0.5, 1.5, wide * 0.35, wide * 0.5, wide * 1.2)
    else:  # one or two shafts
        for k in range(int(rng.integers(1, 3))):
            rod(k * 0.45 - 0.2, -1.4, k * 0.4 - 0.2 + rng.normal(0, 0.1), 1.4, rng.uniform(0.09, 0.15), 0.2, 0.4)
    bone = bones.astype(np.float32) / 255
    depth = cv2.distanceTransform((bones > 127).astype(np.uint8), cv2.DIST_L2, 3)
    cortex = np.exp(-depth / (size * rng.uniform(0.008, 0.02))) * bone
    coat = cv2.GaussianBlur(cv2.max(flesh, bones), (0, 0), size * rng.uniform(0.01, 0.03)).astype(np.float32) / 255
    field = rng.uniform(5, 25) + rng.uniform(45, 95) * coat * (1 + 0.08 * smooth(rng, size, size * 0.2))
    sponge = octaves(rng, size, size * 0.02, 0.7, 2.5, angle + math.pi / 2)
    field += bone * (rng.uniform(40, 70) + rng.uniform(2, 9) * sponge) + rng.uniform(20, 60) * cortex
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.6, 1.4))
    if chance(rng, 0.08):
        field = 255 - field
    image = _grey(_scanned(rng, field, (0.5, 6)))
    if chance(rng, 0.3):
        _write(rng, image)
    where = (bones if chance(rng, 0.6) else cv2.max(flesh, bones)) > 127
    name = pick(rng, "hand X-ray", "bone X-ray", "joint X-ray", "bone", "knee X-ray", "radiograph")
    return Scene(image, where if where.mean() > 0.03 else full(size), name, pick(rng, "grey", "bony"), modality="xray")


def breast(rng: Rng, size: int, photos: Photos) -> Scene:
    """A mammogram: a half oval of fat and strands that run to the nipple."""
    x, y = _plane(rng, size, 0.02)
    deep, tall = rng.uniform(0.9, 1.6), rng.uniform(0.75, 1.1)
    shape = _oval(x, y, -1.05, 0.0, deep, tall, 0, 0.03)
    radius = np.sqrt(((x + 1.05) / deep) ** 2 + (y / tall) ** 2)
    strands = octaves(rng, size, size * rng.uniform(0.05, 0.12), 0.65, rng.uniform(1.5, 4), rng.normal(0, 0.3))
    gland = np.clip(1.1 - radius * rng.uniform(0.9, 1.6) + 0.25 * smooth(rng, size, size * 0.25), 0, 1)
    field = rng.uniform(50, 90) + rng.uniform(30, 110) * gland * (1 + rng.uniform(0.2, 0.4) * strands)
    field += rng.uniform(2, 8) * strands
    field *= np.clip((1.03 - radius) * 6, 0, 1)
    if chance(rng, 0.6):
        edge = x + 1 - rng.uniform(0.3, 0.8) * (-y - rng.uniform(-0.3, 0.2))
        _over(field, np.clip(-edge * 10, 0, 1) * shape, rng.uniform(110, 190) + 5 * strands)
    field = _scanned(rng, cv2.GaussianBlur(field * shape, (0, 0), 0.7), (0.5, 5))
    where = shape > 0.7
    if chance(rng, 0.5):
        field, where = np.ascontiguousarray(field[:, ::-1]), np.ascontiguousarray(where[:, ::-1])
    name = pick(rng, "mammogram", "breast", "breast X-ray")
    return Scene(_grey(field), where, name, pick(rng, "grey", "soft tissue"), modality="xray")


# --- scopes, skin, eyes ----------------------------------------------------------------------------------------------


def _table(*colours: tuple[float, float, float]) -> np.ndarray:
    """A 256-entry colour table through the given colours."""
    at, where = np.linspace(0, 1, len(colours)), np.linspace(0, 1, 256)
    knots = np.array(colours)
    return np.clip(np.stack([np.interp(where, at, knots[:, k]) for k in range(3)], -1), 0, 255).astype(np.uint8)


def _window(rng: Rng, size: int) -> np.ndarray:
    """What an endoscope's frame leaves free: all, a disc, an octagon or a square with cut corners (uint8)."""
    shape = np.zeros((size, size), np.uint8)
    kind, half = rng.random(), size / 2
    if kind < 0.3:
        shape[:] = 255
    elif kind < 0.5:
        cv2.circle(shape, (int(half), int(half)), int(size * rng.uniform(0.45, 0.62)), 255, -1, cv2.LINE_AA)
    else:
        w, h, cut = half * rng.uniform(0.85, 1.0), half * rng.uniform(0.8, 1.0), half * rng.uniform(0.1, 0.55)
        corners = [(-w, -h + cut), (-w + cut, -h), (w - cut, -h), (w, -h + cut)]
        corners += [(-a, -b) for a, b in corners]
        points = (np.array(corners) + half + rng.normal(0, 0.02, 2) * size) * 8
        cv2.fillPoly(shape, [points.astype(np.int32)], 255, cv2.LINE_AA, 3)
    return shape


def mucosa(rng: Rng, size: int, photos: Photos) -> Scene:
    """The inside of a bowel or stomach: folds around a dark lumen or a wall near by, fine vessels, wet glints."""
    half = size // 2  # all but the fine grain is smooth
    x, y = _plane(rng, half, rng.uniform(0.02, 0.08))
    relief = smooth(rng, half, half * rng.uniform(0.2, 0.5))
    if chance(rng, 0.7):
        lx, ly = rng.uniform(-0.7, 0.7, 2)
        u, v = x - lx, y - ly
        angle = np.arctan2(v, u)
        corner = int(rng.integers(2, 5))  # folds are often triangular
        bulge = 1 + rng.uniform(0, 0.22) * np.cos(corner * angle + rng.uniform(0, 6.28))
        r = np.sqrt(u * u + v * v) * bulge + 0.03
        far = np.log(r)
        phase = far * rng.uniform(5, 16) + rng.uniform(0.2, 1.2) * relief + rng.uniform(0, 6.28)
        ridge = np.sin(phase + 0.7 * np.sin(phase))
        fade = np.clip(1.2 - np.abs(np.cos(angle * 0.5 + rng.uniform(0, 6))) * rng.uniform(0, 1.0), 0, 1)
        folds = ridge * fade * rng.uniform(0.04, 0.2)
        h = rng.uniform(0.5, 0.62) + rng.uniform(0.16, 0.3) * np.tanh(far + rng.uniform(0.3, 1.4)) + folds
        h -= rng.uniform(0.2, 0.5) * np.exp(-((r / rng.uniform(0.1, 0.3)) ** 2))
    else:
        folds = rng.uniform(0.02, 0.1) * np.sin(relief * rng.uniform(1, 3))
        lamp_x, lamp_y = rng.uniform(-0.5, 0.5, 2)
        h = 0.72 + folds - rng.uniform(0.1, 0.4) * ((x - lamp_x) ** 2 + (y - lamp_y) ** 2)
    h, folds = (cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in (h + 0.03 * relief, folds))
    h += rng.uniform(0.003, 0.02) * octaves(rng, size, size * rng.uniform(0.012, 0.05), 0.7)
    kind = rng.random()
    if kind < 0.92:
        warm = rng.uniform(0.0, 1.0)
        table = _table(
            (25, 5, 6),
            (120 + 20 * warm, 35 + 25 * warm, 30 + 10 * warm),
            (rng.uniform(185, 225), rng.uniform(90, 135), rng.uniform(65, 115)),
            (250, rng.uniform(170, 215), rng.uniform(140, 195)),
        )
        red = (rng.uniform(120, 170), rng.uniform(30, 60), rng.uniform(30, 60))
    else:  # narrow-band light
        table = _table((10, 15, 15), (70, 80, 70), (150, 165, 140), (215, 225, 205))
        red = (70, 60, 40)
    image = paint(h, table)
    image = relight(image, np.clip(1 + rng.uniform(0.5, 2.5) * folds, 0.5, 1.5).astype(np.float32))
    vessels = np.zeros((size, size), np.uint8)
    roots = rng.uniform(0, (size, size, 6.28, 1), (int(rng.integers(1, 7)), 4))
    roots[:, 3] = (0.8 + 1.6 * roots[:, 3] ** 2) * size / 256
    _branches(rng, vessels, roots.tolist(), 0.3)
    strength = rng.uniform(0.15, 0.55)
    image = blend(image, _flat(size, red), cv2.convertScaleAbs(cv2.GaussianBlur(vessels, (0, 0), 0.8), alpha=strength))
    if chance(rng, 0.85):
        wet = smooth(rng, size, size * rng.uniform(0.012, 0.04)) + 0.7 * smooth(rng, size, size * 0.15) + 9 * folds
        glint = np.clip((wet + 1.2 * h - rng.uniform(3.4, 4.4)) * 400, 0, 255).astype(np.uint8)
        if chance(rng, 0.5):
            glint = cv2.dilate(glint, np.ones((1, 3), np.uint8))
        image = blend(image, _flat(size, (255, 252, 248)), cv2.GaussianBlur(glint, (0, 0), rng.uniform(0.5, 1.1)))
    if chance(rng, 0.4):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.8))
    shape = _window(rng, size)
    if chance(rng, 0.5):  # the light falls off towards the corners
        fall = 1 - rng.uniform(0.2, 0.6) * np.clip((x * x + y * y) / 2, 0, 1)
        fall = cv2.resize(fall, (size, size), interpolation=cv2.INTER_LINEAR)
        image = cv2.multiply(image, cv2.merge([fall] * 3), dtype=cv2.CV_8U)
    image = blend(_flat(size, (rng.uniform(0, 12),) * 3), image, shape)
    if shape[2, 2] < 128 and chance(rng, 0.25):
        _write(rng, image)
    name = pick(rng, "colonoscopy image", "endoscopy image", "colon", "intestine", "bowel wall", "stomach", "mucosa")
    return Scene(image, shape > 127, name, pick(rng, "pink", "moist", "soft tissue"), modality="mucosa")


def dermoscopy(rng: Rng, size: int, photos: Photos) -> Scene:
    """Healthy skin under a dermatoscope or a camera: lines, pores, freckles, hairs, a ruler, dark corners."""
    x, y = _plane(rng, size)
    tone = np.array(
        [(238, 200, 185), (225, 175, 150), (205, 150, 118), (160, 108, 80), (105, 68, 50), (225, 160, 160)]
    )[int(rng.choice(6, p=[0.26, 0.26, 0.16, 0.1, 0.06, 0.16]))] + rng.normal(0, 5, 3)
    relief = 0.5 * smooth(rng, size, size * 0.4) + 0.3 * octaves(rng, size, size * rng.uniform(0.02, 0.06), 0.7)
    if chance(rng, 0.6):
        _, labels, _n = cells(rng, size, size * loguni(rng, 0.02, 0.08), 0.3)
        lines = cv2.GaussianBlur((labels % 13).astype(np.float32) / 13 - 0.5, (0, 0), size * 0.004)
        relief += rng.uniform(0.2, 1.0) * lines
    factor = 1 + loguni(rng, 0.02, 0.09) * relief
    blush = smooth(rng, size, size * rng.uniform(0.08, 0.3)) * rng.uniform(0.5, 4)
    image = _toned(factor, tone, blush, (0.3, -1.0, -0.7))
    if chance(rng, 0.35):  # freckles all over
        spots = np.zeros((size, size), np.uint8)
        for _ in range(int(rng.integers(15, 90))):
            at = (int(rng.uniform(0, size) * 8), int(rng.uniform(0, size) * 8))
            cv2.circle(spots, at, int(size * loguni(rng, 0.004, 0.012) * 8), int(rng.integers(60, 160)), -1, 16, 3)
        brown = tone * rng.uniform(0.6, 0.85)
        image = blend(image, _flat(size, np.clip(brown, 0, 255)), cv2.GaussianBlur(spots, (0, 0), size * 0.005))
    if chance(rng, 0.3):
        pores = np.clip((smooth(rng, size, size * rng.uniform(0.012, 0.03)) - 1.9) * 200, 0, 255).astype(np.uint8)
        image = blend(image, _flat(size, np.clip(tone * rng.uniform(0.65, 0.9), 0, 255)), pores)
    if chance(rng, 0.25):
        vessels = np.zeros((size, size), np.uint8)
        _branches(rng, vessels, [(*rng.uniform(0, size, 2), rng.uniform(0, 6), 1.2) for _ in range(4)], 0.3)
        vessels = cv2.convertScaleAbs(cv2.GaussianBlur(vessels, (0, 0), 1.0), alpha=rng.uniform(0.1, 0.4))
        image = blend(image, _flat(size, np.clip(tone * (0.9, 0.6, 0.65), 0, 255)), vessels)
    if chance(rng, 0.5):
        hairs = np.zeros((size, size), np.uint8)
        heading, thick = rng.uniform(0, 6.28), loguni(rng, 0.6, 2.2) * size / 256
        for _ in range(int(loguni(rng, 3, 50))):
            turns = heading + rng.normal(0, 0.5) + np.linspace(0, rng.normal(0, 0.8), 10)
            step = size * rng.uniform(0.015, 0.07)
            points = rng.uniform(0, size, 2) + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], -1) * step, 0)
            cv2.polylines(hairs, [(points * 8).astype(np.int32)], False, 230, max(1, round(thick)), cv2.LINE_AA, 3)
        colour = tone * rng.uniform(0.1, 0.6) if chance(rng, 0.85) else np.array([235, 225, 205])
        image = blend(image, _flat(size, np.clip(colour, 0, 255)), cv2.GaussianBlur(hairs, (0, 0), 0.6))
    if chance(rng, 0.2):
        _rule(rng, image)
    if chance(rng, 0.15):  # bubbles in the gel
        for _ in range(int(rng.integers(3, 20))):
            at = (int(rng.uniform(0, size)), int(rng.uniform(0, size)))
            cv2.circle(image, at, int(rng.uniform(0.008, 0.025) * size), (250, 245, 240), 1, cv2.LINE_AA)
    radius, mask = np.sqrt(x * x + y * y), full(size)
    if chance(rng, 0.35):
        reach, soft = rng.uniform(0.95, 1.3), rng.uniform(0.02, 0.3)
        lit = np.clip((reach - radius) / soft + 0.5, 0, 1)
        image = cv2.multiply(image, cv2.merge([0.03 + 0.97 * lit] * 3), dtype=cv2.CV_8U)
        mask = lit > 0.7
    name = pick(rng, "skin", "dermoscopy image", "skin image", "patch of skin", "human skin", "dermatoscope image")
    return Scene(image, mask, name, pick(rng, "soft", "natural", "smooth"), modality="skin")


def _rule(rng: Rng, image: np.ndarray) -> None:
    """Marks of a ruler along one side."""
    size = len(image)
    pitch, at, side = size * rng.uniform(0.03, 0.07), rng.uniform(0.01, 0.06) * size, int(rng.integers(4))
    level = int(rng.uniform(10, 60)) if chance(rng, 0.7) else 240
    for k in range(int(size / pitch) + 1):
        far = int(size * (0.05 if k % 10 == 0 else 0.035 if k % 5 == 0 else 0.022))
        p, q = (int(k * pitch), int(at)), (int(k * pitch), int(at + far))
        if side % 2:
            p, q = p[::-1], q[::-1]
        if side > 1:
            p, q = (size - p[0], size - p[1]), (size - q[0], size - q[1])
        cv2.line(image, p, q, (level, level, level), max(1, size // 256), cv2.LINE_AA)


def fundus(rng: Rng, size: int, photos: Photos) -> Scene:
    """The back of an eye: arcades that bend round a dark macula, a bright disc with a cup."""
    x, y = _plane(rng, size, 0.01)
    zoom = rng.uniform(0.88, 1.0) if chance(rng, 0.7) else rng.uniform(1.0, 1.6)
    half = size / 2
    nasal = -1 if chance(rng, 0.5) else 1
    mx, my = rng.normal(0, 0.12), rng.normal(0, 0.06)
    dx, dy = mx + nasal * rng.uniform(0.45, 0.58) * zoom, my - rng.uniform(-0.02, 0.08)
    tone = np.array([rng.uniform(150, 230), rng.uniform(65, 120), rng.uniform(15, 65)])
    grey = chance(rng, 0.12)
    if grey:
        tone[:] = rng.uniform(90, 150)  # red-free
    shade = 1 + 0.1 * smooth(rng, size, size * 0.4) + rng.uniform(0.005, 0.03) * octaves(rng, size, size * 0.03, 0.7)
    shade -= rng.uniform(0.05, 0.3) * (x * x + y * y)
    macula = np.exp(-((x - mx) ** 2 + (y - my) ** 2) / rng.uniform(0.01, 0.035))
    shade -= rng.uniform(0.1, 0.35) * macula
    if chance(rng, 0.3):  # the choroid's vessels shine through
        shade += rng.uniform(0.02, 0.08) * np.abs(smooth(rng, size, size * 0.06, 2.5, rng.uniform(0, 3)))
    image = _toned(shade, tone)
    for vein in (False, True):
        drawn = np.zeros((size, size), np.uint8)
        width = (rng.uniform(2.0, 3.6) if vein else rng.uniform(1.4, 2.6)) * size / 256 * zoom
        for sign in (-1, 1):
            t = np.linspace(0, 1, 26)
            sweep, tall = rng.uniform(1.3, 1.9), rng.uniform(0.5, 0.75) * zoom
            arc_x = dx - nasal * sweep * t**1.5 * zoom + rng.normal(0, 0.02) + 0.015 * np.sin(t * rng.uniform(8, 20))
            arc_y = (
                dy + sign * tall * np.sin(t * rng.uniform(1.7, 2.3)) ** 0.75 + 0.015 * np.sin(t * rng.uniform(8, 20))
            )
            points = np.stack([arc_x + 1, arc_y + 1], -1) * half
            for k in range(0, 24, 2):
                w = max(1, round(width * (1 - 0.6 * k / 24)))
                cv2.polylines(drawn, [(points[k : k + 3] * 8).astype(np.int32)], False, 255, w, cv2.LINE_AA, 3)
            out = (0 if nasal > 0 else math.pi) + sign * rng.uniform(0.2, 1.0)
            starts = [((dx + 1) * half, (dy + 1) * half, out, width * 0.6)]
            for k in rng.integers(3, 22, 5):
                ahead = points[k + 1] - points[k]
                heading = math.atan2(ahead[1], ahead[0]) + (1 if chance(rng, 0.5) else -1) * rng.uniform(0.5, 1.1)
                starts.append((*points[k], heading, width * rng.uniform(0.3, 0.6)))
            _branches(rng, drawn, starts, 0.13, 0.35)
        colour = (
            tone * ((0.5,) * 3 if grey else (0.55, 0.35, 0.45) if vein else (0.78, 0.5, 0.5)) * rng.uniform(0.8, 1.1)
        )
        drawn = cv2.convertScaleAbs(cv2.GaussianBlur(drawn, (0, 0), 0.6 * size / 256), alpha=rng.uniform(0.5, 0.9))
        image = blend(image, _flat(size, np.clip(colour, 0, 255)), drawn)
    r = rng.uniform(0.1, 0.15) * zoom
    bright = np.clip(tone * 1.25 + ((40,) * 3 if grey else (25, 65, 50)), 0, 255)
    rim = (_oval(x, y, dx, dy, r, r * 1.1, 0, 0.03) * rng.uniform(170, 230)).astype(np.uint8)
    image = blend(image, _flat(size, bright), rim)
    cup = rng.uniform(0.25, 0.55)
    image = blend(
        image,
        _flat(size, np.clip(bright + 35, 0, 255)),
        (_oval(x, y, dx, dy, r * cup, r * cup, 0, 0.03) * 180).astype(np.uint8),
    )
    if chance(rng, 0.3):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.2))
    shape = np.zeros((size, size), np.uint8)
    cv2.circle(shape, (int(half), int(half)), int(size * rng.uniform(0.45, 0.56)), 255, -1, cv2.LINE_AA)
    image = blend(_flat(size, (rng.uniform(0, 10),) * 3), image, shape)
    name = pick(rng, "retina", "fundus image", "eye fundus", "retinal photograph", "retinal image")
    return Scene(image, shape > 127, name, pick(rng, "orange", "vascular"), modality="retina")


_OCT = np.array(  # thickness and brightness of the retina's layers from the vitreous down
    [
        (0.14, 0.75),
        (0.16, 0.5),
        (0.13, 0.3),
        (0.08, 0.55),
        (0.22, 0.16),
        (0.03, 0.4),
        (0.06, 0.9),
        (0.05, 0.35),
        (0.08, 1.0),
    ]
)


def oct_scan(rng: Rng, size: int, photos: Photos) -> Scene:
    """Retinal OCT: the layers in their order, a pit, vessels' shadows, the choroid's holes, speckle."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    floor = rng.uniform(0.5, 0.75) + rng.normal(0, 0.06) * x + rng.uniform(-0.08, 0.1) * x * x
    thick = rng.uniform(0.16, 0.34) * (1 + 0.06 * smooth(rng, size, size * 0.4)[0])
    pit = np.exp(-((x - rng.normal(0, 0.2)) ** 2) / rng.uniform(0.01, 0.06)) * (
        chance(rng, 0.7) * rng.uniform(0.25, 0.65)
    )
    sizes = _OCT[:, 0] * np.exp(rng.normal(0, 0.12, len(_OCT)))
    values = np.clip(_OCT[:, 1] * np.exp(rng.normal(0, 0.12, len(_OCT))), 0.05, 1.1)
    edges = np.concatenate([[0], np.cumsum(sizes / sizes.sum())])
    # The pit presses on the inner layers alone; the outer ones keep their place.
    depth = 1 - (floor[None] - y) / thick[None]
    squeeze = pit[None] * 0.6
    depth = np.where(depth < 0.6, (depth - squeeze) / np.maximum(1 - squeeze / 0.6, 0.05), depth).astype(np.float32)
    table = np.interp(np.linspace(-0.25, 1.25, 512), np.repeat(edges, 2)[1:-1] + np.tile([1e-3, -1e-3], len(_OCT)),
                      np.repeat(values, 2), left=0.0, right=0.0)  # fmt: skip
    index = np.clip((depth + 0.25) / 1.5 * 511, 0, 511).astype(np.int32)
    field = table.astype(np.float32)[index]
    below = np.clip((y - floor[None]) / rng.uniform(0.12, 0.3), 0, 3)
    holes = 0.75 + 0.3 * smooth(rng, size, size * 0.05, 1.6)
    field = np.where(y > floor[None], rng.uniform(0.4, 0.7) * np.exp(-below * rng.uniform(0.8, 1.5)) * holes, field)
    for _ in range(int(rng.integers(0, 5))):  # vessels cast shadows
        at, wide = rng.uniform(-1, 1), rng.uniform(0.008, 0.025)
        shadow = rng.uniform(0.2, 0.6) * np.exp(-(((x - at) / wide) ** 2))
        field *= 1 - shadow[None] * (depth > 0.12)
    field = cv2.GaussianBlur(field.astype(np.float32), (0, 0), rng.uniform(0.6, 1.6) * size / 256)
    speckle = cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=rng.uniform(0.7, 1.6), sigmaY=0.6) * 1.8
    base = rng.uniform(4, 45)
    field = base + (rng.uniform(150, 230) - base) * field * (1 + rng.uniform(0.1, 0.4) * speckle)
    field += rng.uniform(2, 10) * np.abs(white(rng, size))
    if chance(rng, 0.08):
        field = 255 - field
    where = (depth > -0.05) & (y < floor[None] + 0.06)
    name = pick(rng, "retinal OCT", "OCT scan", "retina", "OCT image", "retinal layers")
    return Scene(_grey(field), where, name, pick(rng, "layered", "grey"), modality="oct")


# --- ultrasound ------------------------------------------------------------------------------------------------------


def sonogram(rng: Rng, size: int, photos: Photos) -> Scene:
    """Echoes of layered tissue: thyroid, breast, liver or muscle; speckle; from a straight or a curved probe."""
    x, y = _plane(rng, size, rng.uniform(0.01, 0.04))
    deep = (y + 1) / 2
    stretch = rng.uniform(2, 5)
    layers = smooth(rng, size, size * rng.uniform(0.04, 0.12), stretch, rng.normal(0, 0.12))
    echo = 0.45 + rng.uniform(0.04, 0.14) * layers + 0.06 * smooth(rng, size, size * 0.3)
    skin, fat = rng.uniform(0.03, 0.07), rng.uniform(0.12, 0.3)
    _over(echo, np.clip((skin - deep) * 60, 0, 1), rng.uniform(0.6, 0.95))
    organ = pick(rng, "thyroid", "thyroid", "breast", "breast", "liver", "muscle")
    if organ == "thyroid":
        strands = smooth(rng, size, size * 0.02, 6, 0.0)
        muscle = np.clip(1 - np.abs(deep - fat) * 14, 0, 1)
        _over(echo, muscle, 0.28 + 0.08 * strands)
        side = -1 if chance(rng, 0.5) else 1
        for cx in (0.0,) if chance(rng, 0.5) else (-0.42, 0.42):
            a, b = (0.75, 0.3) if cx == 0 else (0.36, 0.33)
            lobe = _oval(x, y, cx, 0.02, a * rng.uniform(0.85, 1.1), b * rng.uniform(0.85, 1.1), side * 0.1, 0.06)
            _over(echo, lobe, rng.uniform(0.5, 0.68) + 0.03 * layers)
        if chance(rng, 0.6):
            vessel = _oval(x, y, side * 0.8, 0.05, 0.13, 0.12, 0, 0.03)
            _over(echo, _oval(x, y, side * 0.8, 0.05, 0.15, 0.14, 0, 0.03), 0.7)
            _over(echo, vessel, 0.04)
    elif organ == "breast":
        septa = np.abs(smooth(rng, size, size * rng.uniform(0.08, 0.16), 1.8, rng.normal(0, 0.3)))
        _over(echo, np.clip((fat + 0.12 - deep) * 9, 0, 1), 0.22 + 0.4 * np.exp(-septa * 9))
        _over(echo, np.clip(1 - np.abs(deep - fat - 0.22) * 6, 0, 1), 0.62 + 0.06 * layers)
        strands = smooth(rng, size, size * 0.02, 8, rng.normal(0, 0.08))
        _over(echo, np.clip((deep - rng.uniform(0.6, 0.75)) * 14, 0, 1), 0.3 + 0.1 * strands)
    elif organ == "liver":
        echo = 0.5 + 0.05 * smooth(rng, size, size * 0.2)
        holes = np.zeros((size, size), np.uint8)
        roots = rng.uniform(
            (0.2 * size, 0.2 * size, 0, 4 * size / 256), (0.8 * size, 0.8 * size, 6.28, 10 * size / 256), (2, 4)
        )
        _branches(rng, holes, roots.tolist())
        _over(echo, cv2.GaussianBlur(holes, (0, 0), 1.5).astype(np.float32) / 255, 0.1)
        if chance(rng, 0.6):
            arc = np.abs(deep - 0.85 + rng.uniform(0.1, 0.3) * (x - rng.normal(0, 0.3)) ** 2)
            echo += 0.5 * np.exp(-((arc / 0.015) ** 2))
    else:
        strands = smooth(rng, size, size * 0.025, 9, rng.normal(0, 0.15))
        echo = 0.35 + 0.13 * strands
        for _ in range(int(rng.integers(1, 4))):
            at, lean = rng.uniform(0.15, 0.8), rng.normal(0, 0.08)
            echo += 0.4 * np.exp(-(((deep - at - lean * x) / 0.012) ** 2))
    for _ in range(int(rng.integers(0, 4))):  # fascia
        at = rng.uniform(0.1, 0.9)
        bent = deep - at - rng.normal(0, 0.06) * x - rng.normal(0, 0.05) * x * x
        echo += rng.uniform(0.1, 0.35) * np.exp(-((bent / rng.uniform(0.006, 0.015)) ** 2))
    if chance(rng, 0.4):
        echo *= np.exp(-rng.uniform(0.2, 1.5) * np.clip(deep - 0.3, 0, 1))
    wide = rng.uniform(0.8, 2.6) * size / 256
    fine = [cv2.GaussianBlur(white(rng, size), (0, 0), sigmaX=wide, sigmaY=0.75) for _ in range(2)]
    speckle = cv2.magnitude(*fine)
    speckle *= np.float32(1 / max(float(speckle.mean()), 1e-6))
    rough = rng.uniform(0.45, 1.0)
    field = np.clip(echo, 0.0, 1.3) ** rng.uniform(0.9, 1.7) * (1 - rough + rough * speckle) * rng.uniform(150, 255)
    field = np.clip(field, 0, 255).astype(np.float32)
    mask = np.ones((size, size), bool)
    if chance(rng, 0.45):  # a curved probe: beams fan out
        opening, start = rng.uniform(0.4, 0.8), rng.uniform(0.15, 0.6)
        gx, gy = _plane(rng, size)
        py = (gy + 1) / 2 * (1 + start * 0.02) + start
        radius, angle = np.sqrt((gx * 0.62) ** 2 + py * py), np.arctan2(gx * 0.62, py)
        mask = (np.abs(angle) < opening) & (radius > start) & (radius < 1 + start - 0.01)
        at_x, at_y = (angle / opening + 1) * (size / 2), (radius - start) * size
        field = np.where(mask, cv2.remap(field, at_x, at_y, cv2.INTER_LINEAR), 0)
    if chance(rng, 0.3):
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 0.9))
    image = _grey(field)
    if chance(rng, 0.2):
        tint = np.array([rng.uniform(0.85, 1.0), 0.95, rng.uniform(0.8, 1.1)])
        image = np.clip(image * tint, 0, 255).astype(np.uint8)
    if chance(rng, 0.2):
        for k in range(8):
            cv2.circle(image, (size - 4, int((k + 0.5) * size / 8)), 1, (220, 220, 220), -1)
    names = {"thyroid": ("thyroid ultrasound", "thyroid"), "breast": ("breast ultrasound", "breast tissue")}
    name = pick(rng, "ultrasound", "sonogram", "ultrasound image", *names.get(organ, (f"{organ} ultrasound",)))
    return Scene(image, mask, name, pick(rng, "grey", "speckled"), modality="ultrasound")


# --- cells -----------------------------------------------------------------------------------------------------------


def histology(rng: Rng, size: int, photos: Photos) -> Scene:
    """H&E: pink strands with scattered purple nuclei, glands lined by them, sometimes bubbles of fat."""
    pink = np.array([rng.uniform(205, 240), rng.uniform(130, 195), rng.uniform(175, 220)])
    purple = np.array([rng.uniform(65, 125), rng.uniform(40, 90), rng.uniform(105, 160)])
    white_ = rng.uniform(225, 248) + np.array([3, 0, 4])
    angle = rng.uniform(0, 3.14)
    strands = octaves(rng, size, size * rng.uniform(0.03, 0.1), 0.65, rng.uniform(1, 5), angle)
    image = _toned(1 + 0.03 * strands, pink, strands, (0.0, 8.0, 2.0))
    gaps = np.clip((strands - rng.uniform(1.2, 2.4)) * 200, 0, 230).astype(np.uint8)
    image = blend(image, _flat(size, white_), cv2.GaussianBlur(gaps, (0, 0), 0.7))
    unit = size * loguni(rng, 0.008, 0.026)  # a nucleus
    nuclei = np.zeros((size, size), np.uint8)
    taken = np.zeros((size, size), np.uint8)
    places: list[tuple[float, float, float, float]] = []
    kind = rng.random()
    if kind < 0.5:
        ring = max(unit * rng.uniform(4, 8), size / 18)
        per = max(2, int(size / (ring * rng.uniform(2.3, 3.2))))
        for gy in range(per + 1):
            for gx in range(per + 1):
                if chance(rng, 0.15):
                    continue
                cx, cy = (np.array([gx, gy]) + rng.uniform(-0.25, 0.25, 2)) * size / per
                a, b, turn = ring * rng.uniform(0.75, 1.1), ring * rng.uniform(0.55, 1.0), rng.uniform(0, 3.14)
                at, lean = (int(cx * 8), int(cy * 8)), math.degrees(turn)
                wall = tuple(np.clip(pink * (0.92, 0.82, 0.95), 0, 255).tolist())
                cv2.ellipse(image, at, (int(a * 8), int(b * 8)), lean, 0, 360, wall, -1, cv2.LINE_AA, 3)
                inner = rng.uniform(0.2, 0.55)
                hole = (int(a * inner * 8), int(b * inner * 8))
                cv2.ellipse(image, at, hole, lean, 0, 360, white_.tolist(), -1, cv2.LINE_AA, 3)
                cv2.ellipse(taken, at, (int(a * 8), int(b * 8)), lean, 0, 360, 255, -1, 8, 3)
                count = int(2 * math.pi * math.sqrt(a * b) / (unit * 2.1))
                for t in np.arange(count) * 2 * math.pi / max(count, 1):
                    u, v = 0.84 * a * math.cos(t), 0.84 * b * math.sin(t)
                    px, py = cx + u * math.cos(turn) - v * math.sin(turn), cy + u * math.sin(turn) + v * math.cos(turn)
                    places.append((px, py, t + turn, 1.3))
    elif kind < 0.65:  # fat
        _, labels, _n = cells(rng, size, size * rng.uniform(0.12, 0.25), 0.4)
        bubbles = (cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((5, 5))) == 0).astype(
            np.uint8
        )
        image = blend(image, _flat(size, white_), cv2.GaussianBlur(bubbles * 255, (0, 0), 1.2))
        taken |= bubbles * 255
    crowd = rng.uniform(0.06, 0.3)
    for px, py in rng.uniform(0, size, (int(min(500, crowd * size * size / (unit * unit * 3.14))), 2)):
        if not taken[int(py), int(px)]:
            places.append((px, py, angle + rng.normal(0, 0.4), rng.uniform(1.0, 2.2)))
    order = rng.permutation(len(places))[:480]
    for k in order:
        px, py, turn, long = places[k]
        r = unit * rng.uniform(0.8, 1.15)
        axes = (int(r * long**0.5 * 4), int(r / long**0.5 * 4))
        at = (int(px * 8), int(py * 8))
        cv2.ellipse(nuclei, at, axes, math.degrees(turn), 0, 360, int(rng.integers(150, 250)), -1, cv2.LINE_AA, 3)
    rough = np.clip(1 + 0.15 * smooth(rng, size, 2.5), 0, 1.1)
    nuclei = np.clip(cv2.GaussianBlur(nuclei, (0, 0), 0.6) * rough, 0, 255).astype(np.uint8)
    image = blend(image, _flat(size, purple), nuclei)
    if chance(rng, 0.3):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.0))
    name = pick(rng, "histology slide", "tissue section", "histopathology image", "tissue", "microscope slide")
    return Scene(image, full(size), name, pick(rng, "stained", "cellular", "pink"), modality="cells")


def blood(rng: Rng, size: int, photos: Photos) -> Scene:
    """A blood smear: pale-centred red cells, a few white ones; or a culture of round cells in phase contrast."""
    grey = chance(rng, 0.25)
    ground = np.array([rng.uniform(215, 245)] * 3) + rng.normal(0, 7, 3)
    red = np.array([rng.uniform(190, 225), rng.uniform(120, 165), rng.uniform(130, 175)])
    if grey:
        ground[:] = rng.uniform(110, 170)
        red[:] = ground * rng.uniform(0.75, 1.2)
    image = _flat(size, np.clip(ground, 0, 255))
    r = size * loguni(rng, 0.018, 0.06)
    n = max(3, int(size / (r * rng.uniform(2.2, 3.6))))
    spots = (np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1)), -1).reshape(-1, 2)) * size / n
    spots = spots + rng.normal(0, 0.22, spots.shape) * size / n
    edge = tuple(np.clip(red * rng.uniform(0.8, 0.95), 0, 255).tolist())
    pale = tuple(np.clip(red * 0.3 + ground * 0.7, 0, 255).tolist())
    hollow = rng.uniform(0.25, 0.5)
    for x, y in spots[rng.random(len(spots)) < rng.uniform(0.6, 0.98)]:
        a, b, turn = r * rng.uniform(0.9, 1.1), r * rng.uniform(0.85, 1.1), rng.uniform(0, 180)
        at = (int(x * 8), int(y * 8))
        cv2.ellipse(image, at, (int(a * 8), int(b * 8)), turn, 0, 360, edge, -1, cv2.LINE_AA, 3)
        cv2.ellipse(image, at, (int(a * 7), int(b * 7)), turn, 0, 360, red.tolist(), -1, cv2.LINE_AA, 3)
        cv2.ellipse(image, at, (int(a * hollow * 8), int(b * hollow * 8)), turn, 0, 360, pale, -1, cv2.LINE_AA, 3)
    image = cv2.GaussianBlur(image, (0, 0), max(0.6, r * 0.07))
    shade = (1 + 0.03 * smooth(rng, size, size * 0.5) + 0.012 * white(rng, size)).astype(np.float32)
    image = cv2.multiply(image, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
    name = pick(rng, "blood smear", "red blood cells", "microscope image", "cells", "micrograph")
    return Scene(image, full(size), name, pick(rng, "cellular", "round", "stained"), modality="cells")


BODIES: dict[str, tuple[Family, float]] = {
    "head_slice": (head_slice, 2.6),
    "chest": (chest, 1.8),
    "abdomen": (abdomen, 1.8),
    "limb": (limb, 0.5),
    "breast": (breast, 0.5),
    "mucosa": (mucosa, 2.4),
    "dermoscopy": (dermoscopy, 2.0),
    "fundus": (fundus, 1.2),
    "oct_scan": (oct_scan, 1.2),
    "sonogram": (sonogram, 1.6),
    "histology": (histology, 1.2),
    "blood": (blood, 0.5),
}
