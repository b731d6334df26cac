"""`blemish export`, and `blemish detect --model`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import save_picture, save_tiny_backbone


@pytest.fixture
def words(tmp_path: Path) -> tuple[object, ...]:
    """Arguments of both commands."""
    backbone = save_tiny_backbone(tmp_path / "shallow", layers=(2, 2))
    return "--method", "clip", "--backbone", backbone, "--object", "a nut", "--threshold", 0.4


@pytest.fixture
def file(run, words, tmp_path: Path):
    """A file exported by the command, and what the command wrote."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path / "x.onnx"
    good = save_picture(tmp_path / "check" / "a.png", 3, (300, 260)).parent
    return path, run(
        "export", "--method", "clip", "--out", path, "--check", good, "--threshold", 0.4, "--object", "a nut"
    )


def test_export_and_detect(file, words, run, pictures: Path, tmp_path: Path) -> None:
    path, said = file
    assert said.code == 0, said.err
    assert "Largest difference from PyTorch on 1 picture: score" in said.out
    assert "clip for 'a nut' on the backbone" in said.out
    theirs = run("detect", pictures, "--model", path, "--json")
    asked = ("--method", "clip", "--object", "a nut", "--threshold", 0.4, "--device", "cpu", "--precision", "float32")
    ours = run("detect", pictures, *asked, "--json")
    assert theirs.code == ours.code == 0, theirs.err
    for one, other in zip(theirs.out.splitlines(), ours.out.splitlines(), strict=True):
        found, expected = json.loads(one), json.loads(other)
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert (found["label"], found["threshold"]) == (expected["label"], 0.4)
        assert found["provenance"]["backend"] == "onnx"
        assert found["provenance"]["model"] == "x.onnx"
    info = json.loads(run("info", path, "--json").out)
    assert (info["kind"], info["object"], info["threshold"]) == ("exported detector", "a nut", 0.4)
    assert info["fingerprint"] == found["provenance"]["model_fingerprint"]
    table = run("detect", pictures, "--model", path, "--save", "mask", "--out", tmp_path / "out")
    assert f"as x.onnx ({found['provenance']['model_fingerprint']}) by onnx" in table.out
    again = run("detect", pictures, "--model", path, "--save", "mask", "--out", tmp_path / "out")
    assert "complete with the same settings" in again.err
    other = run(
        "detect", pictures, "--method", "clip", "--threshold", 0.4, "--object", "a nut", "--out", tmp_path / "out"
    )
    assert "scored before with other settings" in other.err
    for option in (("--method", "winclip"), ("--object", "nut"), ("--backend", "torch"), ("--reference", pictures)):
        refused = run("detect", pictures, "--model", path, *option)
        assert refused.code == 2
        assert f"{option[0]}" in refused.err
        assert "is fixed in the exported file" in refused.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("export", "--out", "x.onnx", "--int8"), "give --calibrate"),
        (("export", "--out", "x.onnx", "--calibrate", "good"), "--calibrate is for --int8"),
        (("export", "--out", "x.pt"), "no backend has files like"),
        (("export", "--out", "x.onnx", "--to", "openvino"), "ends with .xml"),
        (("export", "--out", "x.onnx", "--mask-threshold", "0.5"), "give --threshold NUMBER, too"),
        (("detect", "p.png", "--backend", "onnx"), "give --model FILE"),
        (("detect", "p.png", "--model", "gone.onnx"), "there is no file gone.onnx"),
        (("detect", "p.png", "--model", "x.pt"), "no backend has files like"),
    ],
)
def test_words_that_do_not_fit(run, words, sentence: str) -> None:
    refused = run(*words)
    assert refused.code == 2
    assert sentence in refused.err
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("method", "precision", "sentence"),
    [
        (
            "joint",
            "bfloat16",
            "a profile of joint, which no file for ONNX Runtime or OpenVINO can express: fit with --method",
        ),
        (
            "winclip",
            "bfloat16",
            "made in bfloat16, and exported files compute in float32: fit again with --precision float32",
        ),
    ],
)
def test_profiles_that_cannot_be_exported(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, precision: str, sentence: str
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    read = SimpleNamespace(method=method, precision=precision)
    monkeypatch.setattr("blemish.profile.read_profile", lambda path: read)
    refused = run("export", "--profile", "x.profile", "--out", tmp_path / "x.onnx")
    assert refused.code == 2
    assert sentence in refused.err
    assert len(refused.err.splitlines()) == 1
