"""The stored parity cases, through the parity adapter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = sorted((HERE.parent / "data" / "metrics").iterdir())


def adapter():
    spec = importlib.util.spec_from_file_location("parity_metrics", HERE.parent / "parity" / "metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case):
    rows = adapter().check(case)
    assert len(rows) == 22
    assert [row for row in rows if not row[3]] == []
