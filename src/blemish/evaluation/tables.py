"""Results as tables: CSV, JSON, Markdown, and the cells of other tables."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from blemish.evaluation.folder import write_json
from blemish.evaluation.literature import best_comparisons
from blemish.evaluation.result import MEAN, METRICS, MORE_TITLES, TITLES, Comparison, Evaluation
from blemish.files import write_atomically
from blemish.outputs.tables import spreadsheet_cell
from blemish.types import PathLike

AUPRO_200 = "Published AUPRO is an approximation in 200 steps; to compare it, compute ours in the same way (aupro 200)."
PAIRED = "Both methods of a line are resampled together: the interval is that of the difference."
_OTHER_PICTURES = "Our pictures differ from those of the published means, so do not compare the means."
_FULL_MASKS = "Published pixel metrics are of reduced masks; ours are of full ones, so do not compare them."
_PUBLISHED = ["method", "metric", "ours", "published", "difference", "backbone", "trained on", "table"]


def write(result: Evaluation, folder: Path) -> None:
    """Write results.csv, results.json and results.md. Raises OutputError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    records = [row.to_dict() for row in result.rows]
    names = [name for name in (records[0] if records else ()) if name != "undefined"]
    writer.writerow(names)
    writer.writerows([_csv_cell(record[name]) for name in names] for record in records)
    write_atomically(folder / "results.csv", lambda stream: stream.write(text.getvalue().encode()))
    write_json(folder / "results.json", result.to_dict())
    write_atomically(folder / "results.md", lambda stream: stream.write(to_markdown(result).encode()))


