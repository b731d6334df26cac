"""Every stored case of the authors' own code, through blemish's public classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import run

DATA = Path(__file__).resolve().parent.parent / "data" / "parity"
CASES = run.find(DATA)


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("folder", CASES, ids=[str(path.relative_to(DATA)) for path in CASES])
def test_case(folder: Path) -> None:
    wrong = [row for row in run.check(folder) if not row.ok]
    assert not wrong, "\n".join(f"{r.output}: difference {r.difference:.2e}, allowed {r.allowed:.2e}" for r in wrong)
