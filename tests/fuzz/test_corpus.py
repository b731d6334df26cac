"""What fuzzing found stays found: every seed and every kept input is read again, or refused as it should be."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_what_it_should_not(name: str) -> None:
    target = TARGETS[name]
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}
    inputs = {**{f"seed {number}": seed for number, seed in enumerate(target.seeds())}, **kept}
    assert inputs
    for data in inputs.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(*target.expected):
                target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    """At least one seed passes, so that a target does not refuse everything for a reason of its own."""
    target = TARGETS[name]
    inputs = [*target.seeds(), *(path.read_bytes() for path in (CORPUS / name).glob("part.*"))]
    passed = 0
    for data in inputs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                target.run(data)
                passed += 1
            except target.expected:
                pass
    assert passed >= max(1, len(inputs) // 3)
