"""DINOv2 as a backbone: three sets of names, transformers' own numbers, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blemish.clip import Computation, Dinov2Backbone, Dinov2Tower, Request, Tap, load_backbone, resize_positions
from blemish.clip.dinov2 import IMAGENET_MEAN, default_heads
from blemish.errors import UsageError, WeightsError
from parity import tiny_dinov2

PLAIN = dataclasses.replace(tiny_dinov2.TINY_S14, num_hidden_layers=3, image_size=56)
REGISTERS = dataclasses.replace(PLAIN, num_register_tokens=4)
HEADS = {"num_attention_heads": 2}


def tensors(config=PLAIN, seed=0, names=dict):
    return {
        key: torch.from_numpy(np.array(value)) for key, value in names(tiny_dinov2.state_dict(config, seed)).items()
    }


def backbone_of(config=PLAIN):
    return Dinov2Backbone(Dinov2Tower.from_state_dict(tensors(config), HEADS), "tiny")


def reference(config):
    """Transformers' model with the same weights."""
    import transformers

    kind = "Dinov2WithRegisters" if config.num_register_tokens else "Dinov2"
    extra = {"num_register_tokens": 4} if config.num_register_tokens else {}
    settings = getattr(transformers, f"{kind}Config")(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=config.image_size,
        patch_size=14,
        **extra,
    )
    model = getattr(transformers, f"{kind}Model")(settings).eval()
    model.load_state_dict(tensors(config))
    return model


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 84, 112, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", [PLAIN, REGISTERS], ids=["plain", "registers"])
@torch.no_grad()
def test_the_numbers_are_those_of_transformers(config, pixels, tmp_path):
    model = reference(config)
    model.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert isinstance(backbone, Dinov2Backbone)
    assert (backbone.layers, backbone.width, backbone.patch, backbone.size) == (3, 64, 14, 56)
    theirs = model(pixels, output_hidden_states=True)
    computation = Computation(84, position="dinov2-transformers", geometry="keep-aspect")
    ours = backbone.encode_image(pixels, Request([Tap(1), Tap(3)]), computation)
    assert ours.grid == (6, 8)
    first = 1 + config.num_register_tokens
    for layer in (1, 3):
        hidden = theirs.hidden_states[layer]
        expected = torch.cat([hidden[:, :1], hidden[:, first:]], dim=1)
        torch.testing.assert_close(ours.taps[Tap(layer)], expected, rtol=0, atol=2e-5)
    normed = backbone.final_norm(ours.taps[Tap(3)])
    torch.testing.assert_close(normed[:, 1:], theirs.last_hidden_state[:, first:], rtol=0, atol=5e-5)
    torch.testing.assert_close(backbone.final_norm(ours.class_token), theirs.pooler_output, rtol=0, atol=5e-5)


def test_gated_models(tmp_path, pixels):
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=84, patch_size=14, use_swiglu_ffn=True
    )
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert backbone.activation == "swiglu"
    with torch.no_grad():
        theirs = model(pixels[..., :84]).pooler_output
        ours = backbone.final_norm(backbone.encode_image(pixels[..., :84]).class_token)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)
        half = backbone.final_norm(backbone.encode_image(pixels[..., :84], precision=torch.bfloat16).class_token)
        torch.testing.assert_close(half, theirs, rtol=0, atol=0.1)
        with pytest.raises(UsageError, match="gated"):
            backbone.encode_image(pixels[..., :84], None, Computation(84, activation="gelu"))


def test_all_names_are_one_model(tmp_path):
    expected = backbone_of(REGISTERS).fingerprint
    for names in (tiny_dinov2.old_names, tiny_dinov2.hub_names):
        assert (
            Dinov2Backbone(Dinov2Tower.from_state_dict(tensors(REGISTERS, names=names), HEADS)).fingerprint == expected
        )
    torch.save(tensors(REGISTERS, names=tiny_dinov2.hub_names), tmp_path / "dinov2.pth")
    loaded = load_backbone(str(tmp_path / "dinov2.pth"))
    assert isinstance(loaded, Dinov2Backbone)
    assert loaded.fingerprint == expected
    assert loaded.vision.config.num_attention_heads == 2
    assert loaded.mean == IMAGENET_MEAN
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    one = load_backbone(str(tmp_path / "dinov2.pth"), heads=1)
    assert one.vision.config.num_attention_heads == 1


def test_usual_heads():
    assert [default_heads(width) for width in (384, 768, 1024, 1536)] == [6, 12, 16, 24]


