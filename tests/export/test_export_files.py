"""Exported files: every method gives what PyTorch gives, in any batch and at any size, and says what it is."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import PACKAGES, make, run

import blemish
from blemish import exporting as export
from blemish import methods
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.engine import Run
from blemish.errors import ImageError, OutputError, UsageError, WeightsError
from blemish.exporting.backends import BACKENDS, choose
from blemish.exporting.header import KEY, LABEL, MAP, MASK, SCORE
from blemish.exporting.parity import compare, textures
from blemish.image_io import LoadedImage

CLOSE = 1e-5


def written(backend: str, folder: Path, detector: Detector, **options) -> export.Exported:
    return export.export(detector, folder / f"x{BACKENDS[backend].suffix}", **options)


def same(one: blemish.Detection, other: blemish.Detection) -> None:
    low, high = one.map_range
    assert other.map_range == one.map_range
    assert other.score == pytest.approx(one.score, abs=CLOSE)
    np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, rtol=0, atol=CLOSE * (high - low))


def as_given(picture: LoadedImage) -> np.ndarray:
    """(1, 3, H, W) in [0, 1], at the picture's own size."""
    return np.asarray(picture.image, np.float32).transpose(2, 0, 1)[None] / 255


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, info in methods.METHODS.items() if not info.needs_references])
def test_every_method(name: str, backend: str, backbone: Backbone, pictures: list[LoadedImage], tmp_path: Path) -> None:
    detector = make(name, backbone)
    file = written(backend, tmp_path, detector, check=pictures)
    assert (file.parity.pictures, file.parity.given) == (3, True)
    assert max(file.parity.score, file.parity.map) < CLOSE
    again = export.load_exported(file.path)
    alone = [detector(picture) for picture in pictures]
    for one, other in zip(alone, again.stream(pictures, batch_size=3), strict=True):
        same(one, other)
    assert alone[0].anomaly_map.std() > 0


def test_steps_that_depend_on_a_picture(
    backend: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make("clip", backbone)
    score = detector.torch_engine.method.score  # what it gives then depends on the numbers in a tensor
    monkeypatch.setattr(
        detector.torch_engine.method, "score", lambda features, text: score(features, text[: int(text.sum() > 9) + 2])
    )
    with pytest.raises(UsageError, match="clip cannot be exported"):
        written(backend, tmp_path, detector)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["winclip", "april-gan", "musc", "subspacead"])
def test_references_are_in_the_file(
    name: str, backend: str, backbone: Backbone, pictures: list[LoadedImage], tmp_path: Path
) -> None:
    alone = make(name, backbone)
    detector = alone.with_references(list(textures(3)))
    again = export.load_exported(written(backend, tmp_path, detector).path)
    same(detector(pictures[0]), again(pictures[0]))
    if not methods.info(name).needs_references:
        assert not np.allclose(alone(pictures[0]).anomaly_map, detector(pictures[0]).anomaly_map, atol=1e-3)
    assert again.provenance.references == 3
    assert again.provenance.references_fingerprint == detector.provenance.references_fingerprint
    with pytest.raises(TypeError, match="neither pickled nor copied: load the file in each process"):
        pickle.dumps(again)


def test_a_file_that_is_wrong_in_batches_only_is_found_out(judge: Detector, pictures: list[LoadedImage]) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> object:
            return getattr(judge.engine, name)

        def run(self, pixels: torch.Tensor, object_name: str, memory: object = None) -> Run:
            found = judge.engine.run(pixels, object_name)
            score = found.prediction.score.clone()
            score[1:] += 0.5
            return replace(found, prediction=replace(found.prediction, score=score))

    assert compare(judge.engine, Wrong(), pictures, judge.object_name).score == pytest.approx(0.5, abs=CLOSE)
    assert compare(judge.engine, Wrong(), pictures[:1], judge.object_name).score == 0


def test_same_detections(made: export.Exported, judge: Detector, pictures: list[LoadedImage]) -> None:
    again = export.load_exported(made.path)
    for one, other in zip(judge.stream(pictures), again.stream(pictures, batch_size=2), strict=True):
        same(one, other)
        assert (one.label, one.size) == (other.label, other.size)
    assert made.parity.pictures == 4
    assert not made.parity.given


def test_large_batches(made: export.Exported, judge: Detector) -> None:
    """Eleven are more than go through together: two groups of four are shared out, and three are left."""
    many = list(textures(11))
    again = export.load_exported(made.path)
    for one, other in zip(judge.stream(many), again.stream(many, batch_size=11), strict=True):
        same(one, other)


