"""The page, section by section. Words are escaped where they are put in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import numpy as np

from blemish.datasets.samples import Dataset, Sample
from blemish.draw import COLOURS
from blemish.evaluation import tables
from blemish.evaluation.examples import Kind
from blemish.evaluation.record import Record
from blemish.evaluation.result import METRICS, TITLES, Evaluation, Row
from blemish.report import charts
from blemish.report.curves import (
    Curve,
    Floats,
    Labels,
    alarms_for,
    found_at,
    mean_curve,
    precision_recall,
    roc,
    shares,
)
from blemish.report.gallery import Gallery, Tile, gallery, pictures

BINS = 24
_WIDE = '<div class="wide" tabindex="0" role="region" aria-label="table"><table>'  # scrolls where it must, also by key

_KINDS: dict[Kind, tuple[str, str]] = {
    "found": ("Found", "anomalous pictures that stand out most clearly from the normal ones of their category"),
    "missed": ("Missed", "anomalous pictures that are hardest to tell: many normal ones score as high or higher"),
    "false alarm": ("False alarms", "normal pictures that score higher than many anomalous ones"),
    "quiet": ("Passed", "normal pictures that score lower than the anomalous ones"),
}
_READING = {
    "image AUROC": "the chance that an anomalous picture scores higher than a normal one of its category; 50 is chance",
    "image AP": "precision, averaged over the recalls; chance is the share of anomalous pictures",
    "F1-max": "the best balance of precision and recall that any threshold reaches on these very data",
    "pixel AUROC, AP, F1-max": "the same for pixels, all pictures of a category together",
    "pixel IoU": "overlap of map and mask, over their union, at the threshold of pixel F1-max",
    "pixel AUPRO": "the share of each defect that is covered, averaged over defects of any size and over the "
    "thresholds that falsely mark up to 30 % of the normal area",
    "95 % interval": "where the AUROC would mostly lie if other pictures of this kind had been taken (bootstrap)",
}


def page(result: Evaluation, record: Record, dataset: Dataset) -> str:
    """The whole page."""
    categories = {category: dataset.of(category) for category in result.categories}
    # A method looks the same in every chart: its place in the ranking is its colour.
    ranking = [row for row in result.means if row.scores == "picture"]
    title = f"{result.facts.get('dataset_title', 'Evaluation')}: {len(ranking)} method{'s' * (len(ranking) != 1)}"
    sections = [
        _head(result, title),
        _ranking(result),
        _practice(record, ranking, categories),
        _curves(record, ranking, categories),
        _histograms(record, ranking, categories),
        _categories(result, ranking),
        _galleries(record, ranking, categories),
        _published(result),
        _reading(),
        _how(result, dataset),
    ]
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="blemish">'
        f"<title>{escape(title)} - blemish</title><style>\n{style}</style></head>\n<body><main>\n"
        f"{''.join(f'{section}{chr(10)}' for section in sections if section)}</main></body></html>\n"
    )


def _head(result: Evaluation, title: str) -> str:
    facts = result.facts
    # A set-wide rule cannot score a picture that comes alone, so it is not what is promised.
    first = next(row for row in result.means if row.scores == "picture")
    told = {
        "pictures": f"{first.pictures:,}",
        "of them anomalous": f"{first.anomalous:,}",
        "categories": str(len(result.categories)),
        "backbone": str(facts.get("backbone")),
        "split": str(facts.get("split")),
        "measured": str(facts.get("made", ""))[:10],
    }
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    return (
        f'<header><p class="over">blemish evaluation</p><h1>{escape(title)}</h1>'
        f'<dl class="facts">{cells}</dl><p class="lead">{escape(_verdict(first, result.means))}</p></header>'
    )


def _verdict(row: Row, means: Sequence[Row]) -> str:
    """What the best method's number means, in words; as careful as the interval asks for."""
    if math.isnan(row.image_auroc):
        return "The pictures are all normal or all anomalous, so there is nothing to tell apart."
    words = (
        f"{row.name} ranks the pictures best: shown an anomalous and a normal picture of one category, it gives the "
        f"anomalous one the higher score in {100 * row.image_auroc:.0f} of 100 cases"
    )
    if math.isnan(row.image_auroc_low):
        return f"{words}."
    words += f" (95 % interval {100 * row.image_auroc_low:.0f} to {100 * row.image_auroc_high:.0f})"
    if row.image_auroc_low <= 0.5:
        return f"{words}. The interval reaches chance, 50, so these pictures do not show that it works."
    near = [r.name for r in means if r.scores == "picture" and r.image_auroc >= row.image_auroc_low and r is not row]
    words += "; 50 would be chance."
    if near:
        others = f"{len(near)} other methods lie" if len(near) > 1 else f"{near[0]} lies"
        words += f" The order of the first is not certain: {others} within that interval."
    return words


