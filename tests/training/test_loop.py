"""The loop: it learns, resumes to the bit, keeps features, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Backbone, load_backbone
from blemish.datasets.masks import resize_mask
from blemish.errors import BlemishError, OutputError, UsageError, WeightsError
from blemish.methods import checkpoints, create
from blemish.methods.anomalyclip import AnomalyCLIP, AnomalyClipConfig
from blemish.methods.base import Method
from blemish.training import Features, Progress, Sample, train

RECIPE = AnomalyClipConfig(size=148, n_ctx=3, depth=3, t_n_ctx=2)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def fresh(backbone: Backbone) -> Callable[[], AnomalyCLIP]:
    return lambda: AnomalyCLIP(backbone, RECIPE)


def make_samples(count: int = 6) -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        pixels = rng.integers(90, 130, (40, 50, 3)).astype(np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        if number % 2:
            pixels[10:25, 5:30], mask[10:25, 5:30] = 250, 255
        samples.append(Sample(Image.fromarray(pixels), mask if number % 2 else None, number % 2, "plate"))
    return samples


def state(method: Method) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in method.parameters()]


def same(a: Method, b: Method) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a), state(b), strict=True))


def test_thirty_steps_lower_the_loss(fresh: Callable[[], AnomalyCLIP]) -> None:
    history = train(fresh(), make_samples(), steps=30, batch_size=6, lr=1e-2)
    assert [record["step"] for record in history] == list(range(1, 31))
    assert history[-1]["total"] < 0.9 * history[0]["total"]


def test_only_the_learnt_parts_change(fresh: Callable[[], AnomalyCLIP]) -> None:
    method = fresh()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    start = state(method)
    train(method, make_samples(2), steps=2, batch_size=2)
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(start, state(method), strict=True))


def test_the_seed_decides(fresh: Callable[[], AnomalyCLIP]) -> None:
    runs = [fresh() for _ in range(3)]
    for method, seed in zip(runs, (1, 1, 2), strict=True):
        torch.rand(3)  # what was drawn outside does not matter
        train(method, make_samples(), steps=4, batch_size=2, seed=seed)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_random_state_outside_is_left_alone(fresh: Callable[[], AnomalyCLIP]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    train(fresh(), make_samples(2), steps=1)
    assert torch.equal(torch.rand(2), expected)


def test_a_stopped_run_goes_on_to_the_same_bits(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    whole, stopped, resumed = fresh(), fresh(), fresh()
    samples = make_samples()
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 4, "seed": 3}
    train(whole, samples, **settings, out=tmp_path / "whole")

    class Killed(BaseException):
        """Nothing is written after it."""

    def stop(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == 5:
            raise Killed

    with pytest.raises(Killed):
        train(
            stopped, samples, epochs=4, batch_size=4, seed=3, out=tmp_path / "b", checkpoint_every=3, on_progress=stop
        )
    history = train(resumed, samples, epochs=4, batch_size=4, seed=3, out=tmp_path / "b", resume=True)
    assert history[0]["step"] == 5  # the checkpoint after step 4, the end of the second epoch
    assert same(whole, resumed)
    assert (tmp_path / "b/losses.jsonl").read_text() == (tmp_path / "whole/losses.jsonl").read_text()
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_interrupted_after_a_step_keeps_it(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    whole, stopped, resumed = fresh(), fresh(), fresh()
    out = tmp_path / "b" / "x.safetensors"

    def stop(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == 2:
            raise KeyboardInterrupt

    train(whole, make_samples(), steps=4, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, make_samples(), steps=4, batch_size=2, out=out, on_progress=stop)
    names = {one.name for one in out.parent.iterdir()}
    assert names == {"x.safetensors", "x.checkpoint.safetensors", "x.losses.jsonl", "x.losses.svg"}
    history = train(resumed, make_samples(), steps=4, batch_size=2, out=out, resume=True)
    assert [record["step"] for record in history] == [3, 4]
    assert same(whole, resumed)


def test_what_a_run_leaves(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    method = fresh()
    train(method, make_samples(3), epochs=1, batch_size=2, out=tmp_path, trained_on="plates")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "losses.jsonl",
        "losses.svg",
        "weights.safetensors",
    ]
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 1), (2, 1)]
    assert lines[0]["total"] == pytest.approx(lines[0]["pixel"] + lines[0]["image"])
    again = create("anomalyclip", method.backbone, weights=tmp_path / "weights.safetensors")
    assert same(method, again)
    assert checkpoints.read_header(tmp_path / "weights.safetensors").trained_on == "plates"


def test_resume_wants_the_same_settings(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    train(fresh(), make_samples(2), steps=1, batch_size=2, out=tmp_path)
    with pytest.raises(UsageError, match="seed 0, not 1"):
        train(fresh(), make_samples(2), steps=2, batch_size=2, seed=1, out=tmp_path, resume=True)
    with pytest.raises(OutputError, match="is of another run"):
        train(fresh(), make_samples(2), steps=2, batch_size=2, out=tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match="is there already"):
        train(fresh(), make_samples(2), steps=2, batch_size=2, out=tmp_path / "x.safetensors")
    (tmp_path / "checkpoint.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="not a checkpoint"):
        train(fresh(), make_samples(2), steps=2, batch_size=2, out=tmp_path, resume=True)


def test_resume_without_a_checkpoint_starts(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    assert len(train(fresh(), make_samples(2), steps=1, out=tmp_path / "new", resume=True)) == 1
    with pytest.raises(UsageError, match="give out"):
        train(fresh(), make_samples(2), steps=1, resume=True)


def test_a_batch_of_one(fresh: Callable[[], AnomalyCLIP]) -> None:
    """The losses of single pictures average to nearly those of the batch: an image is an image, not its rows."""
    method = fresh()
    features = Features(method, make_samples(2))
    both = method.loss(*features.batch([0, 1]))
    single = [method.loss(*features.batch([row])) for row in (0, 1)]
    for name in ("focal", "dice_anomalous", "dice_normal", "image"):
        torch.testing.assert_close(both[name], torch.stack([losses[name] for losses in single]).mean(dim=0))
    history = train(method, make_samples(3), epochs=1, batch_size=2)
    assert [record["epoch"] for record in history] == [1, 1]


def test_kept_features_give_the_same_run(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    runs = {"memory": fresh(), "disk": fresh(), "again": fresh()}
    received: list[Progress] = []
    train(runs["memory"], make_samples(), steps=3, batch_size=4)
    for name in ("disk", "again"):
        train(runs[name], make_samples(), steps=3, batch_size=4, cache=tmp_path / "cache", on_progress=received.append)
        assert same(runs["memory"], runs[name])
    first = received[0]
    assert (first.stage, first.done, first.total) == ("features", 0, 6)
    stored = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npy") if p.name != "digest.npy")
    assert 0 <= stored - first.bytes < 128 * 8  # but for the files' headers


def test_kept_features_are_of_the_same_pictures(
    fresh: Callable[[], AnomalyCLIP], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    encode = Backbone.encode_image
    monkeypatch.setattr(Backbone, "encode_image", lambda *a, **k: passes.append(len(a[1])) or encode(*a, **k))
    method, samples = fresh(), make_samples(4)
    Features(method, samples, cache=tmp_path, batch_size=2)
    assert passes == [1, 2, 2]
    Features(method, samples, cache=tmp_path, batch_size=2)
    assert passes[3:] == [1]
    samples[3] = samples[3]._replace(mask=None)
    changed = Features(method, samples, cache=tmp_path, batch_size=2)
    assert passes[4:] == [1, 2]
    assert changed.batch([3])[1].sum() == 0


def test_nothing_kept_computes_every_batch(fresh: Callable[[], AnomalyCLIP]) -> None:
    method, samples = fresh(), make_samples(3)
    kept, not_kept = Features(method, samples), Features(method, samples, cache=False)
    for a, b in zip(kept.batch([2, 0]), not_kept.batch([2, 0]), strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
    torch.testing.assert_close(
        method.loss(*kept.batch([2, 0]))["total"], method.loss(*not_kept.batch([2, 0]))["total"], rtol=1e-4, atol=1e-4
    )


def test_what_cannot_be_trained(backbone: Backbone, fresh: Callable[[], AnomalyCLIP]) -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        train(create("clip", backbone), make_samples(2), steps=1)
    with pytest.raises(UsageError, match="at least one sample"):
        train(fresh(), [], steps=1)
    with pytest.raises(UsageError, match="not both"):
        train(fresh(), make_samples(2), steps=1, epochs=1)
    broken = fresh()
    broken.context.data.fill_(float("nan"))
    with pytest.raises(BlemishError, match="not finite"):
        train(broken, make_samples(2), steps=1)


def test_masks() -> None:
    assert resize_mask(None, 4).shape == (4, 4)
    mask = np.zeros((8, 8), np.int32)
    mask[:, 4:] = 3  # any value above 0, as in VisA
    expected = np.tile(np.array([False, False, True, True]), (4, 1))
    for given in (mask, mask.astype(bool), Image.fromarray(mask.astype(np.uint8)), Image.fromarray(mask > 0)):
        assert np.array_equal(resize_mask(given, 4), expected)


def test_damaged_features_are_computed_again(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    whole = Features(fresh(), make_samples(4), cache=tmp_path).batch([0, 1, 2, 3])[0].taps
    for file in sorted(tmp_path.rglob("*.npy")):
        data = bytearray(file.read_bytes())
        for damaged in (b"", bytes(data[:100]), bytes(data[:-1]) + bytes([data[-1] ^ 1])):
            file.write_bytes(damaged)
            taps = Features(fresh(), make_samples(4), cache=tmp_path).batch([0, 1, 2, 3])[0].taps
            assert all(torch.equal(values, taps[tap]) for tap, values in whole.items()), file.name


def test_two_runs_do_not_write_to_the_same_files(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    def second(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == 1:
            with pytest.raises(OutputError, match="another run is writing to"):
                train(fresh(), make_samples(), steps=3, batch_size=2, out=tmp_path / "x")

    train(fresh(), make_samples(), steps=3, batch_size=2, out=tmp_path / "x", on_progress=second)
    assert len((tmp_path / "x" / "losses.jsonl").read_text().splitlines()) == 3


def test_a_damaged_log_of_losses_stops_nobody(fresh: Callable[[], AnomalyCLIP], tmp_path: Path) -> None:
    train(fresh(), make_samples(), steps=2, batch_size=2, out=tmp_path)
    (tmp_path / "losses.jsonl").write_bytes(b"\xff\n{\n")
    assert len(train(fresh(), make_samples(), steps=3, batch_size=2, out=tmp_path, resume=True)) == 1
