"""From OpenAI's key names to the towers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.clip import Backbone, from_openai_state_dict
from blemish.clip.openai import default_heads
from blemish.clip.tokenizer import clip_tokenizer
from blemish.errors import WeightsError


def test_the_model_is_frozen_float32_and_its_own(state):
    half = {key: value.half() for key, value in state.items()}
    random = torch.random.get_rng_state()
    model = from_openai_state_dict(half, activation="gelu")
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())
    assert all(not value.is_meta for value in [*model.parameters(), *model.buffers()])
    pointers = [p.untyped_storage().data_ptr() for p in model.parameters()]
    assert len(set(pointers)) == len(pointers)
    again = from_openai_state_dict(state, activation="gelu")
    assert again.logit_scale.data_ptr() != state["logit_scale"].data_ptr()
    weight = again.vision_model.pre_layrnorm.weight
    assert torch.equal(weight, state["visual.ln_pre.weight"])
    assert weight.data_ptr() != state["visual.ln_pre.weight"].data_ptr()


def test_sizes_follow_from_shapes(state):
    config = from_openai_state_dict(state, activation="quick_gelu").config
    vision, text = config.vision_config, config.text_config
    assert (vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size, vision.image_size) == (
        5,
        2,
        16,
        64,
    )
    assert (text.num_hidden_layers, text.num_attention_heads, text.max_position_embeddings) == (4, 1, 24)
    assert (vision.hidden_act, text.hidden_act, text.eos_token_id) == ("quick_gelu", "quick_gelu", 49407)


def test_other_mlp_ratios_and_heads(state):
    for number in range(5):
        prefix = f"visual.transformer.resblocks.{number}.mlp."
        state[prefix + "c_fc.weight"] = state[prefix + "c_fc.weight"][:300]
        state[prefix + "c_fc.bias"] = state[prefix + "c_fc.bias"][:300]
        state[prefix + "c_proj.weight"] = state[prefix + "c_proj.weight"][:, :300]
    model = from_openai_state_dict(state, activation="gelu", heads=(4, 2))
    assert model.vision_model.encoder.layers[0].mlp.fc1.weight.shape == (300, 128)
    assert model.vision_model.encoder.layers[0].self_attn.num_heads == 4
    assert model.text_model.encoder.layers[0].self_attn.num_heads == 2
    features = Backbone(model, clip_tokenizer()).encode_image(torch.zeros(1, 3, 64, 64))
    assert torch.isfinite(features.class_token).all()


def test_heads_of_published_models():
    # ViT-B, L, B-plus; then open_clip's ViT-H, g and bigG with their text towers.
    assert default_heads(768, 512) == (12, 8)
    assert default_heads(1024, 768) == (16, 12)
    assert default_heads(896, 640) == (14, 10)
    assert default_heads(1280, 1024) == (16, 16)
    assert default_heads(1408, 1024) == (16, 16)
    assert default_heads(1664, 1280) == (16, 20)


def test_the_activation_is_never_guessed(state):
    with pytest.raises(WeightsError, match="activation"):
        from_openai_state_dict(state)


def test_what_is_no_weight_is_passed_over(state):
    state |= {"input_resolution": torch.tensor(64), "attn_mask": torch.zeros(2, 2)}
    state["transformer.resblocks.0.attn_mask"] = torch.zeros(2, 2)
    del state["logit_scale"]
    from_openai_state_dict(state, activation="gelu")


def broken(state, change):
    out = dict(state)
    change(out)
    return out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("visual.conv1.weight"), "visual.conv1.weight"),
        (lambda s: s.pop("text_projection"), "text_projection"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("visual.")], "is missing and"),
        (lambda s: s.pop("transformer.resblocks.2.ln_1.bias"), "text_model.encoder.layers.2.layer_norm1.bias"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("transformer.resblocks.1.")], "numbered"),
        (lambda s: s.update({"visual.layer1.0.conv1.weight": torch.zeros(1)}), "ResNet"),
        (lambda s: s.update({"visual.transformer.resblocks.0.ls_1.gamma": torch.zeros(128)}), "ls_1"),
        (lambda s: s.update({"something.else": torch.zeros(1)}), "something.else"),
        (lambda s: s.update({"transformer.resblocks.x.ln_1.bias": torch.zeros(64)}), "numbered"),
        (lambda s: s.update({"ln_final.weight": torch.zeros(65)}), "shape"),
        (lambda s: s.update({"visual.transformer.resblocks.1.attn.in_proj_bias": torch.zeros(383)}), "shape"),
        (lambda s: s.update({"visual.transformer.resblocks.1.attn.in_proj_bias": torch.tensor(0.0)}), "shape"),
        (lambda s: s.update({"visual.conv1.weight": torch.zeros(128, 3)}), "shapes"),
        (lambda s: s.update({"visual.conv1.weight": torch.zeros(128, 3, 16, 8)}), "shape"),
        (lambda s: s.update({"visual.positional_embedding": torch.zeros(16, 128)}), "square"),
        (lambda s: s.update({"visual.proj": torch.tensor(0.0)}), "shape"),
        (lambda s: s.update({"visual.transformer.resblocks.0.mlp.c_fc.weight": torch.tensor(0.0)}), "shape"),
    ],
)
def test_other_models_are_named(state, change, says):
    with pytest.raises(WeightsError, match=says) as caught:
        from_openai_state_dict(broken(state, change), activation="gelu")
    assert "\n" not in str(caught.value)


def test_heads_must_divide_the_width(state):
    with pytest.raises(WeightsError, match="attention heads"):
        from_openai_state_dict(state, activation="gelu", heads=(3, 1))


def test_arrays_and_tensors_give_the_same(arrays, state):
    one, two = (from_openai_state_dict(source, activation="gelu").state_dict() for source in (arrays, state))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert np.isfinite(arrays["logit_scale"])
