"""Miniature trees of every data set, in every layout that blemish reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 8)
"""(width, height) in pixels of each picture and mask."""

Numbers = dict[str, tuple[int, int, int]]
"""Category -> (normal, anomalous, anomalous with a mask)."""


@dataclass(frozen=True)
class Tree:
    """One data set in one layout: `build(root)` writes it, and `test` is what must be found."""

    name: str
    layout: str
    build: Callable[[Path], None]
    test: Numbers
    train: Numbers | None = None

    def __str__(self) -> str:
        return f"{self.name}-{self.layout}"


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Write a picture whose pixels follow from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 255, size: tuple[int, int] = SIZE, rows: slice = slice(2, 5)) -> Path:
    """Write a mask of `value` in some rows, columns 3 to 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[rows, 3:9] = value
    Image.fromarray(pixels).save(path)
    return path


def folders(
    *categories: str,
    normal: str = "good",
    bad: str = "bad",
    masks: str = "_mask",
    suffix: str = ".png",
    train: str = "train",
) -> Callable[[Path], None]:
    """`<category>/test/...` as MVTec AD has it: two normal and three anomalous pictures each."""

    def build(root: Path) -> None:
        for category in categories:
            picture(root / category / train / normal / f"000{suffix}")
            for number in range(2):
                picture(root / category / "test" / normal / f"{number:03}{suffix}")
            for number in range(3):
                picture(root / category / "test" / bad / f"{number:03}{suffix}")
                mask(root / category / "ground_truth" / bad / f"{number:03}{masks}.png")

    return build


def _each(*categories: str) -> Numbers:
    return dict.fromkeys(categories, (2, 3, 3))


def _trained(*categories: str) -> Numbers:
    return dict.fromkeys(categories, (1, 0, 0))


