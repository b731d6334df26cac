"""Comparison and words jointly: blemish's own few-shot method, and the default of `blemish fit`.

It has no paper. Three witnesses are joined. Patches are compared with those of a few normal images, as in PatchCore
(Roth et al., CVPR 2022, https://arxiv.org/abs/2106.08265) and AnomalyDINO (Damm et al., WACV 2025,
https://arxiv.org/abs/2405.14529); and patches and the whole image are compared with the sentences of `clip`. Words are
often wrong about a product: they call flawless cookies damaged. But what they say of normal images is known, so only
what lies above it counts. A change of the whole image, such as another weave, moves each patch by less than flawless
patches differ, but it moves their mean by more, so the means are compared, too. With the unit vector z_p of patch p and
its score w_p by words, the same z_r and w_r of the reference patches r, the score w of the whole image by words, and
the mean patches m of the image and m_i of the references, the evidence of a patch and of the image is

    e_p = min_r (1 - z_p . z_r) + `patch_words` * max(0, w_p - max_r w_r)
    c = min_i |m - m_i| / (max_ij |m_i - m_j| + `whole_floor`), at most `whole_most`
    e = mean of the largest `top` of the e_p + `image_words` * w + `whole` * c

z_p is the patch at the `compared` layer, scaled to length 1; of several layers the mean, scaled again. m is the mean of
the patches of `whole_layer`, each scaled to length 1, scaled again. The score is e / (e + `half`), and the map is the
same of e_p: a change of the whole image has no place in it.

All constants are in the config, and nothing is fitted to the references. One more reference can only bring the nearest
one nearer and the two farthest apart farther, so it can only lower a score and a map. That makes leave-one-out
calibration exact (`monotone`). `docs/joint.md` says how the constants were chosen.

Without references the method is `clip`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import WHOLE, FewShotMethod, MemoryBank, Prediction
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import require
from blemish.methods.neighbours import nearest
from blemish.methods.ops import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    mean_of_largest,
    normalise,
    upsample_smoothly,
)
from blemish.methods.registry import METHODS

#: Key of the mean patches among the windows of a memory bank.
MEAN = -1
#: The embeddings that words are compared with stand in a memory bank as those of windows of one patch.
PATCH = 1


@dataclass(frozen=True, kw_only=True)
class JointConfig(ClipConfig):
    """The config of the joint method. `layers` are those of the words; `image_score` is the rule without references.

    All constants were chosen on the built-in model. The default layers are for ViT-L/14@336 and have not been tried.
    """

    compared: tuple[int, ...] = (16,)
    """Layers whose patches are compared, from 1; -1 is the last."""
    top: float = 0.006
    """Fraction of the patches, those with most evidence, whose mean is the evidence of the image."""
    patch_words: float = 0.5
    """Weight of what the words say of a patch above what they say of any reference patch."""
    image_words: float = 0.1
    """Weight of what the words say of the whole image."""
    half: float = 0.4
    """Evidence that makes a score of 0.5."""
    whole: float = 0.0
    """Weight of the distance of the whole image; 0 leaves it out, as in profiles made before there was one."""
    whole_layer: int = 15
    """Layer whose mean patch stands for the whole image, from 1; -1 is the last."""
    whole_floor: float = 0.02
    """Added to the largest distance between mean patches of references, which is 0 for a single one."""
    whole_most: float = 1.0
    """The most that the distance of the whole image can be, in units of that largest distance."""

    def check(self) -> None:
        super().check()
        require(0 < self.top <= 1, f"top lies above 0 and is at most 1, not {self.top}")
        require(self.half > 0, f"half has to be greater than 0, not {self.half}")
        for name in ("whole_floor", "whole_most"):
            require(getattr(self, name) > 0, f"{name} has to be greater than 0, not {getattr(self, name)}")
        for name in ("patch_words", "image_words", "whole"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")


class Joint(Clip, FewShotMethod):
    """Distances to normal references, and words as far as they say more than of these."""

    info = METHODS["joint"]
    Config: ClassVar[type[JointConfig]] = JointConfig

    config: JointConfig

    def __init__(self, backbone: Backbone, config: JointConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.compared = configs.resolve_layers(self.config.compared, backbone.layers)
        whole = (self.config.whole_layer,) if self.config.whole else ()
        self.whole = tuple(Tap(layer) for layer in configs.resolve_layers(whole, backbone.layers)) if whole else ()

    @property
    def memory_request(self) -> Request:
        return Request(frozenset((*(Tap(layer) for layer in (*self.layers, *self.compared)), *self.whole)))

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def monotone(self) -> bool:
        """A further reference can only lower distances, also relative to the largest one between references, and what
        the words say beyond the references.
        """
        return True

    @property
    def memory_tap(self) -> Tap:
        """Tap under which a memory bank holds the compared patches, the last of several."""
        return Tap(self.compared[-1])

    # what is compared

    def patches(self, features: ImageFeatures) -> Tensor:
        """Return the patches z that are compared with those of references: (B, N, D) float32, each of length 1."""
        if any(Tap(layer) not in features.taps for layer in self.compared):
            raise UsageError("the features lack the patches to compare: encode with the method's memory_request")
        units = [normalise(features.taps[Tap(layer)][:, 1:]) for layer in self.compared]
        return units[0] if len(units) == 1 else normalise(torch.stack(units).sum(0))

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        patches, embeddings = self.patches(features), self.patch_embeddings(features)
        taps = {self.memory_tap: patches.flatten(0, 1)}
        windows = {PATCH: embeddings.flatten(0, 1).float(), WHOLE: self.image_embedding(features).float()}
        if self.whole:
            windows[MEAN] = self.mean_patches(features)
        return MemoryBank(len(patches), taps, windows)

    def condensed(self, memory: MemoryBank, text: Tensor) -> MemoryBank:
        """Keep one embedding, that of which the words say most: no score reads another."""
        embeddings = memory.windows[PATCH]
        loudest = int(self.words(embeddings, text).argmax())
        means = {key: rows for key, rows in memory.windows.items() if key == MEAN}
        return replace(memory, windows={PATCH: embeddings[loudest : loudest + 1], **means})

    def patch_embeddings(self, features: ImageFeatures) -> Tensor:
        """Return what the words are compared with, the patches of the last of `layers`: (B, N, E), not normalised."""
        return self.backbone.project(features.taps[Tap(self.layers[-1])][:, 1:])

    def mean_patches(self, features: ImageFeatures) -> Tensor:
        """Return the mean patch m of each image: (B, D) float32, of length 1."""
        (tap,) = self.whole
        if tap not in features.taps:
            raise UsageError("the features lack the patches to compare: encode with the method's memory_request")
        return normalise(normalise(features.taps[tap][:, 1:]).mean(1))

    def words(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """Return the scores by words: (B, N, E) or (B, E) to (B, N) or (B,), in [0, 1]."""
        return anomalous_probability(cosine_logits(embeddings, text, self.config.temperature))

    # evidence

    def patch_evidence(self, patches: Tensor, own: Tensor, text: Tensor, memory: MemoryBank) -> Tensor:
        """Return e_p of all patches: (B, N), at least 0. Raises UsageError for the memory bank of another method.

        Args:
            patches: z (B, N, D).
            own: What the words are compared with, (B, N, E).
            text: (2, E) or (B, 2, E).
            memory: The references.
        """
        rows, embeddings = memory.taps.get(self.memory_tap), memory.windows.get(PATCH)
        if rows is None or embeddings is None:
            raise UsageError("the memory bank is of another method or config: build it with this method")
        distances = nearest(patches, rows).squared[..., 0] / 2
        usual = self.words(embeddings.unsqueeze(0), text).amax(dim=1, keepdim=True)  # (B or 1, 1)
        excess = (self.words(own, text) - usual).clamp_min(0)
        return distances + self.config.patch_words * excess

    def whole_evidence(self, means: Tensor | None, memory: MemoryBank) -> Tensor | float:
        """Return `whole` * c of each image (B,); 0 without mean patches (B, D) of the images or of the references."""
        rows = memory.windows.get(MEAN)
        if means is None or rows is None:
            return 0.0
        means, rows = normalise(means), normalise(rows)  # a profile rounds them
        # Cosines find the nearest and the farthest; differences give the distances, which cancellation would blur.
        nearest_rows, farthest_rows = rows[(means @ rows.mT).argmax(1)], rows[(rows @ rows.mT).argmin(1)]
        distance = torch.linalg.vector_norm(means - nearest_rows, dim=1)
        spread = torch.linalg.vector_norm(rows - farthest_rows, dim=1).amax(dim=0)
        change: Tensor = (distance / (spread + self.config.whole_floor)).clamp_max(self.config.whole_most)
        return change * self.config.whole

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch; without a memory bank as `clip` does."""
        if memory is None:
            return super().score(features, text)
        patches, own = self.patches(features), self.patch_embeddings(features)
        evidence = self.patch_evidence(patches, own, text, memory)
        change = self.whole_evidence(self.mean_patches(features) if self.whole else None, memory)
        return self.joined(evidence, change, self.image_embedding(features), text, features.grid)

    def joined(
        self, evidence: Tensor, change: Tensor | float, whole: Tensor, text: Tensor, grid: tuple[int, int]
    ) -> Prediction:
        """Return the prediction of a batch.

        Args:
            evidence: e_p (B, N).
            change: From `whole_evidence`.
            whole: The embeddings of the whole images (B, E).
            text: (2, E) or (B, 2, E).
            grid: Rows and columns of the patches.
        """
        c = self.config
        image = mean_of_largest(evidence, c.top) + c.image_words * self.words(whole, text) + change
        maps = upsample_smoothly(as_grid(evidence / (evidence + c.half), grid), c.size, c.sigma)
        return Prediction(image / (image + c.half), maps)

    def keeps_entries(self, memory: MemoryBank) -> bool:
        """A bank keeps patches and embeddings."""
        return True

    def score_entry(self, entry: MemoryBank, text: Tensor, memory: MemoryBank, grid: tuple[int, int]) -> Prediction:
        rows, embeddings = entry.taps[self.memory_tap], entry.windows[PATCH]
        patches = rows.reshape(entry.images, -1, rows.shape[1])
        own = embeddings.reshape(entry.images, -1, embeddings.shape[1])
        evidence = self.patch_evidence(patches, own, text, memory)
        change = self.whole_evidence(entry.windows.get(MEAN) if self.whole else None, memory)
        return self.joined(evidence, change, entry.windows[WHOLE], text, grid)

    def score_part(self, values: Tensor, map_range: tuple[float, float]) -> Tensor:
        """Return the mean of the largest `top` of a map's values inside; what is of the whole image is left out."""
        return mean_of_largest(values, self.config.top)
