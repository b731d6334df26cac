"""Cloth close and far: woven, ribbed, knitted, looped, open and printed, with yarns of uneven thickness."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import (
    Painter,
    Photos,
    Rng,
    Surface,
    cell_edges,
    cells,
    chance,
    loguni,
    normalise,
    pick,
    smooth,
    white,
)
from synthesis.scenes.surfaces.base import develop, emboss, finish, light, profile, tone, upright


def drape(rng: Rng, size: int, probability: float = 0.3) -> np.ndarray:
    """Return shading around 1 of soft wrinkles all over the cloth, or of none."""
    if not chance(rng, probability):
        return np.ones((size, size), np.float32)
    hills = smooth(rng, size, size * rng.uniform(0.12, 0.4), loguni(rng, 1, 4), rng.uniform(0, 3))
    return 1 + emboss(hills, rng.uniform(0, 6.3), loguni(rng, 0.03, 0.16))


def yarns(rng: Rng, size: int, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Return warp and weft coordinates in yarns, whose paths waver."""
    turn = rng.choice([0.0, 0.0, rng.normal(0, 0.05), rng.uniform(-0.8, 0.8)])
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    wander = np.float32(period * loguni(rng, 0.05, 0.6))
    u = c * x + s * y + wander * smooth(rng, size, size * rng.uniform(0.1, 0.5)) + np.float32(1000)
    v = c * y - s * x + wander * smooth(rng, size, size * rng.uniform(0.1, 0.5)) + np.float32(1000)
    return u / np.float32(period), v / np.float32(period * loguni(rng, 0.7, 1.5))


