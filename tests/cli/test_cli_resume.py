"""A second run in the same folder: what is skipped, what is redone, and that a run may die at any time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blemish.detection import Detection
from helpers import save_picture


def results(out: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len({line["path"] for line in found}) == len(found)
    return {Path(line["path"]).name: line for line in found}


@pytest.fixture
def out(detect, pictures: Path, tmp_path: Path) -> Path:
    """A folder with the results of a first run."""
    assert detect(pictures, "--out", tmp_path / "out").code == 0
    return tmp_path / "out"


def test_nothing_changed(detect, pictures: Path, out: Path) -> None:
    before = (out / "results.jsonl").read_bytes()
    outcome = detect(pictures, "--out", out)
    assert outcome.code == 0
    assert "5 pictures complete with the same settings: skipped" in outcome.err
    assert (out / "results.jsonl").read_bytes() == before
    assert outcome.out.count(".png") == 2


def test_skipped_pictures_are_in_the_json_too(detect, pictures: Path, out: Path) -> None:
    assert len(detect(pictures, "--out", out, "--json").out.splitlines()) == 5


def test_a_picture_changed(detect, pictures: Path, out: Path) -> None:
    before = results(out)
    save_picture(pictures / "a.png", seed=99, size=(50, 20))
    outcome = detect(pictures, "--out", out)
    assert "1 picture changed since: repeated" in outcome.err
    assert "4 pictures complete" in outcome.err
    assert results(out)["a.png"]["size"] == [50, 20]
    assert results(out)["b.jpg"] == before["b.jpg"]


def test_a_picture_was_added(detect, pictures: Path, out: Path) -> None:
    save_picture(pictures / "new.png")
    detect(pictures, "--out", out)
    assert len(results(out)) == 6


def test_a_picture_broke(detect, pictures: Path, out: Path) -> None:
    (pictures / "a.png").write_bytes(b"")
    assert detect(pictures, "--out", out).code == 1
    assert results(out)["a.png"]["error"]
    assert not (out / "overlay" / "a.png.png").exists()
    save_picture(pictures / "a.png")
    assert detect(pictures, "--out", out).code == 0
    assert results(out)["a.png"]["error"] is None


@pytest.mark.parametrize("words", [("--object", "metal nut"), ("--threshold", 0.5)])
def test_other_settings(detect, pictures: Path, out: Path, words: tuple) -> None:
    became = {"--object": " with other settings: repeated", "--threshold": ": judged again by the thresholds of now"}
    assert f"5 pictures scored before{became[words[0]]}" in detect(pictures, "--out", out, *words).err
    assert len(results(out)) == 5
    assert "5 pictures complete" in detect(pictures, "--out", out, *words).err


def test_another_batch_size_is_no_other_setting(detect, pictures: Path, out: Path) -> None:
    assert "5 pictures complete" in detect(pictures, "--out", out, "--batch-size", 2).err


def test_other_files_are_asked_for(detect, pictures: Path, out: Path) -> None:
    words = ("--out", out, "--save", "overlay,heatmap")
    assert "5 pictures scored before without all the files" in detect(pictures, *words).err
    assert len(list((out / "heatmap").iterdir())) == 5
    assert "5 pictures complete" in detect(pictures, *words).err


def test_files_of_other_settings_do_not_stay(detect, pictures: Path, out: Path) -> None:
    detect(pictures, "--out", out, "--object", "nut", "--save", "heatmap")
    assert list((out / "overlay").iterdir()) == []


def test_a_file_was_deleted(detect, pictures: Path, out: Path) -> None:
    (out / "overlay" / "a.png.png").unlink()
    assert "1 picture scored before without all the files" in detect(pictures, "--out", out).err
    assert (out / "overlay" / "a.png.png").is_file()


def test_overwrite(detect, pictures: Path, out: Path) -> None:
    before = (out / "overlay" / "a.png.png").stat().st_mtime_ns
    outcome = detect(pictures, "--out", out, "--overwrite")
    assert "5 pictures complete with the same settings: overwritten" in outcome.err
    assert (out / "overlay" / "a.png.png").stat().st_mtime_ns > before


def test_other_pictures_keep_their_results(detect, pictures: Path, out: Path, tmp_path: Path) -> None:
    detect(save_picture(tmp_path / "elsewhere" / "z.png"), "--out", out)
    assert len(results(out)) == 6
    assert len((out / "results.csv").read_text().splitlines()) == 7


def test_interrupted_from_the_keyboard(detect, pictures: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    save, calls = Detection.save, []

    def stop(self: Detection, *rest, **options):
        calls.append(1)
        if len(calls) >= 3:
            raise KeyboardInterrupt
        return save(self, *rest, **options)

    words = (pictures, "--out", out, "--threshold", 0.4, "--save", "overlay,regions")
    monkeypatch.setattr(Detection, "save", stop)
    outcome = detect(*words)
    assert outcome.code == 130
    assert outcome.err == (
        f"interrupted: 2 of 5 pictures finished and written to {out}; the same command continues from there.\n"
    )
    monkeypatch.undo()
    outcome = detect(*words)
    assert outcome.code == 0
    assert "2 pictures complete" in outcome.err
    assert len(results(out)) == 5
    assert len(json.loads((out / "regions.json").read_text())["images"]) == 5


def test_killed_in_the_middle_of_a_line(detect, pictures: Path, out: Path) -> None:
    whole = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(whole[:-100])
    outcome = detect(pictures, "--out", out)
    assert "4 pictures complete" in outcome.err
    assert len(results(out)) == 5


def test_killed_before_the_regions_were_collected(detect, pictures: Path, tmp_path: Path) -> None:
    words = (pictures, "--out", tmp_path / "out", "--threshold", 0.4, "--save", "regions")
    detect(*words)
    (tmp_path / "out" / "regions.json").unlink()
    detect(*words)
    assert len(json.loads((tmp_path / "out" / "regions.json").read_text())["images"]) == 5


def test_killed_while_writing_a_file(detect, pictures: Path, out: Path) -> None:
    (out / "overlay" / ".123-4.part").write_bytes(b"half a picture")
    detect(pictures, "--out", out)
    assert not (out / "overlay" / ".123-4.part").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_killed_for_real(detect, pictures: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "many", tmp_path / "out"
    for number in range(60):
        save_picture(folder / f"{number}.png", number)
    command = [sys.executable, "-m", "blemish", "detect", folder, "--out", out, "--method", "clip"]
    process = subprocess.Popen([*command, "--backbone", tiny_backbone, "--batch-size", "2", "--device", "cpu"])
    deadline = time.monotonic() + 300  # a loaded machine takes its time to import torch
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "results.jsonl").exists() and (out / "results.jsonl").read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    outcome = detect(folder, "--out", out)
    assert outcome.code == 0
    assert "complete with the same settings: skipped" in outcome.err
    assert len(results(out)) == 60
    assert not list(out.rglob("*.part"))
