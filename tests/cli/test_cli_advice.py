"""One line after a plain ranking says what would help; nothing is said where it would not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish.cli.advice import look_alike
from helpers import save_picture


def drawn(folder: Path, count: int, *, alike: bool) -> list[str]:
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = np.full((40, 60, 3), 200.0) if alike else np.full((40, 60, 3), rng.uniform(0, 255, 3))
        y, x = (10, 20) if alike else rng.integers(0, 25, 2)
        pixels[y : y + 15, x : x + 15] = 40 if alike else rng.uniform(0, 255, 3)
        path = folder / f"{number}.png"
        folder.mkdir(exist_ok=True)
        Image.fromarray((pixels + rng.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)).save(path)
        paths.append(str(path))
    return paths


def test_pictures_that_look_alike(tmp_path: Path) -> None:
    assert look_alike(drawn(tmp_path / "alike", 8, alike=True))
    assert not look_alike(drawn(tmp_path / "mixed", 8, alike=False))
    assert not look_alike([str(save_picture(tmp_path / "a.png")), str(tmp_path / "missing.png")])


def test_a_plain_ranking(detect, tmp_path: Path) -> None:
    drawn(tmp_path / "alike", 8, alike=True)
    outcome = detect(tmp_path / "alike")
    assert "look alike, so --method musc" in outcome.out
    assert "blemish fit GOOD" in outcome.out
    for words in (("--threshold", "0.5"), ("--json",), ("--format", "csv")):
        outcome = detect(tmp_path / "alike", *words)
        assert "What would help" not in outcome.out + outcome.err


def test_few_pictures(detect, pictures: Path) -> None:
    out = detect(pictures).out
    assert "blemish fit GOOD" in out
    assert "musc" not in out
