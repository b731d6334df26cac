"""The losses that trained methods share: in one sweep what the plain ones give on whole maps, gradients included."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from blemish.methods.adapters import LinearAdapters
from blemish.methods.losses import adapter_losses, bilinear_matrix, dice, focal, grid_losses
from blemish.methods.maps import cosine_logits, upsample

Kind = Literal["logits", "probabilities"]


def some_grids(kind: Kind, count: int = 3, seed: int = 0) -> Tensor:
    values = 3 * torch.randn(2, count, 5, 6, generator=torch.Generator().manual_seed(seed))
    return values if kind == "logits" else values.sigmoid()


def some_masks(count: int = 3) -> Tensor:
    masks = torch.zeros(count, 40, 40)
    masks[0, 3:20, 5:9] = 1
    masks[-1] = 1
    return masks


def plainly(grids: Tensor, masks: Tensor, kind: Kind, align_corners: bool, rows: bool) -> dict[str, Tensor]:
    """Upsampled maps into `focal` and `dice`."""
    maps = [upsample(grid, masks.shape[-1], align_corners=align_corners) for grid in grids]
    maps = [m.sigmoid() for m in maps] if kind == "logits" else maps
    pairs = [(m[0], masks[0]) if rows else (m, masks) for m in maps]
    return {
        "focal": torch.stack([focal(m, masks) for m in maps]),
        "dice": torch.stack([dice(m, t) for m, t in pairs]),
        "dice_normal": torch.stack([dice(1 - m, 1 - t) for m, t in pairs]),
    }


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("rows", [False, True])
def test_as_on_whole_maps(kind: Kind, align_corners: bool, rows: bool) -> None:
    count = 1 if rows else 3
    masks, options = some_masks(count), {"align_corners": align_corners, "rows": rows}
    for name in ("focal", "dice", "dice_normal"):
        one, other = (some_grids(kind, count).requires_grad_() for _ in range(2))
        found = getattr(grid_losses(one, masks, kind=kind, **options), name)
        expected = plainly(other, masks, kind, **options)[name]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        weights = torch.tensor([0.3, 2.0])  # a layer's gradient is its own
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_normal_pictures_and_certain_patches() -> None:
    """Where nothing is anomalous, and where a probability is 0 or 1 to the last bit."""
    masks = torch.zeros(2, 20, 20)
    masks[1, :10] = 1
    for kind, value in (("logits", 200.0), ("logits", -200.0), ("probabilities", 1.0), ("probabilities", 0.0)):
        grids = torch.full((1, 2, 4, 4), value, requires_grad=True)
        found = grid_losses(grids, masks, kind=kind, align_corners=True)  # type: ignore[arg-type]
        expected = plainly(grids.detach(), masks, kind, True, False)  # type: ignore[arg-type]
        for name, each in expected.items():
            torch.testing.assert_close(getattr(found, name), each, rtol=1e-5, atol=1e-6)
        torch.cat(found).sum().backward()
        assert grids.grad is not None
        assert bool(grids.grad.isfinite().all())


def test_nothing_is_kept_without_a_gradient() -> None:
    with torch.no_grad():
        found = grid_losses(some_grids("logits"), some_masks(), kind="logits", align_corners=True)
    assert not any(each.requires_grad for each in found)
    assert not grid_losses(some_grids("logits"), some_masks(), kind="logits", align_corners=True).focal.requires_grad


def test_what_is_given_is_not_changed() -> None:
    grids, masks = some_grids("logits"), some_masks()
    before = grids.clone(), masks.clone()
    grid_losses(grids.requires_grad_(), masks, kind="logits", align_corners=True).dice.sum().backward()
    assert torch.equal(grids, before[0])
    assert torch.equal(masks, before[1])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("length", "size"), [(1, 7), (5, 5), (7, 98), (16, 250)])
def test_upsampling_as_a_matrix(length: int, size: int, align_corners: bool) -> None:
    matrix = bilinear_matrix(length, size, align_corners, torch.device("cpu"))
    grid = torch.rand(1, length, length, generator=torch.Generator().manual_seed(1))
    expected = upsample(grid, size, align_corners=align_corners)[0]
    torch.testing.assert_close(matrix @ grid[0] @ matrix.T, expected, rtol=0, atol=1e-6)


def test_a_batch_of_one_takes_rows_for_pictures() -> None:
    logits = some_grids("logits", 1)
    masks = some_masks(1)
    masks[0, 25:] = 0
    found = adapter_losses(list(logits), masks)
    expected = plainly(logits, masks, "logits", True, True)
    torch.testing.assert_close(found["dice"], expected["dice"])
    torch.testing.assert_close(found["total"], expected["dice"].sum() + expected["focal"].sum())
    assert not torch.allclose(found["dice"], plainly(logits, masks, "logits", True, False)["dice"], atol=1e-3)


def test_differences_are_those_of_adapted_patches() -> None:
    adapters = LinearAdapters(2, 12, 7)
    adapters.reset(torch.Generator().manual_seed(0))
    tokens = [torch.randn(3, 10, 12) for _ in range(2)]
    text = torch.nn.functional.normalize(torch.randn(3, 2, 7), dim=-1).requires_grad_()
    learnt: list[Any] = [*adapters.parameters(), text]
    logits = [cosine_logits(patches, text, 1.0) for patches in adapters([each[:, 1:] for each in tokens])]
    expected = [each[..., 1] - each[..., 0] for each in logits]
    found = adapters.differences(tokens, text)
    weight = torch.randn(3, 9)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(sum((weight * each).sum() for each in some), learnt) for some in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
