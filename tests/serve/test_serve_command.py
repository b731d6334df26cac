"""`blemish serve`: wrong words get one sentence before anything is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from blemish.cli import main
from blemish.cli.serve import KEY, read_key
from blemish.errors import UsageError
from blemish.serve import extra
from blemish.serve.server import bind


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--profile", "PROFILE", "--threshold", "0.5"], "--threshold is fixed in a profile"),
        (["--profile", "PROFILE", "--value-range", "0,4095"], "--value-range is fixed in a profile"),
        (["--profile", "PROFILE", "--profile", "PROFILE"], "two profiles are named 'part'"),
        (["--profile", "nothing.profile"], "there is no profile nothing.profile"),
        (["--method", "clop"], "clop"),
        (["--method", "anomalydino"], "anomalydino"),
        (["--method", "clip", "--method", "winclip", "--weights", "x"], "--weights are those of one method"),
        (["--overlap", "0.5"], "give --tile"),
        (["--queue", "0"], "queue must be at least 1"),
        (["--timeout", "0"], "timeout must be"),
        (["--webhook", "ftp://x"], "webhook"),
        (["--cors", "line.example"], "origin"),
        (["--watch", "nothing/"], "is no folder"),
        (["--api-key-file", "nothing.txt"], "cannot be read"),
    ],
)
def test_wrong_words(
    words: list[str],
    sentence: str,
    profile_file: Path,
    tiny_backbone: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr("blemish.serve.server.Server.run", lambda *_, **__: pytest.fail("it serves"))
    words = [str(profile_file) if word == "PROFILE" else word for word in words]
    code = main(["serve", *words, "--port", "0", "--backbone", str(tiny_backbone), "--device", "cpu"])
    error = capsys.readouterr().err
    assert code == 2, error
    assert sentence in error
    assert "Traceback" not in error


def test_an_address_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        assert main(["serve", "--port", str(listener.getsockname()[1])]) == 1
    assert "choose another host or port" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(extra.importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name))
    assert main(["serve"]) == 2
    assert "fastapi is not installed; run: pip install 'blemish[serve]'" in capsys.readouterr().err


def test_where_the_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "from-the-environment")
    assert read_key(None) == "from-the-environment"
    (tmp_path / "key").write_text("from-a-file\n")
    assert read_key(tmp_path / "key") == "from-a-file"
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        read_key(tmp_path / "empty")
    monkeypatch.setenv(KEY, "")
    assert read_key(None) is None
