"""The stages of the Ray pipeline, called one after another as Ray does; Ray itself is not needed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import BlemishError, OutputError, UsageError
from blemish.scan import ray_stages
from blemish.scan.ray_stages import PartScorer, facts_of, read_part, write_rows
from blemish.scan.rays import _require_answer
from blemish.scan.stores import StoreError
from helpers import save_picture
from scan_helpers import pack, rows_of


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    files = [(f"{n}.png", save_picture(tmp_path / "x" / f"{n}.png", n).read_bytes()) for n in range(6)]
    files[2] = ("2.png", b"no picture")
    return pack(tmp_path / "a.tar", [*files, ("copy.png", files[1][1])])


def pipeline(scan: Any) -> None:
    plan = str(scan.plan.path)
    scorer = PartScorer(scan.work, plan)
    for number in scan.todo.copy():
        row = write_rows(scorer(read_part({"part": number, "error": ""}, plan=plan)), work=scan.work)
        scan.take(facts_of(row), 0)


def test_stages_give_the_rows_of_one_process(begin, shard: Path, folder: Path, tmp_path: Path) -> None:
    for name, source in (("shard", shard), ("tree", folder)):
        with begin(source, out=f"{name}-single") as scan:
            scan.execute()
        with begin(source, out=f"{name}-stages") as scan:
            assert bool(read_part({"part": 0, "error": ""}, plan=str(scan.plan.path))["payload"]) == (name == "shard")
            pipeline(scan)
            assert scan.todo == []
        assert rows_of(tmp_path / f"{name}-stages") == rows_of(tmp_path / f"{name}-single")


def test_a_large_part_is_read_where_it_is_scored(
    begin, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_stages, "MAX_PAYLOAD", 1000)
    with begin(shard) as scan:
        assert read_part({"part": 0, "error": ""}, plan=str(scan.plan.path))["payload"] == b""
        pipeline(scan)
    assert len(rows_of(tmp_path / "out")) == 7


def test_a_worker_that_computes_otherwise_scores_nothing(begin, shard: Path) -> None:
    with begin(shard) as scan:
        options = scan.work.detectors
        other = replace(scan.work, detectors=replace(options, load={**options.load, "precision": "bfloat16"}))
        scorer = PartScorer(other, str(scan.plan.path))
        row = write_rows(scorer(read_part({"part": 0, "error": ""}, plan=str(scan.plan.path))), work=scan.work)
        with pytest.raises(UsageError, match=r"computes otherwise .*bfloat16.* give --precision float32"):
            facts_of(row)


def test_an_error_passes_through_the_stages(begin, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with begin(shard) as scan:
        (scan.folder.path / "parts").mkdir()
        (scan.folder.path / "parts" / "part-000000.parquet").mkdir()
        with pytest.raises(OutputError, match="a file is in the way of a folder"):
            pipeline(scan)

        def fail(items: object) -> None:
            raise StoreError("the store is down")

        monkeypatch.setattr(ray_stages, "read_items", fail)
        with pytest.raises(StoreError, match="the store is down"):
            pipeline(scan)
    row = {"part": 0, "facts": "", "error": '["OtherError", "of a later version"]'}
    with pytest.raises(BlemishError, match="of a later version"):
        facts_of(row)


def test_reading_and_writing_load_no_pytorch() -> None:
    code = "import sys, blemish.scan.ray_stages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "cluster", "127.0.0.1:port", "127.0.0.1:99999"]
)
def test_nobody_listens(address: str) -> None:
    with pytest.raises(UsageError, match="there is no Ray cluster at"):
        _require_answer(address)
