"""The table of methods, and looking up a method by its name. Imports no PyTorch.

A package of your own adds methods through the entry point group `blemish.methods`
(`my-method = "my_package.my_method:MyMethod"`): subclasses of `blemish.methods.Method` with their own `info`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from blemish.errors import UsageError, suggest

if TYPE_CHECKING:
    from blemish.methods.base import Method

#: The folder of the weights that are installed with blemish.
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

_GROUP = "blemish.methods"


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What is known of a method before it is loaded."""

    name: str
    """The name that users type."""
    title: str
    """The name in the paper."""
    paper: str
    """The paper's title."""
    venue: str
    year: int
    url: str
    needs_object: bool
    """Whether scores depend on the object's name ("metal nut")."""
    needs_text: bool = True
    """Whether the method compares with words, and so needs a backbone that reads them."""
    trainable: bool = False
    """Whether the method has learnt parts, without which it is of no use."""
    few_shot: bool = False
    """Whether the method takes a few normal reference images of the object."""
    default_backbone: str
    """The paper's backbone, by its name on the Hugging Face hub."""
    transductive: bool = False
    """Whether the method compares the unlabelled images of a set with each other."""
    needs_references: bool = False
    """Whether the method does nothing but compare, and so has no score without reference images or a set."""
    cls: str = ""
    """The class of a built-in method, as "module:Class" in `blemish.methods`; empty for a plug-in."""

    @property
    def takes_references(self) -> bool:
        """Whether the method takes reference images."""
        return self.few_shot or self.transductive

    def require_references(self, given: bool) -> None:
        """Raise a UsageError if the method does nothing but compare, and there is nothing to compare with."""
        if self.needs_references and not given:
            raise UsageError(
                f"{self.name} compares the pictures of a set with each other: give at least two that can be read, or "
                "others to compare with as references"
                if self.transductive
                else f"{self.name} compares pictures with flawless ones, without which it has no score: give references"
            )


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
_ANOMALYDINO = "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2"
_ANOMALYDINO_URL = "https://arxiv.org/abs/2405.14529"
_SUBSPACEAD = "SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling"
_SUBSPACEAD_URL = "https://arxiv.org/abs/2602.23013"

