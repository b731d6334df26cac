"""Whole detectors as files for ONNX Runtime and OpenVINO, and these files as detectors.

    detector = blemish.load("anomalyclip", device="cpu", precision="float32")
    made = export.save(detector, "parts.onnx")
    made.parity.map                                   # the largest difference from PyTorch
    export.load_exported("parts.onnx").detect("part.jpg")

In a file lie the vision tower, the text features of one object and, few-shot, what was kept of the references. Picture
in, score and map out; see `blemish.exporting.header` for the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import OutputError, UsageError
from blemish.exporting.backends import BACKENDS, choose
from blemish.exporting.engine import ExportedEngine, as_input
from blemish.exporting.header import Header
from blemish.exporting.parity import TOLERANCE, Parity, compare
from blemish.image_io import MAX_PIXELS, read_image
from blemish.tiles import OVERLAP, Tiling
from blemish.types import ImageSource

__all__ = ["BACKENDS", "Exported", "Header", "Parity", "load_exported", "save"]


@dataclass(frozen=True)
class Exported:
    """What `save` made."""

    path: Path
    files: tuple[Path, ...]
    """All of them: OpenVINO writes two."""
    backend: str
    header: Header
    fingerprint: str
    parity: Parity


def save(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    calibrate: Sequence[ImageSource] = (),
    check: Sequence[ImageSource] = (),
) -> Exported:
    """Write a detector to a file and compare the file with it; a file that differs is not kept.

    The detector's object and thresholds go into the file.

    Args:
        detector: On the CPU in float32.
        path: Ends with .onnx or .xml (OpenVINO, which writes a .bin beside it).
        backend: "onnx" or "openvino"; None: by the path.
        calibrate: Pictures of normal things that int8 is fitted to; none: float32. A hundred are enough.
        check: Pictures that the file is compared on; none: textures made at random.

    Raises:
        UsageError: The detector is not on the CPU in float32, the method cannot be exported, a package is missing.
        ImageError: One of the pictures cannot be read.
        OutputError: The file cannot be written, or gives other results than the detector.
    """
    path = Path(path)
    chosen, engine = choose(path, backend, write=True), detector.engine
    chosen.need_to_write(int8=len(calibrate) > 0)
    if not isinstance(engine, TorchEngine) or str(engine.device) != "cpu" or engine.provenance.precision != "float32":
        raise UsageError('a detector is exported from PyTorch on the CPU: load it with device="cpu", "float32"')
    header = Header(
        provenance=replace(detector.provenance, tile=None, overlap=None),
        object_name=detector.object_name if engine.needs_object else None,
        size=engine.size,
        map_range=engine.map_range(detector.memory),
        threshold=detector.threshold,
        mask_threshold=detector.mask_threshold,
        calibration=len(calibrate),
    )
    for one in (*calibrate, *check):  # a broken one is to be known before minutes of work, not after
        read_image(one, max_pixels=detector.max_pixels)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = _Pictures(engine, calibrate, detector.max_pixels)
        chosen.load().write(engine, detector.memory, header, partial, pictures if calibrate else None)
        written = ExportedEngine(chosen.load().read(partial, "cpu", "float32"), chosen, partial)
        shown = (read_image(one, max_pixels=detector.max_pixels) for one in check) if check else None
        parity = compare(engine, written, shown, detector.object_name, detector.memory)
        if not header.calibration and not max(parity.score, parity.map) <= TOLERANCE:
            raise OutputError(
                f"{path} is not written: its scores differ by {parity.score:.2g} and its maps by {parity.map:.2g} from "
                "PyTorch's; try the other backend",
                path,
            )
        for found, final in zip(chosen.files(partial), chosen.files(path), strict=True):
            found.replace(final)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", path) from error
    finally:
        for left in chosen.files(partial):
            left.unlink(missing_ok=True)
    made = written.provenance.model_fingerprint or ""
    return Exported(path, chosen.files(path), chosen.name, header, made, parity)


def load_exported(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
    tile: int | None = None,
    overlap: float = OVERLAP,
) -> Detector:
    """Make a detector of an exported file; it gives the same detections as the one it was made of.

    Args:
        path: The .onnx or .xml file.
        backend: "onnx" or "openvino"; None: by the path. OpenVINO runs .onnx files, too.
        threshold: As in `blemish.load`; None: the file's own, if it was exported with one.
        mask_threshold: The same for pixels; without both it is the file's own, else `threshold`.
        device: "auto" (the CPU), "cpu", "cuda" for ONNX Runtime, or a device of OpenVINO ("gpu", "npu").
        precision: "auto" or "float32"; OpenVINO also "bfloat16".
        max_pixels: As in `blemish.load`.
        tile: As in `blemish.load`.
        overlap: As in `blemish.load`.

    Raises:
        UsageError: There is no such file, backend, device or precision, or a package is missing.
        WeightsError: It is damaged, or blemish did not write it.
    """
    path = Path(path)
    chosen = choose(path, backend, write=False)
    tiling = None if tile is None else Tiling(tile, overlap)
    if missing := [one for one in chosen.files(path) if not one.is_file()]:
        raise UsageError(f"there is no file {missing[0]}; check the path")
    engine = ExportedEngine(chosen.load().read(path, device, precision), chosen, path)
    header = engine.header
    if threshold is None and mask_threshold is None:
        threshold, mask_threshold = header.threshold, header.mask_threshold
    return Detector(
        engine,
        object_name=header.object_name or "object",
        threshold=threshold,
        mask_threshold=mask_threshold,
        max_pixels=max_pixels,
        tiling=tiling,
    )


class _Pictures:
    """Pictures as a graph takes them, (1, 3, S, S) each, read when they are asked for: thousands may be given."""

    def __init__(self, engine: TorchEngine, sources: Sequence[ImageSource], max_pixels: int) -> None:
        self._size, self._sources, self._max_pixels = engine.size, sources, max_pixels

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for source in self._sources:
            picture = read_image(source, max_pixels=self._max_pixels)
            pixels: NDArray[np.float32] = as_input(picture.image, self._size).numpy()
            yield pixels
