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
    assert "Label from a score of 0.4000, mask from a map value of 0.4000." in said.out
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


@pytest.fixture
def profile(run, tmp_path: Path) -> Path:
    """A profile in bfloat16 of the default method of `fit`."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    for number in range(4):
        save_picture(tmp_path / "good" / f"{number}.png", 40 + number, (60, 45))
    save_tiny_backbone(tmp_path / "shallow", layers=(2, 2))
    return fitted(run, tmp_path, "bfloat16")


def fitted(run, folder: Path, precision: str) -> Path:
    path = folder / f"{precision}.profile"
    config = '{"compared": [2], "layers": [2], "size": 296}'
    words = ("--backbone", folder / "shallow", "--config", config, "--false-alarms", "20%", "--min-area", 3)
    words = (*words, "--object", "a nut", "--roi", "0,0 30,0 30,45 0,45", "--precision", precision)
    made = run("fit", folder / "good", *words, "--out", path)
    assert made.code == 0, made.err
    return path


def test_a_profile_in_bfloat16_is_fitted_again(profile: Path, run, pictures: Path, tmp_path: Path) -> None:
    """`detect --model` then says what `detect --profile` says of the profile in float32."""
    file, backbone = tmp_path / "x.onnx", ("--backbone", tmp_path / "shallow")
    said = run("export", "--profile", profile, *backbone, "--out", file)
    assert said.code == 0, said.err
    assert "was made in bfloat16 and is fitted again in float32, from 4 pictures: the file rejects from" in said.err
    again = fitted(run, tmp_path, "float32")
    theirs = run("detect", pictures, tmp_path / "good", "--model", file, "--json")
    ours = run("detect", pictures, tmp_path / "good", "--profile", again, *backbone, "--json")
    assert (theirs.code, ours.code) == (0, 0), theirs.err
    assert len(theirs.out.splitlines()) == 9  # a subfolder is left out
    for lines in zip(theirs.out.splitlines(), ours.out.splitlines(), strict=True):
        found, expected = (json.loads(line) for line in lines)
        for facts in (found, expected):
            del facts["provenance"], facts["timing"]
            del facts["notes"]  # an exported file does not know its good pictures
        assert found.keys() == expected.keys()
        assert found["min_area"] == 3
        close(found, expected)
    info = json.loads(run("info", file, "--json").out)
    assert (info["calibration_pictures"], info["tile"], info["object"]) == (4, None, "a nut")
    assert info["region_of_interest"] == pytest.approx(0.5, abs=0.05)
    assert "at most 20 %" in info["promise"]


def close(found: object, expected: object) -> None:
    """All numbers agree to 1e-5, and everything else is equal."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert found == expected


def test_a_profile_in_bfloat16_without_its_pictures(profile: Path, run, tmp_path: Path) -> None:
    (tmp_path / "good" / "2.png").unlink()
    refused = run("export", "--profile", profile, "--backbone", tmp_path / "shallow", "--out", tmp_path / "x.onnx")
    assert refused.code == 2
    assert f"2.png is not here to fit it again: run blemish export --profile {profile} --good GOOD..." in refused.err
    assert len(refused.err.splitlines()) == 1
    refused = run("export", "--method", "clip", "--good", tmp_path / "good", "--out", tmp_path / "x.onnx")
    assert "--good gives the good pictures of a profile" in refused.err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"options": {"rule": "f1"}}, "made in bfloat16 by the rule f1, from pictures with defects"),
        ({"limits": SimpleNamespace(removed=1)}, "made in bfloat16 with --robust"),
    ],
)
def test_profiles_that_only_fit_makes_again(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], sentence: str
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    facts = {"precision": "bfloat16", "good": (), "options": {}, "limits": SimpleNamespace(removed=0), "path": "x"}
    monkeypatch.setattr("blemish.profile.read_profile", lambda path: SimpleNamespace(**(facts | changes)))
    refused = run("export", "--profile", "x.profile", "--out", tmp_path / "x.onnx")
    assert refused.code == 2
    assert sentence in refused.err
    assert "run the same blemish fit again with --precision float32" in refused.err
    assert len(refused.err.splitlines()) == 1
