"""Pictures of any shape through the score loop, references with copies, and the last step of a map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import blemish
from blemish.clip import Dinov2Backbone, Dinov2Tower, Geometry, ImageFeatures, Request, Tap
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import build_memory_bank
from blemish.methods import METHODS, create
from blemish.methods.base import FewShotMethod, MemoryBank, Prediction
from blemish.methods.configs import Config, ImageScore
from blemish.methods.ops import as_grid, resize
from blemish.scoring import Pass, Scored, Scorer, Task
from blemish.types import Tiling
from helpers import save_picture
from parity import tiny_dinov2

SIZES = [(60, 40), (40, 60), (60, 40), (40, 40), (61, 40), (40, 60)]
TAP = Tap(2)


@dataclass(frozen=True, kw_only=True)
class LengthConfig(Config):
    size: int = 56
    geometry: Geometry = "keep-aspect"
    image_score: ImageScore = "map"

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        return "keep-aspect", *super().geometries


class Length(FewShotMethod):
    """The map is the length of each patch, on the grid of patches; with references, less the shortest of theirs."""

    info = replace(METHODS["musc"], name="length", transductive=False, few_shot=True, needs_object=False)
    Config: ClassVar[type[LengthConfig]] = LengthConfig

    @property
    def request(self) -> Request:
        return Request([TAP], class_token=False)  # type: ignore[arg-type]

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 100.0

    def finish_map(self, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        return resize(anomaly_map, height, width) + 1

    def reference_copies(self, image: Image.Image, number: int, count: int) -> Iterable[Image.Image]:
        return [image, image.rotate(90, expand=True)] if number < count - 1 else [image]

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        return MemoryBank(len(features.taps[TAP]), {TAP: features.taps[TAP][:, 1:].flatten(0, 1)})

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        assert text.shape == (2, 0)
        lengths = torch.linalg.vector_norm(features.taps[TAP][:, 1:], dim=-1)
        if memory is not None:
            lengths = (lengths - torch.linalg.vector_norm(memory.taps[TAP], dim=-1).min()).clamp_min(0)
        return self.prediction(None, as_grid(lengths, features.grid))


@pytest.fixture(scope="module")
def backbone() -> Dinov2Backbone:
    config = replace(tiny_dinov2.TINY_S14, num_hidden_layers=3, image_size=56)
    state = {key: torch.from_numpy(value) for key, value in tiny_dinov2.state_dict(config).items()}
    return Dinov2Backbone(Dinov2Tower.from_state_dict(state, {"num_attention_heads": 2}), "tiny")


@pytest.fixture
def engine(backbone: Dinov2Backbone) -> TorchEngine:
    return TorchEngine(Length(backbone))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3)).astype(np.uint8)) for w, h in SIZES]


def count_batches(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the shape of each batch that goes through the backbone."""
    seen: list[tuple[int, ...]] = []
    encode = engine.encode

    def counted(pixels: Tensor, *rest: Any) -> ImageFeatures:
        seen.append(tuple(pixels.shape))
        return encode(pixels, *rest)

    monkeypatch.setattr(engine, "encode", counted)
    return seen


def test_shapes_are_batched_apart_and_order_is_kept(
    engine: TorchEngine, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [Detector(engine)(image) for image in images]
    seen = count_batches(engine, monkeypatch)
    together = list(Detector(engine).stream(images, batch_size=6))
    assert sorted(seen) == [(1, 3, 56, 56), (2, 3, 84, 56), (3, 3, 56, 84)]
    assert [found.size for found in together] == SIZES
    for found, expected in zip(together, alone, strict=True):
        assert found.score == pytest.approx(expected.score, abs=1e-6)
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=0, atol=1e-4)
    assert len({found.score for found in together}) > 1


def test_two_methods_of_one_pass(backbone: Dinov2Backbone, images: list[Image.Image]) -> None:
    """Results of one method come together, in the order of the images."""
    engines = {name: TorchEngine(Length(backbone)) for name in ("a", "b")}
    scorer = Scorer(engines, batch_size=4)
    assert len(scorer.passes) == 1
    assert "shorter side 56 px" in str(scorer.passes[0])
    tasks = [Task(number, image, frozenset(engines)) for number, image in enumerate(images[:4])]
    order = [(each.method, each.item) for each in scorer.run(tasks) if isinstance(each, Scored)]
    assert order == [(name, number) for name in ("a", "b") for number in range(4)]
    assert isinstance(scorer.passes[0], Pass)


