"""Healthy heads in scans: template slices, bent and in other contrasts, whole or the brain alone."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Scene, chance, loguni, only, pick, white
from synthesis.scenes.bodies.base import body_plane, grey_picture, scanned, smooth, write_marks
from synthesis.scenes.bodies.medical import slice_scan

_LEVELS = np.array([0, 0.12, 0.3, 0.56, 0.8, 1.1, 1.4])  # T1: air, bone, fluid, grey matter, white matter, fat
_CONTRASTS: dict[str, tuple[float, ...]] = {
    "T1": (0.0, 0.1, 0.25, 0.55, 0.8, 1.0, 1.0),
    "T2": (0.0, 0.3, 0.95, 0.56, 0.36, 0.5, 0.6),
    "FLAIR": (0.0, 0.06, 0.14, 0.62, 0.46, 0.6, 0.7),
    "PD": (0.0, 0.3, 0.75, 0.78, 0.6, 0.7, 0.8),
    "CT": (0.3, 0.3, 0.36, 0.5, 0.45, 0.46, 0.46),
}


def _brain(t1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segment head and brain (uint8 0/1) of a T1 slice in [0, 1]; the brain is the largest part without thin links."""
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
    """Segment a slice without a skull: furrows and ventricles belong to the brain, and a head is put around it."""
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
    """Draw a slice of a real healthy head, bent, turned and given another sequence's or scanner's contrast."""
    slices = only(photos, 1)
    if not slices or chance(rng, 0.05):
        return slice_scan(rng, size, photos)
    raw = slices[int(rng.integers(len(slices)))]
    left, top, width, height = cv2.boundingRect((raw > 24).astype(np.uint8))
    if min(width, height) < 32:
        return slice_scan(rng, size, photos)
    x, y = body_plane(rng, size)
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
    contrast = np.array(_CONTRASTS[which]) if which else np.append([0.0, 0.1], rng.uniform(0.1, 1, 5))
    spread = 0.012 if which == "CT" else 0.05
    contrast[1:] = np.maximum(contrast[1:] + rng.normal(0, spread, 6), 0)
    index = np.clip(t1 * 180, 0, 255).astype(np.uint8)
    levels = np.arange(256) / 180
    tissue = cv2.LUT(index, np.interp(levels, _LEVELS, contrast).astype(np.float32))
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
    else:  # a monotonic map for scalp and bone, or the rim to the air would light up
        scale = rng.uniform(0.4, 1.0)
        outside = cv2.LUT(
            index, (np.interp(levels, _LEVELS, (0, 0.07, 0.15, 0.35, 0.5, 0.8, 0.95)) * scale).astype("f4")
        )
    field = (tissue * soft_brain + outside * (1 - soft_brain)) * np.float32(rng.uniform(170, 240))
    stripped = (bare and which != "CT") or chance(rng, 0.1 if which == "CT" else 0.25)
    if stripped:
        field *= soft_brain
    if which != "CT":
        field *= 1 + rng.uniform(0, 0.2) * smooth(rng, size, size * rng.uniform(0.6, 1.2))
    field = scanned(rng, field, (0.5, 3.0))
    level = loguni(rng, 0.5, 9)
    if chance(rng, 0.5):  # Rician: dark pixels get the amplitude of the noise
        field = cv2.magnitude(np.maximum(field, 0) + level * white(rng, size), level * white(rng, size))
    if chance(rng, 0.5):
        field *= soft_brain if stripped else cv2.GaussianBlur(head.astype(np.float32), (0, 0), 1.0)
    image = grey_picture(field)
    if chance(rng, 0.06):
        write_marks(rng, image)
    where = brain > 0
    if which == "CT":
        name, modality = pick(rng, "head CT", "brain CT", "CT scan of a head", "head", "brain"), "ct"
    else:
        name, modality = pick(rng, "brain MRI", "brain scan", "brain", "head MRI", "brain slice", "MRI slice"), "mri"
    return Scene(image, where, name, pick(rng, "grey", "medical", "soft tissue"), modality=modality)
