"""Requests: what they accept, and their union."""

from __future__ import annotations

import pytest

from blemish.clip import Request, Tap
from blemish.errors import UsageError


@pytest.mark.parametrize(
    "options",
    [
        {"layer": 0},
        {"layer": -1, "path": "middle"},
        {"layer": 3, "path": "queries"},
        {"layer": 3, "start": 2},
        {"layer": 3, "path": "middle", "seeded": False},
        {"layer": 3, "path": "value", "start": 4},
        {"layer": 3, "path": "value", "start": 0},
    ],
)
def test_impossible_taps_are_usage_errors(options):
    with pytest.raises(UsageError):
        Tap(**options)


def test_windows_are_at_least_one_patch():
    with pytest.raises(UsageError):
        Request(windows=(0,))


def test_union():
    one = Request([Tap(1), Tap(2)], class_token=False, windows=(3,))
    two = Request([Tap(2), Tap(3, "value")], class_token=False, windows=(2, 3))
    both = one | two
    assert both.taps == {Tap(1), Tap(2), Tap(3, "value")}
    assert both.windows == (2, 3)
    assert not both.class_token
    assert (both | Request()).class_token
    assert one | one == one
    assert hash(one | two) == hash(two | one)


def test_taps_can_be_sorted():
    assert sorted([Tap(2), Tap(1, "value"), Tap(1)]) == [Tap(1), Tap(1, "value"), Tap(2)]
