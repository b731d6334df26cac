"""Training of the methods: the best epoch is kept, and methods that are worse than CLIP are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import synthesis
from blemish.clip import load_backbone
from blemish.methods import create, load_class, weights
from blemish.methods.base import Method
from blemish.training import Features, Sample
from pretraining.training import methods as script
from pretraining.validation import ranking
from pretraining.validation.ranking import Products, Ranking
from synthesis.samples import LOST, Caption

CONFIG = script.MethodsConfig(6, 6, 6, 1, 2, 3, 64)


def plates(seed: int, count: int, size: int = 60, photos: object = ()) -> list[Sample]:
    """Draw grey plates, every second one with a bright square."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        pixels, mask = rng.integers(90, 130, (60, 60, 3)).astype(np.uint8), np.zeros((60, 60), bool)
        if number % 2:
            pixels[10:35, 15:40], mask[10:35, 15:40] = 250, True
        samples.append(Sample(Image.fromarray(pixels), mask, number % 2, "plate"))
    return samples


def plate_products(seed: int, count: int, size: int = 60, photos: object = ()) -> Products:
    return Products(plates(seed, count), np.arange(count) // 2)


@pytest.fixture
def _plates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "draw_samples", plates)
    monkeypatch.setattr(script, "draw_products", plate_products)


@pytest.mark.usefixtures("_plates")
def test_methods_that_share_their_computation_are_trained_together(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    computed: list[int] = []
    init = Features.__init__
    monkeypatch.setattr(Features, "__init__", lambda *a, **k: computed.append(1) or init(*a, **k))
    monkeypatch.setattr(
        script, "create", lambda name, backbone, config=None: create(name, backbone, small_config(name))
    )
    backbone = load_backbone(str(small_model))
    script.run(backbone, ["anomalyclip", "coop"], CONFIG, [], tmp_path, epochs=1)
    output = capsys.readouterr().out
    assert len(computed) == 3  # for training, validation and test
    for name in ("anomalyclip", "coop"):
        header = weights.read_header(tmp_path / f"{name}.safetensors")
        assert header.backbone_fingerprint == backbone.fingerprint
        assert header.trained_on.startswith("6 synthetic pictures")
        assert f"image score by {header.config['image_score']}" in output
        assert f"{name}: epoch 1 loss" in output


def small_config(name: str) -> dict[str, Any]:
    """Return the config for the built-in backbone at the small model's input size."""
    return {**vars(load_class(name).BUILTIN), "size": 56}


def coop(small_model: Path) -> Method:
    cls = load_class("coop")
    return cls(load_backbone(str(small_model)), cls.Config(size=56))


def test_the_best_epoch_is_kept(small_model: Path) -> None:
    method = coop(small_model)
    states: list[dict[str, torch.Tensor]] = []

    def rank(ranked: Method, *, coarse: bool = False) -> dict[str, float]:
        states.append({key: value.clone() for key, value in ranked.state_dict().items()})
        return {"image_auroc/text": [0.9, 0.5, 0.8, 0.7][len(states) - 1], "pixel_auroc": 0.5}

    features = Features(method, plates(0, 4))
    assert script.train_best_epoch(method, features, rank, epochs=3) == 2  # type: ignore[arg-type]
    assert torch.equal(method.state_dict()["context"], states[2]["context"])


@pytest.mark.parametrize("worse", [False, True])
def test_a_method_that_is_worse_than_clip_is_named(
    worse: bool, small_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scores(self: object, method: Method, *, coarse: bool = False) -> dict[str, float]:
        value = 0.4 if worse and method.info.name == "coop" else 0.6
        return {"image_auroc/text": value, "pixel_auroc": 0.6, "aupro": 0.6}

    monkeypatch.setattr(Ranking, "__call__", scores)
    cls = load_class("clip")
    methods = [cls(load_backbone(str(small_model)), cls.Config(size=56)), coop(small_model)]
    assert script.compare(methods, plate_products(1, 2)) is not worse
    message = "coop: WORSE THAN clip in image_auroc: 0.4000 < 0.6000"
    assert (message in capsys.readouterr().out) is worse


def test_ranking_leaves_the_method_as_it_was(small_model: Path) -> None:
    method = coop(small_model).train()
    config = method.config
    rank = Ranking.make([method], Products(plates(0, 4), np.zeros(4)))
    scores, coarse = rank(method), rank(method, coarse=True)
    assert method.training
    assert method.config is config
    assert {"pixel_auroc", "aupro"} < set(scores)
    assert set(coarse) == set(scores) - {"aupro"}
    assert coarse["image_auroc/map"] == scores["image_auroc/map"]
    assert ranking.best_rule(scores) in config.image_scores


def test_each_product_is_ranked_by_itself() -> None:
    """A product that is brighter than another does not count against a defect of the darker one."""
    samples = [Sample(Image.new("RGB", (4, 4)), None, label) for label in (0, 1, 0, 1, 1)]
    features: Any = None
    rank = Ranking(Products(samples, np.array([0, 0, 1, 1, 2])), features, np.zeros(0))
    assert rank.mean_auroc(np.array([0.1, 0.2, 0.8, 0.9, 0.0])) == 1.0
    assert rank.mean_auroc(np.array([0.1, 0.2, 0.9, 0.8, 0.0])) == 0.5


def test_a_transductive_method_sees_each_product_as_its_set(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sample = ranking.sample_memory_bank
    monkeypatch.setattr(
        ranking, "sample_memory_bank", lambda engine, images: sizes.append(len(images)) or sample(engine, images)
    )
    method = create("musc", load_backbone(str(small_model)), small_config("musc"))
    products = Products(plates(0, 6), np.array([0, 0, 1, 1, 1, 1]))
    assert 0 <= Ranking.make([method], products)(method)["pixel_auroc"] <= 1
    assert sizes == [2, 4]


def test_pictures_of_lost_defects_are_left_out() -> None:
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
    assert script.to_sample(synthesis.Sample(image, mask, Caption("nut", "", LOST, ""))) is None
    sample = script.to_sample(synthesis.Sample(image, mask, Caption("nut", "", "", "")))
    assert sample is not None
    assert (sample.object_name, sample.label) == ("nut", 0)


def test_products_are_photographed_normal_and_defective() -> None:
    samples, numbers = script.draw_products(3, 2 * ranking.PHOTOGRAPHS, 96, [])
    assert sorted(set(numbers)) == [0, 1]
    assert ranking.PHOTOGRAPHS < len(samples) == len(numbers) <= 2 * ranking.PHOTOGRAPHS
    for number in (0, 1):
        labels = [sample.label for sample, of in zip(samples, numbers, strict=True) if of == number]
        assert set(labels) == {0, 1}
