"""Verdicts again: equal to those of `detect`, without the model, and nothing that cannot be true."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import blemish
from blemish.errors import ImageError, OutputError, ProfileError, UsageError
from blemish.outputs.judging import judge
from blemish.outputs.results import ResultsFolder
from blemish.outputs.run import DetectOptions, DetectRun
from blemish.outputs.verdicts import detection_of, read_map
from blemish.profile import read_profile
from helpers import save_picture

SIZES = [(40, 30), (700, 560), (64, 80)]
#: What may differ between a run and a judgement by the same limits.
_OWN = ("crc32", "timing", "run", "judged", "regions")


@pytest.fixture(scope="module")
def plain(tiny_backbone: Path) -> blemish.Detector:
    return blemish.load("clip", backbone=tiny_backbone, device="cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("in")
    return [save_picture(folder / f"{number}.png", number, size) for number, size in enumerate(SIZES)]


def detect(detector: blemish.Detector, paths: list[Path], out: Path, **options) -> Path:
    with DetectRun(detector, paths, out, DetectOptions(**options)) as run:
        run.execute()
    return out


def lines(folder: Path) -> dict[str, dict]:
    found = [json.loads(text) for text in (folder / "results.jsonl").read_text().splitlines()]
    return {Path(line["path"]).name: line for line in found}


def limited(detector: blemish.Detector, threshold: float, mask_threshold: float | None = None) -> blemish.Detector:
    return blemish.Detector(detector.engine, threshold=threshold, mask_threshold=mask_threshold)


@pytest.fixture(scope="module")
def middle(plain: blemish.Detector, paths: list[Path]) -> float:
    """A threshold of pixels that parts of all the maps reach."""
    return float(np.median([np.quantile(found.anomaly_map, 0.7) for found in plain(paths)]))


@pytest.mark.parametrize("tile", [None, 300])
def test_the_same_as_detect_says(tile, tiny_backbone, paths, middle, tmp_path) -> None:
    detector = blemish.load("clip", backbone=tiny_backbone, device="cpu", tile=tile)
    score = sorted(found.score for found in detector(paths))[1]
    there = detect(detector, paths, tmp_path / "judged", kinds=("map-png", "overlay"))
    judge(there, threshold=score, mask_threshold=middle, kinds=("mask", "regions"))
    limits = blemish.Detector(detector.engine, threshold=score, mask_threshold=middle, tiling=detector.tiling)
    direct = detect(limits, paths, tmp_path / "direct", kinds=("map-png", "overlay", "mask", "regions"))
    ours, theirs = lines(there), lines(direct)
    assert [line["label"] for line in ours.values()].count(1) == 2
    for name, line in theirs.items():
        for field in line.keys() - set(_OWN):
            assert ours[name][field] == line[field], field
        with Image.open(there / "mask" / f"{name}.png") as one, Image.open(direct / "mask" / f"{name}.png") as other:
            differing = np.asarray(one) != np.asarray(other)
        values = detector(Path(line["path"])).anomaly_map
        # Only pixels within the rounding may change sides.
        assert (np.abs(values[differing] - middle) < 1e-5).all()
        if not differing.any():
            assert len(line["regions"]) > 0
            for region, other in zip(ours[name]["regions"], line["regions"], strict=True):
                assert (region["box"], region["polygon"], region["area"]) == tuple(
                    other[key] for key in ("box", "polygon", "area")
                )
                assert region["peak"] == pytest.approx(other["peak"], abs=1e-5)
    coco = [json.loads((folder / "regions.json").read_text()) for folder in (there, direct)]
    assert [len(each["images"]) for each in coco] == [3, 3]


def test_detect_and_judge_know_of_each_other(plain, paths, middle, tmp_path) -> None:
    out = detect(plain, paths, tmp_path / "out")
    overlay = (out / "overlay" / "0.png.png").stat().st_mtime_ns
    judge(out, threshold=middle)
    with DetectRun(limited(plain, middle), paths, out) as run:
        assert (run.states, run.todo) == ({"same": 3}, [])
    # Another threshold needs no model, and files that lack are made of maps.
    (out / "overlay" / "1.png.png").unlink()
    other = limited(plain, 0.5, 0.25)
    with DetectRun(other, paths, out, DetectOptions(kinds=("overlay", "mask", "map-png"))) as run:
        assert (run.states, run.todo) == ({"other thresholds": 3}, [])
        run.execute()
        assert [run.line(path)["mask_threshold"] for path in paths] == [0.25] * 3
    assert (out / "overlay" / "1.png.png").is_file()
    assert (out / "overlay" / "0.png.png").stat().st_mtime_ns == overlay
    assert len(list((out / "mask").iterdir())) == 3
    (out / "overlay" / "1.png.png").unlink()
    with DetectRun(other, paths, out, DetectOptions(kinds=("overlay", "mask", "map-png"))) as run:
        assert run.states == {"same": 2, "files to draw": 1}
    # A damaged map is no map: the picture is scored.
    (out / "map" / "2.png.png").write_bytes(b"cut")
    with DetectRun(limited(plain, 0.6, 0.2), paths, out) as run:
        run.execute()
        assert run.todo == [str(paths[2])]
    assert read_map(out, lines(out)["2.png"]).step == 1
    # Without a threshold there are no verdicts and no masks.
    with DetectRun(plain, paths[:2], out, DetectOptions(kinds=("map-png",))) as run:
        assert run.states == {"other thresholds": 2}
        run.execute()
    after = lines(out)
    assert [after[name]["verdict"] for name in ("0.png", "1.png")] == [None] * 2
    assert not any((out / "mask" / f"{name}.png").exists() for name in ("0.png", "1.png"))


def test_what_is_not_given_stays(plain, paths, middle, tmp_path) -> None:
    out = detect(limited(plain, 0.5, middle), paths, tmp_path / "out")
    before = lines(out)
    judge(out)
    assert lines(out) == before
    judge(out, review_threshold=0.25)
    assert {line["review_threshold"] for line in lines(out).values()} == {0.25}
    judge(out, min_area=10**6)
    after = lines(out)
    assert all(line["regions"] == [] and line["min_area"] == 10**6 for line in after.values())
    assert all(line["threshold"] == 0.5 and line["mask_threshold"] == middle for line in after.values())
    assert any(line["regions"] for line in before.values())
    judge(out, threshold=0.75)
    assert {line["mask_threshold"] for line in lines(out).values()} == {0.75}
    judge(out, threshold=0.5, mask_threshold=middle, min_area=1)
    for name, line in lines(out).items():
        areas = [sum(region["area"] for region in each["regions"]) for each in (line, before[name])]
        assert areas[0] == pytest.approx(areas[1], rel=0.01)


def test_another_folder_leaves_the_first_one_as_it_is(plain, paths, middle, tmp_path) -> None:
    out = detect(plain, paths, tmp_path / "out")
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for threshold in (0.5, 0.6):
        judged = judge(out, threshold=threshold, mask_threshold=middle, out=tmp_path / "new", kinds=("mask",))
        assert judged.folder == tmp_path / "new"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    assert {line["threshold"] for line in lines(tmp_path / "new").values()} == {0.6}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        ".lock", "map", "mask", "overlay", "results.csv", "results.jsonl", "runs.jsonl",
    }  # fmt: skip
    detect(plain, paths[:1], tmp_path / "others")
    with pytest.raises(OutputError, match="holds results of other runs"):
        judge(out, threshold=0.5, out=tmp_path / "others")
    assert len(lines(tmp_path / "others")) == 1


def test_another_folder_has_what_is_drawn(plain, paths, middle, tmp_path) -> None:
    """Also where an earlier copy shows something else."""
    out = detect(limited(plain, 0.5), paths, tmp_path / "out", kinds=("map-png", "overlay", "mask"))
    new = tmp_path / "new"
    judge(out, threshold=0.5, mask_threshold=middle, out=new)
    assert (new / "mask" / "0.png.png").read_bytes() != (out / "mask" / "0.png.png").read_bytes()
    judged = judge(out, out=new)
    for result in judged.results.values():
        for kind in ("overlay", "mask"):
            name = result.files[kind]
            assert (new / name).read_bytes() == (out / name).read_bytes()


def test_no_map_is_read_where_none_is_needed(plain, paths, middle, tmp_path, monkeypatch) -> None:
    out = detect(plain, paths, tmp_path / "out", kinds=())
    judged = judge(out, threshold=1.0)
    assert [result.verdict for result in judged.results.values()] == ["pass"] * 3
    with pytest.raises(UsageError, match=r"3 of 3 pictures in .* have no map"):
        judge(out, threshold=0.5, mask_threshold=middle)
    assert {line["threshold"] for line in lines(out).values()} == {1.0}, "nothing is changed by what is refused"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"threshold": 2}, "threshold must be a number from 0 to 1"),
        ({"min_area": 0}, "min_area must be at least 1"),
        ({"review_threshold": 0.5}, "needs one of rejection"),
        ({"threshold": 0.4, "review_threshold": 0.5}, "lies above that of rejection"),
        ({"kinds": ("mask",)}, "mask needs a threshold"),
        ({"kinds": ("masks",)}, "did you mean mask"),
        ({"tables": ("xls",)}, "'xls'"),
    ],
)
def test_what_cannot_be_is_refused(plain, paths, tmp_path, words, sentence) -> None:
    out = detect(plain, paths[:1], tmp_path / "out")
    before = lines(out)
    with pytest.raises(UsageError, match=sentence):
        judge(out, **words)
    assert lines(out) == before
    judge(out, threshold=0.7, out=tmp_path / "earlier")
    earlier = lines(tmp_path / "earlier")
    for folder in ("earlier", "new"):
        with pytest.raises(UsageError, match=sentence):
            judge(out, **words, out=tmp_path / folder)
    assert lines(tmp_path / "earlier") == earlier
    assert not (tmp_path / "new").exists()


def test_a_folder_without_results(tmp_path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        judge(tmp_path / "new", threshold=0.5)
    assert not (tmp_path / "new").exists()


def test_a_damaged_map_is_named(plain, paths, middle, tmp_path) -> None:
    out = detect(plain, paths, tmp_path / "out")
    (out / "map" / "1.png.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"the map map/1\.png\.png cannot be read"):
        judge(out, threshold=0.5, mask_threshold=middle)


def test_pictures_that_are_gone(plain, paths, tmp_path) -> None:
    copies = [save_picture(tmp_path / "in" / path.name, 9) for path in paths]
    out = detect(limited(plain, 0.5), copies, tmp_path / "out", kinds=("map-png",))
    copies[0].unlink()
    os.utime(copies[1], (1, 1))
    judged = judge(out, kinds=("overlay",), page=True)
    assert list(judged.undrawn) == [str(path) for path in copies[:2]]
    assert "does not exist" in judged.undrawn[str(copies[0])]
    assert "has changed" in judged.undrawn[str(copies[1])]
    assert [path.name for path in (out / "overlay").iterdir()] == ["2.png.png"]
    page = (out / "report.html").read_text()
    assert [f'id="picture-{number}"' in page for number in range(4)] == [True] * 3 + [False]


def test_a_map_and_a_line_are_a_detection(plain, paths, middle, tmp_path) -> None:
    out = detect(limited(plain, 0.5, middle), paths, tmp_path / "out")
    for path, found in zip(paths, limited(plain, 0.5, middle)(paths), strict=True):
        line = lines(out)[path.name]
        again = detection_of(line, read_map(out, line))
        same, others = found.to_dict(), again.to_dict()
        for field in same.keys() - {"timing", "peak", "regions"}:
            assert others[field] == same[field]
        assert again.peak == pytest.approx(found.peak, abs=1e-5)
        assert again.timing.total > 0


def test_rows_say_which_run_they_are_of(plain, paths, tmp_path) -> None:
    out = tmp_path / "out"
    detect(plain, paths[:2], out)
    with DetectRun(limited(plain, 0.5), paths[2:], out) as run:
        assert list(run.others().values()) == [2]
        (source,) = run.others()
        assert run.describe(source).startswith(f"run {source} of 20")
        assert run.describe(source).endswith(", clip")
        run.execute()
    runs = [json.loads(text) for text in (out / "runs.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines(out).values()] == [runs[0]["run"]] * 2 + [runs[1]["run"]]
    with ResultsFolder(out) as results:
        assert [line["score"] for line in results.ranked()] == sorted(
            (line["score"] for line in lines(out).values()), reverse=True
        )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    return [save_picture(folder / f"{number}.png", 50 + number) for number in range(10)]


@pytest.fixture(scope="module")
def profiles(tiny_backbone: Path, good: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profiles of the same pictures with other promises, and some that do not fit."""
    folder = tmp_path_factory.mktemp("profiles")
    detector = blemish.load("winclip", backbone=tiny_backbone, device="cpu")
    detector.fit(good, false_alarms=0.1).profile.save(folder / "first")
    detector.fit(good, false_alarms=0.2, review=0.4, min_area=4).profile.save(folder / "second")
    detector.fit(good, false_alarms=0.1, roi="0,0 20,0 20,20").profile.save(folder / "roi")
    detector.fit(good[:9], false_alarms=0.1).profile.save(folder / "fewer")
    return folder


