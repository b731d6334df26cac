"""A trial: train a head on cached features of some sets, and measure it on sets that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.methods.losses import dice, focal, upsample_for_loss
from blemish.methods.ops import mean_of_largest, upsample_smoothly
from blemish.metrics import auroc, pixel_metrics
from pretraining.search.cache import Cache
from pretraining.search.heads import Embeddings, Head, difference, patch_logits
from pretraining.search.words import Words

#: Side in patches of the part of a picture that a step sees. The tokens have seen the whole picture.
WINDOW = 12
#: Part of the damaged pictures whose window lies round a damaged pixel.
CENTRED = 0.7
#: Part of the largest patches whose mean is the score of a picture in training.
TOP = 0.02
#: Smoothing of the maps that are measured, in pixels of the stored masks.
SIGMA = 2.0
#: Logit of a normal patch at the start; few patches are damaged.
PRIOR = -2.0

PixelLoss = Literal["focal + dice", "bce"]
#: Share of each source among the pictures of a step.
Mix = Mapping[str, float]
ALL: Mix = {"real": 0.4, "painted": 0.3, "drawn": 0.3}


@dataclass(frozen=True)
class Design:
    """What a trial varies. The budget, steps times batch, is the same for all."""

    make: Callable[[], Head]
    lr: float = 1e-3
    pixel_loss: PixelLoss = "focal + dice"
    image_loss: bool = True
    mix: Mix = field(default_factory=lambda: dict(ALL))
    balanced: bool = True
    """Whether kinds of thing count alike within a source, whatever the number of their pictures."""
    keep: float = 0.0
    """Share of the weights at the start in the weights at the end."""


@dataclass(frozen=True)
class Budget:
    """What every trial gets."""

    steps: int = 150
    batch: int = 8
    warmup: int = 15


class Step:
    """Pictures of one step: tokens, masks, labels and texts."""

    def __init__(self, cache: Cache, rows: np.ndarray, layers: Sequence[int], rng: np.random.Generator) -> None:
        side = round((cache.layers[layers[0]].shape[1] - 1) ** 0.5)
        window = min(WINDOW, side)
        scale = cache.masks.shape[1] // side
        index, masks = [], []
        for row in rows:
            mask = cache.masks[row]
            y, x = rng.integers(0, side - window + 1, 2)
            if mask.any() and rng.random() < CENTRED:
                place = rng.choice(np.argwhere(mask)) // scale
                y, x = np.clip(place - rng.integers(0, window, 2), 0, side - window)
            inside = (y + np.arange(window))[:, None] * side + x + np.arange(window)
            index.append(np.concatenate([[0], 1 + inside.ravel()]))
            masks.append(mask[y * scale : (y + window) * scale, x * scale : (x + window) * scale])
        self.tokens = {
            layer: torch.from_numpy(np.stack([cache.layers[layer][r][i] for r, i in zip(rows, index, strict=True)]))
            .float()
            for layer in layers
        }  # fmt: skip
        self.masks = torch.from_numpy(np.stack(masks)).float()
        self.labels = torch.from_numpy(cache.labels[rows].astype(np.float32))
        self.known = torch.from_numpy(cache.has_mask[rows].copy())


def weights(cache: Cache, design: Design, left_out: Sequence[str]) -> np.ndarray:
    """Return the probability (n,) of each picture in a step: half of them damaged, sources by the design's mix."""
    origins, sources, kinds = cache.origins, cache.sources, cache.kinds
    allowed = ~np.isin(origins, list(left_out))
    result = np.zeros(len(origins))
    for source, share in design.mix.items():
        for label in (0, 1):
            rows = allowed & (sources == source) & (cache.labels == label)
            groups = [rows & (kinds == kind) for kind in np.unique(kinds[rows])] if design.balanced else [rows]
            for group in groups:
                result[group] += share / 2 / len(groups) / group.sum()
    return result / result.sum()


def losses(embeddings: Embeddings, step: Step, text: Tensor, design: Design) -> Tensor:
    """Return the loss of a step."""
    logits = patch_logits(embeddings, text) + PRIOR
    side = round(logits.shape[1] ** 0.5)
    maps = upsample_for_loss(logits.unflatten(1, (side, side))[step.known], step.masks.shape[-1], align_corners=False)
    masks = step.masks[step.known]
    if design.pixel_loss == "bce":
        total = F.binary_cross_entropy_with_logits(maps, masks)
    else:
        probability = maps.sigmoid()
        total = focal(probability, masks) + dice(probability, masks)
    if not design.image_loss:
        return total
    total = total + F.binary_cross_entropy_with_logits(difference(embeddings.class_token, text), step.labels)
    # A window can lack the damage of its picture, so it has a label of its own where the mask is known.
    inside = step.masks.flatten(1).amax(1)[step.known]
    pooled, largest = difference(embeddings.pooled, text), mean_of_largest(logits, TOP)
    for each in (pooled, largest):
        total = total + 0.5 * F.binary_cross_entropy_with_logits(each[step.known], inside)
    return total


