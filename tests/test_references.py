"""Few-shot: what references do to a score, what is recorded of them, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import references as room
from blemish.clip import Backbone, load_backbone
from blemish.detector import load
from blemish.engine import TorchEngine
from blemish.errors import ImageError, UsageError
from blemish.image_io import read_image
from blemish.methods import create, weights
from blemish.methods.base import FewShotMethod
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
    detection = detector.detect(part)
    method = create("winclip", backbone)
    assert isinstance(method, FewShotMethod)
    with torch.no_grad():

        def encode(*paths: Path):
            pixels = backbone.preprocess([read_image(path).image for path in paths], method.computation.size)
            return backbone.encode_image(pixels, method.few_shot_request, method.computation)

        memory = method.build_memory_bank(encode(*sorted(good.iterdir())))
        expected = method.score(encode(part), method.text_features(["object"])[0], memory)
    assert detection.score == pytest.approx(expected.score.item(), abs=1e-6)
    assert detection.map_range == method.few_shot_map_range


@pytest.mark.parametrize("method", ["winclip", "april-gan"])
def test_a_reference_itself_is_closer_than_any_other(
    backbone: Backbone, good: Path, part: Path, tmp_path: Path, method: str
) -> None:
    learnt = None
    if method == "april-gan":
        learnt = tmp_path / "learnt.safetensors"
        weights.save(create(method, backbone), learnt)
    words = {"backbone": backbone, "weights": learnt, "device": "cpu"}
    alone, shown = load(method, **words), load(method, **words, references=[part])
    others = load(method, **words, references=str(good))
    assert shown.detect(part).peak < others.detect(part).peak
    # Compared with itself a picture has no distance to add to the zero-shot map.
    np.testing.assert_allclose(shown.detect(part).anomaly_map, alone.detect(part).anomaly_map, atol=1e-3)


def test_batches_and_order_make_no_difference(backbone: Backbone, good: Path, part: Path, monkeypatch) -> None:
    paths = sorted(good.iterdir())
    whole = load("winclip", backbone=backbone, references=paths, device="cpu")
    monkeypatch.setattr(room, "BATCH", 2)
    parts = load("winclip", backbone=backbone, references=paths[::-1], device="cpu")
    assert parts.detect(part).score == pytest.approx(whole.detect(part).score, abs=1e-6)
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
    with pytest.raises(UsageError, match=r"clip takes no reference pictures; .* april-gan, musc, winclip$"):
        load("clip", backbone="this would be a download", references=str(good))
    with pytest.raises(UsageError, match="clip has no memory"):
        TorchEngine(create("clip", backbone)).build_memory_bank([torch.zeros(1, 3, 518, 518)])


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


def test_fewer_are_looked_at_in_more_ways(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save_picture(tmp_path / f"{number}.png", number) for number in range(6)]
    for name, value in (("BATCH", 2), ("ASKED", 2), ("VIEWED_PEERS", 3)):
        monkeypatch.setattr(room, name, value)
    method = create("musc", backbone, {"turns": 4, "grids": 2})
    engine = TorchEngine(method)
    asked = []
    answers = iter([False, True, True])
    monkeypatch.setattr(method, "are_turned", lambda views: asked.append(len(views)) or next(answers))
    kept = []
    for meet in (room.meet, room.meet, room.show):
        meet(engine, paths)
        memory = engine.memory
        assert memory is not None
        assert memory.pictures == engine.provenance.references
        kept.append((memory.pictures, len(next(iter(memory.taps.values()))) // memory.pictures))
    assert asked == [4, 4, 4]
    alone = len(next(iter(engine.build_memory_bank([engine.preprocess(Image.open(paths[0]))]).taps.values())))
    assert kept == [(3, 2 * alone), (3, 4 * alone), (6, 4 * alone)]  # what is named is all remembered
    monkeypatch.setattr(room, "PEERS", 5)
    room.show(engine, paths)
    assert engine.memory is not None
    assert len(next(iter(engine.memory.taps.values()))) == 6 * alone
    assert len(asked) == 3


def test_those_that_are_looked_at_are_of_the_whole_set(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's first pictures are often of one kind: all the good ones."""
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number:02}.png")
        Image.new("RGB", (40, 40), (20 * number, 0, 0)).save(paths[-1])
    for name, value in (("BATCH", 2), ("VIEWED_PEERS", 4)):
        monkeypatch.setattr(room, name, value)
    engine = TorchEngine(create("musc", backbone, {"grids": 2}))
    seen: list[int] = []
    prepare = engine.preprocess

    def preprocess(picture: Image.Image) -> torch.Tensor:
        red = np.asarray(picture)[0, 0, 0]
        seen.append(int(red) // 20)
        return prepare(picture)

    monkeypatch.setattr(engine, "preprocess", preprocess)
    assert room.meet(engine, paths) == 4
    assert len(set(seen)) == 4
    assert min(seen) < 6 <= max(seen)
    first = engine.provenance.references_fingerprint
    room.meet(engine, paths)
    assert engine.provenance.references_fingerprint == first
