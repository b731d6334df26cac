"""Evaluations as tables: CSV, JSON, Markdown, and on the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.evaluation.literature import best
from blemish.evaluation.record import write_json
from blemish.evaluation.result import MEAN, METRICS, TITLES, Comparison, Evaluation, Row
from blemish.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

#: Categories on a terminal; the files have all.
SHOWN = 40
AUPRO_200 = "Published AUPRO is the papers' approximation in 200 steps; compute ours with --aupro 200 to compare it."


def write(result: Evaluation, folder: Path) -> list[Path]:
    """Write results.csv, results.json and results.md. Raises OutputError."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    records = [row.to_dict() for row in result.rows]
    names = [name for name in (records[0] if records else ()) if name != "undefined"]
    table.writerow(names)
    table.writerows([_cell(record[name]) for name in names] for record in records)
    paths = [folder / f"results.{suffix}" for suffix in ("csv", "json", "md")]
    write_atomically(paths[0], lambda stream: stream.write(text.getvalue().encode()))
    write_json(paths[1], result.to_dict())
    write_atomically(paths[2], lambda stream: stream.write(to_markdown(result).encode()))
    return paths


def to_markdown(result: Evaluation) -> str:
    """Means, categories and published numbers as Markdown tables, in percent."""
    facts = result.facts
    parts = [f"# {facts.get('dataset_title', facts.get('dataset', 'Evaluation'))}", summary(result)]
    parts.append(_markdown(["method", *TITLES.values(), "95 % interval"], [_mean_cells(row) for row in result.means]))
    for metric in ("image_auroc", "pixel_aupro"):
        head, body = by_category(result, metric)
        if body:
            parts += [f"## {TITLES[metric]} by category", _markdown(head, body)]
    head, body = published(result)
    if body:
        parts += ["## Published numbers", _markdown(head, body), AUPRO_200, *caution(result)]
    parts += ["## How", *(f"- {line}" for line in provenance(result))]
    if missing := reasons(result):
        parts += ["## What is missing", *(f"- {line}" for line in missing)]
    return _joined(parts)


def show(result: Evaluation, console: Console) -> None:
    """Print the tables."""
    from rich.table import Table

    def table(title: str, head: Sequence[str], body: Sequence[Sequence[str]], words: int = 1) -> None:
        console.print(title, style="bold")  # not the table's own, which is broken to the table's width
        made = Table(box=None, pad_edge=False)
        for place, name in enumerate(head):
            made.add_column(name, justify="left" if place < words else "right", no_wrap=place == 0)
        for cells in body:
            made.add_row(*cells)
        console.print(made)
        console.print()

    title = f"{result.facts.get('dataset_title', result.facts.get('dataset'))}, mean over categories, percent"
    table(title, ["method", *TITLES.values(), "95 % interval"], [_mean_cells(row) for row in result.means])
    if len(result.categories) > 1:
        for metric in ("image_auroc", "pixel_aupro"):
            head, body = by_category(result, metric)
            if body:
                rest = len(body) - 1 - SHOWN
                table(f"{TITLES[metric]} by category, percent", head, [*body[:SHOWN], *body[SHOWN:][-1:]])
                if rest > 0:
                    console.print(f"... and {rest} more categories in results.csv\n")
    head, body = published(result, means_only=True)
    if body:
        table("Published numbers of the same methods, percent", head, body, words=2)
        for sentence in caution(result):
            console.print(f"{sentence}\n")


def summary(result: Evaluation) -> str:
    """One sentence: what was scored."""
    rows = [row for row in result.rows if row.mean]
    pictures = max((row.pictures for row in rows), default=0)
    anomalous = max((row.anomalous for row in rows), default=0)
    count, masked = len(result.categories), max((row.pixel_categories for row in rows), default=0)
    some = f"; pixel metrics are of the {masked} with masks" if 0 < masked < count else ""
    kinds = "1 category" if count == 1 else f"{count} categories"
    return (
        f"{pictures:,} pictures ({anomalous:,} anomalous) in {kinds}{some}, "
        f"backbone {result.facts.get('backbone')} ({result.facts.get('backbone_fingerprint')}). "
        "All numbers in percent; intervals are 95 % bootstrap intervals of image AUROC over pictures."
    )


