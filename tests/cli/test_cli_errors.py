"""Each error that a user can meet: its exit code, one sentence, no traceback, clean standard output."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from blemish.errors import OutputError
from helpers import save_picture


def check(outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err
    if code == 2:
        assert outcome.out == ""
        assert outcome.err.count("\n") == 1, outcome.err


def test_unknown_command(run) -> None:
    check(run("detcet"), 2, "detcet", "detect", "See `blemish --help`.")


def test_unknown_option(run) -> None:
    check(run("detect", "x.png", "--treshold", "1"), 2, "--treshold", "--threshold")


def test_option_without_value(run) -> None:
    check(run("detect", "x.png", "--threshold"), 2, "--threshold", "See `blemish detect --help`.")


def test_option_with_wrong_value(run) -> None:
    check(run("detect", "x.png", "--threshold", "high"), 2, "--threshold", "high")


def test_unknown_precision(run) -> None:
    check(run("detect", "x.png", "--precision", "float8"), 2, "precision", "float8")


def test_unknown_method(run, pictures: Path) -> None:
    check(run("detect", pictures, "--method", "anomalyclp"), 2, "anomalyclp", "did you mean anomalyclip")


def test_unknown_kind_to_save(run, pictures: Path, tmp_path: Path) -> None:
    check(run("detect", pictures, "--out", tmp_path / "out", "--save", "overlays"), 2, "'overlays'", "overlay")


def test_unknown_kind_that_is_like_none(run, pictures: Path, tmp_path: Path) -> None:
    outcome = run("detect", pictures, "--out", tmp_path / "out", "--save", "zzzzqqq")
    check(outcome, 2, "--save does not know 'zzzzqqq'. It takes a comma-separated list of map,")


@pytest.mark.parametrize("number", ["1.5", "-0.1", "nan", "inf"])
@pytest.mark.parametrize("option", ["--threshold", "--mask-threshold"])
def test_threshold_out_of_range(run, pictures: Path, option: str, number: str) -> None:
    check(run("detect", pictures, f"{option}={number}"), 2, f"{option} must be a number from 0 to 1")


@pytest.mark.parametrize("number", ["60", "2"])
def test_threshold_that_was_meant_in_percent(run, pictures: Path, number: str) -> None:
    hint = f"did you mean {float(number) / 100:g}"
    check(run("detect", pictures, "--threshold", number), 2, "--threshold", "from 0 to 1", hint)


@pytest.mark.parametrize("number", ["101%", "-1%", "60%%", "%", "nan%", "6 0%"])
def test_percentage_out_of_range(run, pictures: Path, number: str) -> None:
    check(run("detect", pictures, f"--threshold={number}"), 2, "--threshold must be a")


def test_empty_object(run, pictures: Path) -> None:
    check(run("detect", pictures, "--object", " "), 2, "--object is empty")


def test_unknown_format(run, pictures: Path) -> None:
    check(run("detect", pictures, "--format", "josnl"), 2, "josnl", "jsonl")


def test_unknown_device(detect, run, pictures: Path, tiny_backbone: Path) -> None:
    outcome = run("detect", pictures, "--method", "clip", "--backbone", tiny_backbone, "--device", "toaster")
    check(outcome, 2, "toaster")


def test_batch_size_of_nothing(detect, pictures: Path) -> None:
    check(detect(pictures, "--batch-size", 0), 2, "--batch-size")


def test_no_pictures_named(detect) -> None:
    check(detect(), 2, "no pictures are given")


def test_missing_folder(detect, tmp_path: Path) -> None:
    check(detect(tmp_path / "nowhere"), 2, "nowhere", "does not exist")


def test_empty_folder(detect, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check(detect(tmp_path / "empty"), 2, "empty", "no pictures")


def test_pattern_without_matches(detect, tmp_path: Path) -> None:
    check(detect(tmp_path / "*.png"), 2, "no pictures match")


def test_empty_list(detect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    check(detect("-"), 2, "list", "empty")


def test_save_without_a_folder(detect, pictures: Path) -> None:
    check(detect(pictures, "--save", "overlay"), 2, "--out")


def test_formats_of_regions_need_a_folder_and_a_threshold(detect, pictures: Path, tmp_path: Path) -> None:
    check(detect(pictures, "--format", "coco", "--threshold", 0.5), 2, "--format coco", "--out")
    check(detect(pictures, "--out", tmp_path / "out", "--format", "yolo"), 2, "--format yolo", "--threshold")


def test_mask_without_a_threshold(detect, pictures: Path, tmp_path: Path) -> None:
    check(detect(pictures, "--out", tmp_path / "out", "--save", "mask"), 2, "--threshold")


def test_parquet_without_a_folder(detect, pictures: Path) -> None:
    check(detect(pictures, "--format", "parquet"), 2, "--out")


def test_two_formats_on_one_standard_output(detect, pictures: Path) -> None:
    check(detect(pictures, "--format", "csv,jsonl"), 2, "--out")


def test_missing_weights(detect, pictures: Path) -> None:
    check(detect(pictures, "--weights", "nowhere.safetensors"), 2, "nowhere.safetensors")


def test_learnt_method_on_a_foreign_backbone(run, pictures: Path, tiny_backbone: Path) -> None:
    outcome = run("detect", pictures, "--method", "anomalyclip", "--backbone", tiny_backbone)
    check(outcome, 2, "anomalyclip", "weights")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04nonsense", b"PK\x03\x04broken"])
def test_weights_that_are_none(run, pictures: Path, tiny_backbone: Path, tmp_path: Path, content: bytes) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(content)
    outcome = run("detect", pictures, "--backbone", tiny_backbone, "--weights", weights)
    check(outcome, 1, "weights.safetensors")


def test_weights_of_another_method(run, pictures: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    from blemish.clip import load_backbone
    from blemish.methods import checkpoints, create

    path = tmp_path / "clip.safetensors"
    checkpoints.save(create("clip", load_backbone(str(tiny_backbone))), path)
    check(run("detect", pictures, "--backbone", tiny_backbone, "--weights", path), 1, "clip", "anomalyclip")


def test_backbone_that_is_none(run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    check(run("detect", pictures, "--method", "clip", "--backbone", tmp_path), 1, "bert")


def test_backbone_that_is_damaged(run, pictures: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    check(run("detect", pictures, "--method", "clip", "--backbone", broken), 1, "broken")


def test_all_pictures_broken(detect, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    check(detect(tmp_path / "a.png"), 1, "1 picture failed", "a.png", "empty")


def test_picture_that_is_too_large(detect, pictures: Path) -> None:
    check(detect(pictures / "a.png", "--max-pixels", 100), 1, "1,200", "max_pixels")


def test_limit_that_is_none(detect, pictures: Path) -> None:
    check(detect(pictures, "--max-pixels", 0), 2, "max-pixels")


def test_folder_for_results_that_is_a_file(detect, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    check(detect(pictures, "--out", tmp_path / "out"), 1, "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden here")
def test_folder_for_results_that_may_not_be_written(detect, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    check(detect(pictures, "--out", tmp_path / "out"), 1, "out", "permission")


def test_two_runs_in_one_folder(detect, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from blemish.outputs.journal import RunFolder

    with RunFolder(tmp_path / "out"):
        check(detect(pictures, "--out", tmp_path / "out"), 1, "another run")


def test_full_disk(detect, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish import detection, files

    write = files.write_atomically

    def fill_up(path: Path, fill, **options: bool) -> None:
        if Path(path).name.startswith(fourth):
            raise files.output_error(path, OSError(errno.ENOSPC, "No space left on device"))
        write(path, fill, **options)

    fourth = sorted(file.name for file in pictures.iterdir())[3]
    monkeypatch.setattr(detection, "write_atomically", fill_up)
    outcome = detect(pictures, "--out", tmp_path / "out")
    check(outcome, 1, "disk is full")
    # The fifth may be written before the fourth fails: files are written side by side.
    assert re.search("[34] of 5 pictures finished and written", outcome.err)
    monkeypatch.undo()
    assert detect(pictures, "--out", tmp_path / "out").code == 0


def test_result_that_cannot_be_written(detect, pictures: Path, tmp_path: Path, monkeypatch) -> None:
    from blemish.outputs.journal import Journal

    def fail(*_: object) -> None:
        raise OutputError("cannot write it: the folder is gone.")

    monkeypatch.setattr(Journal, "append", fail)
    check(detect(pictures, "--out", tmp_path / "out"), 1, "the folder is gone")


def test_an_error_nobody_thought_of(detect, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.scoring import Scorer

    def fail(*_: object) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setattr(Scorer, "score", fail)
    check(detect(pictures), 1, "the moon is full", "BLEMISH_DEBUG=1")
    monkeypatch.setenv("BLEMISH_DEBUG", "1")
    with pytest.raises(RuntimeError, match="the moon is full"):
        detect(pictures)


def test_demo_without_its_pictures(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(run("demo"), 2, "pip install 'blemish[demo]'")


def test_info_of_nothing(run) -> None:
    check(run("info", "nowhere"), 2, "nowhere")


def test_info_of_a_broken_picture(run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    check(run("info", tmp_path / "a.png"), 1, "a.png")


def test_reader_of_standard_output_goes_away(pictures: Path, tiny_backbone: Path) -> None:
    for number in range(30):
        save_picture(pictures / f"more-{number}.png", number)
    command = f"'{sys.executable}' -m blemish detect '{pictures}' --json --method clip --backbone '{tiny_backbone}'"
    line = f"{command} --batch-size 1; echo code $? >&2"
    shell = subprocess.run(["sh", "-c", f"({line}) | head -n 1"], capture_output=True, text=True, check=True)
    assert shell.stdout.count("\n") == 1
    assert shell.stderr == "code 141\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("datasets", "check"), "`blemish datasets check` needs NAME. See `blemish datasets check --help`."),
        (("export", "x.profile"), "`blemish export` needs --out."),
        (("fit", "--out"), "--out needs a value."),
    ],
)
def test_what_is_missing_is_a_sentence(run, words: tuple[str, ...], sentence: str) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert f"blemish: {sentence}" in outcome.err
