"""PNG files: every reader gives the same pixels back, and flat pictures stay small."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from blemish import draw


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    draw.save_png(Image.fromarray(pixels), stream)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (31, 64), (300, 257)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("at_once", [1, 1000, 2**20])
def test_comes_back_as_it_was(size: tuple[int, int], channels: int, at_once: int, monkeypatch) -> None:
    monkeypatch.setattr(draw, "_PNG_BLOCK", at_once)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, channels), np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    data = encoded(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == ("L" if channels == 1 else "RGB")
            np.testing.assert_array_equal(np.asarray(image), pixels)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(theirs[..., ::-1] if channels == 3 else theirs, pixels)


def test_flat_pictures_stay_small() -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[100:200, 50:400] = 255
    assert len(encoded(mask)) < 6000


def test_is_hardly_larger_than_others_make_it() -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(256), np.arange(256))[..., None] / 3
    pixels = (smooth + rng.normal(0, 4, (256, 256, 3))).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    assert len(encoded(pixels)) < 1.15 * len(stream.getvalue())
