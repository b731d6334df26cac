"""The backbone's smaller parts: preprocessing, projection, sizes, fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Backbone, from_openai_state_dict
from blemish.clip.tokenizer import clip_tokenizer
from parity import tiny_clip


@torch.no_grad()
def test_project_takes_any_leading_shape(backbone):
    tokens = torch.randn(2, 3, 5, 128)
    weight, norm = backbone.towers.visual_projection.weight, backbone.towers.vision_model.post_layernorm
    torch.testing.assert_close(backbone.project(tokens), norm(tokens) @ weight.T)
    torch.testing.assert_close(backbone.project(tokens, norm=False), tokens @ weight.T)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_preprocess_resizes_in_the_pictures_mode_then_normalises(backbone, mode):
    picture = Image.fromarray(tiny_clip.photo("preprocess", 50, 90)).convert(mode)
    pixels = backbone.preprocess([picture, picture], 37)
    small = np.asarray(picture.resize((37, 37), Image.Resampling.BICUBIC).convert("RGB"), np.float64) / 255
    wanted = (small - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    assert pixels.dtype == torch.float32
    assert pixels.shape == (2, 3, 37, 37)
    np.testing.assert_allclose(pixels[1].permute(1, 2, 0).numpy(), wanted, atol=1e-6)


def test_preprocess_uses_the_checkpoints_mean_and_std(backbone):
    other = Backbone(backbone.towers, backbone.tokenizer, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    pixels = other.preprocess([Image.new("RGB", (9, 9), (255, 255, 255))], 8)
    torch.testing.assert_close(pixels.mean((2, 3)), torch.tensor([[2.0, 1.0, 0.5]]))


def test_preprocess_of_no_pictures_is_empty(backbone):
    assert backbone.preprocess([], 32).shape == (0, 3, 32, 32)


def test_the_backbone_knows_its_sizes(backbone):
    names = ("layers", "width", "patch", "size", "embed_dim", "text_layers", "text_width", "context")
    assert [getattr(backbone, name) for name in names] == [5, 128, 16, 64, 64, 4, 64, 24]


def test_the_fingerprint_follows_the_weights(backbone, state):
    again = Backbone(from_openai_state_dict(state, activation="quick_gelu"), clip_tokenizer())
    assert again.fingerprint == backbone.fingerprint
    assert len(again.fingerprint) == 16
    assert int(again.fingerprint, 16) >= 0
    state["ln_final.bias"] = state["ln_final.bias"] + 1e-6
    other = Backbone(from_openai_state_dict(state, activation="quick_gelu"), clip_tokenizer())
    assert other.fingerprint != backbone.fingerprint
