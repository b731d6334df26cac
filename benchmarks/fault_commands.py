"""The commands of the fault bench: what each command does, what it reports as finished, and what it ends with.

Pictures, a data set and a tiny random CLIP are drawn once. A command's folder is a copy of `before`, so that each fault
finds the same state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.files import file_sum
from blemish.hub import TABLE, Published

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PULLED = "anomalyclip-trained-on-visa"
"""The published file that a local server stands in for."""
#: Fields of results that differ between two runs.
_VARYING = ("timing", "run", "date", "judged", "seconds", "created", "crc32")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: Its name.
        words: Its words; `{out}` is the command's folder.
        finished: What its folder reports as finished, by name. A run must keep it.
        outcome: What it ends with, without what differs between two runs.
            before: What is in the folder at the beginning.
    """

    name: str
    words: tuple[str, ...]
    finished: Callable[[Path], dict[str, Any]]
    outcome: Callable[[Path], Any]
    before: Path | None = None


def without(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without what differs between two runs."""
    return {name: value for name, value in line.items() if name not in _VARYING}


def _lines(path: Path) -> list[dict[str, Any]]:
    from blemish.outputs.journal import read_journal

    return list(read_journal(path))


def _results(out: Path) -> dict[str, Any]:
    """Return the run of each picture whose line is in the journal."""
    lines = _lines(out / "results.jsonl")
    return {line["path"]: line["run"] for line in lines if line.get("error") is None}


def _detect_outcome(out: Path) -> Any:
    lines = {line["path"]: line for line in _lines(out / "results.jsonl")}
    files = {f"{p.parent.name}/{p.name}": file_sum(p) for k in ("map", "overlay") for p in sorted((out / k).iterdir())}
    table = (out / "results.csv").read_text(encoding="utf-8-sig").splitlines()
    return [without(lines[path]) for path in sorted(lines)], files, sorted(row.split(",")[:3] for row in table)


def _parts(out: Path) -> dict[str, Any]:
    """Return the run of each part that is there."""
    from blemish.scan.rows import read_facts

    numbers = [int(path.stem[5:]) for path in (out / "parts").glob("part-*.parquet")]
    facts = {number: read_facts(out, number) for number in numbers}
    return {str(number): each.run for number, each in facts.items() if each is not None}


def _scan_outcome(out: Path) -> Any:
    from scan_helpers import rows_of

    files = {path.name: file_sum(path) for path in sorted((out / "map").rglob("*.png"))}
    return rows_of(out), files


def _scores(out: Path) -> dict[str, Any]:
    lines = _lines(out / "scores.jsonl")
    return {f"{line['method']} {line['path']}": line["score"] for line in lines if line.get("error") is None}


def _evaluate_outcome(out: Path) -> Any:
    rows = json.loads((out / "results.json").read_text())["rows"]
    maps = {str(path.relative_to(out)): file_sum(path) for path in sorted((out / "maps").rglob("*.npy"))}
    return rows, _scores(out), maps


def _steps(out: Path) -> dict[str, Any]:
    """Return the losses of the steps that the checkpoint holds."""
    from blemish.methods import checkpoints

    file = out / "checkpoint.safetensors"
    if not file.is_file():
        return {}
    done = json.loads(checkpoints.read_tensors(file)[1]["state"])["step"]
    lines = (out / "losses.jsonl").read_text().splitlines()[:done]
    return dict(enumerate(lines)) if len(lines) == done else {"lost": done}


def _train_outcome(out: Path) -> Any:
    names = ("weights.safetensors", "checkpoint.safetensors", "losses.jsonl")
    return {name: file_sum(out / name) for name in names}


def _profile_outcome(out: Path) -> Any:
    from blemish.profile import read_profile

    return without(read_profile(out / "part.profile").summary())


def _profile_there(out: Path) -> dict[str, Any]:
    """Raise unless a profile is there and whole."""
    _profile_outcome(out)
    return {"profile": True}


def _export_outcome(out: Path) -> Any:
    import onnx

    model = onnx.load(out / "part.onnx")
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def _pulled(out: Path) -> dict[str, Any]:
    path = out / "published" / f"{PULLED}.pth"
    return {"file": file_sum(path)} if path.is_file() else {}


def draw(folder: Path, count: int, seed: int = 0, side: int = 40) -> Path:
    """Write small pictures of noise."""
    from helpers import save_picture

    for number in range(count):
        save_picture(folder / f"{number:05}.png", seed + number, (side, side * 3 // 4))
    return folder


def draw_data(folder: Path) -> Path:
    """Write a data set in MVTec AD's layout with six pictures, half of them with a bright box."""
    draw(folder / "plate" / "test" / "good", 3)
    for number in range(3):
        pixels, mask = np.full((30, 40, 3), 90 + number, np.uint8), np.zeros((30, 40), np.uint8)
        pixels[5:15, 10:25], mask[5:15, 10:25] = 250, 255
        for name, values in (("test/box/{}.png", pixels), ("ground_truth/box/{}_mask.png", mask)):
            path = folder / "plate" / name.format(f"{number:03}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return folder


def make_commands(root: Path) -> dict[str, Command]:
    """Draw what the commands need below a folder, and return them."""
    from helpers import save_tiny_backbone

    tiny, deep, data = root / "tiny", root / "deep", root / "data"
    if not data.is_dir():
        save_tiny_backbone(tiny, layers=(4, 2))
        save_tiny_backbone(deep)  # as deep as what april-gan reads
        draw(root / "photos", 10)
        draw(root / "good", 4, seed=50)
        draw(root / "other", 4, seed=70)
        draw_data(data)
    content = np.random.default_rng(0).bytes(600_000)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    (root / "published.pth").write_bytes(content)
    TABLE[PULLED] = Published(PULLED, "anomalyclip", "plates", "owner/code", "0" * 40, "weights/file.pth", blob)
    common = ("--backbone", str(tiny), "--device", "cpu", "--precision", "float32")
    detect = ("detect", str(root / "photos"), "--out", "{out}", "--method", "clip", *common, "--batch-size", "1")
    scan = ("scan", str(root / "photos"), "--out", "{out}", "--method", "clip", *common, "--part-size", "2")
    evaluate = ("evaluate", "--data", str(data), "--out", "{out}", "--methods", "clip", "--maps", *common)
    evaluate += ("--batch-size", "1")
    train = ("train", "april-gan", "--data", str(data / "plate"), "--out", "{out}", "--backbone", str(deep))
    train += ("--device", "cpu", "--config", '{"size": 148}', "--batch-size", "2", "--epochs", "3")
    fit = ("fit", str(root / "good"), "--method", "anomalydino", "--out", "{out}/part.profile", *common)
    export = ("export", "--method", "clip", "--out", "{out}/part.onnx", "--backbone", str(tiny))
    commands = [
        Command("detect", detect, _results, _detect_outcome),
        Command("scan", (*scan, "--batch-size", "2", "--save", "map-png"), _parts, _scan_outcome),
        Command("evaluate", evaluate, _scores, _evaluate_outcome),
        Command("train", (*train, "--resume", "--cache", "{out}/cache"), _steps, _train_outcome),
        Command("fit", fit, _profile_there, _profile_outcome, before=root / "fitted"),
        Command("weights pull", ("weights", "pull", PULLED), _pulled, _pulled),
        Command("export", export, lambda out: {"file": bool(_export_outcome(out))}, _export_outcome, root / "exported"),
    ]
    return {command.name: command for command in commands}


def fill(command: Command, out: Path) -> None:
    """Make the folder of a command as it is before the command."""
    shutil.rmtree(out, ignore_errors=True)
    if command.before is None:
        out.mkdir(parents=True)
    else:
        shutil.copytree(command.before, out)
