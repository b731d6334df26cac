"""Resumable runs from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import blemish
from blemish.errors import UsageError
from blemish.outputs.run import DetectOptions, DetectRun
from helpers import save_picture


@pytest.fixture(scope="module")
def detector(tiny_backbone: Path) -> blemish.Detector:
    return blemish.load("clip", backbone=tiny_backbone, device="cpu", threshold=0.4)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [save_picture(tmp_path / "in" / f"{number}.png", number) for number in range(3)]


def test_a_run_and_its_continuation(detector: blemish.Detector, paths: list[Path], tmp_path: Path) -> None:
    out, lines, steps = tmp_path / "out", [], []
    options = DetectOptions(kinds=("overlay", "regions"), batch_size=2)
    with DetectRun(detector, paths[:2], out, options) as run:
        assert len(run.todo) == 2
        results = run.execute(lines.append, lambda: steps.append(1))
    assert list(results) == [line["path"] for line in lines] == [str(path) for path in paths[:2]]
    assert results[str(paths[0])].label in (0, 1)
    assert len(steps) == 2
    (tmp_path / "in" / "2.png").write_bytes(b"")
    with DetectRun(detector, paths, out, options) as run:
        assert run.todo == [str(paths[2])]
        assert run.states == {"same": 2, "new": 1}
        results = run.execute(lines.append)
        assert run.line(paths[0])["score"] == results[str(paths[0])].score
    assert len(results) == 2
    assert "is empty" in run.failures[str(paths[2])]
    assert len(lines) == 2 + 3
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        ".lock",
        "results.jsonl",
        "runs.jsonl",
        "results.csv",
        "regions.json",
        "overlay/0.png.png",
        "overlay/1.png.png",
    }
    assert len(json.loads((out / "regions.json").read_text())["images"]) == 2


def test_without_a_folder_it_only_scores(detector: blemish.Detector, paths: list[Path]) -> None:
    with DetectRun(detector, paths) as run:
        results = run.execute()
    expected = [detection.score for detection in detector(paths)]
    assert [result.score for result in results.values()] == expected


def test_several_settings_that_cannot_work(detector: blemish.Detector, paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'overlays' \(did you mean overlay"):
        DetectOptions(kinds=("overlays",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'xls'"):
        DetectOptions(tables=("xls",))  # type: ignore[arg-type]
    plain = blemish.Detector(detector.engine)
    with pytest.raises(UsageError, match="mask needs a threshold"):
        DetectRun(plain, paths, tmp_path / "out", DetectOptions(kinds=("mask",)))


def test_images_may_be_an_iterator(detector: blemish.Detector, paths: list[Path], tmp_path: Path) -> None:
    def walk() -> Iterator[Path]:
        yield from paths

    with DetectRun(detector, walk(), tmp_path / "out") as run:
        assert len(run.execute()) == 3
