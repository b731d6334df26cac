"""Loss curves: one line per loss, whatever the numbers are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from blemish.training.run_files import draw_losses, loss_scalars

SVG = "{http://www.w3.org/2000/svg}"


def curves(text: str) -> list[list[tuple[float, float]]]:
    """The corners of each curve, whose name is its tooltip, from the first loss on."""
    paths = [
        path for path in ElementTree.fromstring(text).findall(f"{SVG}path") if path.find(f"{SVG}title") is not None
    ]
    corners = [path.get("d", "").removeprefix("M").split("L") for path in reversed(paths)]
    return [[(float(x), float(y)) for x, y in map(str.split, points)] for points in corners]


def test_scalars() -> None:
    assert list(loss_scalars({"step": 1, "epoch": 1, "a": [1.0, 2.0], "total": 5.0}).items()) == [
        ("total", 5.0),
        ("a", 3.0),
    ]


def test_a_curve_for_each_loss() -> None:
    text = draw_losses(
        [{"step": k, "epoch": 1, "a": [1.0, k**2], "total": 100.0 / k} for k in range(1, 6)], "nuts & <bolts>"
    )
    total, a = curves(text)
    assert len(total) == len(a) == 5
    assert [y for _, y in total] == sorted(y for _, y in total)  # down is up in SVG: the loss falls
    assert [x for x, _ in a] == sorted(x for x, _ in a)
    assert "nuts &amp; &lt;bolts&gt;" in text


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [-1.0, -1.0], [1e-30, 2e-30], [1e9, 1.0], [0.1 * k for k in range(5000)]]
)
def test_whatever_the_numbers_are(values: list[float]) -> None:
    (points,) = curves(draw_losses([{"step": k + 1, "epoch": 1, "total": value} for k, value in enumerate(values)]))
    assert 1 <= len(points) <= 400
    assert all(0 <= x <= 752 and 0 <= y <= 402 for x, y in points)


def test_nothing() -> None:
    assert curves(draw_losses([])) == []
