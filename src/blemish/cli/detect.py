"""`blemish detect`."""

from __future__ import annotations

import importlib.util
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    Bar,
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
from blemish.cli.loading_options import BACKBONE, METHOD, OBJECT, load_settings
from blemish.cli.ranking import counted, name_failures, note_failures, print_csv, ranking, total_failures, verdicts
from blemish.errors import BlemishError, UsageError
from blemish.files import absolute
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.cli.sources import Sources
    from blemish.image_io import Every, PassedOver
    from blemish.outputs.run import DetectRun, State

KINDS = ("map", "map-png", "map-tiff", "heatmap", "overlay", "mask", "regions")
REGION_FORMATS = ("coco", "yolo", "labelme", "cvat", "label-studio")
FORMATS = ("table", "jsonl", "csv", "parquet", *REGION_FORMATS)

#: The note on a bit depth that was found by the values.
_DEPTH = re.compile(r" read as (\d+) bits,")


def detect(
    *paths: str,
    method: Annotated[str, Parameter(group=METHOD_OPTIONS)] = METHOD,
    backbone: Annotated[str, Parameter(group=METHOD_OPTIONS)] = BACKBONE,
    weights: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    preset: Annotated[Preset | None, Parameter(group=METHOD_OPTIONS)] = None,
    config: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    object_name: Annotated[str, Parameter(name="--object", group=METHOD_OPTIONS)] = OBJECT,
    profile: Annotated[Path | None, Parameter(group=VERDICTS)] = None,
    threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    mask_threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    out: Annotated[Path | None, Parameter(group=RESULTS)] = None,
    save: Annotated[str | None, Parameter(group=RESULTS)] = None,
    format: Annotated[str | None, Parameter(group=RESULTS)] = None,
    maps: Annotated[bool, Parameter(negative="--no-maps", group=RESULTS)] = True,
    batch_size: Annotated[int, Parameter(group=COMPUTING)] = 8,
    device: Annotated[str, Parameter(group=COMPUTING)] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Parameter(group=COMPUTING)] = "auto",
    recursive: Annotated[bool, Parameter(group=PICTURES)] = False,
    value_range: Annotated[Range, Parameter(group=PICTURES)] = None,
    pages: Annotated[bool, Parameter(negative="", group=PICTURES)] = False,
    every: Annotated[str | None, Parameter(group=PICTURES)] = None,
    max_pixels: Annotated[int | None, Parameter(group=PICTURES)] = None,
    reference: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="", group=METHOD_OPTIONS)] = None,
    tile: Annotated[int | None, Parameter(group=PICTURES)] = None,
    overlap: Annotated[float | None, Parameter(group=PICTURES)] = None,
    model: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    backend: Annotated[Literal["torch", "onnx", "openvino"] | None, Parameter(group=METHOD_OPTIONS)] = None,
    overwrite: Annotated[bool, Parameter(group=RESULTS)] = False,
    report: Annotated[bool, Parameter(negative="", group=RESULTS)] = False,
    json: Annotated[bool, Parameter(group=RESULTS)] = False,
) -> int:
    """Score pictures, rank them, and draw where they are anomalous.

    Args:
        paths: Files, folders, patterns ("parts/**/*.jpg"), or - for a list of files on standard input.
        method: Detection method; `blemish methods` lists them.
        backbone: `builtin`, or any CLIP model or, for methods without words, DINOv2: a hub id, a folder, a checkpoint
            file.
        weights: Weights of the method, in place of those that ship with blemish: a file, or a name from
            `blemish weights list`.
        preset: fast scores with the built-in model in at most half the time per picture, a little less accurately.
            [default: default]
        config: Fields of the method's config to change, as JSON: '{"size": 448}'.
        object_name: What the pictures show, such as "metal nut", for methods that use the name.
        profile: A profile from `blemish fit` in place of method, object and references. Its thresholds apply unless
            others are given, which promise nothing.
        threshold: Pictures with this score or a higher one are rejected; from 0 to 1, or in percent (80%).
        mask_threshold: Threshold for pixels, as a fraction of the method's scale. [default: the picture threshold]
        out: Folder for results.
        save: Comma list of map, map-png, map-tiff, heatmap, overlay, mask, regions: files to write for each picture.
            [default: overlay]
        format: Comma list of table, jsonl, csv, parquet, and of coco, yolo, labelme, cvat, label-studio for regions.
            [default: table,jsonl,csv with --out, else table]
        maps: Keep the map of each picture with --out, 16-bit PNG of about 0.1 MB: `blemish judge` gives other verdicts
            with them. Maps of pictures in tiles take 1 MB per megapixel.
        batch_size: Pictures, or tiles, that go through the model together.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower; auto is float32, or bfloat16 where the hardware computes it faster.
        recursive: Search subfolders, too.
        value_range: LOW,HIGH: the values that become black and white in pictures of 10 to 16 bits and of floating
            point, such as 0,4095. [default: what the file says, else by bit depth]
        pages: Take all pages, slices or frames of a file as pictures of their own, not only the first.
        every: Frames of videos: every N-th, one in so many seconds (0.5s), or motion for those that differ from the
            last one taken. Videos in folders are read only with it. [default: 1s]
        max_pixels: Refuse larger pictures; with --tile, refuse those of which more must be decoded at once.
        reference: Reference pictures: normal ones for few-shot methods, unlabelled ones for transductive methods (which
            otherwise compare the pictures to be scored with each other). Files, folders or patterns, after the pictures
            to be scored.
        tile: Cut larger pictures into tiles of this side in pixels, and score each like a picture. TIFF of any size is
            read in parts.
        overlap: Overlap of neighbouring tiles, as a fraction of their side. [default: 0.25]
        model: A file from `blemish export` (.onnx, .xml) in place of method and backbone. Its threshold applies unless
            another is given.
        backend: Backend that runs the file. [default: onnx or openvino, by the file's name]
        overwrite: Repeat everything, including what is complete.
        report: Write report.html, one page without network to look at the results, move the threshold and review them.
        json: Print one JSON object per picture on standard output, as soon as it is scored, and nothing else there. The
            first one says what was not read, under "skipped".
    """
    formats, changes = _formats(format, out, json), config_changes(config)
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

    from blemish.methods import info

    transductive = model is None and profile is None and info(method).transductive
    if transductive and tile is not None and not reference:
        raise UsageError(
            f"{method} compares pictures with each other, which does not work with tiles: give --reference"
        )
    if model is None and profile is None and not transductive:
        info(method).require_references(bool(reference))
    if reference and not paths:
        raise UsageError("give the pictures to be scored before --reference: all words after it are references")

    from blemish.image_io import Every, find_images

    frames = None if every is None else Every.parse("--every", every)
    detector = None
    if model is not None:
        from blemish.exporting import load_exported

        detector = load_exported(model, backend=backend, **settings)
        threshold, mask_threshold = detector.threshold, detector.mask_threshold  # the file may have its own
    read = None
    if profile is not None:
        from blemish.profile import read_profile

        read = read_profile(profile)
    limited = read is not None or threshold is not None or mask_threshold is not None
    kinds = _kinds(save, out, limited)
    if report and out is None:
        raise UsageError("--report needs a folder to write to: give --out DIR")
    if maps and out is not None and "map-png" not in kinds:
        kinds.append("map-png")
    for name in () if limited else REGION_FORMATS:
        if name in formats:
            raise UsageError(f"--format {name} needs a threshold for pixels: give --threshold NUMBER or --profile FILE")
    if detector is None and read is None:
        weights = checked_weights(method, backbone, weights, object_name)

    from blemish.cli.sources import Sources, collect, require_stdin, root_of

    # Lines of standard input are answered one by one, unless all have to be known first.
    stream = list(paths) == [STDIN] and _streams_json(formats, out, json) and not (transductive and not reference)
    if stream:
        require_stdin()
    sources = Sources() if stream else collect(paths, recursive, out, pages=pages, every=frames)
    pictures = sources.pictures
    for sentence in sources.notes:
        note(one_line(sentence))
    if sources.left_out:
        note(f"{count(sources.left_out, 'picture')} in {out} skipped: they are results.")
    references = list(find_images(reference, recursive=recursive)) if reference else None
    both = set(map(absolute, references or [])) & set(map(absolute, pictures))
    if both and not transductive:
        note(
            f"{count(len(both), 'picture')} given as references and to be scored: a picture that is compared with "
            "itself seems flawless."
        )

    from blemish.loading import load
    from blemish.outputs.run import DetectOptions, DetectRun

    with waiting("loading the model"):
        if read is not None:
            for name in ("tile", "overlap", "value_range"):
                del settings[name]
            detector = load(profile=read, backbone=backbone, weights=weights, **settings)
        if detector is None:
            detector = load(
                method,
                backbone=backbone,
                weights=weights,
                preset=preset,
                config=changes or None,
                object_name=object_name,
                references=references,
                **settings,
            )
        if transductive and references is None:
            detector = detector.with_set(pictures)
            info(method).require_references(detector.memory is not None)
            note(_set_note(method, detector.provenance.references, len(pictures)))
    options = DetectOptions(
        kinds=kinds,  # type: ignore[arg-type]
        tables=[name for name in formats if name not in ("table", "jsonl")] if out is not None else [],  # type: ignore[misc]
        batch_size=batch_size,
        root=None if stream else root_of(paths, pictures),
        overwrite=overwrite,
        page=report,
        times=sources.times,
    )
    start = time.perf_counter()
    with DetectRun(detector, pictures, out, options) as run:
        output = _Report(run, formats, json, sources)
        return output.answer(pages, frames, start) if stream else output.execute(len(pictures), start)