def test_provenance(made: export.Exported, backend: str, judge: Detector, pictures: list[LoadedImage]) -> None:
    assert [path.name for path in made.files] == {"onnx": ["x.onnx"], "openvino": ["x.bin", "x.xml"]}[backend]
    assert sorted(made.path.parent.iterdir()) == sorted(made.files)
    ours, theirs = judge.provenance, export.load_exported(made.path)(pictures[0]).provenance
    assert theirs is not None
    for name in ("method", "backbone", "backbone_fingerprint", "config", "version", "precision", "device"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert (theirs.backend, theirs.model, theirs.model_fingerprint) == (backend, made.path.name, made.fingerprint)
    assert theirs.model_fingerprint == export.engine.fingerprint(made.files)
    assert (ours.backend, ours.model, ours.model_fingerprint) == ("torch", None, None)


def test_the_fingerprint_is_of_all_bytes(made: export.Exported, tmp_path: Path) -> None:
    for number, path in enumerate(made.files):
        folder = tmp_path / str(number)
        shutil.copytree(made.path.parent, folder)
        with (folder / path.name).open("ab") as file:
            file.write(b"\n")
        assert export.engine.fingerprint([folder / one.name for one in made.files]) != made.fingerprint
    assert export.engine.fingerprint(made.files) == made.fingerprint


def test_the_graph_resizes_as_pillow_does(made: export.Exported, judge: Detector) -> None:
    """Whoever runs the file without blemish gives pictures as they are, and gets what blemish says."""
    for picture in textures(2, (380, 350)):
        score, anomaly_map = run(made.path, as_given(picture), SCORE, MAP)
        expected = judge.engine.run(judge.engine.preprocess(picture.image), judge.object_name).prediction
        assert score == pytest.approx(expected.score.numpy(), abs=1e-4)
        np.testing.assert_allclose(anomaly_map, expected.map, atol=1e-3)


def test_verdicts_in_the_file(made: export.Exported, judge: Detector, pictures: list[LoadedImage]) -> None:
    assert made.header.outputs == (SCORE, LABEL, MAP, MASK)
    again = export.load_exported(made.path)
    assert (again.threshold, again.mask_threshold) == (judge.threshold, judge.mask_threshold)
    labels, marked = [], []
    for picture in pictures:
        label, mask, anomaly_map = run(made.path, again.engine.preprocess(picture.image).numpy(), LABEL, MASK, MAP)
        labels += label.tolist()
        assert label.dtype == mask.dtype == bool
        np.testing.assert_array_equal(mask, anomaly_map >= np.float32(judge.mask_threshold))
        marked.append(mask.mean())
    assert 0 < np.mean(marked) < 1
    assert labels == [judge(picture).label for picture in pictures]
    assert set(labels) == {True, False}
    given = export.load_exported(made.path, threshold=0.25)
    assert (given.threshold, given.mask_threshold) == (0.25, None)


def test_int8(backend: str, backbone: Backbone, pictures: list[LoadedImage], tmp_path: Path) -> None:
    for package in BACKENDS[backend].int8_with:
        pytest.importorskip(package)
    detector = make("clip", backbone)
    before, weights = detector(pictures[0]), {k: v.clone() for k, v in backbone.state_dict().items()}
    file = written(backend, tmp_path, detector, calibrate=list(textures(6)))
    assert file.header.calibration == 6
    assert 0 < file.parity.map < 0.2
    assert 0 < file.parity.score < 0.2
    again = export.load_exported(file.path)
    assert again.provenance.precision == "int8"
    assert (again.threshold, file.header.outputs) == (None, (SCORE, MAP))
    if backend == "onnx":
        import onnx

        held = [one for one in onnx.load(file.path).graph.initializer if one.data_type == onnx.TensorProto.INT8]
        assert sum(len(one.dims) == 2 for one in held) == 2 * 6  # per block four of attention, two of the MLP
    # nothing of the detector is changed
    np.testing.assert_array_equal(before.anomaly_map, detector(pictures[0]).anomaly_map)
    assert all(bool((value == weights[name]).all()) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("use", ["calibrate", "check"])
def test_a_picture_that_cannot_be_read(use: str, backend: str, backbone: Backbone, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)  # also where NNCF is not installed
    with pytest.raises(ImageError, match="gone"):
        written(backend, tmp_path / "out", make("clip", backbone), **{use: [tmp_path / "gone.png"]})
    assert not (tmp_path / "out").exists()


def test_threads(made: export.Exported, pictures: list[LoadedImage]) -> None:
    again = export.load_exported(made.path)
    expected = [again(picture).score for picture in pictures] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: again(one).score, pictures * 4)) == expected


def test_another_object(made: export.Exported, pictures: list[LoadedImage]) -> None:
    again = export.load_exported(made.path)
    assert again.object_name == "metal nut"
    with pytest.raises(UsageError, match="was exported for 'metal nut'"):
        again(pictures[0], object_name="solar cell")
    with pytest.raises(UsageError, match="exported detector has no method"):
        _ = again.torch_engine


