"""Good pictures become a profile: scores by leave-one-out, thresholds, files that give the same scores, and
refusals.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import blemish
from blemish import calibration
from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import ImageError, ProfileError, UsageError
from blemish.limits import Rule
from blemish.loading import load
from blemish.methods import create
from blemish.profile import Limits, Profile, read_profile
from blemish.roi import Roi, read_roi
from helpers import save_picture

#: For the stand-in backbone.
JOINT = {"layers": (12,), "compared": (6, 7)}


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
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_picture(tmp_path_factory.mktemp("part") / "part.png", 1)


@pytest.fixture(scope="module")
def zero_shot(backbone: Backbone) -> Detector:
    return load("winclip", backbone=backbone, object_name="metal nut", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def fitted(zero_shot: Detector, good: list[Path]) -> Detector:
    return zero_shot.fit(good)


def profile_of(detector: Detector) -> Profile:
    assert detector.profile is not None
    return detector.profile


def test_scores_are_those_of_a_detector_without_the_picture(zero_shot: Detector, good: list[Path]) -> None:
    fitted = zero_shot.fit(good[:4])
    for number, entry in enumerate(profile_of(fitted).good):
        others = [path for path in good[:4] if path != good[number]]
        detection = zero_shot.with_references(others)(good[number])
        # The memory was rounded to half precision; everything else is the same.
        assert entry.score == pytest.approx(detection.score, abs=2e-3)
        assert entry.peak == pytest.approx(detection.peak, abs=4e-3)
    assert zero_shot.profile is None
    assert zero_shot.memory is None


def test_thresholds_lie_right_above_the_good_pictures(fitted: Detector) -> None:
    profile = profile_of(fitted)
    scores = [entry.score for entry in profile.good]
    assert profile.limits.threshold == np.nextafter(np.float32(max(scores)), np.float32(np.inf))
    low, high = profile.map_range
    levels = [entry.level for entry in profile.good]
    assert profile.limits.mask_threshold is not None
    pixel = np.float32(low + profile.limits.mask_threshold * (high - low))
    assert pixel == np.nextafter(np.float32(max(levels)), np.float32(np.inf))
    assert profile.false_alarms == pytest.approx(1 / 8)
    assert "12.5 %" in str(profile.limits.promise)
    assert any("1 % takes 99" in sentence for sentence in profile.notes)


def test_a_detection_has_p_value_and_verdict(fitted: Detector, zero_shot: Detector, part: Path) -> None:
    detection = fitted(part)
    scores = profile_of(fitted).limits.scores
    assert detection.p_value == (1 + sum(score >= detection.score for score in scores)) / (len(scores) + 1)
    assert detection.verdict == ("reject" if detection.label else "pass")
    assert detection.oddity == f"of 100 good parts, at most about {100 * detection.p_value:.0f} look as odd as this"
    line = detection.to_dict()
    assert (line["p_value"], line["verdict"]) == (detection.p_value, detection.verdict)
    assert line["provenance"]["references"] == 7
    alone = zero_shot(part)
    assert (alone.p_value, alone.verdict, alone.oddity) == (None, None, None)


def test_review_lies_between(zero_shot: Detector, good: list[Path], part: Path) -> None:
    fitted = zero_shot.fit(good, false_alarms=0.13, review=0.5)
    scores = sorted(profile_of(fitted).limits.scores)
    limits = fitted.limits
    assert limits.review_threshold == np.nextafter(np.float32(scores[-4]), np.float32(np.inf))
    detection = fitted(part)
    middle = dataclasses.replace(detection, score=(limits.review_threshold + limits.threshold) / 2)
    assert (middle.verdict, middle.label) == ("review", 0)
    assert dataclasses.replace(detection, score=0.0).verdict == "pass"
    assert dataclasses.replace(detection, score=1.0).verdict == "reject"


def test_the_file_gives_the_same_scores(fitted: Detector, backbone: Backbone, part: Path, tmp_path: Path) -> None:
    path = profile_of(fitted).save(tmp_path / "part")
    assert path == tmp_path / "part.profile"
    loaded = load(path, backbone=backbone)
    again, direct = loaded(part), fitted(part)
    assert again.score == direct.score
    np.testing.assert_array_equal(again.anomaly_map, direct.anomaly_map)
    assert (again.p_value, again.threshold, again.heatmap_range) == (
        direct.p_value,
        direct.threshold,
        direct.heatmap_range,
    )
    assert loaded.object_name == "metal nut"
    assert again.provenance is not None
    assert again.provenance.profile == "part.profile"
    assert read_profile(path).summary() == profile_of(fitted).summary()
    # Half precision: about two bytes a value.
    values = sum(rows.numel() for rows in (*fitted.memory.taps.values(), *fitted.memory.windows.values()))
    assert path.stat().st_size < 2 * values + 20_000


def test_several_products_share_the_backbone(
    fitted: Detector, zero_shot: Detector, good: list[Path], part: Path
) -> None:
    other = zero_shot.fit(good[:3])
    second = fitted.with_profile(profile_of(other))
    assert second.engine is fitted.engine
    assert second(part).score == other(part).score != fitted(part).score


def test_a_threshold_of_ones_own_replaces_the_promise(fitted: Detector, backbone: Backbone, part: Path) -> None:
    own = load(profile=profile_of(fitted), backbone=backbone, threshold=0.99)
    assert (own.threshold, own.limits.promise) == (0.99, None)
    assert own(part).p_value == fitted(part).p_value
    assert own(part).label == 0


def test_copies_count_once(zero_shot: Detector, good: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(good[0].read_bytes())
    profile = profile_of(zero_shot.fit([*good[:3], copy]))
    assert len(profile.good) == 3
    assert any("copy of another" in sentence for sentence in profile.notes)
    with pytest.raises(UsageError, match="copies of one picture"):
        zero_shot.fit([good[0], copy])


def test_a_suspicious_picture_is_named_and_can_be_left_out(
    zero_shot: Detector, good: list[Path], tmp_path: Path
) -> None:
    more = [save_picture(tmp_path / f"{number}.png", 60 + number) for number in range(5)]
    odd = tmp_path / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(odd)
    profile = profile_of(zero_shot.fit([*good, *more, odd]))
    assert [entry.name for entry in profile.suspicious] == [str(odd)]
    assert any(str(odd) in sentence for sentence in profile.notes)
    robust = profile_of(zero_shot.fit([*good, *more, odd], robust=True))
    assert str(odd) not in [entry.name for entry in robust.good]
    assert robust.limits.removed == 1
    assert robust.limits.threshold is not None
    assert profile.limits.threshold is not None
    assert robust.limits.threshold < profile.limits.threshold
    assert robust.memory.references == 12


def test_many_pictures_are_split(zero_shot: Detector, good: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.fitting.schemes.MAX_LEAVE_ONE_OUT", 5)
    fitted = zero_shot.fit(good)
    profile = profile_of(fitted)
    assert profile.limits.scheme == "split"
    references = [entry for entry in profile.good if entry.images]
    calibrating = [entry for entry in profile.good if entry.score is not None]
    assert (len(references), len(calibrating)) == (3, 4)
    assert all(entry.score == pytest.approx(fitted(entry.name).score, abs=1e-6) for entry in calibrating)
    # A picture that only calibrates can be taken out without the others.
    fewer = fitted.without_good([Path(calibrating[0].name).name])
    assert len(profile_of(fewer).good) == 6
    assert len(profile_of(fewer).limits.scores) == 3
    with pytest.raises(UsageError, match="is a reference of this profile"):
        fitted.without_good([references[0].fingerprint])
    with pytest.raises(UsageError, match=r"no good picture nothing.png"):
        fitted.without_good(["nothing.png"])


def test_more_good_pictures_where_the_memory_does_not_keep_all(
    zero_shot: Detector, good: list[Path], part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(zero_shot.torch_engine.method), "keeps_entries", lambda *_: False)
    before, exact = zero_shot.fit(good[:4]), zero_shot.fit(good)
    after = before.with_more_good(good[3:])
    entries = profile_of(after).good
    assert [entry.name for entry in entries] == [str(path) for path in good]
    for entry, old, new in zip(entries, [*profile_of(before).good, *[None] * 3], profile_of(exact).good, strict=True):
        assert entry.score is not None
        assert new.score is not None
        # A new picture has the exact score; one of before keeps a score that more references can only lower.
        assert entry.score == pytest.approx(new.score, abs=1e-6) if old is None else entry.score == old.score
        assert entry.score >= new.score - 1e-6
    assert any("keep their scores" in note for note in profile_of(after).notes)
    assert after(part).score == pytest.approx(exact(part).score, abs=1e-6)
    assert profile_of(after).fingerprint == profile_of(exact).fingerprint
    with pytest.raises(UsageError, match="the memory of winclip lacks what the scores of the others"):
        after.without_good([good[0].name])


def test_bad_pictures(zero_shot: Detector, good: list[Path], tmp_path: Path) -> None:
    bad = []
    for number in range(3):
        path = tmp_path / f"bad{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
        bad.append(path)
    profile = profile_of(zero_shot.fit(good, bad=bad))
    assert profile.guarantee["bad"]["pictures"] == 3
    labelled = profile_of(zero_shot.fit(good, bad=bad, rule="f1"))
    scores = [zero_shot.with_profile(labelled)(path).score for path in bad]
    expected = calibration.f1_optimal(labelled.limits.scores, scores)
    assert labelled.limits.threshold == pytest.approx(expected.value, abs=1e-6)
    assert labelled.limits.promise is None
    with pytest.raises(UsageError, match="needs pictures with defects"):
        zero_shot.fit(good, rule="recall")


@pytest.mark.parametrize("rule", ["mean-std", "percentile"])
def test_rules_of_others(zero_shot: Detector, good: list[Path], rule: Rule) -> None:
    profile = profile_of(zero_shot.fit(good, rule=rule))
    scores = profile.limits.scores
    of = {"mean-std": calibration.mean_plus_std, "percentile": calibration.percentile_times}
    assert profile.limits.threshold == pytest.approx(of[rule](scores), abs=1e-6)
    assert (profile.limits.promise, profile.false_alarms) == (None, None)


def test_a_region_of_interest(zero_shot: Detector, good: list[Path], part: Path) -> None:
    left = np.zeros((30, 40), bool)
    left[:, :20] = True
    fitted = zero_shot.fit(good, roi=left)
    detection = fitted(part)
    low, high = detection.map_range
    assert (detection.anomaly_map[:, 20:] == low).all()
    assert detection.anomaly_map[:, :20].min() > low
    assert all(region.box[2] <= 20 for region in dataclasses.replace(detection, mask_threshold=0.01).regions)
    # What changes outside changes nothing but what reaches the inside through the model; the score is the map's inside.
    whole = zero_shot.with_memory(fitted.memory)(part)
    assert detection.score != whole.score
    assert detection.score == pytest.approx((detection.anomaly_map[:, :19].max() - low) / (high - low), abs=0.02)
    np.testing.assert_array_equal(detection.anomaly_map[:, :20], whole.anomaly_map[:, :20])


def test_a_region_of_interest_is_part_of_the_file(
    zero_shot: Detector, backbone: Backbone, good: list[Path], part: Path, tmp_path: Path
) -> None:
    fitted = zero_shot.fit(good[:3], roi="0,0 20,0 20,30 0,30")
    path = profile_of(fitted).save(tmp_path / "part.profile")
    loaded = load(path, backbone=backbone)
    assert loaded.limits.roi is not None
    assert loaded.limits.roi.share == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(loaded(part).anomaly_map, fitted(part).anomaly_map)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("0,0 5,5", "2 corners"),
        ("0,0 5,5 x,3", "no polygon"),
        ("0,0 500,0 500,20", "outside the picture"),
        ("nowhere.json", "no region of interest"),
        (np.zeros((3, 3), bool), "empty"),
    ],
)
def test_regions_of_interest_that_are_refused(source, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_roi(source, (40, 30))


def test_regions_of_interest_from_files(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "polygon.json").write_text(
        json.dumps({"shapes": [{"points": [[10, 10], [29, 10], [29, 19], [10, 19]]}]})
    )
    for name in ("mask.png", "polygon.json"):
        roi = read_roi(tmp_path / name, (40, 30))
        np.testing.assert_array_equal(roi.resized(40, 30), mask > 0)
        assert Roi.from_png(roi.to_png(), "x").share == roi.share


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (0, {}, "there are no good pictures"),
        (1, {}, "one good picture promises nothing"),
        (4, {"false_alarms": 0.01}, "4 good pictures cannot keep false alarms at 1 %.*20 %.*99 pictures"),
        (4, {"false_alarms": 1.5}, "a share above 0 and below 1"),
        (4, {"review": 0.1}, "fewer false alarms than review"),
        (4, {"rule": "f2"}, "no rule 'f2'.*f1"),
        (4, {"rule": "mebin"}, "MEBin gives each map a threshold of its own"),
        (4, {"min_area": 0}, "at least 1 pixel"),
    ],
)
def test_bad_requests(zero_shot: Detector, good: list[Path], count: int, options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        zero_shot.fit(good[:count], **options)


def test_two_products_look_like_two_groups(zero_shot: Detector, tmp_path: Path) -> None:
    paths = []
    for number in range(10):
        rng = np.random.default_rng(number)
        flat = np.full((30, 40, 3), (250, 240, 230) if number % 2 else (10, 20, 90)) + rng.normal(0, 1, (30, 40, 3))
        if number % 2:
            flat[::4] = 0
        Image.fromarray(flat.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    notes = profile_of(zero_shot.fit(paths)).notes
    assert any("two groups, of 5 and 5" in sentence for sentence in notes)


def test_broken_good_pictures_are_named(zero_shot: Detector, good: list[Path], tmp_path: Path) -> None:
    broken = [tmp_path / f"broken {number}.png" for number in range(7)]
    for path in broken:
        path.write_bytes(good[0].read_bytes()[:200])
    with pytest.raises(ImageError, match=r"^a good picture cannot be used: .*broken 0\.png"):
        zero_shot.fit([*good, broken[0]])
    with pytest.raises(ImageError, match=r"^2 good pictures cannot be used: .*broken 0\.png.*broken 1\.png"):
        zero_shot.fit([broken[0], *good, broken[1]])
    with pytest.raises(ImageError, match=r"^7 good pictures cannot be used: .*broken 4\.png[^0-9]*; and 2 more$"):
        zero_shot.fit([*good, *broken])


def test_other_settings_are_refused(fitted: Detector, backbone: Backbone, good: list[Path], tmp_path: Path) -> None:
    profile = profile_of(fitted)
    with pytest.raises(ProfileError, match="the precision was float32, and it is bfloat16"):
        load(profile=profile, backbone=backbone, precision="bfloat16")
    other = dataclasses.replace(profile, backbone_fingerprint="0" * 16)
    with pytest.raises(ProfileError, match=r"the backbone was .*0000"):
        load(profile=other, backbone=backbone)
    other = dataclasses.replace(profile, preprocessing={**profile.preprocessing, "size": 7})
    with pytest.raises(ProfileError, match=r"the preprocessing was {'size': 7}, and it is {'size'"):
        load(profile=other, backbone=backbone)
    other = dataclasses.replace(profile, method="musc")
    with pytest.raises(ProfileError, match="the method was musc"):
        fitted.with_profile(other)
    with pytest.raises(UsageError, match="object_name and references cannot be set beside a profile"):
        load(profile=profile, backbone=backbone, object_name="bolt", references=good)
    with pytest.raises(UsageError, match="made for 'metal nut'"):
        fitted(good[0], object_name="bolt")
    with pytest.raises(UsageError, match=r"winclip|april"):
        load("clip", backbone=backbone, device="cpu").fit(good)
    with pytest.raises(UsageError, match="has no profile"):
        load("clip", backbone=backbone, device="cpu").without_good(["x"])


def test_files_that_are_no_profile(fitted: Detector, part: Path, tmp_path: Path) -> None:
    path = profile_of(fitted).save(tmp_path / "part.profile")
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    later = data[: 8 + length].replace(b'"version":"1"', b'"version":"9"') + data[8 + length :]
    cases = {
        "cut short": [data[:-1], data[: 8 + length // 2], data[: 8 + length + 100]],
        "no profile": [b"", b"x", part.read_bytes(), b"{}" * 50, struct.pack("<Q", 2) + b"{}"],
        "later blemish": [later],
    }
    for words, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(ProfileError, match=words):
                read_profile(path)
    with pytest.raises(UsageError, match="there is no profile"):
        read_profile(tmp_path / "nothing.profile")


def test_good_pictures_do_not_glow(fitted: Detector, good: list[Path], zero_shot: Detector) -> None:
    low, high = fitted.limits.heatmap_range or (0, 0)
    value = fitted(good[0]).mask_value
    assert value is not None
    assert low < value < high
    assert (low + high) / 2 == pytest.approx(value)
    peaks = np.array([entry.peak for entry in profile_of(fitted).good])
    assert (peaks < high).all()
    assert fitted(good[0]).scale == (low, high)
    assert fitted.limits.heatmap_range != zero_shot(good[0]).scale


def test_limits() -> None:
    with pytest.raises(UsageError, match="lies above that of rejection"):
        Limits(threshold=0.4, review_threshold=0.5)
    assert Limits().p_value(0.5) is None
    limits = Limits(threshold=0.5, scores=(0.1, 0.2, 0.3), heatmap_range=(0.0, 1.0))
    assert limits.p_value(0.2) == 0.75
    assert Limits.from_dict(json.loads(json.dumps({**limits.to_dict(), "later": 1}))).to_dict() == limits.to_dict()
    assert limits.fingerprint != dataclasses.replace(limits, threshold=0.6).fingerprint


def test_public_names() -> None:
    assert blemish.Profile is Profile
    assert blemish.read_profile is read_profile


def test_encoded_once(zero_shot: Detector, good: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = type(zero_shot.engine).encode

    def count(self, pixels: torch.Tensor, *rest, **named):
        encoded.append(len(pixels))
        return encode(self, pixels, *rest, **named)

    monkeypatch.setattr(type(zero_shot.engine), "encode", count)
    zero_shot.fit(good)
    assert sum(encoded) == len(good)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("joint", JOINT),
        ("winclip", {}),
        ("winclip", {"patch_norm": True}),
        ("april-gan", {"layers": (6, 12), "few_shot_layers": (3, 6, 12)}),
        ("anomalydino", {"size": 148, "layer": 6}),
        ("anomalydino", {"size": 148, "layer": 6, "metric": "L2", "rotation": False}),
    ],
)
def test_a_memory_that_keeps_all_needs_no_pictures(
    backbone: Backbone, good: list[Path], part: Path, method: str, config: dict
) -> None:
    detector = Detector(TorchEngine(create(method, backbone, config)), object_name="nut")
    before, exact = detector.fit(good), detector.fit(good[1:])
    removed = before.without_good([good[0].name])
    added = detector.fit(good[1:4]).with_more_good(good[4:])
    for changed in (removed, added):
        assert [entry.name for entry in profile_of(changed).good] == [str(path) for path in good[1:]]
        for entry, new in zip(profile_of(changed).good, profile_of(exact).good, strict=True):
            assert entry.score == pytest.approx(new.score, abs=2e-3)
            assert entry.level == pytest.approx(new.level, abs=2e-3)
        assert changed(part).score == pytest.approx(exact(part).score, abs=1e-6)
        assert profile_of(changed).fingerprint == profile_of(exact).fingerprint
