"""Compares blemish with what the methods' authors' own code computes, through blemish's public classes.

    python tests/parity/run.py FOLDER [--method NAME] [--verbose]

FOLDER is one case or holds cases at any depth. Prints every output's largest difference against its tolerance (all of
them with --verbose, else the misses and the closest) and exits with 1 if anything is outside, 2 if there is no case.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch
from cases import Case, Row


def find(folder: Path, method: str | None = None) -> list[Path]:
    """The folders below `folder` that hold a case, sorted; only a method's if one is named."""
    found = sorted(path.parent for path in folder.rglob("case.json"))
    return [path for path in found if method is None or Case(path).method == method]


def check(folder: Path) -> list[Row]:
    """Runs one case: a row for each expected output."""
    case = Case(folder)
    if case.data.get("kind") == "metrics":
        metrics = importlib.import_module("metrics")
        return [Row(*row) for row in metrics.check(folder)]
    adapter = importlib.import_module(f"adapters.{case.method.replace('-', '_')}")
    torch.manual_seed(0)
    exceptions = adapter.exceptions(case) if hasattr(adapter, "exceptions") else None
    return case.compare(adapter.outputs(case), exceptions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    folders = find(options.folder, options.method)
    if not folders:
        print(f"there is no case in {options.folder}", file=sys.stderr)
        return 2
    misses = 0
    for folder in folders:
        try:
            rows = check(folder)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("adapters"):
                raise
            misses += 1
            print(f"MISS {folder}  there is no adapter for {Case(folder).method}")
            continue
        wrong = [row for row in rows if not row.ok]
        misses += len(wrong)
        print(f"{'ok  ' if not wrong else 'MISS'} {folder}  {len(rows) - len(wrong)}/{len(rows)} outputs")
        closest = max(rows, key=lambda row: row.difference / (row.allowed or 1))
        for row in rows if options.verbose else wrong or [closest]:
            mark = "    " if row.ok else "  ! "
            print(f"{mark}{row.output:<36} difference {row.difference:.2e}  allowed {row.allowed:.2e}")
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main())
