"""Medical data sets. Those of one organ have one category; many hold anomalous pictures only."""

from __future__ import annotations

from functools import partial

from blemish.datasets.entry import Counts, DatasetInfo, Layout
from blemish.datasets.folders import label_folders, mask_folders, split_folders
from blemish.datasets.generic import META
from blemish.datasets.lists import numbered_list

_LISTS = "the lists of github.com/xiaozhen228/Bayes-PFL"
_KAGGLE = "https://www.kaggle.com/datasets"
_POLYPS = "https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579"
_TEST = "tested; trained on by none"
_PAIRED = Layout("images/*, masks/* (same stems)", partial(mask_folders, places={"test": ("images", "../masks")}))


def _no_yes(skip: tuple[str, ...] = ()) -> Layout:
    text = "no/* (normal), yes/* (tumour)" + "".join(f"; {name}/ is left out" for name in skip)
    return Layout(text, partial(label_folders, normal=("no",), skip=skip))


def _polyps(
    name: str,
    title: str,
    anomalous: int,
    *,
    layouts: tuple[Layout, ...] = (_PAIRED, META),
    modality: str = "colonoscopy frames",
    licence: str | None = None,
    home_page: str = _POLYPS,
    aliases: tuple[str, ...] = (),
    use: str = _TEST,
    notes: str = "",
) -> DatasetInfo:
    """A set for segmentation: every picture has a polyp."""
    return DatasetInfo(
        name=name,
        title=title,
        domain="medical",
        modality=modality,
        licence=licence,
        home_page=home_page,
        image_labels=False,
        pixel_labels=True,
        layouts=layouts,
        categories=("colon",),
        counts={"test": Counts(0, anomalous)},
        counts_source=_LISTS if anomalous != 1000 else "the lists of MoECLIP",
        use=use,
        aliases=aliases,
        notes=notes,
    )


def _bmad(
    name: str, modality: str, train: int, test: Counts | None, *, masks: bool, aliases: tuple[str, ...]
) -> DatasetInfo:
    kinds = "{good,Ungood}"
    splits = {"train": ("train",), "validation": ("valid",), "test": ("test",)}
    below = "/img" if masks else ""
    options = ("{split}/{defect}/anomaly_mask", "{split}/{defect}/label") if masks else ()
    return DatasetInfo(
        name=f"bmad-{name.lower()}",
        title=f"BMAD-{name}",
        domain="medical",
        modality=modality,
        licence=None,
        home_page="https://github.com/DorisBao/BMAD",
        image_labels=True,
        pixel_labels=masks,
        layouts=(
            Layout(
                f"[{name}/]train/good{below}/*, [{name}/]test/{kinds}{below}/*"
                + (f", [{name}/]test/Ungood/{{anomaly_mask,label}}/*" if masks else ""),
                partial(split_folders, splits=splits, pictures="img" if masks else ".", masks=options),
            ),
        ),
        categories=(name,),
        counts={"train": Counts(train, 0)} | ({} if test is None else {"test": test}),
        counts_source="table 1 of BMAD's README; normal and anomalous from the lists of MoECLIP",
        use="tested by AA-CLIP and MoECLIP",
        aliases=aliases,
        notes="Made from public sets, each with a licence of its own.",
    )


