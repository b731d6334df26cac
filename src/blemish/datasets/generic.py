"""Layouts for pictures of one's own."""

from __future__ import annotations

from functools import partial

from blemish.datasets.entry import DatasetInfo, Layout
from blemish.datasets.folders import label_folders, split_folders
from blemish.datasets.lists import csv_list, meta_json

NORMAL = ("good", "ok", "OK", "normal", "Normal")

META = Layout("meta.json of the papers' scripts (or one meta_*.json)", meta_json)

GENERIC = (
    DatasetInfo(
        name="folder",
        title="Folders like MVTec AD",
        domain="any",
        modality="any",
        licence=None,
        home_page=None,
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "[<category>/]test/{good,<defect>}/*, [<category>/]ground_truth/<defect>/<stem>[_mask].*, and "
                "train/good/* where there is training; normal pictures may lie in good, ok or normal",
                partial(split_folders, normal=NORMAL),
            ),
            Layout(
                "{good,<defect>}/*, ground_truth/<defect>/<stem>[_mask].*; all is test",
                partial(label_folders, normal=("good", "ok", "normal"), masks="ground_truth"),
            ),
        ),
        notes="Masks are optional. The category's name is its object's.",
    ),
    DatasetInfo(
        name="csv",
        title="A table",
        domain="any",
        modality="any",
        licence=None,
        home_page=None,
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "a CSV with the columns path,label and perhaps mask,object,category,split,defect; paths from the "
                "table's folder, several masks divided by |",
                csv_list,
            ),
        ),
        notes="label is 0 or normal, 1 or anomaly. Without a column split all rows are test.",
    ),
    DatasetInfo(
        name="meta",
        title="The papers' meta.json",
        domain="any",
        modality="any",
        licence=None,
        home_page=None,
        image_labels=True,
        pixel_labels=True,
        layouts=(META,),
        aliases=("meta.json",),
        notes="Samples come in the file's order. The scripts paired masks by sorted position, not by name.",
    ),
)
