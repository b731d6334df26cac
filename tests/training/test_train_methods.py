"""What holds for the training of every method that learns, on a fixed tiny set: run over the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import methods
from blemish.clip import Backbone, ImageFeatures, Request, load_backbone
from blemish.errors import UsageError
from blemish.methods import builtin
from blemish.methods.base import Method, Training
from blemish.training import Features, Progress, Sample, train

LEARNERS = [name for name in methods.list_methods() if methods.info(name).trainable]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture(params=LEARNERS)
def fresh(request: pytest.FixtureRequest, backbone: Backbone) -> Callable[[], Method]:
    cls = methods.load_class(request.param)
    return lambda: cls(backbone, replace(cls.Config(), size=148))


def plates() -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(4):
        pixels = rng.integers(90, 130, (40, 50, 3)).astype(np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        if number % 2:
            pixels[10:25, 5:30], mask[10:25, 5:30] = 250, 255
        samples.append(Sample(Image.fromarray(pixels), mask if number % 2 else None, number % 2, "plate"))
    return samples


def same(a: Method, b: Method) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_there_are_some() -> None:
    assert {"anomalyclip", "april-gan", "clip-ad-sdp-plus", "coop", "vcp-clip"} <= set(LEARNERS)


def test_thirty_steps_lower_the_loss(fresh: Callable[[], Method]) -> None:
    history = train(fresh(), plates(), steps=30, batch_size=4, lr=5e-3)
    first, last = (np.mean([record["total"] for record in part]) for part in (history[:3], history[-3:]))
    assert last < first


def test_killed_and_resumed_is_as_unbroken(fresh: Callable[[], Method], tmp_path: Path) -> None:
    """To the bit, also of what draws random numbers, and with an optimizer that remembers."""

    class Killed(BaseException):
        """Nothing is written after it."""

    def kill(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == 7:
            raise Killed

    settings: dict[str, Any] = {"steps": 10, "batch_size": 3, "lr": 5e-3, "seed": 2, "checkpoint_every": 3}
    whole, killed, resumed = fresh(), fresh(), fresh()
    train(whole, plates(), **settings, out=tmp_path / "whole")
    with pytest.raises(Killed):
        train(killed, plates(), **settings, out=tmp_path / "run", on_progress=kill)
    history = train(resumed, plates(), **settings, out=tmp_path / "run", resume=True)
    assert history[0]["step"] == 7
    assert same(whole, resumed)
    assert not same(whole, killed)
    for name in ("weights.safetensors", "checkpoint.safetensors", "losses.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_kept_features_give_what_computed_ones_do(fresh: Callable[[], Method], tmp_path: Path) -> None:
    runs = [fresh() for _ in range(3)]
    for method, cache in zip(runs, (False, None, tmp_path), strict=True):
        train(method, plates(), steps=3, batch_size=3, cache=cache)  # type: ignore[arg-type]
    computed, memory, disk = runs
    assert same(memory, disk)
    for one, other in zip(computed.state_dict().values(), memory.state_dict().values(), strict=True):
        # three steps of Adam move each value by up to three learning rates, noise in its gradient included
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache", [False, None])
def test_no_gradient_reaches_the_image_tower(
    fresh: Callable[[], Method], cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features carry no graph, and none of its modules runs in a step, forwards or backwards."""
    encode, seen = Backbone.encode_image, []

    def listen(*arguments: Any, **options: Any) -> ImageFeatures:
        features = encode(*arguments, **options)
        tensors = [*features.taps.values(), features.class_token]
        seen.extend((torch.is_grad_enabled(), t.requires_grad, t.grad_fn) for t in tensors if t is not None)
        return features

    monkeypatch.setattr(Backbone, "encode_image", listen)
    method = fresh()
    train(method, plates(), steps=2, batch_size=4, cache=cache)
    assert {*seen} == {(False, False, None)}
    assert not any(p.requires_grad or p.grad is not None for p in method.backbone.parameters())


def test_nothing_is_kept_that_no_loss_needs(fresh: Callable[[], Method]) -> None:
    method = fresh()
    features = Features(method, plates())
    assert features.request | method.request == method.request
    given, masks, labels, objects = features.batch([0, 1], method.training_request)
    with torch.no_grad():
        pixels = method.backbone.preprocess([sample.image for sample in plates()[:2]], 148)
        more = method.backbone.encode_image(pixels, method.request, method.computation)
        method.eval()
        least, all_of_it = (method.loss(f, masks, labels, objects)["total"] for f in (given, more))
    torch.testing.assert_close(least, all_of_it, rtol=1e-4, atol=1e-5)


def test_methods_that_are_computed_alike_share_features(backbone: Backbone) -> None:
    made = [
        cls(backbone, replace(cls.Config(), size=148, activation="gelu", position="bilinear"))
        for cls in map(methods.load_class, ("april-gan", "coop", "vcp-clip"))
    ]
    union = reduce(or_, (method.training_request for method in made), Request(class_token=False))
    features = Features(made[0], plates(), request=union)
    for method in made:
        given = features.batch([0], method.training_request)[0]
        assert given.taps.keys() == method.training_request.taps  # no more than is asked for
        assert (given.class_token is not None) == method.training_request.class_token
        alone = type(method)(backbone, method.config)
        train(method, features, steps=2, batch_size=3)
        train(alone, plates(), steps=2, batch_size=3)
        for found, expected in zip(method.state_dict().values(), alone.state_dict().values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # a step is larger by far


def test_features_that_do_not_serve(backbone: Backbone) -> None:
    april, coop = (methods.load_class(name) for name in ("april-gan", "coop"))
    features = Features(april(backbone, replace(april.Config(), size=148)), plates())
    with pytest.raises(UsageError, match="computed for april-gan in another way than coop asks for"):
        train(coop(backbone, replace(coop.Config(), size=148)), features, steps=1)
    alike = {"size": 148, "activation": "gelu"}
    with pytest.raises(UsageError, match="another way"):  # the grid is not the checkpoint's own
        train(coop(backbone, replace(coop.Config(), **alike)), features, steps=1)
    with pytest.raises(UsageError, match="lack what coop is trained with"):
        train(coop(backbone, replace(coop.Config(), **alike, position="bicubic-antialias")), features, steps=1)


def test_the_builtin_backbone_has_a_schedule_of_its_own(
    fresh: Callable[[], Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = fresh()
    assert method.schedule == method.TRAINING
    other = Training(epochs=1, batch_size=2, lr=0.5, betas=getattr(method.TRAINING, "betas", None))
    monkeypatch.setitem(builtin.SCHEDULES, method.info.name, other)
    own = type(method)(method.backbone, method.config)
    assert own.schedule == method.TRAINING
    own.backbone, name = method.backbone, method.backbone.name
    try:
        own.backbone.name = "builtin"
        assert own.schedule == other
        assert own.optimizer().param_groups[0]["lr"] == 0.5
        assert len(train(own, plates())) == 2
    finally:
        own.backbone.name = name
