"""WinCLIP beyond the parity cases: the harmonic mean, memories, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Backbone, ImageFeatures, load_backbone
from blemish.clip.forward import window_indices
from blemish.errors import UsageError
from blemish.methods.base import WHOLE, MemoryBank
from blemish.methods.ops import nearest_distance
from blemish.methods.winclip import WinCLIP, WinClipConfig, harmonic


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def method(backbone: Backbone) -> WinCLIP:
    return WinCLIP(backbone, WinClipConfig(size=296))  # a grid of 4


def encode(method: WinCLIP, *seeds: int) -> ImageFeatures:
    images = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 40, 3)).astype(np.uint8)) for seed in seeds
    ]
    pixels = method.backbone.preprocess(images, method.computation.size)
    with torch.no_grad():
        return method.backbone.encode_image(pixels, method.memory_request, method.computation)


@pytest.mark.parametrize(("grid", "side"), [((4, 4), 1), ((5, 7), 2), ((6, 4), 3), ((3, 3), 3)])
def test_harmonic_mean_over_covering_windows(grid: tuple[int, int], side: int) -> None:
    windows = window_indices(grid, side)
    scores = torch.rand(2, len(windows)) + 0.1
    scores[1, 0] = 0
    expected = torch.empty(2, grid[0] * grid[1])
    for patch in range(expected.shape[1]):
        covering = (windows == patch).any(dim=1)
        expected[:, patch] = int(covering.sum()) / (1 / scores[:, covering]).sum(dim=1)
    torch.testing.assert_close(harmonic(scores, grid, side), expected.reshape(2, *grid))
    assert float(harmonic(scores, grid, side)[1, 0, 0]) == 0


def test_the_nearest_row() -> None:
    features, rows = torch.randn(2, 3, 5), torch.randn(4, 5)
    expected = 1 - torch.cosine_similarity(features[:, :, None], rows, dim=-1).amax(dim=-1)
    torch.testing.assert_close(nearest_distance(features, rows), expected)
    assert float(nearest_distance(features, features[0])[0].max()) == pytest.approx(0, abs=1e-6)
    assert float(nearest_distance(features, features[0]).min()) >= 0


@pytest.mark.parametrize(("joined", "high"), [("sum", 2.0), ("mean", 1.0)])
def test_memory(method: WinCLIP, joined: str, high: float) -> None:
    method = WinCLIP(method.backbone, replace(method.config, few_shot_map=joined))
    memory = method.extract_memory(encode(method, 0, 1))
    features, text = encode(method, 2, 3), method.text_features(["bolt"])[0]
    plain, found = method.score(features, text), method.score(features, text, memory)
    assert memory.images == 2
    assert memory.taps[method.tap].shape == (2 * 16, method.backbone.width)
    assert {side: len(rows) for side, rows in memory.windows.items()} == {WHOLE: 2, 2: 2 * 9, 3: 2 * 4}
    assert method.memory_map_range == (0.0, high)
    assert 0 <= float(found.map.min()) <= float(found.map.max()) <= high
    assert not torch.allclose(found.map, plain.map)
    assert not torch.allclose(found.score, plain.score)


def test_a_reference_is_at_no_distance_from_itself(method: WinCLIP) -> None:
    memory = method.extract_memory(encode(method, 0, 1, 2))
    association = method.association_map(encode(method, 1, 5), memory)
    assert bool(association.isfinite().all())
    assert float(association[0].max()) < 1e-6 < float(association[1].min())
    text = method.text_features(["bolt"])[0]
    one = method.score(encode(method, 1), text, memory)
    torch.testing.assert_close(one.score, method.text_score(encode(method, 1), text) / 2, rtol=0, atol=1e-6)


def test_order_of_references_does_not_matter(method: WinCLIP) -> None:
    features, text = encode(method, 7), method.text_features(["bolt"])[0]
    forth, back = (
        method.score(features, text, method.extract_memory(encode(method, *seeds))) for seeds in ((0, 1), (1, 0))
    )
    torch.testing.assert_close(forth.map, back.map)


def test_image_score_by_the_map_with_references(method: WinCLIP) -> None:
    method = WinCLIP(method.backbone, replace(method.config, image_score="map"))
    memory = method.extract_memory(encode(method, 0))
    found = method.score(encode(method, 2, 3), method.text_features(["bolt"])[0], memory)
    torch.testing.assert_close(found.score, found.map.amax(dim=(1, 2)) / 2)


def test_windows_wider_than_the_grid_are_left_out(backbone: Backbone) -> None:
    wide = WinCLIP(backbone, WinClipConfig(size=148, scales=(2, 3, 9)))  # a grid of 2
    narrow = WinCLIP(backbone, WinClipConfig(size=148, scales=(2,)))
    assert wide.scales == (2,)
    text = wide.text_features(["bolt"])[0]
    assert torch.equal(wide.score(encode(wide, 1), text).map, narrow.score(encode(narrow, 1), text).map)


def test_missing_features_are_named(method: WinCLIP) -> None:
    full, text = encode(method, 1), method.text_features(["bolt"])[0]
    memory = method.extract_memory(full)
    with pytest.raises(UsageError, match="memory_request"):
        method.score(ImageFeatures({}, full.class_token, full.windows, full.grid), text, memory)
    with pytest.raises(UsageError, match="windows of 2 patches"):
        method.score(ImageFeatures({}, full.class_token, {}, full.grid), text)
    with pytest.raises(UsageError, match="memory"):
        method.score(full, text, MemoryBank(1))


@pytest.mark.parametrize("fields", [{"scales": ()}, {"scales": (0, 2)}, {"scales": (2, 2)}, {"temperature": 0.0}])
def test_unfit_configs(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        WinClipConfig(**fields)  # type: ignore[arg-type]
