"""`blemish detect`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from blemish.cli.console import choices, count, note
from blemish.errors import UsageError

KINDS = ("map", "heatmap", "overlay", "mask", "regions")
FORMATS = ("table", "jsonl", "csv", "parquet")
METHOD, BACKBONE, OBJECT = "anomalyclip", "builtin", "object"


def detect(
    *paths: str,
    method: str = METHOD,
    backbone: str = BACKBONE,
    weights: Path | None = None,
    object_name: Annotated[str, Parameter(name="--object")] = OBJECT,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    out: Path | None = None,
    save: str | None = None,
    format: str | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    recursive: bool = False,
    max_pixels: int | None = None,
    reference: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    tile: int | None = None,
    overlap: float | None = None,
    model: Path | None = None,
    backend: Literal["torch", "onnx", "openvino"] | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> int:
    """Score pictures, draw where they are odd, rank them.

    Args:
        paths: Files, folders, patterns ("parts/**/*.jpg"), or - for a list of files on standard input.
        method: How CLIP is asked; `blemish methods` lists them.
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: What the method learnt, if not what is shipped for it: a file, or a name from `blemish weights list`.
        object_name: What the pictures show, such as "metal nut"; used by methods that are told.
        threshold: A picture with this score or a higher one is called anomalous.
        mask_threshold: The same for pixels, as a fraction of the method's scale. [default: that of the pictures]
        out: Folder for results.
        save: Comma list of map, heatmap, overlay, mask, regions: files to write per picture. [default: overlay]
        format: Comma list of table, jsonl, csv, parquet. [default: table,jsonl,csv with --out, else table]
        batch_size: Pictures, or tiles, that go through the model together.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Of the vision tower; auto takes float32 unless there is much to compute and hardware made for less.
        recursive: Look into subfolders.
        max_pixels: Refuse larger pictures; with --tile, those of which more has to be decoded at once.
        reference: Normal pictures of the object for winclip and april-gan, unlabelled ones for musc (which otherwise
            compares the pictures to be scored with each other): files, folders, patterns, several after one another,
            behind the pictures to be scored.
        tile: Cut larger pictures into tiles of this side in pixels, each scored like a picture. TIFF is read in parts,
            whatever its size.
        overlap: Of neighbouring tiles, as a fraction of their side. [default: 0.25]
        model: A file from `blemish export` (.onnx, .xml) in place of method and backbone; its threshold holds unless
            another is given.
        backend: What runs the file. [default: onnx or openvino, by the file's name]
        overwrite: Redo everything, also what is done already.
        json: Print one JSON object per picture on standard output, as they are finished, and nothing else there.
    """
    formats = _formats(format, out, json)
    if batch_size < 1:
        raise UsageError(f"--batch-size is at least 1, not {batch_size}")
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels is at least 1, not {max_pixels}")
    if overlap is not None and tile is None:
        raise UsageError("--overlap is that of tiles: give --tile PIXELS, too")

    from blemish.methods import info

    if model is None and backend not in (None, "torch"):
        raise UsageError(f"--backend {backend} runs an exported file: give --model FILE, from blemish export")
    if model is not None:
        settled = {
            "--method": method != METHOD,
            "--backbone": backbone != BACKBONE,
            "--weights": weights is not None,
            "--object": object_name != OBJECT,
            "--reference": bool(reference),
            "--backend torch": backend == "torch",
        }
        _refuse(settled)
    mutual = model is None and info(method).transductive
    if mutual and tile is not None and not reference:
        raise UsageError(
            f"{method} compares pictures with each other; tiles need to be told with which: give --reference"
        )
    if reference and not paths:
        raise UsageError("say which pictures, before --reference: all words after it are reference pictures")

    from blemish.image_io import MAX_PIXELS, find_images
    from blemish.tiling import OVERLAP, Tiling

    limit, overlap = MAX_PIXELS if max_pixels is None else max_pixels, OVERLAP if overlap is None else overlap
    if tile is not None:
        Tiling(tile, overlap)  # complains now, and not when all is loaded
    exported = None
    if model is not None:
        from blemish.exporting import load_exported

        exported = load_exported(
            model,
            backend=backend,
            threshold=threshold,
            mask_threshold=mask_threshold,
            device=device,
            precision=precision,
            max_pixels=limit,
            tile=tile,
            overlap=overlap,
        )
        threshold, mask_threshold = exported.threshold, exported.mask_threshold  # the file's, if none were given
    kinds = _kinds(save, out, threshold, mask_threshold)
    if exported is None:
        weights = checked_weights(method, backbone, weights, object_name)

    from blemish.cli.sources import absolute, collect, root_of

    sources, left_out = collect(paths, recursive, out)
    if left_out:
        note(f"{count(left_out, 'picture')} in {out} left out: they are results.")
    references = list(find_images(reference, recursive=recursive)) if reference else None
    both = set(map(absolute, references or [])) & set(map(absolute, sources))
    if both and not mutual:
        note(f"{count(len(both), 'picture')} both reference and to be scored: compared with itself it looks flawless.")

    from blemish.cli.job import Job, Order
    from blemish.detector import load

    detector = exported or load(
        method,
        backbone=backbone,
        weights=weights,
        object_name=object_name,
        threshold=threshold,
        mask_threshold=mask_threshold,
        device=device,
        precision=precision,
        max_pixels=limit,
        references=references,
        tile=tile,
        overlap=overlap,
    )
    if mutual and references is None:
        detector = detector.with_set(sources)
        note(_met(method, detector.provenance.references, len(sources)))
    order = Order(
        kinds=kinds,
        formats=formats,
        batch_size=batch_size,
        out=out,
        root=root_of(paths, sources),
        overwrite=overwrite,
        json=json,
    )
    return Job(detector, order).run(sources)


def _met(method: str, known: int, total: int) -> str:
    """What a mutual method was shown of the pictures that are to be scored."""
    if known < 2:
        return f"{method} compares pictures with each other, and no two of these can be read: the words alone judge."
    drawn = (
        f"{count(known, 'picture')} drawn from these {total:,}" if known < total else f"these {count(known, 'picture')}"
    )
    return (
        f"{method} compares each picture with {drawn}; their scores are those of this set (--reference names another)."
    )


def checked_weights(method: str, backbone: str, weights: Path | None, object_name: str) -> Path | None:
    """The file of the weights; complains of unknown names before anything is loaded."""
    from blemish.hub import locate
    from blemish.methods import info

    told = info(method)
    if object_name != OBJECT and not told.needs_object:
        note(f"{method} is told nothing about the object; --object changes nothing.")
    return None if weights is None else locate(weights, method, backbone)


def _refuse(settled: Mapping[str, bool]) -> None:
    """Raise a UsageError for an option that was given, but is settled in the exported file."""
    for option, given in settled.items():
        if given:
            raise UsageError(f"{option} is settled in the exported file: leave it out, or export anew with it")


def _kinds(save: str | None, out: Path | None, threshold: float | None, mask_threshold: float | None) -> list[str]:
    if save is None:
        return ["overlay"] if out is not None else []
    kinds = choices("--save", save, KINDS)
    if out is None:
        raise UsageError("--save needs a folder to write to: give --out DIR")
    if threshold is None and mask_threshold is None:
        for kind in kinds:
            if kind in ("mask", "regions"):
                raise UsageError(
                    f"--save {kind} needs to know from where on a pixel is anomalous: give --threshold NUMBER"
                )
    return kinds


def _formats(format: str | None, out: Path | None, json: bool) -> list[str]:
    if format is None:
        return [] if json and out is None else ["table"] if out is None else ["table", "jsonl", "csv"]
    formats = choices("--format", format, FORMATS)
    if out is None and "parquet" in formats:
        raise UsageError("--format parquet needs a folder to write to: give --out DIR")
    if out is None and len(formats) > 1:
        raise UsageError(
            "without --out there is one standard output for results: choose one --format, or give --out DIR"
        )
    if "parquet" in formats and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--format parquet needs pyarrow; run: pip install 'blemish[parquet]'")
    return formats