def _over(rng: Rng, ia: np.ndarray, ib: np.ndarray, kind: str) -> np.ndarray:
    """Return where the warp lies on top."""
    if kind == "basket":
        return (ia // 2 + ib // 2) % 2 == 0
    if kind in ("twill", "denim"):
        n = int(rng.integers(3, 6))
        return (ia + ib) % n < max(1, n - 1 if kind == "denim" else n // 2)
    if kind == "herringbone":
        turn = int(rng.integers(6, 16))
        return (np.where(ia // turn % 2 == 0, ia, -ia) + ib) % 4 < 2
    if kind == "satin":
        return (2 * ia + ib) % 5 != 0
    if kind == "jacquard":  # figure in warp satin on a ground of weft satin
        n = int(rng.integers(10, 40))
        motif = cv2.resize(rng.random((4, 4)).astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC) > 0.5
        motif = np.hstack([motif, motif[:, ::-1]])
        figure = motif[ib % n, ia % (2 * n)]
        return np.where(figure, (2 * ia + ib) % 5 != 0, (2 * ia + ib) % 5 == 0)
    return (ia + ib) % 2 == 0


def _bands(rng: Rng, index: np.ndarray) -> np.ndarray:
    """Return stripes by yarn number: brightness steps that repeat."""
    n = int(rng.integers(2, 7))
    repeat = np.repeat(rng.uniform(0.35, 1.1, n), rng.integers(1, 12, n)).astype(np.float32)
    return repeat[index % len(repeat)]


def cloth(rng: Rng, size: int, photos: Photos) -> Surface:
    kind = pick(rng, "plain", "plain", "twill", "denim", "satin", "basket", "herringbone", "jacquard")
    period = loguni(rng, 2.4, 16)
    a, b = yarns(rng, size, period)
    ia, ib = a.astype(np.int32), b.astype(np.int32)
    over = _over(rng, ia, ib, kind)
    fa, fb = a - ia - 0.5, b - ib - 0.5
    uneven = loguni(rng, 0.02, 0.14)
    warp = 1 - rng.uniform(0.8, 2.6) * fa * fa - 0.5 * fb * fb + uneven * profile(rng, 512, 0)[ia & 511]
    weft = 1 - rng.uniform(0.8, 2.6) * fb * fb - 0.5 * fa * fa + uneven * profile(rng, 512, 0)[ib & 511]
    warp = warp + uneven * smooth(rng, size, period, 10, math.pi / 2)  # thickness varies along each yarn
    weft = weft + uneven * smooth(rng, size, period, 10, 0)
    if period > 7:  # the plies of the yarn
        warp = warp + 0.12 * np.cos((b * 3 + fa * 2) * np.float32(6.283))
        weft = weft + 0.12 * np.cos((a * 3 + fb * 2) * np.float32(6.283))
    if chance(rng, 0.25):
        warp = warp * _bands(rng, ia)
        weft = weft * (_bands(rng, ib) if chance(rng, 0.5) else 1)
    folds = drape(rng, size) + loguni(rng, 0.02, 0.12) * white(rng, size)
    name = "denim" if kind == "denim" else pick(rng, "fabric", "cloth", "textile", "woven fabric", "canvas")
    first = tone(rng, 50, 215, "pale", "blue", "brown", "paint")
    if kind == "denim":
        first = rng.uniform(50, 110) * np.array([0.6, 0.8, 1.25] if chance(rng, 0.7) else [1.0, 1.0, 1.0])
    second = first * rng.uniform(0.6, 1.1) if kind != "denim" else np.full(3, rng.uniform(130, 215))
    field = light(rng, size) * folds
    top, below = (np.maximum(part * field, 0).astype(np.float32) for part in (warp, weft))
    if chance(rng, 0.15) and kind != "denim":  # light from behind shines through between the yarns
        gap = np.clip((np.minimum(np.abs(np.abs(fa) - 0.5), np.abs(np.abs(fb) - 0.5)) - 0.12) * -6, 0, 1)
        top, below = top + gap * rng.uniform(0.1, 0.4), below + gap * rng.uniform(0.1, 0.4)
    pairs = zip(first, second, strict=True)
    mixed = [cv2.convertScaleAbs(np.where(over, top * np.float32(c), below * np.float32(d))) for c, d in pairs]
    return finish(rng, cv2.merge(mixed)), name, pick(rng, "woven", kind, "cotton")


def ribbed(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw corduroy and rib knit: soft ribs with pile or stitches on them."""
    kind, period = pick(rng, "corduroy", "rib knit", "knit", "ribbed fabric"), loguni(rng, 5, 28)
    a, b = yarns(rng, size, period)
    fa = a - np.floor(a) - 0.5
    ridge = np.cos(fa * np.float32(math.pi))
    if "knit" in kind:  # V-shaped stitches
        row = b * np.float32(rng.uniform(1.5, 2.5)) - np.abs(fa) * np.float32(rng.uniform(1, 2.5))
        ridge = ridge * 0.6 + 0.3 * np.cos(row * np.float32(6.283)) + 0.25
    pile = smooth(rng, size, 1.4, 2.5, math.pi / 2)
    shade = 0.55 + rng.uniform(0.25, 0.5) * ridge + loguni(rng, 0.02, 0.1) * pile
    shade = shade * drape(rng, size) + 0.04 * profile(rng, 512, 0)[np.floor(a).astype(np.int32) & 511]
    image = develop(rng, upright(rng, shade.astype(np.float32)), tone(rng, 60, 220, "brown", "blue", "paint", "pale"))
    return image, kind, pick(rng, "ribbed", "cotton", "woollen")


def pile(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw terry, carpet pile, velvet, felt, fleece: loops or hair without order, brushed here and there."""
    kind = pick(rng, "towel", "carpet", "velvet", "fleece", "rug")
    sigma = loguni(rng, 0.7, 2.5)
    hair = smooth(rng, size, sigma * 1.5, loguni(rng, 1, 4), rng.uniform(0, 3))
    shade = 1 + (0.5 if kind == "velvet" else 1) * emboss(hair, rng.uniform(0, 6.3), loguni(rng, 0.05, 0.22))
    if kind in ("carpet", "towel", "rug"):
        a, b = yarns(rng, size, loguni(rng, 4, 14))
        shade = shade + rng.uniform(0.03, 0.12) * (np.cos(a * np.float32(6.283)) + np.cos(b * np.float32(6.283)))
    shade = shade * drape(rng, size, 0.15) + 0.04 * smooth(rng, size, size * 0.2)
    return develop(rng, shade, tone(rng, 50, 220, "brown", "blue", "pale", "paint")), kind, pick(rng, "soft", "tufted")


def lace(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw net, lace or gauze: threads around open cells, on a dark or bright ground."""
    if chance(rng, 0.5):
        a, b = yarns(rng, size, loguni(rng, 4, 22))
        width = rng.uniform(0.12, 0.32)
        near = np.minimum(np.abs(a - np.round(a)), np.abs(b - np.round(b)))
        thread = np.clip((width - near) * 6, 0, 1)
    else:
        _, labels, _ = cells(rng, size, loguni(rng, 7, 30), 1.0)
        thread = cv2.GaussianBlur(cell_edges(labels, int(rng.integers(2, 5))), (0, 0), 0.9).astype(np.float32) / 255
    behind = rng.uniform(0.15, 0.5) if chance(rng, 0.7) else rng.uniform(1.3, 1.8)
    shade = behind + (1 - behind) * thread * (1 + 0.12 * smooth(rng, size, 2)) * drape(rng, size)
    image = develop(rng, shade.astype(np.float32), tone(rng, 80, 140, "pale", "blue"))
    return image, pick(rng, "net", "lace", "gauze", "mesh fabric"), pick(rng, "open", "knitted", "woven")


def printed(rng: Rng, size: int, photos: Photos) -> Surface:
    """Draw cloth with a repeated motif in one or two inks."""
    image, _, _ = cloth(rng, size, photos)
    w, h = (int(loguni(rng, 20, 90)) for _ in range(2))
    tile = cv2.GaussianBlur(np.tile(rng.standard_normal((h, w)).astype(np.float32), (3, 3)), (0, 0), min(w, h) / 9)
    alpha = np.clip(normalise(tile[h : 2 * h, w : 2 * w], 1.0) * 4 - rng.uniform(2, 5), 0, 1)
    alpha = np.tile(alpha, (size // h + 2, size // w + 2))[5 : size + 5, 5 : size + 5].astype(np.float32)
    ink = tone(rng, 30, 235, "paint", "blue", "brown") / 150
    scale = 1 + alpha[..., None] * (ink.astype(np.float32) - 1) * np.float32(rng.uniform(0.4, 1))
    image = np.clip(image * scale, 0, 255).astype(np.uint8)
    return image, pick(rng, "printed fabric", "patterned textile", "tablecloth", "curtain"), "printed"


FABRICS: dict[str, tuple[Painter, float]] = {
    "cloth": (cloth, 4.0),
    "ribbed": (ribbed, 1.2),
    "pile": (pile, 1.2),
    "lace": (lace, 0.7),
    "printed": (printed, 1.0),
}
