"""`blemish evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import Range, Threshold, columns, config_changes, count, note, one_line, print_json, progress
from blemish.errors import BlemishError, UsageError
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.detector import Detector
    from blemish.evaluation import Evaluation, EvaluationOptions, Run
    from blemish.evaluation.batches import BatchResult
    from blemish.evaluation.shots import ShotResult

#: Categories in a table on the terminal; the files have all.
MAX_CATEGORIES = 40
#: Method of the batch protocol.
BATCH_METHOD = "musc"


def evaluate(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    category: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    methods: str | None = None,
    profile: Path | None = None,
    backbone: str = "builtin",
    weights: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    preset: Preset | None = None,
    config: str | None = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str = "test",
    maps: bool = False,
    aupro: Literal["exact", "200"] | None = None,
    masks: Literal["map", "full"] | None = None,
    more_metrics: bool = False,
    mask_threshold: Annotated[str | None, Parameter(negative="")] = None,
    shots: str | None = None,
    seeds: int = 3,
    false_alarms: Threshold = None,
    defect_shares: str | None = None,
    report: bool = False,
    recompute: bool = False,
    value_range: Range = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    json: bool = False,
) -> int:
    """Measure methods on a labelled data set, beside published numbers.

    Args:
        data: Folder of the data set, laid out as it is distributed.
        dataset: Name of the data set, such as mvtec or visa; `blemish datasets` lists them. [default: folder]
        category: Categories to evaluate, separated by spaces or commas. [default: all]
        methods: Comma-separated methods, or all. [default: anomalyclip; with --shots the method of `blemish fit`; with
            --defect-shares musc]
        profile: A profile from `blemish fit` in place of methods: measured false alarms stand beside the promised ones.
            Pictures are cut into tiles if the profile was made with tiles.
        backbone: `builtin`, or any CLIP model or, for methods without words, DINOv2: a hub id, a folder, a checkpoint
            file.
        weights: Weights of a method in place of those that blemish ships: METHOD=FILE, several separated by spaces.
        preset: fast measures the built-in model at the smaller input of that preset. [default: default]
        config: Fields of methods' configs to change, as JSON by method: '{"musc": {"whole_set": true}}'.
        out: Folder for scores, tables and the report.
        limit: Maximum number of pictures per category, drawn at random.
        seed: Seed of that draw and of the bootstrap.
        split: Split of the data set: test, train, validation.
        maps: Keep all anomaly maps, so that pixel metrics can be recomputed without the model.
        aupro: exact, or 200 for the papers' approximation in 200 steps. [default: exact]
        masks: map reduces masks to the size of the anomaly maps, as papers do; full enlarges the maps to the size of
            each picture, so that small defects count. [default: map]
        more_metrics: Compute PG2, PB2, AUPRO up to 0.05 and AUPIMO too, and how much the best method is ahead of the
            others.
        mask_threshold: Measure the masks at this threshold, fixed beforehand: SegF1, ClassF1, recall and false alarms.
            mebin gives each map a threshold of its own, and promises nothing.
        shots: Few-shot protocol: numbers of good pictures that are references, such as 1,2,4,8,16. They are drawn from
            the train split, or set aside from the good test pictures.
        seeds: Number of draws of these references, or of these sets.
        false_alarms: False-alarm rate that profiles of the references promise: 5% or 0.05. [default: the smallest that
            so many pictures can promise, 1% at least]
        defect_shares: Batch protocol: shares of defects in the sets that methods such as musc compare with themselves,
            such as 10%,30%,60%.
        report: Write one self-contained page, report.html, into the folder.
        recompute: Compute all numbers again from the folder, without the model.
        value_range: LOW,HIGH: the values that become black and white in pictures of 10 to 16 bits and of floating
            point, such as 0,4095. [default: what the file says, else by bit depth]
        batch_size: Number of pictures that go through the model together.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower; auto takes float32 unless the backbone is large and the hardware has
            units for bfloat16.
        json: Print one JSON object per row on standard output, and nothing else there.
    """
    if report and out is None:
        raise UsageError("--report needs a folder to write to: give --out DIR")
    if maps and out is None:
        raise UsageError("--maps needs a folder to write to: give --out DIR")
    method_names = _words(methods)
    mask_level = None if mask_threshold is None else _mask_threshold(mask_threshold)
    if recompute:
        if out is None:
            raise UsageError("--recompute needs the folder of an evaluation: give --out DIR")
        from blemish import evaluation

        result = evaluation.recompute(
            out,
            data=data,
            methods=method_names,
            aupro=aupro,
            masks=masks,
            more_metrics=more_metrics,
            mask_threshold=mask_level,
            report=report,
        )
        return _print_result(result, report, json)
    if data is None:
        raise UsageError("there is no data set to evaluate: give --data PATH")
    if limit is not None and limit < 2:
        raise UsageError(f"--limit must be at least 2 pictures per category, not {limit}")
    weights_of = _weights(weights or [])
    if shots is None and false_alarms is not None:
        raise UsageError("--false-alarms belongs to the few-shot protocol: give --shots 1,2,4,8,16")
    if shots is None and defect_shares is None and seeds != 3:
        raise UsageError("--seeds belongs to a protocol: give --shots 1,2,4,8,16 or --defect-shares 10%,30%,60%")
    if profile is not None and (shots is not None or defect_shares is not None):
        raise UsageError("the protocols fit profiles of their own: leave out --profile, or --shots and --defect-shares")
    if shots is not None and defect_shares is not None:
        raise UsageError("--shots and --defect-shares are two protocols: give one of them")
    configs = config_changes(config)
    if wrong := [name for name, fields in configs.items() if not isinstance(fields, dict)]:
        raise UsageError(
            f'--config holds the fields of each method: write it like \'{{"{wrong[0]}": {{"size": 336}}}}\''
        )

    from blemish.evaluation import EvaluationOptions, prepare, write_results
    from blemish.loading import FIT_METHOD

    options = EvaluationOptions(
        data,
        dataset or "folder",
        categories=[word for words in category for word in _words(words) or []] if category else None,
        methods=method_names or [FIT_METHOD if shots else BATCH_METHOD if defect_shares else "anomalyclip"],
        profile=profile,
        backbone=backbone,
        weights=weights_of,
        preset=preset,
        configs=configs,
        out=out,
        limit=limit,
        seed=seed,
        maps=maps,
        aupro=aupro or "exact",
        masks=masks or "map",
        more_metrics=more_metrics,
        mask_threshold=mask_level,
        report=report,
        split=split,
        value_range=value_range,
        batch_size=batch_size,
        device=device,
        precision=precision,
    )
    if shots is not None or defect_shares is not None:
        if report or maps or more_metrics or mask_threshold is not None or limit is not None:
            protocol = "--shots" if shots is not None else "--defect-shares"
            raise UsageError(
                f"{protocol} goes with none of --report, --maps, --more-metrics, --mask-threshold, --limit"
            )
        if shots is not None:
            return _evaluate_shots(options, _numbers(shots), seeds, false_alarms, json)
        return _evaluate_batches(options, _shares(defect_shares or ""), seeds, json)
    with prepare(options) as run:
        _announce(run, out)
        try:
            with progress(run.todo, "scoring") as advance:
                result = run.execute(advance)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_state(run, "interrupted", out)) from None
        except BlemishError:
            if run.done:
                note(_state(run, "stopped", out))
            raise
        write_results(result, run.folder, run.dataset, report=report)
    return _print_result(result, report, json)


def _words(given: str | None) -> list[str] | None:
    if given is None:
        return None
    return [word.strip() for word in given.split(",") if word.strip()]


def _mask_threshold(given: str) -> float | Literal["mebin"]:
    from blemish.types import parse_threshold

    return "mebin" if given == "mebin" else parse_threshold("--mask-threshold", given)


def _numbers(given: str) -> list[int]:
    try:
        return [int(word) for word in _words(given) or []]
    except ValueError:
        raise UsageError(f"--shots takes numbers of pictures such as 1,2,4,8,16, not {given!r}") from None


def _shares(given: str) -> list[float]:
    from blemish.types import parse_threshold

    shares = [parse_threshold("--defect-shares", word) for word in _words(given) or []]
    if not shares or not all(0 < share < 1 for share in shares):
        raise UsageError(f"--defect-shares takes shares such as 10%,30%,60%, not {given!r}")
    return shares


def _protocol_detectors(options: EvaluationOptions, kind: Literal["few_shot", "transductive"]) -> dict[str, Detector]:
    """Return the detectors of a protocol; of all methods those that are of its kind."""
    from blemish.clip import load_backbone
    from blemish.evaluation import load_detectors

    detectors, left_out = load_detectors(
        options.methods,
        load_backbone(str(options.backbone)),
        weights=options.weights,
        preset=options.preset,
        configs=options.configs,
        max_pixels=options.max_pixels,
        device=options.device,
        precision=options.precision,
    )
    for name, reason in left_out.items():
        note(f"{name} is left out: {reason}.")
    if list(options.methods) != ["all"]:
        return detectors
    return {name: d for name, d in detectors.items() if getattr(d.torch_engine.method.info, kind)}


def _protocol_facts(options: EvaluationOptions, detectors: Mapping[str, Detector], **more: object) -> dict[str, object]:
    methods = {name: detector.provenance.to_dict() for name, detector in detectors.items()}
    return {"data": str(options.data), "dataset": options.dataset, "methods": methods, **more}


def _evaluate_batches(options: EvaluationOptions, shares: Sequence[float], seeds: int, json: bool) -> int:
    """Run the batch protocol and print its table."""
    from blemish.evaluation.batches import evaluate_batches

    detectors = _protocol_detectors(options, "transductive")
    with _steps("sets") as steps:
        result = evaluate_batches(detectors, **_protocol_options(options), shares=shares, seeds=seeds, **steps)
    facts = _protocol_facts(options, detectors, seeds=seeds, shares=list(shares))
    tables = [("Means over categories, percent (± over draws of the sets)", *result.means(), {0})]
    return _finish_protocol(result, "batches", tables, "", options, facts, json)


def _evaluate_shots(
    options: EvaluationOptions, shots: Sequence[int], seeds: int, false_alarms: float | None, json: bool
) -> int:
    """Run the few-shot protocol and print its tables."""
    from blemish.evaluation.shots import evaluate_shots

    detectors = _protocol_detectors(options, "few_shot")
    with _steps("scoring") as steps:
        result = evaluate_shots(
            detectors,
            **_protocol_options(options),
            shots=shots,
            seeds=seeds,
            false_alarms=false_alarms,
            **steps,
        )
    facts = _protocol_facts(options, detectors, seeds=seeds, false_alarms=false_alarms)
    head, body = result.promises()
    tables = [
        ("Means over categories, percent (± over draws of the references)", *result.means(), {0}),
        ("Promise against measured false alarms, percent", head, body[:MAX_CATEGORIES], {0, 1}),
    ]
    return _finish_protocol(result, "few_shot", tables, result.summary(), options, facts, json)


def _protocol_options(options: EvaluationOptions) -> dict[str, Any]:
    """Return the arguments that both protocols take."""
    return {
        "data": options.data,
        "dataset": options.dataset,
        "categories": options.categories,
        "split": options.split,
        "out": options.out,
    }


@contextmanager
def _steps(label: str) -> Iterator[dict[str, Any]]:
    """Yield `on_total` and `on_progress`, which show a bar as soon as the number of steps is known."""
    with ExitStack() as stack:
        bars: list[Callable[[], object]] = []
        yield {
            "on_total": lambda total: bars.append(stack.enter_context(progress(total, label))),
            "on_progress": lambda: bars[0](),
        }


def _finish_protocol(
    result: BatchResult | ShotResult,
    name: str,
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]], Set[int]]],
    summary: str,
    options: EvaluationOptions,
    facts: Mapping[str, object],
    json: bool,
) -> int:
    """Write and print the result of a protocol."""
    if options.out is not None:
        result.write(options.out, facts)
    if json:
        for row in result.rows:
            print_json(row.to_dict())
    else:
        for title, head, body, left in tables:
            if body:
                _print_table(title, head, body, left=left)
        if summary:
            print(summary)
    for line in (*result.notes, *result.failures):
        note(one_line(line))
    if options.out is not None:
        message = f"Results are in {options.out}: {name}.csv, {name}.json, {name}.md."
        note(message) if json else print(message)
    return EXIT_FAILED if result.failures else EXIT_OK


def _weights(given: Sequence[str]) -> dict[str, Path]:
    weights = {}
    for word in given:
        method, equals, file = word.partition("=")
        if not (method and equals and file):
            raise UsageError(f"--weights takes METHOD=FILE, not {word!r}")
        weights[method] = Path(file)
    return weights


def _announce(run: Run, out: Path | None) -> None:
    """Print what will be done, and which methods share a pass."""
    dataset, facts = run.dataset, run.facts()
    pictures, anomalous = count(len(dataset), "picture"), sum(sample.label for sample in dataset)
    categories = f" in {len(run.categories)} categories" if len(run.categories) > 1 else ""
    note(f"{facts['dataset_title']} ({dataset.split}): {pictures}{categories}, {anomalous:,} anomalous.")
    for sentence in dataset.notes:
        note(sentence)
    if dataset.issues:
        note(f"{count(len(dataset.issues), 'file')} with a problem, such as {one_line(str(dataset.issues[0]))}.")
    for method, reason in facts["left_out"].items():
        note(f"{method} is left out: {reason}.")
    passes = "1 backbone pass" if len(run.passes) == 1 else f"{len(run.passes)} backbone passes"
    note(f"{passes} per picture for {count(len(run.detectors), 'method')}:")
    for backbone_pass in run.passes:
        note(f"  {backbone_pass}")
    if run.reused:
        note(f"{out}: {count(run.reused, 'score')} of {run.reused + run.todo:,} are there already.")


def _state(run: Run, event: str, out: Path | None) -> str:
    """Return a sentence for a run that ends early."""
    failed = f", {run.failed:,} failed" if run.failed else ""
    state = f"{event}: {count(run.done + run.reused, 'score')} finished{failed}, {run.todo:,} to do"
    if out is None:
        return f"{state}; nothing is kept without --out."
    return f"{state}; finished scores are kept in {out}, and the same command continues from there."


def _print_result(result: Evaluation, report: bool, json: bool) -> int:
    from blemish.evaluation import tables

    if json:
        for row in result.rows:
            print_json(row.to_dict())
    else:
        _print_tables(result)
        print(tables.summary(result))
        for line in tables.verdicts(result):
            print(line)
    for line in tables.reasons(result):
        note(one_line(line))
    if result.folder is not None:
        files = ["results.csv", "results.json", "results.md", "scores.jsonl", *["report.html"] * report]
        (note if json else print)(f"Results are in {result.folder}: {', '.join(files)}.")
    return EXIT_FAILED if result.failed else EXIT_OK


def _print_tables(result: Evaluation) -> None:
    from blemish.evaluation import tables
    from blemish.evaluation.result import TITLES

    facts = result.facts
    title = f"{facts.get('dataset_title', facts.get('dataset'))}, mean over categories, percent"
    _print_table(title, *tables.means(result))
    head, body = tables.more(result)
    if body:
        _print_table("More metrics, percent", head, body[:MAX_CATEGORIES], left={0, 1})
    head, body = tables.differences(result)
    if body:
        _print_table("Differences on the same pictures, percent", head, body, left={0, 1})
    for metric in ("image_auroc", "pixel_aupro") if len(result.categories) > 1 else ():
        head, body = tables.by_category(result, metric)
        if body:
            *categories, mean = body
            _print_table(f"{TITLES[metric]} by category, percent", head, [*categories[:MAX_CATEGORIES], mean])
            if len(categories) > MAX_CATEGORIES:
                print(f"... and {len(categories) - MAX_CATEGORIES} more categories in results.csv\n")
    head, body = tables.published(result, means_only=True)
    if body:
        _print_table("Published numbers of the same methods, percent", head, body, left={0, 1, 5, 6, 7})
        for sentence in tables.caution(result):
            print(f"{sentence}\n")


def _print_table(
    title: str, head: Sequence[str], body: Sequence[Sequence[str]], left: Set[int] = frozenset({0})
) -> None:
    right = [column for column in range(len(head)) if column not in left]
    text = columns([head, *body], right)
    if sys.stdout.isatty() and len(text.partition("\n")[0]) > get_terminal_size().columns:
        first, last = zip(*(name.rpartition(" ")[::2] for name in head), strict=True)
        text = columns([first, last, *body], right)
    print(f"{title}\n{text}\n")