def test_profiles(tiny_backbone, profiles, paths, tmp_path) -> None:
    first, second = profiles / "first.profile", profiles / "second.profile"
    out = detect(blemish.load(first, backbone=tiny_backbone, device="cpu"), paths, tmp_path / "out")
    overlay = (out / "overlay" / "0.png.png").read_bytes()
    judged = judge(out, profile=read_profile(second))
    direct = blemish.load(second, backbone=tiny_backbone, device="cpu")
    theirs = lines(detect(direct, paths, tmp_path / "direct"))
    for name, line in lines(out).items():
        for field in line.keys() - {*_OWN, "key"}:
            assert line[field] == theirs[name][field], field
        assert (len(line["regions"]), line["key"]) == (len(theirs[name]["regions"]), theirs[name]["key"])
    assert not judged.undrawn
    assert (out / "overlay" / "0.png.png").read_bytes() != overlay, "an overlay that shows a verdict is drawn again"
    with DetectRun(direct, paths, out) as run:
        assert run.states == {"same": 3}
    # A threshold of one's own: the profile's threshold of pixels and the p-values stay.
    before = lines(out)
    judge(out, threshold=0.9)
    for name, line in lines(out).items():
        assert (line["threshold"], line["review_threshold"]) == (0.9, None)
        assert (line["mask_threshold"], line["p_value"]) == (before[name]["mask_threshold"], before[name]["p_value"])