def _visa(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        base = f"{category}/Data"
        for number in range(3):
            normal, anomaly = f"{base}/Images/Normal/{number:04}.JPG", f"{base}/Images/Anomaly/{number:03}.JPG"
            marked = f"{base}/Masks/Anomaly/{number:03}.png"
            picture(root / normal), picture(root / anomaly), mask(root / marked, value=number + 1)
            rows.append(f"{category},{'train' if number == 0 else 'test'},normal,{normal},")
            rows.append(f"{category},test,anomaly,{anomaly},{marked}")
    (root / "split_csv").mkdir(parents=True)
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")


def _dagm(root: Path) -> None:
    for category in ("Class1", "Class10"):
        for phase in ("Train", "Test"):
            for number in range(5):
                picture(root / category / phase / f"{number:04}.PNG")
            for number in range(3):
                mask(root / category / phase / "Label" / f"{number:04}_label.PNG")


def _sdd(root: Path) -> None:
    for number in range(5):
        folder = root / f"kos{number // 3:02}"
        picture(folder / f"Part{number}.jpg")
        mask(folder / f"Part{number}_label.bmp", value=255 if number < 3 else 0)


def _ksdd2(root: Path) -> None:
    for split, count in (("train", 1), ("test", 5)):
        for number in range(count):
            picture(root / split / f"{20000 + number}.png")
            mask(root / split / f"{20000 + number}_GT.png", value=255 if split == "test" and number < 3 else 0)


def _bsd(root: Path) -> None:
    (root / "label").mkdir(parents=True)
    for number in range(5):
        picture(root / "data" / f"01_{number}_crop_2.jpg")
        if number < 3:
            shape = {"label": "pitting", "points": [[2, 2], [8, 2], [8, 6]], "shape_type": "polygon"}
            content = {"shapes": [shape], "imageWidth": SIZE[0], "imageHeight": SIZE[1]}
            (root / "label" / f"01_{number}_crop_2.json").write_text(json.dumps(content))


def _mtd(root: Path) -> None:
    for kind, count in (("Free", 2), ("Crack", 2), ("Uneven", 1)):
        for number in range(count):
            stem = root / f"MT_{kind}" / "Imgs" / f"exp1_num_{number}"
            picture(stem.with_suffix(".jpg"))
            mask(stem.with_suffix(".png"), value=0 if kind == "Free" else 255)


def _loco(root: Path) -> None:
    for split in ("train", "validation"):
        picture(root / "pushpins" / split / "good" / "000.png")
    for number in range(2):
        picture(root / "pushpins" / "test" / "good" / f"{number:03}.png")
    for kind, count in (("logical_anomalies", 2), ("structural_anomalies", 1)):
        for number in range(count):
            picture(root / "pushpins" / "test" / kind / f"{number:03}.png")
            for part in range(2):
                path = root / "pushpins" / "ground_truth" / kind / f"{number:03}" / f"{part:03}.png"
                mask(path, rows=slice(2 * part, 2 * part + 2))


def _ad2(root: Path) -> None:
    for split in ("train", "validation"):
        picture(root / "can" / split / "good" / "000_regular.png")
    public = root / "can" / "test_public"
    for number in range(2):
        picture(public / "good" / f"{number:03}_regular.png")
    for number in range(3):
        picture(public / "bad" / f"{number:03}_regular.png")
        mask(public / "ground_truth" / "bad" / f"{number:03}_regular_mask.png")
    picture(root / "can" / "test_private" / "000_regular.png")


def _real_iad(root: Path) -> None:
    for category in ("mint", "pcb"):
        lists: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for number in range(6):
            split = "train" if number == 5 else "test"
            kind = "AK" if number < 3 else "OK"
            folder = f"{'NG/AK' if kind == 'AK' else 'OK'}/S{number:04}"
            name = f"{folder}/{category}_{number:04}_{kind}_C1.jpg"
            picture(root / "realiad_512" / category / name)
            item = {"category": category, "anomaly_class": kind, "image_path": name, "mask_path": None}
            if kind == "AK":
                item["mask_path"] = name.replace(".jpg", "_mask.png")
                mask(root / "realiad_512" / category / item["mask_path"])
            lists[split].append(item)
        path = root / "realiad_jsons" / "realiad_jsons" / f"{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": f"{category}/"}, **lists}))


def _no_masks(normal: str, bad: str, suffix: str = ".jpg") -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for number in range(2):
            picture(root / normal / f"N{number}{suffix}")
        for number in range(3):
            picture(root / bad / f"Y{number}{suffix}")

    return build


def _br35h(root: Path) -> None:
    _no_masks("no", "yes")(root)
    picture(root / "pred" / "pred0.jpg")


def _covid(root: Path) -> None:
    for kind, count in (("Normal", 2), ("COVID", 2), ("Viral Pneumonia", 1)):
        for number in range(count):
            picture(root / kind / "images" / f"{kind}-{number}.png")
            mask(root / kind / "masks" / f"{kind}-{number}.png")


def _head_ct(root: Path) -> None:
    rows = ["id, hemorrhage"]
    for number in range(5):
        picture(root / "head_ct" / f"{number:03}.png")
        rows.append(f"{number},{int(number < 3)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def _pairs(
    images: str, masks: str, suffix: str = ".png", word: str = "", mask_suffix: str = ".png", first: int = 1
) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for number in range(first, first + 3):
            picture(root / images / f"{number}{suffix}")
            mask(root / masks / f"{number}{word}{mask_suffix}")

    return build


def _tn3k(root: Path) -> None:
    _pairs("test-image", "test-mask", ".jpg", mask_suffix=".jpg")(root)
    _pairs("trainval-image", "trainval-mask", ".jpg", mask_suffix=".jpg", first=10)(root)


