"""Drift is noticed when it is there, and not when it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from service_helpers import files, serving
from starlette.testclient import TestClient

from blemish.detector import AMONG_GOOD, Detector
from blemish.profile import Profile, read_profile
from blemish.serve.drift import FEWEST, WINDOW, Drift, Numbers, numbers_of
from blemish.serve.profiles import Registry
from helpers import save_picture


@pytest.fixture(scope="module")
def profile(profile_file: Path) -> Profile:
    return read_profile(profile_file)


def drawn(profile: Profile, count: int, *, shift: float = 0.0, seed: int = 0) -> list[Numbers]:
    """Return pictures like the good ones, moved by so many standard deviations."""
    rng = np.random.default_rng(seed)
    columns = []
    for name in ("score", "usual"):
        good = np.array([getattr(entry, name) for entry in profile.good])
        columns.append(rng.choice(good, count) + (shift + rng.normal(0, 0.3, count)) * good.std())
    return [Numbers(float(score), float(usual)) for score, usual in zip(*columns, strict=True)]


def fill(drift: Drift, pictures: list[Numbers], first: int = 0) -> Drift:
    for number, numbers in enumerate(pictures, first):
        drift.add(numbers, str(number).encode())
    return drift


def test_good_pictures_are_no_drift(profile: Profile) -> None:
    levels = [fill(Drift(profile), drawn(profile, 100, seed=seed)).level for seed in range(20)]
    assert levels.count("ok") >= 19
    report = fill(Drift(profile), drawn(profile, 100)).report()
    assert report["sentence"] == "The last 100 pictures look like the good pictures of the profile."
    assert sum(report["scores"]["calibration"]) == len(profile.good)
    assert sum(report["scores"]["recent"]) == sum(report["features"]["recent"]) == 100
    assert len(report["scores"]["edges"]) == len(report["scores"]["recent"]) + 1


def test_other_pictures_are_an_alarm(profile: Profile) -> None:
    report = fill(Drift(profile), drawn(profile, 100, shift=5)).report()
    assert report["level"] == report["scores"]["level"] == report["features"]["level"] == "alarm"
    assert "the promise may not hold" in report["sentence"]
    assert "light" in report["advice"]
    for part in (report["scores"], report["features"]):
        assert "above a good one in 100 of 100 comparisons" in part["sentence"]
        assert "in less than 1 of 1,000,000 cases" in part["sentence"]


def test_defects_alone_do_not_move_the_median(profile: Profile) -> None:
    usual = drawn(profile, 100)
    defects = [Numbers(numbers.score + 1, numbers.usual) for numbers in usual]
    report = fill(Drift(profile), defects).report()
    assert report["scores"]["level"] == "alarm"
    assert report["features"]["level"] == "ok"
    assert "there are more defects" in report["sentence"]


def test_a_change_while_the_service_runs(profile: Profile) -> None:
    drift = fill(Drift(profile), drawn(profile, WINDOW))
    fill(drift, drawn(profile, WINDOW, shift=4, seed=1), first=WINDOW)
    report = drift.report()
    assert report["level"] == "alarm"
    assert report["scores"]["log_capital"] > 2
    assert "changed while the service ran" in report["scores"]["sentence"]
    assert report["pictures"] == 2 * WINDOW


def test_too_few_pictures_say_nothing(profile: Profile) -> None:
    drift = fill(Drift(profile), drawn(profile, FEWEST - 1, shift=5))
    report = drift.report()
    assert report["level"] == "unknown"
    assert report["scores"]["p_value"] is None
    assert report["advice"] == "Score more pictures, then look again."
    # A picture that comes again is no further one.
    drift.add(Numbers(1.0, 1.0), b"0")
    assert drift.report()["pictures"] == FEWEST - 1
    drift.add(Numbers(1.0, 1.0), b"new")
    assert drift.level != "unknown"


def test_good_pictures_of_the_profile_do_not_count(client: TestClient, registry: Registry, profile_file: Path) -> None:
    """They would score low against themselves, and the level would be "ok" whatever else came in."""
    good = [
        ("files", (path.name, path.read_bytes(), "image/png"))
        for path in sorted((profile_file.parent / "good").iterdir())
    ]
    with serving(registry) as own:
        results = own.post("/v1/detect", files=good).json()["results"]
        assert all(AMONG_GOOD in result["notes"] for result in results)
        (other,) = own.post("/v1/detect", files=files(99)).json()["results"]
        assert other["notes"] == []
        report = own.get("/v1/profiles/part/drift").json()
        assert (report["level"], report["pictures"], report["own"]) == ("unknown", 1, len(good))
        assert f"{len(good)} more are among the profile's good pictures and do not count." in report["sentence"]


def test_the_median_is_that_of_a_fit(base: Detector, tmp_path: Path) -> None:
    """The number that drift compares is computed as for the good pictures."""
    pictures = [save_picture(tmp_path / f"{number}.png", number) for number in range(5)]
    profile = base.fit(pictures).profile
    assert profile is not None
    others = base.with_references(pictures[1:])
    assert numbers_of(others(pictures[0]), None).usual == pytest.approx(profile.good[0].usual, abs=4e-3)


def test_drift_over_http(client: TestClient, registry: Registry) -> None:
    with serving(registry) as own:
        assert own.get("/v1/profiles/part/drift").json()["level"] == "unknown"
        assert own.get("/v1/profiles/prt/drift").status_code == 404
        for start in range(0, FEWEST + 10, 10):
            own.post("/v1/detect", files=files(*range(start, start + 10)))
        own.post("/v1/detect?method=clip", files=files(99))
        report = own.get("/v1/profiles/part/drift").json()
        # Noise is nothing like the pictures of the profile.
        assert report["level"] == "alarm"
        assert report["pictures"] == FEWEST + 10
        assert 'blemish_drift_level{profile="part"} 2.0' in own.get("/metrics").text