#: All built-in methods by name. This table is the only place where they are listed.
METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            name="anomalyclip",
            cls="anomalyclip:AnomalyCLIP",
            title="AnomalyCLIP",
            paper=_ANOMALYCLIP,
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=False,
            trainable=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="anomalydino",
            cls="anomalydino:AnomalyDINO",
            title="AnomalyDINO",
            paper=_ANOMALYDINO,
            venue="WACV",
            year=2025,
            url=_ANOMALYDINO_URL,
            needs_object=False,
            needs_text=False,
            few_shot=True,
            needs_references=True,
            default_backbone="facebook/dinov2-small",
        ),
        MethodInfo(
            name="anomalydino-batch",
            cls="anomalydino:AnomalyDINOBatch",
            title="AnomalyDINO, batched zero-shot",
            paper=_ANOMALYDINO,
            venue="WACV",
            year=2025,
            url=_ANOMALYDINO_URL,
            needs_object=False,
            needs_text=False,
            transductive=True,
            needs_references=True,
            default_backbone="facebook/dinov2-small",
        ),
        MethodInfo(
            name="april-gan",
            cls="april_gan:AprilGAN",
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
            cls="clip:Clip",
            title="CLIP, two prompts",
            paper=f"{_ANOMALYCLIP} (baseline)",
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="clip-ac",
            cls="clip:ClipAC",
            title="CLIP-AC, prompt ensemble",
            paper=f"{_ANOMALYCLIP} (baseline)",
            venue="ICLR",
            year=2024,
            url=_ANOMALYCLIP_URL,
            needs_object=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="clip-ad",
            cls="clip_ad:ClipAD",
            title="CLIP-AD, representative vectors",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="clip-ad-sdp",
            cls="clip_ad:ClipAdSDP",
            title="CLIP-AD, staged dual path",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="clip-ad-sdp-plus",
            cls="clip_ad:ClipAdSDPPlus",
            title="CLIP-AD, staged dual path with adapters",
            paper=_CLIP_AD,
            venue="IJCAI workshop",
            year=2024,
            url=_CLIP_AD_URL,
            needs_object=True,
            trainable=True,
            default_backbone=_VIT_B_PLUS,
        ),
        MethodInfo(
            name="coop",
            cls="coop:CoOp",
            title="CoOp, learnt context",
            paper="Learning to Prompt for Vision-Language Models",
            venue="IJCV",
            year=2022,
            url="https://arxiv.org/abs/2109.01134",
            needs_object=True,
            trainable=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="joint",
            cls="joint:Joint",
            title="comparison and words",
            paper="none: blemish's own",
            venue="blemish",
            year=2026,
            url="https://arxiv.org/abs/2106.08265",
            needs_object=True,
            few_shot=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="musc",
            cls="musc:MuSc",
            title="MuSc, mutual scoring",
            paper="MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the "
            "Unlabeled Images",
            venue="ICLR",
            year=2024,
            url="https://arxiv.org/abs/2401.16753",
            needs_object=True,
            needs_text=False,
            default_backbone=_VIT_L_336,
            transductive=True,
        ),
        MethodInfo(
            name="subspacead",
            cls="subspacead:SubspaceAD",
            title="SubspaceAD",
            paper=_SUBSPACEAD,
            venue="CVPR",
            year=2026,
            url=_SUBSPACEAD_URL,
            needs_object=False,
            needs_text=False,
            few_shot=True,
            needs_references=True,
            default_backbone="facebook/dinov2-small",
        ),
        MethodInfo(
            name="subspacead-batch",
            cls="subspacead:SubspaceADBatch",
            title="SubspaceAD, batched zero-shot",
            paper=_SUBSPACEAD,
            venue="CVPR",
            year=2026,
            url=_SUBSPACEAD_URL,
            needs_object=False,
            needs_text=False,
            transductive=True,
            needs_references=True,
            default_backbone="facebook/dinov2-small",
        ),
        MethodInfo(
            name="vcp-clip",
            cls="vcp_clip:VCPCLIP",
            title="VCP-CLIP",
            paper="VCP-CLIP: A visual context prompting model for zero-shot anomaly segmentation",
            venue="ECCV",
            year=2024,
            url="https://arxiv.org/abs/2407.12276",
            needs_object=False,
            trainable=True,
            default_backbone=_VIT_L_336,
        ),
        MethodInfo(
            name="winclip",
            cls="winclip:WinCLIP",
            title="WinCLIP",
            paper="WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation",
            venue="CVPR",
            year=2023,
            url="https://arxiv.org/abs/2303.14814",
            needs_object=True,
            few_shot=True,
            default_backbone=_VIT_B_PLUS,
        ),
    )
}


def list_methods() -> list[str]:
    """Return the names of all methods, plug-ins included, sorted."""
    return sorted({*METHODS, *_plugins()})


def info(name: str) -> MethodInfo:
    """Return the entry of a method; a plug-in is imported for it. Raises UsageError for an unknown name."""
    return METHODS[name] if name in METHODS else load_class(name).info


def load_class(name: str) -> type[Method]:
    """Import the class of a method. Raises UsageError for an unknown name or a plug-in that cannot be imported."""
    if name in METHODS:
        module, _, attribute = METHODS[name].cls.partition(":")
        return cast("type[Method]", getattr(importlib.import_module(f"blemish.methods.{module}"), attribute))
    plugins = _plugins()
    if name not in plugins:
        known = list_methods()
        hint = suggest(name, known)
        raise UsageError(f"there is no method called {name!r}{hint}; the methods are {', '.join(known)}")
    try:
        return cast("type[Method]", plugins[name].load())
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the plug-in {name} ({plugins[name].value}) cannot be loaded: {error}") from error


def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the plug-ins by name; they cannot take the name of a built-in method."""
    return {point.name: point for point in importlib.metadata.entry_points(group=_GROUP) if point.name not in METHODS}