MEDICAL = (
    DatasetInfo(
        name="headct",
        title="HeadCT",
        domain="medical",
        modality="slices of head CT as pictures",
        licence=None,
        home_page=f"{_KAGGLE}/felipekitamura/head-ct-hemorrhage",
        image_labels=True,
        pixel_labels=False,
        layouts=(
            Layout("AnomalyCLIP's copy: brain/test/{good,<defect>}/*", partial(split_folders, masks=())),
            Layout(
                "the original: head_ct/NNN.png, labels.csv (number, hemorrhage 0 or 1)",
                partial(numbered_list, file="labels.csv", folder="head_ct"),
            ),
            META,
        ),
        categories=("brain",),
        object_names={"brain": "head ct"},
        counts={"test": Counts(100, 100)},
        counts_source=_LISTS,
        use=_TEST,
        aliases=("head_ct", "HeadCT_anomaly_detection", "Head CT hemorrhage"),
        notes="The prompts' name is CLIP-AD's.",
    ),
    DatasetInfo(
        name="brainmri",
        title="BrainMRI",
        domain="medical",
        modality="slices of brain MRI as pictures",
        licence=None,
        home_page=f"{_KAGGLE}/navoneel/brain-mri-images-for-brain-tumor-detection",
        image_labels=True,
        pixel_labels=False,
        layouts=(_no_yes(), META),
        categories=("brain",),
        object_names={"brain": "brain ct"},
        counts={"test": Counts(98, 155)},
        counts_source="files of the Kaggle set; Bayes-PFL lists a cleaned copy of 85 + 68",
        use=_TEST,
        aliases=("brain_mri", "brain_tumor_dataset"),
        notes="The prompts' name is CLIP-AD's, which says CT. BMAD-Brain is other data.",
    ),
    DatasetInfo(
        name="br35h",
        title="Br35H",
        domain="medical",
        modality="slices of brain MRI as pictures",
        licence=None,
        home_page=f"{_KAGGLE}/ahmedhamada0/brain-tumor-detection",
        image_labels=True,
        pixel_labels=False,
        layouts=(_no_yes(("pred",)), META),
        categories=("brain",),
        counts={"test": Counts(1500, 1500)},
        counts_source=_LISTS,
        use=_TEST,
        aliases=("br35",),
        notes="pred/ has no labels.",
    ),
    DatasetInfo(
        name="covid-19",
        title="COVID-19",
        domain="medical",
        modality="chest X-ray pictures",
        licence=None,
        home_page=f"{_KAGGLE}/tawsifurrahman/covid19-radiography-database",
        image_labels=True,
        pixel_labels=False,
        layouts=(
            Layout(
                "Normal/*, and anomalous pictures in every other folder (or in images/ inside each)",
                partial(label_folders, normal=("normal",)),
            ),
            META,
        ),
        categories=("chest",),
        counts_source="Kaggle: 10,192 of 21,165 are normal now, 1,341 of 2,905 at first; what was scored is not known",
        use="tested by AnomalyCLIP on a copy of its own",
        aliases=("covid", "COVID-19_Radiography_Dataset", "COVID-19 Radiography Database"),
        notes="masks/ in the current release marks lungs, not anomalies: not read.",
    ),
    DatasetInfo(
        name="isic",
        title="ISIC",
        domain="medical",
        modality="dermoscopy photographs",
        licence=None,
        home_page="https://challenge.isic-archive.com/",
        image_labels=False,
        pixel_labels=True,
        layouts=(
            Layout(
                "ISBI2016_ISIC_Part1_Test_Data/*.jpg, ISBI2016_ISIC_Part1_Test_GroundTruth/*_Segmentation.png",
                partial(
                    mask_folders,
                    places={"test": ("ISBI2016_ISIC_Part1_Test_Data", "../ISBI2016_ISIC_Part1_Test_GroundTruth")},
                ),
            ),
            Layout(
                "AnomalyCLIP's copy: skin/test/<kind>/*, skin/ISBI2016_ISIC_Part1_Test_GroundTruth/*",
                partial(
                    mask_folders,
                    places={"test": ("skin/test/*", "../../ISBI2016_ISIC_Part1_Test_GroundTruth")},
                ),
            ),
            META,
        ),
        categories=("skin",),
        counts={"test": Counts(0, 379)},
        counts_source=_LISTS,
        use=_TEST,
        aliases=("isbi", "isic2016", "ISBI2016_ISIC_Part1"),
    ),
    _polyps("cvc-colondb", "CVC-ColonDB", 380, aliases=("colondb",), use="tested; AdaCLIP and others train on it"),
    _polyps(
        "cvc-clinicdb",
        "CVC-ClinicDB",
        612,
        layouts=(
            _PAIRED,
            Layout(
                "the original: Original/*.tif, Ground Truth/*.tif",
                partial(mask_folders, places={"test": ("Original", "../Ground Truth")}),
            ),
            META,
        ),
        licence="CC BY 4.0 (third-party copies say so)",
        aliases=("clinicdb",),
        use="tested; AdaCLIP and others train on it",
    ),
    _polyps("cvc-300", "CVC-300", 60, aliases=("cvc-t",), use="tested by AA-CLIP and MoECLIP"),
    _polyps(
        "kvasir",
        "Kvasir",
        1000,
        modality="gastrointestinal endoscopy frames",
        licence="research and educational use",
        home_page="https://datasets.simula.no/kvasir-seg/",
        aliases=("kvasir-seg",),
        notes="Masks may be JPEG: values near 0 that compression made count as anomalous, as in the papers' code.",
    ),
    _polyps(
        "endo",
        "Endo",
        200,
        modality="gastrointestinal endoscopy frames",
        home_page="https://drive.google.com/file/d/1LNpLkv5ZlEUzr_RPN5rdOHaqk0SkZa3m/view",
        aliases=("endotect", "EndoTect_2020_Segmentation_Test_Dataset"),
        notes="Masks may be JPEG: values near 0 that compression made count as anomalous, as in the papers' code.",
    ),
    DatasetInfo(
        name="tn3k",
        title="TN3K",
        domain="medical",
        modality="thyroid ultrasound pictures",
        licence=None,
        home_page="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
        image_labels=False,
        pixel_labels=True,
        layouts=(
            Layout(
                "test-image/*.jpg, test-mask/*.jpg, trainval-image/*.jpg, trainval-mask/*.jpg",
                partial(
                    mask_folders,
                    places={
                        "test": ("test-image", "../test-mask"),
                        "train": ("trainval-image", "../trainval-mask"),
                    },
                ),
            ),
            META,
        ),
        categories=("thyroid",),
        counts_source="3,493 pictures in all; how many are test is not known",
        use=_TEST,
        aliases=("tn3k-thyroid", "thyroid"),
        notes="Masks are JPEG: values near 0 that compression made count as anomalous, as in the papers' code.",
    ),
    _bmad("Brain", "slices of brain MRI", 7500, Counts(640, 3075), masks=True, aliases=("brain bmad", "BraTS2021")),
    _bmad("Liver", "slices of liver CT", 1542, Counts(833, 660), masks=True, aliases=("liver bmad", "LiverCT")),
    _bmad("RESC", "retinal OCT", 4297, Counts(1041, 764), masks=True, aliases=("resc", "retinaoct")),
    _bmad("OCT2017", "retinal OCT", 26315, None, masks=False, aliases=("oct17",)),
    _bmad("ChestXray", "chest X-ray pictures", 8000, None, masks=False, aliases=("rsna",)),
    _bmad("HIS", "histopathology patches", 5088, None, masks=False, aliases=("camelyon16",)),
)
