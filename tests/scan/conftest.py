"""What the tests of scans share: a fast detector, and sources of each form with the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.loading import load
from blemish.scan import DetectorOptions, PartOptions, PlanOptions, Scan, Shard, SourceOptions
from helpers import save_picture

Begin = Callable[..., Scan]


@pytest.fixture(scope="session")
def detector_options(tiny_backbone: Path) -> DetectorOptions:
    return DetectorOptions(
        {"method": "clip", "backbone": str(tiny_backbone), "device": "cpu", "precision": "float32", "threshold": 0.5}
    )


@pytest.fixture
def begin(detector_options: DetectorOptions, tmp_path: Path) -> Begin:
    """Open a scan of small parts: `with begin(folder) as scan`."""

    def call(*sources: object, out: str = "out", shard: Shard | None = None, **options: Any) -> Scan:
        return Scan(
            PlanOptions(
                tuple(str(source) for source in sources),
                SourceOptions(options.get("column"), options.get("profile_from")),
                options.get("part_size", 4),
            ),
            tmp_path / out,
            options.get("detectors", detector_options),
            PartOptions(options.get("batch_size", 3), options.get("kinds", ())),
            shard=shard,
        )

    return call


@pytest.fixture(autouse=True)
def _loaded_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each detector once for all tests: what a test says about scans depends on no fresh copy."""
    import blemish.scan.detectors as module

    monkeypatch.setattr(module, "load", _cached(request.session))


def _cached(session: pytest.Session) -> Callable[..., Any]:
    cache = session.stash.setdefault(_DETECTORS, {})

    def call(**options: Any) -> Any:
        key = repr(sorted((name, str(value)) for name, value in options.items()))
        if key not in cache:
            cache[key] = load(**options)
        return cache[key]

    return call


_DETECTORS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree of ten pictures, two of them identical and one of them broken."""
    tree = tmp_path / "photos"
    for number in range(8):
        save_picture(tree / f"line{number % 2}" / f"{number}.png", number)
    (tree / "line1" / "9-copy.png").write_bytes((tree / "line1" / "7.png").read_bytes())
    (tree / "line0" / "8-broken.png").write_bytes(b"no picture")
    return tree