def _ranking(result: Evaluation) -> str:
    metrics = [metric for metric in METRICS if not all(math.isnan(getattr(row, metric)) for row in result.means)]
    tops = {metric: max(v for row in result.means if not math.isnan(v := getattr(row, metric))) for metric in metrics}
    styles = _styles([row for row in result.means if row.scores == "picture"])
    head = "".join(f'<th scope="col" class="n">{TITLES[metric]}</th>' for metric in metrics)
    body = []
    for row in result.means:
        cells = []
        for metric in metrics:
            value = getattr(row, metric)
            mark = ' class="n best"' if value == tops[metric] else ' class="n"'
            cells.append(f"<td{mark}>{tables.percent(value)}</td>")
        line = charts.swatch(styles[row.method]) if row.scores == "picture" else ""
        where = charts.interval(row.image_auroc, row.image_auroc_low, row.image_auroc_high)
        body.append(f'<tr><th scope="row">{line}{escape(row.name)}</th><td>{where}</td>{"".join(cells)}</tr>')
    notes = _masked(result) + _set_wide(result)
    return (
        "<section><h2>Ranking</h2><p>Means over the categories, in percent; the best of each column is bold. The dot "
        f"is the image AUROC, the line its 95 % interval, the dashed line chance. {notes}</p>"
        f'{_WIDE}<thead><tr><th scope="col">method</th><th scope="col">{charts.axis()}</th>{head}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


#: Shares of the normal pictures that may be reported, and of the anomalous ones that shall be.
_ALLOWED, _DEMANDED = (0.01, 0.05, 0.1, 0.2), (0.95, 1.0)


def _practice(record: Record, ranking: Sequence[Row], categories: Mapping[str, Sequence[Sample]]) -> str:
    """What the curves come to for someone who has to choose a threshold."""
    body = []
    for row in ranking:
        pairs = [_scores(record, row.method, samples) for samples in categories.values()]
        if any(labels.size == 0 or labels.min() == labels.max() for labels, _ in pairs):
            return ""
        means = [np.mean([found_at(*pair, share) for pair in pairs]) for share in _ALLOWED]
        means += [np.mean([alarms_for(*pair, share) for pair in pairs]) for share in _DEMANDED]
        body.append([row.method, *(f"{100 * mean:.0f}" for mean in means)])
    head = [f"found at {100 * share:g} % false alarms" for share in _ALLOWED]
    head += [f"false alarms at {100 * share:g} % found" for share in _DEMANDED]
    several = " and each category has its own" if len(categories) > 1 else ""
    return (
        "<section><h2>With a threshold</h2><p>How many of the anomalous pictures are found when at most so many of the "
        "normal ones may be reported, and the other way round, in percent. The threshold is chosen with hindsight on "
        f"these very pictures{several}, so new pictures will fare somewhat worse.</p>"
        f"{_table(['method', *head], body)}</section>"
    )


def _masked(result: Evaluation) -> str:
    """Of how many categories the pixel metrics are, where not of all."""
    masked, count = max(row.pixel_categories for row in result.means), len(result.categories)
    return f"Pixel metrics are means over the {masked} of {count} categories with masks. " if 0 < masked < count else ""


def _set_wide(result: Evaluation) -> str:
    """What such a row is, where there is one."""
    if all(row.scores == "picture" for row in result.rows):
        return ""
    return "Set-wide is the paper's own rule, which scores all pictures of a category at once and never a single one."


def _curves(record: Record, ranking: Sequence[Row], categories: Mapping[str, Sequence[Sample]]) -> str:
    drawn: dict[str, list[tuple[int, str, Curve]]] = {"roc": [], "pr": []}
    for place, row in enumerate(ranking):
        pairs = [_scores(record, row.method, samples) for samples in categories.values()]
        for kind, curve in (("roc", roc), ("pr", precision_recall)):
            if (found := mean_curve(pairs, curve)) is not None:
                drawn[kind].append((place, row.method, found))
    if not drawn["roc"]:
        return ""
    areas = "; ".join(f"{row.method} {tables.percent(row.image_auroc)}" for row in ranking)
    precisions = "; ".join(f"{row.method} {tables.percent(row.image_ap)}" for row in ranking)
    first = charts.curves(
        drawn["roc"],
        "ROC",
        "false alarms: normal pictures, percent",
        "found: anomalous pictures, percent",
        f"Receiver operating characteristic. Area under each curve in percent: {areas}.",
        chance=True,
    )
    second = charts.curves(
        drawn["pr"],
        "Precision and recall",
        "recall: anomalous pictures found, percent",
        "precision, percent",
        f"Precision over recall. Average precision in percent: {precisions}.",
        chance=False,
    )
    several = (
        "Each curve is the mean over the categories, so its area is the mean row's." if len(categories) > 1 else ""
    )
    return (
        f"<section><h2>Curves of image scores</h2><p>{several}</p>"
        f'<div class="pair">{first}{second}</div>{_legend(ranking)}</section>'
    )


def _histograms(record: Record, ranking: Sequence[Row], categories: Mapping[str, Sequence[Sample]]) -> str:
    parts = []
    for row in ranking:
        pairs = [_scores(record, row.method, samples) for samples in categories.values()]
        labels, scores = (np.concatenate(column) for column in zip(*pairs, strict=True))
        if not scores.size:
            continue
        low, high = float(scores.min()), float(scores.max())
        normal, anomalous = (shares(scores[labels == label], low, high, BINS) for label in (0, 1))
        medians = [f"{np.median(scores[labels == label]):.3f}" for label in (0, 1) if (labels == label).any()]
        words = f"Histogram of image scores from {low:.3f} to {high:.3f}; medians of each label: {', '.join(medians)}."
        parts.append(charts.histogram(normal, anomalous, low, high, row.method, words))
    return (
        "<section><h2>Scores by label</h2><p>Shares of the <span class='key normal'>normal</span> and of the "
        "<span class='key anomalous'>anomalous</span> pictures in each stretch of the scores, over all categories. "
        "The further the two lie apart, the better one threshold serves.</p>"
        f'<div class="many">{"".join(parts)}</div></section>'
    )


def _categories(result: Evaluation, ranking: Sequence[Row]) -> str:
    if len(result.categories) < 2:
        return ""
    parts: list[str] = []
    for metric, chance in (("image_auroc", True), ("pixel_aupro", False)):
        if all(math.isnan(getattr(row, metric)) for row in result.rows):
            continue
        series = [
            (
                place,
                row.method,
                [getattr(result.row(row.method, category), metric) for category in result.categories],
            )
            for place, row in enumerate(ranking)
        ]
        head, body = tables.by_category(result, metric)
        words = f"{TITLES[metric]} of every method on every category, in percent; the table below has the numbers."
        chart = charts.bars(result.categories, series, f"{TITLES[metric]}, percent", words, chance=chance)
        parts.append(f"{chart}<details><summary>The numbers</summary>{_table(head, body)}</details>")
    return f"<section><h2>By category</h2>{_legend(ranking, bars=True)}{''.join(parts)}</section>" if parts else ""


def _galleries(record: Record, ranking: Sequence[Row], categories: Mapping[str, Sequence[Sample]]) -> str:
    parts: list[str] = []
    for row in ranking:
        found = gallery(record, row.method, categories)
        if found is None:
            continue
        opened = "" if parts else " open"
        parts.append(
            f'<details class="method"{opened}><summary><h3>{escape(row.method)}</h3></summary>'
            f"{_gallery(found, row.method)}</details>"
        )
    if not parts:
        return ""
    return (
        "<section><h2>Best and worst pictures</h2><p>Each pair shows the picture, with what is marked outlined, "
        "and the method's anomaly map over it. How far a score is on the wrong side is judged within the picture's own "
        "category. All pictures of a method share one scale of colours, which begins at the median of its maps: "
        "what is not coloured is usual.</p>"
        f"{''.join(parts)}</section>"
    )


def _gallery(found: Gallery, name: str) -> str:
    low, high = found.scale
    colours = [tuple(int(part) for part in COLOURS[place]) for place in range(0, 256, 15)]
    rows = [f"<p class='scaled'>Anomaly map: {charts.scale(low, high, colours)}</p>"]  # type: ignore[arg-type]
    for kind, (title, words) in _KINDS.items():
        tiles = [made for tile in found.tiles.get(kind, ()) if (made := _tile(tile, found.scale, name))]
        if tiles:
            rows.append(f'<h4>{title}</h4><p class="note">{escape(words)}</p><div class="tiles">{"".join(tiles)}</div>')
    return "".join(rows)


def _tile(tile: Tile, scale: tuple[float, float], name: str) -> str:
    made = pictures(tile, scale, name)
    if made is None:
        return ""
    images = "".join(f'<img src="{data}" alt="{escape(words)}" loading="lazy">' for data, words in made)
    sample = tile.sample
    side = "normal pictures score as high" if sample.label else "anomalous pictures score as low"
    what = ", ".join(part for part in (sample.category, sample.defect) if part)
    return (
        f'<figure><div class="two">{images}</div><figcaption><b>{tile.score:.3f}</b> {escape(what)} '
        f'<span class="file">{escape(sample.path.name)}</span><br>{100 * tile.wrong:.0f} % of the {side}</figcaption>'
        "</figure>"
    )


def _published(result: Evaluation) -> str:
    head, body = tables.published(result)
    if not body:
        return ""
    return (
        "<section><h2>Published numbers of the same methods</h2><p>In percent. A difference is given where the "
        f"backbone is the same. {escape(' '.join([tables.AUPRO_200, *tables.caution(result)]))}</p>"
        f"{_table(head, body)}</section>"
    )


def _reading() -> str:
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in _READING.items())
    return f'<section><h2>How to read the numbers</h2><dl class="reading">{cells}</dl></section>'


