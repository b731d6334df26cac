"""Industrial data sets. Facts are from the owners' pages and the papers' repositories; sources beside the counts."""

from __future__ import annotations

from functools import partial

from blemish.datasets.entry import Counts, DatasetInfo, Layout
from blemish.datasets.folders import split_folders
from blemish.datasets.generic import META
from blemish.datasets.lists import csv_list

_NC_SA = "CC BY-NC-SA 4.0"
_LISTS = "the lists of github.com/xiaozhen228/Bayes-PFL"
_MVTEC = Layout(
    "<category>/train/good/*, <category>/test/{good,<defect>}/*, <category>/ground_truth/<defect>/<stem>_mask.png",
    split_folders,
)
_VCP = Layout(
    "VCP-CLIP's copy: <category>/test/{good,anomaly}/*, <category>/ground_truth/anomaly/<stem>.png", split_folders
)

INDUSTRIAL = (
    DatasetInfo(
        name="mvtec",
        title="MVTec AD",
        domain="industrial",
        modality="photographs of objects and textures",
        licence=_NC_SA,
        home_page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        image_labels=True,
        pixel_labels=True,
        layouts=(_MVTEC, META),
        categories=(
            "bottle",
            "cable",
            "capsule",
            "carpet",
            "grid",
            "hazelnut",
            "leather",
            "metal_nut",
            "pill",
            "screw",
            "tile",
            "toothbrush",
            "transistor",
            "wood",
            "zipper",
        ),
        counts={"train": Counts(3629, 0), "test": Counts(467, 1258)},
        test_counts={
            "bottle": Counts(20, 63),
            "cable": Counts(58, 92),
            "capsule": Counts(23, 109),
            "carpet": Counts(28, 89),
            "grid": Counts(21, 57),
            "hazelnut": Counts(40, 70),
            "leather": Counts(32, 92),
            "metal_nut": Counts(22, 93),
            "pill": Counts(26, 141),
            "screw": Counts(41, 119),
            "tile": Counts(33, 84),
            "toothbrush": Counts(12, 30),
            "transistor": Counts(60, 40),
            "wood": Counts(19, 60),
            "zipper": Counts(32, 119),
        },
        counts_source=_LISTS,
        use="tested by every method; its test split trains the methods that are tested elsewhere",
        aliases=("mvtec-ad", "mvtec_anomaly_detection"),
    ),
    DatasetInfo(
        name="visa",
        title="VisA",
        domain="industrial",
        modality="RGB photographs",
        licence="CC BY 4.0",
        home_page="https://github.com/amazon-science/spot-diff",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "split_csv/1cls.csv (object,split,label,image,mask) with <category>/Data/Images/* and "
                "<category>/Data/Masks/*",
                partial(csv_list, files=("split_csv/1cls.csv", "1cls.csv")),
            ),
            Layout(
                "converted to <category>/train/good/*, <category>/test/{good,bad}/*, <category>/ground_truth/bad/*",
                split_folders,
            ),
            META,
        ),
        categories=(
            "candle",
            "capsules",
            "cashew",
            "chewinggum",
            "fryum",
            "macaroni1",
            "macaroni2",
            "pcb1",
            "pcb2",
            "pcb3",
            "pcb4",
            "pipe_fryum",
        ),
        counts={"train": Counts(8659, 0), "test": Counts(962, 1200)},
        test_counts={
            "candle": Counts(100, 100),
            "capsules": Counts(60, 100),
            "cashew": Counts(50, 100),
            "chewinggum": Counts(50, 100),
            "fryum": Counts(50, 100),
            "macaroni1": Counts(100, 100),
            "macaroni2": Counts(100, 100),
            "pcb1": Counts(100, 100),
            "pcb2": Counts(100, 100),
            "pcb3": Counts(101, 100),
            "pcb4": Counts(101, 100),
            "pipe_fryum": Counts(50, 100),
        },
        counts_source=f"{_LISTS}, made from split_csv/1cls.csv",
        use="tested by every method; its test split trains the methods that are tested on MVTec AD",
        aliases=("visual-anomaly",),
        notes="Masks of the release hold the defect's number, those of the converted copies 0 and 255: both are read.",
    ),
    DatasetInfo(
        name="btad",
        title="BTAD",
        domain="industrial",
        modality="RGB photographs of three products",
        licence="CC BY-SA 4.0",
        home_page="http://avires.dimi.uniud.it/papers/btad/",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "{01,02,03}/train/ok/*, {01,02,03}/test/{ok,ko}/*, {01,02,03}/ground_truth/ko/*",
                partial(split_folders, normal=("ok", "good")),
            ),
            META,
        ),
        categories=("01", "02", "03"),
        objects={"01": "metal1", "02": "wood", "03": "metal2"},
        counts={"train": Counts(1799, 0), "test": Counts(451, 290)},
        test_counts={"01": Counts(21, 49), "02": Counts(30, 200), "03": Counts(400, 41)},
        counts_source=_LISTS,
        use="tested; trained on by none",
        aliases=("btech", "beantech", "BTech_Dataset_transformed"),
        notes="The numbers name no object: the prompts' names are those of Bayes-PFL's lists. Product 03 has 400 "
        "normal pictures and 41 anomalous ones, so the mean over products and all products pooled differ a lot.",
    ),
)