def test_a_wrong_file_is_not_kept(
    made: export.Exported, backend: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that gives other numbers than the detector (here: that of another object) leaves an earlier one alone."""
    path = tmp_path / made.path.name
    path.write_bytes(b"earlier")
    files = BACKENDS[backend].files

    def another(engine, memory, header, partial, calibration) -> None:
        for source, copy in zip(made.files, files(partial), strict=True):
            shutil.copy(source, copy)

    monkeypatch.setattr(f"blemish.exporting.to_{backend}.write", another)
    monkeypatch.setattr("blemish.exporting.TOLERANCE", 0)
    with pytest.raises(OutputError, match="not written: its scores differ by"):
        export.export(make("clip-ac", backbone), path)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"earlier"]


def test_precision_and_device(made: export.Exported, backend: str) -> None:
    assert export.load_exported(made.path, precision="float32").provenance.precision == "float32"
    with pytest.raises(UsageError, match="float16"):
        export.load_exported(made.path, precision="float16")
    with pytest.raises(UsageError, match="toaster"):
        export.load_exported(made.path, device="toaster")
    if backend == "onnx":
        with pytest.raises(UsageError, match="computes as the file says"):
            export.load_exported(made.path, precision="bfloat16")


def test_damaged_and_foreign_files(made: export.Exported, backend: str, tmp_path: Path) -> None:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / made.path.name
    if backend == "onnx":
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.save(model, path)
    else:
        path.write_text(path.read_text().replace(f"<{KEY} ", "<other "))
    with pytest.raises(WeightsError, match="was not exported by blemish"):
        export.load_exported(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        export.load_exported(path)
    gone = path.with_name(made.files[0].name)
    gone.unlink()
    with pytest.raises(UsageError, match=f"no file .*{gone.name}"):
        export.load_exported(path)


def test_model_info(made: export.Exported, backend: str, judge: Detector, backbone: Backbone) -> None:
    """What OpenVINO's Model API reads, and the whole header beside it."""
    expected = {"model_type": "AnomalyDetection", "image_threshold": str(judge.threshold), "scale_values": "255.0 " * 3}
    expected["pixel_threshold"], expected["scale_values"] = str(judge.mask_threshold), "255.0 255.0 255.0"
    if backend == "onnx":
        import onnx

        model = onnx.load(made.path)
        entries = {one.key: one.value for one in model.metadata_props}
        found = {key: entries[f"model_info {key}"] for key in expected}
        axes = [one.dim_param for one in model.graph.input[0].type.tensor_type.shape.dim]
        assert axes == ["batch", "", "height", "width"]
        assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.output} == {"batch"}
        header = entries[KEY]
    else:
        import openvino

        model = openvino.Core().read_model(made.path)
        found = {key: model.get_rt_info(["model_info", key]).astype(str) for key in expected}
        assert str(model.inputs[0].partial_shape) == "[?,3,?,?]"
        header = model.get_rt_info([KEY]).astype(str)
    assert found == expected
    assert json.loads(header)["provenance"]["backbone_fingerprint"] == backbone.fingerprint


def test_openvino_runs_onnx_files(made: export.Exported, judge: Detector, pictures: list[LoadedImage]) -> None:
    for package in PACKAGES["openvino"]:
        pytest.importorskip(package)
    if made.backend != "onnx":
        return
    again = export.load_exported(made.path, backend="openvino", precision="float32")
    assert again.provenance.backend == "openvino"
    same(judge(pictures[1]), again(pictures[1]))


def test_only_float32_on_the_cpu_is_exported(backend: str, backbone: Backbone, tmp_path: Path) -> None:
    half = blemish.load("clip", backbone=backbone, device="cpu", precision="bfloat16")
    with pytest.raises(UsageError, match="float32"):
        written(backend, tmp_path, half)


@pytest.mark.parametrize(
    ("path", "name", "sentence"),
    [
        ("x.pt", None, "no backend has files like"),
        ("x.onnx", "tvm", "no backend 'tvm'"),
        ("x.onnx", "openvino", "ends with .xml"),
        ("x.xml", "onnx", "ends with .onnx"),
    ],
)
def test_files_and_backends_that_do_not_fit(path: str, name: str | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        choose(Path(path), name, write=True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, packages, extra in (("onnx", "onnxruntime and onnx", "onnx"), ("openvino", "openvino", "openvino")):
        with pytest.raises(UsageError, match=rf"needs {packages}.* pip install 'blemish\[{extra}\]'"):
            BACKENDS[name].require_to_write(int8=False)
