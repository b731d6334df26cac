"""The page, section by section. Text is escaped where it is inserted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.datasets.samples import Dataset, Sample
from blemish.draw import COLOURS
from blemish.evaluation import tables
from blemish.evaluation.folder import EvaluationFolder
from blemish.evaluation.measure import Kind, labels_and_scores
from blemish.evaluation.result import METRICS, TITLES, Evaluation, Row
from blemish.metrics import Curve, fpr_at_tpr, precision_recall_curve, roc_curve, tpr_at_fpr
from blemish.outputs import svg
from blemish.report.gallery import Example, Gallery, make_gallery, render

LabelsAndScores: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]

_BINS = 24
#: Points along the horizontal axis at which curves are averaged.
_MEAN_POINTS = 401
#: Shares of normal pictures that may be reported, and shares of anomalous pictures that must be found.
_MAX_FALSE_ALARMS, _MIN_FOUND = (0.01, 0.05, 0.1, 0.2), (0.95, 1.0)
_KINDS: dict[Kind, tuple[str, str]] = {
    "true positive": ("Found", "anomalous pictures that stand out most clearly from the normal ones of their category"),
    "false negative": ("Missed", "anomalous pictures that many normal ones outscore"),
    "false positive": ("False alarms", "normal pictures that score higher than many anomalous ones"),
    "true negative": ("Passed", "normal pictures that score lower than the anomalous ones"),
}
_READING = {
    "image AUROC": "the chance that an anomalous picture scores higher than a normal one of its category; 50 is chance",
    "image AP": "precision averaged over recall; chance is the share of anomalous pictures",
    "F1-max": "the best balance of precision and recall that any threshold reaches on these pictures",
    "pixel AUROC, AP, F1-max": "the same for pixels, over all pictures of a category together",
    "pixel IoU": "intersection of map and mask over their union, at the threshold of pixel F1-max",
    "pixel AUPRO": "the covered share of each defect, averaged over defects of any size and over the thresholds that "
    "mark up to 30 % of the normal area",
    "95 % interval": "where the AUROC would mostly lie for other pictures of the same kind (bootstrap)",
}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><meta name="generator" content="blemish">\
<title>{title} - blemish</title><style>
{style}</style></head>
<body><main>
{sections}
</main></body></html>
"""


def make_page(result: Evaluation, folder: EvaluationFolder, dataset: Dataset) -> str:
    """Return the whole page as HTML."""
    categories = {category: dataset.of(category) for category in result.categories}
    # The rank of a method is the number of its colour in every chart.
    ranking = [row for row in result.means if row.scores == "picture"]
    scores = {
        row.method: [labels_and_scores(folder, row.method, samples) for samples in categories.values()]
        for row in ranking
    }
    title = f"{result.facts.get('dataset_title', 'Evaluation')}: {len(ranking)} method{'s' * (len(ranking) != 1)}"
    sections = [
        _header(result, ranking, title),
        _ranking(result, ranking),
        _thresholds(scores),
        _curves(ranking, scores),
        _histograms(scores),
        _categories(result, ranking),
        _galleries(folder, ranking, categories),
        _published(result),
        _section("How to read the numbers", f'<dl class="reading">{_definitions(_READING)}</dl>'),
        _provenance(result, dataset),
    ]
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return _PAGE.format(title=escape(title), style=style, sections="\n".join(filter(None, sections)))


def _header(result: Evaluation, ranking: Sequence[Row], title: str) -> str:
    facts, best = result.facts, ranking[0]
    cells = {
        "pictures": f"{best.pictures:,}",
        "of them anomalous": f"{best.anomalous:,}",
        "categories": str(len(result.categories)),
        "backbone": str(facts.get("backbone")),
        "split": str(facts.get("split")),
        "measured": str(facts.get("created", ""))[:10],
    }
    items = "".join(f"<div>{_definitions({name: text})}</div>" for name, text in cells.items())
    return (
        f'<header><p class="over">blemish evaluation</p><h1>{escape(title)}</h1>'
        f'<dl class="facts">{items}</dl><p class="lead">{escape(_verdict(ranking))}</p></header>'
    )


