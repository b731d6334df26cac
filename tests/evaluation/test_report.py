"""The report: one self-contained file, accessible to screen readers, whose curves agree with the metrics."""

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
from blemish.metrics import auroc, average_precision, precision_recall_curve, roc_curve
from blemish.outputs import svg
from blemish.report.page import _verdict, histogram, mean_curve

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects tags and text."""

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


def test_is_self_contained(text: str) -> None:
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ("src", "href", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    assert len(page.all("main")) == len(page.all("h1")) == 1


def test_describes_what_it_shows(text: str) -> None:
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


def test_can_be_written_later(data: Path, backbone: Backbone, tmp_path: Path) -> None:
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
    for curve_of, metric in ((roc_curve, auroc), (precision_recall_curve, average_precision)):
        for labels, scores in pairs:
            curve = curve_of(labels, scores)
            assert np.trapezoid(curve.y, curve.x) == pytest.approx(metric(labels, scores))
        mean = mean_curve(pairs, curve_of)
        assert mean is not None
        expected = np.mean([metric(labels, scores) for labels, scores in pairs])
        assert np.trapezoid(mean.y, mean.x) == pytest.approx(expected, abs=5e-3)
        assert mean.y[-1] == pytest.approx(np.mean([curve_of(*pair).y[-1] for pair in pairs]))
    assert mean_curve([*pairs, (np.ones(3, dtype=np.int64), np.ones(3))], roc_curve) is None


def test_the_verdict_is_as_careful_as_the_interval(data: Path, backbone: Backbone) -> None:
    first, second = evaluate(data, backbone, categories=["grid"]).means
    first = replace(first, image_auroc=0.9, image_auroc_low=0.8, image_auroc_high=0.95)
    words = _verdict([first, replace(second, image_auroc=0.7)])
    assert "90 of 100 cases (95 % interval 80 to 95)" in words
    assert "not certain" not in words
    assert "not certain: clip" in _verdict([first, replace(second, image_auroc=0.82)])
    assert "do not show that the method works" in _verdict([replace(first, image_auroc_low=0.45), second])


def test_histograms() -> None:
    np.testing.assert_allclose(histogram(np.array([0.0, 0.1, 0.9, 1.0]), 0, 1, 2), [0.5, 0.5])
    np.testing.assert_allclose(histogram(np.array([0.3, 0.3]), 0.3, 0.3, 4).sum(), 1)
    assert histogram(np.array([]), 0, 1, 3).tolist() == [0, 0, 0]


def test_charts_of_hard_names() -> None:
    nan = float("nan")
    chart = svg.bar_chart(["<&>", "x" * 60], [(0, 'a"b', [0.5, 0.1])], "t", "w", midline=True)
    ElementTree.fromstring(chart)
    assert "nan" not in chart
    chart = svg.bar_chart(["known", "unknown"], [(0, "a", [0.5, nan]), (1, "b", [0.4, nan])], "t", "w")
    assert "known" in chart
    assert "unknown" not in chart
    assert svg.interval(nan, nan, nan) == ""
    ElementTree.fromstring(svg.interval(0.5, nan, nan))
