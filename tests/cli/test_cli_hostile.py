"""What names of files and words inside them do to the terminal: nothing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from blemish.cli.terminal import escape
from helpers import save_picture
from scan_helpers import pack

#: Clears the screen, renames the window, turns the direction of writing, and begins a line of its own.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\nblemish: all is well"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names are not possible there")


def assert_harmless(text: str) -> None:
    for letter in ("\x1b", "\x07", "\x9b", "\u202e"):
        assert letter not in text, text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    save_picture(path / "test" / "good" / "x.png").rename(path / "test" / "good" / f"{EVIL}.png")
    (path / "test" / "good" / f"{EVIL}2.png").write_bytes(b"no picture")
    save_picture(path / EVIL / "b.png")
    return path


def test_escape() -> None:
    assert escape("a\x1b[2J\tb\nä\u202e") == "a\\x1b[2J\tb\nä\\u202e"


def test_detect(detect, run, folder: Path, tmp_path: Path) -> None:
    for words in ((), ("--out", tmp_path / EVIL), ("--json",)):
        outcome = detect(folder / "test" / "good", *words)
        assert outcome.code == 1
        assert_harmless(outcome.out + outcome.err)
        if "--out" not in words:  # the user's own word
            assert "\nblemish: all is well" not in outcome.out + outcome.err


def test_scan(run, folder: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    pack(tmp_path / "evil.tar", [(f"../{EVIL}3.png", b"no picture"), (f"{EVIL}.txt", b"")])
    for words in (("--out", tmp_path / "out"), ("--out", tmp_path / "out", "--json"), ("--out", tmp_path / EVIL)):
        options = ("--method", "clip", "--backbone", tiny_backbone, "--device", "cpu")
        outcome = run("scan", folder, tmp_path / "evil.tar", *words, *options)
        assert outcome.code == 1
        assert_harmless(outcome.out + outcome.err)
        if EVIL not in str(words[1]):  # the user's own word
            assert "3.png" in outcome.out + outcome.err
            assert "\nblemish: all is well" not in outcome.out + outcome.err


def test_other_commands(run, folder: Path, tmp_path: Path) -> None:
    picture = next((folder / "test" / "good").glob("*well.png"))
    shutil.copy(picture, tmp_path / f"{EVIL}.profile")
    shutil.copy(picture, tmp_path / f"{EVIL}.safetensors")
    table = tmp_path / "list.csv"
    table.write_text("path,label\nmissing\x1b[2J.png,0\n", encoding="utf-8")
    for words in (
        ("info", picture),
        ("info", tmp_path / f"{EVIL}.profile"),
        ("info", EVIL),
        ("weights", "show", tmp_path / f"{EVIL}.safetensors"),
        ("weights", "import", tmp_path / f"{EVIL}.safetensors", "--out", tmp_path / "x.safetensors"),
        ("datasets", "check", "folder", folder),
        ("datasets", "check", "csv", table),
        ("train", "april-gan", "--data", folder / EVIL, "--out", tmp_path / "y.safetensors"),
        ("detect", folder / EVIL / EVIL),
        (EVIL,),
    ):
        outcome = run(*words)
        assert_harmless(outcome.out + outcome.err)
        assert outcome.out + outcome.err, words
        assert words == (EVIL,) or "\nblemish: all is well" not in outcome.err
