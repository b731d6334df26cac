"""The prompts of each paper, as data: states of an object and templates around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PromptSet:
    """States of an object and templates around them; `{}` marks the place that is filled in.

    A state takes the object's name ("damaged {}"). A template takes the filled state ("a photo of a {}.").
    """

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)

    def sentences(self, name: str) -> tuple[list[str], list[str]]:
        """Return the normal and the anomalous sentences about `name`, template by template within each state.

        The name is put in unchanged: underscores, capitals and braces stay as they are.
        """
        return self._fill(self.normal, name), self._fill(self.anomalous, name)

    def _fill(self, states: Sequence[str], name: str) -> list[str]:
        # Not with format(), since an object may be called "{x}".
        filled = [state.replace("{}", name) for state in states]
        return [template.replace("{}", state) for state in filled for template in self.templates]


#: The two sentences of the CLIP baseline in the AnomalyCLIP paper.
CLIP = PromptSet(normal=("a photo of a normal {}.",), anomalous=("a photo of an anomalous {}.",))

#: CoOp's phrases beside the learnt context: normal and anomalous, as in the AnomalyCLIP paper.
COOP = ("normal {}", "anomalous {}")

#: VCP-CLIP's two sentences; learnt tokens stand where the object's name would.
VCP_CLIP = PromptSet(normal=("a photo of a good {}",), anomalous=("a photo of a damaged {}",))

#: The ensemble of CLIP-AC and APRIL-GAN: 245 normal and 175 anomalous sentences.
CLIP_AC = PromptSet(
    normal=(
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    anomalous=(
        "damaged {}",
        "broken {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
    ),
    templates=(
        "a bad photo of a {}.",
        "a low resolution photo of the {}.",
        "a bad photo of the {}.",
        "a cropped photo of the {}.",
        "a bright photo of a {}.",
        "a dark photo of the {}.",
        "a photo of my {}.",
        "a photo of the cool {}.",
        "a close-up photo of a {}.",
        "a black and white photo of the {}.",
        "a bright photo of the {}.",
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
        "a blurry photo of the {}.",
        "a photo of the {}.",
        "a good photo of the {}.",
        "a photo of one {}.",
        "a close-up photo of the {}.",
        "a photo of a {}.",
        "a low resolution photo of a {}.",
        "a photo of a large {}.",
        "a blurry photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a good photo of a {}.",
        "a photo of the small {}.",
        "a photo of the large {}.",
        "a black and white photo of a {}.",
        "a dark photo of a {}.",
        "a photo of a cool {}.",
        "a photo of a small {}.",
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    ),
)

#: CLIP-AD's ensemble for industrial objects: 198 normal and 220 anomalous sentences. The paper has others for medical
#: images, which are not in the authors' code.
CLIP_AD = PromptSet(
    normal=(
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
        "{} without scratch",
        "{} without crack",
        "{} without contamination",
    ),
    anomalous=(
        "damaged {}",
        "imperfect {}",
        "blemished {}",
        "broken {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
        "{} with scratch",
        "{} with crack",
        "{} with contamination",
    ),
    templates=(
        "a cropped photo of the {}.",
        "a cropped photo of a {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of the {}.",
        "a dark photo of a {}.",
        "a jpeg corrupted photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a blurry photo of the {}.",
        "a blurry photo of a {}.",
        "a photo of the {}.",
        "a photo of a {}.",
        "a photo of a large {}.",
        "a photo of the small {}.",
        "a photo of the large {}.",
        "a photo of a small {}.",
        "a photo of the {} for visual inspection.",
        "a photo of a {} for visual inspection.",
        "a photo of the {} for anomaly detection.",
        "a photo of a {} for anomaly detection.",
    ),
)

#: WinCLIP's compositional ensemble, as in the reproduction whose numbers come nearest to the paper's. One template
#: occurs twice and so has twice the weight in the mean; the forms with "a" of two others are missing.
WINCLIP = PromptSet(
    normal=(
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    anomalous=(
        "damaged {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
    ),
    templates=(
        "a cropped photo of the {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of the {}.",
        "a dark photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a jpeg corrupted photo of the {}.",  # twice in the reproduction
        "a blurry photo of the {}.",
        "a blurry photo of a {}.",
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of a small {}.",
        "a photo of the small {}.",
        "a photo of a large {}.",
        "a photo of the large {}.",
        "a photo of the {} for visual inspection.",
        "a photo of a {} for visual inspection.",
        "a photo of the {} for anomaly detection.",
        "a photo of a {} for anomaly detection.",
    ),
)
