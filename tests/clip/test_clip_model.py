"""The towers: configurations, and sharing parameters with transformers' own model."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from blemish.clip import Backbone, Towers
from blemish.clip.model import ClipConfig, TextConfig, VisionConfig
from blemish.errors import WeightsError


def test_an_empty_config_has_the_defaults_of_transformers():
    config, theirs = ClipConfig.from_dict({"text_config": None}), CLIPConfig()
    for ours, part in ((config.vision_config, theirs.vision_config), (config.text_config, theirs.text_config)):
        assert vars(ours) == {name: getattr(part, name) for name in vars(ours)}
    assert config.projection_dim == theirs.projection_dim


def test_the_second_copy_in_old_configs_counts_as_in_transformers():
    settings = {
        "vision_config": {"hidden_size": 64, "num_attention_heads": 4},
        "vision_config_dict": {"hidden_size": 96, "patch_size": 16},
        "text_config_dict": None,
    }
    config = ClipConfig.from_dict(settings)
    theirs = CLIPConfig(**settings)
    assert config.vision_config == VisionConfig(hidden_size=96, patch_size=16)
    assert theirs.vision_config.hidden_size == 96
    assert theirs.vision_config.num_attention_heads == config.vision_config.num_attention_heads == 12
    assert config.text_config == TextConfig()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"vision_config": []}, "JSON object"),
        ({"vision_config": {"hidden_size": "768"}}, "hidden_size must be a whole number above 0, not '768'"),
        ({"text_config": {"num_hidden_layers": 0}}, "num_hidden_layers"),
        ({"text_config": {"num_attention_heads": 7}}, "split into 7 attention heads"),
        ({"text_config": {"hidden_act": "relu"}}, "'relu' is not one of quick_gelu, gelu"),
        ({"projection_dim": 1.5}, "projection_dim"),
    ],
)
def test_configs_that_describe_no_clip_are_refused(settings, says):
    with pytest.raises(WeightsError, match=says):
        ClipConfig.from_dict(settings)


def test_parameters_are_shared_with_transformers(backbone):
    parameters = dict(backbone.towers.named_parameters())
    model = backbone.model
    assert isinstance(model, CLIPModel)
    assert {name: id(value) for name, value in model.named_parameters()} == {n: id(v) for n, v in parameters.items()}
    assert not model.training
    towers = Backbone(model, backbone.tokenizer).towers
    assert {name: id(value) for name, value in towers.named_parameters()} == {n: id(v) for n, v in parameters.items()}
    assert towers.config == backbone.towers.config


def test_a_model_of_transformers_is_not_changed(backbone):
    model = CLIPModel(backbone.model.config).train()
    towers = Towers.from_transformers(model)
    assert towers.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, towers.state_dict()[name]) for name, value in model.state_dict().items())


def test_transformers_is_an_optional_part(backbone, monkeypatch) -> None:
    import sys

    from blemish.errors import UsageError

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'blemish\[transformers\]'"):
        backbone.towers.to_transformers()
