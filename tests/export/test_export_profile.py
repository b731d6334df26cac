"""An exported profile gives the verdicts of its detector: in blemish, and to whoever runs the file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import make, run

from blemish import exporting as export
from blemish import methods
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import UsageError, WeightsError
from blemish.exporting.backends import BACKENDS
from blemish.exporting.graph import DetectorGraph
from blemish.exporting.header import LABEL, MAP, MASK, RAW, SCORE, from_json
from blemish.image_io import LoadedImage
from blemish.tiling import Tiling
from helpers import save_picture

CLOSE = 1e-5
LEFT = "0,0 20,0 20,30 0,30"


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return [save_picture(tmp_path / "good" / f"{number}.png", 40 + number, (60, 45)) for number in range(4)]


def fitted(name: str, backbone: Backbone, good: list[Path], **options: Any) -> Detector:
    return make(name, backbone).fit(good, false_alarms=0.2, review=0.5, **options)


def written(detector: Detector, backend: str, folder: Path, **options: Any) -> export.Exported:
    return export.export(detector, folder / f"x{BACKENDS[backend].suffix}", **options)


def agree(detector: Detector, file: Path, pictures: list[LoadedImage]) -> None:
    """A file gives the verdicts, p-values, masks and heatmaps of its detector."""
    again = export.load_exported(file)
    for picture in pictures:
        own, other = detector(picture), again(picture)
        low, high = own.map_range
        assert other.score == pytest.approx(own.score, abs=CLOSE)
        np.testing.assert_allclose(other.anomaly_map, own.anomaly_map, rtol=0, atol=CLOSE * (high - low))
        for name in ("verdict", "threshold", "mask_threshold", "review_threshold", "min_area", "p_value", "scale"):
            assert getattr(other, name) == getattr(own, name), name
        assert (other.anomaly_map.max() > low) == (own.anomaly_map.max() > low)


@pytest.mark.parametrize(
    ("name", "roi"),
    [("winclip", LEFT), ("joint", None), ("anomalydino", LEFT)],
    ids=["winclip", "joint", "anomalydino"],
)
def test_verdicts_are_those_of_the_detector(
    name: str,
    roi: str | None,
    backend: str,
    backbone: Backbone,
    good: list[Path],
    pictures: list[LoadedImage],
    tmp_path: Path,
) -> None:
    detector = fitted(name, backbone, good, roi=roi)
    file = written(detector, backend, tmp_path, check=pictures)
    assert max(file.parity.score, file.parity.map) < CLOSE
    agree(detector, file.path, pictures)
    raw = roi is not None or name == "anomalydino"
    assert file.header.outputs == (SCORE, LABEL, MAP, MASK, *([RAW] if raw else []))
    # Whoever has the runtime alone gets score, label and mask from the pixels.
    size, outside = file.header.size, slice(file.header.size // 2, None)
    labels = []
    for picture in pictures:
        pixels = export.engine.as_input(picture.image, size, "squash").numpy()
        score, label, anomaly_map, mask = run(file.path, pixels, SCORE, LABEL, MAP, MASK)
        own = detector(picture)
        assert score[0] == pytest.approx(own.score, abs=CLOSE)
        assert label[0] == own.label
        assert anomaly_map.shape == mask.shape == (1, size, size)
        np.testing.assert_array_equal(mask, anomaly_map >= np.float32(detector.mask_threshold))
        if roi is not None:
            assert not mask[..., outside].any()
            assert (anomaly_map[..., outside] == 0).all()
        if own.size == (size, size):  # else the detector's map has the size of the picture
            low, high = own.map_range
            np.testing.assert_allclose(anomaly_map[0] * (high - low) + low, own.anomaly_map, atol=CLOSE * (high - low))
        labels.append(bool(label[0]))
    own = export.load_exported(file.path, threshold=0.9)
    assert (own.threshold, own.limits.promise) == (0.9, None)


def test_the_memory_is_stored_in_half_precision(backbone: Backbone, good: list[Path]) -> None:
    detector = fitted("joint", backbone, good)
    engine, memory = detector.torch_engine, detector.memory
    header = export.Header(detector.provenance, "metal nut", engine.size, (0.0, 1.0))
    graph = DetectorGraph(engine, memory, header, resize=True)
    (rows,) = memory.taps.values()
    kept = {name: values for name, values in graph.named_buffers() if name.startswith(("taps", "windows"))}
    lengths = {"taps_0": len(rows), "windows_0": 1, "windows_1": len(good)}  # windows_1: the mean patches
    assert {name: len(values) for name, values in kept.items()} == lengths
    assert kept["taps_0"].dtype == torch.float16
    torch.testing.assert_close(kept["taps_0"].float(), rows, rtol=0, atol=0)
    detector = make("joint", backbone).with_references(good)  # its memory is not rounded to what a profile keeps
    graph = DetectorGraph(engine, detector.memory, header, resize=True)
    assert graph.get_buffer("taps_0").dtype == torch.float32


def test_tiles_are_those_of_the_profile(
    backbone: Backbone, good: list[Path], pictures: list[LoadedImage], tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    detector = make("anomalydino", backbone, tiling=Tiling(40, 0.5)).fit(good, false_alarms=0.2, review=0.5)
    file = written(detector, "onnx", tmp_path)
    assert (file.header.tile, file.header.overlap) == (40, 0.5)
    agree(detector, file.path, [LoadedImage(pictures[1].image.resize((90, 70)))])
    assert export.load_exported(file.path).provenance.tile == 40
    with pytest.raises(UsageError, match=r"tile and value_range cannot be set for .*promise of its profile"):
        export.load_exported(file.path, tile=64, value_range=(0, 9))


def test_tiles_and_a_region_of_interest_are_refused(backbone: Backbone, good: list[Path], tmp_path: Path) -> None:
    detector = make("winclip", backbone, tiling=Tiling(24)).fit(good, roi=LEFT)
    with pytest.raises(UsageError, match="a graph sees one tile without knowing where it lies"):
        export.export(detector, tmp_path / "x.onnx")


def test_a_profile_in_bfloat16_says_what_to_do(backbone: Backbone, good: list[Path], tmp_path: Path) -> None:
    detector = fitted("joint", backbone, good)
    engine = detector.torch_engine
    half = Detector(type(engine)(engine.method, precision="bfloat16")).fit(good)
    with pytest.raises(UsageError, match=r'fit it again so: .*precision="float32"\)\.fit\(good\)'):
        export.export(half, tmp_path / "x.onnx")


def test_a_geometry_that_no_graph_has(backbone: Backbone, good: list[Path], tmp_path: Path) -> None:
    method = methods.create("anomalydino", backbone, config={"size": 296, "rotation": False})
    detector = Detector(TorchEngine(method)).with_references(good)
    with pytest.raises(UsageError, match=r'cannot resize pictures by keep-aspect; .* config \{"geometry": "squash"\}'):
        export.export(detector, tmp_path / "x.onnx")


def test_headers_of_before(backbone: Backbone) -> None:
    """A file of format 2 has no raw map, even with a region of interest."""
    header = export.Header(
        make("clip", backbone).provenance, "metal nut", 296, (0.0, 1.0), roi="AAAA", raw=RAW, tile=40
    )
    values = json.loads(header.to_json())
    assert from_json(header.to_json(), Path("x.onnx")) == header
    for name in ("raw", "geometry", "smoothing", "tile", "overlap"):
        del values[name]
    before = from_json(json.dumps({**values, "format": 2}), Path("x.onnx"))
    assert (before.raw, before.geometry, before.tile) == (MAP, "squash", None)
    with pytest.raises(WeightsError, match="has format 99"):
        from_json(json.dumps({**values, "format": 99}), Path("x.onnx"))
