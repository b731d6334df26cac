"""SubspaceAD against NumPy and OpenCV; banks that add up; scores that stay in [0, 1] and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import ImageBackbone, ImageFeatures, Tap, load_backbone
from blemish.errors import UsageError
from blemish.methods import subspacead
from blemish.methods.subspacead import SubspaceAD, SubspaceAdConfig, SubspaceBank, SubspaceMethod

NO_TEXT = torch.empty(2, 0)
SIZE = 60


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> ImageBackbone:
    return load_backbone(str(tiny_backbone))


def make(backbone: ImageBackbone, **changes: Any) -> SubspaceAD:
    return SubspaceAD(backbone, SubspaceAdConfig(**{"size": SIZE, "rotations": 0, **changes})).eval()


def features(method: SubspaceMethod, images: int = 1, grid: tuple[int, int] = (6, 5), seed: int = 0) -> ImageFeatures:
    """Random features of all layers, whose directions differ in how much they vary."""
    rng = torch.Generator().manual_seed(seed)
    scale = torch.linspace(3, 0.05, method.backbone.width)
    taps = {
        Tap(layer): 5 + scale * torch.randn(images, 1 + grid[0] * grid[1], method.backbone.width, generator=rng)
        for layer in range(1, method.backbone.layers + 1)
    }
    return ImageFeatures(taps, None, {}, grid)


def rows(method: SubspaceMethod, found: ImageFeatures) -> np.ndarray[Any, np.dtype[np.float64]]:
    return method.patches(found).flatten(0, 1).double().numpy()


# features


def test_layers_are_averaged_within_groups_and_groups_concatenated(backbone: ImageBackbone) -> None:
    method = make(backbone, layers=((-4, -5), (2,)))
    found = features(method, images=2)
    last = backbone.layers
    tokens = {layer: found.taps[Tap(layer)][:, 1:] for layer in (last - 3, last - 4, 2)}
    expected = torch.cat([(tokens[last - 3] + tokens[last - 4]) / 2, tokens[2]], dim=2)
    torch.testing.assert_close(method.patches(found), expected)
    assert method.request.taps == {Tap(layer) for layer in tokens}


# the subspace


def test_the_subspace_is_that_of_numpy(backbone: ImageBackbone) -> None:
    method = make(backbone)
    found = features(method, images=3)
    x = rows(method, found)
    subspace = method.extract_memory(found).subspace
    np.testing.assert_allclose(subspace.mean.numpy(), x.mean(0), rtol=1e-9)
    covariance = np.cov(x.T)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(subspace.variances.numpy(), values[::-1], atol=1e-9)
    share = np.cumsum(values[::-1]) / values.sum()
    k = method.components(subspace)
    assert share[k - 1] >= 0.99 > share[k - 2]
    basis = subspace.components[:, :k].numpy()
    np.testing.assert_allclose(basis @ basis.T, vectors[:, ::-1][:, :k] @ vectors[:, ::-1][:, :k].T, atol=1e-9)
    assert method.components(subspace) != make(backbone, explained=0.5).components(subspace)
    assert make(backbone, components=4).components(subspace) == 4


def test_mean_and_covariance_are_of_their_own_rotations(backbone: ImageBackbone) -> None:
    """Each reference is encoded plain, then in its rotations for the mean, then in those for the covariance."""
    method = make(backbone, rotations=2)
    batches = [
        torch.full((4, 3, 1, 1), number) for number in range(3)
    ]  # two references in batches that divide the second

    def encode(batch: torch.Tensor) -> ImageFeatures:
        return features(method, images=len(batch), seed=int(batch[0, 0, 0, 0]))

    every = np.concatenate([method.patches(encode(batch)).double().numpy() for batch in batches])[:10]
    bank = method.build_memory_bank([*batches[:2], batches[2][:2]], encode, num_images=2)
    assert isinstance(bank, SubspaceBank)
    # a batch of two draws other numbers than one of four
    every[8:] = method.patches(features(method, images=2, seed=2)).double().numpy()
    first = np.concatenate([every[i] for i in (0, 1, 2, 5, 6, 7)])
    second = np.concatenate([every[i] for i in (0, 3, 4, 5, 8, 9)])
    mean = first.mean(0)
    covariance = (second - mean).T @ (second - mean) / (len(second) - 1)
    np.testing.assert_allclose(bank.subspace.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(bank.subspace.variances.numpy(), np.linalg.eigvalsh(covariance)[::-1], atol=1e-8)


def test_angles_are_drawn_for_all_means_before_all_covariances(backbone: ImageBackbone) -> None:
    torch.manual_seed(42)
    drawn = [float(torch.empty(1).uniform_(0, 345)) for _ in range(12)]
    picture = Image.fromarray(np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8))
    method = make(backbone, rotations=3)
    for number, angles in enumerate([[*drawn[0:3], *drawn[6:9]], [*drawn[3:6], *drawn[9:12]]]):
        copies = list(method.reference_copies(picture, number, 2))
        assert copies[0] is picture
        for copy, angle in zip(copies[1:], angles, strict=True):
            assert copy.size == picture.size
            assert np.array_equal(np.asarray(copy), np.asarray(picture.rotate(angle)))


def test_banks_add_up_and_a_part_can_be_taken_out_again(backbone: ImageBackbone) -> None:
    method = make(backbone)
    parts = [method.extract_memory(features(method, seed=seed)) for seed in range(3)]
    whole = SubspaceBank.concat(parts)
    assert whole.images == 3
    without = whole.without(parts[1])
    expected = SubspaceBank.concat([parts[0], parts[2]])
    assert without.images == 2
    torch.testing.assert_close(without.subspace.variances, expected.subspace.variances, rtol=1e-9, atol=1e-9)
    size = sum(value.numel() for value in whole.moments.values())
    assert size < 0.6 * method.backbone.width**2 + 3 * method.backbone.width  # however many images
    with pytest.raises(UsageError, match="cannot be divided"):
        whole.select([0])


# scores


@pytest.mark.parametrize("drop", [0, 2])
@pytest.mark.parametrize("measure", ["reconstruction", "mahalanobis", "euclidean", "cosine"])
def test_scores_as_their_formulas(backbone: ImageBackbone, measure: str, drop: int) -> None:
    method = make(backbone, measure=measure, drop=drop)
    memory = method.extract_memory(features(method, images=3))
    subspace = memory.subspace
    found = features(method, seed=5)
    x, mean = rows(method, found), subspace.mean.numpy()
    k = method.components(subspace)
    z = (x - mean) @ subspace.components[:, :k].numpy()
    reconstruction = mean + z[:, drop:] @ subspace.components[:, drop:k].numpy().T
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(reconstruction, axis=1)
    expected = {
        "reconstruction": ((x - reconstruction) ** 2).sum(1),
        "mahalanobis": (z[:, drop:] ** 2 / (subspace.variances[drop:k].numpy() + 1e-6)).sum(1),
        "euclidean": (z[:, drop:] ** 2).sum(1),
        "cosine": 1 - (x * reconstruction).sum(1) / lengths,
    }[measure]
    scores = method.scores(method.patches(found), method.model(memory)).flatten().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("measure", ["reconstruction", "mahalanobis", "euclidean"])
def test_one_half_is_ten_times_the_mean_of_the_references(backbone: ImageBackbone, measure: str) -> None:
    method = make(backbone, measure=measure)
    found = features(method, images=40, grid=(9, 9))
    memory = method.extract_memory(found)
    mean = float(method.scores(method.patches(found), method.model(memory)).mean())
    assert method.mean_score(memory.subspace) == pytest.approx(mean, rel=0.01)
    half = method.bounded(torch.tensor([10 * mean, 0.0, 1e30]), method.model(memory))
    torch.testing.assert_close(half, torch.tensor([0.5, 0.0, 1.0]), rtol=0, atol=0.01)


def test_maps_are_those_of_opencv(backbone: ImageBackbone) -> None:
    method = make(backbone)
    grid = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    for found, scores in zip(method.raw_map(grid).numpy(), grid.numpy(), strict=True):
        expected = cv2.GaussianBlur(cv2.resize(scores, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), (3, 3), 4.0)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ("mtop1p", lambda x: np.sort(x.ravel())[-36:].mean()),
        ("mtop5", lambda x: np.sort(x.ravel())[-5:].mean()),
        ("p99", lambda x: np.percentile(x, 99)),
        ("max", np.max),
        ("mean", np.mean),
    ],
)
def test_image_scores(backbone: ImageBackbone, top: str, expected: Any) -> None:
    maps = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = make(backbone, top=top).raw_score(maps).numpy()
    np.testing.assert_allclose(found, [expected(each) for each in maps.numpy()], rtol=1e-5)


def test_order_of_scores_is_kept(backbone: ImageBackbone) -> None:
    method = make(backbone)
    memory, found = method.extract_memory(features(method, images=3)), features(method, images=6, seed=1)
    maps = method.raw_map(method.patch_scores(found, memory))
    prediction = method.score(found, NO_TEXT, memory)
    assert torch.equal(prediction.score.argsort(), method.raw_score(maps).argsort())
    assert 0 <= float(prediction.map.min()) < float(prediction.map.max()) <= 1


def test_pictures_without_any_variance_have_scores(backbone: ImageBackbone) -> None:
    method = make(backbone)
    found = features(method)
    for tokens in found.taps.values():
        tokens.fill_(2.0)
    memory = method.extract_memory(found)
    assert float(method.score(found, NO_TEXT, memory).score) == pytest.approx(0, abs=1e-6)
    assert 0.5 < float(method.score(features(method), NO_TEXT, memory).score) <= 1


@pytest.mark.parametrize(
    "changes",
    [{"layers": ()}, {"layers": ((),)}, {"explained": 0.0}, {"components": -1}, {"drop": -1}, {"rotations": -1}],
)
def test_configs_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SubspaceAdConfig(**changes)


def test_packing_keeps_a_symmetric_matrix() -> None:
    matrix = torch.rand(7, 7, dtype=torch.float64)
    matrix = matrix + matrix.T
    assert torch.equal(subspacead.unpack(subspacead.pack(matrix), 7), matrix)
