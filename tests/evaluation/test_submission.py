"""Files for the server of MVTec AD 2: written, checked, packed; read again by other programs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import blemish
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.evaluation import submission
from blemish.evaluation.submission import check_submission, pack_submission, write_half_tiff, write_submission
from helpers import save_picture


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two objects with two pictures in each private split."""
    monkeypatch.setattr(submission, "PICTURES", {"can": 2, "rice": 2})
    for seed, name in enumerate(("can", "rice")):
        for split, ending in submission.SPLITS.items():
            for number in range(2):
                save_picture(tmp_path / "data" / name / split / f"{number:03}_{ending}.png", seed=seed + number)
    return tmp_path / "data"


@pytest.fixture
def detector(backbone: Backbone) -> Detector:
    return blemish.load("clip", backbone=backbone, device="cpu", threshold=0.5)


def test_written_checked_and_packed(data: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "submission"
    write_submission({"can": detector, "rice": detector}, data, out)
    assert check_submission(out, data) == []
    picture = data / "can" / "test_private_mixed" / "001_mixed.png"
    detection = detector(picture)
    tifffile = pytest.importorskip("tifffile")
    stored = tifffile.imread(out / "anomaly_images" / "can" / "test_private_mixed" / "001_mixed.tiff")
    assert stored.dtype == np.float16
    assert np.array_equal(stored, detection.anomaly_map.astype(np.float16))
    with Image.open(out / "anomaly_images_thresholded" / "can" / "test_private_mixed" / "001_mixed.png") as mask:
        assert np.array_equal(np.asarray(mask), np.where(detection.mask, 255, 0))  # type: ignore[arg-type]
    with tarfile.open(pack_submission(out)) as archive:
        assert len(archive.getnames()) == 16
        assert "submission/anomaly_images/rice/test_private/000_regular.tiff" in archive.getnames()


def test_what_is_there_is_not_scored_again(data: Path, detector: Detector, tmp_path: Path, passes: list[int]) -> None:
    write_submission(lambda name: detector, data, tmp_path / "out")
    assert sum(passes) == 8
    (tmp_path / "out" / "anomaly_images" / "can" / "test_private" / "000_regular.tiff").unlink()
    steps: list[None] = []
    write_submission(lambda name: detector, data, tmp_path / "out", on_progress=lambda: steps.append(None))
    assert sum(passes) == 9
    assert len(steps) == 8


def test_the_checker_finds_what_the_server_refuses(data: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert check_submission(out)[0] == f"{out} is missing."
    write_submission(lambda name: detector, data, out)
    maps, masks = out / "anomaly_images", out / "anomaly_images_thresholded"
    Image.new("L", (9, 9), 7).save(masks / "can" / "test_private" / "000_regular.png")
    Image.new("RGB", (9, 9)).save(masks / "can" / "test_private" / "001_regular.png")
    Image.new("F", (9, 9)).save(maps / "rice" / "test_private" / "000_regular.tiff")
    (maps / "rice" / "test_private" / "001_regular.tiff").write_bytes(b"II*\0")
    write_half_tiff(maps / "rice" / "test_private_mixed" / "000_mixed.tiff", np.zeros((3, 4), np.float32))
    (maps / "can" / "test_private_mixed" / "001_mixed.tiff").unlink()
    (out / "notes.txt").write_text("x")
    problems = "\n".join(check_submission(out, data))
    assert f"{out} must not hold notes.txt." in problems
    assert "000_regular.png must hold 0 and 255 only, not 7." in problems
    assert "001_regular.png has to be a grey picture, not RGB." in problems
    assert "000_regular.tiff is not a TIFF of one float16 value per pixel." in problems
    assert "001_regular.tiff cannot be read" in problems
    assert "000_mixed.tiff is 4 x 3 pixels, and its picture" in problems
    assert "lacks 001_mixed.tiff." in problems
    with pytest.raises(blemish.UsageError, match="and 5 more"):
        pack_submission(out)


def test_what_cannot_be_submitted(data: Path, backbone: Backbone, detector: Detector, tmp_path: Path) -> None:
    ranking = blemish.load("clip", backbone=backbone, device="cpu")
    with pytest.raises(blemish.UsageError, match="the detector of can has no threshold"):
        write_submission(lambda name: ranking, data, tmp_path / "out")
    (data / "rice" / "test_private" / "001_regular.png").unlink()
    with pytest.raises(blemish.UsageError, match="has to hold 2 pictures, but there are 1"):
        write_submission(lambda name: detector, data, tmp_path / "out")
    with pytest.raises(blemish.OutputError, match="the end of float16"):
        write_half_tiff(tmp_path / "x.tiff", np.full((2, 2), 1e6, np.float32))


def test_the_numbers_of_pictures_are_those_of_the_server() -> None:
    assert sum(submission.PICTURES.values()) == 2045
    from blemish.datasets import info

    assert set(submission.PICTURES) == set(info("mvtec-ad-2").categories)
