"""`blemish train`: from a folder to weights, stopped in any way and resumed to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.cli.train import _Watch
from blemish.methods import info, list_methods
from blemish.training import Progress
from helpers import save_picture

LEARNERS = [name for name in list_methods() if info(name).trainable]
SMALL = '{"size": 148}'


def save_plate(path: Path, mask: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels, holes = rng.integers(90, 130, (30, 40, 3)).astype(np.uint8), np.zeros((30, 40), np.uint8)
    pixels[5:15, 10:25], holes[5:15, 10:25] = 250, 255
    for place, values in ((path, pixels), (mask, holes)):
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(place)


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Six pictures of one class, as MVTec AD lays them out."""
    folder = tmp_path / "plate"
    for number in range(3):
        save_picture(folder / "test" / "good" / f"{number}.png", number)
        save_plate(folder / f"test/hole/{number}.png", folder / f"ground_truth/hole/{number}_mask.png", number)
    return folder


@pytest.fixture
def train(run, tiny_backbone: Path, plates: Path):
    def call(method: str, out: Path, *words: object, data: Path = plates, config: str = SMALL):
        common = ("--data", data, "--out", out, "--backbone", tiny_backbone, "--device", "cpu", "--config", config)
        return run("train", method, *common, "--batch-size", 2, *words)

    return call


def files(out: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in out.parent.iterdir()}


