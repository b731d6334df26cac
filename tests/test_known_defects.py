"""Profiles that know defects, and good pictures that were chosen because of their scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.errors import ProfileError, UsageError
from blemish.loading import load
from blemish.profile import Profile, read_profile
from helpers import save_picture

#: For the stand-in backbone.
JOINT = {"layers": (12,), "compared": (6, 7), "whole": 0.15, "whole_layer": 6}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    backbone = load_backbone(str(tiny_backbone))
    assert isinstance(backbone, Backbone)
    return backbone


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    return [save_picture(folder / f"{number}.png", 40 + number) for number in range(7)]


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("defects")
    paths = []
    for number in range(3):
        levels = np.asarray(Image.open(save_picture(folder / f"bad{number}.png", 60 + number))).copy()
        levels[8 : 12 + 6 * number, 10:30] = 250
        grey = Image.fromarray(levels).convert("L" if number == 0 else "RGB")
        grey.save(folder / f"bad{number}.png")
        paths.append(folder / f"bad{number}.png")
    return paths


def make(method: str, backbone: Backbone, **more: Any) -> Detector:
    config = {"joint": JOINT, "anomalydino": {"size": 148, "layer": 6, "rotation": False}}.get(method)
    return load(method, backbone=backbone, device="cpu", precision="float32", config=config, **more)


@pytest.fixture(scope="module")
def winclip(backbone: Backbone) -> Detector:
    return make("winclip", backbone)


def profile_of(detector: Detector) -> Profile:
    assert detector.profile is not None
    return detector.profile


@pytest.mark.parametrize(
    ("method", "more"),
    [("winclip", {}), ("joint", {}), ("anomalydino", {}), ("subspacead", {}), ("winclip", {"tile": 24})],
)
def test_known_defects_have_the_scores_of_their_pictures(
    backbone: Backbone, good: list[Path], defects: list[Path], tmp_path: Path, method: str, more: dict[str, int]
) -> None:
    fitted = make(method, backbone, **more).fit(good[:5])
    knowing = fitted.with_known_defects(defects)
    assert profile_of(fitted).known_defects == ()
    assert knowing.limits.fingerprint == fitted.limits.fingerprint
    known = profile_of(knowing).known_defects
    assert [defect.name for defect in known] == [str(path) for path in defects]
    for defect in known:
        assert defect.score == pytest.approx(knowing(defect.name).score, abs=1e-6)
    # Neither the pictures nor the old memory are needed for the scores with a new one.
    path = profile_of(knowing).save(tmp_path / "part")
    copies = [save_picture(tmp_path / f"{number}.png", 90 + number) for number in range(2)]
    changed = load(path, backbone=backbone).with_more_good(copies)
    for defect, old in zip(profile_of(changed).known_defects, known, strict=True):
        assert defect.score == pytest.approx(changed(defect.name).score, abs=1e-6)
        assert method == "subspacead" or defect.score <= old.score
    missed = profile_of(changed).missed_defects(2.0)
    assert [defect.score for defect in missed] == sorted(defect.score for defect in profile_of(changed).known_defects)
    assert profile_of(changed).missed_defects(0.0) == ()


def test_the_file_keeps_them(winclip: Detector, good: list[Path], defects: list[Path], tmp_path: Path) -> None:
    fitted = winclip.fit(good)
    plain, path = profile_of(fitted).save(tmp_path / "plain"), tmp_path / "known.profile"
    knowing = profile_of(fitted.with_known_defects(defects))
    knowing.save(path)
    read = read_profile(path)
    assert read.known_defects == knowing.known_defects
    assert [defect.tiles for defect in read.known_defects] == [defect.tiles for defect in knowing.known_defects]
    assert read.summary() == knowing.summary()
    # A version that knows no known defects refuses the file by its format, and reads one without them.
    assert b'"version":"1"' in plain.read_bytes()[:200_000].replace(b": ", b":")
    later = path.read_bytes().replace(b'"version":"2"', b'"version":"3"')
    path.write_bytes(later)
    with pytest.raises(ProfileError, match="format 3 of a later blemish, and this one reads 2"):
        read_profile(path)


def test_known_defects_can_be_taken_out(winclip: Detector, good: list[Path], defects: list[Path]) -> None:
    knowing = winclip.fit(good).with_known_defects(defects).with_known_defects(defects[:1])
    assert len(profile_of(knowing).known_defects) == 3
    fewer = knowing.without_known_defects(["bad1.png", profile_of(knowing).known_defects[0].fingerprint])
    assert [Path(defect.name).name for defect in profile_of(fewer).known_defects] == ["bad2.png"]
    with pytest.raises(UsageError, match=r"no known defect bad3\.png \(did you mean bad"):
        fewer.without_known_defects(["bad3.png"])


def test_no_picture_is_both(winclip: Detector, good: list[Path], defects: list[Path]) -> None:
    fitted = winclip.fit(good)
    with pytest.raises(
        UsageError, match=r"one of the good pictures of the profile.*take it out of the good ones first"
    ):
        fitted.with_known_defects([good[0]])
    with pytest.raises(UsageError, match=r"is a known defect of the profile.*take it out of the known defects first"):
        fitted.with_known_defects(defects).with_more_good(defects[:1])


@pytest.mark.parametrize("method", ["winclip", "joint"])
def test_a_false_alarm_becomes_a_reference_and_moves_no_threshold(
    backbone: Backbone, good: list[Path], defects: list[Path], method: str
) -> None:
    before = make(method, backbone).fit(good[:5])
    after = before.with_more_good(defects[:2], selected=True)
    assert after.limits.scores == before.limits.scores
    assert (after.threshold, after.mask_threshold) == (before.threshold, before.mask_threshold)
    assert profile_of(after).false_alarms == profile_of(before).false_alarms
    assert after(defects[0]).score < before(defects[0]).score
    added = profile_of(after).good[5:]
    assert [entry.selected for entry in added] == [True, True]
    assert added[0].score == pytest.approx(
        before.with_more_good(defects[1:2], selected=True)(defects[0]).score, abs=2e-3
    )
    assert "2 good pictures were added because of their scores" in str(after.limits.promise)
    assert "the promise does not count on them" in str(after.limits.promise)
    # What calibrates afterwards is not compared with them either.
    more, plain = after.with_more_good(good[5:]), before.with_more_good(good[5:])
    assert more.limits.scores == plain.limits.scores
    assert more.threshold == plain.threshold
    assert more.memory is not None
    assert more.memory.references == 9
    without = after.without_good([str(path) for path in defects[:2]])
    assert without.limits.fingerprint == before.limits.fingerprint
    assert without(good[6]).score == before(good[6]).score


def test_in_a_split_a_false_alarm_can_only_raise_the_threshold(
    winclip: Detector, good: list[Path], defects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blemish.fitting.schemes.MAX_LEAVE_ONE_OUT", 5)
    before = winclip.fit(good, false_alarms=0.5)
    after = before.with_more_good(defects, selected=True)
    entries = profile_of(after).good[7:]
    scores = sorted([*before.limits.scores, *(entry.score for entry in entries if entry.score is not None)])
    # Of 4 pictures that calibrate, the 2nd highest; the others count, and the promise does not count on them.
    assert after.threshold == np.nextafter(np.float32(scores[-2]), np.float32(2))
    assert before.threshold is not None
    assert after.threshold >= before.threshold
    assert after.limits.contaminated == 3
    assert after.limits.p_value(0.0) == 1.0
    assert after.limits.p_value(1.0) == 1 / 5
    assert "3 good pictures were added because of their scores: the promise" in str(after.limits.promise)


def test_pictures_that_seem_to_be_chosen_are_noted(winclip: Detector, good: list[Path], defects: list[Path]) -> None:
    fitted = winclip.fit(good)
    fitted = fitted.with_profile(
        dataclasses.replace(profile_of(fitted), limits=dataclasses.replace(fitted.limits, threshold=0.0))
    )
    notes = profile_of(fitted.with_more_good(defects)).notes
    assert any("3 of the 3 pictures that were added reach the former threshold" in note for note in notes)
    notes = profile_of(fitted.with_more_good(defects, selected=True)).notes
    assert not any("reach the former threshold" in note for note in notes)


def test_a_detector_without_a_profile_knows_none(winclip: Detector, defects: list[Path]) -> None:
    for change in (winclip.with_known_defects, winclip.without_known_defects):
        with pytest.raises(UsageError, match="the detector has no profile"):
            change(defects)
