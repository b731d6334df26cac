"""Backbones without words, and changed configs, on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import save_picture
from parity import tiny_dinov2


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2."""
    config = replace(tiny_dinov2.TINY_S14_REG4, num_hidden_layers=4, image_size=56)
    folder = tmp_path_factory.mktemp("tiny-dinov2")
    save_file({k: torch.from_numpy(v) for k, v in tiny_dinov2.state_dict(config).items()}, folder / "model.safetensors")
    settings = {"model_type": "dinov2_with_registers", "hidden_size": 64, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        save_picture(tmp_path / "set" / f"{number}.png", number)
    return tmp_path / "set"


def scores(outcome) -> dict[str, float]:
    return {Path(line["path"]).name: line["score"] for line in map(json.loads, outcome.out.splitlines())}


def test_info(run, dinov2: Path) -> None:
    facts = json.loads(run("info", dinov2, "--json").out)
    assert (facts["kind"], facts["register_tokens"], facts["heads"], facts["words"]) == ("backbone", 4, 2, "none")


def test_methods_with_words_are_refused_in_a_sentence(run, dinov2: Path, folder: Path) -> None:
    outcome = run("detect", folder, "--backbone", dinov2)
    assert outcome.code == 2
    assert "anomalyclip compares pictures with words" in outcome.err
    assert "musc" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_set_on_a_backbone_without_words(run, dinov2: Path, folder: Path) -> None:
    words = ("detect", folder, "--method", "musc", "--backbone", dinov2, "--device", "cpu", "--json")
    small = run(*words, "--config", '{"size": 84}')
    assert small.code == 0, small.err
    line = json.loads(small.out.splitlines()[0])
    assert line["provenance"]["config"]["geometry"] == "squash-bilinear"
    assert line["provenance"]["config"]["size"] == 84
    smoothed = run(*words, "--config", '{"size": 84, "similar_images": [1, 2], "whole_set": true}')
    assert smoothed.code == 0, smoothed.err
    assert max(scores(smoothed).values()) > max(scores(small).values())  # stretched over the set
    assert min(scores(smoothed).values()) < min(scores(small).values())
    alone = run("detect", folder / "0.png", "--method", "musc", "--backbone", dinov2, "--config", '{"size": 84}')
    assert alone.code != 0
    assert "give a set of at least two pictures" in alone.err


@pytest.mark.parametrize(
    ("config", "says"),
    [('{"sizes": 84}', "no field 'sizes'"), ("84", "JSON object"), ('{"geometry": "keep-aspect"}', "geometry")],
)
def test_configs_that_cannot_be(run, dinov2: Path, folder: Path, config: str, says: str) -> None:
    outcome = run("detect", folder, "--method", "musc", "--backbone", dinov2, "--config", config)
    assert outcome.code == 2
    assert says in outcome.err


def test_configs_in_an_evaluation(run, dinov2: Path, tmp_path: Path) -> None:
    for number in range(3):
        save_picture(tmp_path / "data" / "test" / "good" / f"{number}.png", number)
        save_picture(tmp_path / "data" / "test" / "bad" / f"{number}.png", 10 + number)
    words = ("evaluate", "--data", tmp_path / "data", "--methods", "musc", "--backbone", dinov2, "--device", "cpu")
    outcome = run(*words, "--out", tmp_path / "out", "--config", '{"musc": {"size": 84, "whole_set": true}}')
    assert outcome.code == 0, outcome.err
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["methods"]["musc"]["config"]["size"] == 84
    assert facts["passes"][0]["geometry"] == "squash-bilinear"
    assert "clip" in run(*words, "--config", '{"clip": {}}').err
    assert "fields of each method" in run(*words, "--config", '{"musc": 84}').err
