"""Light and finish of product pictures: lamps, skins, height-map shading, things, grounds, shadows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, normalise, octaves, only, relight, smooth, white

Draw = Callable[[Rng, int, float], Sprite]
_CHARS = "ABCDEFGHJKLMNPRSTUVXZ0123456789012345678901234567890-./"


def sober(rng: Rng, low: float = 18, high: float = 238) -> tuple[float, float, float]:
    """Draw a colour of industrial goods: grey, black, off-white, brown, brass, dark green; rarely vivid."""
    roll = rng.random()
    if roll < 0.36:
        value = rng.uniform(low, high)
        red, green, blue = value + rng.normal(0, 0.018 * value, 3)
        return tuple(np.clip([red, green, blue], 0, 255))  # type: ignore[return-value]
    table = (
        (0.50, (0, 180), (0, 40), (18, 58)),  # black plastics
        (0.64, (10, 30), (5, 50), (185, 240)),  # off-whites
        (0.79, (7, 18), (60, 165), (55, 190)),  # browns, wood, cardboard
        (0.87, (14, 25), (80, 150), (130, 215)),  # brass, copper, wax
        (0.93, (55, 118), (50, 150), (35, 125)),  # dark greens and blues
        (1.01, (0, 180), (90, 225), (80, 230)),  # a vivid one
    )
    hue, saturation, value = next(row[1:] for row in table if roll < row[0])
    pixel = np.array([[[rng.uniform(*hue) % 180, rng.uniform(*saturation), rng.uniform(*value)]]], np.uint8)
    color = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
    lift = np.clip(color.max(), low, high) / max(color.max(), 1.0)
    return tuple(color * lift)  # type: ignore[return-value]


_sorted: list[tuple[Photos, int, dict[int, list[np.ndarray]]]] = []


def sources_of(photos: Photos, channels: int) -> list[np.ndarray]:
    """Return `only`, cached for the collection last used, since a search for every skin adds up."""
    if not _sorted or _sorted[0][0] is not photos or _sorted[0][1] != len(photos):
        _sorted[:] = [(photos, len(photos), {k: only(photos, k) for k in (1, 3, 4)})]
    return _sorted[0][2][channels]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian blur; a wide one is computed on a smaller copy, which is much faster."""
    if sigma < 3:
        return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    times = 2 if sigma < 8 else 4
    size = (max(2, image.shape[1] // times), max(2, image.shape[0] // times))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / times)
    return cv2.resize(small, image.shape[1::-1])


def flat(size: int, color: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the same as `plain`, several times faster."""
    image = np.empty((size, size, 3), np.uint8)
    cv2.rectangle(image, (0, 0), (size, size), [float(c) for c in color], -1)
    return image


def stamp(rng: Rng, low: int = 2, high: int = 7) -> str:
    """Draw a type number, as stamped or printed on parts."""
    return "".join(_CHARS[i] for i in rng.integers(len(_CHARS), size=int(rng.integers(low, high))))


class Studio:
    """The light of a picture, as tables from the surface's direction to diffuse, sheen and mirror brightness."""

    def __init__(self, rng: Rng, dark: bool = False) -> None:
        self.azimuth = float(rng.uniform(0, 2 * math.pi))
        axis = np.linspace(-1, 1, 65, dtype=np.float32)
        nx, ny = np.broadcast_to(axis[None], (65, 65)), np.broadcast_to(axis[:, None], (65, 65))
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.02))
        height, ambient = rng.uniform(0.65, 1.35), rng.uniform(0.25, 0.7)
        cx, cy = math.cos(self.azimuth), math.sin(self.azimuth)
        facing = np.clip(math.cos(height) * (cx * nx + cy * ny) + math.sin(height) * nz, 0, None) / math.sin(height)
        diffuse = (ambient + (1 - ambient) * facing) * (0.55 + 0.45 * nz)
        rx, ry = 2 * nz * nx, 2 * nz * ny
        lamps = np.zeros((65, 65), np.float32)
        for k in range(int(rng.integers(1, 4))):  # soft boxes of several widths, the first where the light is
            turn = self.azimuth + (0 if k == 0 else rng.uniform(1, 5))
            away, width = rng.uniform(0.2, 0.95), loguni(rng, 0.07, 0.5)
            reach = np.hypot(rx - away * math.cos(turn), ry - away * math.sin(turn))
            lamps += rng.uniform(0.5, 1.3) / (1 + np.exp(np.minimum((reach - width) * (4 / width), 40)))
        if chance(rng, 0.3) or dark:  # a ring light
            reach = np.abs(np.hypot(rx, ry) - rng.uniform(0.4, 0.95))
            lamps += rng.uniform(0.5, 1.2) / (1 + np.exp((reach - 0.1) * 30))
        surroundings = (
            0.5 + rng.uniform(0.05, 0.3) * (cx * rx + cy * ry) - 0.35 * np.clip(np.hypot(rx, ry) - 0.7, 0, None)
        )
        mirror = surroundings + rng.uniform(0.5, 1.2) * lamps
        mirror *= rng.uniform(0.75, 1.15) / max(float(mirror[32, 32]), 0.3)
        sheen = np.clip(lamps - 0.85 * lamps[32, 32], 0, None)
        if dark:  # light from the side only: flat areas stay black
            diffuse, sheen = 0.12 * diffuse + 0.9 * sheen, 1.4 * sheen
            mirror = 0.12 + 1.6 * sheen
        self.diffuse, self.sheen, self.mirror = (
            np.ascontiguousarray(np.clip(t, 0.02, 3), np.float32) for t in (diffuse, sheen - 0.02, mirror)
        )
        self.view = rng.normal(0, 0.05, 2)


class Skin:
    """A finish: colour, fine detail from a photograph or from noise, and how it reflects light."""

    def __init__(self, rng: Rng, photos: Photos, extent: int, kind: str | None = None) -> None:
        kind = kind or str(rng.choice(["metal", "plastic", "photo", "cast", "paint"], p=[0.32, 0.26, 0.24, 0.1, 0.08]))
        side = int(np.clip(extent, 48, 256))
        sources = sources_of(photos, 3)
        self.kind, self.side, self.metal, self.gloss = kind, side, 0.0, 0.0
        color: np.ndarray = np.array(sober(rng))
        if kind == "photo" and not sources:
            kind = "cast"
        if kind == "photo":
            crop = photo_window(rng, sources, side)
            grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
            # Large structure of a photograph would look like a blotch on a small part, so most of it is removed.
            grey -= np.float32(rng.uniform(0.6, 1.0)) * blurred(grey, side * 0.1)
            detail = normalise(grey, loguni(rng, 0.025, 0.1)) - 0.5
            own = np.array(cv2.mean(crop)[:3])
            own = own.mean() + (own - own.mean()) * rng.uniform(0.2, 1.0)
            color = own if chance(rng, 0.5) else color
            self.gloss, bump = rng.uniform(0, 0.35), loguni(rng, 0.2, 2.0)
        elif kind == "metal":
            color = _metal_color(rng)
            streak = chance(rng, 0.45)
            detail = octaves(rng, side, loguni(rng, 1.2, 4), 0.6, 40 if streak else 1, rng.choice([0.0, math.pi / 2]))
            detail = (normalise(detail, loguni(rng, 0.008, 0.07)) - 0.5).astype(np.float32)
            self.metal, self.gloss, bump = rng.uniform(0.55, 1.0), rng.uniform(0, 0.3), loguni(rng, 0.2, 2.5)
        elif kind == "cast":
            detail = normalise(octaves(rng, side, loguni(rng, 2, 9), 0.8), loguni(rng, 0.03, 0.12)) - 0.5
            self.metal, self.gloss, bump = rng.uniform(0, 0.5), rng.uniform(0, 0.2), loguni(rng, 1, 5)
        else:
            detail = loguni(rng, 0.004, 0.025) * white(rng, side) + 0.015 * smooth(rng, side, side * 0.3)
            self.gloss, bump = (rng.uniform(0.1, 0.9), 0.3) if kind == "plastic" else (rng.uniform(0.3, 0.7), 0.8)
        self.color = tuple(np.clip(color, 12, 242))
        self.detail = np.ascontiguousarray(detail, np.float32)
        self.bump = bump
        factor = 1 + self.detail
        self.map = cv2.multiply(flat(side, self.color), cv2.merge([factor] * 3), dtype=cv2.CV_8U)
        if kind == "photo" and chance(rng, 0.4):  # the photograph's own hues, faintly
            hues = cv2.subtract(crop, blurred(crop, side * 0.1), dtype=cv2.CV_32F)
            self.map = cv2.add(flat(side, self.color), hues * np.float32(rng.uniform(0.3, 1)), dtype=cv2.CV_8U)

    def lay(self, rng: Rng, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return albedo and relief of a piece of the skin."""
        if side > self.side:  # mirrored beyond its border rather than enlarged, since grain has a fixed size
            more = side - self.side
            around = (more // 2, more - more // 2) * 2
            return tuple(cv2.copyMakeBorder(m, *around, cv2.BORDER_REFLECT_101) for m in (self.map, self.detail))  # type: ignore[return-value]
        y, x = (int(a) for a in rng.integers(0, self.side - side + 1, 2))
        area = (slice(y, y + side), slice(x, x + side))
        return self.map[area].copy(), self.detail[area]


def photo_window(rng: Rng, sources: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Return a square window of a photograph."""
    source = sources[int(rng.integers(len(sources)))]
    shorter = min(source.shape[:2])
    window = int(min(max(loguni(rng, 0.25, 1.0) * shorter, 40), shorter))
    y, x = (int(rng.integers(0, n - window + 1)) for n in source.shape[:2])
    way = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    crop = cv2.resize(np.ascontiguousarray(source[y : y + window, x : x + window, :3]), (side, side), interpolation=way)
    return crop if chance(rng, 0.5) else np.ascontiguousarray(crop.transpose(1, 0, 2))


def _metal_color(rng: Rng) -> np.ndarray:
    roll = rng.random()
    if roll < 0.72:
        return np.full(3, rng.uniform(80, 205)) + rng.normal(0, 4, 3)
    if roll < 0.86:
        return np.array([200, 165, 95]) * rng.uniform(0.7, 1.1) + rng.normal(0, 6, 3)  # brass, gold
    if roll < 0.93:
        return np.array([190, 115, 80]) * rng.uniform(0.7, 1.1) + rng.normal(0, 6, 3)  # copper
    return np.array([60, 58, 62]) * rng.uniform(0.7, 1.3)  # black oxide


class Relief:
    """A part that is being drawn: outline, height (pixels), colour and finish on a square canvas."""

    def __init__(self, rng: Rng, side: int, skin: Skin) -> None:
        self.side, self.skin = side, skin
        self.albedo, detail = skin.lay(rng, side)
        self.height = detail * np.float32(skin.bump * 0.6)
        self.alpha = np.zeros((side, side), np.uint8)
        self.metal: float | np.ndarray = skin.metal
        self.gloss: float | np.ndarray = skin.gloss

    def mask(self) -> np.ndarray:
        return np.zeros((self.side, self.side), np.uint8)

    def lift(self, mask: np.ndarray, amount: float, bevel: float) -> None:
        """Raise (or sink) the area of the mask by `amount` of the side, with sloped edges of `bevel` of the side."""
        soft = blurred(mask, max(0.6, bevel * self.side))
        self.height += soft.astype(np.float32) * np.float32(amount * self.side / 255)

    def coat(self, mask: np.ndarray, skin: Skin, rng: Rng) -> None:
        """Apply another finish inside the mask."""
        a = mask.astype(np.float32) * np.float32(1 / 255)
        self.albedo = cv2.blendLinear(self.albedo, skin.lay(rng, self.side)[0], 1 - a, a)
        self.metal = self.metal * (1 - a) + skin.metal * a
        self.gloss = self.gloss * (1 - a) + skin.gloss * a

    def shade(self, studio: Studio, angle: float = 0.0, occlusion: float = 0.35) -> Sprite:
        finish = (self.albedo, self.height, self.metal, self.gloss)
        return shaded(*finish, studio, angle, occlusion, self.alpha), self.alpha


@dataclass(frozen=True)
class Thing:
    """A kind of object: `draw(rng, side, angle)` returns an instance, lit as if it were then turned by `angle`."""

    draw: Draw
    name: str
    material: str
    tall: float = 1.0  # height against width, so that rows can lie close


def material_of(skin: Skin) -> str:
    return {"metal": "metal", "plastic": "plastic", "cast": "cast", "paint": "painted"}.get(skin.kind, "textured")


def shaded(
    albedo: np.ndarray,
    height: np.ndarray,
    metal: float | np.ndarray,
    gloss: float | np.ndarray,
    studio: Studio,
    angle: float = 0.0,
    occlusion: float = 0.35,
    alpha: np.ndarray | None = None,
) -> np.ndarray:
    """Render a surface under the studio's light, as it looks once turned by `angle` degrees."""
    side = height.shape[0]
    gx, gy = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=-0.125), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=-0.125)
    steep = np.float32(31) / np.sqrt(1 + gx * gx + gy * gy)
    a = math.radians(angle)
    c, s = np.float32(math.cos(a)), np.float32(math.sin(a))
    # Even a flat mirror varies in brightness, since the viewing direction varies over it.
    lean = np.linspace(-5, 5, side, dtype=np.float32)
    across = (c * gx + s * gy) * steep + (32 + 31 * np.float32(studio.view[0]) + lean[None] * np.float32(0.6))
    down = (c * gy - s * gx) * steep + (32 + 31 * np.float32(studio.view[1]) + lean[:, None] * np.float32(0.6))
    across, down = cv2.convertMaps(across, down, cv2.CV_16SC2)

    def look_up(table: np.ndarray) -> np.ndarray:
        return cv2.remap(table, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    if isinstance(metal, np.ndarray):
        factor = look_up(studio.diffuse)
        factor += (look_up(studio.mirror) - factor) * metal
    else:
        factor = look_up(studio.diffuse * np.float32(1 - metal) + studio.mirror * np.float32(metal))
    if occlusion > 0:
        small = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        around = cv2.resize(cv2.GaussianBlur(small, (0, 0), max(1.0, side * 0.015)), (side, side))
        factor *= np.clip(1 - np.float32(occlusion * 14 / side) * (around - height), 0.35, 1.08)
        if alpha is not None:
            rim = blurred(alpha, max(1.0, side * 0.012)).astype(np.float32)
            factor *= 1 - np.float32(occlusion) * np.clip(1.9 - rim * np.float32(2 / 255), 0, 1)
    image = cv2.multiply(albedo, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
    if not isinstance(gloss, np.ndarray) and gloss < 0.02:
        return image
    bright = cv2.convertScaleAbs(look_up(studio.sheen) * np.asarray(gloss, np.float32), alpha=170.0)
    return cv2.add(image, cv2.merge([bright] * 3))


def write(mask: np.ndarray, content: str, x: float, y: float, height: float) -> None:
    """Write text centred at (x, y)."""
    scale = max(height, 4.0) / 22
    thick = max(1, round(height / 11))
    (w, h), _ = cv2.getTextSize(content, 0, scale, thick)
    cv2.putText(mask, content, (int(x - w / 2), int(y + h / 2)), 0, scale, 255, thick, cv2.LINE_AA)


# --- grounds------------------------------------------------------------------------------------


def ground(rng: Rng, size: int, photos: Photos, studio: Studio) -> np.ndarray:
    """Draw what products lie on: a paper sweep, black felt, plastic, wood or cloth from photographs, steel."""
    sources = sources_of(photos, 3)
    roll = rng.random()
    if roll < 0.3 and sources:
        image = photo_window(rng, sources, size)
        if chance(rng, 0.6):  # few floors are vivid
            grey, keep = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), rng.uniform(0.0, 0.5)
            image = cv2.addWeighted(image, keep, cv2.merge([grey] * 3), 1 - keep, 0)
        if chance(rng, 0.5):  # toned down, so as not to outshine the things
            keep, tone = rng.uniform(0.15, 0.6), np.array(sober(rng))
            mean = np.array(cv2.mean(image)[:3])
            image = cv2.convertScaleAbs(cv2.addWeighted(image, keep, flat(size, tone), 1 - keep, 0))
            image = cv2.subtract(image, (*((mean - tone) * keep * 0.8).clip(0).tolist(), 0.0))
        return image
    if roll < 0.42:
        skin = Skin(rng, photos, size)
        albedo, detail = skin.lay(rng, size)
        return shaded(albedo, detail * np.float32(skin.bump * 0.5), skin.metal, skin.gloss, studio, 0.0, 0.0)
    if roll < 0.62:
        value = rng.uniform(200, 250)
    elif roll < 0.8:
        value = rng.uniform(4, 50)
    else:
        value = -1.0
    color = sober(rng) if value < 0 else tuple(np.clip(value + rng.normal(0, 3, 3), 0, 255))
    image = flat(size, color)
    fine = 1 + loguni(rng, 0.002, 0.03) * white(rng, size)
    if chance(rng, 0.4):
        fine = cv2.GaussianBlur(fine, (0, 0), rng.uniform(0.6, 1.4))
    return relight(image, fine * (1 + 0.02 * smooth(rng, size, size * 0.4)))


def cast_shadow(rng: Rng, cover: np.ndarray, studio: Studio) -> np.ndarray:
    """Return the brightness of the ground under a contact shadow and a cast one."""
    size = len(cover)
    half = cv2.resize(cover, (size // 2, size // 2), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    contact = blurred(half, max(0.8, size * loguni(rng, 0.003, 0.012)))
    fall, soft = size * rng.uniform(0.0, 0.04), max(0.7, size * loguni(rng, 0.002, 0.035))
    shift = np.float32([[1, 0, -fall * math.cos(studio.azimuth) / 2], [0, 1, -fall * math.sin(studio.azimuth) / 2]])
    cast = blurred(cv2.warpAffine(half, shift, half.shape[::-1]), soft)
    dark = (1 - np.float32(rng.uniform(0.1, 0.6)) * contact) * (1 - np.float32(rng.uniform(0.0, 0.6)) * cast)
    return cv2.resize(dark, (size, size))
