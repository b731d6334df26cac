"""Few-shot: what references do to a score, what is recorded of them, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import few_shot
from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import ImageError, UsageError
from blemish.image_io import read_image
from blemish.loading import load
from blemish.methods import checkpoints, create, musc
from blemish.methods.anomalydino import PatchBank
from blemish.methods.base import FewShotMethod, MemoryBank
from helpers import save_picture


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with three reference pictures."""
    for number in range(3):
        save_picture(tmp_path / "good" / f"{number}.png", 10 + number)
    return tmp_path / "good"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return save_picture(tmp_path / "part.png", 1)


def test_is_what_the_method_says_of_the_same_memory(backbone: Backbone, good: Path, part: Path) -> None:
    detector = load("winclip", backbone=backbone, references=str(good), device="cpu", precision="float32")
    detection = detector(part)
    method = create("winclip", backbone)
    assert isinstance(method, FewShotMethod)
    with torch.no_grad():

        def encode(*paths: Path):
            pixels = backbone.preprocess([read_image(path).image for path in paths], method.computation.size)
            return backbone.encode_image(pixels, method.memory_request, method.computation)

        memory = method.extract_memory(encode(*sorted(good.iterdir())))
        expected = method.score(encode(part), method.text_features(["object"])[0], memory)
    assert detection.score == pytest.approx(expected.score.item(), abs=1e-6)
    assert detection.map_range == method.memory_map_range


@pytest.mark.parametrize("method", ["winclip", "april-gan"])
def test_a_reference_itself_is_closer_than_any_other(
    backbone: Backbone, good: Path, part: Path, tmp_path: Path, method: str
) -> None:
    learnt = None
    if method == "april-gan":
        learnt = tmp_path / "learnt.safetensors"
        checkpoints.save(create(method, backbone), learnt)
    words = {"backbone": backbone, "weights": learnt, "device": "cpu"}
    alone, shown = load(method, **words), load(method, **words, references=[part])
    others = load(method, **words, references=str(good))
    assert shown(part).peak < others(part).peak
    # Compared with itself a picture has no distance to add to the zero-shot map.
    np.testing.assert_allclose(shown(part).anomaly_map, alone(part).anomaly_map, atol=1e-3)


def test_batches_and_order_make_no_difference(backbone: Backbone, good: Path, part: Path, monkeypatch) -> None:
    paths = sorted(good.iterdir())
    whole = load("winclip", backbone=backbone, references=paths, device="cpu")
    monkeypatch.setattr(few_shot, "BATCH", 2)
    parts = load("winclip", backbone=backbone, references=paths[::-1], device="cpu")
    assert parts(part).score == pytest.approx(whole(part).score, abs=1e-6)
    assert parts.provenance == whole.provenance


def test_provenance_counts_and_knows_the_pixels(backbone: Backbone, good: Path, tmp_path: Path) -> None:
    def made(*references: Path):
        return load("winclip", backbone=backbone, references=list(references), device="cpu").provenance

    first, second, third = sorted(good.iterdir())
    assert made(first, second).references == 2
    assert len(made(first).references_fingerprint or "") == 16
    assert made(first).references_fingerprint != made(second).references_fingerprint
    assert made(first).references_fingerprint != made(first, third).references_fingerprint
    copy = tmp_path / "renamed.png"
    copy.write_bytes(first.read_bytes())
    assert made(copy) == made(first)
    without = load("winclip", backbone=backbone, device="cpu").provenance
    assert (without.references, without.references_fingerprint) == (0, None)


def test_a_method_without_memory(backbone: Backbone, good: Path) -> None:
    with pytest.raises(UsageError, match=r"clip takes no reference pictures; .* winclip$"):
        load("clip", backbone="this would be a download", references=str(good))
    with pytest.raises(UsageError, match="clip has no memory"):
        TorchEngine(create("clip", backbone)).build_memory_bank([torch.zeros(1, 3, 518, 518)], num_images=1)


