"""Augmentation of the pictures of a training batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretraining.training import augmentation
from pretraining.training.augmentation import augment, consistency_loss, frequency_gain, photometric, repeat_first
from pretraining.training.batches import GRID, Batch
from synthesis.samples import LOST, SIZE, Caption, place_of


def pictures(count: int) -> Batch:
    """A batch of grey pictures with one bright defective spot each, at different places."""
    rng = np.random.default_rng(3)
    masks = np.zeros((count, SIZE, SIZE), bool)
    for mask, (y, x) in zip(masks, rng.integers(10, 200, (count, 2)), strict=True):
        mask[y : y + 40, x : x + 24] = True
    images = np.where(masks[..., None], np.uint8(220), np.uint8(60)).repeat(3, -1)
    return Batch(
        torch.from_numpy(images), torch.from_numpy(masks), [Caption("plate", "metal", "stain", "in the middle")] * count
    )


def test_picture_mask_and_place_are_augmented_alike() -> None:
    batch = pictures(24)
    augmented, _ = augment(batch, np.random.default_rng(0))
    assert (augmented.images != batch.images).flatten(1).any(1).all()
    compared = 0
    arrays = (augmented.images.numpy(), augmented.masks.numpy())
    for image, mask, caption in zip(*arrays, augmented.captions, strict=True):
        if caption.kind == LOST:
            assert caption.place == ""
            continue
        grey = image.mean(-1)
        assert ((grey > (grey.min() + grey.max()) / 2) ^ mask).sum() < 0.15 * mask.sum()
        assert caption.place == place_of(mask)
        compared += 1
    assert compared > 15


def test_a_defect_out_of_sight_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "MIN_ZOOM_SIDE", 0.2)
    batch = pictures(32)
    augmented, frames = augment(batch, np.random.default_rng(1))
    area = torch.linalg.det(frames.turn).abs()  # of what is shown, of the picture
    left = (augmented.masks.sum((1, 2)) * area / batch.masks.sum((1, 2))).numpy()
    lost = np.array([kind == LOST for _, _, kind, _ in augmented.captions])
    assert lost.any()
    assert left[lost].max() < 0.4
    assert left[~lost].min() > 0.2


def test_copies_agree_where_they_show_the_same_place() -> None:
    """A map that follows the picture does not disagree with itself; one that follows the frame does."""
    batch = repeat_first(pictures(16), 8)
    assert (batch.masks[:8] == batch.masks[8:]).all()
    augmented, frames = augment(batch, np.random.default_rng(2))
    spots = augmented.coverage() * 8 - 4
    across = torch.linspace(-4, 4, GRID).expand(16, GRID, GRID).flatten(1)
    assert consistency_loss(spots, frames, 8) < 0.02
    assert consistency_loss(across, frames, 8) > 0.1


def test_photometric_changes_differ_by_picture_and_repeat() -> None:
    grey = torch.full((40, 3, 16, 16), 128.0)
    one, again = (photometric(grey, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one, again)
    assert one.dtype == torch.uint8
    assert len({int(v) for v in one[:, 0, 8, 8]}) > 15
    assert (one.float().mean((1, 2, 3)) - 128).abs().max() < 80


def test_frequency_gain_changes_fine_detail_and_leaves_coarse() -> None:
    waves = [torch.sin(2 * torch.pi * torch.arange(128.0) / period) for period in (128, 64, 4)]
    one, again = (frequency_gain(waves[2].expand(20, 3, 128, 128), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one, again)
    strength = one.std((1, 2, 3)) / waves[2].std()
    assert strength.min() < 0.9
    assert strength.max() > 1.1
    for coarse in waves[:2]:
        augmented = frequency_gain(coarse.expand(20, 3, 128, 128), np.random.default_rng(5))
        torch.testing.assert_close(augmented, coarse.expand(20, 3, 128, 128), atol=1e-4, rtol=0)
