"""`blemish evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import count, note, one_line, print_json, progress
from blemish.errors import BlemishError, UsageError

if TYPE_CHECKING:
    from blemish.evaluation import Evaluation, Run

#: Columns of the tables where the output is no terminal.
WIDE = 200


def evaluate(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    category: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    methods: str | None = None,
    backbone: str = "builtin",
    weights: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str = "test",
    maps: bool = False,
    aupro: Literal["exact", "200"] | None = None,
    report: bool = False,
    recompute: bool = False,
    batch_size: int = 8,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    json: bool = False,
) -> int:
    """Measure how well methods do on a labelled data set, beside what was published.

    Args:
        data: Where the data set lies, as it is distributed.
        dataset: Its name, such as mvtec or visa; `blemish datasets` lists them. [default: folder]
        category: Only these categories; several after one another or with commas.
        methods: Comma list of methods, or all. [default: anomalyclip]
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: What a method learnt, if not what is shipped for it: METHOD=FILE, several after one another.
        out: Folder for scores, tables and report.
        limit: At most so many pictures of each category, drawn at random.
        seed: Of that draw, and of the bootstrap.
        split: Of the data set: test, train, validation.
        maps: Keep all anomaly maps, so that pixel metrics can be recomputed without the model.
        aupro: exact, or 200 for the papers' approximation in 200 steps. [default: exact]
        report: Write one self-contained page, report.html, into the folder.
        recompute: Make all numbers anew from the folder, without the model.
        batch_size: Pictures that go through the model together.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Of the vision tower; auto takes float32 unless there is much to compute and hardware made for less.
        json: Print one JSON object per row on standard output, and nothing else there.
    """
    if report and out is None:
        raise UsageError("--report needs a folder to write to: give --out DIR")
    if maps and out is None:
        raise UsageError("--maps needs a folder to write to: give --out DIR")
    wanted = _words(methods)
    if recompute:
        if out is None:
            raise UsageError("--recompute needs the folder of an evaluation: give --out DIR")
        from blemish.evaluation import recompute as again

        result = again(out, data=data, methods=wanted, aupro=aupro, report=report)
        return _tell(result, report, json)
    if data is None:
        raise UsageError("say where the data set lies: give --data PATH")
    learnt = _weights(weights or [])

    from blemish.evaluation import prepared, tables

    with prepared(
        data,
        dataset or "folder",
        categories=[word for one in category for word in _words(one) or []] if category else None,
        methods=wanted or ["anomalyclip"],
        backbone=backbone,
        weights=learnt,
        out=out,
        limit=limit,
        seed=seed,
        maps=maps,
        aupro=aupro or "exact",
        split=split,
        batch_size=batch_size,
        device=device,
        precision=precision,
    ) as run:
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
        if out is None:
            result = replace(result, folder=None)  # which is gone in a moment
        else:
            tables.write(result, out)
            if report:
                from blemish.report import write_report

                write_report(result, run.record, run.dataset)
    return _tell(result, report, json)


def _words(given: str | None) -> list[str] | None:
    if given is None:
        return None
    return [word.strip() for word in given.split(",") if word.strip()]


def _weights(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for word in given:
        method, equals, file = word.partition("=")
        if not (method and equals and file):
            raise UsageError(f"--weights takes METHOD=FILE, not {word!r}")
        found[method] = Path(file)
    return found


def _announce(run: Run, out: Path | None) -> None:
    """Say what is about to be done, and which method rides on which pass."""
    data = run.dataset
    title = run.facts()["dataset_title"]
    pictures, anomalous = count(len(data), "picture"), sum(one.label for one in data)
    several = f" in {len(run.categories)} categories" if len(run.categories) > 1 else ""
    note(f"{title} ({data.split}): {pictures}{several}, {anomalous:,} anomalous.")
    for sentence in data.notes:
        note(sentence)
    if data.issues:
        note(f"{count(len(data.issues), 'file')} without a partner, such as {one_line(str(data.issues[0]))}.")
    for method, reason in run.facts()["left_out"].items():
        note(f"{method} is left out: {reason}.")
    passes = "1 backbone pass" if len(run.passes) == 1 else f"{len(run.passes)} backbone passes"
    note(f"{passes} per picture for {count(len(run.detectors), 'method')}:")
    for one in run.passes:
        note(f"  {one}")
    if run.taken_over:
        note(f"{out}: {count(run.taken_over, 'score')} of {run.taken_over + run.todo:,} are there already.")


def _state(run: Run, what: str, out: Path | None) -> str:
    """One sentence for a run that ends early."""
    done = f"{what}: {count(run.done + run.taken_over, 'score')} finished, {run.todo:,} to do"
    if out is None:
        return f"{done}; nothing is kept without --out."
    return f"{done}; they are kept in {out}, and the same command goes on from there."


def _tell(result: Evaluation, report: bool, json: bool) -> int:
    from blemish.evaluation import tables

    if json:
        for row in result.rows:
            print_json(row.to_dict())
    else:
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=WIDE)
        tables.show(result, console)
        print(tables.summary(result))
    for line in tables.reasons(result):
        note(one_line(line))
    if result.folder is not None:
        kept = ["results.csv", "results.json", "results.md", "scores.jsonl", *["report.html"] * report]
        (note if json else print)(f"Results are in {result.folder}: {', '.join(kept)}.")
    return EXIT_FAILED if result.failed else EXIT_OK
