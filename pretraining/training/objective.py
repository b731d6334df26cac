"""The losses of a training step.

The joint space has one given direction, the state axis from normal to damaged. Patches and class tokens are pushed
along it by whether they are defective; the text tower, which stays as it is, has its words for states on the same axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from pretraining.training.augmentation import Frames, consistency_loss
from pretraining.training.batches import Batch
from pretraining.training.model import CLIP_MEAN, CLIP_STD, JOINT_WIDTH, Outputs, TextEncoder, image_outputs
from pretraining.training.prompts import GENERIC_NOUNS, as_state, draw_caption
from synthesis import words_for
from synthesis.samples import LOST, Caption

#: Temperature of cosines, as in the methods' papers.
TEMPERATURE = 0.07
#: Unit vector (E,) from normal to damaged, which the shipped text tower follows.
STATE_AXIS = F.normalize(torch.randn(JOINT_WIDTH, generator=torch.Generator().manual_seed(7)), dim=0)
#: Captions of a step: one for so many pictures, at least so many.
PICTURES_PER_CAPTION, MIN_CAPTIONS = 8, 12
#: Kinds of defect that are contrasted in a step: one for so many pictures, at least so many.
PICTURES_PER_KIND, MIN_KINDS = 16, 8
#: Weights of the losses; the early blocks' from front to back.
WEIGHTS = {
    "last": 1.0,
    "value": 1.0,
    "surgery": 0.3,
    "last_top": 1.0,
    "value_top": 1.0,
    "pairs": 1.0,
    "class_token": 2.0,
    "raw_class_token": 1.0,
    "patch_consistency": 2.0,
    "class_consistency": 2.0,
    "contrast": 0.4,
    "kind": 1.5,
}
EARLY_WEIGHTS = (0.2, 0.4)


def normalise(images: Tensor, model: CLIPModel) -> Tensor:
    """Return images (B, S, S, 3) uint8 as the model's input (B, 3, size, size) float32."""
    size = model.config.vision_config.image_size
    mean, std = (255 * torch.tensor(values, device=model.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (images.to(model.device).permute(0, 3, 1, 2).float() - mean) / std
    return pixels if size == pixels.shape[-1] else F.interpolate(pixels, (size, size), mode="area")


def grid_of(model: CLIPModel) -> int:
    """Return the number of patches along a side."""
    return int(model.config.vision_config.image_size // model.config.vision_config.patch_size)


def patch_target(coverage: Tensor) -> Tensor:
    """Return soft labels (B, N) of patches from their defective fraction (B, N).

    A tenth of a patch is enough for a label of 1, and so is the patch that holds most of a small defect.
    """
    top = coverage.amax(1, keepdim=True).clamp_min(1e-6)
    return torch.maximum((coverage / 0.1).clamp(max=1), torch.where(coverage > 0.003, coverage / top, 0))


def patch_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy, with more weight on the rare defective patches, plus Dice loss of defective pictures.

    Args:
        logits: (B, P).
        target: Soft labels (B, P).
    """
    bce = F.binary_cross_entropy_with_logits(logits, target, pos_weight=logits.new_tensor(3.0))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
    defective = (target.amax(1) > 0).float()
    return 2 * bce + (dice * defective).sum() / defective.sum().clamp_min(1)


def pair_loss(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Return the ranking loss of pairs of one scene: the defective picture should have the larger logit.

    Args:
        logits: (B,), pairs side by side.
        label: (B,), 1 for defective pictures.
        valid: (B,) bool, false where a defect is out of sight.
    """
    normal, damaged = logits.view(-1, 2).T
    expected = label.new_tensor([0.0, 1.0]).repeat(len(label) // 2)
    counted = (valid & (label == expected)).view(-1, 2).all(1)
    return (F.softplus(normal - damaged) * counted).sum() / counted.sum().clamp_min(1)


def cosines(tokens: Tensor, direction: Tensor) -> Tensor:
    """Return the products of normalised tokens (..., E) with a direction (E,)."""
    tokens = tokens.float()
    return (tokens @ direction) / tokens.norm(dim=-1).clamp_min(1e-6)


def draw_crop(coverage: Tensor, side: int, generator: torch.Generator) -> Tensor | None:
    """Draw a square crop of patches for each picture, more often one with a defect.

    Args:
        coverage: Defective fraction of each patch (B, N).
        side: Side of the crop in patches.
        generator: Source of the draws.

    Returns:
        Patch indices (B, side*side), or None if the crop would be the whole picture.
    """
    count, grid = len(coverage), round(coverage.shape[1] ** 0.5)
    if side >= grid:
        return None
    line = torch.arange(side)
    window = (line[:, None] * grid + line).flatten()
    corners = torch.randint(grid - side + 1, (2, count, 2), generator=generator)
    first, second = ((window + (c[:, :1] * grid + c[:, 1:])).to(coverage.device) for c in corners)
    better = coverage.gather(1, second).sum(1) > coverage.gather(1, first).sum(1)
    swap = better & (torch.rand(count, generator=generator) < 0.8).to(coverage.device)
    return torch.where(swap[:, None], second, first)


def step_losses(
    model: CLIPModel,
    encode_text: TextEncoder,
    batch: Batch,
    frames: Frames,
    repeats: int,
    side: int,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the losses of a batch.

    Args:
        model: The model, whose text tower is frozen.
        encode_text: Encodes sentences.
        batch: Augmented pictures, pairs side by side.
        frames: Coordinates of the pictures.
        repeats: The last so many pictures are copies of the first ones, augmented differently.
        side: Side of the crop that the tower sees, in patches.
        rng: Source of the sentences.
        generator: Source of the crops.

    Returns:
        The losses by name, with their weighted sum as "total".
    """
    device, captions = model.device, batch.captions
    coverage = batch.coverage(grid_of(model)).to(device)
    crop = draw_crop(coverage, side, generator)
    valid = torch.tensor([caption.kind != LOST for caption in captions], device=device)
    captioned = captions[: max(MIN_CAPTIONS, len(captions) // PICTURES_PER_CAPTION)]
    sentences = [draw_caption(rng, caption) for caption in captioned]
    with torch.autocast(device.type, torch.bfloat16):
        outputs = image_outputs(model, normalise(batch.images, model), crop)
        text = encode_text(model, sentences)
    target = patch_target(coverage)
    if crop is not None:
        target = target.gather(1, crop)
    label = (target.amax(1) > 0.3).float()
    direction = STATE_AXIS.to(device) / TEMPERATURE
    losses: dict[str, Tensor] = {"pairs": target.new_zeros(())}
    if crop is None and repeats:
        losses["patch_consistency"] = target.new_zeros(())
    for name, tokens in outputs.patches.items():
        logits = cosines(tokens, direction)
        losses[name] = patch_loss(logits[valid], target[valid])
        if name in ("last", "value"):
            top = logits.topk(3, dim=1).values.mean(1)
            losses[f"{name}_top"] = F.binary_cross_entropy_with_logits(top[valid], label[valid])
            losses["pairs"] += 0.25 * pair_loss(top, label, valid)
            if crop is None and repeats:
                losses["patch_consistency"] += 0.5 * consistency_loss(logits, frames, repeats)
    tokens = {"class_token": outputs.class_token, "raw_class_token": outputs.raw_class_token}
    logits = {name: cosines(token, direction) for name, token in tokens.items()}
    for name, values in logits.items():
        losses[name] = F.binary_cross_entropy_with_logits(values[valid], label[valid])
        losses["pairs"] += 0.25 * pair_loss(values, label, valid)
    if repeats:
        first, second = slice(None, repeats), slice(-repeats, None)
        counted = valid[first] & valid[second] & (label[first] == label[second])
        probability = logits["class_token"].sigmoid()
        difference = (probability[first] - probability[second]).square()
        losses["class_consistency"] = (difference * counted).sum() / counted.sum().clamp_min(1)
    losses["contrast"] = contrastive_loss(model, outputs.class_token[: len(captioned)], text, captioned)
    losses["kind"] = kind_loss(model, encode_text, captions, outputs, target, rng)
    early = [name for name in losses if name.startswith("layer")]
    weights = WEIGHTS | dict(zip(early, EARLY_WEIGHTS, strict=True))
    losses["total"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
    return losses


def contrastive_loss(model: CLIPModel, images: Tensor, text: Tensor, captions: Sequence[Caption]) -> Tensor:
    """Return CLIP's loss of class tokens (C, E) and captions (C, E); pictures of one object and kind count as alike."""
    similarity = model.logit_scale.exp().clamp(max=100) * F.normalize(images.float(), dim=-1) @ text.T
    alike = similarity.new_tensor([[first[:3] == second[:3] for second in captions] for first in captions])
    target = alike / alike.sum(1, keepdim=True)
    each = [(target * logits.log_softmax(1)).sum(1).mean() for logits in (similarity, similarity.T)]
    return -torch.stack(each).mean()


def kind_loss(
    model: CLIPModel,
    encode_text: TextEncoder,
    captions: Sequence[Caption],
    outputs: Outputs,
    target: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """Return the cross-entropy of pooled defective patches against words for the kinds of defect in the batch."""
    kinds = sorted({caption.kind for caption in captions} - {"", LOST})
    kinds = sorted(rng.permutation(kinds)[: max(MIN_KINDS, len(captions) // PICTURES_PER_KIND)].tolist())
    visible = (target.amax(1) > 0.3).tolist()
    rows = [row for row, caption in enumerate(captions) if caption.kind in kinds and visible[row]]
    if len(kinds) < 2 or not rows:
        return target.new_zeros(())
    noun = GENERIC_NOUNS[rng.integers(len(GENERIC_NOUNS))]
    phrases = [words_for(kind) for kind in kinds]
    sentences = [as_state(options[rng.integers(len(options))]).format(noun) for options in phrases]
    with torch.autocast(target.device.type, torch.bfloat16):
        text = encode_text(model, sentences)
    pooled = F.normalize((outputs.patches["last"][rows].float() * target[rows][..., None]).sum(1), dim=-1)
    classes = torch.tensor([kinds.index(captions[row].kind) for row in rows], device=target.device)
    return F.cross_entropy(pooled @ text.T / TEMPERATURE, classes)
