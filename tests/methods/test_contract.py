"""What holds for every method, on a tiny backbone: run over the registry, so a new method is tested by being listed."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import methods
from blemish.clip import Backbone, ImageFeatures, load_backbone
from blemish.errors import UsageError
from blemish.methods import builtin, checkpoints, configs
from blemish.methods.base import (
    FewShotMethod,
    MemoryBank,
    Method,
    Prediction,
    ReferenceMethod,
    TransductiveMethod,
)

NAMES = methods.list_methods()
OBJECTS = ["metal_nut", "Ünknown {thing} №5"]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest, backbone: Backbone) -> Method:
    method = small(request.param, backbone)
    method.reset(1)
    return method


def small(name: str, backbone: Backbone) -> Method:
    """A method on a grid of 3, not the checkpoint's 7."""
    cls = methods.load_class(name)
    return cls(backbone, replace(cls.Config(), size=222, geometry="squash")).eval()


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    sizes = [(61, 33), (7, 240), (222, 222)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3)).astype(np.uint8)) for w, h in sizes[:count]]


def features_of(method: Method, images: list[Image.Image]) -> ImageFeatures:
    pixels = method.backbone.preprocess(images, method.computation.size)
    return method.backbone.encode_image(pixels, method.request, method.computation)


@torch.no_grad()
def predict(method: Method, images: list[Image.Image], name: str = "metal nut") -> Prediction:
    return score(method, features_of(method, images), method.text_features([name])[0])


def score(method: Method, features: ImageFeatures, text: torch.Tensor) -> Prediction:
    """Zero-shot, or with references if the method does nothing but compare."""
    if not method.info.needs_references:
        return method.score(features, text)
    assert isinstance(method, ReferenceMethod)
    return method.score(features, text, build(method, [each.rotate(90) for each in [*pictures(), *pictures()]]))


def map_range(method: Method) -> tuple[float, float]:
    """The range of the maps of `score`."""
    compares = method.info.needs_references and isinstance(method, ReferenceMethod)
    return method.memory_map_range if compares else method.map_range


def test_text_features(method: Method) -> None:
    text = method.text_features(OBJECTS)
    if text.shape == (2, 2, 0):
        assert not method.info.needs_text
        return
    assert text.shape == (2, 2, method.backbone.embed_dim)
    # CLIP-AD's texts are rounded to float16 after they are normalised
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2, 2), rtol=0, atol=5e-4)
    changes = not torch.allclose(text[0], text[1])
    assert changes == method.info.needs_object


def test_prediction(method: Method) -> None:
    found = predict(method, pictures())
    assert found.score.shape == (3,)
    assert found.map.shape == (3, *found.map.shape[1:])
    assert method.finish_map(found.map[0], 50, 70).shape == (50, 70)
    assert found.score.dtype == found.map.dtype == torch.float32
    assert bool(((found.score >= 0) & (found.score <= 1)).all())
    low, high = map_range(method)
    assert bool(found.map.isfinite().all())
    assert low - 1e-5 <= float(found.map.min()) <= float(found.map.max()) <= high + 1e-5
    assert float(found.map.std()) > 0


@pytest.mark.parametrize("size", [74, 150, 300])
def test_other_input_sizes(method: Method, size: int) -> None:
    other = type(method)(method.backbone, replace(method.config, size=size))
    found = predict(other, pictures(2))
    assert len(found.map) == 2
    assert bool(found.map.isfinite().all())


