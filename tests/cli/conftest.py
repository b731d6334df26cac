"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from blemish.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: `run("detect", folder, "--json")`."""
    monkeypatch.delenv("BLEMISH_DEBUG", raising=False)

    def call(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def detect(run: Run, tiny_backbone: Path) -> Run:
    """Run `blemish detect` with the stand-in backbone and a method that needs no weights."""

    def call(*words: object) -> Outcome:
        return run("detect", *words, "--method", "clip", "--backbone", tiny_backbone, "--device", "cpu")

    return call