class _ProtocolRow(Protocol):
    """A row of a protocol: `ShotRow` or `BatchRow`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]: ...


def write_protocol(
    folder: PathLike,
    name: str,
    parts: Sequence[str],
    row_type: type[_ProtocolRow],
    rows: Sequence[_ProtocolRow],
    facts: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """Write a protocol's rows as CSV, with facts and notes as JSON, and its parts and notes as Markdown.

    Args:
        folder: Folder of the three files.
        name: Their name without suffix.
        parts: Headings, sentences and tables in Markdown.
        row_type: Dataclass of the rows, whose fields are the columns.
        rows: The rows; there may be none.
        facts: What the numbers depend on.
        notes: What was left out, and why.

    Raises:
        OutputError: A file cannot be written.
    """
    text, records = io.StringIO(), [row.to_dict() for row in rows]
    writer = csv.DictWriter(text, list(row_type.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in record.items()} for record in records)
    write_atomically(Path(folder) / f"{name}.csv", lambda stream: stream.write(text.getvalue().encode()))
    write_json(Path(folder) / f"{name}.json", {"facts": dict(facts), "rows": records, "notes": list(notes)})
    page = "\n\n".join([*parts, *(f"- {note}" for note in notes)])
    write_atomically(Path(folder) / f"{name}.md", lambda stream: stream.write(page.encode() + b"\n"))


def to_markdown(result: Evaluation) -> str:
    """Return means, categories and published numbers as Markdown tables, in percent."""
    facts = result.facts
    parts = [f"# {facts.get('dataset_title', facts.get('dataset', 'Evaluation'))}", summary(result)]
    parts.append(markdown_table(*means(result)))
    head, body = more(result)
    if body:
        parts += ["## More metrics", markdown_table(head, body)]
    head, body = differences(result)
    if body:
        parts += ["## Differences", markdown_table(head, body), PAIRED]
    for metric in ("image_auroc", "pixel_aupro"):
        head, body = by_category(result, metric)
        if body:
            parts += [f"## {TITLES[metric]} by category", markdown_table(head, body)]
    head, body = published(result)
    if body:
        parts += ["## Published numbers", markdown_table(head, body), AUPRO_200, *caution(result)]
    parts += ["## Provenance", "\n".join(f"- {line}" for line in provenance(result))]
    if missing := reasons(result):
        parts += ["## What is missing", "\n".join(f"- {line}" for line in missing)]
    return "\n\n".join(parts) + "\n"


def summary(result: Evaluation) -> str:
    """Return one sentence about what was scored."""
    rows = [row for row in result.rows if row.mean]
    pictures = max((row.pictures for row in rows), default=0)
    anomalous = max((row.anomalous for row in rows), default=0)
    count, masked = len(result.categories), max((row.pixel_categories for row in rows), default=0)
    categories = "1 category" if count == 1 else f"{count} categories"
    if 0 < masked < count:
        categories += f" (pixel metrics: the {masked} with masks)"
    return (
        f"{pictures:,} pictures ({anomalous:,} anomalous) in {categories}, "
        f"backbone {result.facts.get('backbone')} ({result.facts.get('backbone_fingerprint')}). "
        "All numbers are in percent; intervals are 95 % bootstrap intervals of image AUROC over pictures."
    )


def verdicts(result: Evaluation) -> list[str]:
    """Return, for a profile, measured false alarms beside the promised ones: one sentence per category."""
    sentences = []
    for tally in result.facts.get("verdicts", ()):
        normal, anomalous = tally["normal"], tally["anomalous"]
        promised = "" if tally["promised"] is None else f", promised {100 * tally['promised']:.1f} %"
        alarms = f"{tally['false_alarms']} of {normal} normal pictures are called anomalous"
        alarms += f" ({100 * tally['false_alarms'] / normal:.1f} %{promised})" if normal else ""
        caught = f"{tally['caught']} of {anomalous} anomalous ones are"
        caught += f" ({100 * tally['caught'] / anomalous:.1f} %)" if anomalous else ""
        sentences.append(f"{tally['category'] or 'all'}: at threshold {tally['threshold']:.4f}, {alarms}; {caught}.")
    return sentences


def provenance(result: Evaluation) -> list[str]:
    """Return where the numbers come from, line by line."""
    facts = result.facts
    lines = [f"blemish {facts.get('version')}, {facts.get('created', '')}: `{facts.get('command', '')}`"]
    for entry in facts.get("passes", ()):
        needs = [f"{len(entry['taps'])} taps"] if entry["taps"] else []
        needs += ["class token"] if entry["class_token"] else []
        needs += [f"windows of {', '.join(map(str, entry['windows']))} patches"] if entry["windows"] else []
        lines.append(
            f"pass {entry['pass']} of the backbone: {entry['size']} x {entry['size']} px, "
            f"{entry['activation']} activation, positions {entry['position']}, {', '.join(needs)}; "
            f"used by {', '.join(entry['methods'])}"
        )
    for name, method in facts.get("methods", {}).items():
        weights = f", weights {method['weights']} ({method['weights_fingerprint']})" if method["weights"] else ""
        config = ", ".join(f"{key} {value}" for key, value in method["config"].items())
        preset = f", preset {method['preset']}" if method.get("preset") else ""
        lines.append(f"{name}{weights}{preset}: {method['precision']} on {method['device']}; {config}")
    size = "picture" if facts.get("masks") == "full" else "method's input"
    lines.append(f"AUPRO {facts.get('aupro')}; regions are 8-connected; masks have the size of each {size}")
    if bound := max((row.pixel_error for row in result.rows), default=0.0):
        lines.append(f"some categories were measured with a histogram: pixel metrics are exact to {bound:.1e}")
    if any(row.scores == "set-wide" for row in result.rows):
        lines.append("set-wide: the paper's image score, computed over all test pictures of a category together")
    return lines


def reasons(result: Evaluation) -> list[str]:
    """Return why numbers are missing, and what masks do not say, line by line."""
    lines = [f"{failure.path}: {failure.reason}" for failure in result.failed]
    lines += result.facts.get("mask_notes", ())
    for row in result.rows:
        if row.scores == "set-wide" or (row.mean and len(result.categories) > 1):
            continue
        by_reason: dict[str, list[str]] = {}
        for metric, reason in row.undefined.items():
            by_reason.setdefault(reason, [])
            if title := TITLES.get(metric) or MORE_TITLES.get(metric):
                by_reason[reason].append(title)
        lines += [f"{row.category}: {', '.join(metrics)} undefined: {reason}" for reason, metrics in by_reason.items()]
    return list(dict.fromkeys(lines))


def means(result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return head and body of the table of means, best method first."""
    body = []
    for row in result.means:
        interval = f"{percent(row.image_auroc_low)} .. {percent(row.image_auroc_high)}"
        body.append([row.name, *(percent(getattr(row, metric)) for metric in METRICS), interval])
    return ["method", *TITLES.values(), "95 % interval"], body


