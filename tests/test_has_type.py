"""Types of values that others wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from blemish.files import has_type, parse_json


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (float, (0, 1.5, -2), (True, "1", None, float("nan"), float("inf"), 2**70)),
        (int, (0, -3), (1.0, False, "1", 2**70)),
        (bool, (True, False), (0, 1)),
        (str | None, ("", None), (1, ["a"])),
        (Literal["a", "b"], ("a",), ("c", [], None)),
        (tuple[float, float], ([0, 1], (0.5, 1.0)), ([1], [1, 2, 3], ["a", 1], "ab", None)),
        (list[str], ([], ["a"]), ("a", [1], {})),
        (Sequence[int], ([1],), ([1.5],)),
        (dict[str, str], ({}, {"a": "b"}), ({"a": 1}, [])),
        (Mapping[str, Any], ({"a": [1, {}]},), ([], None)),
        (object, (float("nan"), None), ()),
    ],
)
def test_types(kind: Any, right: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    assert [has_type(value, kind) for value in right] == [True] * len(right)
    assert [has_type(value, kind) for value in wrong] == [False] * len(wrong)


@pytest.mark.parametrize("text", ['{"a": [NaN]}', "[-Infinity]", "[1e999]"])
def test_numbers_that_json_has_not(text: str) -> None:
    parse_json(text)
    with pytest.raises(ValueError, match="is no number"):
        parse_json(text, finite=True)
    assert parse_json("[1e9, 2, 0.5]", finite=True) == [1e9, 2, 0.5]