def test_the_page_names_the_profile_and_says_when_its_promise_ends(tiny_backbone, profiles, paths, tmp_path) -> None:
    first = profiles / "first.profile"
    out = detect(blemish.load(first, backbone=tiny_backbone, device="cpu"), paths, tmp_path / "out")
    ended = "holds at its own thresholds only"
    judge(out, profile=read_profile(first), page=True)
    assert "first.profile" in (page := (out / "report.html").read_text())
    assert ended not in page
    judge(out, profile=read_profile(first), threshold=0.9, page=True)
    assert ended in (out / "report.html").read_text()
    judge(out, threshold=0.9, page=True)
    page = (out / "report.html").read_text()
    assert '"name": "first.profile"' in page.replace('"name":"', '"name": "')
    assert ended in page


def test_profiles_that_do_not_fit(tiny_backbone, profiles, plain, paths, tmp_path) -> None:
    first = blemish.load(profiles / "first.profile", backbone=tiny_backbone, device="cpu")
    out = detect(first, paths[:1], tmp_path / "out", kinds=("map-png",))
    for name, sentence in (("fewer", "other good pictures"), ("roi", "another region of interest")):
        with pytest.raises(ProfileError, match=sentence):
            judge(out, profile=read_profile(profiles / f"{name}.profile"))
    zero_shot = detect(plain, paths[:1], tmp_path / "plain", kinds=("map-png",))
    with pytest.raises(ProfileError, match="the method was winclip, and it is clip"):
        judge(zero_shot, profile=read_profile(profiles / "first.profile"))
    # Results of before this version do not say all that a profile needs.
    (out / "runs.jsonl").unlink()
    with pytest.raises(ProfileError, match="earlier version"):
        judge(out, profile=read_profile(profiles / "first.profile"))
    assert judge(out, threshold=0.9).results


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "overlay\\..\\..\\outside.png", "c:outside.png"])
def test_a_journal_that_names_files_outside(name, plain, paths, tmp_path) -> None:
    """Files that a stranger's journal names are drawn again and removed, so none may lie outside the folder."""
    folder, outside = detect(plain, paths, tmp_path / "out", kinds=("map-png", "overlay")), tmp_path / "outside.png"
    outside.write_bytes(b"not of the folder")
    first, *others = (folder / "results.jsonl").read_text().splitlines()
    line = json.loads(first)
    line["files"]["overlay"] = name.replace("/outside", f"{tmp_path}/outside") if name[0] == "/" else name
    (folder / "results.jsonl").write_text("\n".join([json.dumps(line), *others, ""]))
    judged = judge(folder, threshold=0.5, kinds=("overlay", "mask"))
    assert outside.read_bytes() == b"not of the folder"
    assert len(judged.results) == len(paths) - 1, "such a line counts as damaged"
