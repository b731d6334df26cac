"""`blemish export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from blemish.cli.console import Threshold, count, note, print_json
from blemish.cli.detect import checked_weights
from blemish.cli.loading_options import METHOD, OBJECT, refuse_fixed
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.exporting import Exported

#: With fewer calibration pictures a note is printed: the ranges of int8 then depend on chance.
MIN_CALIBRATION = 32
#: Methods of profiles whose steps no graph can express.
NOT_EXPORTED = ("anomalydino", "joint")

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def export(
    *,
    out: Path,
    method: str = METHOD,
    to: Literal["onnx", "openvino"] | None = None,
    backbone: str = "builtin",
    weights: Path | None = None,
    object_name: Annotated[str, Parameter(name="--object")] = OBJECT,
    reference: Words = None,
    profile: Path | None = None,
    threshold: Threshold = None,
    mask_threshold: Threshold = None,
    int8: Annotated[bool, Parameter(negative="")] = False,
    calibrate: Words = None,
    check: Words = None,
    recursive: bool = False,
    json: bool = False,
) -> int:
    """Write a whole detector, from picture to score and map, to one file for ONNX Runtime or OpenVINO.

    Args:
        out: File to write: x.onnx, or x.xml for OpenVINO, which writes x.bin beside it.
        method: The method; `blemish methods` lists them.
        to: onnx or openvino. [default: by the suffix of the file]
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: Weights of the method: a file, or a name from `blemish weights list`. [default: the shipped ones]
        object_name: Name of the object, such as "metal nut"; it is constant in the file.
        reference: Reference pictures, normal ones for few-shot methods and unlabelled ones for methods that need a set:
            files, folders, patterns. Their memory bank goes into the file.
        profile: A profile from `blemish fit --precision float32` in place of method, object and references. The file
            gives labels and masks by its thresholds, and keeps to its region of interest.
        threshold: Score from which on a picture is anomalous; the file then gives labels and masks, too.
        mask_threshold: The same for pixels, as a fraction of the method's scale. [default: --threshold]
        int8: Compute the linear layers in 8-bit integers; needs --calibrate.
        calibrate: Normal pictures to calibrate int8 on, a hundred or so: files, folders, patterns.
        check: Pictures on which the file is compared with PyTorch. [default: random textures]
        recursive: Include subfolders.
        json: Print one JSON object instead of lines.
    """
    if int8 and not calibrate:
        raise UsageError("--int8 is calibrated on normal pictures: give --calibrate good/*.png")
    if calibrate and not int8:
        raise UsageError("--calibrate is for --int8: give both or neither")
    if mask_threshold is not None and threshold is None:
        raise UsageError("--mask-threshold needs a threshold for pictures: give --threshold NUMBER, too")

    from blemish.methods import info

    if profile is not None:
        given = {"--method": method != METHOD, "--object": object_name != OBJECT, "--reference": bool(reference)}
        refuse_fixed(given, "the profile", "fit")
    elif info(method).transductive and not reference:
        raise UsageError(
            f"{method} compares pictures with each other: give --reference, unlabelled ones of the same thing"
        )
    if profile is None:
        info(method).require_references(bool(reference))

    from blemish.exporting.backends import choose

    choose(out, to, write=True).require_to_write(int8=int8)

    if profile is None:
        weights = checked_weights(method, backbone, weights, object_name)

    from blemish.image_io import find_images

    def images(words: list[str] | None) -> list[Path]:
        return list(find_images(words, recursive=recursive)) if words else []

    calibration, checked, references = images(calibrate), images(check), images(reference)
    if int8 and len(calibration) < MIN_CALIBRATION:
        note(f"{count(len(calibration), 'picture')} to calibrate on is little; a hundred are better.")

    from blemish.exporting import export as export_detector
    from blemish.loading import load

    common: dict[str, Any] = {
        "backbone": backbone,
        "weights": weights,
        "threshold": threshold,
        "mask_threshold": mask_threshold,
        "device": "cpu",
        "precision": "float32",
    }
    if profile is not None:
        _require_exportable(profile)
        detector = load(profile=profile, **common)
        if int8:
            note("int8 changes scores a little, so the promise of the profile holds only about.")
    else:
        detector = load(method, object_name=object_name, references=references or None, **common)
    exported = export_detector(detector, out, backend=to, calibrate=calibration, check=checked)
    if json:
        print_json(_facts(exported))
    else:
        _print(exported)
    return 0


def _require_exportable(path: Path) -> None:
    """Raise a UsageError for a profile of which no file can be made, before anything is loaded."""
    from blemish.profile import read_profile

    profile = read_profile(path)
    if profile.method in NOT_EXPORTED:
        raise UsageError(
            f"{path} is a profile of {profile.method}, which no file for ONNX Runtime or OpenVINO can express: fit "
            "with --method winclip, april-gan or subspacead, and --precision float32"
        )
    if profile.precision != "float32":
        raise UsageError(
            f"{path} was made in {profile.precision}, and exported files compute in float32: fit again with "
            "--precision float32"
        )


def _facts(exported: Exported) -> dict[str, object]:
    header = exported.header
    return {
        "files": [{"path": str(path), "bytes": path.stat().st_size} for path in exported.files],
        "backend": exported.backend,
        "fingerprint": exported.fingerprint,
        "precision": header.precision,
        "object": header.object_name,
        "size": header.size,
        "outputs": list(header.outputs),
        "map_range": list(header.map_range),
        "calibration": header.calibration,
        "parity": dataclasses.asdict(exported.parity),
    }


def _print(exported: Exported) -> None:
    header, source, parity = exported.header, exported.header.provenance, exported.parity
    named = "" if header.object_name is None else f" for {header.object_name!r}"
    calibrated = f", calibrated on {count(header.calibration, 'picture')}" if header.calibration else ""
    sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in exported.files)
    images = count(parity.pictures, "picture") if parity.given else f"{parity.pictures} random textures"
    print(f"{sizes}: {source.method}{named} on the backbone {source.backbone} ({source.backbone_fingerprint}),")
    print(f"{header.precision}{calibrated}; {exported.backend}, fingerprint {exported.fingerprint}.")
    outputs = ", ".join(header.outputs)
    print(f"Input: image, (batch, 3, height, width) float32 RGB from 0 to 1, any size. Outputs: {outputs}.")
    print(
        f"Largest difference from PyTorch on {images}: score {parity.score:.2g}, map {parity.map:.2g} of its scale "
        f"(mean {parity.mean_map:.2g})."
    )
    if not parity.given:
        note("Give --check PICTURES to compare on pictures of your own.")
