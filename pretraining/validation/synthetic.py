"""Validation on the training distribution: synthetic pictures of another stream, asked with held-out templates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from blemish.metrics import auroc
from pretraining.training.batches import Batch, stack
from pretraining.training.model import TextEncoder, image_outputs
from pretraining.training.objective import grid_of, normalise
from pretraining.training.prompts import HELD_OUT_TEMPLATES
from synthesis import make_product, make_sample
from synthesis.samples import LOST

SEED = 987_654_321
#: Pictures, and pairs of a normal and a defective one, that the image tower is validated on.
PICTURES, PAIRS = 384, 192
#: Normal and damaged states, from the papers.
STATES = (("{}", "damaged {}"), ("flawless {}", "broken {}"), ("{} without defect", "{} with defect"))


def validation_pictures(photos: Sequence[np.ndarray], count: int = PICTURES) -> Batch:
    """Return single pictures, defective or not."""
    return stack([make_sample(SEED, index, photos) for index in range(count)])


def validation_pairs(photos: Sequence[np.ndarray], count: int = PAIRS) -> Batch:
    """Return pairs of one scene side by side, the normal picture first."""
    return stack([sample for index in range(count) for sample in make_product(SEED, index, photos)])


@torch.no_grad()
def output_scores(model: CLIPModel, encode_text: TextEncoder, batch: Batch) -> dict[str, np.ndarray]:
    """Score pictures by each output of the image tower: (B,) for class tokens, (B, N) for patches."""
    prompts = [
        template.format(state.format("object"))
        for template in HELD_OUT_TEMPLATES
        for states in STATES
        for state in states
    ]
    normal, damaged = F.normalize(encode_text(model, prompts).unflatten(0, (-1, 2)).mean(0), dim=-1)
    scores: dict[str, list[Tensor]] = {}
    for start in range(0, len(batch.images), 32):
        pixels = normalise(batch.images[start : start + 32], model)
        with torch.autocast(model.device.type, torch.bfloat16):
            outputs = image_outputs(model, pixels)
        named = {"class_token": outputs.class_token, "raw_class_token": outputs.raw_class_token, **outputs.patches}
        for name, tokens in named.items():
            scores.setdefault(name, []).append(F.normalize(tokens.float(), dim=-1) @ (damaged - normal))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in scores.items()}


def validate(model: CLIPModel, encode_text: TextEncoder, pictures: Batch, pairs: Batch) -> dict[str, float]:
    """Return AUROC of pictures and patches by each output, and the fraction of pairs that are ranked rightly."""
    coverage = pictures.coverage(grid_of(model)).cpu().numpy()
    label = pictures.masks.any(2).any(1).cpu().numpy()
    valid = np.array([caption.kind != LOST for caption in pictures.captions])
    result = {}
    for name, scores in output_scores(model, encode_text, pictures).items():
        scores = scores[valid]
        if scores.ndim == 1:
            result[f"image/{name}"] = auroc(label[valid], scores)
        else:
            result[f"image/{name}_max"] = auroc(label[valid], scores.max(1))
            result[f"patch/{name}"] = auroc(coverage[valid].ravel() > 0.1, scores.ravel())
    kinds = [caption.kind for caption in pairs.captions]
    counted = np.array([kind not in ("", LOST) for kind in kinds[1::2]]) & np.array([kind == "" for kind in kinds[::2]])
    for name, scores in output_scores(model, encode_text, pairs).items():
        top = scores if scores.ndim == 1 else scores.max(1)
        result[f"pairs/{name}"] = float((top[1::2] > top[::2])[counted].mean())
    return result
