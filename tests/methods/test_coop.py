"""CoOp beyond the parity cases: prompts, training, the authors' files."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.errors import UsageError, WeightsError
from blemish.methods import checkpoints
from blemish.methods.coop import CoOp, CoOpConfig
from blemish.training import Progress, Sample, train


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


CONFIG = CoOpConfig(size=148)


@pytest.fixture
def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 40, 40, 3)).astype(np.uint8)
    return [Sample(Image.fromarray(p), None, k % 2, ["bolt", "metal_nut"][k // 4]) for k, p in enumerate(pixels)]


@pytest.mark.parametrize(("position", "before"), [("end", 5), ("middle", 2), ("front", 0)])
def test_where_the_name_stands(backbone: Backbone, position: str, before: int) -> None:
    method = CoOp(backbone, replace(CONFIG, n_ctx=5, name_position=position, per_state=True))
    with torch.no_grad():
        prompts, ends = method.prompts(["bolt", "metal_nut"])
    assert prompts.shape == (4, backbone.context, backbone.text_width)
    for row, phrase in enumerate(["normal bolt", "anomalous bolt", "normal metal nut", "anomalous metal nut"]):
        ids = backbone.tokenize([phrase, f"{phrase}."])
        name, end = (backbone.end_of_text(ids) - torch.tensor([1, 0])).tolist()
        words, context = backbone.embed(ids[1]), method.context[row % 2]
        expected = [words[:1], context[:before], words[1 : 1 + name], context[before:], words[1 + name : end + 1]]
        assert int(ends[row]) == end + 5
        assert torch.equal(prompts[row, : end + 6], torch.cat(expected))


def test_words_to_start_from(backbone: Backbone) -> None:
    method = CoOp(backbone, replace(CONFIG, ctx_init="a photo of_a", per_state=True))
    ids = backbone.tokenize(["a photo of a"])
    for context in method.context:
        assert torch.equal(context, backbone.embed(ids[0, 1 : int(backbone.end_of_text(ids))]))
    plain = backbone.tokenize(["a photo of a normal bolt.", "a photo of a anomalous bolt."])
    expected = backbone.encode_text(plain)
    torch.testing.assert_close(
        method.text_features(["bolt"])[0], expected / expected.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5
    )


# contexts of classes


@pytest.mark.parametrize("per_state", [False, True])
def test_each_class_has_its_context(backbone: Backbone, per_state: bool) -> None:
    classes = ("bolt", "metal_nut", "cable")
    method = CoOp(backbone, replace(CONFIG, classes=classes, per_state=per_state, n_ctx=4))
    states = 1 + per_state
    assert method.context.shape == (3 * states, 4, backbone.text_width)
    with torch.no_grad():
        prompts, _ = method.prompts(["cable", "metal nut", "cable"])  # underscores are spaces
    for row, context in enumerate([2, 2, 1, 1, 2, 2]):
        expected = method.context[context * states + per_state * (row % 2)]
        assert torch.equal(prompts[row, 1:5], expected)
    # as the object's context alone would do
    alone = CoOp(backbone, replace(CONFIG, per_state=per_state, n_ctx=4))
    rows = method.context.detach()[states : 2 * states]
    alone.load_state_dict({"context": rows if per_state else rows[0]})
    torch.testing.assert_close(alone.text_features(["metal_nut"]), method.text_features(["metal_nut"]))


def test_a_class_that_is_not_known(backbone: Backbone, samples: list[Sample]) -> None:
    method = CoOp(backbone, replace(CONFIG, classes=("bolt", "metal_nut")))
    with pytest.raises(
        UsageError, match="coop has a context for each of bolt, metal nut, and none for 'screw': name one of"
    ):
        method.text_features(["bolt", "screw"])
    with pytest.raises(UsageError, match="none for 'screw'"):
        train(method, [samples[0]._replace(object_name="screw")], steps=1)


def test_a_class_learns_from_its_own_pictures(backbone: Backbone, samples: list[Sample], tmp_path: Path) -> None:
    method = CoOp(backbone, replace(CONFIG, classes=("bolt", "metal_nut", "cable")))
    before = method.context.detach().clone()
    history = train(method, samples, steps=30, batch_size=8, lr=0.1, out=tmp_path)
    assert history[-1]["total"] < 0.9 * history[0]["total"]
    moved = (method.context.detach() - before).abs().amax(dim=(1, 2))
    # of a class without pictures only the decay takes a little
    assert float(moved[:2].min()) > 10 * float(moved[2]) > 0
    again = methods.create("coop", backbone, weights=tmp_path / "weights.safetensors")
    assert again.config.classes == method.config.classes
    assert torch.equal(again.text_features(["cable"]), method.text_features(["cable"]))


def test_authors_files_of_several_classes(backbone: Backbone, tmp_path: Path) -> None:
    context = torch.randn(6, 4, backbone.text_width)
    path = tmp_path / "model.pth.tar-50"
    torch.save({"state_dict": {"ctx": context}}, path)
    with pytest.raises(
        WeightsError, match=r"contexts for 6 phrases where the config has 2: name the objects .* as classes"
    ):
        methods.create("coop", backbone, {"size": 148}, path)
    method = methods.create("coop", backbone, {"size": 148, "classes": ["bolt", "cable", "nut"]}, path)
    assert isinstance(method, CoOp)
    assert torch.equal(method.contexts(["cable"]), context[2:4])


def test_temperature_is_the_checkpoints(backbone: Backbone) -> None:
    expected = 1 / float(backbone.towers.logit_scale.exp())
    assert CoOp(backbone, CONFIG).temperature == pytest.approx(expected)
    assert CoOp(backbone, replace(CONFIG, temperature=0.5)).temperature == 0.5


def test_loss_takes_each_picture_for_its_own_object(backbone: Backbone, samples: list[Sample]) -> None:
    method = CoOp(backbone, CONFIG)
    pixels = backbone.preprocess([s.image for s in samples], 148)
    features = backbone.encode_image(pixels, method.request, method.computation)
    labels, masks = torch.tensor([s.label for s in samples]), torch.zeros(8, 148, 148)
    text = method.text_features([s.object_name for s in samples])
    scores = method.score(features, text).score
    expected = -torch.where(labels == 1, scores, 1 - scores).log().mean()
    torch.testing.assert_close(
        method.loss(features, masks, labels, [s.object_name for s in samples])["total"], expected
    )
    assert method.loss(features, masks, labels)["total"] != expected


def test_schedule(backbone: Backbone) -> None:
    method = CoOp(backbone, CONFIG)
    rates = [method.learning_rate(0.002, epoch, 50) for epoch in range(50)]
    assert rates[:2] == [1e-5, 0.002]
    assert all(a > b > 0 for a, b in pairwise(rates[1:]))
    assert method.learning_rate(0.002, 26, 50) == pytest.approx(0.001)
    group = method.optimizer().param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.002, 0.9, 5e-4, False)
    with pytest.raises(UsageError, match="no betas"):
        method.optimizer(betas=(0.9, 0.99))


def test_training_lowers_the_loss_and_resumes(backbone: Backbone, samples: list[Sample], tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == 17:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"steps": 30, "batch_size": 8, "lr": 0.1}
    whole, cut = CoOp(backbone, CONFIG), CoOp(backbone, CONFIG)
    losses = [row["total"] for row in train(whole, samples, **settings)]
    assert losses[-1] < 0.9 * losses[0]
    with pytest.raises(KeyboardInterrupt):
        train(cut, samples, **settings, out=tmp_path, on_progress=stop)
    cut.reset(9)
    train(cut, samples, **settings, out=tmp_path, resume=True)
    assert torch.equal(cut.context, whole.context)


@pytest.mark.parametrize("shape", [(16,), (2, 4), (4,)])
def test_authors_files(backbone: Backbone, shape: tuple[int, ...], tmp_path: Path) -> None:
    context = torch.randn(*shape, backbone.text_width).half()
    state = {"ctx": context, "token_prefix": torch.zeros(2, 1, 16), "token_suffix": torch.zeros(2, 60, 16)}
    path = tmp_path / "model.pth.tar-50"
    torch.save({"state_dict": state, "epoch": 50, "val_result": 0.5}, path)
    method = methods.create("coop", backbone, {"size": 148}, path)
    assert torch.equal(method.context, context.float())
    assert method.config.per_state == (len(shape) == 2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"prompt_learner": {}}, "no weights of CoOp"),
        ({"state_dict": {"weight": torch.zeros(2)}}, "no weights of CoOp"),
        ({"state_dict": {"ctx": torch.zeros(16, 16), "head": torch.zeros(2)}}, "'head'"),
        ({"state_dict": {"ctx": torch.zeros(16, 33)}}, r"\(16, 33\).*\(16, 16\)"),
        ({"state_dict": {"ctx": torch.zeros(2, 5, 16)}}, r"\(2, 5, 16\).*\(2, 16, 16\)"),
        ({"state_dict": {"ctx": torch.full((16, 16), torch.nan)}}, "finite"),
    ],
)
def test_unfit_files(backbone: Backbone, state: dict[str, Any], message: str) -> None:
    method = CoOp(backbone, replace(CONFIG, per_state=message.startswith(r"\(2")))
    before = method.context.detach().clone()
    with pytest.raises(WeightsError, match=message):
        checkpoints.load_official(method, state)
    assert torch.equal(method.context, before)


@pytest.mark.parametrize(
    "fields",
    [
        {"phrases": ("normal {}", "anomalous")},
        {"n_ctx": 0},
        {"temperature": 0.0},
        {"momentum": 1.0},
        {"sigma": -1.0},
        {"classes": ("metal_nut", "metal nut")},
        {"classes": ("",)},
    ],
)
def test_unfit_configs(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CoOpConfig(**fields)  # type: ignore[arg-type]


def test_what_does_not_fit_the_text_tower(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="text positions"):
        CoOp(backbone, replace(CONFIG, n_ctx=backbone.context))
    method = CoOp(backbone, replace(CONFIG, n_ctx=backbone.context - 8))
    with pytest.raises(UsageError, match="too long"):
        method.text_features(["bolt", "a very long name of a thing " * 2])
