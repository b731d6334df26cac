"""Detectors and other processes: fork, pickle, copies."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from blemish.loading import load
from helpers import save_picture

FORK = """
import os, sys
import torch
from blemish.loading import load

torch.set_num_threads(2)  # one thread does not hang, whatever the machine
detector = load("clip", backbone=sys.argv[1], device="cpu")
detector(sys.argv[2])
for action in (lambda: detector(sys.argv[2]), lambda: load("clip", backbone=sys.argv[1], device="cpu")):
    if (child := os.fork()) == 0:
        try:
            action()
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
if (child := os.fork()) == 0:
    torch.set_num_threads(1)
    print(detector(sys.argv[2]).score == detector(sys.argv[2]).score, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_is_told_before_it_hangs(tiny_backbone: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "part.png", 0, (40, 30))
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(tiny_backbone), str(picture)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    scored, loaded, alone = run.stdout.splitlines()
    assert scored.startswith("UsageError: this process was forked from one that had loaded a model")
    assert loaded == scored
    assert alone == "True"


def test_a_detector_is_copied_and_pickled(tiny_backbone: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "part.png", 0, (40, 30))
    detector = load("clip", backbone=str(tiny_backbone), device="cpu", threshold=0.5)
    expected = detector(picture)
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        detection = other(picture)
        assert detection.score == expected.score
        assert detection.threshold == 0.5
        assert detection.provenance == expected.provenance
    assert pickle.loads(pickle.dumps(expected)).to_dict(maps=True) == expected.to_dict(maps=True)
