"""`blemish datasets` and `blemish datasets check`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import columns, count, one_line, print_json, progress
from blemish.datasets import Counts, DatasetInfo, Issue, Report, info, names
from blemish.datasets import check as check_dataset

#: Files named of each kind of trouble; --json names all.
SHOWN = 10


def datasets(*, json: bool = False) -> int:
    """List the data sets that blemish reads as they are distributed.

    Args:
        json: Print one JSON object per data set instead of a table, with layouts, published counts and sources.
    """
    found = [info(name) for name in names()]
    if json:
        for one in found:
            print_json(_entry(one))
        return EXIT_OK
    rows = [("DATASET", "TITLE", "KIND", "LABELS", "CATEGORIES", "TEST", "LICENCE", "WHAT IT SHOWS")]
    for one in found:
        labels = [word for word, holds in (("image", one.image_labels), ("pixel", one.pixel_labels)) if holds]
        rows.append(
            (
                one.name,
                one.title,
                one.domain,
                ", ".join(labels),
                str(len(one.categories)) if one.categories else "any",
                "-" if one.domain == "any" else _published(one.counts.get("test")),
                one.licence or ("-" if one.domain == "any" else "not known"),
                one.modality,
            )
        )
    print(columns(rows, right=(4,)))
    return EXIT_OK


def check(name: str, path: Path, *, json: bool = False) -> int:
    """Count what is there, and name what is missing, too much, unpaired or damaged.

    The exit code is 1 where anything differs from what was published.

    Args:
        name: A data set of `blemish datasets`.
        path: The folder it was unpacked into, or its list.
        json: Print one JSON object instead of a table.
    """
    with contextlib.ExitStack() as stack:
        advance: list[Callable[[], None]] = []

        def look(done: int, total: int) -> None:
            if not advance:
                advance.append(stack.enter_context(progress(total, "looking at pictures")))
            advance[0]()

        report = check_dataset(name, path, progress=look)
    if json:
        print_json(_report(report))
    else:
        _print(report)
    return EXIT_OK if report.ok else EXIT_FAILED


def _print(report: Report) -> None:
    print(f"{report.title} in {one_line(str(report.root))}")
    print(f"read as: {report.layout}\n")
    rows = [("SPLIT", "CATEGORY", "NORMAL", "ANOMALOUS", "WITH MASK", "PUBLISHED", "")]
    for one in report.tallies:
        verdict = "differs" if one.differs else "ok" if one.published is not None else ""
        numbers = (f"{one.normal:,}", f"{one.anomalous:,}", f"{one.masked:,}")
        rows.append((one.split, one.category or "all", *numbers, _published(one.published), verdict))
    print(columns(rows, right=(2, 3, 4, 5)))
    for sentence in report.differences:
        print(f"\n{sentence}" if sentence is report.differences[0] else sentence)
    kinds: dict[str, list[Issue]] = {}
    for issue in report.issues:
        kinds.setdefault(issue.kind, []).append(issue)
    for kind, issues in kinds.items():
        print(f"\n{kind}: {count(len(issues), 'file')}")
        for issue in issues[:SHOWN]:
            print(f"  {one_line(str(issue.path))}")
        if len(issues) > SHOWN:
            print(f"  and {len(issues) - SHOWN:,} more (--json names all)")
    for sentence in report.notes:
        print(f"\nnote: {sentence}")
    if not report.ok:
        print("\nnot as it should be")
    elif _compared(report):
        print("\neverything is as published")


def _compared(report: Report) -> bool:
    return any(one.published is not None for one in report.tallies)


def _published(counts: Counts | None) -> str:
    if counts is None:
        return "not known"
    return " + ".join("?" if number is None else f"{number:,}" for number in (counts.normal, counts.anomalous))


def _counts(counts: Counts | None) -> dict[str, int | None] | None:
    return None if counts is None else {"normal": counts.normal, "anomalous": counts.anomalous}


def _entry(one: DatasetInfo) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "aliases": list(one.aliases),
        "domain": one.domain,
        "modality": one.modality,
        "licence": one.licence,
        "home_page": one.home_page,
        "labels": {"image": one.image_labels, "pixel": one.pixel_labels},
        "categories": list(one.categories),
        "objects": {name: one.object_names.get(name, name) for name in one.categories},
        "layouts": [{"layout": layout.text, "assumed": layout.assumed} for layout in one.layouts],
        "published": {split: _counts(counts) for split, counts in one.counts.items()},
        "published_test": {name: _counts(counts) for name, counts in one.test_counts.items()},
        "counts_source": one.counts_source,
        "use": one.use,
        "notes": one.notes,
    }


def _report(report: Report) -> dict[str, Any]:
    return {
        "name": report.name,
        "title": report.title,
        "root": str(report.root),
        "layout": report.layout,
        "ok": report.ok,
        "counts": [
            {
                "split": one.split,
                "category": one.category or None,
                "normal": one.normal,
                "anomalous": one.anomalous,
                "masked": one.masked,
                "published": _counts(one.published),
                "differs": one.differs,
            }
            for one in report.tallies
        ],
        "differences": list(report.differences),
        "issues": [{"kind": i.kind, "path": str(i.path), "category": i.category or None} for i in report.issues],
        "notes": list(report.notes),
    }
