"""Export whole detectors to files for ONNX Runtime and OpenVINO, and load these files as detectors.

    detector = blemish.load("anomalyclip", device="cpu", precision="float32")
    exported = blemish.export(detector, "parts.onnx")
    exported.parity.map                               # the largest difference from PyTorch
    blemish.load("parts.onnx")("part.jpg")

A file contains the vision tower, the text features of one object and the memory bank of the references. It takes an
image and gives score and map; `blemish.exporting.header` has the names of its inputs and outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import OutputError, UsageError, WeightsError
from blemish.exporting.backends import BACKENDS, choose
from blemish.exporting.engine import ExportedEngine, as_input
from blemish.exporting.graph import RESIZINGS
from blemish.exporting.header import MAP, RAW, Header
from blemish.exporting.parity import TOLERANCE, Parity, compare
from blemish.image_io import MAX_PIXELS, read_image
from blemish.profile import Limits, roi_from_text, roi_text
from blemish.tiling import DEFAULT_OVERLAP, Tiling
from blemish.types import ImageSource, ValueRange

__all__ = ["BACKENDS", "Exported", "Header", "Parity", "export", "load_exported"]


@dataclass(frozen=True)
class Exported:
    """A file that `export` wrote."""

    path: Path
    files: tuple[Path, ...]
    """All files of the export; OpenVINO writes two."""
    backend: str
    """"onnx" or "openvino"."""
    header: Header
    fingerprint: str
    """SHA-256 over the bytes of the files, first 16 hex digits."""
    parity: Parity
    """Differences from PyTorch."""


def export(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    calibrate: Sequence[ImageSource] = (),
    check: Sequence[ImageSource] = (),
) -> Exported:
    """Export a detector to a file and compare the file with it; a file that differs is deleted.

    The file contains the detector's object name, thresholds and references.

    Args:
        detector: A detector on the CPU in float32.
        path: File to write, .onnx or .xml (OpenVINO, which writes a .bin beside it).
        backend: "onnx" or "openvino"; None chooses by the path.
        calibrate: Normal images to calibrate int8 on, a hundred or so; empty for float32.
        check: Images to compare on; empty for random textures.

    Raises:
        UsageError: The detector is not on the CPU in float32, the method cannot be exported, or a package is missing.
        ImageError: One of the images cannot be read.
        OutputError: The file cannot be written, or gives other results than the detector.
    """
    path = Path(path)
    writer, engine = choose(path, backend, write=True), detector.engine
    writer.require_to_write(int8=len(calibrate) > 0)
    if not isinstance(engine, TorchEngine) or str(engine.device) != "cpu" or engine.provenance.precision != "float32":
        how = 'blemish.load(..., device="cpu", precision="float32")'
        remedy = f"load it so: {how}" if detector.profile is None else f"fit it again so: {how}.fit(good)"
        raise UsageError(f"a detector is exported from PyTorch on the CPU in float32: {remedy}")
    method, geometry = engine.method, engine.method.computation.geometry
    if geometry not in RESIZINGS:
        raise UsageError(
            f"{method.info.name} cannot be exported as it is configured: a graph cannot resize pictures by "
            f'{geometry}; load it, or fit, with the config {{"geometry": "squash"}}'
        )
    if engine.finishes_maps and method.map_smoothing is None:
        raise UsageError(f"{method.info.name} cannot be exported: it finishes maps in a way that no graph can")
    limits, roi, tiling = detector.limits, detector.limits.roi, detector.tiling
    if roi is not None and tiling is not None:
        raise UsageError(
            "the profile has a region of interest and tiles, and a graph sees one tile without knowing where it lies: "
            "fit again without one of the two"
        )
    header = Header(
        provenance=replace(detector.provenance, tile=None, overlap=None),
        object_name=detector.object_name if engine.needs_object else None,
        size=engine.size,
        map_range=engine.map_range(detector.memory),
        threshold=detector.threshold,
        mask_threshold=detector.mask_threshold,
        calibration=len(calibrate),
        display_range=engine.display_range(detector.memory),
        limits=limits.to_dict() if limits.scores else None,
        roi=None if roi is None else roi_text(roi),
        raw=MAP if method.map_smoothing is None and roi is None else RAW,
        geometry=geometry,
        smoothing=method.map_smoothing,
        tile=None if tiling is None else tiling.side,
        overlap=None if tiling is None else tiling.overlap,
    )
    options: dict[str, Any] = {"max_pixels": detector.max_pixels, "value_range": detector.value_range}
    for source in (*calibrate, *check):  # fail for a broken image before minutes of work, not after
        read_image(source, **options)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = _CalibrationImages(engine, calibrate, detector.max_pixels, detector.value_range)
        writer.load().write(engine, detector.memory, header, partial, images if calibrate else None)
        written = ExportedEngine(writer.load().read(partial, "cpu", "float32"), writer, partial)
        check_images = (read_image(source, **options) for source in check) if check else None
        parity = compare(engine, written, check_images, detector.object_name, detector.memory, roi)
        if not header.calibration and not max(parity.score, parity.map) <= TOLERANCE:
            raise OutputError(
                f"{path} is not written: its scores differ by {parity.score:.2g} and its maps by {parity.map:.2g} from "
                "PyTorch's; try the other backend",
                path,
            )
        for file, final in zip(writer.files(partial), writer.files(path), strict=True):
            file.replace(final)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", path) from error
    finally:
        for file in writer.files(partial):
            file.unlink(missing_ok=True)
    fingerprint = written.provenance.model_fingerprint or ""
    return Exported(path, writer.files(path), writer.name, header, fingerprint, parity)


def load_exported(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    tile: int | None = None,
    overlap: float | None = None,
) -> Detector:
    """Load an exported file as a detector; it gives the same detections as the exported detector.

    Args:
        path: The .onnx or .xml file.
        backend: "onnx" or "openvino"; None chooses by the path. OpenVINO runs .onnx files, too.
        threshold: As in `blemish.load`; None for the file's own, if it has one.
        mask_threshold: As in `blemish.load`; None for `threshold` or, if that is None too, the file's own.
        device: "auto" (the CPU), "cpu", "cuda" for ONNX Runtime, or a device of OpenVINO ("gpu", "npu").
        precision: "auto" or "float32"; OpenVINO also "bfloat16".
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`; None for the file's own, if it has one.
        tile: As in `blemish.load`; None for the file's own, if it has one.
        overlap: As in `blemish.load`; None for the file's own or the default.

    Raises:
        UsageError: There is no such file, backend, device or precision, or a package is missing.
        WeightsError: The file is damaged, or blemish did not write it.
    """
    path = Path(path)
    reader = choose(path, backend, write=False)
    if missing := [file for file in reader.files(path) if not file.is_file()]:
        raise UsageError(f"there is no file {missing[0]}; check the path")
    engine = ExportedEngine(reader.load().read(path, device, precision), reader, path)
    header = engine.header
    if threshold is None and mask_threshold is None and header.limits is None:
        threshold, mask_threshold = header.threshold, header.mask_threshold
    given = {"tile": tile is not None, "value_range": value_range is not None}
    if header.limits is not None and (names := [name for name, is_given in given.items() if is_given]):
        raise UsageError(
            f"{' and '.join(names)} cannot be set for {path}, since the promise of its profile holds for what it was "
            "fitted with; leave out, or fit and export again"
        )
    tile, overlap = (header.tile, header.overlap) if tile is None else (tile, overlap)
    tiling = None if tile is None else Tiling(tile, DEFAULT_OVERLAP if overlap is None else overlap)
    try:
        roi = None if header.roi is None else roi_from_text(header.roi)
        limits = None if header.limits is None else Limits.from_dict(header.limits, roi)
    except Exception as error:  # whatever a decoder raises on damaged values
        raise WeightsError(f"{path} has damaged metadata ({error}): export it again", path) from error
    return Detector(
        engine,
        limits=limits,
        object_name=header.object_name or "object",
        threshold=threshold,
        mask_threshold=mask_threshold,
        max_pixels=max_pixels,
        value_range=header.provenance.value_range if value_range is None else value_range,
        tiling=tiling,
    )


class _CalibrationImages:
    """Images as a graph takes them, (1, 3, S, S) each; they are read one at a time, since there may be thousands."""

    def __init__(
        self, engine: TorchEngine, sources: Sequence[ImageSource], max_pixels: int, value_range: ValueRange | None
    ) -> None:
        self._size, self._sources = engine.size, sources
        self._geometry = engine.method.computation.geometry
        self._max_pixels, self._value_range = max_pixels, value_range

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for source in self._sources:
            image = read_image(source, max_pixels=self._max_pixels, value_range=self._value_range).image
            pixels: NDArray[np.float32] = as_input(image, self._size, self._geometry).numpy()
            yield pixels
