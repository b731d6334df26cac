"""What is particular to APRIL-GAN and CLIP-AD: their files, their references, their texts, their groups of blocks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import methods
from blemish.clip import Backbone, Tap, load_backbone
from blemish.errors import UsageError, WeightsError
from blemish.methods import checkpoints
from blemish.methods import clip_ad as rvs
from blemish.methods.april_gan import AprilGAN, AprilGanConfig
from blemish.methods.clip_ad import ClipAdSDP, ClipAdSdpConfig, ClipAdSDPPlus, ClipAdSdpPlusConfig, quarter
from blemish.methods.ops import cosine_logits, min_max, probability_map, upsample
from blemish.training.augment import mosaic

APRIL = AprilGanConfig(size=148, layers=(6, 12), few_shot_layers=(18,))
SDP = ClipAdSdpConfig(size=148, layers=(6, 12), rep_vec="mean")
PLUS = ClipAdSdpPlusConfig(size=148, layers=(6, 12), rep_vec="mean")


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def heads(backbone: Backbone, count: int = 2) -> dict[str, torch.Tensor]:
    shapes = {"weight": (backbone.embed_dim, backbone.width), "bias": (backbone.embed_dim,)}
    return {f"fc.{k}.{name}": torch.ones(shape) for k in range(count) for name, shape in shapes.items()}


def test_published_files_are_told_apart(backbone: Backbone) -> None:
    april, plus = AprilGAN(backbone, APRIL), ClipAdSDPPlus(backbone, PLUS)
    inner = heads(backbone)
    checkpoints.load_official(april, {"trainable_linearlayer": inner})
    checkpoints.load_official(plus, {"linear_layers": inner})
    assert all(bool((p == 1).all()) for method in (april, plus) for p in method.parameters())
    with pytest.raises(WeightsError, match=r"weights of CLIP-AD, .* not of APRIL-GAN: load them into clip-ad-sdp-plus"):
        checkpoints.load_official(april, {"linear_layers": inner})
    with pytest.raises(WeightsError, match="weights of APRIL-GAN, not of CLIP-AD"):
        checkpoints.official_config("clip-ad-sdp-plus", {"trainable_linearlayer": inner}, PLUS)
    with pytest.raises(WeightsError, match="weights of VCP-CLIP, not of APRIL-GAN"):
        checkpoints.load_official(april, {"trainable_linearlayer": inner, "New_Lan_Embed": {}, "Zero_try": {}})
    with pytest.raises(WeightsError, match="no weights of APRIL-GAN: they have no 'trainable_linearlayer'"):
        checkpoints.load_official(april, {"state_dict": inner})


def test_published_files_that_do_not_fit(backbone: Backbone) -> None:
    method = AprilGAN(backbone, APRIL)
    before = [p.clone() for p in method.parameters()]
    bad = {**heads(backbone), "fc.1.bias": torch.ones(backbone.embed_dim + 1)}
    for state, message in (
        ({"trainable_linearlayer": heads(backbone, 4)}, "for 4 layers and the config has 2"),
        ({"trainable_linearlayer": bad}, "'fc.1.bias' in the weights has the shape"),
        ({"trainable_linearlayer": [1]}, "no dictionary of tensors"),
        ({"trainable_linearlayer": {**heads(backbone), "x": torch.ones(1)}}, "'x' that the method does not know"),
    ):
        with pytest.raises(WeightsError, match=message):
            checkpoints.load_official(method, state)
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


@torch.no_grad()
def test_references(backbone: Backbone) -> None:
    method = AprilGAN(backbone, APRIL)
    images = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (90, 80, 3)).astype(np.uint8)) for k in (1, 2)]
    pixels = backbone.preprocess(images, 148)
    features = backbone.encode_image(pixels, method.memory_request, method.computation)
    memory, text = method.extract_memory(features), method.text_features(["a"])[0]
    assert memory.images == 2
    assert memory.taps[Tap(18)].shape == (2 * features.grid[0] * features.grid[1], backbone.width)
    plain, shown = method.score(features, text), method.score(features, text, memory)
    torch.testing.assert_close(shown.map, plain.map, rtol=0, atol=1e-5)  # nothing is far from itself
    assert method.memory_map_range == (0.0, 4.0)
    torch.testing.assert_close(shown.score, (plain.score + shown.map.amax((1, 2)) / 4) / 2)
    with pytest.raises(UsageError, match="encode with its memory_request"):
        method.score(backbone.encode_image(pixels, method.request, method.computation), text, memory)


def test_scores_over_a_set(backbone: Backbone) -> None:
    text, peaks = torch.tensor([0.2, 0.4, 0.3]), torch.tensor([3.0, 1.0, 2.0])
    torch.testing.assert_close(ClipAdSDP(backbone, SDP).set_scores(text, peaks), torch.tensor([1.0, 1.0, 1.0]))
    april = AprilGAN(backbone, APRIL)
    assert torch.equal(april.set_scores(text, peaks), text)
    torch.testing.assert_close(april.set_scores(text, peaks, few_shot=True), torch.tensor([0.6, 0.2, 0.4]))
    assert bool(min_max(torch.ones(1)).isnan().all())


def test_names_are_needed_in_training(backbone: Backbone) -> None:
    method = AprilGAN(backbone, APRIL)
    features = backbone.encode_image(torch.zeros(1, 3, 148, 148), method.request, method.computation)
    with pytest.raises(UsageError, match="trained with the names of the objects"):
        method.loss(features, torch.zeros(1, 148, 148), torch.zeros(1))


def test_softmax_comes_after_upsampling() -> None:
    logits = 20 * torch.randn(2, 12, 2)
    both = [upsample(logits[..., k].reshape(2, 3, 4), 31, align_corners=True) for k in (0, 1)]
    torch.testing.assert_close(probability_map(logits, (3, 4), 31), torch.stack(both).softmax(dim=0)[1])


@pytest.mark.parametrize(
    ("layer", "total", "group"),
    [
        (1, 12, (1, 3)),
        (3, 12, (1, 3)),
        (4, 12, (4, 6)),
        (24, 24, (19, 24)),
        (2, 8, (1, 2)),
        (5, 6, (4, 6)),
        (7, 7, (1, 7)),
    ],
)
def test_quarters(layer: int, total: int, group: tuple[int, int]) -> None:
    assert quarter(layer, total) == group


def test_taps_of_the_two_paths(backbone: Backbone) -> None:
    values = {Tap(6, "value", start=1, seeded=False), Tap(12, "value", start=7, seeded=False)}
    method = ClipAdSDP(backbone, ClipAdSdpConfig(size=148, layers=(5, 12)))
    assert method.request.taps == values | {Tap(5, "middle"), Tap(12, "middle")}


def test_clusters() -> None:
    rows = np.array([[0.0], [9.0], [1.0], [10.0], [0.5], [5.0], [10.5], [1.9]], np.float32)
    # 1.9 is no core row itself but near one; 5 is near nothing
    assert rvs.clusters(rows, 1.0, 3).tolist() == [0, 1, 0, 1, 0, -1, 1, 0]
    assert rvs.clusters(rows, 0.1, 2).tolist() == [-1] * 8
    np.testing.assert_allclose(rvs.dbscan(rows, 0.1, 2), rows.mean(axis=0))
    np.testing.assert_allclose(rvs.dbscan(rows, 1.0, 3), [0.85], rtol=1e-6)


def test_representatives_lie_along_the_mean() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 16)) + 2
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    for how in ("mean", "pca", "kde", "dbscan", "mean-shift"):
        exact = rvs.represent(units, ClipAdSdpConfig(rep_vec=how, half_text=False))
        rounded = rvs.represent(units, ClipAdSdpConfig(rep_vec=how))
        assert exact @ rvs.mean(units) > 0
        assert np.linalg.norm(exact) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(rounded, exact, rtol=0, atol=6e-4)
        assert how == "mean" or np.array_equal(rounded, rounded.astype(np.float16))


def test_a_mosaic_of_pictures_of_several_sizes() -> None:
    sizes, values = [(4, 3), (5, 3), (2, 2), (4, 3)], [10, 20, 30, 40]
    tiles = [(Image.new("L", size, value), None) for size, value in zip(sizes, values, strict=True)]
    tiles[1] = (tiles[1][0], np.ones((3, 5)))
    image, mask = mosaic(tiles)
    grey = np.asarray(image)[..., 0]
    assert image.mode == "RGB"
    assert grey.tolist() == [[10] * 4 + [20] * 4] * 3 + [[30, 30, 0, 0] + [40] * 4] * 2 + [[0] * 4 + [40] * 4]
    assert np.array_equal(np.asarray(mask), np.where(grey == 20, 255, 0))


@pytest.mark.parametrize("name", ["april-gan", "clip-ad-sdp-plus"])
@torch.no_grad()
def test_adapters_that_start_at_clips_projection(backbone: Backbone, name: str) -> None:
    """With a norm that adds nothing, cosines are CLIP's own, and what is drawn plays no part."""
    cls = methods.load_class(name)
    other = copy.deepcopy(backbone)
    other.towers.vision_model.post_layernorm.bias.zero_()
    other.towers.vision_model.post_layernorm.weight.normal_(1, 0.2, generator=torch.Generator().manual_seed(0))
    method = cls(other, replace(cls.Config(), size=148, layers=(6, 12), start="projection"))
    pixels = torch.randn(2, 3, 148, 148, generator=torch.Generator().manual_seed(0))
    features = other.encode_image(pixels, method.request, method.computation)
    text = method.text_features(["nut"])[0]
    path = "residual" if name == "april-gan" else "middle"
    for layer, adapted in zip(method.layers, method.adapted(features), strict=True):
        projected = other.project(features.taps[Tap(layer, path)][:, 1:])
        torch.testing.assert_close(cosine_logits(adapted, text, 1.0), cosine_logits(projected, text, 1.0))
    before = [p.clone() for p in method.parameters()]
    method.reset(5)
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
