"""Where `precision="auto"` takes bfloat16: on processors that compute it faster than float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.methods import ops

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "units", "expected"),
    [
        ("GenuineIntel", {"amx_tile", "avx512_bf16"}, True),
        ("GenuineIntel", {"avx512_bf16"}, False),
        ("GenuineIntel", set(), False),
        ("AuthenticAMD", {"avx512_bf16"}, True),
        ("AuthenticAMD", set(), False),
        (None, {"avx512_bf16"}, False),  # a system without /proc
        (None, {"amx_tile"}, True),
    ],
)
def test_units(vendor: str | None, units: set[str], expected: bool, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "cpuinfo"
    if vendor is not None:
        info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: 6\n\nprocessor\t: 1\n")
    monkeypatch.setattr(ops, "_CPU_INFO", info)
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(f"torch.cpu._is_{unit}_supported", lambda unit=unit: unit in units, raising=False)
    ops._is_by_amd.cache_clear()
    try:
        assert ops.has_bfloat16_units(CPU) is expected
    finally:
        ops._is_by_amd.cache_clear()


def test_a_pytorch_that_does_not_tell(monkeypatch) -> None:
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.delattr(f"torch.cpu._is_{unit}_supported", raising=False)
    assert not ops.has_bfloat16_units(CPU)