def write_folder(folder, config=PLAIN, **changes):
    save_file(tensors(config, names=tiny_dinov2.old_names), folder / "model.safetensors")
    settings = {
        "model_type": "dinov2_with_registers" if config.num_register_tokens else "dinov2",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    (folder / "config.json").write_text(json.dumps(settings | changes))
    return str(folder)


def test_a_folder_states_its_preprocessing(tmp_path):
    name = write_folder(tmp_path)
    assert load_backbone(name).mean == IMAGENET_MEAN
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    assert load_backbone(name).mean == (0.5, 0.5, 0.5)


def test_an_old_bin_file(tmp_path):
    name = write_folder(tmp_path)
    expected = load_backbone(name).fingerprint
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert load_backbone(name).fingerprint == expected


def test_a_model_with_a_head_for_a_task(tmp_path):
    name = write_folder(tmp_path)
    expected = load_backbone(name).fingerprint
    state = {f"dinov2.{key}": value for key, value in load_file(tmp_path / "model.safetensors").items()}
    save_file({**state, "classifier.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    assert load_backbone(name).fingerprint == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 128}, "hidden_size of 64, but config.json says 128"),
        ({"num_hidden_layers": 12}, "num_hidden_layers of 3"),
        ({"num_attention_heads": 3}, "3 attention heads"),
        ({"model_type": "vit"}, "'vit', but blemish needs one of type 'clip' or 'dinov2'"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(tmp_path, change, says):
    name = write_folder(tmp_path, **change)
    with pytest.raises(WeightsError, match=re.escape(says)) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_damaged_weights(tmp_path):
    for spoil, says in (
        (lambda s: s.pop("blocks.1.norm1.weight"), "missing"),
        (lambda s: s.update({"blocks.0.rope.weight": torch.ones(1)}), "unexpected"),
        (lambda s: s.update({"blocks.0.ls1.gamma": torch.ones(3)}), "scales"),
        (lambda s: s.update({"pos_embed": torch.ones(1, 12, 64)}), "square grid"),
    ):
        state = tensors(names=tiny_dinov2.hub_names)
        spoil(state)
        torch.save(state, tmp_path / "damaged.pth")
        with pytest.raises(WeightsError, match=says):
            load_backbone(str(tmp_path / "damaged.pth"))


def test_options_that_belong_elsewhere(tmp_path, folder):
    torch.save(tensors(names=tiny_dinov2.hub_names), tmp_path / "dinov2.pth")
    with pytest.raises(UsageError, match="activation"):
        load_backbone(str(tmp_path / "dinov2.pth"), activation="gelu")
    with pytest.raises(UsageError, match="heads"):
        load_backbone(str(folder), heads=2)


def cubic(values, source):
    """Cubic convolution with a = -0.75 of a row at one coordinate; beyond the ends the outermost value goes on."""
    total, a = 0.0, -0.75
    for k in range(math.floor(source) - 1, math.floor(source) + 3):
        x = abs(source - k)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        total += (near if x <= 1 else far) * float(values[min(max(k, 0), len(values) - 1)])
    return total


@pytest.mark.parametrize(("mode", "added"), [("bicubic", 0.0), ("bicubic-offset", 0.1)])
def test_the_offset_of_metas_code(mode, added):
    """Output i is sampled at (i + 0.5) m / (n + 0.1) - 0.5."""
    row = torch.randn(9, generator=torch.Generator().manual_seed(0))
    weight = torch.cat([torch.zeros(1), row.repeat(9)])[:, None]  # 9 x 9 positions, all rows alike
    found = resize_positions(weight, (9, 12), mode)[1:, 0].reshape(9, 12)
    expected = [cubic(row, (i + 0.5) * 9 / (12 + added) - 0.5) for i in range(12)]
    torch.testing.assert_close(found[4], torch.tensor(expected), rtol=0, atol=1e-4)
    assert resize_positions(weight, (9, 9), mode) is weight


@torch.no_grad()
def test_positions_by_the_name_of_the_code(pixels):
    for config, hub, transformers in ((PLAIN, "offset", "bicubic"), (REGISTERS, "antialias", "antialias")):
        backbone = backbone_of(config)

        def tokens(position, backbone=backbone):
            return backbone.encode_image(pixels[..., :84], None, Computation(84, position=position)).class_token

        modes = {"offset": "bicubic-offset", "bicubic": "bicubic", "antialias": "bicubic-antialias"}
        assert torch.equal(tokens("dinov2-hub"), tokens(modes[hub]))
        assert torch.equal(tokens("dinov2-transformers"), tokens(modes[transformers]))


def test_half_precision(pixels):
    backbone = backbone_of(REGISTERS)
    computation = Computation(84, geometry="keep-aspect")
    with torch.no_grad():
        exact = backbone.encode_image(pixels, Request([Tap(3)]), computation).taps[Tap(3)]
        half = backbone.encode_image(pixels, Request([Tap(3)]), computation, precision=torch.bfloat16).taps[Tap(3)]
    assert half.dtype == torch.float32
    assert exact.shape == (2, 1 + 48, 64)
    assert 0 < float((half - exact).abs().max()) < 0.1


def test_windows_need_a_backbone_without_registers(pixels):
    with pytest.raises(UsageError, match="register"):
        backbone_of(REGISTERS).encode_image(pixels[..., :84], Request(windows=(2,)))


def test_hub_names_reach_the_cache(tmp_path, monkeypatch):
    write_folder(tmp_path)
    asked = []

    def download(name, file, **options):
        from huggingface_hub.errors import EntryNotFoundError

        asked.append(file)
        if not (tmp_path / file).is_file():
            raise EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    backbone = load_backbone("owner/tiny-dinov2")
    assert isinstance(backbone, Dinov2Backbone)
    assert backbone.name == "owner/tiny-dinov2"
    assert "tokenizer.json" not in asked


def test_what_the_tower_is_made_of_stays_small() -> None:
    """Nothing is kept beside the weights of the tower."""
    tower = Dinov2Tower.from_state_dict(tensors(), HEADS)
    count = sum(value.numel() for value in tower.parameters())
    scales = sum(v.numel() for k, v in tensors().items() if "layer_scale" in k or "mask_token" in k)
    assert count == sum(v.numel() for v in tensors().values()) - scales