def _streams_json(formats: Sequence[str], out: Path | None, json: bool) -> bool:
    """Return whether results are printed as JSON as they come."""
    return json or (out is None and "jsonl" in formats)


class _Report:
    """Runs a `DetectRun` and prints what it does."""

    def __init__(self, run: DetectRun, formats: Sequence[str], json: bool, sources: Sources) -> None:
        self._run, self._formats, self._sources = run, formats, sources
        self._streams_json = _streams_json(formats, run.folder, json)
        self._lines: list[Mapping[str, Any]] = []  # for CSV on standard output
        self._scored = 0  # of earlier lines of standard input, as are these
        self._verdicts: Counter[str | None] = Counter()
        self._untold: PassedOver | None = sources.passed_over
        self._depths: Counter[str] = Counter()
        self._medical = False
        self._known = 0
        self._bar = Bar()

    def execute(self, total: int, start: float) -> int:
        """Score the pictures and print the summary; return the exit code."""
        run = self._run
        if run.folder is not None:
            self._note_states()
        try:
            with progress(len(run.todo) + len(run.to_judge), "scoring") as bar:
                self._bar = bar
                run.execute(self._on_result(), bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._state(total, "interrupted")) from None
        except BlemishError:
            if run.results:
                note(self._state(total, "stopped"))
            raise
        self._print_summary(time.perf_counter() - start)
        if foreign := run.detector.foreign(run.usual):
            note(one_line(foreign))
        self._note_known()
        self._advise()
        return EXIT_FAILED if run.failures else EXIT_OK

    def _advise(self) -> None:
        """Say in one line what would help, after a plain ranking for a person."""
        detector, results = self._run.detector, self._run.results
        source = detector.provenance
        is_plain = detector.threshold is None and not source.references and source.model is None
        if is_plain and results and "table" in self._formats and not self._streams_json:
            from blemish.cli.advice import advice

            print(advice(list(results)))

    def answer(self, pages: bool, every: Every | None, start: float) -> int:
        """Score the pictures that standard input lists, each as soon as its line is complete; return the exit code."""
        from blemish.cli.sources import listed_on_stdin
        from blemish.image_io import expand

        run, failed = self._run, 0
        try:
            for paths in listed_on_stdin():
                expanded = expand(paths, pages=pages, every=every)
                for sentence in expanded.notes:
                    note(one_line(sentence))
                run.extend(expanded.paths, expanded.times)
                run.score(self._on_result())
                self._scored += len(run.results)
                self._verdicts += counted(run.results.values())
                failed += len(run.failures)
                name_failures(run.failures)
                run.results.clear()  # the list may be endless
                run.failures.clear()
        except KeyboardInterrupt:
            run.write_tables()
            raise KeyboardInterrupt(self._state(None, "interrupted")) from None
        run.write_tables()
        run.write_page()
        self._note_others()
        self._print_summary(time.perf_counter() - start)
        self._note_known()
        if failed:
            note(f"{total_failures(failed, self._scored)}.")
        return EXIT_FAILED if failed else EXIT_OK

    def _on_result(self) -> Callable[[dict[str, Any]], object]:
        take: Callable[[dict[str, Any]], object] = lambda line: None  # noqa: E731
        if self._streams_json:
            take = self._print_json
        elif self._run.folder is None and "csv" in self._formats:
            take = self._lines.append
        elif "table" in self._formats:
            take = self._show

        def on_result(line: dict[str, Any]) -> None:
            take(line)
            self._watch(line.get("notes", ()))

        return on_result

    def _print_json(self, line: dict[str, Any]) -> None:
        """Print a result; the first one says what was not read, too."""
        passed_over, self._untold = self._untold, None
        if passed_over:
            from blemish.cli.sources import not_read_json

            line = {**line, "skipped": not_read_json(passed_over)}
        print_json(line)

    def _show(self, line: dict[str, Any]) -> None:
        """Show a result above the bar as it comes; the ranking follows at the end."""
        score = "failed" if line.get("error") is not None else f"{line['score']:.4f}"
        self._bar.show(f"{score}  {one_line(str(line['path']))}")

    def _watch(self, notes: Sequence[str]) -> None:
        """Keep what the notes of a picture mean for the whole run."""
        from blemish.detector import AMONG_GOOD

        for text in notes:
            if match := _DEPTH.search(text):
                self._depths[match[1]] += 1
            self._medical = self._medical or "not a medical device" in text
            self._known += text == AMONG_GOOD

    def _note_states(self) -> None:
        """Report what becomes of earlier results, before anything is overwritten."""
        folder, overwrite = self._run.folder, self._run.options.overwrite
        sentences: dict[State, str] = {
            "same": "complete with the same settings: "
            + ("overwritten" if overwrite else "skipped (--overwrite repeats all)"),
            "other thresholds": "scored before: judged again by the thresholds of now, without the model",
            "files to draw": "scored before without all the files requested now: drawn without the model",
            "other settings": "scored before with other settings: repeated, earlier results are replaced",
            "changed file": "changed since: repeated, earlier results are replaced",
            "missing files": "scored before without all the files requested now: repeated",
        }
        for state, sentence in sentences.items():
            if self._run.states[state]:
                note(f"{folder}: {count(self._run.states[state], 'picture')} {sentence}.")
        self._note_others()

    def _note_known(self) -> None:
        """Say so if good pictures of the profile were scored: a picture seems flawless beside itself."""
        if self._known:
            note(
                f"{count(self._known, 'picture')} of these made the profile: a picture that is compared with itself "
                "seems flawless."
            )

    def _note_others(self) -> None:
        """Say which results of other pictures stay in the folder."""
        run = self._run
        for source, number in run.others().items():
            note(f"{run.folder}: keeps {count(number, 'result')} of other pictures, from {run.describe(source)}.")

    def _state(self, total: int | None, word: str) -> str:
        """Return one sentence for a run that ends early."""
        finished = self._scored + len(self._run.results)
        of = "" if total is None else f" of {total:,}"
        done = f"{word}: {finished:,}{of} picture{'s' * ((total or finished) != 1)} finished"
        if self._run.folder is None:
            return f"{done}; nothing is written without --out."
        return f"{done} and written to {self._run.folder}; the same command continues from there."

    def _print_summary(self, seconds: float) -> None:
        run = self._run
        if not self._streams_json:
            if "table" in self._formats:
                print(ranking(run.results.values(), p_values=bool(run.detector.limits.scores)))
            elif run.folder is None and "csv" in self._formats:
                print_csv(self._lines)
        from blemish.cli.sources import not_read

        output = print if "table" in self._formats and not self._streams_json else note
        output(self._scored_by(seconds))
        if (typical := run.detector.typical_score) is not None:
            method = run.detector.provenance.method
            output(f"For comparison: undamaged things mostly score below {typical:g} with {method}.")
        if skipped := not_read(self._sources.passed_over):
            output(skipped)
        if len(self._depths) > 1:
            depths = ", ".join(f"{depth} bits: {number:,}" for depth, number in sorted(self._depths.items()))
            output(
                f"Pictures were read by different bit depths ({depths}), each by its own values: --value-range "
                "LOW,HIGH reads all alike."
            )
        if self._medical:
            from blemish.image_io.medical import NOTICE

            note(f"{NOTICE[0].upper()}{NOTICE[1:]}.")
        if run.folder is not None:
            output(f"Results are in {run.folder}: {', '.join(run.written)}.")
        note_failures(run.failures, len(run.results))

    def _scored_by(self, seconds: float) -> str:
        detector, results = self._run.detector, self._run.results
        source = detector.provenance
        weights = f" (weights {source.weights}, {source.weights_fingerprint})" if source.weights else ""
        references = (
            f" with {count(source.references, 'reference')} ({source.references_fingerprint})"
            if source.references
            else ""
        )
        exported = f" as {source.model} ({source.model_fingerprint}) by {source.backend}" if source.model else ""
        preset = "" if source.preset in (None, "default") else f", preset {source.preset}"
        limits = detector.limits
        verdict = "ranked only, since no threshold was given"
        if detector.threshold is not None:
            counts = self._verdicts + counted(results.values())
            limit = "" if limits.promise is not None else f" at threshold {detector.threshold:.6g}"
            verdict = f"{verdicts(counts, review=limits.review_threshold is not None)}{limit}"
        total = count(self._scored + len(results), "picture")
        return (
            f"{total}, {verdict}. Scored by {source.method}{weights}{references} "
            f"on the backbone {source.backbone} ({source.backbone_fingerprint}){preset}{exported}, "
            f"{source.precision} on {source.device}, in {seconds:.1f} s."
        )


