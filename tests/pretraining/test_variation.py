"""Views of the pictures of a training batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch


def pictures(count: int) -> Any:
    """A batch of grey pictures with one bright defective spot each, at different places."""
    from pool import SIZE, Batch

    rng = np.random.default_rng(3)
    masks = np.zeros((count, SIZE, SIZE), bool)
    for mask, (y, x) in zip(masks, rng.integers(10, 200, (count, 2)), strict=True):
        mask[y : y + 40, x : x + 24] = True
    images = np.where(masks[..., None], np.uint8(220), np.uint8(60)).repeat(3, -1)
    return Batch(
        torch.from_numpy(images), torch.from_numpy(masks), [("plate", "metal", "stain", "in the middle")] * count
    )


def test_a_view_moves_picture_mask_and_words_alike() -> None:
    from variation import vary
    from words import place

    batch = pictures(24)
    seen, _ = vary(batch, np.random.default_rng(0))
    assert (seen.images != batch.images).flatten(1).any(1).all()
    judged = 0
    for image, mask, (_, _, kind, where) in zip(seen.images.numpy(), seen.masks.numpy(), seen.words, strict=True):
        if kind == "lost":
            assert where == ""
            continue
        grey = image.mean(-1)
        assert ((grey > (grey.min() + grey.max()) / 2) ^ mask).sum() < 0.15 * mask.sum()
        assert where == place(mask)
        judged += 1
    assert judged > 15


def test_a_defect_out_of_sight_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    import variation

    monkeypatch.setattr(variation, "CLOSEST", 0.2)
    batch = pictures(80)
    seen, frames = variation.vary(batch, np.random.default_rng(1))
    area = torch.linalg.det(frames.turn).abs()  # of what is shown, of the picture
    left = (seen.masks.sum((1, 2)) * area / batch.masks.sum((1, 2))).numpy()
    lost = np.array([kind == "lost" for _, _, kind, _ in seen.words])
    assert lost.any()
    assert left[lost].max() < 0.4
    assert left[~lost].min() > 0.2


def test_two_views_agree_where_they_show_the_same_place() -> None:
    """A map that follows the picture does not disagree with itself; one that follows the frame does."""
    from pool import GRID
    from variation import disagreement, twice, vary

    batch = twice(pictures(16), 8)
    assert (batch.masks[:8] == batch.masks[8:]).all()
    seen, frames = vary(batch, np.random.default_rng(2))
    spots = seen.coverage() * 8 - 4
    across = torch.linspace(-4, 4, GRID).expand(16, GRID, GRID).flatten(1)
    assert disagreement(spots, frames, 8) < 0.02
    assert disagreement(across, frames, 8) > 0.1


def test_film_draws_for_each_picture_and_repeats() -> None:
    from variation import film

    grey = torch.full((40, 3, 16, 16), 128.0)
    one, again = (film(grey, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one, again)
    assert one.dtype == torch.uint8
    assert len({int(v) for v in one[:, 0, 8, 8]}) > 15
    assert (one.float().mean((1, 2, 3)) - 128).abs().max() < 80


def test_other_optics_change_detail_and_leave_what_is_coarse() -> None:
    from variation import optics

    waves = [torch.sin(2 * torch.pi * torch.arange(128.0) / period) for period in (128, 64, 4)]
    one, again = (optics(waves[2].expand(20, 3, 128, 128), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one, again)
    strength = one.std((1, 2, 3)) / waves[2].std()
    assert strength.min() < 0.9
    assert strength.max() > 1.1
    for coarse in waves[:2]:
        seen = optics(coarse.expand(20, 3, 128, 128), np.random.default_rng(5))
        torch.testing.assert_close(seen, coarse.expand(20, 3, 128, 128), atol=1e-4, rtol=0)
