"""How pictures are resized for a backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Computation, Request, Tap, to_levels
from blemish.errors import ImageError, UsageError


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (61, 40, 3)).astype(np.uint8))


def test_squash_is_what_clip_sees(picture):
    expected = np.asarray(picture.resize((48, 48), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(to_levels(picture, 48, "squash", 16), expected)
    bilinear = np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(to_levels(picture, 48, "squash-bilinear", 16), bilinear)
    assert not np.array_equal(expected, bilinear)


def test_pytorch_rounds_each_pass(picture):
    levels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(levels, (48, 48), mode="bicubic", antialias=True)[0]
    assert np.array_equal(to_levels(picture, 48, "squash-torch", 16), expected.numpy())
    side = int(48 / 0.875)
    whole, start = to_levels(picture, side, "squash-torch", 16), (side - 48) // 2
    cropped = to_levels(picture, 48, "squash-torch-crop", 16)
    assert np.array_equal(cropped, whole[:, start : start + 48, start : start + 48])


@pytest.mark.parametrize(("size", "shape"), [((40, 61), (64, 32)), ((61, 40), (32, 64)), ((40, 40), (32, 32))])
def test_a_kept_aspect_ratio(size, shape):
    """The longer side is cut to a whole number, then to whole patches, at the right and the bottom."""
    width, height = size
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    found = to_levels(image, 45, "keep-aspect", 16)
    assert found.shape == (3, *shape)
    long = int(45 * max(size) / min(size))
    sides = (45, long) if height > width else (long, 45) if width > height else (45, 45)
    whole = np.asarray(image.resize(sides, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(found, whole[:, : shape[0], : shape[1]])


def test_grey_pictures_become_rgb(picture):
    grey = picture.convert("L")
    for geometry in ("squash", "squash-bilinear", "squash-torch", "keep-aspect"):
        found = to_levels(grey, 48, geometry, 16)
        assert np.array_equal(found[0], found[2])


def test_very_narrow_pictures_are_refused():
    with pytest.raises(ImageError, match="narrow"):
        to_levels(Image.new("RGB", (400, 10)), 64, "keep-aspect", 16)
    with pytest.raises(UsageError, match="geometry"):
        to_levels(Image.new("RGB", (40, 40)), 64, "stretch", 16)
    with pytest.raises(UsageError, match="patch"):
        to_levels(Image.new("RGB", (40, 40)), 8, "keep-aspect", 16)


def test_pixels_of_any_shape(backbone, picture):
    pixels = backbone.preprocess([picture, picture], 45, "keep-aspect")
    assert pixels.shape == (2, 3, 64, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    levels = torch.from_numpy(to_levels(picture, 45, "keep-aspect", 16).copy())
    torch.testing.assert_close(pixels[0], (levels / 255 - mean) / std)
    found = backbone.encode_image(pixels, Request([Tap(2)]), Computation(45, geometry="keep-aspect"))
    assert found.grid == (4, 2)
    assert found.taps[Tap(2)].shape == (2, 9, backbone.width)
    with pytest.raises(UsageError, match="size 45"):
        backbone.encode_image(pixels, None, Computation(45))
    with pytest.raises(UsageError, match="size 80"):
        backbone.encode_image(pixels, None, Computation(80, geometry="keep-aspect"))
    with pytest.raises(UsageError, match="no batch"):
        backbone.preprocess([picture, picture.rotate(90, expand=True)], 45, "keep-aspect")
    assert backbone.preprocess([], 45).shape == (0, 3, 45, 45)
