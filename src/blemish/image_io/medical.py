"""DICOM and NIfTI (extra `medical`). blemish is not a medical device: its scores are no diagnosis."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from blemish.errors import ImageError
from blemish.image_io.pillow import check_size, note_number
from blemish.image_io.values import Samples, Statistics
from blemish.types import ValueRange

NOTICE = "blemish is not a medical device: scores of medical pictures are no diagnosis"
"""Shown wherever medical pictures are read."""


def read_dicom(
    stream: IO[bytes], index: int, name: str, path: str | None, max_pixels: int | None, notes: list[str]
) -> Samples:
    """Read a frame of a DICOM file.

    Values are rescaled to their unit (Hounsfield units, ...), and their range is that of the file's window, else of the
    bits that are stored. MONOCHROME1 is inverted; palettes and YBR become RGB.

    Args:
        stream: The file.
        index: Number of the frame, from 0; -1 for the first.
        name: Name of the picture in errors.
        path: Its file.
        max_pixels: As in `read_image`.
        notes: What was done is added.

    Raises:
        ImageError: It holds no picture, is too large, or needs a decoder that is not installed.
    """
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about details of the header that change no pixel
        data = pydicom.dcmread(stream, force=True)
        if "PixelData" not in data or "Rows" not in data:
            raise ImageError(f"{name} is DICOM without a picture; leave it out.", path)
        check_size((int(data.Columns), int(data.Rows)), name, path, max_pixels)
        frames, number = int(data.get("NumberOfFrames", 1) or 1), max(index, 0)
        if number >= frames:
            raise ImageError(f"{name} has no picture {number + 1}; give a smaller number.", path)
        try:
            values = pixel_array(data, index=number)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            syntax = getattr(data.file_meta.get("TransferSyntaxUID"), "name", "unknown")
            raise ImageError(
                f"{name} is compressed as {syntax}, for which no decoder is installed; pip install "
                "pylibjpeg-libjpeg (GPL) reads most, or save it uncompressed.",
                path,
            ) from error
        note_number(number, frames, "frame", notes)
        notes.append(NOTICE)
        colours = str(data.get("PhotometricInterpretation", ""))
        if colours == "PALETTE COLOR":
            return Samples(apply_color_lut(values, data).astype(np.uint16), "DICOM", (0.0, 65535.0))
        if values.ndim == 3:
            return Samples(values, "DICOM", (0.0, float(2 ** int(data.BitsStored) - 1)))
        stored = _stored_range(data)
        slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
        values = apply_rescale(values, data)
    declared = _window(data) or (stored[0] * slope + intercept, stored[1] * slope + intercept)
    return Samples(values, "DICOM", (min(declared), max(declared)), inverted=colours == "MONOCHROME1", trusted=True)


def _stored_range(data: Any) -> ValueRange:
    bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation", 0)) == 1
    return (-float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)) if signed else (0.0, float(2**bits - 1))


def _window(data: Any) -> ValueRange | None:
    """Return the first window of the header (DICOM PS3.3 C.11.2.1.2); None if it has none."""
    with contextlib.suppress(TypeError, ValueError, AttributeError, IndexError):
        centre, width = (_first(data.get(key)) for key in ("WindowCenter", "WindowWidth"))
        if str(data.get("VOILUTFunction", "LINEAR")) == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if width > 0 and math.isfinite(centre) and math.isfinite(width):
            return centre - width / 2, centre + width / 2
    return None


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


def count_dicom(file: str) -> int:
    """Return the number of frames of a DICOM file."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(pydicom.dcmread(file, force=True, stop_before_pixels=True).get("NumberOfFrames", 1) or 1)


def read_nifti(file: str, index: int, name: str, path: str | None, max_pixels: int | None, notes: list[str]) -> Samples:
    """Read an axial slice of a NIfTI volume, with the patient's front at the top.

    All slices of a volume have one range: the header's `cal_min` and `cal_max`, else that of the volume without
    outermost values that would stretch it.

    Args:
        file: The file.
        index: Number of the slice, from 0, volume after volume; -1 for the middle of the first.
        name: Name of the picture in errors.
        path: Its file, as it was given.
        max_pixels: As in `read_image`.
        notes: What was done is added.

    Raises:
        ImageError: There is no such slice, or it is too large.
    """
    status = os.stat(file)  # noqa: PTH116
    volume, declared = _load_nifti(file, status.st_mtime_ns, status.st_size)
    slices, total = volume.shape[2], volume.shape[2] * volume.shape[3]
    if index >= total:
        raise ImageError(f"{name} has no slice {index + 1}; it has {total:,}.", path)
    check_size((volume.shape[0], volume.shape[1]), name, path, max_pixels)
    number = slices // 2 if index < 0 else index
    values = np.asarray(volume[:, :, number % slices, number // slices])
    notes.append(f"slice {number + 1:,} of {total:,}")
    notes.append(NOTICE)
    return Samples(values.T[::-1, ::-1], "NIfTI", declared, trusted=True)


@functools.lru_cache(maxsize=2)
def _load_nifti(file: str, modified: int, size: int) -> tuple[npt.NDArray[Any], ValueRange | None]:
    """Return a volume (X, Y, Z, T), axes to the right, to the front and up, and its range.

    Time and size of the file are part of the key, so that a changed file is read again.
    """
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(file))
    values = np.asarray(image.dataobj)
    if values.dtype.kind not in "uif":
        raise ValueError("not one number per voxel")
    while values.ndim < 3:
        values = values[..., None]
    volume = values.reshape(*values.shape[:3], -1, order="F")
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    if math.isfinite(low) and math.isfinite(high) and low < high:
        return volume, (low, high)
    finite = volume[np.isfinite(volume)] if volume.dtype.kind == "f" else volume
    if not finite.size:
        return volume, None
    statistics = Statistics(finite.size, repr(file), file)
    statistics.add(finite)
    low, high = statistics.trimmed()
    return volume, (float(low), float(high)) if low < high else None


def count_nifti(file: str) -> int:
    """Return the number of slices of a NIfTI file, over all of its volumes."""
    import nibabel

    shape = nibabel.load(file).shape
    return math.prod(shape[2:]) if len(shape) > 2 else 1
