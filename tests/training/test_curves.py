"""Loss curves: one line per loss, whatever the numbers are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from blemish.training.curves import draw, scalars

SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = ElementTree.fromstring(svg).findall(f"{SVG}polyline")
    return [[tuple(map(float, p.split(","))) for p in one.get("points", "").split()] for one in found]


def test_scalars() -> None:
    assert list(scalars({"step": 1, "epoch": 1, "a": [1.0, 2.0], "total": 5.0}).items()) == [("total", 5.0), ("a", 3.0)]


def test_a_curve_for_each_loss() -> None:
    svg = draw([{"step": k, "epoch": 1, "a": [1.0, k], "total": 9.0 - k} for k in range(1, 6)], "nuts & <bolts>")
    total, a = lines(svg)
    assert len(total) == len(a) == 5
    assert [y for _, y in total] == sorted(y for _, y in total)  # down is up in SVG: the loss falls
    assert [x for x, _ in a] == sorted(x for x, _ in a)
    assert "nuts &amp; &lt;bolts&gt;" in svg


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [-1.0, -1.0], [1e-30, 2e-30], [1e9, 1.0], [0.1 * k for k in range(5000)]]
)
def test_whatever_the_numbers_are(values: list[float]) -> None:
    (points,) = lines(draw([{"step": k + 1, "epoch": 1, "total": value} for k, value in enumerate(values)]))
    assert 1 <= len(points) <= 400
    assert all(0 <= x <= 760 and 0 <= y <= 420 for x, y in points)


def test_nothing() -> None:
    assert lines(draw([])) == []