def _verdict(ranking: Sequence[Row]) -> str:
    """Return what the best method's image AUROC means, as carefully as its interval requires."""
    best = ranking[0]
    if math.isnan(best.image_auroc):
        return "The pictures are all normal or all anomalous, so they cannot be ranked."
    verdict = (
        f"{best.name} ranks the pictures best: of an anomalous and a normal picture of one category, it gives the "
        f"anomalous one the higher score in {100 * best.image_auroc:.0f} of 100 cases"
    )
    if math.isnan(best.image_auroc_low):
        return f"{verdict}."
    verdict += f" (95 % interval {100 * best.image_auroc_low:.0f} to {100 * best.image_auroc_high:.0f})"
    if best.image_auroc_low <= 0.5:
        return f"{verdict}. The interval includes chance, 50, so these pictures do not show that the method works."
    verdict += "; 50 is chance."
    near = [row.name for row in ranking[1:] if row.image_auroc >= best.image_auroc_low]
    if near:
        others = f"{len(near)} other methods are" if len(near) > 1 else f"{near[0]} is"
        verdict += f" The order of the best methods is not certain: {others} within that interval."
    return verdict


def _ranking(result: Evaluation, ranking: Sequence[Row]) -> str:
    metrics = [metric for metric in METRICS if not all(math.isnan(getattr(row, metric)) for row in result.means)]
    best = {metric: np.nanmax([getattr(row, metric) for row in result.means]) for metric in metrics}
    ranks = {row.method: rank for rank, row in enumerate(ranking)}
    body = []
    for row in result.means:
        swatch = svg.swatch(ranks[row.method]) if row.scores == "picture" else ""
        cells = [swatch + escape(row.name), svg.interval(row.image_auroc, row.image_auroc_low, row.image_auroc_high)]
        for metric in metrics:
            value = getattr(row, metric)
            text = tables.percent(value)
            cells.append(f"<b>{text}</b>" if value == best[metric] else text)
        body.append(cells)
    notes = "Means over the categories, in percent; the best of each column is bold. The dot is the image AUROC, the "
    notes += "line its 95 % interval, the dashed line chance. "
    masked = max(row.pixel_categories for row in result.means)
    if 0 < masked < len(result.categories):
        notes += f"Pixel metrics are means over the {masked} of {len(result.categories)} categories with masks. "
    if any(row.scores == "set-wide" for row in result.rows):
        notes += "Set-wide is the paper's own rule, which scores all pictures of a category together, never one alone."
    head = ["method", svg.interval_axis(), *(TITLES[metric] for metric in metrics)]
    return _section("Ranking", f"<p>{notes}</p>{_table(head, body, numbers=range(2, len(head)))}")


def _thresholds(scores: Mapping[str, Sequence[LabelsAndScores]]) -> str:
    """Return what the curves mean for someone who has to choose a threshold."""
    body = []
    for name, pairs in scores.items():
        if any(labels.size == 0 or labels.min() == labels.max() for labels, _ in pairs):
            return ""
        means = [np.mean([tpr_at_fpr(*pair, share) for pair in pairs]) for share in _MAX_FALSE_ALARMS]
        means += [np.mean([fpr_at_tpr(*pair, share) for pair in pairs]) for share in _MIN_FOUND]
        body.append([escape(name), *(f"{100 * mean:.0f}" for mean in means)])
    head = ["method", *(f"found at {100 * share:g} % false alarms" for share in _MAX_FALSE_ALARMS)]
    head += [f"false alarms at {100 * share:g} % found" for share in _MIN_FOUND]
    return _section(
        "With a threshold",
        "<p>The share of anomalous pictures that are found if at most that share of normal ones may be reported, and "
        "the reverse, in percent. The threshold of each category is chosen on these very pictures, so new pictures "
        f"will do somewhat worse.</p>{_table(head, body, numbers=range(1, len(head)))}",
    )


