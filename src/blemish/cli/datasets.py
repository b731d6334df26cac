"""Commands `blemish datasets` and `blemish datasets check`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import columns, count, one_line, print_json, progress
from blemish.datasets import Account, Counts, DatasetInfo, Issue, Report, info, names
from blemish.datasets import check as check_dataset

MAX_FILES = 10
"""Files listed per kind of issue; --json lists all."""


def datasets(*, json: bool = False) -> int:
    """List the data sets that blemish can read as they are distributed.

    Args:
        json: Print one JSON object per data set instead of a table, with layouts, published counts and sources.
    """
    entries = [info(name) for name in names()]
    if json:
        for entry in entries:
            print_json(_entry(entry))
        return EXIT_OK
    rows = [("DATASET", "TITLE", "KIND", "LABELS", "CATEGORIES", "TEST", "LICENCE", "WHAT IT SHOWS")]
    for entry in entries:
        labels = [word for word, holds in (("image", entry.image_labels), ("pixel", entry.pixel_labels)) if holds]
        rows.append(
            (
                entry.name,
                entry.title,
                entry.domain,
                ", ".join(labels),
                str(len(entry.categories)) if entry.categories else "any",
                "-" if entry.domain == "any" else _published(entry.counts.get("test")),
                entry.licence or ("-" if entry.domain == "any" else "not known"),
                entry.modality,
            )
        )
    print(columns(rows, right=(4,)))
    return EXIT_OK


def check(name: str, path: Path, *, json: bool = False) -> int:
    """Account for every file of a data set: what was read, what was left out and why, what is missing or damaged.

    Known data sets are compared with their published counts. The exit code is 1 if anything differs or is damaged.

    Args:
        name: A name that `blemish datasets` lists.
        path: The folder that the data set was unpacked into, or its list.
        json: Print one JSON object instead of a table.
    """
    with contextlib.ExitStack() as stack:
        advance: list[Callable[[], None]] = []

        def on_progress(done: int, total: int) -> None:
            if not advance:
                advance.append(stack.enter_context(progress(total, "checking pictures")))
            advance[0]()

        report = check_dataset(name, path, on_progress=on_progress)
    if json:
        print_json(_report(report))
    else:
        _print(report)
    return EXIT_OK if report.ok else EXIT_FAILED


def _print(report: Report) -> None:
    print(f"{report.title} in {one_line(str(report.root))}")
    print(f"read as: {report.layout}\n")
    rows = [("SPLIT", "CATEGORY", "NORMAL", "ANOMALOUS", "WITH MASK", "PUBLISHED", "")]
    for tally in report.tallies:
        verdict = "differs" if tally.differs else "ok" if tally.published is not None else ""
        numbers = (f"{tally.normal:,}", f"{tally.anomalous:,}", f"{tally.masked:,}")
        rows.append((tally.split, tally.category or "all", *numbers, _published(tally.published), verdict))
    print(columns(rows, right=(2, 3, 4, 5)))
    for sentence in report.differences:
        print(f"\n{sentence}" if sentence is report.differences[0] else sentence)
    kinds: dict[str, list[Issue]] = {}
    for issue in report.issues:
        kinds.setdefault(issue.kind, []).append(issue)
    for kind, issues in kinds.items():
        print(f"\n{kind}: {count(len(issues), 'file')}")
        for issue in issues[:MAX_FILES]:
            print(f"  {one_line(str(issue.path))}")
        if len(issues) > MAX_FILES:
            print(f"  and {len(issues) - MAX_FILES:,} more (--json lists all)")
    _print_account(report.account)
    for sentence in report.notes:
        if not sentence.startswith("left out: "):  # the account says it
            print(f"\nnote: {sentence}")
    if not report.ok:
        print("\nthe data set differs or is damaged")
    elif _compared(report):
        print("\nall counts are as published")


def _print_account(account: Account) -> None:
    print(f"\nfiles: {len(account):,}")
    rows = [(f"{len(paths):,}", what, "") for what, paths in account.groups(account.read)]
    for what, paths in account.groups(account.left_out):
        rows.append((f"{len(paths):,}", f"left out: {what}", one_line(account.short(paths[0]))))
    print(columns(rows, right=(0,)))


def _compared(report: Report) -> bool:
    return any(tally.published is not None for tally in report.tallies)


def _published(counts: Counts | None) -> str:
    if counts is None:
        return "not known"
    return f"{counts.normal:,} + {counts.anomalous:,}"


def _entry(entry: DatasetInfo) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "aliases": list(entry.aliases),
        "domain": entry.domain,
        "modality": entry.modality,
        "licence": entry.licence,
        "home_page": entry.home_page,
        "labels": {"image": entry.image_labels, "pixel": entry.pixel_labels},
        "categories": list(entry.categories),
        "objects": {name: entry.object_names.get(name, name) for name in entry.categories},
        "layouts": [{"layout": layout.text, "assumed": layout.assumed} for layout in entry.layouts],
        "published": {split: asdict(counts) for split, counts in entry.counts.items()},
        "published_test": {name: asdict(counts) for name, counts in entry.test_counts.items()},
        "counts_source": entry.counts_source,
        "use": entry.use,
        "notes": entry.notes,
    }


def _report(report: Report) -> dict[str, Any]:
    return {
        "name": report.name,
        "title": report.title,
        "root": str(report.root),
        "layout": report.layout,
        "ok": report.ok,
        "counts": [
            asdict(tally) | {"category": tally.category or None, "differs": tally.differs} for tally in report.tallies
        ],
        "differences": list(report.differences),
        "issues": [
            asdict(issue) | {"path": str(issue.path), "category": issue.category or None} for issue in report.issues
        ],
        "notes": list(report.notes),
        "files": {
            "total": len(report.account),
            "read": {what: len(paths) for what, paths in report.account.groups(report.account.read)},
            "left_out": {what: len(paths) for what, paths in report.account.groups(report.account.left_out)},
        },
        "left_out": [{"path": str(path), "reason": reason} for path, reason in report.account.left_out.items()],
    }
