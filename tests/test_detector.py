"""The front door: what it takes, what it gives, order, memory, threads, errors."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import blemish
from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.errors import ImageError, UsageError, WeightsError
from blemish.image_io import read_image
from blemish.loading import load
from blemish.methods import checkpoints, create
from helpers import load_pixels, save_picture, save_tiny_backbone


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def detector(backbone: Backbone) -> Detector:
    return load("clip", backbone=backbone, device="cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Eleven pictures, each of a size of its own."""
    return [save_picture(tmp_path / f"{number}.png", number, (30 + number, 20)) for number in range(11)]


def test_detection(detector: Detector, backbone: Backbone, paths: list[Path]) -> None:
    detection = detector(paths[3])
    assert 0 <= detection.score <= 1
    assert detection.anomaly_map.shape == (20, 33)
    assert detection.anomaly_map.dtype == np.float32
    assert detection.size == (33, 20)
    assert detection.path == str(paths[3])
    assert (detection.threshold, detection.label, detection.mask) == (None, None, None)
    assert detection.timing.total > 0
    made = detection.provenance
    assert made is not None
    assert (made.method, made.backbone, made.backbone_fingerprint) == ("clip", backbone.name, backbone.fingerprint)
    assert (made.weights, made.weights_fingerprint, made.precision, made.device) == (None, None, "float32", "cpu")
    assert made.version == blemish.__version__
    assert made.config["size"] == 518


def test_takes_all_kinds_of_pictures(detector: Detector, paths: list[Path]) -> None:
    image = load_pixels(paths[0])
    array = np.asarray(image)
    expected = detector(paths[0])
    kinds = (str(paths[0]), paths[0].read_bytes(), image, array, torch.from_numpy(array.copy()), read_image(paths[0]))
    for picture in kinds:
        detection = detector(picture)
        assert detection.score == pytest.approx(expected.score, abs=1e-6)
        np.testing.assert_allclose(detection.anomaly_map, expected.anomaly_map, atol=1e-5)


def test_is_what_the_method_says(detector: Detector, paths: list[Path]) -> None:
    method, backbone = detector.torch_engine.method, detector.torch_engine.backbone
    with torch.no_grad():
        pixels = backbone.preprocess([read_image(paths[0]).image], method.computation.size)
        features = backbone.encode_image(pixels, method.request, method.computation)
        prediction = method.score(features, method.text_features(["object"])[0])
        resized = torch.nn.functional.interpolate(prediction.map[None], (20, 30), mode="bilinear", align_corners=False)
    detection = detector(paths[0])
    assert detection.score == pytest.approx(prediction.score.item(), abs=1e-6)
    np.testing.assert_allclose(detection.anomaly_map, resized[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 32])
def test_many_are_as_one_by_one_and_in_order(detector: Detector, paths: list[Path], batch_size: int) -> None:
    many = list(detector.stream(paths, batch_size=batch_size))
    assert [one.path for one in many] == [str(path) for path in paths]
    for one, path in zip(many, paths, strict=True):
        single = detector(path)
        assert one.score == pytest.approx(single.score, abs=1e-5)
        np.testing.assert_allclose(one.anomaly_map, single.anomaly_map, atol=1e-4)


def test_a_list_gives_a_list(detector: Detector, paths: list[Path]) -> None:
    detections = detector(paths[:3], batch_size=2)
    assert [detection.path for detection in detections] == [str(path) for path in paths[:3]]
    assert detector([]) == []
    assert detector(tuple(paths[:1]))[0].path == str(paths[0])


