"""Training of the image tower: the library's computation, the losses, and runs that resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from blemish.clip import Computation, Request, Tap, load_backbone
from pretraining.tests.conftest import BUILTIN, SHAPE
from pretraining.training import train
from pretraining.training.batches import GRID, PicturePool
from pretraining.training.model import TextEncoder, image_outputs, load_model, load_tokenizer, make_model
from pretraining.training.objective import pair_loss, patch_loss
from pretraining.training.prompts import HELD_OUT_TEMPLATES, NORMAL_STATES, TEMPLATES
from pretraining.validation import synthetic

SMALL_RUN = train.TrainConfig(
    seed=0,
    steps=2,
    warmup=1,
    cooldown=1,
    batch_size=4,
    repeats=1,
    reuse=2,
    capacity=6,
    crop_until=0,
    crop_side=15,
    small_crop_probability=0.5,
    freeze_blocks=3,
    lr=1e-3,
    matrix_lr_scale=2.0,
    weight_decay=0.05,
    ema=0.998,
    validate_every=250,
)


@pytest.fixture
def _few_validation_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "validation_pictures", lambda photos: synthetic.validation_pictures(photos, 1))
    monkeypatch.setattr(train, "validation_pairs", lambda photos: synthetic.validation_pairs(photos, 1))
    monkeypatch.setattr(train, "validate", lambda *_: {"image/last_max": 0.5})


def test_the_forward_pass_is_the_librarys(small_model: Path) -> None:
    """Every output that training shapes is what `Backbone` computes."""
    model, backbone = load_model(small_model).eval(), load_backbone(str(small_model))
    taps = {
        "value": Tap(8, "value", 5),
        "surgery": Tap(8, "value", 7, False),
        "last": Tap(8),
        "layer4": Tap(4),
        "layer6": Tap(6),
    }
    pixels = torch.randn(2, 3, SHAPE.size, SHAPE.size)
    with torch.no_grad():
        outputs = image_outputs(model, pixels)
        features = backbone.encode_image(pixels, Request(frozenset(taps.values())), Computation(SHAPE.size))
        assert outputs.patches.keys() == taps.keys()
        for name, tap in taps.items():
            expected = backbone.project(features.taps[tap][:, 1:])
            torch.testing.assert_close(outputs.patches[name], expected, atol=2e-5, rtol=0)
        expected = backbone.project(features.class_token)
        torch.testing.assert_close(outputs.class_token, expected, atol=2e-5, rtol=0)
        expected = backbone.project(features.class_token, norm=False)
        torch.testing.assert_close(outputs.raw_class_token, expected, atol=2e-5, rtol=0)
        sentences = ["a photo of a damaged metal_nut.", "flawless object"]
        text = TextEncoder(load_tokenizer(small_model))(model, sentences)
        expected = torch.nn.functional.normalize(backbone.encode_text(backbone.tokenize(sentences)), dim=-1)
        torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)


def test_a_crop_of_all_patches_is_the_whole_picture() -> None:
    torch.manual_seed(0)
    model = make_model(SHAPE).eval()
    pixels, every = torch.randn(1, 3, SHAPE.size, SHAPE.size), torch.arange(SHAPE.grid**2)[None]
    with torch.no_grad():
        whole = image_outputs(model, pixels).patches["last"]
        listed = image_outputs(model, pixels, every).patches["last"]
        half = image_outputs(model, pixels, every[:, ::2]).patches["last"]
    torch.testing.assert_close(whole, listed, atol=1e-5, rtol=0)
    assert half.shape == (1, SHAPE.grid**2 // 2, 256)


def test_pair_loss_asks_for_the_order_of_valid_pairs() -> None:
    valid = torch.ones(4, dtype=torch.bool)
    label = torch.tensor([0.0, 1.0, 0.0, 1.0])
    right, wrong = (torch.tensor([0.0, difference, 0.0, difference]) for difference in (4.0, -4.0))
    assert pair_loss(right, label, valid) < 0.05 < 3.9 < pair_loss(wrong, label, valid)
    mixed = torch.tensor([0.0, 4.0, 4.0, 0.0])
    one_valid = torch.tensor([True, True, True, False])
    assert torch.equal(pair_loss(mixed, label, one_valid), pair_loss(right, label, valid))
    assert torch.equal(pair_loss(mixed, torch.tensor([0.0, 1.0, 0.0, 0.0]), valid), pair_loss(right, label, valid))
    assert pair_loss(mixed, torch.zeros(4), valid) == 0


def test_patch_loss_falls_towards_the_target() -> None:
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    losses = [patch_loss((2 * target - 1) * scale, target).item() for scale in (-4.0, 0.0, 4.0)]
    assert losses[0] > losses[1] > 10 * losses[2]


def test_held_out_templates_are_in_no_caption() -> None:
    assert not set(HELD_OUT_TEMPLATES) & set(TEMPLATES)
    assert all(text.count("{}") == 1 for text in (*HELD_OUT_TEMPLATES, *TEMPLATES, *NORMAL_STATES))
    assert len(set(NORMAL_STATES)) == len(NORMAL_STATES)


def test_a_resumed_pool_gives_the_pictures_of_an_unbroken_one() -> None:
    settings = {"fresh": 1, "capacity": 6, "workers": 1}
    with PicturePool(1, 0, **settings) as pool:
        for step in range(3):
            unbroken = pool.batch(step, 4, np.random.default_rng(step))
    with PicturePool(1, 2, **settings) as pool:
        resumed = pool.batch(2, 4, np.random.default_rng(2))
    assert torch.equal(unbroken.images, resumed.images)
    assert torch.equal(unbroken.masks, resumed.masks)
    assert unbroken.captions == resumed.captions
    for normal, damaged in zip(*2 * [iter(unbroken.captions)], strict=True):
        assert normal[:2] == damaged[:2]
        assert normal.kind == ""


@pytest.mark.usefixtures("_few_validation_pictures")
def test_a_resumed_run_ends_as_an_unbroken_one(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the batches are small crops, whose sides are drawn by step, whether a run was resumed or not."""
    sides = []
    step_losses = train.step_losses

    def recorded(*args: object) -> dict[str, torch.Tensor]:
        sides.append(args[5])
        return step_losses(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "step_losses", recorded)
    train.run(SMALL_RUN, small_model, tmp_path / "unbroken", [])
    for steps in (1, 2):
        train.run(replace(SMALL_RUN, steps=steps, cooldown=1), small_model, tmp_path / "resumed", [])
    assert sides[:2] == sides[2:]
    assert set(sides) <= {GRID, *train.SMALL_CROPS}
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("unbroken", "resumed"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, msg=key)
    assert (tmp_path / "resumed" / "step-2" / "model.safetensors").exists()


