"""Standard streams: lines answered while input stays open, and streams that are closed."""

from __future__ import annotations

import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import save_picture


def command(backbone: Path, *words: object) -> list[str]:
    options = ["--method", "clip", "--backbone", str(backbone)]
    return [sys.executable, "-m", "blemish", "detect", *map(str, words), *options]


def test_each_line_is_answered_before_the_next(pictures: Path, tiny_backbone: Path) -> None:
    process = subprocess.Popen(
        command(tiny_backbone, "-", "--json"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers: queue.Queue[bytes] = queue.Queue()
    stream = process.stdout
    threading.Thread(target=lambda: [answers.put(line) for line in stream], daemon=True).start()
    found = []
    for name in ("a.png", "gone.png", "a.png", "d.png"):  # the batch of 8 is never full
        process.stdin.write(f"{pictures / name}\n".encode())
        process.stdin.flush()
        found.append(json.loads(answers.get(timeout=120)))
    process.stdin.close()
    assert process.wait(60) == 1
    assert [Path(row["path"]).name for row in found] == ["a.png", "gone.png", "a.png", "d.png"]
    assert "does not exist" in found[1]["error"]
    assert found[0]["score"] == found[2]["score"]
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert "3 pictures, ranked only" in said
    process.stdout.close()
    process.stderr.close()


class Chunks:
    """Standard input whose reads return given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.buffer = self

    def read1(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


@pytest.mark.parametrize("divider", [b"\n", b"\r\n", b"\0"])
def test_lines_in_pieces(detect, pictures: Path, divider: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(pictures / name).encode() for name in ("a.png", "b.jpg", "d.png")]
    text = divider.join(names)  # the last one without an end
    for step in (1, 7, len(text)):
        pieces = [text[start : start + step] for start in range(0, len(text), step)]
        monkeypatch.setattr(sys, "stdin", Chunks(*pieces))
        outcome = detect("-", "--json")
        assert [json.loads(line)["path"].encode() for line in outcome.out.splitlines()] == names


def test_results_of_lines_are_kept(detect, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    lines = [f"{pictures / name}\n".encode() for name in ("a.png", "b.jpg")]
    for piece in (lines, [*lines, lines[0]]):
        monkeypatch.setattr(sys, "stdin", Chunks(*piece))
        outcome = detect("-", "--json", "--out", out, "--threshold", "0")
        assert outcome.code == 0, outcome.err
        assert len(outcome.out.splitlines()) == len(piece)
    assert len((out / "results.csv").read_text().splitlines()) == 3
    assert {path.name for path in (out / "overlay").iterdir()} == {"a.png.png", "b.jpg.png"}
    assert "3 pictures, 3 rejected" in outcome.err


def test_failures_of_lines_are_counted_once(detect, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a.png", "gone.png", "b.jpg", "lost.png")
    monkeypatch.setattr(sys, "stdin", Chunks(*(f"{pictures / name}\n".encode() for name in names)))
    outcome = detect("-", "--json")
    assert outcome.code == 1
    assert outcome.err.count("failed") == 1
    assert outcome.err.splitlines()[-1] == "2 pictures failed, 2 of 4 scored."
    assert len([line for line in outcome.err.splitlines() if ".png: " in line]) == 2


def test_an_empty_list(detect, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (("-",), ("-", "--json")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
        outcome = detect(*words)
        assert (outcome.code, outcome.err) == (2, "blemish: the list on standard input is empty\n")


def shell(line: list[str], redirect: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", f'exec "$@" {redirect}', "sh", *line], capture_output=True, text=True)


@pytest.mark.parametrize("words", [("-", "--json"), ("-",)])
def test_standard_input_is_closed(tiny_backbone: Path, words: tuple[str, ...]) -> None:
    done = shell(command(tiny_backbone, *words), "<&-")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "standard input is closed" in done.stderr


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_output_streams_are_closed(tiny_backbone: Path, tmp_path: Path, redirect: str) -> None:
    out = tmp_path / "out"
    picture = save_picture(tmp_path / "a.png")
    done = shell(command(tiny_backbone, picture, "--out", out), redirect)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads((out / "results.jsonl").read_text())["error"] is None
    assert (out / "overlay" / "a.png.png").read_bytes().startswith(b"\x89PNG")
    assert shell([sys.executable, "-m", "blemish", "methods", "--json"], redirect).returncode == 0


def test_sigterm_leaves_tables(tiny_backbone: Path, pictures: Path, tmp_path: Path) -> None:
    """What is finished is in the table, and the same command goes on."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(tiny_backbone, "-", "--json", "--out", out),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{pictures / 'a.png'}\n".encode())
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["error"] is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, said
    assert re.fullmatch(r"interrupted: \d pictures? finished and written to .*; the same command continues .*\n", said)
    assert (out / "results.csv").read_text("utf-8-sig").splitlines()[1].startswith("a.png,")


def test_a_signal_between_pictures(detect, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.outputs.results import ResultsFolder

    keep = ResultsFolder.keep
    before = signal.getsignal(signal.SIGTERM)
    out = tmp_path / "out"

    def keep_and_stop(self: ResultsFolder, *arguments: Any) -> Any:
        line = keep(self, *arguments)
        if len(self.journal.values) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return line

    monkeypatch.setattr(ResultsFolder, "keep", keep_and_stop)
    outcome = detect(pictures, "--out", out, "--batch-size", 1)
    monkeypatch.undo()
    assert outcome.code == 143
    assert "of 5 pictures finished and written to" in outcome.err
    assert "Traceback" not in outcome.err
    finished = len((out / "results.jsonl").read_text().splitlines())
    assert finished >= 2
    assert len((out / "results.csv").read_text().splitlines()) == 1 + finished
    assert signal.getsignal(signal.SIGTERM) is before
    assert f"{finished} pictures complete" in detect(pictures, "--out", out).err


@pytest.mark.parametrize("words", [("--help",), ("methods",), ("detect", "--help")])
def test_a_reader_that_goes_away(words: tuple[str, ...]) -> None:
    line = ["sh", "-c", '("$@"; echo "code $?" >&2) | true', "sh", sys.executable, "-m", "blemish", *words]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.stderr == "code 141\n"
