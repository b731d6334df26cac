"""Cutouts of photographed and rendered things, recoloured and lit, to lie among shaded parts."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, pick, relight, smooth, white
from synthesis.scenes.products.parts import any_part
from synthesis.scenes.products.studio import Skin, Studio, Thing, blurred, shaded, sober, sources_of


def cutout(rng: Rng, photos: Photos, studio: Studio, extent: int) -> Thing:
    """Return an object from a cutout: as it is, grey, recoloured, of another material, or as a relief."""
    sources = sources_of(photos, 4)
    if not sources:
        return any_part(rng, studio, photos, extent)
    colors, alpha = _square(sources[int(rng.integers(len(sources)))], int(np.clip(extent, 48, 288)))
    grey = cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY)
    styles = ("own", "dull", "grey", "hue", "two", "material", "relief")
    style = str(rng.choice(styles, p=[0.2, 0.2, 0.1, 0.1, 0.13, 0.13, 0.14]))
    side = len(alpha)
    if style in ("own", "dull"):
        keep = rng.uniform(0.75, 1.0) if style == "own" else rng.uniform(0.15, 0.7)
        colors = cv2.addWeighted(colors, keep, cv2.merge([grey] * 3), 1 - keep, 0)
    elif style == "grey":
        colors = cv2.merge([grey] * 3)
    elif style == "hue":
        hsv = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + int(rng.integers(15, 165))) % 180
        hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=rng.uniform(0.3, 0.9))
        colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    elif style in ("two", "material"):  # its own lights and darks, in another colour
        base = np.array(sober(rng, 50))
        dark = base * rng.uniform(0.08, 0.4)
        light = base + (255 - base) * rng.uniform(0.1, 0.6)
        at = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.7, 1.5)
        table = (dark * (1 - at) + light * at).astype(np.uint8).reshape(1, 256, 3)
        colors = cv2.LUT(cv2.merge([_stretched(grey, alpha)] * 3), table)
    if style == "relief":
        skin = Skin(rng, photos, side, str(rng.choice(["metal", "metal", "cast", "plastic"])))
        albedo, detail = skin.lay(rng, side)
        low = blurred(_stretched(grey, alpha), max(1.0, side * loguni(rng, 0.005, 0.02)))
        depth = blurred(alpha, side * 0.02).astype(np.float32)
        height = (low.astype(np.float32) * np.float32(rng.uniform(0.02, 0.07)) + depth * 0.06) * np.float32(side / 255)
        height += detail * np.float32(skin.bump * 0.5)
    elif style == "material" or chance(rng, 0.25):
        texture = Skin(rng, photos, side, "photo" if style == "material" else None)
        colors = relight(colors, 1 + texture.lay(rng, side)[1])
    light = rng.uniform(0, 0.35) if chance(rng, 0.6) else 0.0
    bend = rng.uniform(0.002, 0.012) if chance(rng, 0.4) else 0.0
    noise, rim = loguni(rng, 0.004, 0.03), rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.5)])
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    inner = blurred(alpha, max(0.8, side * 0.012)).astype(np.float32) / 255

    def draw(rng: Rng, n: int, angle: float) -> Sprite:
        if style == "relief":
            image = shaded(albedo, height, skin.metal, skin.gloss, studio, angle, 0.35, alpha)
        else:
            a = studio.azimuth + math.radians(angle)
            slope = math.cos(a) * axis[None] + math.sin(a) * axis[:, None]
            factor = (1 + light * slope) * (1 + np.float32(noise) * white(rng, side))
            factor *= 1 + np.float32(rim) * np.clip(1.8 - 2 * inner, 0, 1)
            image = relight(colors, factor.astype(np.float32))
        shape = alpha
        if bend > 0:
            bent = [
                np.float32(bend * side) * smooth(rng, side, side * 0.4) + g
                for g in np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
            ]
            image, shape = (cv2.remap(m, *bent, cv2.INTER_LINEAR) for m in (image, shape))
        if n != side:
            way = cv2.INTER_AREA if n < side else cv2.INTER_LINEAR
            image, shape = (cv2.resize(m, (n, n), interpolation=way) for m in (image, shape))
        return image, shape

    names = ("object", "toy", "figure", "food", "tool", "part", "product", "item", "model", "ornament", "utensil")
    finish = {"relief": "metal", "material": "textured", "grey": "grey"}.get(style, "plastic")
    rows = np.flatnonzero(alpha.max(1) > 60)
    tall = (rows[-1] - rows[0]) / side if len(rows) else 1.0
    return Thing(draw, pick(rng, *names), pick(rng, finish, "coloured", "solid"), float(np.clip(tall, 0.3, 1)))


def _square(source: np.ndarray, side: int) -> Sprite:
    """Return a trimmed cutout on a square of `side`, its colours spread beyond its outline."""
    x, y, w, h = cv2.boundingRect((source[..., 3] > 40).astype(np.uint8))
    if min(w, h) < 4:
        x, y, (h, w) = 0, 0, source.shape[:2]
    scale = side * 0.94 / max(w, h)
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(source[y : y + h, x : x + w]), size, interpolation=way)
    canvas = np.zeros((side, side, 4), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    alpha = np.ascontiguousarray(canvas[..., 3])
    solid = (alpha > 200).astype(np.uint8) * np.uint8(255)
    colors = cv2.bitwise_and(*[np.ascontiguousarray(canvas[..., :3])] * 2, mask=solid)
    share = 255 / (cv2.blur(solid, (9, 9)) + np.float32(1))
    spread = cv2.multiply(cv2.blur(colors, (9, 9)), cv2.merge([share, share, share]), dtype=cv2.CV_8U)
    return cv2.copyTo(colors, solid, spread), alpha


def _stretched(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Stretch the object's brightness over the whole range."""
    inside = grey[alpha > 127][::7]
    if inside.size < 4:
        return grey
    low, high = np.percentile(inside, [2, 98])
    gain = 255 / max(high - low, 30.0)
    return cv2.LUT(grey, np.clip((np.arange(256) - low) * gain, 0, 255).astype(np.uint8))


def thing(rng: Rng, photos: Photos, studio: Studio, extent: int, cut: float = 0.5) -> Thing:
    make_cutout = chance(rng, cut) and bool(sources_of(photos, 4))
    return cutout(rng, photos, studio, extent) if make_cutout else any_part(rng, studio, photos, extent)
