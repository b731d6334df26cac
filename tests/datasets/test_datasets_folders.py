"""Folders as people have them: every file is read as what its names say, or left out with a reason."""

from __future__ import annotations

import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.datasets import Dataset, check, read
from blemish.errors import UsageError
from dataset_trees import mask, picture


def expand(text: str) -> Iterator[str]:
    """Yield the paths that a pattern with braces stands for: "a/{b,c}.png" is a/b.png and a/c.png."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        yield text
        return
    for word in match[1].split(","):
        yield from expand(text[: match.start()] + word + text[match.end() :])


@dataclass(frozen=True)
class Case:
    """Files below the folder lid, and what must be read of them: (normal, anomalous, with a mask)."""

    name: str
    pictures: list[str]
    masks: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)
    counts: tuple[int, int, int] = (3, 3, 3)
    ok: bool = True
    """Whether `check` finds nothing wrong."""
    says: str = ""
    """What a note or an issue must name."""
    left_out: int = 0
    """How many files are left out."""

    def __str__(self) -> str:
        return self.name

    def build(self, root: Path) -> int:
        """Write the files and return their number."""
        number = 0
        for kind, make in ((self.pictures, picture), (self.masks, mask), (self.junk, junk)):
            for path in (path for text in kind for path in expand(text)):
                make(root / path)
                number += 1
        return number


def junk(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7")


PLAIN = ["test/good/{0,1,2}.png", "test/bad/{0,1,2}.png"]
PLAIN_MASKS = ["ground_truth/bad/{0,1,2}_mask.png"]
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Kratzer_ö") for form in ("NFC", "NFD"))

LAYOUTS = [
    Case("plain", PLAIN, PLAIN_MASKS),
    Case("capital test", ["Test/good/{0,1,2}.png", "Test/bad/{0,1,2}.png"], PLAIN_MASKS),
    Case(
        "TESTING and Ground Truth",
        ["TESTING/good/{0,1,2}.png", "TESTING/bad/{0,1,2}.png"],
        ["Ground Truth/bad/{0,1,2}.png"],
    ),
    Case("capitals", ["test/Good/{0,1,2}.png", "test/Bad/{0,1,2}.png"], ["ground_truth/Bad/{0,1,2}_mask.png"]),
    Case(
        "capitals and a kind",
        ["test/GOOD/{0,1,2}.png", "test/Deep Scratch/{0,1,2}.png"],
        ["ground_truth/Deep Scratch/{0,1,2}_mask.png"],
    ),
    Case(
        "normal and abnormal",
        ["test/NORMAL/{0,1,2}.png", "test/ABNORMAL/{0,1,2}.png"],
        ["ground_truth/ABNORMAL/{0,1,2}_mask.png"],
    ),
    Case(
        "kind in other spelling",
        ["test/ok/{0,1,2}.png", "test/Deep-Scratch/{0,1,2}.png"],
        ["gt/deep_scratch/{0,1,2}.png"],
    ),
    Case(
        "masks without kinds",
        ["good/image{0,1,2}.png", "bad/image{3,4,5}.png"],
        ["ground_truth/mask{3,4,5}.png"],
    ),
    Case("OK, NG and gt", ["OK/image{0,1,2}.png", "NG/image{3,4,5}.png"], ["gt/image{3,4,5}_gt.png"]),
    Case("mask by number", ["good/image{0,1,2}.png", "bad/image{3,4,5}.png"], ["mask/mask{3,4,5}.png"]),
    Case("masks of the same names", ["good/image{0,1,2}.png", "bad/image{3,4,5}.png"], ["masks/image{3,4,5}.png"]),
    Case("no masks", ["OK parts/{0,1,2}.jpg", "NG parts/{0,1,2}.jpg"], counts=(3, 3, 0), says="no masks"),
    Case("kinds below Defect", ["good/{0,1,2}.png", "Defect/{colour,crack}/{0,1,2}.png"], counts=(3, 6, 0)),
    Case(
        "kinds below test/bad",
        ["test/good/{0,1,2}.png", "test/bad/{colour,crack}/{0,1,2}.png"],
        ["ground_truth/bad/{colour,crack}/{0,1,2}.png"],
        counts=(3, 6, 6),
    ),
    Case(
        "kinds below bad, masks by kind alone",
        ["test/good/{0,1,2}.png", "test/bad/{colour,crack}/{0,1,2}.png"],
        ["ground_truth/{colour,crack}/{0,1,2}.png"],
        counts=(3, 6, 6),
    ),
    Case(
        "kinds with masks beside",
        ["good/{0,1,2}.png", "{colour,crack}/{0,1,2}.png"],
        ["mask/{colour,crack}/{0,1,2}.png"],
        counts=(3, 6, 6),
    ),
    Case("masks beside their pictures", PLAIN, ["test/bad/{0,1,2}_mask.png"]),
    Case("masks in a folder of each kind", PLAIN, ["test/bad/masks/{0,1,2}.png"]),
    Case(
        "images and masks in each kind",
        ["test/good/images/{0,1,2}.png", "test/bad/images/{0,1,2}.png"],
        ["test/bad/labels/{0,1,2}.png"],
    ),
    Case("masks in the folder of the split", PLAIN, ["test/ground_truth/bad/{0,1,2}.png"]),
    Case("masks first, then the split", PLAIN, ["masks/test/bad/{0,1,2}.png"]),
    Case("images/test", ["images/test/{good,bad}/{0,1,2}.png"], ["annotations/test/bad/{0,1,2}.png"]),
    Case("a folder of masks for each kind", ["good/{0,1,2}.png", "crack/{0,1,2}.png"], ["crack_mask/{0,1,2}.png"]),
    Case("a split of masks", PLAIN, ["test_gt/bad/{0,1,2}.png"]),
    Case("several masks of a picture", PLAIN, ["ground_truth/bad/{0,1,2}/{00,01}.png"]),
    Case("numbered masks of a picture", PLAIN, ["ground_truth/bad/{0,1,2}_mask_{1,2}.png"]),
    Case("drawn twins", ["good/{0,1,2}.jpg", "bad/{0,1,2}.jpg"], ["bad/{0,1,2}.png"]),
    Case(
        "flat, names tell", ["good_{001,002,003}.png", "defect_{001,002,003}.png"], ["masks/defect_{001,002,003}.png"]
    ),
    Case("flat, words behind", ["{1,2,3}-OK.png", "{4,5,6}-not_ok.png"], ["{4,5,6}-not_ok_mask.png"]),
    Case("flat in a split", ["test/{1,2,3} good.png", "test/{1,2,3} NG.png"], ["ground_truth/{1,2,3} NG.png"]),
    Case("German", ["i.O./{0,1,2}.png", "n.i.O./{0,1,2}.png"], ["Masken/{0,1,2}.png"]),
    Case("French", ["test/conforme/{0,1,2}.png", "test/défauts/{0,1,2}.png"], ["masques/défauts/{0,1,2}.png"]),
    Case("Chinese", ["test/正常/{0,1,2}.png", "test/异常/{0,1,2}.png"], ["ground_truth/异常/{0,1,2}.png"]),
    Case(
        "with the name of the part",
        ["lid_good/{0,1,2}.png", "lid_bad/{0,1,2}.png"],
        ["lid_bad_gt/{0,1,2}.png"],
        says="lid_good",
    ),
    Case("numbered", ["0_good/{0,1,2}.png", "1_bad/{0,1,2}.png"], ["gt/1_bad/{0,1,2}.png"]),
    Case("not defective", ["non-defective/{0,1,2}.png", "defective/{0,1,2}.png"], ["mask/{0,1,2}.png"]),
    Case("a fine scratch is no good", ["ok/{0,1,2}.png", "fine scratch/{0,1,2}.png"], ["mask/{0,1,2}.png"]),
    Case("a label, then the split", ["good/{train,test}/{0,1,2}.png", "crack/test/{0,1,2}.png"], counts=(3, 3, 0)),
    Case("training pictures beside", [*PLAIN, "train/good/{0,1,2,3}.png"], PLAIN_MASKS),
    Case("validation, too", [*PLAIN, "Val/{Good,Bad}/{0,1}.png", "train/good/0.png"], PLAIN_MASKS, ok=False),
    Case("without test", ["train/good/{0,1,2,3}.png", "good/{0,1,2}.png", "bad/{0,1,2}.png"], counts=(3, 3, 0)),
    Case(
        "masks of normal pictures",
        ["good/{0,1,2}.png", "bad/{3,4,5}.png"],
        ["masks/{0,1,2,3,4,5}.png"],
        ok=False,
        says="marks something",
    ),
    Case(
        "results inside",
        [*PLAIN, "results/test/{good,bad}/0.png", "results/ground_truth/bad/0.png"],
        PLAIN_MASKS,
        left_out=3,
        says="results",
    ),
    Case(
        "results of any name",
        [*PLAIN, "august/{heatmap,mask}/test/bad/{0,1}.png"],
        PLAIN_MASKS,
        ["august/results.jsonl"],
        left_out=5,
        says="august",
    ),
    Case(
        "results in the data's own folder",
        ["good/{0,1,2}.png", "bad/{0,1,2}.png", "{heatmap,mask,overlay}/{good,bad}/{0,1,2}.png"],
        ["ground_truth/bad/{0,1,2}.png"],
        ["results.jsonl", "results.csv"],
        left_out=20,
        says="earlier run",
    ),
    Case(
        "old copy inside",
        [*PLAIN, "old (copy)/test/{good,bad}/{0,1}.png", "old (copy)/ground_truth/bad/{0,1}_mask.png"],
        PLAIN_MASKS,
        left_out=6,
        says="old (copy)",
    ),
    Case("a test of before", [*PLAIN, "test_old/{good,bad}/{0,1,2}.png"], PLAIN_MASKS, left_out=6, says="test_old"),
    Case(
        "a test downloaded twice", [*PLAIN, "test (1)/{good,bad}/{0,1,2}.png"], PLAIN_MASKS, left_out=6, says="test (1)"
    ),
    Case(
        "an old kind",
        ["good/{0,1,2}.png", "bad/{0,1,2}.png", "old_bad/{0,1}.png", "bad_old_2020/{3,4}.png"],
        counts=(3, 3, 0),
        left_out=4,
    ),
    Case(
        "results with a year",
        ["good/{0,1,2}.png", "bad/{0,1,2}.png", "results_2024/{0,1}.png"],
        counts=(3, 3, 0),
        left_out=2,
    ),
    Case("numbered masks beside", PLAIN, ["test/bad/{0,1,2}_mask_{1,2}.png"]),
    Case(
        "masks of all kinds in defect",
        ["ok/{0,1}.png", "hole/{2,3}.png", "dent/{4,5}.png"],
        ["gt/defect/{2,3,4,5}.png"],
        counts=(2, 4, 4),
    ),
    Case("masks of NG images", ["OK_images/{0,1,2}.png", "NG_images/{0,1,2}.png"], ["NG_masks/{0,1,2}.png"]),
    Case("bad masks", ["good/{0,1,2}.png", "bad/{0,1,2}.png"], ["bad masks/{0,1,2}.png"]),
    Case("a bad label is a kind", ["good/{0,1,2}.png", "bad label/{0,1,2}.png"], counts=(3, 3, 0)),
    Case(
        "split and label in one name",
        ["train_good/{0,1}.png", "test_good/{2,3,4}.png", "test_bad/{0,1,2}.png"],
        ["test_bad_mask/{0,1,2}.png"],
    ),
    Case(
        "like VisA",
        ["Data/Images/Normal/{0,1,2}.JPG", "Data/Images/Anomaly/{0,1,2}.JPG"],
        ["Data/Masks/Anomaly/{0,1,2}.png"],
    ),
    Case("a copied kind", [*PLAIN, "test/bad - Copy/{0,1,2}.png"], PLAIN_MASKS, left_out=3, says="bad - Copy"),
    Case(
        "a backup beside the labels",
        ["ok/{0,1,2}.png", "ng/{0,1,2}.png", "backup/{ok,ng}/{0,1}.png"],
        counts=(3, 3, 0),
        left_out=4,
    ),
    Case("something else beside test", [*PLAIN, "setup/photos/{1,2}.png"], PLAIN_MASKS, left_out=2, says="setup"),
    Case("another test inside", [*PLAIN, "camera2/test/{good,bad}/0.png"], PLAIN_MASKS, left_out=2, says="camera2"),
    Case(
        "an archive of a Mac",
        PLAIN,
        PLAIN_MASKS,
        ["__MACOSX/test/good/._0.png", "test/good/._0.png", ".DS_Store"],
        left_out=3,
    ),
    Case(
        "Windows",
        PLAIN,
        PLAIN_MASKS,
        ["{test,test/good,test/bad,ground_truth,ground_truth/bad}/{desktop.ini,Thumbs.db}"],
        left_out=10,
    ),
    Case("a network drive", PLAIN, PLAIN_MASKS, ["test/good/@eaDir/0.png/thumb.png", "$RECYCLE.BIN/x.png"], left_out=2),
    Case("a stray picture", [*PLAIN, "overview.png"], PLAIN_MASKS, left_out=1, says="overview.png"),
    Case("other files", PLAIN, PLAIN_MASKS, ["readme.txt", "test/good/photo.xyz"], left_out=2, says="photo.xyz"),
    Case(
        "a picture without a word",
        ["good_{1,2,3}.png", "bad_{1,2,3}.png", "part9.png"],
        counts=(3, 3, 0),
        ok=False,
        left_out=1,
        says="part9.png",
    ),
    Case(
        "composed and decomposed",
        ["test/good/{0,1,2}.png", f"test/{COMPOSED}/{{0,1,2}}.png"],
        [f"ground_truth/{DECOMPOSED}/{{0,1,2}}_mask.png"],
    ),
]


def counts(found: Dataset) -> tuple[int, int, int]:
    anomalous = [sample for sample in found if sample.label]
    return len(found) - len(anomalous), len(anomalous), sum(bool(sample.masks) for sample in anomalous)


@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_layouts(case: Case, tmp_path: Path) -> None:
    number = case.build(tmp_path / "lid")
    found = read("folder", tmp_path / "lid")
    assert found.categories == ("Data" if case.name == "like VisA" else "lid",)
    assert counts(found) == case.counts
    report = check("folder", tmp_path / "lid")
    assert report.ok == case.ok, report.issues
    assert case.says in "\n".join([*report.notes, *map(str, report.issues)])
    assert len(report.account) == number
    assert len(report.account.left_out) == case.left_out, report.account.left_out


@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_layouts_of_two_categories(case: Case, tmp_path: Path) -> None:
    """What holds for one category holds for each of several."""
    number = case.build(tmp_path / "lid") + case.build(tmp_path / "cup")
    found = read("folder", tmp_path)
    assert found.categories == ("cup", "lid")
    assert counts(found) == tuple(2 * one for one in case.counts)
    assert len(check("folder", tmp_path).account) == number


def everything(root: Path) -> int:
    """Write a folder of everything that was met, and return the number of files."""
    number = 0
    for place, case in enumerate(LAYOUTS):
        number += case.build(root / f"part {place:02}")
    for path in ("notes.docx", "a/b/c/d.heic", "a/.hidden/x.png", "x.dcm", "Thumbs.db", "video.mp4", "no suffix"):
        junk(root / path)
        number += 1
    (root / "empty").mkdir()
    return number


def test_a_folder_of_everything_is_accounted_for(tmp_path: Path) -> None:
    """Each file is a picture, a mask or left out with a reason, whatever lies beside it."""
    number = everything(tmp_path)
    account = check("folder", tmp_path).account
    assert number == sum(path.is_file() for path in tmp_path.rglob("*"))
    assert len(account) == number
    assert not account.read.keys() & account.left_out.keys()
    assert all(account.left_out.values())
    pictures = [path for path, what in account.read.items() if "picture," in what]
    samples = [sample for split in ("train", "validation", "test") for sample in read("folder", tmp_path, split=split)]
    assert sorted(pictures) == sorted(sample.path for sample in samples)
    whole = [sample for sample in samples if sample.category == "part 00"]
    assert [(sample.label, bool(sample.masks)) for sample in whole] == [(0, False)] * 3 + [(1, True)] * 3


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_tree_is_accounted_for_or_refused(seed: int) -> None:
    """Folders of words drawn at random: what is read and what is left out are all files, each once."""
    rng = random.Random(seed)
    words = ["good", "BAD", "test", "train", "gt", "masks", "crack", "images", "old", "results", "OK", "ng"]
    words += ["lid__1", "Thumbs.db", "._x", "0", "1", "data (1)"]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for _ in range(rng.randint(1, 25)):
            folder = root.joinpath(*(rng.choice(words) + "." for _ in range(rng.randint(0, 4))))
            junk(folder / f"{rng.choice(words)}{rng.randint(0, 3)}{rng.choice(['.png', '.jpg', '.txt', '_mask.png'])}")
        try:
            account = check("folder", root).account
        except UsageError:
            return
        files = {path for path in root.rglob("*") if path.is_file()}
        assert {*account.read, *account.left_out} == files
        assert not account.read.keys() & account.left_out.keys()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ("colour/{0,1}.png crack/{0,1}.png", "found colour, crack"),
        ("{1,2,3}.png", "found 1.png, 2.png, 3.png"),
        ("images/{1,2}.png masks/{1,2}.png", "found images"),
    ],
)
def test_folders_that_do_not_tell_are_refused(tmp_path: Path, files: str, named: str) -> None:
    for path in (path for text in files.split() for path in expand(text)):
        picture(tmp_path / path)
    with pytest.raises(UsageError, match=f"which pictures are normal: {named}"):
        read("folder", tmp_path)


@pytest.mark.parametrize(
    "files", ["good/0.png cup/test/{good,crack}/{1,2}.png", "test/good/0.png other/{good,bad}/{1,2}.png"]
)
def test_several_sets_in_one_folder_are_refused(tmp_path: Path, files: str) -> None:
    for path in (path for text in files.split() for path in expand(text)):
        picture(tmp_path / path)
    with pytest.raises(UsageError, match=r"most pictures of .* lie beside"):
        read("folder", tmp_path)


def test_names_tell_where_folders_do_not(tmp_path: Path) -> None:
    for path in ("test/lot1/good_{1,2}.png", "test/lot2/{defect_3,good_4,5}.png"):
        for one in expand(path):
            picture(tmp_path / one)
    found = read("folder", tmp_path)
    assert {sample.path.stem: sample.label for sample in found} == {
        "good_1": 0,
        "good_2": 0,
        "defect_3": 1,
        "good_4": 0,
    }
    assert [issue.path.name for issue in found.issues] == ["5.png"]


def test_folders_that_contradict_are_told(tmp_path: Path) -> None:
    for path in ("good/0.png", "bad/0.png", "bad/good/1.png"):
        picture(tmp_path / path)
    found = read("folder", tmp_path)
    assert len(found) == 2
    assert [(issue.kind, issue.path.name) for issue in found.issues] == [("picture without label", "1.png")]


def test_without_a_test_split_it_is_said_what_there_is(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "good" / "0.png")
    with pytest.raises(UsageError, match=r"in the split 'test' .there is train"):
        read("folder", tmp_path)


def test_pictures_of_one_name_are_read_and_noted(tmp_path: Path) -> None:
    for path in ("good/0.png", "bad/0.png", "bad/0.jpg"):
        picture(tmp_path / path)
    found = read("folder", tmp_path)
    assert counts(found) == (1, 2, 0)
    assert any("several pictures, such as 0; all are read" in note for note in found.notes)


def test_links_are_followed_once(tmp_path: Path) -> None:
    Case("", PLAIN, PLAIN_MASKS).build(tmp_path / "elsewhere")
    (tmp_path / "lid").mkdir()
    for name in ("test", "ground_truth"):
        (tmp_path / "lid" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "test" / "loop").symlink_to(tmp_path / "elsewhere")
    assert counts(read("folder", tmp_path / "lid")) == (3, 3, 3)
    assert len(check("folder", tmp_path / "lid").account) == 9


def test_categories_of_one_name_keep_their_paths(tmp_path: Path) -> None:
    for line in ("a", "b"):
        picture(tmp_path / line / "lid" / "good" / "0.png")
        picture(tmp_path / line / "lid" / "bad" / "0.png")
    assert read("folder", tmp_path).categories == ("a/lid", "b/lid")


def test_the_split_may_come_before_the_category(tmp_path: Path) -> None:
    for path in ("test/lid/good/0.png", "test/lid/crack/0.png", "test/cup/good/0.png", "train/lid/good/1.png"):
        picture(tmp_path / path)
    mask(tmp_path / "ground_truth/lid/crack/0.png")
    found = read("folder", tmp_path)
    assert [(s.category, s.label, bool(s.masks)) for s in found] == [
        ("cup", 0, False),
        ("lid", 0, False),
        ("lid", 1, True),
    ]
    assert not found.issues


def coco(file: Path, pictures: list[str]) -> None:
    """Write a COCO file with one rectangle on each picture."""
    images = [{"id": number, "file_name": name, "width": 12, "height": 8} for number, name in enumerate(pictures)]
    marks = [{"image_id": number, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]]} for number in range(len(pictures))]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": marks}))


@pytest.mark.parametrize("place", ["annotations/instances_test.json", "_annotations.coco.json", "test/bad/coco.json"])
def test_one_file_of_annotations_for_many_pictures(tmp_path: Path, place: str) -> None:
    Case("", PLAIN).build(tmp_path / "lid")
    coco(tmp_path / "lid" / place, ["bad/0.png", "bad/1.png"])
    found = read("folder", tmp_path / "lid")
    assert counts(found) == (3, 3, 2)
    assert [(issue.kind, issue.path.name) for issue in found.issues] == [("picture without mask", "2.png")]
    assert [int(sample.mask().sum()) for sample in found if sample.masks] == [12, 12]
    assert len(check("folder", tmp_path / "lid").account) == 7


def test_one_file_of_annotations_above_categories(tmp_path: Path) -> None:
    for name in ("cup", "lid"):
        Case("", PLAIN).build(tmp_path / name)
    coco(tmp_path / "coco.json", [f"{name}/test/bad/{number}.png" for name in ("cup", "lid") for number in range(3)])
    assert counts(read("folder", tmp_path)) == (6, 6, 6)
    coco(tmp_path / "coco.json", [f"{number}.png" for number in range(3)])
    with pytest.raises(UsageError, match=r"fits .*/cup/test/bad/0\.png and .*/lid/test/bad/0\.png"):
        read("folder", tmp_path)


def test_two_files_of_annotations_are_not_mixed(tmp_path: Path) -> None:
    Case("", [*PLAIN, "train/bad/0.png"]).build(tmp_path)
    for split in ("train", "test"):
        coco(tmp_path / "annotations" / f"{split}.json", ["0.png", "1.png", "2.png"])
    assert counts(read("folder", tmp_path)) == (3, 3, 3)
    coco(tmp_path / "annotations" / "all.json", ["test/bad/0.png"])
    with pytest.raises(UsageError, match=r"all\.json and .*test\.json both list .*/test/bad/0\.png"):
        read("folder", tmp_path)


def test_drawn_masks_come_before_files_of_annotations(tmp_path: Path) -> None:
    Case("", PLAIN, PLAIN_MASKS).build(tmp_path)
    for number in range(3):
        (tmp_path / "test" / "bad" / f"{number}.json").write_text('{"shapes": []}')
    found = read("folder", tmp_path)
    assert {path.suffix for sample in found for path in sample.masks or ()} == {".png"}
    assert not found.issues
    assert len(found.others) == 3


@pytest.mark.parametrize("place", ["labels/test/bad", "test/bad/labels", "gt"])
def test_files_of_annotations_by_name(tmp_path: Path, place: str) -> None:
    Case("", PLAIN, junk=["classes.txt", f"{place}/classes.txt"]).build(tmp_path)
    for number in range(3):
        (tmp_path / place / f"{number}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    found = read("folder", tmp_path)
    assert counts(found) == (3, 3, 3)
    assert not found.issues
    assert [path.name for path in found.others] == ["classes.txt", "classes.txt"]
