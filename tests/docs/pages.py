"""The documentation as tests read it: pages, fenced blocks, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Archived pages are kept as they are: what they describe need not exist any more.
ARCHIVED = set[str]()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted(DOCS.glob("*.md")) if path.name not in ARCHIVED),
]
_FENCE = re.compile(
    r"(?:<!-- no test: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it cannot run in a test."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found["language"] in languages:
            line = text.count("\n", 0, found.start("code")) + 1
            yield Block(page, line, found["language"], found["code"], found["reason"])


def name_of(page: Path) -> str:
    """Return the page's path below the repository, as a test's name."""
    return page.relative_to(ROOT).as_posix()