def train(
    design: Design, cache: Cache, words: Mapping[str, Words], left_out: Sequence[str], seed: int, budget: Budget
) -> Head:
    """Train a head on all sets but the ones that are left out."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed)
    head = design.make().train()
    start = deepcopy(head.state_dict())
    learnt = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=design.lr, weight_decay=0.01)
    probabilities = weights(cache, design, left_out)
    for number in range(budget.steps):
        rows = np.sort(rng.choice(len(probabilities), budget.batch, p=probabilities))
        step = Step(cache, rows, head.layers, rng)
        names = [str(cache.pictures[row]["name"]) for row in rows]
        text = torch.stack([words[name if rng.random() < 0.5 else "object"].draw(generator) for name in names])
        loss = losses(head(step.tokens), step, text, design)
        rate = min(1, (number + 1) / budget.warmup, 2 * (budget.steps - number) / budget.steps)
        for group in optimizer.param_groups:
            group["lr"] = design.lr * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
    head.load_state_dict({name: value.lerp(start[name], design.keep) for name, value in head.state_dict().items()})
    return head.eval()


@dataclass(frozen=True)
class Predictions:
    """Scores of the real pictures of a set: image scores by rule, and maps."""

    scores: Mapping[str, np.ndarray]
    maps: np.ndarray

    @classmethod
    def of(cls, maps: Tensor, grids: Tensor, extra: Mapping[str, Tensor]) -> Predictions:
        """Apply the rules for the image score.

        Args:
            maps: (n, M, M), to be measured.
            grids: (n, N), scores of the patches.
            extra: Scores (n,) that are not read off the map.
        """
        scores = {
            "map maximum": maps.flatten(1).amax(1),
            "largest 0.6 %": mean_of_largest(grids, 0.006),
            "largest 3 %": mean_of_largest(grids, 0.03),
            "largest 10 %": mean_of_largest(grids, 0.1),
            "mean of the map": grids.mean(1),
        }
        if extra:
            scores |= extra
            scores["largest 0.6 % + class token"] = scores["largest 0.6 %"] + extra["class token"]
            scores["largest 3 % + class token + pooled"] = (
                scores["largest 3 %"] + 0.5 * extra["class token"] + 0.5 * extra["pooled"]
            )
        return cls({rule: values.numpy() for rule, values in scores.items()}, maps.numpy())


@torch.inference_mode()
def embed(head: Head, cache: Cache, rows: np.ndarray, batch: int = 8) -> Embeddings:
    """Return a head's embeddings of pictures, which can be compared with any words."""
    parts = []
    for first in range(0, len(rows), batch):
        parts.append(head({layer: cache.tokens(layer, rows[first : first + batch]) for layer in head.layers}))
    patches = [torch.cat(maps) for maps in zip(*(part.patches for part in parts), strict=True)]
    return Embeddings(
        patches, torch.cat([part.class_token for part in parts]), torch.cat([part.pooled for part in parts])
    )


def predict(embeddings: Embeddings, text: Tensor, size: int, *, images: bool) -> Predictions:
    """Score pictures by a pair of texts.

    Args:
        embeddings: Of the pictures.
        text: (2, E), normalised; row 0 is normal, row 1 damaged.
        size: Side of the maps.
        images: Whether the class token and the learnt pooling were trained and are to be scored.
    """
    grid = (patch_logits(embeddings, text) + PRIOR).sigmoid()
    side = round(grid.shape[1] ** 0.5)
    maps = upsample_smoothly(grid.unflatten(1, (side, side)), size, SIGMA)
    extra = {}
    if images:
        extra["class token"] = difference(embeddings.class_token, text).sigmoid()
        extra["pooled"] = difference(embeddings.pooled, text).sigmoid()
    return Predictions.of(maps, grid, extra)


def measure(predictions: Predictions, cache: Cache, rows: np.ndarray, *, pixels: bool = True) -> dict[str, float]:
    """Return the image AUROC of each rule, and AUROC and AUPRO of the pixels where all masks are known."""
    labels = cache.labels[rows]
    result = {f"image {rule}": auroc(labels, scores) for rule, scores in predictions.scores.items()}
    if pixels and cache.has_mask[rows].all():
        pixel = pixel_metrics(list(cache.masks[rows]), list(predictions.maps))
        result |= {"pixel AUROC": pixel.auroc, "pixel AUPRO": pixel.aupro}
    return result


def left_out_rows(cache: Cache, name: str) -> np.ndarray:
    """Return the numbers of a set's real pictures."""
    return np.flatnonzero((cache.origins == name) & (cache.sources == "real"))
