"""`blemish scan`, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import save_picture
from scan_helpers import rows_of

BASE = ("--method", "clip", "--device", "cpu", "--precision", "float32", "--part-size", "3")


@pytest.fixture
def scan(run, tiny_backbone: Path):
    def call(*words: object):
        return run("scan", *words, *BASE, "--backbone", tiny_backbone)

    return call


def test_a_scan_and_its_continuation(scan, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no")
    (pictures / "notes.md").write_text("none")
    outcome = scan(pictures, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "7 pictures in 3 parts: 0 with label 1, 1 failed." in outcome.out
    assert "7 pictures in 7 source files: 3 parts of up to 3." in outcome.err
    assert "Not read: 1 .md." in outcome.err
    assert "1 picture failed (--retry-failed repeats them):\n  " in outcome.err
    before = rows_of(tmp_path / "out")
    save_picture(pictures / "broken.png", 5)
    outcome = scan(pictures, "--out", tmp_path / "out", "--retry-failed", "--json")
    assert outcome.code == 0
    summary = json.loads(outcome.out)
    assert summary["this_run"]["pictures"] == 1
    assert (summary["pictures"], summary["failed"], summary["first_failures"]) == (7, 0, [])
    assert "The source changed since this scan began" in outcome.err
    after = rows_of(tmp_path / "out")
    assert [row for row in after if "broken" not in row["path"]] == [
        row for row in before if "broken" not in row["path"]
    ]
    outcome = scan(pictures, "--out", tmp_path / "out")
    assert "3 parts finished, 7 pictures: skipped." in outcome.err


def test_an_array_of_processes(scan, pictures: Path, tmp_path: Path) -> None:
    for share in ("1/2", "2/2"):
        outcome = scan(pictures, "--out", tmp_path / "out", "--shard", share)
        assert outcome.code == 0
        assert f"of shard {share}" in outcome.out
    assert [row["item"] for row in rows_of(tmp_path / "out")] == list(range(6))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no pictures are given"),
        (("-",), "write it to a file"),
        (("{p}", "--profile-from", "folder"), "give the profiles with --profile"),
        (("{p}", "--profile", "no.profile"), "does not exist; make it with `blemish fit`"),
        (("{p}", "--save", "regions"), "--save does not know 'regions'"),
        (("{p}", "--save", "mask"), "masks need a threshold"),
        (("{p}", "--part-size", "0"), "a part holds 1 to 100,000 pictures"),
        (("{p}", "--shard", "one"), "--shard must be the number"),
        (("{p}", "--method", "musc"), "give --reference"),
        (("{p}", "--overlap", "0.5"), "give --tile"),
        (("{p}", "--workers", "2"), "give --ray, too"),
        (("{p}", "--ray", "auto", "--shard", "1/2"), "leave out --shard"),
        (("{p}/no",), "does not exist"),
        (("s9://bucket/a",), "knows no store s9://"),
    ],
)
def test_what_cannot_work_is_a_sentence(
    run, pictures: Path, tmp_path: Path, tiny_backbone: Path, words: tuple[str, ...], sentence: str
) -> None:
    given = [word.replace("{p}", str(pictures)) for word in words]
    options = [] if {"--method", "--profile"} & set(words) else ["--method", "clip"]
    outcome = run("scan", *given, "--out", tmp_path / "out", "--backbone", tiny_backbone, *options)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_scan_that_is_stopped_goes_on(scan, tmp_path: Path, tiny_backbone: Path) -> None:
    """By SIGTERM; benchmarks/scan_kill.py does the same with SIGKILL, many times."""
    folder = tmp_path / "photos"
    for seed in range(60):
        save_picture(folder / f"{seed}.png", seed)
    out = tmp_path / "out"
    words = ["scan", folder, "--out", out, *BASE, "--backbone", tiny_backbone]
    process = subprocess.Popen(
        [sys.executable, "-m", "blemish", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("parts/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    finished = len(list(out.glob("parts/*.parquet")))
    assert 1 <= finished < 20
    assert b"of 20 parts finished and written to" in err
    assert b"Traceback" not in err
    assert scan(folder, "--out", out).code == 0
    assert scan(folder, "--out", tmp_path / "unbroken").code == 0
    assert rows_of(out) == rows_of(tmp_path / "unbroken")
