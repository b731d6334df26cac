"""MuSc: the pictures of a set judge each other (Li et al., ICLR 2024, https://arxiv.org/abs/2401.16753).

Code: https://github.com/xrli-U/MuSc. A normal place has a likeness in most other pictures of the same thing, an
anomalous one in few; so nobody has to say which pictures are normal. No learnt parts, no words. What is remembered are
unlabelled pictures, mostly of the same thing, anomalous ones among them; usually the very set that is to be scored. A
picture is never compared with itself, nor with a copy of itself.

    patches of each layer, normalised over the picture, averaged over r x r neighbours, then brought to length 1
    (Local Neighborhood Aggregation with Multiple Degrees, LNAMD);
    a patch's distance to each other picture: to the nearest of its patches;
    its score: the mean over the nearest 30 % of the pictures, then over degrees and layers (Mutual Scoring, MSM).

Two things MuSc does not do. The borders of patches cut the same thing otherwise on every photograph; so the remembered
pictures are looked at on several `grids`, and the nearest patch of any of them counts. And things that lie in any pose
find no likeness in a picture where they lie otherwise; so where turning brings pictures nearer to each other, the
remembered ones are looked at in as many poses as `turns` says (as AnomalyDINO turns its references: Damm et al., WACV
2025, https://arxiv.org/abs/2405.14529), on one grid. The words are not asked then: they take from what comparing knows
of such things (docs/embedded-model.md).

Without a memory there is nobody to ask: then it is `clip`, and its map is that of the words alone. `words` adds that
map to the mutual one, which the paper does not do; the built-in model is asked both.

Deviations: image scores are not smoothed over pictures with similar class tokens (RsCIN), since the score
of one picture would have to wait for all others; of fewer than four pictures the nearest one counts, where 30 % would
be none. Written from the paper; it has not been compared with numbers of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.clip.parallel import num_workers, parallel_map
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import FewShotMethod, MemoryBank, Prediction, View
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import ImageScore, require
from blemish.methods.maps import as_grid, normalise, smooth, upsample

#: Remembered pictures that are compared at once (or turned views): their cosines stay near the processor.
TOGETHER = 16
#: Pictures are turned against each other if, by turning, they come nearer to each other by this part of their distance.
#: Far products (pretraining/far.py): things in one pose 0, pieces of surfaces 0 to 0.11, things in any pose 0.04 on.
WORTH = 0.05
#: Where grids of patches lie, by how many there are: down and to the right, in sides of a patch.
GRIDS = {
    1: ((0.0, 0.0),),
    2: ((0.0, 0.0), (0.5, 0.5)),
    4: ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5)),
}
#: Two pictures of which the patches at all the same places are closer (1 - cosine) are one. On average would not do: of
#: two pictures by a fixed camera, or drawn, a small defect may be all that differs.
SAME = 1e-3


@dataclass(frozen=True, kw_only=True)
class MuScConfig(ClipConfig):
    """What MuSc leaves open; the defaults are its scripts' for ViT-L/14@336."""

    position: PositionMode = "bicubic-antialias"
    image_score: ImageScore = "map"
    sigma: float = 0.0
    mutual_layers: tuple[int, ...] = (6, 12, 18, 24)
    """Layers whose patches are compared, from 1; -1 is the last."""
    degrees: tuple[int, ...] = (1, 3, 5)
    """Sides of the neighbourhoods that patches are averaged over, odd."""
    nearest: float = 0.3
    """The part of the other pictures, the nearest ones, that a patch's score is the mean over."""
    words: float = 0.0
    """How much of the words' map (`clip`'s, each layer in [0, 1]) is added to the mutual one (in [0, 2]) of a set whose
    pictures are not turned."""
    grids: Literal[1, 2, 4] = 1
    """On how many grids of patches the remembered pictures are looked at: 2 half a patch apart, along the diagonal."""
    turns: int = 1
    """Of a set whose pictures are turned against each other, in how many poses the remembered ones are looked at."""

    def check(self) -> None:
        super().check()
        require(0 < self.nearest <= 1, f"nearest lies above 0 and is at most 1, not {self.nearest}")
        require(self.words >= 0, f"words must not be negative, not {self.words}")
        odd = all(degree > 0 and degree % 2 for degree in self.degrees)
        require(self.grids in GRIDS, f"grids are 1, 2 or 4, not {self.grids}")
        enough = self.turns == 1 or self.turns > self.grids
        require(enough, f"turns are 1 or more than the grids, {self.grids}, not {self.turns}")
        require(bool(self.degrees) and odd, f"degrees are odd numbers, at least one, not {self.degrees}")


