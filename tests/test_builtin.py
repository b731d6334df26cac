"""The model that comes with blemish: small enough, the CLIPModel it says it is, and its words mean something."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

import blemish
from blemish.clip import Backbone, load, load_backbone
from blemish.errors import WeightsError
from blemish.methods import load_class
from blemish.methods.builtin import DISPLAY, TYPICAL_SCORES
from blemish.methods.registry import WEIGHTS

#: Templates that no training prompt used.
HELD_OUT_TEMPLATES = (
    "a photo of the cool {}.",
    "a close-up photo of the {}.",
    "a cropped photo of a {}.",
    "this is one {} in the scene.",
    "a dark photo of a {}.",
    "a photo of the small {}.",
    "an inspection image showing a {}",
    "look at this {}",
)


@pytest.fixture(scope="module")
def builtin() -> Backbone:
    return load_backbone("builtin")


def test_is_small() -> None:
    size = sum(f.stat().st_size for f in (WEIGHTS / "builtin").iterdir())
    assert size <= 25e6
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) <= 40e6


def test_has_a_card() -> None:
    card = (WEIGHTS / "builtin" / "README.md").read_text(encoding="utf-8")
    for word in ("trained on", "cannot", "AUROC", "licence"):
        assert word in card.lower() or word in card


def test_equals_transformers(builtin: Backbone) -> None:
    """Without taps and prompts the backbone is the CLIPModel, to 1e-5."""
    pixels = torch.randn(2, 3, builtin.size, builtin.size, generator=torch.Generator().manual_seed(0))
    ids = builtin.tokenize(["a photo of a damaged metal nut.", "flawless fabric"])
    with torch.no_grad():
        image = builtin.project(builtin.encode_image(pixels).class_token)
        theirs = builtin.model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(image, theirs, atol=1e-5, rtol=0)
        text = builtin.encode_text(ids)
        end = builtin.end_of_text(ids)
        padded = torch.where(torch.arange(ids.shape[1]) > end[:, None], builtin.tokenizer.eos, ids)
        theirs = builtin.model.get_text_features(input_ids=padded).pooler_output
        torch.testing.assert_close(text, theirs, atol=1e-5, rtol=0)


def test_is_what_transformers_reads(builtin: Backbone, tmp_path: Path) -> None:
    """transformers reads the folder as the same model."""
    from transformers import CLIPModel

    folder = tmp_path / "copy"
    shutil.copytree(WEIGHTS / "builtin", folder)
    theirs = Backbone(CLIPModel.from_pretrained(folder, dtype=torch.float32), builtin.tokenizer)
    assert theirs.fingerprint == builtin.fingerprint
    ours, weights = dict(builtin.towers.named_parameters()), dict(theirs.towers.named_parameters())
    assert sorted(ours) == sorted(weights)
    assert all(torch.equal(ours[name], weights[name]) for name in ours)
    assert {parameter.requires_grad for parameter in ours.values()} == {False}
    # the CLIPModel is of the same parameters, not of copies
    assert all(parameter is ours[name] for name, parameter in builtin.model.named_parameters())
    # and another one of its configuration is of one dtype, as the floor of benchmarks/dev_sets.py needs it
    fresh = type(builtin.model)(builtin.model.config)
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}


def test_a_damaged_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "builtin"
    shutil.copytree(WEIGHTS / "builtin", folder)
    monkeypatch.setattr(load, "BUILTIN", folder)
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="the model in builtin cannot be loaded"):
        load_backbone("builtin")
    save_file({"logit_scale": torch.zeros(())}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="the model in builtin cannot be loaded"):
        load_backbone("builtin")


@pytest.mark.parametrize("noun", ["object", "metal_nut", "solar cell", "zyzzogeton", "old wooden spoon"])
def test_words_for_states_mean_the_same_beside_any_noun(builtin: Backbone, noun: str) -> None:
    """In held-out templates, normal and damaged words lie on the two sides of one axis."""

    def embed(states: list[str]) -> torch.Tensor:
        sentences = [t.format(s.format(noun)) for t in HELD_OUT_TEMPLATES for s in states]
        return functional.normalize(builtin.encode_text(builtin.tokenize(sentences)), dim=-1)

    with torch.no_grad():
        normal = embed(["flawless {}", "perfect {}", "unblemished {}", "{} without defect"])
        damaged = embed(["damaged {}", "broken {}", "{} with defect", "{} with a flaw"])
    axis = functional.normalize(damaged.mean(0) - normal.mean(0), dim=0)
    assert (damaged @ axis).min() > (normal @ axis).max()


@pytest.mark.parametrize("name", DISPLAY)
def test_maps_are_drawn_where_values_lie(builtin: Backbone, name: str) -> None:
    method = load_class(name)(builtin, load_class(name).default_config(builtin))
    for references, scale in enumerate(DISPLAY[name]):
        whole = getattr(method, "memory_map_range", method.map_range) if references else method.map_range
        low, high = method.display_range(references=bool(references))
        assert (low, high) == (whole if scale is None else scale)
        assert whole[0] <= low < high
        assert (low + high) / 2 <= whole[1]
    other = load_class(name)(builtin, dataclasses.replace(method.config, size=224))
    assert other.display_range(references=True) == getattr(other, "memory_map_range", other.map_range)


def test_shipped_weights_are_drawn_on_the_scale_of_their_method(builtin: Backbone) -> None:
    engine = blemish.load("april-gan", backbone=builtin, device="cpu").torch_engine
    assert engine.method.display_range(references=True) == DISPLAY["april-gan"][1]
    assert engine.method.display_range() == DISPLAY["april-gan"][0]


@pytest.mark.parametrize("name", TYPICAL_SCORES)
def test_typical_scores_belong_to_what_ships(builtin: Backbone, name: str) -> None:
    detector = blemish.load(name, backbone=builtin, device="cpu")
    assert detector.typical_score == TYPICAL_SCORES[name][0], "measured with something else: measure again"


@pytest.mark.parametrize("options", [{"config": {"sigma": 2.0}}, {"config": {"image_score": "map"}}, {"tile": 336}])
def test_other_scores_have_no_typical_one(builtin: Backbone, options: dict[str, Any]) -> None:
    assert blemish.load("clip", backbone=builtin, device="cpu", **options).typical_score is None


def test_references_have_no_typical_score(builtin: Backbone) -> None:
    detector = blemish.load("joint", backbone=builtin, device="cpu")
    picture = np.zeros((40, 40, 3), np.uint8)
    assert detector.typical_score is not None
    assert detector.with_references([picture]).typical_score is None
