"""The losses that trained methods share, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blemish.methods.losses import adapter_losses, dice, focal, upsample_for_loss
from blemish.methods.ops import bilinear_matrix, upsample


def some_logits(count: int = 3, seed: int = 0) -> Tensor:
    return 3 * torch.randn(2, count, 5, 6, generator=torch.Generator().manual_seed(seed))


def some_masks(count: int = 3) -> Tensor:
    masks = torch.zeros(count, 40, 40)
    masks[0, 3:20, 5:9] = 1
    masks[-1] = 1
    return masks


def test_focal_loss_as_in_the_authors_code() -> None:
    """With the one-hot target of both classes clamped, as the papers' code has it."""
    masks, anomalous = some_masks(), some_logits()[0].sigmoid()
    maps = upsample(anomalous, 40)
    both, smooth = torch.stack([1 - maps, maps], dim=1), 1e-5
    one_hot = torch.stack([1 - masks, masks], dim=1).clamp(smooth, 1 - smooth)
    p = (one_hot * both).sum(1) + smooth
    torch.testing.assert_close(focal(maps, masks), (-((1 - p) ** 2) * p.log()).mean())


def test_dice_loss() -> None:
    probability, target = torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]]]), torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert float(dice(probability, target)) == pytest.approx((1 - (2 * 1.5 + 1) / (1.5 + 2 + 1)) / 2)


@pytest.mark.parametrize("value", [200.0, -200.0])
def test_certain_patches_have_finite_gradients(value: float) -> None:
    masks = torch.zeros(2, 20, 20)
    masks[1, :10] = 1
    grids = torch.full((1, 2, 4, 4), value, requires_grad=True)
    adapter_losses(list(grids), masks)["total"].backward()
    assert grids.grad is not None
    assert bool(grids.grad.isfinite().all())


def test_what_is_given_is_not_changed() -> None:
    logits, masks = some_logits(), some_masks()
    before = logits.clone(), masks.clone()
    adapter_losses(list(logits.requires_grad_()), masks)["total"].backward()
    assert torch.equal(logits, before[0])
    assert torch.equal(masks, before[1])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("length", "size"), [(1, 7), (5, 5), (7, 98), (16, 250)])
def test_upsampling_as_matrices(length: int, size: int, align_corners: bool) -> None:
    matrix = bilinear_matrix(length, size, align_corners, torch.device("cpu"))
    assert matrix.shape == (size, length)
    one, other = (torch.rand(2, length, length, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    maps = upsample_for_loss(one.requires_grad_(), size, align_corners=align_corners)
    expected = upsample(other.requires_grad_(), size, align_corners=align_corners)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)
    weights = torch.rand(expected.shape)
    (maps * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_adapter_losses_are_those_of_each_map() -> None:
    logits, masks = some_logits(), some_masks()
    losses = adapter_losses(list(logits), masks)
    maps = [upsample(layer, 40, align_corners=True).sigmoid() for layer in logits]
    torch.testing.assert_close(losses["focal"], torch.stack([focal(each, masks) for each in maps]))
    torch.testing.assert_close(losses["dice"], torch.stack([dice(each, masks) for each in maps]))
    torch.testing.assert_close(losses["total"], losses["focal"].sum() + losses["dice"].sum())


def test_a_batch_of_one_takes_rows_for_images() -> None:
    logits, masks = some_logits(1), some_masks(1)
    masks[0, 25:] = 0
    losses = adapter_losses(list(logits), masks)
    maps = [upsample(layer, 40, align_corners=True).sigmoid() for layer in logits]
    torch.testing.assert_close(losses["dice"], torch.stack([dice(each[0], masks[0]) for each in maps]))
    assert not torch.allclose(losses["dice"], torch.stack([dice(each, masks) for each in maps]), atol=1e-3)