class MuSc(Clip, FewShotMethod):
    """Mutual scoring; `build_memory_bank` is shown unlabelled pictures."""

    info = CATALOGUE["musc"]
    Config: ClassVar[type[MuScConfig]] = MuScConfig
    # chosen on synthetic products (pretraining/train_methods.py, judged stream) and far ones (pretraining/far.py)
    BUILTIN: ClassVar[MuScConfig] = MuScConfig(
        size=336, mutual_layers=(7, 8), degrees=(1,), words=0.25, sigma=4.0, grids=2, turns=8
    )

    config: MuScConfig

    def __init__(self, backbone: Backbone, config: MuScConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.mutual_layers = configs.resolve_layers(self.config.mutual_layers, backbone.layers)

    @property
    def request(self) -> Request:
        """The same with and without a memory, so that a set can be met in any pass."""
        return super().request | Request(frozenset(Tap(k) for k in self.mutual_layers), class_token=False)

    @property
    def few_shot_map_range(self) -> tuple[float, float]:
        return 0.0, 2.0 + self.config.words * len(self.layers)

    def patches(self, features: ImageFeatures, layer: int) -> Tensor:
        """What is compared at a layer, all degrees one after the other: (B, N, degrees, D), each of length 1."""
        if Tap(layer) not in features.taps:
            raise UsageError("the features lack a layer that is compared: encode the images with the method's request")
        x = features.taps[Tap(layer)][:, 1:].float()
        x = functional.layer_norm(x, x.shape[1:])  # over all patches of the picture together, as the code has it
        x = x.mT.reshape(*x.mT.shape[:2], *features.grid)  # (B, D, rows, columns)
        around = [functional.avg_pool2d(x, r, stride=1, padding=r // 2).flatten(2).mT for r in self.config.degrees]
        return normalise(torch.stack(around, dim=2))

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(View(shift=shift) for shift in GRIDS[self.config.grids])

    @property
    def turned_views(self) -> tuple[View, ...]:
        turns = self.config.turns
        return tuple(View(360 * k / turns) for k in range(turns)) if turns > 1 else ()

    def are_turned(self, views: Sequence[ImageFeatures]) -> bool:
        """Whether turning brings the pictures, at least two, nearer to each other: see `WORTH`."""
        own, *turned = (self.patches(view, self.mutual_layers[-1])[:, :, 0] for view in views)
        some = own.reshape(len(own), *views[0].grid, -1)[:, ::3, ::3].flatten(1, 2)
        cosines = [torch.einsum("and,bmd->abnm", some, other).amax(3) for other in (own, *turned)]
        apart = torch.stack(cosines).mul(-2).add(2).clamp_min(0).sqrt().mean(3)  # (views, pictures, pictures)
        others = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
        gain = ((apart[0] - apart.amin(0)) / apart[0].clamp_min(SAME))[others]
        return float(gain.mean()) > WORTH

    def build_memory_bank(self, features: ImageFeatures, *others: ImageFeatures) -> MemoryBank:
        views = (features, *others)
        kept = {  # of a picture all views, one after the other
            Tap(k): torch.cat([self.patches(view, k).flatten(2) for view in views], dim=1).flatten(0, 1)
            for k in self.mutual_layers
        }
        return MemoryBank(len(features.taps[Tap(self.mutual_layers[0])]), kept)

    def _turned(self, features: ImageFeatures, memory: MemoryBank) -> bool:
        """Whether pictures are remembered in more than the usual views."""
        rows, columns = features.grid
        usual = memory.pictures * rows * columns * len(self.views)
        return len(memory.taps[Tap(self.mutual_layers[0])]) > usual

    def mutual_map(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """Mean distance to the nearest of the other pictures: (B, rows, columns) in [0, 2], 0 where there is none."""
        degrees, scores = len(self.config.degrees), []
        for layer in self.mutual_layers:
            own, rows = self.patches(features, layer), memory.taps[Tap(layer)]
            others = rows.reshape(memory.pictures, -1, degrees, rows.shape[1] // degrees)
            rounded = others.to(features.precision)
            # While a graph is made (`blemish.export`), the batch is no number yet and cannot be parted.
            parts = torch.split(own, 1) if isinstance(own.shape[0], int) else (own,)
            compare = partial(self._compared, others=others, rounded=rounded)
            scores.append(torch.cat(parallel_map(compare, parts, num_workers(len(parts), own.device))))
        return as_grid(torch.stack(scores).mean(0), features.grid)

    def _compared(self, own: Tensor, others: Tensor, rounded: Tensor) -> Tensor:
        """Patches (B, N, degrees, D) against those of K pictures (K, views * N, degrees, D): (B, N), the degrees' mean.

        `rounded` are these in the precision of the products. Of a cosine 1 is taken off before it is rounded: then a
        distance is off by a thousandth of itself, and not by what a number near 1 is rounded by.
        """
        known, upright = len(others), others[:, : own.shape[1]]
        here, there = (tokens.flatten(1, 2).transpose(0, 1) for tokens in (own, upright))  # (N * degrees, B or K, D)
        same = (here @ there.mT).amin(0) > 1 - SAME  # (B, K)
        counts = [max(1, int(self.config.nearest * n)) for n in range(known + 1)]
        count = torch.tensor(counts, device=own.device)[(~same).sum(1)]  # (B,) of the pictures that are others
        among = torch.arange(known, device=own.device) < count[:, None, None]  # (B, 1, K)
        minus, scores = rounded.new_full((rounded.shape[1],), -1.0), []
        together = max(1, TOGETHER * own.shape[1] // others.shape[1])
        for mine, theirs in zip(own.to(rounded.dtype).unbind(2), rounded.unbind(2), strict=True):
            nearest = [
                functional.linear(mine, part.flatten(0, 1), minus.repeat(len(part)))
                .reshape(*mine.shape[:2], len(part), -1)
                .amax(3)
                for part in torch.split(theirs, together)
            ]
            distances = torch.cat(nearest, dim=2).float().mul(-2).clamp_min(0).sqrt()  # of unit vectors; (B, N, K)
            ranked = distances.masked_fill(same[:, None], torch.inf).sort(dim=2).values
            scores.append(torch.where(among & ranked.isfinite(), ranked, 0).sum(2) / count[:, None])
        return torch.stack(scores).mean(0)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Scores a batch; without a memory as `clip`, by the words alone."""
        if memory is None:
            return super().score(features, text)
        grid = self.mutual_map(features, memory)
        if self.config.words and not self._turned(features, memory):
            grid = grid + self.config.words * self.patch_map(features, text)
        maps = smooth(upsample(grid, self.config.size, align_corners=True), self.config.sigma)
        return self.judged(features, text, maps, self.few_shot_map_range)
