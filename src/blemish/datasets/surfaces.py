"""Industrial surfaces and textures, and the copies of them that VCP-CLIP's group hands around."""

from __future__ import annotations

from functools import partial

from blemish.datasets.entry import Counts, DatasetInfo, Layout
from blemish.datasets.folders import mask_folders, split_folders
from blemish.datasets.generic import META

_COPY = (
    "VCP-CLIP's format: <category>/test/{good,anomaly}/*, <category>/ground_truth/anomaly/<stem>.png, or its "
    "meta_<name>.json"
)
_VCP = Layout(_COPY, split_folders)
_VCP_ASSUMED = Layout(_COPY, split_folders, assumed=True)
_VCP_USE = "tested by VCP-CLIP"

SURFACES = (
    DatasetInfo(
        name="sdd",
        title="SDD",
        domain="industrial",
        modality="grey photographs of electrical commutators",
        licence="CC BY-NC-SA 4.0",
        home_page="https://www.vicos.si/resources/kolektorsdd/",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "AnomalyCLIP's copy: electrical commutators/{train,test}/{good,defect}/*, "
                "electrical commutators/ground_truth/defect/*",
                split_folders,
            ),
            Layout(
                "the original: kosNN/PartM.jpg with kosNN/PartM_label.bmp beside it (all is test)",
                partial(mask_folders, places={"test": ("kos*", ".")}, mask_names=r"_label\.", label="content"),
            ),
            META,
        ),
        categories=("electrical commutators",),
        counts_source="the original has 347 + 52 pictures and no split; the counts of AnomalyCLIP's copy are not known",
        use="tested by AnomalyCLIP on its own copy; others score all originals",
        aliases=("kolektorsdd", "ksdd", "kolektor"),
        notes="Numbers on the two copies cannot be compared.",
    ),
    DatasetInfo(
        name="ksdd2",
        title="KSDD2",
        domain="industrial",
        modality="RGB photographs of production items",
        licence="CC BY-NC-SA 4.0",
        home_page="https://www.vicos.si/resources/kolektorsdd2/",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "{train,test}/NNNNN.png with NNNNN_GT.png beside it, black for good ones",
                partial(
                    mask_folders,
                    places={"test": ("test", "."), "train": ("train", ".")},
                    mask_names=r"_GT\.",
                    label="content",
                ),
            ),
            _VCP,
            META,
        ),
        categories=("metal surface",),
        counts={"train": Counts(2085, 246), "test": Counts(894, 110)},
        counts_source="test from the DSR paper; 3,335 pictures and 356 defective in all, so the training counts follow",
        use=_VCP_USE,
        aliases=("kolektorsdd2",),
        notes="VCP-CLIP's group uses 356 + 356 crops instead: other counts, other numbers.",
    ),
    DatasetInfo(
        name="dagm",
        title="DAGM",
        domain="industrial",
        modality="artificial textures with defects",
        licence=None,
        home_page="https://www.kaggle.com/datasets/mhskjelvareid/dagm-2007-competition-dataset-optical-inspection",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "ClassN/{Train,Test}/NNNN.PNG, ClassN/{Train,Test}/Label/NNNN_label.PNG; a picture with a label is "
                "anomalous",
                partial(
                    mask_folders,
                    places={"test": ("*/Test", "Label"), "train": ("*/Train", "Label")},
                    label="masked",
                ),
            ),
            META,
        ),
        categories=tuple(f"Class{number}" for number in range(1, 11)),
        counts_source="8,050 pictures of training and 8,050 of test (Kaggle page); normal and anomalous are not known",
        use="tested by AnomalyCLIP",
        aliases=("dagm2007", "DAGM_KaggleUpload"),
        notes="Masks are coarse ellipses. VCP-CLIP's group re-annotated seven of the classes: other numbers.",
    ),
    DatasetInfo(
        name="dtd-synthetic",
        title="DTD-Synthetic",
        domain="industrial",
        modality="photographs of textures with synthetic defects",
        licence=None,
        home_page="https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "<category>/train/good/*, <category>/test/{good,bad}/*, <category>/ground_truth/bad/NNN_mask.png",
                split_folders,
            ),
            META,
        ),
        categories=(
            "Blotchy_099",
            "Fibrous_183",
            "Marbled_078",
            "Matted_069",
            "Mesh_114",
            "Perforated_037",
            "Stratified_154",
            "Woven_001",
            "Woven_068",
            "Woven_104",
            "Woven_125",
            "Woven_127",
        ),
        counts={"train": Counts(1200, 0), "test": Counts(357, 947)},
        counts_source="the lists of github.com/xiaozhen228/Bayes-PFL",
        use="tested; trained on by none",
        aliases=("dtd",),
    ),
    DatasetInfo(
        name="rsdd",
        title="RSDD",
        domain="industrial",
        modality="grey photographs of rails",
        licence=None,
        home_page="http://icn.bjtu.edu.cn/Visint/resources/RSDDs.aspx",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "the crops of the CLIP papers: <category>/test/{good,anomaly}/*.bmp, <category>/ground_truth/anomaly/*",
                split_folders,
            ),
            META,
        ),
        categories=("rail",),
        counts={"test": Counts(387, 387)},
        counts_source="the crops in the lists of Bayes-PFL and MoECLIP; the original has 195 pictures, all defective",
        use=_VCP_USE,
        aliases=("rsdds", "Rail Surface Defect Datasets"),
        notes="The folders of the original release are not known, so it is not read.",
    ),
    DatasetInfo(
        name="bsd",
        title="BSD",
        domain="industrial",
        modality="RGB photographs of ball screw drives",
        licence="CC BY-SA 4.0",
        home_page="https://github.com/2Obe/BSData",
        image_labels=False,
        pixel_labels=True,
        layouts=(
            Layout(
                "data/*.jpg, label/<stem>.json (polygons of labelme); pictures without one are left out",
                partial(mask_folders, places={"test": ("data", "../label")}, label="annotated"),
            ),
            _VCP,
            META,
        ),
        categories=("ball screw drive",),
        counts={"test": Counts(0, 394)},
        counts_source="the owner's page: 1,104 pictures, 394 of them annotated",
        use=_VCP_USE,
        aliases=("bsdata", "Ball Screw Drive"),
        notes="Which pictures VCP-CLIP scored is not known.",
    ),
    DatasetInfo(
        name="mtd",
        title="MTD",
        domain="industrial",
        modality="grey photographs of magnetic tiles",
        licence=None,
        home_page="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        image_labels=True,
        pixel_labels=True,
        layouts=(
            Layout(
                "MT_{Free,Blowhole,Break,Crack,Fray,Uneven}/Imgs/*.jpg with the mask of the same stem as *.png beside",
                partial(
                    mask_folders,
                    places={"test": ("MT_*/Imgs", ".")},
                    mask_names=r"\.png$",
                    label="folder",
                    normal=("MT_Free",),
                ),
            ),
        ),
        categories=("magnetic tile",),
        counts={"test": Counts(952, 392)},
        counts_source="files of the owner's repository, which has no split",
        use="tested by SAA+ and others",
        aliases=("magnetic tile", "Magnetic Tile Defects", "magnetic-tile-defect-datasets"),
        notes="No licence file; its README welcomes use with citation.",
    ),
    *(
        DatasetInfo(
            name=name,
            title=title,
            domain="industrial",
            modality="not known",
            licence=None,
            home_page=None,
            image_labels=True,
            pixel_labels=True,
            layouts=(_VCP_ASSUMED, META),
            use=_VCP_USE,
            notes="Only the name was found among VCP-CLIP's ten; pictures, counts, licence and layout are not known.",
        )
        for name, title in (("gc", "GC"), ("msd", "MSD"), ("road", "Road"))
    ),
)