def _curves(ranking: Sequence[Row], scores: Mapping[str, Sequence[LabelsAndScores]]) -> str:
    charts = []
    for curve_of, metric, title, x, y in (
        (
            roc_curve,
            "image_auroc",
            "ROC",
            "false alarms: normal pictures, percent",
            "found: anomalous pictures, percent",
        ),
        (
            precision_recall_curve,
            "image_ap",
            "Precision and recall",
            "recall: anomalous pictures found, percent",
            "precision, percent",
        ),
    ):
        curves = [mean_curve(scores[row.method], curve_of) for row in ranking]
        lines = [
            svg.Line(row.method, curve.x, curve.y, rank)
            for rank, (row, curve) in enumerate(zip(ranking, curves, strict=True))
            if curve is not None
        ]
        if not lines:
            return ""
        areas = "; ".join(f"{row.method} {tables.percent(getattr(row, metric))}" for row in ranking)
        quarters = (0, 0.25, 0.5, 0.75, 1)
        charts.append(
            svg.line_chart(
                lines,
                title,
                x,
                y,
                f"{TITLES[metric]} in percent: {areas}.",
                x_range=(0, 1),
                y_range=(0, 1),
                x_ticks=quarters,
                y_ticks=quarters,
                percent=True,
                diagonal=title == "ROC",
            )
        )
    mean = "<p>Each curve is the mean over the categories, so its area is the number of the mean row.</p>"
    several = mean if max(len(pairs) for pairs in scores.values()) > 1 else ""
    return _section("Curves of image scores", f'{several}<div class="pair">{"".join(charts)}</div>{_legend(ranking)}')


def mean_curve(pairs: Iterable[LabelsAndScores], curve_of: Callable[[ArrayLike, ArrayLike], Curve]) -> Curve | None:
    """Return the mean height of a curve over categories; None unless every category has both labels.

    Its area is the mean of the categories' areas.
    """
    points = np.linspace(0.0, 1.0, _MEAN_POINTS)
    curves: list[Curve] = []
    heights = []
    for labels, scores in pairs:
        if labels.size == 0 or labels.min() == labels.max():
            return None
        curve = curve_of(labels, scores)
        # Vertical steps are tilted by an invisible amount, so that each point has one height.
        height = np.interp(points, curve.x + np.arange(curve.x.size) * 1e-12, curve.y)
        height[-1] = curve.y[-1]
        curves.append(curve)
        heights.append(height)
    if len(curves) == 1:
        return curves[0]
    return Curve(points, np.mean(heights, axis=0)) if curves else None


def _histograms(scores: Mapping[str, Sequence[LabelsAndScores]]) -> str:
    charts = []
    for name, pairs in scores.items():
        labels, values = (np.concatenate(column) for column in zip(*pairs, strict=True))
        if not values.size:
            continue
        ends = float(values.min()), float(values.max())
        by_label = {kind: values[labels == label] for label, kind in enumerate(("normal", "anomalous"))}
        medians = ", ".join(f"{kind} {np.median(part):.3f}" for kind, part in by_label.items() if part.size)
        charts.append(
            svg.histograms(
                [(kind, histogram(part, *ends)) for kind, part in by_label.items()],
                ends,
                name,
                "score",
                f"Histogram of image scores from {ends[0]:.3f} to {ends[1]:.3f}; medians: {medians}.",
            )
        )
    return _section(
        "Scores by label",
        "<p>Shares of the <span class='key normal'>normal</span> and of the "
        "<span class='key anomalous'>anomalous</span> pictures by score, over all categories. "
        "The less they overlap, the better a single threshold works.</p>"
        f'<div class="many">{"".join(charts)}</div>',
    )


def histogram(values: NDArray[np.float64], low: float, high: float, bins: int = _BINS) -> NDArray[np.float64]:
    """Return the share of the values in each of `bins` equal bins of [low, high], (bins,)."""
    counts, _ = np.histogram(values, bins=bins, range=(low, high if high > low else low + 1.0))
    return counts / max(values.size, 1)


def _categories(result: Evaluation, ranking: Sequence[Row]) -> str:
    if len(result.categories) < 2:
        return ""
    parts = []
    for metric in ("image_auroc", "pixel_aupro"):
        head, body = tables.by_category(result, metric)
        if not body:
            continue
        series = [
            (rank, row.method, [getattr(result.row(row.method, category), metric) for category in result.categories])
            for rank, row in enumerate(ranking)
        ]
        words = f"{TITLES[metric]} of every method on every category, in percent; the table below has the numbers."
        is_auroc = metric == "image_auroc"
        chart = svg.bar_chart(result.categories, series, f"{TITLES[metric]}, percent", words, midline=is_auroc)
        parts.append(f"{chart}<details><summary>The numbers</summary>{_text_table(head, body)}</details>")
    return _section("By category", f"{_legend(ranking, bars=True)}{''.join(parts)}") if parts else ""


