"""Whatever is changed in the code, the numbers stay: see `golden.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import golden
from blemish.clip import Backbone

CHECKSUMS = json.loads((golden.DATA / "checksums.json").read_text())
#: Another instruction set adds up in another order: AVX2 in place of AVX-512 moves a value by up to 5e-5.
TOLERANCE = 1e-6 if CHECKSUMS["machine"] == golden.machine() else 1e-4


@pytest.fixture(scope="module")
def stored() -> Mapping[str, np.ndarray]:
    with np.load(golden.DATA / "values.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def backbones(folder: Path) -> dict[str, Backbone]:
    return golden.backbones(folder)


@pytest.mark.parametrize("key", golden.keys())
def test_numbers_stay(key: str, stored: Mapping[str, np.ndarray], backbones: dict[str, Backbone], folder: Path) -> None:
    found = golden.compute(key, backbones, folder)
    assert {f"{key}/{name}" for name in found} == {name for name in stored if name.startswith(f"{key}/")}
    for name, values in found.items():
        np.testing.assert_allclose(golden.sampled(values), stored[f"{key}/{name}"], rtol=0, atol=TOLERANCE)
    if CHECKSUMS["machine"] == golden.machine():
        differs = [n for n, values in found.items() if golden.checksum(values) != CHECKSUMS["checksums"][f"{key}/{n}"]]
        assert not differs, f"not the same to the bit: {', '.join(differs)}"