def provenance(result: Evaluation) -> list[str]:
    """Where the numbers come from, line by line."""
    facts = result.facts
    lines = [f"blemish {facts.get('version')}, {facts.get('made', '')}: `{facts.get('command', '')}`"]
    for one in facts.get("passes", ()):
        parts = [f"{len(one['taps'])} taps"] if one["taps"] else []
        parts += ["class token"] if one["class_token"] else []
        parts += [f"windows of {', '.join(map(str, one['windows']))} patches"] if one["windows"] else []
        lines.append(
            f"pass {one['pass']} of the backbone: {one['size']} x {one['size']} px, {one['activation']} activation, "
            f"positions {one['position']}, {', '.join(parts)}; on it rode {', '.join(one['methods'])}"
        )
    for name, made in facts.get("methods", {}).items():
        weights = f", weights {made['weights']} ({made['weights_fingerprint']})" if made["weights"] else ""
        config = ", ".join(f"{key} {value}" for key, value in made["config"].items())
        lines.append(f"{name}{weights}: {made['precision']} on {made['device']}; {config}")
    lines.append(f"AUPRO {facts.get('aupro')}; regions are 8-connected; masks at the size of each method's input")
    if bound := max((row.pixel_error for row in result.rows), default=0.0):
        lines.append(f"some categories were measured by a histogram: pixel metrics are exact to {bound:.1e}")
    if any(row.scores == "set-wide" for row in result.rows):
        lines.append("set-wide: the paper's image score, computed over all test pictures of a category at once")
    return lines


def reasons(result: Evaluation) -> list[str]:
    """Why numbers are missing."""
    lines = [f"{one.path}: {one.reason}" for one in result.failed]
    told: dict[str, None] = {}
    for row in result.rows:
        if row.scores == "set-wide" or (row.mean and len(result.categories) > 1):
            continue
        by_reason: dict[str, list[str]] = {}
        for metric, reason in row.undefined.items():
            by_reason.setdefault(reason, []).append(TITLES.get(metric, metric))
        for reason, metrics in by_reason.items():
            known = [metric for metric in metrics if metric in TITLES.values()]
            told[f"{row.category}: {', '.join(known)} undefined: {reason}"] = None
    return lines + list(told)


def by_category(result: Evaluation, metric: str) -> tuple[list[str], list[list[str]]]:
    """One metric as a table of categories and methods; no body where it is nowhere defined."""
    order = [(row.method, row.scores) for row in result.means]
    cells = {(row.method, row.scores, row.category, row.mean): getattr(row, metric) for row in result.rows}
    if metric.startswith("pixel"):
        order = [key for key in order if key[1] == "picture"]
    if all(math.isnan(value) for value in cells.values()):
        return [], []
    names = [row.name for row in result.means if (row.method, row.scores) in order]
    body = [[category, *(percent(cells[*key, category, False]) for key in order)] for category in result.categories]
    body.append([MEAN, *(percent(cells[*key, MEAN, True]) for key in order)])
    return ["category", *names], body


def percent(value: float) -> str:
    """As in papers: one decimal; a dash for what is undefined."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def caution(result: Evaluation) -> list[str]:
    """What to say where ours are of other pictures than the published means; nothing where they are of the same."""
    if all(one.same_pictures for one in result.published if one.category == MEAN):
        return []
    return ["These are not all the pictures (and only those) that the published means are of: do not compare them."]


_PUBLISHED = ["method", "metric", "ours", "published", "difference", "backbone", "trained on", "table"]


def published(result: Evaluation, *, means_only: bool = False) -> tuple[list[str], list[list[str]]]:
    """The foremost published number of each metric beside ours; of single categories only for the same backbone."""
    chosen = best(result.published)
    order = {metric: place for place, metric in enumerate(METRICS)}
    wanted = [one for one in chosen.values() if one.category == MEAN or (not means_only and one.same_backbone)]
    wanted.sort(key=lambda one: (one.category != MEAN, one.category, one.method, order[one.metric]))
    return _PUBLISHED, [_published_row(one) for one in wanted]


def _published_row(one: Comparison) -> list[str]:
    where = one.table + ("" if one.own else ", by others") + ("" if one.verified else ", quoted")
    name = one.method if one.category == MEAN else f"{one.method} {one.category}"
    change = "other backbone" if not one.same_backbone else "-" if one.same_pictures else "other pictures"
    if not math.isnan(one.difference):
        change = f"{100 * one.difference:+.1f}"
    return [
        name,
        TITLES[one.metric],
        percent(one.ours),
        percent(one.published),
        change,
        one.backbone,
        one.trained_on,
        where,
    ]


def _mean_cells(row: Row) -> list[str]:
    interval = f"{percent(row.image_auroc_low)} .. {percent(row.image_auroc_high)}"
    return [row.name, *(percent(getattr(row, metric)) for metric in METRICS), interval]


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else value


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _joined(parts: Sequence[str]) -> str:
    """Paragraphs, with the lines of a list together."""
    text = ""
    for part in parts:
        text += ("\n" if part.startswith("- ") and text.rpartition("\n")[2].startswith("- ") else "\n\n") + part
    return text.strip() + "\n"
