"""What is particular to VCP-CLIP: sentences around a name that is no word, dropout, its score, the authors' files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blemish import methods
from blemish.clip import Backbone, ImageFeatures, load_backbone
from blemish.errors import BlemishError, UsageError, WeightsError
from blemish.methods import checkpoints
from blemish.methods.vcp_clip import VCPCLIP, VcpClipConfig
from blemish.prompts import PromptSet

CONFIG = VcpClipConfig(size=148, layers=(6, -1), prompt_len=3, deep_prompt_len=2)
State = dict[str, Any]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def features(backbone: Backbone) -> ImageFeatures:
    method = VCPCLIP(backbone, CONFIG)
    pixels = torch.randn(2, 3, 148, 148, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.encode_image(pixels, method.request, method.computation)


def official(method: VCPCLIP) -> State:
    """A state in the authors' layout, with random values."""
    r, backbone = method.config, method.backbone
    generator = torch.Generator().manual_seed(5)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    wide, width = backbone.width, backbone.text_width
    linear = {
        f"fc.{k}.{kind}": some(*s) for k in range(4) for kind, s in (("weight", (width, wide)), ("bias", (width,)))
    }
    post = {
        f"{name}.{kind}": some(*shape)
        for name, enters in (
            ("q_proj_pre", width),
            ("k_proj_pre_1", wide),
            ("v_proj_pre_1", wide),
            ("proj_post_t", wide),
        )
        for kind, shape in (("weight", (wide, enters, 1)), ("bias", (wide,)))
    }
    state: State = {
        "trainable_linearlayer": {k: v for k, v in linear.items() if int(k[3]) < len(method.layers)},
        "New_Lan_Embed": {
            "prompt_query": some(1, r.prompt_len, width),
            "prompt_temp": some(),
            "prompt_linear1.fc.weight": some(r.prompt_len, 1, 3),
            "prompt_linear1.fc.bias": some(r.prompt_len),
        },
        "Zero_try": {"prompt_temp_l1": some(), **post},
        "prompt_text_projection": torch.nn.Parameter(some(width, width)),
        "prompt_embeddings": torch.nn.Parameter(some(1, r.deep_prompt_len, width)),
        "prompt_proj.weight": some(width, width),
        "prompt_proj.bias": some(width),
        "prompt_norm.weight": some(width),
        "prompt_norm.bias": some(width),
    }
    if r.total_d_layer_len:
        state["deep_prompt_embeddings"] = torch.nn.Parameter(some(r.total_d_layer_len, r.deep_prompt_len, width))
    return state


# sentences


def test_sentences_are_built_around_the_tokenizers_own_words(backbone: Backbone) -> None:
    prompts = PromptSet(("a {} without flaw.", "{}"), ("{} broken",))
    method = type("Other", (VCPCLIP,), {"PROMPTS": prompts})(backbone, CONFIG)
    names = torch.randn(2, 3, backbone.text_width)
    embeddings, end = method.prompts(names)
    plain = backbone.tokenize(["a", "without flaw.", "", "broken"])
    a, flaw, nothing, broken = (ids[: int(backbone.end_of_text(ids[None])) + 1] for ids in plain)
    rows = [(a[:-1], flaw[1:]), (nothing[:-1], nothing[1:]), (nothing[:-1], broken[1:])]
    for number, (left, right) in enumerate(rows):
        for row in range(2):
            expected = torch.cat([backbone.embed(left[None])[0], names[row], backbone.embed(right[None])[0]])
            at = 2 * number + row
            assert int(end[at]) == len(expected) - 1
            assert torch.equal(embeddings[at, : len(expected)], expected)


def test_each_picture_has_its_own_texts(backbone: Backbone, features: ImageFeatures) -> None:
    method = VCPCLIP(backbone, CONFIG)
    texts = method.sentence_features(method.names(features))
    assert texts.shape == (2, 2, backbone.embed_dim)
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)
    # so what is handed in does not matter
    one, other = (method.score(features, text) for text in (texts[0], -texts[1]))
    assert torch.equal(one.map, other.map)


def test_without_the_picture_in_the_prompt_the_texts_are_the_callers(
    backbone: Backbone, features: ImageFeatures
) -> None:
    method = VCPCLIP(backbone, replace(CONFIG, use_global=False))
    assert "pre.conv.weight" not in method.state_dict()
    text = method.text_features(["a", "b"])
    assert torch.equal(text[0], text[1])
    torch.testing.assert_close(method.sentence_features(method.names(features)), text)
    assert not torch.equal(method.score(features, text[0]).map, method.score(features, -text[0]).map)


def test_shallow_has_neither_deep_tokens_nor_a_norm(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, replace(CONFIG, total_d_layer_len=0))
    assert not any(name.startswith("deep") for name in method.state_dict())
    names = method.pre.query.unsqueeze(0)
    embeddings, end = method.prompts(names)
    raw = backbone.encode_text(embeddings=embeddings, end=end, activation="gelu")
    torch.testing.assert_close(method.sentence_features(names)[0], raw / raw.norm(dim=1, keepdim=True))


