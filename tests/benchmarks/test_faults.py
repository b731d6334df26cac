"""The fault bench: its faults happen, what is not whole is noticed, and its table adds up."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import save_picture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_another_one(tmp_path: Path, seed: int) -> None:
    import fault_files

    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    fault_files.alter(file, random.Random(seed))
    assert file.read_bytes() != bytes(100)


def test_killed_at_an_operation(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[2])
import fault_files
fault_files.kill_at(sys.argv[1], 2)
for name in "ab":
    open(f"{sys.argv[1]}/{name}", "w").close()
"""
    benchmarks = Path(__file__).resolve().parents[2] / "benchmarks"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(benchmarks)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_not_whole(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import fault_files

    whole, cut = save_picture(tmp_path / "whole.png"), save_picture(tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:100])
    (problem,) = fault_files.not_whole(tmp_path, whole)
    assert problem.startswith("cut.png is not whole")


def test_the_first_difference() -> None:
    import fault_files

    assert fault_files.difference({"a": [1, 2]}, {"a": [1, 3]}) == "/a/1: 2 and 3"


def test_the_table_adds_up() -> None:
    from faults import table

    rows = [
        {"fault": "SIGKILL", "command": "scan", "tried": 2, "lost": 0, "wrong": 1},
        {"fault": "SIGKILL", "command": "scan", "tried": 3, "lost": 1, "wrong": 0},
        {"fault": "network", "command": "weights pull", "tried": 1, "lost": 0, "wrong": 0},
    ]
    lines = table(rows).splitlines()
    assert lines[2:] == [
        "| SIGKILL | `scan` | 5 | 1 | 1 |",
        "| network | `weights pull` | 1 | 0 | 0 |",
        "| **all** | | **6** | **1** | **1** |",
    ]