def test_a_batch_is_its_pictures(method: Method) -> None:
    whole = predict(method, pictures())
    for row, image in enumerate(pictures()):
        single = predict(method, [image])
        torch.testing.assert_close(single.score[0], whole.score[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(single.map[0], whole.map[row], rtol=0, atol=1e-4)


def test_each_picture_may_have_its_own_text(method: Method) -> None:
    features, text = features_of(method, pictures(2)), method.text_features(OBJECTS)
    both = score(method, features, text)
    for row in range(2):
        one = score(method, features, text[row])
        torch.testing.assert_close(one.map[row], both.map[row])
        torch.testing.assert_close(one.score[row], both.score[row])


def test_twice_is_the_same(method: Method) -> None:
    first, second = predict(method, pictures()), predict(method, pictures())
    assert torch.equal(first.map, second.map)
    assert torch.equal(first.score, second.score)


@pytest.mark.parametrize("kind", ["text", "map", "text+map", "text+mean", "top"])
def test_image_score(method: Method, kind: str) -> None:
    def scored(kind: str) -> Prediction:
        other = type(method)(method.backbone, replace(method.config, image_score=kind))
        other.load_state_dict(method.state_dict())
        return predict(other, pictures())

    known = method.config.image_scores
    changes = builtin.CONFIGS.get(method.info.name, {})
    assert {method.config.image_score, changes.get("image_score", known[0])} <= {*known}
    if kind not in known:
        with pytest.raises(
            UsageError, match=f"image_score '{re.escape(kind)}' is not one of this method's: {re.escape(known[0])}, "
        ):
            scored(kind)
        return
    # what stands for the whole picture: the text, or the method's own score
    found, whole = scored(kind), scored("text" if "text" in known else known[0])
    low, high = map_range(method)
    peak, mean = ((values - low) / (high - low) for values in (found.map.amax((1, 2)), found.map.mean((1, 2))))
    expected = {"map": peak, "text+map": (whole.score + peak) / 2, "text+mean": (4 * whole.score + mean) / 5}
    torch.testing.assert_close(found.score, expected.get(kind, whole.score))
    assert torch.equal(found.map, whole.map)


def test_more_features_than_asked_for_do_no_harm(method: Method) -> None:
    others = [methods.create(name, method.backbone) for name in NAMES]
    request = method.request
    for other in others:
        request = request | other.request
    with torch.no_grad():
        pixels = method.backbone.preprocess(pictures(), method.computation.size)
        features = method.backbone.encode_image(pixels, request, method.computation)
        found = score(method, features, method.text_features(["metal nut"])[0])
    torch.testing.assert_close(found.map, predict(method, pictures()).map, rtol=0, atol=1e-5)


def test_save_and_load(method: Method, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    checkpoints.save(method, path, trained_on="nothing", source="a test")
    again = methods.create(method.info.name, method.backbone, weights=path)
    assert again.config == method.config
    assert torch.equal(predict(again, pictures()).map, predict(method, pictures()).map)
    assert checkpoints.read_header(path, method=method.info.name).source == "a test"


def test_config_as_json(method: Method) -> None:
    assert configs.from_json(method.Config, configs.to_json(method.config)) == method.config


def test_autocast_is_close(method: Method) -> None:
    exact = predict(method, pictures())
    with torch.no_grad():
        text = method.text_features(["metal nut"])[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = score(method, features_of(method, pictures()), text)
    assert found.map.dtype == found.score.dtype == torch.float32
    low, high = map_range(method)
    span = high - low
    assert float((found.map - exact.map).abs().mean()) < 0.1 * span
    torch.testing.assert_close(found.score, exact.score, rtol=0, atol=0.15)


def test_features_without_the_class_token(method: Method) -> None:
    """A method that asks for the class token names it when it is missing; the others do without."""
    bare, text = replace(features_of(method, pictures(1)), class_token=None), method.text_features(["a"])[0]
    if method.request.class_token:
        with pytest.raises(UsageError, match="lack the class token"):
            method.score(bare, text)
    else:
        assert torch.equal(score(method, bare, text).map, predict(method, pictures(1), "a").map)


def test_nothing_is_left_behind(method: Method) -> None:
    backbone = method.backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = features_of(method, pictures())
    kept = copy.deepcopy(features)
    text = method.text_features(["metal nut"])[0].detach().clone()
    words = text.clone()
    score(method, features, text)
    assert torch.equal(text, words)
    assert all(torch.equal(value, kept.taps[tap]) for tap, value in features.taps.items())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    for module in [*method.modules(), *backbone.modules()]:
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_the_backbone_is_no_part_of_the_method(method: Method) -> None:
    own = {id(parameter) for parameter in method.parameters()}
    assert not own & {id(parameter) for parameter in method.backbone.parameters()}
    assert bool(own) == bool(method.state_dict()) == method.info.trainable == (method.TRAINING is not None)


def test_reset_is_by_seed_and_draws_nothing_outside(method: Method) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    method.reset(7)
    first = [p.detach().clone() for p in method.parameters()]
    assert torch.equal(torch.rand(1), expected)
    method.reset(7)
    assert all(torch.equal(a, b) for a, b in zip(first, method.parameters(), strict=True))
    method.reset(8)
    drawn = [a for a in first if a.unique().numel() > 1]  # the others start from one value
    assert bool(drawn) == method.info.trainable
    again = (b for a, b in zip(first, method.parameters(), strict=True) if a.unique().numel() > 1)
    assert not any(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_loss(method: Method) -> None:
    masks, labels = torch.zeros(3, 222, 222), torch.tensor([0, 1, 0])
    masks[1, 50:100, 30:200] = 1
    with torch.no_grad():
        features = features_of(method, pictures())
    if not method.info.trainable:
        with pytest.raises(UsageError, match="nothing to train"):
            method.loss(features, masks, labels)
        return
    losses = method.loss(features, masks, labels, ["a", "b", "a"])
    losses["total"].backward()
    assert losses["total"].shape == ()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name
    assert all(parameter.grad is None for parameter in method.backbone.parameters())


# methods with a memory bank


@pytest.fixture(params=[name for name in NAMES if methods.info(name).takes_references])
def reference_method(request: pytest.FixtureRequest, backbone: Backbone) -> ReferenceMethod:
    method = small(request.param, backbone)
    assert isinstance(method, ReferenceMethod)
    return method


@torch.no_grad()
def encode(method: ReferenceMethod, images: list[Image.Image]) -> ImageFeatures:
    pixels = method.backbone.preprocess(images, method.computation.size)
    return method.backbone.encode_image(pixels, method.memory_request, method.computation)


@torch.no_grad()
def build(method: ReferenceMethod, images: list[Image.Image]) -> MemoryBank:
    pixels = method.backbone.preprocess(images, method.computation.size)

    def run(batch: torch.Tensor) -> ImageFeatures:
        return method.backbone.encode_image(batch, method.memory_request, method.computation)

    return method.build_memory_bank(pixels.split(2), run, num_images=len(images))


def test_the_class_says_which_references_a_method_takes(reference_method: ReferenceMethod) -> None:
    info = reference_method.info
    assert info.few_shot == isinstance(reference_method, FewShotMethod)
    assert info.transductive == isinstance(reference_method, TransductiveMethod)
    assert info.few_shot != info.transductive


@torch.no_grad()
def test_scores_with_a_memory_bank(reference_method: ReferenceMethod) -> None:
    method, bank = reference_method, build(reference_method, [each.rotate(90) for each in pictures()])
    assert bank.images == 3
    features, text = encode(method, pictures()), method.text_features(["metal nut"])[0]
    compared = method.score(features, text, bank)
    assert compared.map.dtype == compared.score.dtype == torch.float32
    if method.info.needs_references:
        with pytest.raises(UsageError, match="references"):
            method.score(features, text)
    else:
        zero_shot = method.score(features, text)
        assert compared.map.shape == zero_shot.map.shape
        assert not torch.allclose(compared.map, zero_shot.map, atol=1e-3)
        assert not torch.allclose(compared.score, zero_shot.score, atol=1e-3)
    assert bool(((compared.score >= 0) & (compared.score <= 1)).all())
    low, high = method.memory_map_range
    assert low - 1e-5 <= float(compared.map.min()) <= float(compared.map.max()) <= high + 1e-5


@torch.no_grad()
def test_a_memory_bank_is_not_changed(reference_method: ReferenceMethod) -> None:
    method, bank = reference_method, build(reference_method, pictures())
    before = copy.deepcopy(bank)
    features, text = encode(method, pictures()), method.text_features(["metal nut"])[0]
    first = method.score(features, text, bank)
    score(method, features, text)
    assert torch.equal(method.score(features, text, bank).map, first.map)
    assert (bank.images, bank.references, bank.fingerprint) == (before.images, before.references, before.fingerprint)
    for kept, original in ((bank.taps, before.taps), (bank.windows, before.windows)):
        assert kept.keys() == original.keys()
        assert all(torch.equal(kept[key], original[key]) for key in kept)


@torch.no_grad()
def test_a_memory_bank_of_parts_is_the_whole(reference_method: ReferenceMethod) -> None:
    method = reference_method
    whole = method.extract_memory(encode(method, pictures()))
    parts = type(whole).concat([method.extract_memory(encode(method, [each])) for each in pictures()])
    assert parts.images == whole.images
    for tap, rows in whole.taps.items():
        torch.testing.assert_close(parts.taps[tap], rows, rtol=0, atol=1e-4)
