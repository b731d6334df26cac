"""Start-up: help, version and the list of methods, without a model to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import blemish


def test_version(run) -> None:
    outcome = run("--version")
    assert (outcome.code, outcome.out) == (0, f"blemish {blemish.__version__}\n")


def test_version_is_that_of_the_project() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        assert version("blemish") == blemish.__version__
    except PackageNotFoundError:
        pytest.skip("not installed, only on the path")


def test_help_names_the_commands(run) -> None:
    for words in ((), ("--help",)):
        outcome = run(*words)
        assert outcome.code == 0
        for command in ("detect", "methods", "info", "demo"):
            assert command in outcome.out


def test_help_of_detect_names_the_options(run) -> None:
    out = run("detect", "--help").out
    for option in ("--method", "--backbone", "--weights", "--object", "--threshold", "--mask-threshold", "--out"):
        assert option in out
    for option in ("--save", "--format", "--batch-size", "--device", "--precision", "--recursive", "--json"):
        assert option in out
    assert "--max-pixels" in out
    assert "--overwrite" in out


def test_methods(run) -> None:
    outcome = run("methods")
    assert outcome.code == 0
    for name in ("anomalyclip", "clip", "clip-ac"):
        assert any(line.startswith(name) for line in outcome.out.splitlines())
    found = [json.loads(line) for line in run("methods", "--json").out.splitlines()]
    builtin = {one["name"]: one["builtin"] for one in found}
    assert builtin["clip"] == builtin["winclip"] == "as it is"
    for name in ("anomalyclip", "april-gan", "clip-ad-sdp-plus", "coop", "vcp-clip"):
        assert builtin[name] == "weights shipped"
    assert all(one["default_backbone"] for one in found)
    needs = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "examples" in needs["winclip"]
    assert "a set" in needs["musc"]
    assert "examples" not in needs["musc"]


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("methods",)])
def test_is_quick(words: tuple[str, ...]) -> None:
    # The promise is 0.5 s; the best of three tries counts, in processor time: other tests run beside this one.
    command = [sys.executable, "-m", "blemish", *words]
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))  # of children, their own and the system's
    assert min(times) < 1.0


def test_the_builtin_model_comes_without_what_is_slow_to_import(pictures: Path) -> None:
    """transformers, and PyTorch's compiler, each take longer to import than all the rest takes."""
    code = (
        "import sys; from blemish.cli import main; code = main(sys.argv[1:]); "
        "print(*sorted({'torch', 'transformers', 'torch._dynamo'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "detect", pictures / "a.png", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["provenance"]["backbone"] == "builtin"
    assert done.stderr.splitlines()[-1] == "torch"


def test_plain_where_nobody_looks(detect, pictures) -> None:
    outcome = detect(pictures)
    assert "\x1b" not in outcome.out + outcome.err
    assert outcome.err == ""


def test_bar_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from blemish.cli.console import progress

    with progress(2, "scoring") as advance:
        advance()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(2, "scoring") as advance:
        advance()
    shown = capsys.readouterr().err
    assert "scoring" in shown
    assert "left" in shown
    assert "\x1b[3" not in shown  # no colours


def test_rows_come_above_the_bar(detect, pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    (pictures / "broken.png").write_bytes(b"")
    outcome = detect(pictures)
    ranking = {line.split()[-1]: line.split()[1] for line in outcome.out.splitlines()[1:6]}
    assert len(ranking) == 5
    for path, score in ranking.items():
        assert f"{score}  {path}" in outcome.err.replace("\n", "")
    assert "failed  " in outcome.err
    assert "loading the model" in outcome.err


def test_commands_come_in_the_order_people_need_them(run) -> None:
    out = run("--help").out
    places = [out.index(f" {name} ") for name in ("detect", "fit", "info", "methods", "evaluate", "train", "export")]
    assert places == sorted(places)


def test_help_of_detect_has_groups_and_examples(run) -> None:
    out = run("detect", "--help").out
    titles = ("Verdicts", "Method and model", "Reading pictures", "Results", "Computing")
    places = [out.index(f" {title} ") for title in titles]
    assert places == sorted(places)
    assert out.count(" blemish detect ") >= 2 + 1
    for word in ("A map holds", "heatmap", "overlay", "fixed scale"):
        assert word in out
    assert "//" not in run("weights", "pull", "--help").out  # what stands in angle brackets would vanish
