"""`blemish export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from blemish.cli.console import Threshold, count, note, one_line, print_json, progress
from blemish.cli.detect import checked_weights
from blemish.cli.loading_options import METHOD, OBJECT, refuse_fixed
from blemish.errors import UsageError
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.detector import Detector
    from blemish.exporting import Exported
    from blemish.profile import Profile

#: With fewer calibration pictures a note is printed: the ranges of int8 then depend on chance.
MIN_CALIBRATION = 32

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def export(
    *,
    out: Path,
    method: str = METHOD,
    to: Literal["onnx", "openvino"] | None = None,
    backbone: str = "builtin",
    weights: Path | None = None,
    preset: Preset | None = None,
    object_name: Annotated[str, Parameter(name="--object")] = OBJECT,
    reference: Words = None,
    profile: Path | None = None,
    good: Words = None,
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
        preset: fast writes the built-in model at the smaller input of that preset. [default: default]
        object_name: Name of the object, such as "metal nut"; it is constant in the file.
        reference: Reference pictures, normal ones for few-shot methods and unlabelled ones for methods that need a set:
            files, folders, patterns. Their memory bank goes into the file.
        profile: A profile from `blemish fit` in place of method, object and references. The file gives labels and masks
            by its thresholds, and keeps to its region of interest. A profile in bfloat16 is fitted again in float32, in
            which files compute, from its good pictures.
        good: These good pictures: files, folders, patterns. [default: the files that the profile names]
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
        given = {
            "--method": method != METHOD,
            "--preset": preset is not None,
            "--object": object_name != OBJECT,
            "--reference": bool(reference),
        }
        refuse_fixed(given, "the profile", "fit")
    elif good:
        raise UsageError("--good gives the good pictures of a profile: give --profile FILE, too, or --reference")
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
        detector = _of_profile(profile, images(good), out, common)
        if int8:
            note("int8 changes scores a little, so the promise of the profile holds only about.")
    else:
        detector = load(method, preset=preset, object_name=object_name, references=references or None, **common)
    exported = export_detector(detector, out, backend=to, calibrate=calibration, check=checked)
    if json:
        print_json(_facts(exported))
    else:
        _print(exported)
    return 0


def _of_profile(path: Path, good: list[Path], out: Path, options: dict[str, Any]) -> Detector:
    """Return the detector of a profile in float32; one in another precision is fitted again.

    Args:
        path: The profile.
        good: Its good pictures; empty for the files that it names.
        out: The file to write, for messages.
        options: Of `blemish.load`.
    """
    from blemish.loading import load
    from blemish.profile import read_profile

    profile = read_profile(path)
    if profile.precision == "float32":
        if good:
            raise UsageError(f"{path} is in float32 and needs no good pictures: leave out --good")
        return load(profile=profile, **options)
    pictures = good or _named_pictures(profile, path, out)
    detector = _fitted_again(profile, pictures, options)
    refitted = detector.profile
    assert refitted is not None
    for sentence in refitted.notes:
        note(one_line(sentence))
    known, given = ({picture.fingerprint for picture in each.good} for each in (profile, refitted))
    if known != given:
        strange, missing = len(given - known), len(known - given)
        note(f"These are not the pictures of {path}: {strange} are new and {missing} are missing.")
    old, new = (_number(each.limits.threshold) for each in (profile, refitted))
    note(
        f"{path} was made in {profile.precision} and is fitted again in float32, from "
        f"{count(len(refitted.good), 'picture')}: the file rejects from a score of {new}, and {path} from {old}."
    )
    return detector


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _named_pictures(profile: Profile, path: Path, out: Path) -> list[Path]:
    """Return the files that a profile names as its good pictures. Raises UsageError if one is not there."""
    files = [Path(entry.name) for entry in profile.good]
    if gone := [file for file in files if not file.is_file()]:
        raise UsageError(
            f"{path} was made in {profile.precision}, files compute in float32, and of its good pictures {gone[0]} is "
            f"not here to fit it again: run blemish export --profile {path} --good GOOD... --out {out}"
        )
    return files


def _fitted_again(profile: Profile, pictures: list[Path], options: dict[str, Any]) -> Detector:
    """Return a detector that is fitted as a profile was, in float32."""
    from blemish.fitting import made_with
    from blemish.limits import LABELLED_RULES
    from blemish.loading import DEFAULT_BACKBONE, load
    from blemish.types import DEFAULT_OVERLAP

    rule = profile.options.get("rule", "conformal")
    if rule in LABELLED_RULES or profile.limits.removed:
        reason = f"by the rule {rule}, from pictures with defects" if rule in LABELLED_RULES else "with --robust"
        raise UsageError(
            f"{profile.path} was made in {profile.precision} {reason}, and files compute in float32: run the same "
            "blemish fit again with --precision float32"
        )
    thresholds = {name: options[name] for name in ("threshold", "mask_threshold")}
    if options["backbone"] == DEFAULT_BACKBONE:
        options = {**options, "backbone": profile.backbone}
    tiling = profile.tiling
    detector = load(
        profile.method,
        config=profile.config,
        object_name=profile.object_name,
        value_range=profile.value_range,
        tile=None if tiling is None else tiling.side,
        overlap=DEFAULT_OVERLAP if tiling is None else tiling.overlap,
        **{name: value for name, value in options.items() if name not in thresholds},
    )
    engine = detector.torch_engine
    facts = {**made_with(engine.provenance), "preprocessing": engine.preprocessing}
    profile.check({**facts, "precision": profile.precision})
    with progress(len(pictures), "fitting") as advance:
        detector = detector.fit(pictures, **profile.options, roi=profile.limits.roi, on_progress=advance)
    assert detector.profile is not None
    return detector.with_profile(detector.profile, **thresholds)


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
        "threshold": header.threshold,
        "mask_threshold": header.pixel_threshold,
        "tile": header.tile,
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
    if header.threshold is not None and header.pixel_threshold is not None:
        print(f"Label from a score of {header.threshold:.4f}, mask from a map value of {header.pixel_threshold:.4f}.")
    if header.tile is not None:
        print(f"The file takes one tile of a picture that is cut into tiles of {header.tile} pixels.")
    print(
        f"Largest difference from PyTorch on {images}: score {parity.score:.2g}, map {parity.map:.2g} of its scale "
        f"(mean {parity.mean_map:.2g})."
    )
    if not parity.given:
        note("Give --check PICTURES to compare on pictures of your own.")
