"""AnomalyDINO against OpenCV, scikit-learn, SciPy and its formulas written as loops; what its memory bank promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from torch import Tensor

from blemish.clip import ImageBackbone, ImageFeatures, load_backbone
from blemish.errors import UsageError
from blemish.methods import anomalydino
from blemish.methods.anomalydino import (
    AnomalyDINO,
    AnomalyDINOBatch,
    AnomalyDinoBatchConfig,
    AnomalyDinoConfig,
    PatchBank,
    PatchMethod,
)

NO_TEXT = torch.empty(2, 0)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> ImageBackbone:
    return load_backbone(str(tiny_backbone))


def few_shot(backbone: ImageBackbone, **changes: Any) -> AnomalyDINO:
    return AnomalyDINO(backbone, AnomalyDinoConfig(**{"norm": False, "rotation": False, **changes})).eval()


def batched(backbone: ImageBackbone, **changes: Any) -> AnomalyDINOBatch:
    return AnomalyDINOBatch(backbone, AnomalyDinoBatchConfig(norm=False, **changes)).eval()


def features(method: PatchMethod, images: int = 1, grid: tuple[int, int] = (4, 5), seed: int = 0) -> ImageFeatures:
    """Random features, as if the backbone had computed them; patches share a direction, as real ones do."""
    rng = torch.Generator().manual_seed(seed)
    tokens = 1 + torch.randn(images, 1 + grid[0] * grid[1], method.backbone.width, generator=rng)
    return ImageFeatures({method.tap: tokens}, None, {}, grid)


def patches(method: PatchMethod, found: ImageFeatures) -> Tensor:
    return found.taps[method.tap][:, 1:].double()


# rotations


@pytest.mark.parametrize("size", [(31, 50), (64, 48), (97, 33), (1, 20)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_rotations_are_those_of_opencv(size: tuple[int, int], mode: str) -> None:
    width, height = size
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(levels).convert(mode)
    for angle in anomalydino.ANGLES:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        expected = cv2.warpAffine(
            np.asarray(picture), matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        found = np.asarray(anomalydino.rotate(picture, angle))
        assert found.shape == expected.shape
        # OpenCV's loops are as wide as the processor's registers, so a tie may be rounded otherwise.
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_references_are_encoded_in_eight_rotations(backbone: ImageBackbone) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    rotated = list(few_shot(backbone, rotation=True).reference_copies(picture, 0, 1))
    assert len(rotated) == 8
    assert {each.size for each in rotated} == {(60, 40)}
    assert np.array_equal(np.asarray(rotated[0]), np.asarray(picture))
    assert list(few_shot(backbone).reference_copies(picture, 0, 1)) == [picture]


# masks


def test_the_component_is_that_of_scikit_learn() -> None:
    values = np.random.default_rng(1).normal(size=(3, 60, 12)).astype(np.float32) * np.linspace(
        3, 1, 12, dtype=np.float32
    )
    found = anomalydino.first_component(torch.from_numpy(values)).numpy()
    for row, each in zip(found, values, strict=True):
        expected = PCA(n_components=1, svd_solver="full").fit_transform(each)[:, 0]
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("grid", [(6, 7), (13, 10)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_masks_are_dilated_and_closed_along_the_raster(grid: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    component = rng.normal(size=grid[0] * grid[1]).astype(np.float32) * 5 + 10
    component[rng.random(len(component)) > share] -= 20
    mask = component > 10
    rows, columns = (slice(int(0.2 * side), int(0.8 * side)) for side in grid)
    middle = mask.reshape(grid)[rows, columns]
    if middle.sum() <= 0.35 * middle.size:
        mask = -component > 10
    column = mask[:, None].astype(np.uint8)  # the authors' masks are one pixel wide
    kernel = np.ones((3, 3), np.uint8)
    expected = cv2.morphologyEx(cv2.dilate(column, kernel), cv2.MORPH_CLOSE, kernel)[:, 0] > 0
    found = anomalydino.object_mask(torch.from_numpy(component), grid, 10.0)
    assert np.array_equal(found.numpy(), expected)


def test_masked_patches_have_no_distance_and_count_in_the_score(backbone: ImageBackbone) -> None:
    method = few_shot(backbone, masking=True, foreground=1.0)
    found = features(method, grid=(15, 14))
    kept = method.foreground(method.patches(found), found.grid)[0]
    assert 0 < int(kept.sum()) < 210
    memory = method.extract_memory(features(method, seed=1))
    plain = few_shot(backbone).distances(found, memory).flatten()
    distances = method.distances(found, memory).flatten()
    assert torch.equal(distances, torch.where(kept, plain, 0))
    largest = distances.sort(descending=True).values[:2]  # 1 % of 210
    torch.testing.assert_close(method.score(found, NO_TEXT, memory).score[0], largest.mean())


def test_references_are_masked_only_if_both_are_asked_for(backbone: ImageBackbone) -> None:
    every = [
        few_shot(backbone, masking=masking, mask_references=both, foreground=1.0)
        for masking, both in ((False, True), (True, False), (True, True))
    ]
    banks = [method.extract_memory(features(method, images=2, grid=(9, 8))) for method in every]
    assert [bank.counts for bank in banks[:2]] == [(72, 72)] * 2
    assert sum(banks[2].counts) == len(banks[2].taps[every[2].tap]) < 144


# distances and maps


@pytest.mark.parametrize(("metric", "k"), [("cosine", 1), ("cosine", 3), ("L2", 1), ("L2", 4)])
def test_distances_patch_by_patch(backbone: ImageBackbone, metric: str, k: int) -> None:
    method = few_shot(backbone, metric=metric, neighbours=k)
    found, references = features(method, images=2), features(method, images=3, seed=1)
    memory = method.extract_memory(references)
    own, rows = patches(method, found), patches(method, references).flatten(0, 1)
    if metric == "cosine":
        own, rows = (values / values.norm(dim=-1, keepdim=True) for values in (own, rows))
    squared = (own[:, :, None] - rows).square().sum(-1).sort(-1).values[..., :k].mean(-1)
    expected = squared / 2 if metric == "cosine" else squared.sqrt()
    torch.testing.assert_close(method.distances(found, memory).flatten(1).double(), expected, rtol=1e-5, atol=1e-6)
    prediction = method.score(found, NO_TEXT, memory)
    assert 0 < float(prediction.score.min()) <= float(prediction.score.max()) < 1
    order = prediction.map.flatten().argsort()
    assert torch.equal(order, expected.flatten().argsort())


def test_a_reference_itself_is_flawless(backbone: ImageBackbone) -> None:
    method = few_shot(backbone)
    found = features(method, images=3)
    assert torch.equal(method.score(found, NO_TEXT, method.extract_memory(found)).score, torch.zeros(3))


def test_the_map_is_enlarged_and_smoothed_at_the_size_of_the_picture(backbone: ImageBackbone) -> None:
    method = few_shot(backbone)
    grid = torch.rand(9, 13, generator=torch.Generator().manual_seed(0))
    for height, width in ((100, 150), (57, 233), (9, 13)):
        expected = gaussian_filter(cv2.resize(grid.numpy(), (width, height), interpolation=cv2.INTER_LINEAR), sigma=4)
        np.testing.assert_allclose(method.finish_map(grid, height, width).numpy(), expected, atol=1e-6)


def test_few_patches_have_their_largest_as_score() -> None:
    values = torch.rand(2, 99, generator=torch.Generator().manual_seed(0))
    assert torch.equal(anomalydino.mean_of_largest(values, 0.01), values.amax(1))
    values = torch.rand(2, 250, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(anomalydino.mean_of_largest(values, 0.01), values.sort(1).values[:, -2:].mean(1))


def test_a_region_of_interest_has_the_rule_of_the_whole(backbone: ImageBackbone) -> None:
    method = few_shot(backbone)
    maps = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(20, 20, dtype=torch.bool)
    assert torch.equal(method.score_inside(maps, inside, (0.0, 1.0)), torch.zeros(2))
    inside[:, 5:] = True
    expected = maps[:, :, 5:].flatten(1).sort(1).values[:, -3:].mean(1)  # 1 % of 300
    torch.testing.assert_close(method.score_inside(maps, inside, (0.0, 1.0)), expected)


# the memory bank


@pytest.mark.parametrize("changes", [{}, {"neighbours": 3}, {"metric": "L2"}, {"masking": True, "foreground": 1.0}])
def test_more_references_never_raise_a_score(backbone: ImageBackbone, changes: dict[str, Any]) -> None:
    method = few_shot(backbone, **changes)
    assert method.monotone
    found = features(method, images=4)
    banks = [method.extract_memory(features(method, images=images, seed=9)) for images in (1, 5)]
    few, many = (method.score(found, NO_TEXT, bank) for bank in banks)
    assert bool((many.score < few.score).all())
    assert bool((many.map <= few.map).all())


def test_a_bank_of_images_of_several_shapes_can_be_divided(backbone: ImageBackbone) -> None:
    method = few_shot(backbone)
    parts = [
        method.extract_memory(features(method, grid=grid, seed=i)) for i, grid in enumerate([(4, 5), (3, 3), (2, 7)])
    ]
    whole = PatchBank.concat(parts)
    assert (whole.images, whole.counts) == (3, (20, 9, 14))
    again = PatchBank.concat([whole.select([2]), whole.select([0, 1])])
    assert again.counts == (14, 20, 9)
    assert torch.equal(again.taps[method.tap], torch.cat([parts[i].taps[method.tap] for i in (2, 0, 1)]))
    assert whole.select([]).taps[method.tap].shape == (0, method.backbone.width)


def test_a_coreset_keeps_as_many_patches_as_it_says(backbone: ImageBackbone) -> None:
    method = few_shot(backbone, coreset=7)
    assert not method.monotone
    found = features(method, images=3)
    bank = method.build_memory_bank([torch.empty(3, 3, 1, 1)], lambda pixels: found, num_images=3)
    whole = few_shot(backbone).extract_memory(found).taps[method.tap]
    assert isinstance(bank, PatchBank)
    assert len(bank.taps[method.tap]) == 7
    assert (whole[:, None] == bank.taps[method.tap]).all(-1).any(0).all()
    with pytest.raises(UsageError, match="cannot be divided"):
        bank.select([0])


def test_too_few_patches_for_the_neighbours(backbone: ImageBackbone) -> None:
    method = few_shot(backbone, neighbours=30)
    found = features(method)
    with pytest.raises(UsageError, match="the references have 20 patches and the config asks for 30 neighbours"):
        method.score(found, NO_TEXT, method.extract_memory(found))


@pytest.mark.parametrize("changes", [{"neighbours": 0}, {"coreset": 2, "neighbours": 3}, {"sigma": -1.0}])
def test_configs_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AnomalyDinoConfig(**changes)


# the batched mode


def test_distances_to_the_other_pictures_one_by_one(backbone: ImageBackbone) -> None:
    method = batched(backbone, quantile=0.05)
    every = [features(method, grid=grid, seed=i) for i, grid in enumerate([(4, 5), (4, 5), (3, 9), (5, 6)])]
    memory = PatchBank.concat([method.extract_memory(each) for each in every])
    units = [patches(method, each)[0] / patches(method, each)[0].norm(dim=-1, keepdim=True) for each in every]
    for number, found in enumerate(every):
        others = torch.cat([rows for i, rows in enumerate(units) if i != number])
        k = int(0.05 * len(others))
        ranked = (1 - units[number] @ others.T).sort(dim=1).values
        expected = ranked[:, : k - 1].mean(1)  # the mean over those strictly below the k-th smallest
        distances = method.distances(found, memory)
        torch.testing.assert_close(distances.flatten().double(), expected, rtol=1e-4, atol=1e-6)


def test_a_picture_that_is_there_twice_is_not_compared_with_itself(backbone: ImageBackbone) -> None:
    method = batched(backbone, quantile=0.1)
    every = [method.extract_memory(features(method, seed=i)) for i in range(3)]
    once, twice = PatchBank.concat(every), PatchBank.concat([*every, every[0]])
    assert torch.equal(method.distances(features(method), once), method.distances(features(method), twice))


def test_equal_distances_are_their_own_mean(backbone: ImageBackbone) -> None:
    """Where the authors' mean is over no distance, and so not a number."""
    own = torch.nn.functional.normalize(torch.rand(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    method = batched(backbone, quantile=0.5)
    found = method.unmasked_distances(own, own[:1].expand(8, -1))
    torch.testing.assert_close(found, 1 - own @ own[0], rtol=0, atol=1e-6)


def test_in_a_small_set_the_nearest_patch_counts(backbone: ImageBackbone) -> None:
    """Where 0.1 % of the other patches are fewer than two, and the authors have no number."""
    method = batched(backbone)
    parts = [method.extract_memory(features(method, seed=i)) for i in range(3)]
    plain = few_shot(backbone)
    others = plain.extract_memory(features(plain, images=1, seed=1))
    others = PatchBank.concat([others, plain.extract_memory(features(plain, images=1, seed=2))])
    expected = plain.distances(features(plain), others)
    torch.testing.assert_close(method.distances(features(method), PatchBank.concat(parts)), expected)
    copies = PatchBank.concat([parts[0], parts[0]])
    assert not method.distances(features(method), copies).any()
