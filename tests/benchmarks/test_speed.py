"""What made things fast stays: ratios with generous margins, in processor time where that is what counts."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.utils._python_dispatch import TorchDispatchMode

from blemish.clip import Backbone, Request, Tap, load_backbone
from blemish.detection import Detection
from blemish.detector import Detector
from blemish.draw import save_png
from blemish.engine import TorchEngine
from blemish.loading import load
from blemish.methods import create
from blemish.methods.base import Prediction
from blemish.methods.ops import upsample, upsample_smoothly
from blemish.outputs.run import DetectOptions, DetectRun
from helpers import save_picture


def times_as_fast(fast: Callable[[], object], slow: Callable[[], object], rounds: int = 7) -> float:
    """The median over rounds of one's processor time over the other's."""
    found = []
    for _ in range(rounds + 1):
        spent = []
        for run in (fast, slow):
            start = time.process_time()
            run()
            spent.append(time.process_time() - start)
        found.append(spent[1] / max(spent[0], 1e-9))
    return sorted(found[1:])[rounds // 2]


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return load_backbone("builtin")


class Casts(TorchDispatchMode):
    """Notes the shapes of what is cast to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_half_precision_casts_no_weight_a_second_time(embedded: Backbone) -> None:
    pixels = torch.randn(1, 3, 256, 256)
    request = Request(frozenset({Tap(8, "value", 5)}))
    embedded.encode_image(pixels, request, precision=torch.bfloat16)
    with Casts() as casts:
        embedded.encode_image(pixels, request, precision=torch.bfloat16)
    assert casts.shapes
    assert not {shape for shape in casts.shapes if len(shape) == 2}


def test_detection_costs_no_more_than_the_published_computation(embedded: Backbone) -> None:
    """Measured: 1.2 times as fast in float32 (and several times in half precision, on hardware with units for it)."""
    import reference

    method = create("anomalyclip", embedded)
    engine, tower, pixels = (
        TorchEngine(method),
        reference.Tower(embedded, method),
        torch.randn(2, 3, *2 * [method.computation.size]),
    )
    with torch.inference_mode():
        text = method.text_features(["object"])[0]
        found = times_as_fast(
            lambda: engine.run(pixels, "object"), lambda: reference.run(method, tower, pixels, text), rounds=5
        )
    assert found > 0.8


def test_what_is_not_asked_for_costs_nothing(embedded: Backbone) -> None:
    """Measured: a tap at layer 2 of 8 takes a quarter of the time."""
    pixels = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        found = times_as_fast(
            lambda: embedded.encode_image(pixels, Request(frozenset({Tap(2)}), class_token=False)),
            lambda: embedded.encode_image(pixels, Request(frozenset({Tap(8)}))),
        )
    assert found > 1.5


def test_maps_are_enlarged_and_smoothed_at_once() -> None:
    """Measured: an order of magnitude against SciPy, picture by picture."""
    maps = torch.rand(8, 37, 37)

    def usual() -> None:
        for one in upsample(maps, 518):
            gaussian_filter(one.numpy(), sigma=4)

    assert times_as_fast(lambda: upsample_smoothly(maps, 518, 4.0), usual, rounds=3) > 2


def test_pictures_are_packed_faster_than_pillow_does() -> None:
    """Measured: 2.5 times as fast."""
    noise = np.random.default_rng(0).normal(128, 10, (512, 512, 3))
    picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    found = times_as_fast(
        lambda: save_png(picture, io.BytesIO()), lambda: picture.save(io.BytesIO(), "PNG", compress_level=1)
    )
    assert found > 1.3


def test_the_model_does_not_wait_for_reading_or_writing(tiny_backbone, tmp_path: Path, monkeypatch) -> None:
    """All of them only sleep: one after the other, or with one reader, the model would idle for half of it."""
    from speed_pipeline import Watched

    paths = [save_picture(tmp_path / "photos" / f"{number:02}.png", number) for number in range(32)]
    engine = load("clip", backbone=str(tiny_backbone), device="cpu").engine
    size, save = engine.size, Detection.save

    def slow(result, seconds):
        def run(*given, **named):
            time.sleep(seconds)
            return result(*given, **named)

        return run

    def sleep(pixels: torch.Tensor, object_name: str, memory: object = None):
        time.sleep(0.01 * len(pixels))
        return type(ran)(Prediction(torch.zeros(len(pixels)), torch.zeros(len(pixels), size, size)), 0.01, 0.0)

    ran = engine.run(engine.preprocess(Image.new("RGB", (8, 8))), "object")
    monkeypatch.setattr(engine, "run", sleep)
    monkeypatch.setattr(engine, "preprocess", slow(lambda picture: torch.zeros(1, 3, 8, 8), 0.02))
    monkeypatch.setattr(Detection, "save", lambda *given, **named: slow(save, 0.01)(*given, **named))
    monkeypatch.setattr("blemish.scoring.READER_THREADS", 3)
    watched = Watched(engine)
    options = DetectOptions(kinds=["map"], tables=(), batch_size=4)
    with DetectRun(Detector(watched), paths, tmp_path / "out", options) as run:
        assert len(run.execute()) == 32
    assert watched.idle < 0.4


def test_the_command_keeps_what_it_measured(tmp_path: Path, monkeypatch, capsys) -> None:
    import speed

    for sections in (["pictures"], []):
        monkeypatch.setattr("sys.argv", ["speed.py", *sections, "--rounds", "1", "--out", str(tmp_path)])
        monkeypatch.setattr(speed, "SECTIONS", {"pictures": speed.preprocess, "start": lambda rounds: iter(())})
        speed.main()
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert set(kept["sections"]) == {"pictures", "start"}
    assert [row["ratio"] is None for row in kept["sections"]["pictures"]] == [False, False]
    assert "| overlay of 1024 x 1024 to PNG |" in (tmp_path / "speed.md").read_text()
    assert (tmp_path / "speed.svg").read_text().count("<rect") == 3
    assert "to PNG" in capsys.readouterr().out