def test_dropout_is_for_losses_in_training_only(backbone: Backbone, features: ImageFeatures) -> None:
    method = VCPCLIP(backbone, CONFIG)
    masks, labels = torch.zeros(2, 148, 148), torch.tensor([0, 0])
    method.train()
    drawn = [method.loss(features, masks, labels)["total"].item() for _ in range(2)]
    assert drawn[0] != drawn[1]
    text = method.text_features(["x"])[0]
    assert torch.equal(method.score(features, text).map, method.score(features, text).map)
    method.eval()
    still = [method.loss(features, masks, labels)["total"].item() for _ in range(2)]
    assert still[0] == still[1]


def test_what_pictures_share_of_their_sentences_changes_nothing(backbone: Backbone) -> None:
    """With a dropout that drops nothing every sentence goes through the tower whole."""
    prompts = PromptSet(("a {} here",), ("a {} here",))  # as long before and after the name
    config = replace(CONFIG, dropout=0.5)
    method = type("Other", (VCPCLIP,), {"PROMPTS": prompts})(backbone, config).train()
    method.deep.dropout = nn.Identity()
    names = torch.randn(3, CONFIG.prompt_len, backbone.text_width)
    with torch.no_grad():
        shared, whole = (method.sentence_features(names, learning=learning) for learning in (False, True))
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=0)


def test_each_sentence_and_block_has_its_own_dropout(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, replace(CONFIG, dropout=0.5))
    assert method.deep is not None
    kept = method.deep(6, learning=True) != 0
    assert kept.shape == (12, 6, 2, backbone.text_width)
    assert len({tuple(row.flatten().tolist()) for block in kept for row in block}) == 72
    assert 0.4 < float(kept.float().mean()) < 0.6


# scores


@pytest.mark.parametrize(("size", "count"), [(518, 2000), (70, 37), (84, 53), (98, 72), (256, 488), (74, 41)])
def test_top_pixels_follow_the_area(backbone: Backbone, size: int, count: int) -> None:
    assert VCPCLIP(backbone, replace(CONFIG, size=size)).top_pixels == count


def test_top_pixels_are_at_least_one_and_at_most_all(backbone: Backbone) -> None:
    assert VCPCLIP(backbone, replace(CONFIG, size=74, top_k=1)).top_pixels == 1
    assert VCPCLIP(backbone, replace(CONFIG, size=74, top_k=10**6)).top_pixels == 74**2


@torch.no_grad()
def test_the_score_is_of_both_maps_before_smoothing(backbone: Backbone, features: ImageFeatures) -> None:
    method = VCPCLIP(backbone, CONFIG)
    text = method.text_features(["x"])[0]
    alone = {}
    for alpha in (0.0, 1.0):
        other = VCPCLIP(backbone, replace(CONFIG, alpha=alpha, sigma=0.0))
        other.load_state_dict(method.state_dict())
        alone[alpha] = other.score(features, text)
    tops = [p.map.flatten(1).sort(descending=True).values[:, : method.top_pixels].mean(1) for p in alone.values()]
    found = method.score(features, text)
    for prediction in (found, *alone.values()):
        torch.testing.assert_close(prediction.score, sum(tops) / 2)


def test_set_scores(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, CONFIG)
    torch.testing.assert_close(method.set_scores(torch.tensor([0.5, 0.25, 0.75])), torch.tensor([0.5, 0.0, 1.0]))
    assert bool(method.set_scores(torch.tensor([0.5, 0.5])).isnan().all())


# training


def test_the_temperatures_have_their_own_learning_rate(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, CONFIG)
    others, scales = method.optimizer(lr=1e-3).param_groups
    assert (others["lr"], scales["lr"], others["betas"], scales["betas"]) == (1e-3, 0.01, (0.5, 0.999), (0.5, 0.999))
    assert [id(p) for p in scales["params"]] == [id(method.raw_scale), id(method.new_scale)]
    assert len(others["params"]) + 2 == len(list(method.parameters()))
    assert method.optimizer().param_groups[0]["lr"] == 4e-5


def test_what_training_starts_from(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, CONFIG)
    assert float(method.raw_scale.detach().exp()) == pytest.approx(1 / 0.07)
    assert method.deep is not None
    assert method.pre.conv is not None
    assert bool((method.pre.query.abs() <= 2).all())
    assert bool((method.deep.tokens.abs() <= 1).all())
    assert bool((method.deep.norm.weight == 1).all())
    assert bool((method.pre.conv.weight.abs() <= 3**-0.5).all())
    assert bool((method.post.query.weight.abs() <= backbone.text_width**-0.5).all())