@pytest.mark.usefixtures("_few_validation_pictures")
def test_text_tower_and_first_blocks_stay(small_model: Path, tmp_path: Path) -> None:
    train.run(replace(SMALL_RUN, steps=1), small_model, tmp_path, [])
    before, after = (load_file(folder / "model.safetensors") for folder in (small_model, tmp_path / "step-1"))
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert {key for key in before if key.startswith("text_")} <= same
    blocks = {int(key.split(".")[3]) for key in same if "mlp.fc1.weight" in key and key.startswith("vision_model")}
    assert blocks == {0, 1, 2}
    assert {key for key in before if key.startswith("vision_model.embeddings")} <= same


def test_validation_measures_every_output(small_model: Path) -> None:
    model, encode_text = load_model(small_model).eval(), TextEncoder(load_tokenizer(small_model))
    pictures, pairs = synthetic.validation_pictures([], 8), synthetic.validation_pairs([], 3)
    result = synthetic.validate(model, encode_text, pictures, pairs)
    outputs = ("class_token", "raw_class_token", "last_max", "value_max", "surgery_max", "layer4_max", "layer6_max")
    assert {f"image/{name}" for name in outputs} == {name for name in result if name.startswith("image/")}
    assert all(0 <= value <= 1 for value in result.values())


def test_configs_are_read() -> None:
    config = train.TrainConfig.read(train.CONFIG)
    assert config.freeze_blocks == 6
    assert config.cooldown < config.steps
    assert BUILTIN.exists()