class Killed(BaseException):
    """As kill -9: nothing catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    on_progress = _Watch.on_progress

    def change(self: _Watch, progress: Progress) -> None:
        if progress.stage == "steps" and progress.done == step:
            act()
        on_progress(self, progress)

    monkeypatch.setattr(_Watch, "on_progress", change)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("method", LEARNERS)
def test_killed_and_resumed_is_unbroken(train, tmp_path: Path, monkeypatch, method: str) -> None:
    whole, broken = tmp_path / "whole" / "x.safetensors", tmp_path / "broken" / "x.safetensors"
    outcome = train(method, whole, "--steps", 6)
    assert outcome.code == 0, outcome.err
    with monkeypatch.context() as patch:
        stop_at(patch, 5, kill)
        with pytest.raises(Killed):
            train(method, broken, "--steps", 6)
    assert json.loads(broken.with_name("x.losses.jsonl").read_text().splitlines()[-1])["step"] == 5
    assert train(method, broken, "--steps", 6, "--resume").code == 0
    assert files(whole) == files(broken)
    assert set(files(whole)) == {"x.safetensors", "x.checkpoint.safetensors", "x.losses.jsonl", "x.losses.svg"}


def test_coop_with_contexts_of_classes(train, run, tmp_path: Path, tiny_backbone: Path, plates: Path) -> None:
    out, config = tmp_path / "x.safetensors", '{"size": 148, "classes": ["plate", "bolt"], "per_state": true}'
    outcome = train("coop", tmp_path / "y.safetensors", "--steps", 1, config='{"classes": ["bolt"]}')
    assert outcome.code == 2
    assert "coop has a context for each of bolt, and none for 'plate'" in outcome.err
    assert not (tmp_path / "y.safetensors").exists()
    outcome = train("coop", out, "--steps", 2, config=config)
    assert outcome.code == 0, outcome.err
    model = ("--method", "coop", "--weights", out, "--backbone", tiny_backbone)
    words = ("detect", plates / "test/good", *model, "--json")
    assert run(*words, "--object", "plate").code == 0
    outcome = run(*words, "--object", "screw")
    assert outcome.code == 2
    assert "each of plate, bolt, and none for 'screw'" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_killed_for_real(train, plates: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole" / "x.safetensors", tmp_path / "broken" / "x.safetensors"
    train("april-gan", whole, "--steps", 100)
    options = {"data": plates, "out": broken, "backbone": tiny_backbone, "config": SMALL, "steps": 100, "batch-size": 2}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([sys.executable, "-m", "blemish", "train", "april-gan", "--device", "cpu", *words])
    losses = broken.with_name("x.losses.jsonl")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if losses.exists() and losses.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert train("april-gan", broken, "--steps", 100, "--resume").code == 0
    assert files(whole) == {name: content for name, content in files(broken).items() if ".partial" not in name}


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_interrupted_from_the_keyboard(train, tmp_path: Path, monkeypatch) -> None:
    whole, broken = tmp_path / "whole" / "x.safetensors", tmp_path / "broken" / "x.safetensors"
    train("april-gan", whole, "--epochs", 2)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_at(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        outcome = train("april-gan", broken, "--epochs", 2)
    assert outcome.code == 130
    assert f"interrupted: 2 of 6 steps done, saved in {broken.with_name('x.checkpoint.safetensors')}" in outcome.err
    assert "--resume continues" in outcome.err
    assert signal.getsignal(signal.SIGINT) is before
    outcome = train("april-gan", broken, "--epochs", 2)
    assert outcome.code == 2
    assert "--resume" in outcome.err
    assert train("april-gan", broken, "--epochs", 2, "--resume").code == 0
    assert files(whole) == files(broken)
    assert "All steps were done already" in train("april-gan", broken, "--epochs", 2, "--resume").out


def test_where_features_are_kept(train, tmp_path: Path) -> None:
    outs = {cache: tmp_path / cache / "x.safetensors" for cache in ("memory", "off", "disk")}
    for cache, out in outs.items():
        where = tmp_path / "features" if cache == "disk" else cache
        outcome = train("april-gan", out, "--steps", 3, "--cache", where)
        assert outcome.code == 0, outcome.err
        assert ("The features of 6 pictures take" in outcome.err) == (cache != "off")
    assert list((tmp_path / "features").rglob("tap0.npy"))
    assert outs["memory"].read_bytes() == outs["disk"].read_bytes()
    assert outs["memory"].with_name("x.losses.svg").read_text().startswith("<svg")
    losses = [
        [json.loads(line)["total"] for line in out.with_name("x.losses.jsonl").read_text().splitlines()]
        for out in outs.values()
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_varied_pictures(train, tmp_path: Path, monkeypatch) -> None:
    whole, broken = tmp_path / "whole" / "x.safetensors", tmp_path / "broken" / "x.safetensors"
    words = ("--epochs", 2, "--mosaic", 0.5, "--augment")
    outcome = train("april-gan", whole, *words)
    assert outcome.code == 0, outcome.err
    assert "varied (mosaics 0.5, augmented), so their features are not cached" in outcome.err
    with monkeypatch.context() as patch:
        stop_at(patch, 5, kill)
        with pytest.raises(Killed):
            train("april-gan", broken, *words)
    outcome = train("april-gan", broken, "--epochs", 2, "--resume")
    assert outcome.code == 2
    assert "augmentation" in outcome.err
    assert train("april-gan", broken, *words, "--resume").code == 0
    assert files(whole) == files(broken)
    outcome = train("april-gan", tmp_path / "y.safetensors", *words, "--cache", tmp_path / "features")
    assert outcome.code == 2
    assert "give --mosaic 0 --no-augment" in outcome.err


def test_from_a_table(train, run, plates: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    rows = ["path,label,mask,object"]
    for number in range(3):
        rows.append(f"plate/test/good/{number}.png,0,,metal plate")
        rows.append(f"plate/test/hole/{number}.png,1,plate/ground_truth/hole/{number}_mask.png,metal plate")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "x.safetensors"
    words = ("--dataset", "csv", "--steps", 1)
    assert train("april-gan", out, *words, data=tmp_path / "list.csv").code == 0
    header = json.loads(run("weights", "show", out, "--json").out)
    assert header["trained_on"] == "list.csv (csv, test): 6 pictures, 3 anomalous"
    picture = plates / "test" / "hole" / "0.png"
    assert run("detect", picture, "--method", "april-gan", "--weights", out, "--backbone", tiny_backbone).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clip", "--steps", 1), "clip has nothing to train; these methods have: anomalyclip"),
        (("anomalyklip", "--steps", 1), "did you mean anomalyclip"),
        (("april-gan", "--steps", 0), "--steps is at least 1"),
        (("april-gan", "--steps", 1, "--epochs", 1), "not both"),
        (("april-gan", "--lr", 0), "--lr is more than 0"),
        (("april-gan", "--config", "{"), "--config is not JSON"),
        (("april-gan", "--config", "[]"), "--config must be a JSON object"),
        (("april-gan", "--config", '{"sise": 1}'), "did you mean size"),
        (("april-gan", "--dataset", "foldr"), "did you mean folder"),
        (("april-gan", "--device", "abacus"), "no device 'abacus'"),
        (("april-gan", "--tensorboard", "runs"), "pip install 'blemish[tensorboard]'"),
    ],
)
def test_what_is_asked_for_does_not_exist(run, plates, tmp_path, tiny_backbone, monkeypatch, words, message) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name, *a))
    outcome = run("train", *words, "--data", plates, "--out", tmp_path / "x.safetensors", "--backbone", tiny_backbone)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


def test_masks_are_needed_where_they_are_learnt_from(train, plates: Path, tmp_path: Path) -> None:
    (plates / "ground_truth" / "hole" / "1_mask.png").unlink()
    outcome = train("april-gan", tmp_path / "x.safetensors", "--steps", 1)
    assert outcome.code == 2
    assert "1 of 3 anomalous pictures have no mask" in outcome.err
    assert train("coop", tmp_path / "x.safetensors", "--steps", 1).code == 0


def test_a_picture_that_cannot_be_read(train, plates: Path, tmp_path: Path) -> None:
    (plates / "test" / "good" / "2.png").write_bytes(b"")
    outcome = train("april-gan", tmp_path / "x.safetensors", "--steps", 1)
    assert outcome.code == 1
    assert "2.png" in outcome.err


def test_weights_that_are_there_are_not_replaced(train, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("precious")
    assert train("april-gan", tmp_path / "x.safetensors", "--steps", 1).code == 2
    assert (tmp_path / "x.safetensors").read_text() == "precious"


def test_tensorboard(train, tmp_path: Path, monkeypatch) -> None:
    import importlib.machinery

    received: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            received.append((folder, 0.0, 0))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            received.append((name, value, step))

        def close(self) -> None:
            received.append(("closed", 0.0, 0))

    board, fake = types.ModuleType("tensorboard"), types.ModuleType("torch.utils.tensorboard")
    board.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboard", board)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    outcome = train("april-gan", tmp_path / "x.safetensors", "--steps", 2, "--tensorboard", tmp_path / "runs")
    assert outcome.code == 0, outcome.err
    assert received[0][0] == str(tmp_path / "runs")
    assert [step for name, _, step in received if name == "loss/total"] == [1, 2]
    assert received[-1][0] == "closed"


def test_progress_on_a_terminal(train, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    outcome = train("april-gan", tmp_path / "x.safetensors", "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert "features" in outcome.err
    assert "total" in outcome.err