def test_an_object_name_for_each_picture(detector: Detector, paths: list[Path]) -> None:
    names = ["metal nut", "solar cell", "metal nut"]
    together = detector(paths[:3], object_name=names)
    for detection, path, name in zip(together, paths, names, strict=False):
        assert detection.score == pytest.approx(detector(path, object_name=name).score, abs=1e-5)
    with pytest.raises(UsageError, match="2 object names for 3 pictures"):
        detector(paths[:3], object_name=names[:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold must be a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"mask_threshold": -0.1}, "mask_threshold must be"),
        ({"object_name": " "}, "object name is empty"),
    ],
)
def test_nonsense_is_refused_early(detector: Detector, paths: list[Path], settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load("clip", backbone="no/such/backbone", **settings)
    with pytest.raises(UsageError, match=message):
        Detector(detector.engine, **settings)
    with pytest.raises(UsageError, match="object name is empty"):
        detector(paths[0], object_name="")


def test_settings_that_an_exported_file_has_already_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "parts.onnx"
    with pytest.raises(UsageError, match="backbone and object_name cannot be set for an exported file"):
        load(path, backbone="x", object_name="nut")
    with pytest.raises(UsageError, match="there is no file"):
        load(path)
    with pytest.raises(UsageError, match="runs exported files"):
        load("clip", backend="onnx")


def test_repr_is_short(detector: Detector, paths: list[Path]) -> None:
    assert repr(detector) == f"Detector(clip on {detector.provenance.backbone}, references=0, threshold=None)"
    assert re.fullmatch(
        r"Detection\(score=0\.\d{4}, label=None, size=\(30, 20\), path='.*0\.png'\)", repr(detector(paths[0]))
    )


def test_no_pictures(detector: Detector) -> None:
    assert list(detector.stream([])) == []


def test_batch_size_of_nothing(detector: Detector) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        list(detector.stream([], batch_size=0))


def test_streams_without_end(detector: Detector, paths: list[Path]) -> None:
    """An endless stream gives results, and is not read further ahead than two batches."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield paths[0]

    stream = detector.stream_with_images(endless(), batch_size=2)
    for number in range(1, 7):
        next(stream)
        # What was handed out, the rest of its batch, a batch in the queue, and one in the reader's hands.
        assert len(taken) <= number + 2 + 2 + 1
    stream.close()
    for thread in threading.enumerate():
        if thread.name == "blemish-reader":
            thread.join(timeout=60)
    count = len(taken)
    assert not any(thread.name == "blemish-reader" for thread in threading.enumerate())
    assert len(taken) == count


def test_broken_pictures_are_handed_over_in_order(detector: Detector, paths: list[Path], tmp_path: Path) -> None:
    broken, gone = tmp_path / "broken.png", tmp_path / "gone.png"
    broken.write_bytes(b"nothing")
    seen: list[str | None] = []
    mixed = [gone, *paths[:3], broken, *paths[3:], gone]
    for detection in detector.stream(mixed, batch_size=4, on_error=lambda path, error: seen.append(path)):
        seen.append(detection.path)
    assert seen == [str(path) for path in mixed]


def test_broken_picture_raises_after_those_before_it(detector: Detector, paths: list[Path], tmp_path: Path) -> None:
    stream = detector.stream([paths[0], paths[1], tmp_path / "gone.png", paths[2]], batch_size=8)
    assert [next(stream).path, next(stream).path] == [str(paths[0]), str(paths[1])]
    with pytest.raises(ImageError, match="gone"):
        next(stream)


def test_error_of_the_stream_itself_is_raised(detector: Detector, paths: list[Path]) -> None:
    def failing():
        yield paths[0]
        raise RuntimeError("the camera fell down")

    stream = detector.stream(failing(), on_error=lambda path, error: None)
    assert next(stream).path == str(paths[0])
    with pytest.raises(RuntimeError, match="camera"):
        next(stream)


def test_threads(detector: Detector, paths: list[Path]) -> None:
    expected = [detector(path).score for path in paths]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: detector(path, object_name="metal nut").score, paths * 2))
        same = list(pool.map(lambda path: detector(path).score, paths))
    assert same == pytest.approx(expected, abs=1e-6)
    assert found[:11] == pytest.approx(found[11:], abs=1e-6)


def test_object_names_are_used_and_kept(backbone: Backbone, paths: list[Path], monkeypatch) -> None:
    detector = load("clip", backbone=backbone, object_name="metal nut", device="cpu")
    calls = []
    encode = detector.torch_engine.method.text_features
    monkeypatch.setattr(
        detector.torch_engine.method, "text_features", lambda objects: calls.append(objects) or encode(objects)
    )
    nut, cell = detector(paths[0]), detector(paths[0], object_name="solar cell")
    list(detector.stream(paths[:4], batch_size=2))
    assert calls == [["metal nut"], ["solar cell"]]
    assert nut.score != cell.score


def test_thresholds(backbone: Backbone, paths: list[Path]) -> None:
    detection = load("clip", backbone=backbone, threshold=0.0, mask_threshold=0.5, device="cpu")(paths[0])
    assert detection.label == 1
    assert (detection.threshold, detection.mask_threshold) == (0.0, 0.5)
    assert detection.mask is not None


def test_learnt_weights(backbone: Backbone, paths: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "learnt.safetensors"
    checkpoints.save(create("anomalyclip", backbone), path)
    made = load("anomalyclip", backbone=backbone, weights=path, device="cpu")(paths[0]).provenance
    assert made is not None
    assert made.weights == "learnt.safetensors"
    assert made.weights_fingerprint is not None
    assert len(made.weights_fingerprint) == 16


def test_shipped_weights_are_found_by_the_backbone(backbone: Backbone, tmp_path: Path, monkeypatch) -> None:
    checkpoints.save(create("anomalyclip", backbone), tmp_path / "any-name.safetensors")
    monkeypatch.setattr("blemish.loading.WEIGHTS", tmp_path)
    assert load("anomalyclip", backbone=backbone, device="cpu").provenance.weights == "any-name.safetensors"
    other = load_backbone(str(save_tiny_backbone(tmp_path / "other", seed=1)))
    with pytest.raises(UsageError, match="none ship"):
        load("anomalyclip", backbone=other)
    with pytest.raises(WeightsError, match="learnt on the backbone"):
        load("anomalyclip", backbone=other, weights=tmp_path / "any-name.safetensors")


def test_unknown_words(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="did you mean clip"):
        load("clp", backbone=backbone)
    with pytest.raises(UsageError, match="float8"):
        load("clip", backbone=backbone, precision="float8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="toaster"):
        load("clip", backbone=backbone, device="toaster")
    with pytest.raises(UsageError, match="no weights file"):
        load("clip", backbone=backbone, weights="nowhere.safetensors")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(backbone: Backbone, detector: Detector, paths: list[Path], precision) -> None:
    half = load("clip", backbone=backbone, precision=precision, device="cpu")
    assert half.provenance.precision == precision
    detection, expected = half(paths[0]), detector(paths[0])
    assert detection.anomaly_map.dtype == np.float32
    assert detection.score != expected.score
    assert detection.score == pytest.approx(expected.score, abs=0.05)


def test_auto_precision_is_float32_for_a_small_backbone(detector: Detector) -> None:
    assert detector.provenance.precision == "float32"


def test_auto_precision_for_a_large_backbone(backbone: Backbone, monkeypatch) -> None:
    monkeypatch.setattr("blemish.loading._LARGE", 1)
    for units, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("blemish.loading.has_bfloat16_units", lambda device, units=units: units)
        assert load("clip", backbone=backbone, device="cpu").provenance.precision == expected


@pytest.mark.parametrize("units", [True, False])
def test_auto_precision_of_windows(backbone: Backbone, paths: list[Path], monkeypatch, units: bool) -> None:
    monkeypatch.setattr("blemish.loading.has_bfloat16_units", lambda device: units)
    auto = load("winclip", backbone=backbone, device="cpu")
    exact = load("winclip", backbone=backbone, device="cpu", precision="float32")
    found, expected = auto(paths[0]), exact(paths[0])
    assert auto.provenance.precision == ("float32, windows bfloat16" if units else "float32")
    assert exact.provenance.precision == "float32"
    assert found.score == expected.score  # of the whole picture
    assert np.array_equal(found.anomaly_map, expected.anomaly_map) == (not units)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=0, atol=0.02)
    assert load("clip", backbone=backbone, device="cpu").provenance.precision == "float32"


def test_a_picture_too_large_is_refused(backbone: Backbone, paths: list[Path]) -> None:
    with pytest.raises(ImageError, match="max_pixels"):
        load("clip", backbone=backbone, max_pixels=100, device="cpu")(paths[0])
