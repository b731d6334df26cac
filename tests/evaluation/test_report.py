"""The report: one file that needs nothing else, readable without eyes, honest about its curves."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from evaluation_trees import CHEAP, add_category, evaluate

from blemish.clip import Backbone
from blemish.evaluation import recompute
from blemish.metrics import auroc, average_precision
from blemish.report import charts
from blemish.report.curves import alarms_for, found_at, mean_curve, precision_recall, roc, shares
from blemish.report.page import _verdict

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and gathers what is asked of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def text(data: Path, backbone: Backbone, tmp_path: Path) -> str:
    add_category(data, "<b>&amp; co", masks=False)
    evaluate(data, backbone, out=tmp_path / "out", report=True, limit=6)
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_one_file_that_needs_nothing_else(text: str) -> None:
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ("src", "href", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    assert len(page.all("main")) == len(page.all("h1")) == 1


def test_says_what_it_shows(text: str) -> None:
    page = Page(text)
    images = page.all("img")
    assert len(images) >= 2 * 2 * 4
    assert all(image["alt"] for image in images)
    assert any("outlined" in str(image["alt"]) for image in images)
    drawn = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert drawn
    assert all(svg["role"] == "img" and (svg.get("aria-labelledby") or svg.get("aria-label")) for svg in drawn)
    named = {attributes.get("id") for _, attributes in page.tags}
    assert all(set((svg.get("aria-labelledby") or "").split()) <= named for svg in drawn)
    assert all(cell.get("scope") for cell in page.all("th"))
    for word in (
        *CHEAP,
        "Ranking",
        "ROC",
        "Missed",
        "False alarms",
        "By category",
        "With a threshold",
        "means over the 2 of 3",
        "<b>&amp; co",
    ):
        assert word in page.words, word
    assert page.all("html")[0]["lang"] == "en"


def test_charts_are_xml(text: str) -> None:
    for chart in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(chart)


def test_can_be_made_later_and_without_the_pictures(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(data, backbone, methods=["clip"], categories=["grid"], out=out)
    assert not (out / "report.html").exists()
    recompute(out, report=True)
    full = Page((out / "report.html").read_text(encoding="utf-8"))
    assert len(full.all("img")) == 2 * 8 * 2  # each of the eight is the best and the worst of its label


def test_curves_have_the_areas_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(3):
        labels = rng.integers(0, 2, 60)
        pairs.append((labels, (labels + rng.normal(0, 1, 60)).round(1)))  # with ties
    for labels, scores in pairs:
        curve = roc(labels, scores)
        assert np.trapezoid(curve.y, curve.x) == pytest.approx(auroc(labels, scores))
        curve = precision_recall(labels, scores)
        assert np.trapezoid(curve.y, curve.x) == pytest.approx(average_precision(labels, scores))
    for curve_of, metric in ((roc, auroc), (precision_recall, average_precision)):
        mean = mean_curve(pairs, curve_of)
        assert mean is not None
        wanted = np.mean([metric(labels, scores) for labels, scores in pairs])
        assert np.trapezoid(mean.y, mean.x) == pytest.approx(wanted, abs=5e-3)
        assert mean.y[-1] == pytest.approx(np.mean([curve_of(*pair).y[-1] for pair in pairs]))
    assert mean_curve([*pairs, (np.ones(3, dtype=np.int64), np.ones(3))], roc) is None


def test_what_a_threshold_reaches() -> None:
    labels = np.array([0] * 10 + [1] * 4)
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.9, 0.95, 0.8, 0.7, 0.05])
    assert [found_at(labels, scores, share) for share in (0, 0.09, 0.1, 0.2, 1)] == [0.25, 0.25, 0.5, 0.75, 1]
    assert [alarms_for(labels, scores, share) for share in (0.25, 0.5, 0.75, 1)] == [0, 0.1, 0.2, 1]


def test_no_more_is_said_than_the_interval_allows(data: Path, backbone: Backbone) -> None:
    first, second = evaluate(data, backbone, categories=["grid"]).means
    first = replace(first, image_auroc=0.9, image_auroc_low=0.8, image_auroc_high=0.95)
    words = _verdict(first, (first, replace(second, image_auroc=0.7)))
    assert "90 of 100 cases (95 % interval 80 to 95)" in words
    assert "not certain" not in words
    assert "not certain: clip" in _verdict(first, (first, replace(second, image_auroc=0.82)))
    assert "do not show that it works" in _verdict(replace(first, image_auroc_low=0.45), (first, second))


def test_histograms() -> None:
    np.testing.assert_allclose(shares(np.array([0.0, 0.1, 0.9, 1.0]), 0, 1, 2), [0.5, 0.5])
    np.testing.assert_allclose(shares(np.array([0.3, 0.3]), 0.3, 0.3, 4).sum(), 1)
    assert shares(np.array([]), 0, 1, 3).tolist() == [0, 0, 0]


def test_charts_of_hard_names() -> None:
    nan = float("nan")
    chart = charts.bars(["<&>", "x" * 60], [(0, 'a"b', [0.5, 0.1])], "t", "w", chance=True)
    ElementTree.fromstring(chart)
    assert "nan" not in chart
    chart = charts.bars(["known", "unknown"], [(0, "a", [0.5, nan]), (1, "b", [0.4, nan])], "t", "w", chance=False)
    assert "known" in chart
    assert "unknown" not in chart
    assert charts.interval(nan, nan, nan) == ""
    ElementTree.fromstring(charts.interval(0.5, nan, nan))