def _set_note(method: str, references: int, total: int) -> str:
    """Return a sentence on the pictures that a transductive method compares with."""
    if references < 2:
        return (
            f"{method} compares pictures with each other, and fewer than two of these can be read: they are scored "
            "without comparison."
        )
    sample = (
        f"{count(references, 'picture')} drawn from these {total:,}"
        if references < total
        else f"these {count(references, 'picture')}"
    )
    return f"{method} compares each picture with {sample}; scores hold within this set (--reference gives another set)."


def checked_weights(method: str, backbone: str, weights: Path | None, object_name: str) -> Path | None:
    """Return the file of the weights; unknown names are reported before anything is loaded."""
    from blemish.hub import locate
    from blemish.methods import info

    if object_name != OBJECT and not info(method).needs_object:
        note(f"{method} does not use the object name; --object changes nothing.")
    return None if weights is None else locate(weights, method, backbone)


def _kinds(save: str | None, out: Path | None, limited: bool) -> list[str]:
    if save is None:
        return ["overlay"] if out is not None else []
    kinds = choices("--save", save, KINDS)
    if out is None:
        raise UsageError("--save needs a folder to write to: give --out DIR")
    if not limited:
        for kind in kinds:
            if kind in ("mask", "regions"):
                raise UsageError(f"--save {kind} needs a threshold for pixels: give --threshold NUMBER")
    return kinds


def _formats(format: str | None, out: Path | None, json: bool) -> list[str]:
    if format is None:
        return [] if json and out is None else ["table"] if out is None else ["table", "jsonl", "csv"]
    formats = choices("--format", format, FORMATS)
    for name in ("parquet", *REGION_FORMATS):
        if out is None and name in formats:
            raise UsageError(f"--format {name} needs a folder to write to: give --out DIR")
    if out is None and len(formats) > 1:
        raise UsageError("without --out only one format can be printed: choose one --format, or give --out DIR")
    if "parquet" in formats and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--format parquet needs pyarrow; run: pip install 'blemish[parquet]'")
    return formats
