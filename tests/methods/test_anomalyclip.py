"""What is particular to AnomalyCLIP: its prompts, its rounding, where its layers begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blemish.clip import Backbone, Tap, load_backbone
from blemish.errors import UsageError
from blemish.methods.anomalyclip import AnomalyCLIP, AnomalyClipConfig

CONFIG = AnomalyClipConfig(size=148, n_ctx=5, depth=4, t_n_ctx=3)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def test_prompts_are_built_around_the_tokenizers_own_words(backbone: Backbone) -> None:
    """Nothing depends on CLIP's vocabulary: here each letter is a token."""
    method = AnomalyCLIP(backbone, CONFIG)
    prompts, end = method.prompts()
    words = backbone.tokenize(["object.", "damaged object."])
    assert prompts.shape == (2, backbone.context, backbone.text_width)
    assert end.tolist() == (backbone.end_of_text(words) + 5).tolist()
    embedded = backbone.embed(words)
    assert torch.equal(prompts[:, 0], embedded[:, 0])
    assert torch.equal(prompts[:, 1:6], method.context)
    assert torch.equal(prompts[:, 6:], embedded[:, 1:-5])


def test_taps_begin_where_value_attention_does(backbone: Backbone) -> None:
    method = AnomalyCLIP(backbone, replace(CONFIG, layers=(6, 20, -1), dpam_blocks=5))
    assert method.request.taps == {Tap(6), Tap(20, "value", start=20), Tap(24, "value", start=20)}
    plain = AnomalyCLIP(backbone, replace(CONFIG, layers=(6, 24), dpam_blocks=0))
    assert plain.request.taps == {Tap(6), Tap(24)}


def test_feature_map_layer_leaves_out_the_first_taps(backbone: Backbone) -> None:
    method = AnomalyCLIP(backbone, replace(CONFIG, layers=(6, 12, 24), feature_map_layer=1))
    assert method.map_layers == (12, 24)
    assert method.map_range == (0.0, 2.0)


def test_gradients_of_deep_tokens_are_rounded_per_prompt(backbone: Backbone) -> None:
    method = AnomalyCLIP(backbone, CONFIG)
    tokens = torch.stack(method.deep_tokens())
    assert torch.equal(tokens[:, 0], method.deep.half().float())
    upstream = torch.rand(tokens.shape) * 1e-3 + 1e-9
    tokens.backward(upstream)
    expected = upstream.half().float().sum(dim=1)
    assert method.deep.grad is not None
    assert torch.equal(method.deep.grad, expected)
    exact = AnomalyCLIP(backbone, replace(CONFIG, half_deep_tokens=False))
    assert torch.equal(exact.deep_tokens()[0][0], exact.deep[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dpam_blocks": 25}, "dpam_blocks 25 is more than the 24 image blocks"),
        ({"depth": 13}, "depth 13 is more than the 12 text blocks"),
        ({"n_ctx": 125}, "n_ctx 125: a prompt of .* is more than the 128 text positions"),
        ({"t_n_ctx": 128}, "t_n_ctx 128: a length of 129 is more"),
        ({"layers": (25,)}, "layer 25 does not exist"),
        ({"layers": (-1, 24), "feature_map_layer": 1}, "leaves no layer"),
    ],
)
def test_what_does_not_fit_the_backbone(backbone: Backbone, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AnomalyCLIP(backbone, replace(CONFIG, **changes))


def test_deep_tokens_may_reach_beyond_the_context(backbone: Backbone) -> None:
    method = AnomalyCLIP(backbone, replace(CONFIG, n_ctx=2, t_n_ctx=6))
    assert bool(method.text_features(["x"]).isfinite().all())


def test_a_config_of_another_method(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="takes a AnomalyClipConfig, not a dict"):
        AnomalyCLIP(backbone, {})  # type: ignore[arg-type]