def _bmad(category: str, masks: str | None) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        below = "img" if masks else "."
        picture(root / category / "train" / "good" / below / "0.png")
        for split in ("valid", "test"):
            for number in range(2):
                picture(root / category / split / "good" / below / f"{number}.png")
                if masks:
                    mask(root / category / split / "good" / masks / f"{number}.png", value=0)
            for number in range(3):
                picture(root / category / split / "Ungood" / below / f"{number}.png")
                if masks:
                    mask(root / category / split / "Ungood" / masks / f"{number}.png")

    return build


def _labels(root: Path) -> None:
    _no_masks("good", "crack", ".png")(root)
    for number in range(3):
        mask(root / "ground_truth" / "crack" / f"Y{number}.png")


def _meta(root: Path) -> None:
    folders("01", normal="ok", bad="ko")(root)
    items = [
        {"img_path": f"01/test/ok/{n:03}.png", "mask_path": "", "cls_name": "01", "specie_name": "ok", "anomaly": 0}
        for n in range(2)
    ]
    items += [
        {
            "img_path": f"01/test/ko/{n:03}.png",
            "mask_path": f"01/ground_truth/ko/{n:03}_mask.png",
            "cls_name": "01",
            "specie_name": "ko",
            "anomaly": 1,
        }
        for n in range(3)
    ]
    (root / "meta.json").write_text(json.dumps({"train": {}, "test": {"01": items}}))


def _csv(root: Path) -> None:
    rows = ["path,label,mask,object"]
    for number in range(5):
        picture(root / "photos" / f"{number}.png")
        marked = ""
        if number < 3:
            marked = f"photos/{number}_a.png|photos/{number}_b.png"
            mask(root / "photos" / f"{number}_a.png", rows=slice(0, 2))
            mask(root / "photos" / f"{number}_b.png", rows=slice(6, 8))
        rows.append(f"photos/{number}.png,{int(number < 3)},{marked},metal nut")
    (root / "samples.csv").write_text("\n".join(rows) + "\n")


_VCP = {"bad": "anomaly", "masks": ""}
_DTD = ("Blotchy_099", "Woven_127")
_COMMUTATORS = "electrical commutators"
_POLYPS = [Tree(n, "pairs", _pairs("images", "masks"), {"colon": (0, 3, 3)}) for n in ("cvc-colondb", "cvc-300")]

