"""Training on two processes: the losses of one process, one voice, and resuming with another number."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from blemish.cli import main
from blemish.clip import Backbone
from blemish.methods import info, list_methods
from blemish.training.processes import Processes
from helpers import save_picture

LEARNERS = [name for name in list_methods() if info(name).trainable]
#: Ten pictures in batches of 3 end with a batch of one, which some losses treat differently.
PICTURES, BATCH, STEPS = 10, 3, 4
#: Largest difference of a loss, as a fraction: sums are rounded in another order, and Adam enlarges the difference.
TOLERANCE = 1e-4


class Left(NamedTuple):
    """What a command left in one process."""

    code: int
    out: str
    err: str


class Runs(NamedTuple):
    """What two processes left of each command, by the name of the output folder."""

    folder: Path
    left: dict[str, tuple[Left, Left]]

    def losses(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / name / "x.losses.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def save_plates(folder: Path) -> Path:
    for number in range(PICTURES // 2):
        save_picture(folder / f"test/good/{number}.png", number)
        save_picture(folder / f"test/hole/{number}.png", 10 + number)
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 10 + number : 25] = 255
        (folder / "ground_truth/hole").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / f"ground_truth/hole/{number}_mask.png")
    return folder


def start_two(folder: Path, commands: dict[str, list[str]]) -> dict[str, tuple[Left, Left]]:
    """Run the commands in two processes, as torchrun would start them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in commands]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    (folder / "commands.json").write_text(json.dumps(list(zip(commands.values(), ports, strict=True))))
    shared = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__).with_name("member.py")), str(folder)]
    members = [
        subprocess.Popen(words, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    try:
        assert [member.wait(120) for member in members] == [0, 0]
    finally:
        for member in members:
            member.kill()
            member.wait()
    first, second = (json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(2))
    return {name: (Left(*a), Left(*b)) for name, a, b in zip(commands, first, second, strict=True)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Runs:
    """One process trains here, two train at once in processes of their own."""
    folder = tmp_path_factory.mktemp("processes")
    plates, broken = save_plates(folder / "plate"), save_plates(folder / "broken")
    (broken / "test/hole/4.png").write_bytes(b"broken")  # the last picture is of process 1

    def words(
        name: str, method: str, *more: object, data: Path = plates, steps: int = STEPS, device: str = "cpu"
    ) -> list[str]:
        config = '{"size": 148, "dropout": 0}' if method == "vcp-clip" else '{"size": 148}'
        out = ("--out", folder / name / "x.safetensors", "--backbone", tiny_backbone, "--device", device)
        size = ("--batch-size", BATCH, "--steps", steps, "--config", config)
        return [str(word) for word in ("train", method, "--data", data, *out, *size, *more)]

    for method in LEARNERS:
        assert main(words(f"{method} of one", method)) == 0
    assert main(words("handed over", "april-gan", steps=2)) == 0
    commands = {f"{method} of two": words(f"{method} of two", method) for method in LEARNERS}
    commands |= {
        "handed over": words("handed over", "april-gan", "--resume", "--cache", "off"),
        "handed back": words("handed back", "april-gan", "--cache", folder / "cache", steps=2),
        "damaged": words("damaged", "april-gan", data=broken),
        "unlike": words("unlike", "april-gan", "--seed", "{rank}"),
        "on gpu": words("on gpu", "april-gan", device="cuda:0"),
    }
    left = start_two(folder, commands)
    shutil.copytree(folder / "handed back", folder / "after two steps")
    with pytest.MonkeyPatch.context() as patch:
        encode, passes = Backbone.encode_image, list[int]()
        patch.setattr(Backbone, "encode_image", lambda *a, **k: passes.append(len(a[1])) or encode(*a, **k))
        assert main(words("handed back", "april-gan", "--resume", "--cache", folder / "cache")) == 0
        assert set(passes) == {1}, "one process finds the features of two, and computes one only for its size"
    return Runs(folder, left)


def assert_alike(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    assert [list(record) for record in a] == [list(record) for record in b]
    for one, two in zip(a, b, strict=True):
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=TOLERANCE, abs=TOLERANCE * one["total"]), (name, one)


@pytest.mark.parametrize("method", LEARNERS)
def test_the_losses_are_those_of_one_process(runs: Runs, method: str) -> None:
    for left in runs.left[f"{method} of two"]:
        assert left.code == 0, left.err
    assert_alike(runs.losses(f"{method} of one"), runs.losses(f"{method} of two"))


def test_the_first_process_speaks_and_writes(runs: Runs) -> None:
    first, second = runs.left["april-gan of two"]
    assert first.out.startswith("Trained april-gan on 10 pictures")
    assert "The features of 10 pictures take" in first.err
    assert (second.out, second.err) == ("", "")
    names = {path.name for path in (runs.folder / "april-gan of two").iterdir()}
    assert names == {"x.safetensors", "x.checkpoint.safetensors", "x.losses.jsonl", "x.losses.svg"}


def test_a_run_is_resumed_by_another_number_of_processes(runs: Runs) -> None:
    """One process hands over to two that keep no features; two hand back to one that takes the features they kept."""
    whole = runs.losses("april-gan of one")
    assert runs.left["handed over"][0].code == 0, runs.left["handed over"][0].err
    assert len(runs.losses("after two steps")) == 2
    for name in ("handed over", "handed back"):
        assert_alike(whole, runs.losses(name))


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("damaged", 1, "hole/4.png' is in no format that blemish reads"),
        ("unlike", 1, "the processes do not start alike"),
        ("on gpu", 2, "2 processes need a GPU each: give --device cuda, not cuda:0"),
    ],
)
def test_an_error_ends_all_with_one_sentence(runs: Runs, name: str, code: int, sentence: str) -> None:
    first, second = runs.left[name]
    assert first.code != 0
    assert second.code != 0
    errors = [line for left in (first, second) for line in left.err.splitlines() if line.startswith("blemish: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert code in (first.code, second.code)
    assert not (runs.folder / name / "x.safetensors").exists()


def test_every_thing_has_one_process() -> None:
    for count in (1, 2, 3):
        for length in (1, 2, 7):
            parts = [Processes(rank, count).part(length) for rank in range(count)]
            assert [row for part in parts for row in part] == list(range(length))


@pytest.mark.slow
def test_started_by_torchrun(runs: Runs, tiny_backbone: Path) -> None:
    out = runs.folder / "torchrun" / "x.safetensors"
    words = ("--data", runs.folder / "plate", "--out", out, "--backbone", tiny_backbone, "--device", "cpu")
    size = ("--config", '{"size": 148}', "--batch-size", BATCH, "--steps", STEPS)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = subprocess.run(
        [str(word) for word in (*launcher, "-m", "blemish", "train", "april-gan", *words, *size)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained april-gan") == 1
    assert_alike(runs.losses("april-gan of one"), runs.losses("torchrun"))
