"""`blemish scan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from blemish.cli import EXIT_FAILED, EXIT_OK, STDIN
from blemish.cli.console import (
    COMPUTING,
    METHOD_OPTIONS,
    PICTURES,
    RESULTS,
    VERDICTS,
    Range,
    Threshold,
    choices,
    config_changes,
    count,
    note,
    one_line,
    print_json,
    progress,
    waiting,
)
from blemish.cli.detect import checked_weights
from blemish.cli.loading_options import BACKBONE, METHOD, OBJECT, load_settings
from blemish.errors import BlemishError, UsageError
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.scan import DetectorOptions, Scan

KINDS = ("map", "map-png", "map-tiff", "heatmap", "overlay", "mask")
#: Failures and suffixes that are named; the others are only counted.
_NAMED = 10


def scan(
    *sources: str,
    out: Annotated[Path, Parameter(group=RESULTS)],
    column: Annotated[str | None, Parameter(group=PICTURES)] = None,
    part_size: Annotated[int, Parameter(group=RESULTS)] = 256,
    shard: Annotated[str | None, Parameter(group=COMPUTING)] = None,
    ray: Annotated[str | None, Parameter(group=COMPUTING)] = None,
    workers: Annotated[int | None, Parameter(group=COMPUTING)] = None,
    retry_failed: Annotated[bool, Parameter(negative="", group=RESULTS)] = False,
    profile: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="", group=VERDICTS)] = None,
    profile_from: Annotated[str | None, Parameter(group=VERDICTS)] = None,
    method: Annotated[str, Parameter(group=METHOD_OPTIONS)] = METHOD,
    backbone: Annotated[str, Parameter(group=METHOD_OPTIONS)] = BACKBONE,
    weights: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    preset: Annotated[Preset | None, Parameter(group=METHOD_OPTIONS)] = None,
    config: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    object_name: Annotated[str, Parameter(name="--object", group=METHOD_OPTIONS)] = OBJECT,
    threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    mask_threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    save: Annotated[str | None, Parameter(group=RESULTS)] = None,
    batch_size: Annotated[int, Parameter(group=COMPUTING)] = 8,
    device: Annotated[str, Parameter(group=COMPUTING)] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Parameter(group=COMPUTING)] = "auto",
    value_range: Annotated[Range, Parameter(group=PICTURES)] = None,
    max_pixels: Annotated[int | None, Parameter(group=PICTURES)] = None,
    reference: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="", group=METHOD_OPTIONS)] = None,
    tile: Annotated[int | None, Parameter(group=PICTURES)] = None,
    overlap: Annotated[float | None, Parameter(group=PICTURES)] = None,
    model: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    backend: Annotated[Literal["torch", "onnx", "openvino"] | None, Parameter(group=METHOD_OPTIONS)] = None,
    json: Annotated[bool, Parameter(group=RESULTS)] = False,
) -> int:
    """Score a large collection.

    Args:
        sources: Folders (with their subfolders), pictures, patterns; lists of paths (.txt, .csv), Parquet files with
            paths or bytes, tar shards (.tar, .tar.gz); the same in object stores (s3://, gs://). Braces count and list:
            shard-{000..127}.tar.
        out: Folder for results.
        column: Column of Parquet and CSV files that holds the pictures. [default: image, bytes, path, ..., the first
            that exists]
        part_size: Pictures of a part, which are scored and written together.
        shard: I/N: score only the I-th of N shares, for N processes on one folder.
        ray: Score on a Ray cluster: auto (that of this machine), local (a new one), or its address.
        workers: Processes of the Ray cluster that score. [default: one for each GPU, or else for each CPU]
        retry_failed: Score the failures of finished parts once more, and nothing else.
        profile: A profile from `blemish fit` for all pictures; with --profile-from several: NAME=FILE, files, or a
            folder of profiles.
        profile_from: Where the name of a picture's profile stands: folder (the name of the folder it lies in), or a
            column of Parquet and CSV files.
        method: Detection method; `blemish methods` lists them.
        backbone: As in detect.
        weights: Weights of the method: a file, or a name from `blemish weights list`. [default: the shipped ones]
        preset: fast scores with the built-in model in at most half the time per picture, a little less accurately.
            [default: default]
        config: Fields of the method's config to change, as JSON: '{"size": 448}'.
        object_name: What the pictures show, such as "metal nut", for methods that use the name.
        threshold: Pictures with this score or a higher one get the label 1; from 0 to 1, or in percent (80%).
        mask_threshold: Threshold for pixels, as a fraction of the method's scale. [default: the picture threshold]
        save: Comma list of map, map-png, map-tiff, heatmap, overlay, mask: files to write for each picture.
        batch_size: Pictures, or tiles, that go through the model together.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower, as in detect.
        value_range: LOW,HIGH: the values that become black and white in pictures of more than 8 bits, as in detect.
        max_pixels: Refuse larger pictures.
        reference: Reference pictures, as in detect: files, folders or patterns.
        tile: Cut larger pictures into tiles of this side in pixels, as in detect.
        overlap: Overlap of neighbouring tiles, as a fraction of their side. [default: 0.25]
        model: A file from `blemish export` (.onnx, .xml) in place of method and backbone.
        backend: Backend that runs the file. [default: onnx or openvino, by the file's name]
        json: Print one JSON object with the counts instead of sentences.
    """
    if STDIN in sources:
        raise UsageError("a scan takes no list on standard input: write it to a file, such as pictures.txt")
    if profile is None and profile_from is not None:
        raise UsageError("--profile-from says which profile a picture has: give the profiles with --profile, too")
    if ray is None and workers is not None:
        raise UsageError("--workers says how many processes of a Ray cluster score: give --ray, too")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    if ray is not None and (shard is not None or retry_failed):
        raise UsageError("--ray scores all parts that are not finished: leave out --shard and --retry-failed")
    settings = load_settings(
        method=method,
        backbone=backbone,
        weights=weights,
        preset=preset,
        config=config,
        object_name=object_name,
        reference=reference,
        profile=profile is not None,
        threshold=threshold,
        mask_threshold=mask_threshold,
        batch_size=batch_size,
        device=device,
        precision=precision,
        max_pixels=max_pixels,
        value_range=value_range,
        tile=tile,
        overlap=overlap,
        model=model,
        backend=backend,
    )
    kinds = [] if save is None else choices("--save", save, KINDS)
    if profile is not None:
        for name in ("tile", "overlap", "value_range"):
            del settings[name]
        detectors = _with_profiles(profile, profile_from, {**settings, "backbone": backbone, "weights": weights})
    else:
        detectors = _without_profile(
            settings, method, backbone, weights, preset, config_changes(config), object_name, reference, model, backend
        )

    from blemish.scan import PartOptions, PlanOptions, Scan, Shard, SourceOptions

    plan_options = PlanOptions(sources, SourceOptions(column, profile_from), part_size)
    part_options = PartOptions(batch_size, tuple(kinds))  # type: ignore[arg-type]
    share = Shard() if shard is None else Shard.parse(shard)
    with waiting("listing the pictures and loading the model"):
        running = Scan(plan_options, out, detectors, part_options, shard=share)
    with running:
        return _Report(running, json, ray, workers).execute(retry_failed)


class _Report:
    """Runs a scan and prints what it does."""

    def __init__(self, scan: Scan, json: bool, address: str | None, workers: int | None) -> None:
        self._scan, self._json, self._address, self._workers = scan, json, address, workers

    def execute(self, retry_failed: bool) -> int:
        """Run the scan and print the summary; return the exit code."""
        scan = self._scan
        self._begin(retry_failed)
        total = sum(scan.plan.rows(number) for number in scan.todo)
        run: Callable[..., object] = scan.execute
        if retry_failed:
            total = sum(facts.failed for facts in scan.finished.values())
            run = scan.retry_failed
        elif self._address is not None:
            from blemish.scan.rays import execute

            run = partial(execute, scan, self._address, workers=self._workers)
        try:
            with progress(total, "scanning") as bar:
                run(on_progress=bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._state("interrupted")) from None
        except BlemishError:
            note(self._state("stopped"))
            raise
        return self._end(retry_failed)

    def _begin(self, retry_failed: bool) -> None:
        scan = self._scan
        facts = scan.plan.facts
        if scan.new:
            note(
                f"{count(facts.pictures, 'picture')} in {count(facts.files, 'source file')}: "
                f"{count(len(scan.plan), 'part')} of up to {scan.sources.part_size:,}."
            )
            if facts.not_read:
                listed = list(facts.not_read.items())
                names = ", ".join(f"{number:,} {one_line(suffix)}" for suffix, number in listed[:_NAMED])
                note(f"Not read: {names}{', ...' if len(listed) > _NAMED else ''}.")
        elif scan.finished and not retry_failed:
            done = sum(part.pictures for part in scan.finished.values())
            note(
                f"{scan.folder.path}: {count(len(scan.finished), 'part')} finished, {count(done, 'picture')}: skipped."
            )
        if sentence := scan.change():
            note(one_line(sentence))

    def _state(self, word: str) -> str:
        scan = self._scan
        total = len(scan.finished) + len(scan.todo)
        return (
            f"{word}: {len(scan.finished):,} of {count(total, 'part')} finished and written to {scan.folder.path}; the "
            "same command continues from there."
        )

    def _end(self, retry_failed: bool) -> int:
        scan, summary = self._scan, self._scan.summary()
        failures = scan.failures(_NAMED) if summary["failed"] else []
        if self._json:
            listed = [{"path": path, "error": error} for path, error in failures]
            print_json({**summary, "first_failures": listed})
        else:
            self._print(summary)
        if failures:
            note(f"{count(summary['failed'], 'picture')} failed (--retry-failed repeats them):")
            for path, reason in failures:
                note(f"  {one_line(path)}: {one_line(reason)}")
            if summary["failed"] > len(failures):
                note(f"  ... and {summary['failed'] - len(failures):,} more, in the column `error`")
        if retry_failed and scan.todo:
            note(f"{count(len(scan.todo), 'part')} are not scored yet: run without --retry-failed.")
        return EXIT_FAILED if failures else EXIT_OK

    def _print(self, summary: Mapping[str, Any]) -> None:
        scan, now = self._scan, summary["this_run"]
        rate = f", {now['pictures'] / now['seconds']:.1f} a second" if now["pictures"] and now["seconds"] else ""
        share = "" if scan.shard.count == 1 else f" of shard {scan.shard.index}/{scan.shard.count}"
        copies = f", {summary['copies']:,} identical to another one" if summary["copies"] else ""
        print(
            f"{count(summary['pictures'], 'picture')}{share} in {count(summary['parts_finished'], 'part')}: "
            f"{summary['anomalous']:,} with label 1, {summary['failed']:,} failed{copies}.\n"
            f"This run: {count(now['pictures'], 'picture')} in {now['seconds']:.1f} s{rate}.\n"
            f"Rows are in {scan.folder.path / 'parts'}."
        )


def _with_profiles(words: list[str], profile_from: str | None, settings: dict[str, Any]) -> DetectorOptions:
    from blemish.scan import DetectorOptions
    from blemish.scan.detectors import profile_files

    files = profile_files(words)
    if profile_from is not None:
        return DetectorOptions(settings, files)
    if len(files) > 1:
        raise UsageError(f"{len(files)} profiles are given: say with --profile-from which picture has which")
    return DetectorOptions({**settings, "profile": next(iter(files.values()))})


def _without_profile(
    settings: dict[str, Any],
    method: str,
    backbone: str,
    weights: Path | None,
    preset: Preset | None,
    changes: dict[str, Any],
    object_name: str,
    reference: list[str] | None,
    model: Path | None,
    backend: str | None,
) -> DetectorOptions:
    from blemish.methods import info
    from blemish.scan import DetectorOptions

    if model is not None:
        return DetectorOptions({**settings, "method": str(model), "backend": backend})
    if info(method).transductive and not reference:
        raise UsageError(
            f"{method} compares pictures with each other, and a scan never has all of them: give --reference"
        )
    info(method).require_references(bool(reference))
    references = None
    if reference:
        from blemish.image_io import find_images

        references = [str(path) for path in find_images(reference, recursive=True)]
    return DetectorOptions(
        {
            **settings,
            "method": method,
            "backbone": backbone,
            "weights": checked_weights(method, backbone, weights, object_name),
            "preset": preset,
            "config": changes or None,
            "object_name": object_name,
            "references": references,
        }
    )
