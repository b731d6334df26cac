"""The camera: light, lens, sensor and file. It treats normal and defective pictures alike, so it gives no hint."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.scenes.base import Rng

# White noise is slow to draw: it is drawn once, and every picture uses a random window of it.
_GRAIN = np.random.default_rng(7).standard_normal((1024, 1024), dtype=np.float32)


def camera(rng: Rng, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a picture (S, S, 3) uint8, and move its mask (S, S) bool with it."""
    happens = rng.random(11)
    image, mask = _orient(rng, image, mask)
    if happens[0] < 0.15:
        image, mask = _tilt(rng, image, mask)
    if happens[1] < 0.2:
        image = _light(rng, image)
    if happens[2] < 0.45:
        image = _tone(rng, image)
    if happens[3] < 0.12:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if happens[4] < 0.03:
        image = 255 - image
    if happens[5] < 0.12:
        image = _resample(rng, image)
    if happens[6] < 0.25:
        image = _focus(rng, image)
    if happens[7] < 0.25:
        image = _sensor_noise(rng, image)
    if happens[8] < 0.03:
        image = _salt(rng, image)
    if happens[9] < 0.3:
        image = _jpeg(rng, image)
    return image, mask


def _orient(rng: Rng, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turns, mirror = int(rng.integers(4)) if rng.random() < 0.4 else 0, rng.random() < 0.5
    if turns:
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if mirror:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _tilt(rng: Rng, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn, zoom and change the viewpoint a little."""
    height, width = mask.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    angle, zoom = rng.normal(0, 0.06), rng.uniform(1.0, 1.15)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * zoom
    middle = np.array([width, height]) / 2
    target = (corners - middle) @ turn + middle + rng.normal(0, 0.015 * width, (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, target.astype(np.float32))
    shape = (width, height)
    image = cv2.warpPerspective(image, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    # The picture is mirrored beyond its border, so a defect there is mirrored too.
    moved = cv2.warpPerspective(
        mask.view(np.uint8) * np.uint8(255), matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return image, moved > 127


def _light(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Add a vignette or a gradient."""
    corners = rng.normal(0, 0.2, (2, 2)).astype(np.float32)
    if rng.random() < 0.5:
        corners = np.full((3, 3), -rng.uniform(0.05, 0.5), np.float32)
        corners[1, 1] = 0
    field = cv2.resize(1 + corners, image.shape[1::-1], interpolation=cv2.INTER_CUBIC if len(corners) > 2 else 1)
    return cv2.multiply(image, cv2.merge([field] * 3), dtype=cv2.CV_8U)


def _tone(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Change brightness, contrast and gamma, sometimes with a colour cast, by a look-up table."""
    base = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.2))
    base = (base - 0.5) * np.exp(rng.normal(0, 0.2)) + 0.5 + rng.normal(0, 0.06)
    cast = np.exp(rng.normal(0, 0.08, 3)) if rng.random() < 0.4 else np.ones(3)
    table = np.clip(base[:, None] * cast * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, 3))


def _resample(rng: Rng, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    part = rng.uniform(0.4, 0.9)
    small = cv2.resize(image, (int(width * part), int(height * part)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC)


def _focus(rng: Rng, image: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(image, (5, 5), rng.uniform(0.3, 1.1))
    if rng.random() < 0.6:
        return blurred
    amount = rng.uniform(0.2, 1.2)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)


def _sensor_noise(rng: Rng, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    strength = float(np.exp(rng.uniform(np.log(1.0), np.log(14.0))))

    def grain() -> np.ndarray:
        top, left = rng.integers(0, 1024 - height), rng.integers(0, 1024 - width)
        return _GRAIN[top : top + height, left : left + width] * np.float32(strength)

    field = cv2.merge([grain() for _ in range(3)]) if rng.random() < 0.4 else cv2.merge([grain()] * 3)
    if rng.random() < 0.3:  # shot noise: grows with the light
        root = np.sqrt(np.arange(256, dtype=np.float32) / 110)
        field *= cv2.LUT(image, root)
    return cv2.add(image, field, dtype=cv2.CV_8U)


def _salt(rng: Rng, image: np.ndarray) -> np.ndarray:
    result = image.copy()
    count = int(rng.integers(10, 300))
    pixels = rng.integers(0, image.shape[0] * image.shape[1], count)
    result.reshape(-1, 3)[pixels] = np.where(rng.random((count, 1)) < 0.5, 0, 255)
    return result


def _jpeg(rng: Rng, image: np.ndarray) -> np.ndarray:
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))])
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)
