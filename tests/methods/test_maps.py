"""The arithmetic of maps against SciPy and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from blemish.methods.ops import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    gaussian_matrix,
    smooth,
    upsample,
    upsample_smoothly,
)


@pytest.mark.parametrize(
    ("shape", "sigma"),
    [((70, 70), 4.0), ((98, 41), 4.0), ((5, 5), 4.0), ((1, 7), 3.0), ((2, 3), 8.0), ((40, 40), 0.3), ((30, 30), 0.05)],
)
def test_smooth_is_scipys(shape: tuple[int, int], sigma: float) -> None:
    maps = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 4
    expected = np.stack([gaussian_filter(m, sigma) for m in maps.numpy()])
    np.testing.assert_allclose(smooth(maps, sigma).numpy(), expected, rtol=0, atol=3e-6)


def test_smooth_by_nothing() -> None:
    maps = torch.rand(2, 5, 5)
    assert torch.equal(smooth(maps, 0.0), maps)
    np.testing.assert_allclose(gaussian_matrix(9, 4.0).sum(axis=1), 1.0)


def test_smooth_is_exact_under_autocast() -> None:
    maps = torch.rand(2, 50, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(smooth(maps, 4.0), smooth(maps.clone(), 4.0))
        inside = smooth(maps, 4.0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, smooth(maps, 4.0))


@pytest.mark.parametrize(("grid", "size", "sigma"), [((16, 16), 256, 4.0), ((3, 5), 40, 8.0), ((37, 37), 518, 0.3)])
def test_upsampling_and_smoothing_in_one(grid: tuple[int, int], size: int, sigma: float) -> None:
    maps = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0)) * 4
    expected = smooth(upsample(maps, size), sigma)
    torch.testing.assert_close(upsample_smoothly(maps, size, sigma), expected, rtol=0, atol=2e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(upsample_smoothly(maps, size, sigma), expected, rtol=0, atol=2e-6)
    assert torch.equal(upsample_smoothly(maps, size, 0.0), upsample(maps, size))


def test_cosines() -> None:
    text = torch.eye(4)[:2]
    features = torch.tensor([[3.0, 0, 0, 0], [0, 0, 5, 0], [1, 1, 0, 0]])
    expected = torch.tensor([[1.0, 0], [0, 0], [0.5**0.5, 0.5**0.5]]) / 0.07
    torch.testing.assert_close(cosine_logits(features, text, 0.07), expected)
    torch.testing.assert_close(cosine_logits(features[None], text, 0.07), expected[None])
    own = text.expand(3, -1, -1)
    torch.testing.assert_close(cosine_logits(features, own, 0.07), expected)
    torch.testing.assert_close(anomalous_probability(expected)[1:], torch.tensor([0.5, 0.5]))


def test_grid_and_upsampling() -> None:
    grid = as_grid(torch.arange(6.0)[None], (2, 3))
    assert grid.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert upsample(grid, 6).shape == (1, 6, 6)
    torch.testing.assert_close(upsample(grid, 5, align_corners=True)[0, ::4, ::2], grid[0])