def _how(result: Evaluation, dataset: Dataset) -> str:
    lines = [f"data: {result.facts.get('data')} as {dataset.name}, {dataset.layout}", *tables.provenance(result)]
    lines += dataset.notes
    missing = tables.reasons(result)
    gaps = f"<h3>What is missing</h3><ul>{_items(missing)}</ul>" if missing else ""
    return f"<section><h2>How this was made</h2><ul>{_items(lines)}</ul>{gaps}</section>"


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col"{_right(body, place)}>{escape(name)}</th>' for place, name in enumerate(head))
    rows = []
    for first, *rest in body:
        cells = "".join(f"<td{_right(body, place)}>{escape(cell)}</td>" for place, cell in enumerate(rest, 1))
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return f"{_WIDE}<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _right(body: Sequence[Sequence[str]], place: int) -> str:
    """Numbers stand to the right."""
    numbers = place > 0 and all(
        line[place].lstrip("+-").replace(".", "").isdigit() for line in body if line[place] != "-"
    )
    return ' class="n"' if numbers else ""


def _legend(ranking: Sequence[Row], *, bars: bool = False) -> str:
    items = "".join(
        f"<li>{charts.swatch(place, bar=bars)}{escape(row.method)}</li>" for place, row in enumerate(ranking)
    )
    return f'<ul class="legend">{items}</ul>'


def _styles(ranking: Sequence[Row]) -> dict[str, int]:
    return {row.method: place for place, row in enumerate(ranking)}


def _scores(record: Record, name: str, samples: Sequence[Sample]) -> tuple[Labels, Floats]:
    found = [(sample.label, entry.score) for sample in samples if (entry := record.entry(name, sample)) is not None]
    return np.array([label for label, _ in found], dtype=np.int64), np.array([score for _, score in found])