# configs and files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_d_layer_len": 5}, "total_d_layer_len has to be 0 or 11 on this backbone, not 5"),
        ({"prompt_len": 110}, "a sentence of 130 is more than the 128 text positions"),
        ({"layers": (25,)}, "layer 25 does not exist"),
        ({"layers": ()}, "at least one layer"),
        ({"prompt_len": 0}, "prompt_len has to be at least 1, not 0"),
        ({"alpha": 1.5}, "alpha has to be between 0 and 1"),
        ({"dropout": 1.0}, "dropout has to be at least 0 and less than 1"),
        ({"image_score": "text"}, "image_score 'text' is not one of this method's: top, map"),
    ],
)
def test_what_does_not_fit(backbone: Backbone, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VCPCLIP(backbone, replace(CONFIG, **changes))


def test_the_text_tower_has_to_be_as_wide_as_the_joint_space(backbone: Backbone) -> None:
    other = copy.copy(backbone)
    other.embed_dim = 24
    with pytest.raises(UsageError, match="as wide as its joint space, not 16 and 24"):
        VCPCLIP(other, CONFIG)


@pytest.mark.parametrize("changes", [{}, {"total_d_layer_len": 0}, {"use_global": False}])
def test_published_files(backbone: Backbone, features: ImageFeatures, changes: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, **changes)
    state = official(VCPCLIP(backbone, config))
    torch.save(state, tmp_path / "epoch_10.pth")
    given = {"size": 148, "layers": [6, -1], "use_global": config.use_global}
    method = methods.create("vcp-clip", backbone, given, weights=tmp_path / "epoch_10.pth")
    # without deep tokens their length is anything
    assert method.config == replace(config, deep_prompt_len=method.config.deep_prompt_len)
    learnt = method.state_dict()
    assert torch.equal(learnt["pre.query"], state["New_Lan_Embed"]["prompt_query"][0])
    assert torch.equal(learnt["post.key.weight"], state["Zero_try"]["k_proj_pre_1.weight"][..., 0])
    if config.total_d_layer_len:
        assert torch.equal(learnt["deep.tokens"][1:], state["deep_prompt_embeddings"])
    assert bool(method.score(features, method.text_features(["x"])[0]).map.isfinite().all())


def test_published_adapters_may_be_too_many_or_too_few(backbone: Backbone) -> None:
    method = VCPCLIP(backbone, CONFIG)
    state = official(VCPCLIP(backbone, replace(CONFIG, layers=(3, 6, -1))))
    with pytest.warns(UserWarning, match=r"holds fc\.2\.bias, fc\.2\.weight, which the method has no place for"):
        checkpoints.load_official(method, state)
    assert torch.equal(method.linear.fc[1].bias, state["trainable_linearlayer"]["fc.1.bias"])
    method.reset(3)
    before = method.linear.fc[1].bias.clone()
    del state["trainable_linearlayer"]["fc.1.bias"]
    del state["trainable_linearlayer"]["fc.2.weight"], state["trainable_linearlayer"]["fc.2.bias"]
    with pytest.warns(UserWarning, match=r"lacks fc\.1\.bias: untrained values stand in"):
        checkpoints.load_official(method, state)
    assert torch.equal(method.linear.fc[1].bias, before)


WRONG: list[tuple[Callable[[State], object], str]] = [
    (lambda s: s.pop("Zero_try"), "weights of APRIL-GAN, not of VCP-CLIP"),
    (lambda s: s.clear(), "these are no weights of VCP-CLIP"),
    (lambda s: s.update(Zero_try={}), "'Zero_try' in the weights has none of the tensors"),
    (lambda s: s.update(Zero_try=[1]), "'Zero_try' in the weights is no dictionary"),
    (lambda s: s["New_Lan_Embed"].pop("prompt_temp"), "no tensor 'prompt_temp'"),
    (lambda s: s["New_Lan_Embed"].update(more=torch.zeros(1)), "a tensor 'more'"),
    (lambda s: s["New_Lan_Embed"].update(prompt_query=torch.zeros(3, 16)), "no 'New_Lan_Embed: prompt_query' of three"),
    (lambda s: s.pop("prompt_norm.bias"), "no tensor 'prompt_norm.bias'"),
    (lambda s: s.update(other=torch.zeros(1)), "a tensor 'other'"),
    (lambda s: s["Zero_try"].update({"q_proj_pre.weight": torch.zeros(32, 24, 1)}), r"shape \(32, 24, 1\)"),
    (lambda s: s["trainable_linearlayer"].update({"fc.0.weight": torch.zeros(16, 64)}), r"shape \(16, 64\)"),
    (lambda s: s["prompt_proj.bias"].fill_(torch.nan), "not finite"),
    (lambda s: s.update(deep_prompt_embeddings=torch.zeros(3, 2, 16)), "total_d_layer_len has to be 0 or 11"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_other_files_are_refused(
    backbone: Backbone, spoil: Callable[[State], object], message: str, tmp_path: Path
) -> None:
    state = official(VCPCLIP(backbone, CONFIG))
    spoil(state)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(BlemishError, match=message):
        methods.create("vcp-clip", backbone, {"size": 148, "layers": [6, -1]}, weights=tmp_path / "wrong.pth")


def test_deep_tokens_that_the_config_has_not(backbone: Backbone) -> None:
    state = official(VCPCLIP(backbone, CONFIG))
    with pytest.raises(WeightsError, match="have deep prompts and the config has none"):
        checkpoints.load_official(VCPCLIP(backbone, replace(CONFIG, total_d_layer_len=0)), state)