def test_no_references(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no reference pictures"):
        load("winclip", backbone=backbone, references=[])
    with pytest.raises(UsageError, match="does not exist"):
        load("winclip", backbone=backbone, references=str(tmp_path / "gone"))


def test_a_broken_reference_fails_all(backbone: Backbone, good: Path) -> None:
    (good / "1.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"a reference picture cannot be used: .*1\.png") as raised:
        load("winclip", backbone=backbone, references=str(good))
    assert raised.value.path == str(good / "1.png")


def test_a_small_set_is_augmented(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save_picture(tmp_path / f"{number}.png", number) for number in range(6)]
    monkeypatch.setattr(few_shot, "BATCH", 1)
    for name, value in (("ROTATION_PROBE_IMAGES", 1), ("MAX_AUGMENTED_IMAGES", 3)):
        monkeypatch.setattr(musc, name, value)
    method = create("musc", backbone, {"turns": 4, "grids": 2})
    assert isinstance(method, musc.MuSc)
    detector = Detector(TorchEngine(method))
    rotated = iter([False, True, True])
    monkeypatch.setattr(
        method,
        "augmentations",
        lambda pixels, encode: method.rotation_augmentations if next(rotated) else method.grid_augmentations,
    )
    banks = [
        detector.with_set(paths).memory,
        detector.with_set(paths).memory,
        detector.with_references(paths).memory,
    ]
    monkeypatch.setattr(musc.MuSc, "max_sampled_images", 5)
    banks.append(detector.with_references(paths).memory)

    def rows(bank: MemoryBank | None) -> tuple[int, int, int]:
        assert bank is not None
        return bank.references, bank.images, len(next(iter(bank.taps.values()))) // bank.images

    alone = rows(banks[-1])[2]
    assert list(map(rows, banks)) == [(3, 3, 2 * alone), (3, 3, 4 * alone), (6, 6, 4 * alone), (6, 6, alone)]
    assert detector.memory is None  # no detector is changed


def test_a_sample_is_of_the_whole_set(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's first pictures are often of one kind: all the good ones."""
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number:02}.png")
        Image.new("RGB", (40, 40), (20 * number, 0, 0)).save(paths[-1])
    monkeypatch.setattr(few_shot, "BATCH", 2)
    monkeypatch.setattr(musc, "MAX_AUGMENTED_IMAGES", 4)
    detector = Detector(TorchEngine(create("musc", backbone, {"grids": 2})))
    reds: list[int] = []
    prepare = detector.engine.preprocess

    def preprocess(image: Image.Image) -> torch.Tensor:
        reds.append(int(np.asarray(image)[0, 0, 0]) // 20)
        return prepare(image)

    monkeypatch.setattr(detector.engine, "preprocess", preprocess)
    first = detector.with_set(paths).provenance
    assert first.references == 4
    assert len(set(reds)) < 12  # a few are read ahead
    assert min(reds) < 6 <= max(reds)
    assert detector.with_set(paths).provenance == first


@pytest.mark.parametrize("method", ["anomalydino", "subspacead"])
def test_methods_that_only_compare(backbone: Backbone, good: Path, part: Path, method: str) -> None:
    detector = load(method, backbone=backbone, device="cpu", precision="float32")
    with pytest.raises(
        UsageError, match=f"{method} compares pictures with flawless ones, without which it has no score"
    ):
        detector(part)
    compared = detector.with_references(str(good))
    detection = compared(part)
    assert compared.provenance.references == 3
    assert detection.anomaly_map.shape == detection.size[::-1]
    # rotated copies of a reference are in the memory, and the reference itself
    assert compared(sorted(good.iterdir())[0]).score < detection.score


def test_references_of_several_shapes(backbone: Backbone, good: Path, part: Path) -> None:
    """Pictures that keep their aspect ratio have different numbers of patches."""
    for number, size in enumerate([(80, 40), (40, 90)]):
        Image.new("RGB", size, (200, 30, number)).save(good / f"long{number}.png")
    config = {"size": 222, "rotation": False}
    detector = load("anomalydino", backbone=backbone, config=config, device="cpu", precision="float32")
    bank = detector.with_references(str(good)).memory
    assert isinstance(bank, PatchBank)
    assert bank.images == 5
    assert sorted(bank.counts) == [12, 12, 12, 18, 18]
    assert 0 < detector.with_memory(bank)(part).score <= 1


def test_only_transductive_methods_sample_a_set(backbone: Backbone, good: Path) -> None:
    detector = load("winclip", backbone=backbone, device="cpu")
    with pytest.raises(UsageError, match="winclip does not compare the pictures of a set"):
        detector.with_set(sorted(good.iterdir()))