def more(result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return head and body of the metrics that were asked for in addition: means, then categories; or no body."""
    rows = [row for row in result.means if row.extra and row.scores == "picture"]
    if len(result.categories) > 1:
        rows += [row for row in result.rows if row.extra and row.scores == "picture" and not row.mean]
    body = [[row.name, row.category, *(percent(value) for value in row.extra.values())] for row in rows]
    return ["method", "category", *(MORE_TITLES[name] for name in (rows[0].extra if rows else ()))], body


def differences(result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return head and body of the differences between the best method and the others; or no body."""
    body = [
        [
            TITLES[d.metric],
            f"{d.first} - {d.second}",
            f"{100 * d.value:+.1f}",
            "-" if math.isnan(d.low) else f"{100 * d.low:+.1f} .. {100 * d.high:+.1f}",
            "-" if math.isnan(d.p_value) else f"{d.p_value:.3f}",
        ]
        for d in result.differences
    ]
    return ["metric", "methods", "difference", "95 % interval", "p"], body


def by_category(result: Evaluation, metric: str) -> tuple[list[str], list[list[str]]]:
    """Return head and body of a table of categories and methods; no body where the metric is undefined everywhere."""
    columns = [row for row in result.means if row.scores == "picture" or not metric.startswith("pixel")]
    cells = {(row.name, row.category, row.mean): getattr(row, metric) for row in result.rows}
    if all(math.isnan(value) for value in cells.values()):
        return [], []
    lines = [(category, False) for category in result.categories] + [(MEAN, True)]
    body = [[name, *(percent(cells[row.name, name, mean]) for row in columns)] for name, mean in lines]
    return ["category", *(row.name for row in columns)], body


def published(result: Evaluation, *, means_only: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return head and body of the best published number of each metric; of categories only for the same backbone."""
    chosen = [c for c in best_comparisons(result.published).values() if c.category == MEAN or c.same_backbone]
    if means_only:
        chosen = [c for c in chosen if c.category == MEAN]
    chosen.sort(key=lambda c: (c.category != MEAN, c.category, c.method, METRICS.index(c.metric)))
    return _PUBLISHED, [_published_cells(comparison) for comparison in chosen]


def caution(result: Evaluation) -> list[str]:
    """Return warnings if published means are of other pictures or other masks than ours."""
    is_same = all(c.same_pictures for c in result.published if c.category == MEAN)
    full = result.facts.get("masks") == "full"
    return [*[_OTHER_PICTURES] * (not is_same), *[_FULL_MASKS] * full]


def percent(value: float) -> str:
    """Format a fraction in percent with one decimal, as papers do; "-" if it is undefined."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


class SeedRow(Protocol):
    """A row of numbers of one category and one draw."""

    @property
    def seed(self) -> int: ...


def mean(rows: Sequence[SeedRow], metric: str) -> float:
    """Return the mean of a metric over rows, without those in which it is nan; nan if all are."""
    values = [value for row in rows if not math.isnan(value := getattr(row, metric))]
    return math.fsum(values) / len(values) if values else math.nan


def mean_over_seeds(rows: Sequence[SeedRow], metric: str) -> str:
    """Return the mean over categories in percent, with the standard deviation of that mean over seeds."""
    by_seed = [mean([row for row in rows if row.seed == seed], metric) for seed in sorted({row.seed for row in rows})]
    if any(map(math.isnan, by_seed)):
        return percent(mean(rows, metric))
    spread = f" ± {percent(statistics.stdev(by_seed))}" if len(by_seed) > 1 else ""
    return f"{percent(statistics.fmean(by_seed))}{spread}"


def _published_cells(comparison: Comparison) -> list[str]:
    c = comparison
    source = c.table + ("" if c.own else ", by others") + ("" if c.verified else ", quoted")
    if not math.isnan(c.difference):
        difference = f"{100 * c.difference:+.1f}"
    elif not c.same_backbone:
        difference = "other backbone"
    else:
        difference = "-" if c.same_pictures else "other pictures"
    name = c.method if c.category == MEAN else f"{c.method} {c.category}"
    numbers = [percent(c.ours), percent(c.published), difference]
    return [name, TITLES[c.metric], *numbers, c.backbone, c.trained_on, source]


def _csv_cell(value: object) -> object:
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else spreadsheet_cell(value)


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown, whose numbers are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
