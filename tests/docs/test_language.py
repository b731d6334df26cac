"""Retired words stay out of `src/` and `benchmarks/`, and the names that docs/glossary.md gives are used instead.

Each rule says what to write in place of the word. Each exception says why the word is right there.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

SOURCES = sorted((ROOT / "src" / "blemish").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))

#: Words in docstrings, comments, messages and names, whatever their case; with what to write instead.
WORDS = {
    r"told": "given, received",
    r"(?<!\.)(?<!def )tells?(?! apart)": "says, gives, passes",
    r"meets?|meeting|met": "set_references, compares with",
    r"remember(s|ed|ing)?": "memory bank, stores",
    r"rides?|riders?|rode": "shares a pass",
    r"Behind": "BackgroundWriter",
    r"side by side": "in parallel",
    r"(?<!word )in words(?! if|:)": "as text",
    r"embedded": "built-in",
    r"recipes?": "config",
    r"mutual(?!_| scoring)": "transductive",
    r"peers?": "references",
    r"handed (out|over|around|on)": "returned, passed",
    r"Schools?|Pupils?": "teacher, student",
    r"map of the house|front door": "the package, the public interface",
    r"pictures? in pieces": "tiles",
}
#: Names of variables, functions, classes and modules.
NAMES = {
    "again": "recompute",
    "ahead": "prefetch",
    "bands": "row reader",
    "behind": "background_writer",
    "eyes": "init",
    "far": "ood",
    "found": "a word for what it holds",
    "job": "run",
    "keeper": "result writer",
    "least": "min_*",
    "made": "a word for what it holds",
    "most": "max_*",
    "one": "a word for what it holds",
    "piece": "tile",
    "places": "RunPaths",
    "room": "budget",
    "said": "a word for what it holds",
    "seen": "a word for what it holds",
    "shown": "a word for what it holds",
    "those": "a word for what it holds",
    "turned": "rotated",
    "views": "rotations, grids",
    "wanted": "a word for what it holds",
}
#: (file below src/blemish, word) and why the word is right there.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("methods/checkpoints.py", "embedded"): "files written by earlier versions name the built-in backbone so",
    ("methods/checkpoints.py", "recipe"): "files written by earlier versions name the config so",
    ("clip/load.py", "embedded"): "files written by earlier versions name the built-in backbone so",
    ("methods/musc.py", "mutual"): "the paper's own term",
}


def _exempt(path: Path, word: str) -> bool:
    return (path.as_posix().rpartition("src/blemish/")[2], word) in EXCEPTIONS


def _words(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    for word, instead in WORDS.items():
        for found in re.finditer(rf"(?<![A-Za-z]){word}(?![A-Za-z])", text, 0 if word[0].isupper() else re.I):
            if not _exempt(path, found[0].lower()):
                yield f"{path.name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}: {instead}"


def _names(path: Path) -> Iterator[str]:
    with io.StringIO(path.read_text(encoding="utf-8")) as stream:
        for token in tokenize.generate_tokens(stream.readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                name = token.string.lower().strip("_")
                if name in NAMES and not _exempt(path, name):
                    yield f"{path.name}:{token.start[0]}: name {token.string!r}: {NAMES[name]}"


@pytest.mark.parametrize("path", [*SOURCES, *BENCHMARKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_retired_words(path: Path) -> None:
    problems = [*_words(path), *_names(path)]
    assert not problems, "\n".join(problems)


def test_exceptions_are_needed() -> None:
    for (name, word), reason in EXCEPTIONS.items():
        text = (ROOT / "src" / "blemish" / name).read_text(encoding="utf-8")
        assert re.search(rf"\b_*{word}\b", text, re.I), f"{word} is not in {name} any more"
        assert reason


def test_no_path_or_module_has_a_retired_name() -> None:
    assert not [path for path in SOURCES if path.stem.strip("_") in NAMES]