TREES: list[Tree] = [
    Tree(
        "mvtec",
        "release",
        folders("bottle", "metal_nut"),
        _each("bottle", "metal_nut"),
        _trained("bottle", "metal_nut"),
    ),
    Tree("visa", "release", _visa, {"candle": (2, 3, 3), "pcb1": (2, 3, 3)}, _trained("candle", "pcb1")),
    Tree("visa", "converted", folders("candle", "pcb1", masks=""), _each("candle", "pcb1"), _trained("candle", "pcb1")),
    Tree(
        "btad",
        "release",
        folders("01", "03", normal="ok", bad="ko", masks="", suffix=".bmp"),
        _each("01", "03"),
        _trained("01", "03"),
    ),
    Tree("btad", "meta", _meta, _each("01")),
    Tree("mpdd", "release", folders("tubes", bad="hole"), _each("tubes"), _trained("tubes")),
    Tree("mvtec-loco", "release", _loco, _each("pushpins"), _trained("pushpins")),
    Tree("mvtec-ad-2", "release", _ad2, _each("can"), _trained("can")),
    Tree("real-iad", "release", _real_iad, _each("mint", "pcb"), _trained("mint", "pcb")),
    Tree(
        "sdd",
        "copy",
        folders("electrical_commutators", bad="defect", masks=""),
        _each(_COMMUTATORS),
        _trained(_COMMUTATORS),
    ),
    Tree("sdd", "release", _sdd, _each(_COMMUTATORS)),
    Tree("ksdd2", "release", _ksdd2, _each("metal surface"), _trained("metal surface")),
    Tree("ksdd2", "vcp", folders("metal", **_VCP), _each("metal surface"), _trained("metal surface")),
    Tree("dagm", "release", _dagm, _each("Class1", "Class10"), _each("Class1", "Class10")),
    Tree("dtd-synthetic", "release", folders(*_DTD), _each(*_DTD), _trained(*_DTD)),
    Tree("rsdd", "vcp", folders("Metal15", suffix=".bmp", **_VCP), _each("rail"), _trained("rail")),
    Tree("bsd", "release", _bsd, {"ball screw drive": (0, 3, 3)}),
    Tree("bsd", "vcp", folders("bsd", **_VCP), _each("ball screw drive"), _trained("ball screw drive")),
    Tree("mtd", "release", _mtd, _each("magnetic tile")),
    *(
        Tree(name, "vcp", folders("a", "b", **_VCP), _each("a", "b"), _trained("a", "b"))
        for name in ("gc", "msd", "road")
    ),
    Tree("headct", "copy", _no_masks("brain/test/good", "brain/test/defect"), {"brain": (2, 3, 0)}),
    Tree("headct", "release", _head_ct, {"brain": (2, 3, 0)}),
    Tree("brainmri", "release", _no_masks("no", "yes", ".JPG"), {"brain": (2, 3, 0)}),
    Tree("br35h", "release", _br35h, {"brain": (2, 3, 0)}),
    Tree("covid-19", "release", _covid, {"chest": (2, 3, 0)}),
    Tree("covid-19", "copy", _no_masks("NORMAL", "COVID"), {"chest": (2, 3, 0)}),
    Tree(
        "isic",
        "release",
        _pairs("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", ".jpg", "_Segmentation"),
        {"skin": (0, 3, 3)},
    ),
    Tree(
        "isic",
        "copy",
        _pairs("skin/test/bad", "skin/ISBI2016_ISIC_Part1_Test_GroundTruth", ".jpg", "_Segmentation"),
        {"skin": (0, 3, 3)},
    ),
    *_POLYPS,
    Tree("cvc-clinicdb", "pairs", _pairs("images", "masks"), {"colon": (0, 3, 3)}),
    Tree(
        "cvc-clinicdb", "release", _pairs("Original", "Ground Truth", ".tif", mask_suffix=".tif"), {"colon": (0, 3, 3)}
    ),
    Tree("kvasir", "release", _pairs("images", "masks", ".jpg", mask_suffix=".jpg"), {"colon": (0, 3, 3)}),
    Tree("endo", "release", _pairs("images", "masks", ".jpg"), {"colon": (0, 3, 3)}),
    Tree("tn3k", "release", _tn3k, {"thyroid": (0, 3, 3)}, {"thyroid": (0, 3, 3)}),
    Tree("bmad-brain", "release", _bmad("Brain_AD", "anomaly_mask"), _each("Brain"), _trained("Brain")),
    Tree("bmad-liver", "copy", _bmad("Liver_AD", "label"), _each("Liver"), _trained("Liver")),
    Tree("bmad-resc", "release", _bmad("RESC", "anomaly_mask"), _each("RESC"), _trained("RESC")),
    Tree("bmad-oct2017", "release", _bmad("OCT2017", None), {"OCT2017": (2, 3, 0)}, _trained("OCT2017")),
    Tree("bmad-chestxray", "release", _bmad("Chest", None), {"ChestXray": (2, 3, 0)}, _trained("ChestXray")),
    Tree("bmad-his", "release", _bmad("HIS", None), {"HIS": (2, 3, 0)}, _trained("HIS")),
    Tree("folder", "categories", folders("cup", "mug", bad="crack"), _each("cup", "mug"), _trained("cup", "mug")),
    Tree("folder", "one", folders(".", normal="ok", bad="crack"), {"*": (2, 3, 3)}),
    Tree("folder", "labels", _labels, {"*": (2, 3, 3)}),
    Tree("csv", "table", _csv, {"metal nut": (2, 3, 3)}),
    Tree("meta", "json", _meta, _each("01")),
]
"""`"*"` stands for the name of the root."""
