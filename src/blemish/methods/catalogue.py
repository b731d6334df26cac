"""What is known of each method before it is loaded: names, papers, needs. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Where the weights lie that come with blemish.
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class MethodInfo:
    """A method in a list: what it is, where it was published, what it needs."""

    name: str
    """What users type."""
    title: str
    paper: str
    venue: str
    year: int
    url: str
    needs_object: bool
    """Uses the object's name ("metal nut"); the others are told nothing."""
    trainable: bool
    """Has learnt parts: needs weights to be of use."""
    few_shot: bool
    """Takes a few normal reference pictures of the object."""
    default_backbone: str
    """The backbone of the paper, by its name on the Hugging Face hub."""
    transductive: bool = False
    """Compares the pictures of a set with each other: its references are unlabelled, usually the set itself."""

    @property
    def takes_references(self) -> bool:
        """Whether reference pictures can be given."""
        return self.few_shot or self.transductive


_VIT_L_336 = "openai/clip-vit-large-patch14-336"
_VIT_B_PLUS = "timm/vit_base_patch16_plus_clip_240.laion400m_e31"
_ANOMALYCLIP = "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection"
_ANOMALYCLIP_URL = "https://arxiv.org/abs/2310.18961"
_APRIL_GAN = (
    "APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND Workshop "
    "Challenge Tracks 1&2"
)
_CLIP_AD = "CLIP-AD: A Language-Guided Staged Dual-Path Model for Zero-shot Anomaly Detection"
_CLIP_AD_URL = "https://arxiv.org/abs/2311.00453"

CATALOGUE: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            name="anomalyclip",
            title="AnomalyCLIP",
            paper=_ANOMALYCLIP,
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=False,
            trainable=True,
            few_shot=False,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="april-gan",
            title="APRIL-GAN",
            paper=_APRIL_GAN,
            venue="CVPR workshop",
            year=2023,
            url="https://arxiv.org/abs/2305.17382",
            needs_object=True,
            trainable=True,
            few_shot=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="clip",
            title="CLIP, two prompts",
            paper=f"{_ANOMALYCLIP} (baseline)",
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=True,
            trainable=False,
            few_shot=False,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="clip-ac",
            title="CLIP-AC, prompt ensemble",
            paper=f"{_ANOMALYCLIP} (baseline)",
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=True,
            trainable=False,
            few_shot=False,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="clip-ad",
            title="CLIP-AD, representative vectors",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            trainable=False,
            few_shot=False,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="clip-ad-sdp",
            title="CLIP-AD, staged dual path",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            trainable=False,
            few_shot=False,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="clip-ad-sdp-plus",
            title="CLIP-AD, staged dual path with adapters",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            trainable=True,
            few_shot=False,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="coop",
            title="CoOp, learnt context",
            paper="Learning to Prompt for Vision-Language Models",
            venue="IJCV",
            year=2022,
            url="https://arxiv.org/abs/2109.01134",
            needs_object=True,
            trainable=True,
            few_shot=False,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="musc",
            title="MuSc, mutual scoring",
            paper="MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the "
            "Unlabeled Images",
            venue="ICLR",
            year=2024,
            url="https://arxiv.org/abs/2401.16753",
            needs_object=True,
            trainable=False,
            few_shot=False,
            default_backbone=_VIT_L_336,
            transductive=True,
        ),
        MethodInfo(
            name="vcp-clip",
            title="VCP-CLIP",
            paper="VCP-CLIP: A visual context prompting model for zero-shot anomaly segmentation",
            venue="ECCV",
            year=2024,
            url="https://arxiv.org/abs/2407.12276",
            needs_object=False,
            trainable=True,
            few_shot=False,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="winclip",
            title="WinCLIP",
            paper="WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation",
            venue="CVPR",
            year=2023,
            url="https://arxiv.org/abs/2303.14814",
            needs_object=True,
            trainable=False,
            few_shot=True,
            default_backbone=_VIT_B_PLUS,
        ),
    )
}