def test_the_method_finishes_its_map(engine: TorchEngine, images: list[Image.Image]) -> None:
    image = images[0]
    method = engine.method
    pixels = engine.preprocess(image)
    with torch.no_grad():
        features = engine.backbone.encode_image(pixels, method.request, method.computation)
        raw = method.score(features, torch.empty(2, 0)).map[0]
    assert raw.shape == (4, 6)
    found = Detector(engine)(image).anomaly_map
    np.testing.assert_allclose(found, (resize(raw, 40, 60) + 1).numpy(), rtol=0, atol=1e-5)


def test_the_maps_of_tiles_are_finished_too(engine: TorchEngine, images: list[Image.Image]) -> None:
    detector = Detector(engine, tiling=Tiling(40, 0.25))
    large = Image.new("RGB", (100, 40))
    large.paste(images[0].resize((100, 40)))
    found = detector(large).anomaly_map
    parts = [Detector(engine)(large.crop((left, 0, left + 40, 40))).anomaly_map for left in (0, 30, 60)]
    assert found.shape == (40, 100)
    np.testing.assert_allclose(found[:, :29], parts[0][:, :29], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[:, 72:], parts[2][:, 12:], rtol=0, atol=1e-4)


def test_references_of_several_shapes_with_copies(
    engine: TorchEngine, tmp_path: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for number, image in enumerate(images[:3]):
        path = tmp_path / f"{number}.png"
        image.save(path)
        paths.append(path)
    seen = count_batches(engine, monkeypatch)
    bank = build_memory_bank(engine, paths)
    # Wide, its rotation (tall); tall, its rotation (wide); wide without a rotation, as it is the last.
    assert seen == [(1, 3, 56, 84), (2, 3, 84, 56), (2, 3, 56, 84)]
    assert bank.references == 3
    assert bank.images == 5
    method = engine.method
    with torch.no_grad():
        copies = [copy for n, i in enumerate(images[:3]) for copy in engine.reference_copies(i, n, 3)]
        tokens = [
            engine.backbone.encode_image(engine.preprocess(copy), method.request, method.computation).taps[TAP][0, 1:]
            for copy in copies
        ]
    torch.testing.assert_close(bank.taps[TAP], torch.cat(tokens), rtol=0, atol=1e-4)
    assert Detector(engine, memory=bank)(images[0]).score < Detector(engine)(images[0]).score


def test_a_crop_shows_the_middle(backbone: Dinov2Backbone) -> None:
    """Beyond the crop the map goes on with its outermost values."""
    method = Length(backbone, LengthConfig(geometry="squash-torch-crop"))
    grid = torch.zeros(4, 4)
    grid[0, 0] = 1
    grown = super(Length, method).finish_map(resize(grid, 56, 56), 64, 64)  # 64 = 56 / 0.875
    expected = torch.nn.functional.pad(resize(grid, 56, 56)[None, None], (4, 4, 4, 4), mode="replicate")[0, 0]
    torch.testing.assert_close(grown, expected)
    assert TorchEngine(method).finishes_maps


def test_methods_with_words_say_so(backbone: Dinov2Backbone) -> None:
    for name in ("clip", "anomalyclip", "winclip"):
        with pytest.raises(UsageError, match=r"words, which the backbone tiny does not read.*musc") as caught:
            blemish.load(name, backbone=backbone, device="cpu")
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError, match="words"):
            create(name, backbone)


def test_geometries_that_a_method_cannot_use() -> None:
    from blemish.methods.clip import ClipConfig

    with pytest.raises(UsageError, match="geometry 'keep-aspect' is not one of this method's: squash"):
        ClipConfig(geometry="keep-aspect")


def test_what_a_graph_cannot_express_is_not_exported(
    backbone: Dinov2Backbone, engine: TorchEngine, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(UsageError, match="keep-aspect"):
        blemish.export(Detector(engine), tmp_path / "a.onnx")
    square = TorchEngine(Length(backbone, LengthConfig(geometry="squash")))
    with pytest.raises(UsageError, match="finishes maps"):
        blemish.export(Detector(square), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_config_of_load(tiny_backbone: Path, tmp_path: Path) -> None:
    part = save_picture(tmp_path / "part.png", 1)
    detector = blemish.load("clip", backbone=str(tiny_backbone), config={"size": 222, "sigma": 0.0}, device="cpu")
    assert detector.engine.size == 222
    assert detector.provenance.config["sigma"] == 0.0
    assert detector(part).score != blemish.load("clip", backbone=str(tiny_backbone), device="cpu")(part).score
    with pytest.raises(UsageError, match="sigma"):
        blemish.load("clip", backbone=str(tiny_backbone), config={"sigmas": 1.0}, device="cpu")
