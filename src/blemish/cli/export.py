"""`blemish export`, and the exported file of `blemish detect --model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from blemish.cli.console import count, note, print_json
from blemish.cli.detect import OBJECT, checked_weights
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.exporting import Exported

#: With fewer, the ranges that int8 is fitted to are a matter of luck.
FEW = 32

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def export(
    *,
    out: Path,
    method: str = "anomalyclip",
    to: Literal["onnx", "openvino"] | None = None,
    backbone: str = "builtin",
    weights: Path | None = None,
    object_name: Annotated[str, Parameter(name="--object")] = OBJECT,
    reference: Words = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    int8: Annotated[bool, Parameter(negative="")] = False,
    calibrate: Words = None,
    check: Words = None,
    recursive: bool = False,
    json: bool = False,
) -> int:
    """Write a whole detector to one file for ONNX Runtime or OpenVINO: pictures in, score and map out.

    Args:
        out: The file: x.onnx, or x.xml for OpenVINO, which gets a x.bin beside it.
        method: How CLIP is asked; `blemish methods` lists them.
        to: onnx or openvino. [default: what the file's name says]
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: What the method learnt, if not what is shipped for it: a file, or a name from `blemish weights list`.
        object_name: What the pictures show, such as "metal nut"; folded into the file.
        reference: Normal pictures for winclip and april-gan, unlabelled ones for musc: files, folders, patterns. What
            is kept of them is folded into the file.
        threshold: A picture with this score or a higher one is anomalous: the file then gives the verdict, too.
        mask_threshold: The same for pixels, as a fraction of the method's scale. [default: that of the pictures]
        int8: Compute the linear layers in 8-bit whole numbers; needs --calibrate.
        calibrate: Normal pictures that int8 is fitted to, a hundred or so: files, folders, patterns.
        check: Pictures on which the file is compared with PyTorch. [default: textures made at random]
        recursive: Look into subfolders.
        json: Print one JSON object instead of lines.
    """
    if int8 and not calibrate:
        raise UsageError("--int8 is fitted to pictures of normal things: give --calibrate good/*.png")
    if calibrate and not int8:
        raise UsageError("--calibrate is for --int8: give both or neither")
    if mask_threshold is not None and threshold is None:
        raise UsageError("--mask-threshold in a file goes with one for pictures: give --threshold NUMBER, too")

    from blemish.methods import info

    if info(method).transductive and not reference:
        raise UsageError(
            f"{method} compares pictures with each other: give --reference, unlabelled ones of the same thing"
        )

    from blemish.exporting.backends import choose

    choose(out, to, write=True).need_to_write(int8=int8)

    weights = checked_weights(method, backbone, weights, object_name)

    from blemish.image_io import find_images

    def found(words: list[str] | None) -> list[Path]:
        return list(find_images(words, recursive=recursive)) if words else []

    calibration, checked, references = found(calibrate), found(check), found(reference)
    if int8 and len(calibration) < FEW:
        note(f"{count(len(calibration), 'picture')} to calibrate on are few; a hundred are better.")

    from blemish.detector import load
    from blemish.exporting import save

    detector = load(
        method,
        backbone=backbone,
        weights=weights,
        object_name=object_name,
        threshold=threshold,
        mask_threshold=mask_threshold,
        device="cpu",
        precision="float32",
        references=references or None,
    )
    made = save(detector, out, backend=to, calibrate=calibration, check=checked)
    if json:
        print_json(_facts(made))
    else:
        _say(made)
    return 0


def _facts(made: Exported) -> dict[str, object]:
    parity = made.parity
    return {
        "files": [{"path": str(path), "bytes": path.stat().st_size} for path in made.files],
        "backend": made.backend,
        "fingerprint": made.fingerprint,
        "precision": made.header.precision,
        "object": made.header.object_name,
        "size": made.header.size,
        "outputs": list(made.header.outputs),
        "map_range": list(made.header.map_range),
        "calibration": made.header.calibration,
        "parity": {
            "pictures": parity.pictures,
            "given": parity.given,
            "score": parity.score,
            "map": parity.map,
            "mean_map": parity.mean_map,
        },
    }


def _say(made: Exported) -> None:
    source, parity = made.header.provenance, made.parity
    told = "" if made.header.object_name is None else f" for {made.header.object_name!r}"
    fitted = f", fitted to {count(made.header.calibration, 'picture')}" if made.header.calibration else ""
    sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in made.files)
    shown = count(parity.pictures, "picture") if parity.given else f"{parity.pictures} textures made at random"
    print(f"{sizes}: {source.method}{told} on the backbone {source.backbone} ({source.backbone_fingerprint}),")
    print(f"{made.header.precision}{fitted}; {made.backend}, fingerprint {made.fingerprint}.")
    outputs = ", ".join(made.header.outputs)
    print(f"In: image, (batch, 3, height, width) float32 RGB from 0 to 1, any size. Out: {outputs}.")
    print(
        f"Largest difference from PyTorch on {shown}: score {parity.score:.2g}, map {parity.map:.2g} of its scale "
        f"(mean {parity.mean_map:.2g})."
    )
    if not parity.given:
        note("Give --check PICTURES to compare on pictures of your own.")