def _galleries(folder: EvaluationFolder, ranking: Sequence[Row], categories: Mapping[str, Sequence[Sample]]) -> str:
    parts: list[str] = []
    for row in ranking:
        gallery = make_gallery(folder, row.method, categories)
        if gallery is not None:
            parts.append(
                f'<details class="method"{"" if parts else " open"}><summary><h3>{escape(row.method)}</h3></summary>'
                f"{_gallery(gallery, row.method)}</details>"
            )
    if not parts:
        return ""
    return _section(
        "Best and worst pictures",
        "<p>Each pair shows the picture with the marked anomaly outlined, and the method's anomaly map over it. A "
        "picture is compared with those of its own category. All pictures of a method share one colour scale, which "
        f"begins at the median of its maps: usual values have no colour.</p>{''.join(parts)}",
    )


def _gallery(gallery: Gallery, name: str) -> str:
    low, high = gallery.map_range
    red_green_blue = [(int(r), int(g), int(b)) for r, g, b in COLOURS[0:256:15]]
    rows = [f"<p class='scaled'>Anomaly map: {svg.colour_bar(low, high, red_green_blue)}</p>"]
    for kind, (title, words) in _KINDS.items():
        figures = "".join(_figure(example, gallery.map_range, name) for example in gallery.examples[kind])
        if figures:
            rows.append(f'<h4>{title}</h4><p class="note">{escape(words)}</p><div class="tiles">{figures}</div>')
    return "".join(rows)


def _figure(example: Example, map_range: tuple[float, float], name: str) -> str:
    rendered = render(example, map_range, name)
    if rendered is None:
        return ""
    images = "".join(f'<img src="{url}" alt="{escape(words)}" loading="lazy">' for url, words in rendered)
    sample = example.sample
    others = "normal pictures score as high" if sample.label else "anomalous pictures score as low"
    what = ", ".join(part for part in (sample.category, sample.defect) if part)
    return (
        f'<figure><div class="two">{images}</div><figcaption><b>{example.score:.3f}</b> {escape(what)} '
        f'<span class="file">{escape(sample.path.name)}</span><br>{100 * example.rank_error:.0f} % of the {others}'
        "</figcaption></figure>"
    )


def _published(result: Evaluation) -> str:
    head, body = tables.published(result)
    if not body:
        return ""
    notes = " ".join([tables.AUPRO_200, *tables.caution(result)])
    return _section(
        "Published numbers of the same methods",
        f"<p>In percent, with a difference where the backbone is the same. {escape(notes)}</p>"
        f"{_text_table(head, body)}",
    )


def _provenance(result: Evaluation, dataset: Dataset) -> str:
    lines = [f"data: {result.facts.get('data')} as {dataset.name}, {dataset.layout}", *tables.provenance(result)]
    missing = tables.reasons(result)
    gaps = f"<h3>What is missing</h3>{_list(missing)}" if missing else ""
    return _section("How this was computed", f"{_list([*lines, *dataset.notes])}{gaps}")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _definitions(entries: Mapping[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())


def _text_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text; columns of numbers are aligned to the right."""

    def is_number(cell: str) -> bool:
        return cell == "-" or cell.lstrip("+-").replace(".", "").isdigit()

    numbers = [column for column in range(1, len(head)) if all(is_number(line[column]) for line in body)]
    return _table([*map(escape, head)], [[*map(escape, line)] for line in body], numbers)


def _table(head: Sequence[str], body: Sequence[Sequence[str]], numbers: Iterable[int]) -> str:
    """Return a table of HTML cells that scrolls sideways where it must, also by key."""
    classes = [' class="n"' if column in set(numbers) else "" for column in range(len(head))]
    names = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(head, classes, strict=True))
    rows = []
    for first, *rest in body:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, classes[1:], strict=True))
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="table"><table>'
        f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _legend(ranking: Sequence[Row], *, bars: bool = False) -> str:
    items = (f"<li>{svg.swatch(rank, bar=bars)}{escape(row.method)}</li>" for rank, row in enumerate(ranking))
    return f'<ul class="legend">{"".join(items)}</ul>'
