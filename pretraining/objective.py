"""What the built-in model is taught: the losses of one step, and validation on pictures of another seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from model import Views, compiled_views, image_views, text_features
from pool import Batch, Made, make_product, make_sample
from teacher import Pupil, Teacher
from tokenizer import make_tokenizer, whole_words
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPModel
from variation import Frames, disagreement
from words import (
    ABNORMAL_STATES,
    GENERIC,
    HELD_OUT_TEMPLATES,
    NAMES,
    NORMAL_STATES,
    TEMPLATES,
    as_state,
    caption,
    random_noun,
    state_pair,
)

from blemish.clip.tokenizer import clip_merges
from blemish.metrics import auroc

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MEAN, STD = (255 * torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
TEMPERATURE = 0.07  # what the methods divide cosines by
#: Prompts of a step about one noun, normal and damaged.
PAIRS = 16
#: Of the pictures of a step, one in so many has its caption read; at least this many.
CAPTIONED, FEWEST_CAPTIONS = 8, 12
#: Kinds of defect that are told apart in a step: one for so many pictures, at least this many.
PER_KIND, FEWEST_KINDS = 16, 8
#: The direction in the joint space from normal to damaged. It is given, and both towers learn to use it: when the image
#: tower had to follow the words while these still moved, neither learnt.
STATE_AXIS = F.normalize(torch.randn(256, generator=torch.Generator().manual_seed(7)), dim=0)
#: How much each patch read-out counts: the last block, AnomalyCLIP's V-V path, CLIP-AD's last group; two early blocks.
PATCH_WEIGHTS = {"last": 1.0, "value": 1.0, "surgery": 0.3}
EARLY_WEIGHTS = (0.2, 0.4)
OTHER_WEIGHTS = {
    "last_top": 1.0,
    "value_top": 1.0,
    "twins": 1.0,
    "cls": 2.0,
    "cls_raw": 1.0,
    "agree": 2.0,
    "cls_agree": 2.0,
    "contrast": 0.4,
    "kind": 1.5,
    "words": 2.0,
    "taught": 3.0,
}
VALIDATION_SEED = 987654321
#: What validation asks with: papers' words, in templates that training does not show.
STATES = (("{}", "damaged {}"), ("flawless {}", "broken {}"), ("{} without defect", "{} with defect"))


def build_tokenizer() -> Tokenizer:
    from defects import KINDS, words_for

    words = " ".join([*NORMAL_STATES, *ABNORMAL_STATES, *TEMPLATES, *HELD_OUT_TEMPLATES, *NAMES, *GENERIC])
    words += " " + " ".join(w for k in KINDS for w in words_for(k))
    return make_tokenizer(clip_merges(), sorted({w for w in words.lower().split() if w.isalpha()}))


def tokenise(tok: Tokenizer, texts: list[str], eos: int) -> tuple[Tensor, Tensor]:
    rows = [e.ids[:77] for e in tok.encode_batch(texts)]
    end = torch.tensor([len(r) - 1 for r in rows])
    ids = torch.full((len(rows), int(end.max()) + 1), eos)
    for i, r in enumerate(rows):
        ids[i, : len(r)] = torch.tensor(r)
    return ids, end


def normalise(images: Tensor, model: CLIPModel) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, size, size) float32 with CLIP's mean and deviation."""
    device, size = model.device, model.config.vision_config.image_size
    pixels = (images.to(device).permute(0, 3, 1, 2).float() - MEAN.to(device)) / STD.to(device)
    return pixels if size == pixels.shape[-1] else F.interpolate(pixels, (size, size), mode="area")


def patches_across(model: CLIPModel) -> int:
    vision = model.config.vision_config
    return int(vision.image_size // vision.patch_size)


def patch_target(coverage: Tensor) -> Tensor:
    """(B, N) part of a patch that is defective -> soft label: a tenth of a patch is enough, so is most of a defect."""
    top = coverage.amax(1, keepdim=True).clamp_min(1e-6)
    return torch.maximum((coverage / 0.1).clamp(max=1), torch.where(coverage > 0.003, coverage / top, 0))


def patch_loss(logits: Tensor, target: Tensor, focus: float = 0.0) -> Tensor:
    """Cross-entropy with more weight on the rare defective patches, and dice on defective pictures. Both (B, P).

    With a focus (focal loss: 2), the less a patch counts the nearer its probability is to the target.
    """
    bce = F.binary_cross_entropy_with_logits(logits, target, pos_weight=logits.new_tensor(3.0), reduction="none")
    p = logits.sigmoid()
    focal = (p - target).detach().abs().pow(focus) * bce
    dice = 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
    bad = (target.amax(1) > 0).float()
    return focal.mean() * 2 * (1 + focus) + (dice * bad).sum() / bad.sum().clamp_min(1)


def twins_loss(logits: Tensor, label: Tensor, sure: Tensor) -> Tensor:
    """(B,) pictures, twins beside each other: the damaged one should have the larger logit."""
    normal, damaged = logits.view(-1, 2).T
    told = (sure & (label == label.new_tensor([0.0, 1.0]).repeat(len(label) // 2))).view(-1, 2).all(1)
    return (F.softplus(normal - damaged) * told).sum() / told.sum().clamp_min(1)


def cosines(tokens: Tensor, direction: Tensor) -> Tensor:
    """(..., E) -> (...): products of normalised tokens with a direction, without writing down the normalised tokens."""
    tokens = tokens.float()
    return (tokens @ direction) / tokens.norm(dim=-1).clamp_min(1e-6)


def choose_patches(coverage: Tensor, side: int, generator: torch.Generator) -> Tensor | None:
    """(B, N) -> (B, side*side) indices of the window of patches that is shown; rather one with a defect."""
    count, grid = len(coverage), round(coverage.shape[1] ** 0.5)
    if side >= grid:
        return None
    line = torch.arange(side)
    window = (line[:, None] * grid + line).flatten()
    corner = torch.randint(grid - side + 1, (2, count, 2), generator=generator)
    first, second = ((window + (c[:, :1] * grid + c[:, 1:])).to(coverage.device) for c in corner)
    better = coverage.gather(1, second).sum(1) > coverage.gather(1, first).sum(1)
    swap = better & (torch.rand(count, generator=generator) < 0.8).to(coverage.device)
    return torch.where(swap[:, None], second, first)


@dataclass(frozen=True)
class School:
    """The teacher of what pictures look like, the pupil, and how many pictures of a batch are taught."""

    teacher: Teacher
    pupil: Pupil
    count: int

    def loss(self, images: Tensor, middle: Tensor, keep: Tensor | None, grid: int) -> Tensor:
        """images (B, S, S, 3) uint8; middle (B, P, D) tokens of the patches `keep` (B, P) of grid x grid."""
        taught = self.teacher(images[: self.count].to(middle.device), grid)
        if keep is not None:
            taught = taught.gather(1, keep[: self.count, :, None].expand(-1, -1, taught.shape[-1]))
        return self.pupil.loss(middle[: self.count], taught)


class Texts:
    """Draws the sentences of one step and encodes them together."""

    def __init__(self, tok: Tokenizer, nouns: tuple[str, ...]) -> None:
        self.tok, self.eos, self.nouns = tok, tok.token_to_id("<|endoftext|>"), nouns
        self.vocabulary = whole_words(tok)

    def draw(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        """2*PAIRS prompts (normal, damaged, ...), half about things in the batch; captions of the first pictures."""
        from defects import words_for

        nouns = [random_noun(rng, self.nouns, self.vocabulary) for _ in range(PAIRS // 2)]
        nouns += [batch.words[i][0] for i in rng.choice(len(batch.words), PAIRS // 2)]
        sentences = [s for noun in nouns for s in state_pair(rng, noun)]
        captions = max(FEWEST_CAPTIONS, len(batch.words) // CAPTIONED)
        for name, material, kind, where in batch.words[:captions]:
            phrases = words_for(kind) if kind and kind != "lost" else ()
            phrase = phrases[rng.integers(len(phrases))] if phrases else None
            sentences.append(caption(rng, name, material, phrase, where))
        return sentences

    def encode(self, model: CLIPModel, sentences: list[str]) -> Tensor:
        ids, end = tokenise(self.tok, sentences, self.eos)
        return text_features(model, ids.to(model.device), end.to(model.device))


def step_losses(
    model: CLIPModel,
    batch: Batch,
    frames: Frames,
    pairs: int,
    texts: Texts,
    rng: np.random.Generator,
    side: int,
    generator: torch.Generator,
    school: School | None = None,
    focus: float = 0.0,
) -> dict[str, Tensor]:
    """The losses of one batch, whose first and last `pairs` pictures are the same in two views; "total" sums them."""
    sentences, device = texts.draw(batch, rng), model.device
    grid = patches_across(model)
    coverage = batch.coverage(grid).to(device)
    keep = choose_patches(coverage, side, generator)
    rows = torch.tensor([i for i, w in enumerate(batch.words) if w[2] != "lost"]).to(device)
    sure = torch.zeros(len(batch.words), dtype=torch.bool, device=device).index_fill_(0, rows, True)
    pixels = normalise(batch.images, model)
    with torch.autocast(device.type, torch.bfloat16):
        text = texts.encode(model, sentences)
        look = compiled_views() if keep is None and device.type == "cuda" else image_views
        views = look(model, pixels, keep)
    target = patch_target(coverage)
    if keep is not None:
        target = target.gather(1, keep)
    direction = STATE_AXIS.to(device) / TEMPERATURE
    label = (target.amax(1) > 0.3).float()
    losses: dict[str, Tensor] = {}
    for name, tokens in views.patches.items():
        logits = cosines(tokens, direction)
        losses[name] = patch_loss(logits[rows], target[rows], focus)
        if name in ("last", "value"):
            top = logits.topk(3, dim=1).values.mean(1)
            losses[f"{name}_top"] = F.binary_cross_entropy_with_logits(top[rows], label[rows])
            losses["twins"] = losses.get("twins", 0) + 0.25 * twins_loss(top, label, sure)
            if pairs and keep is None:
                losses["agree"] = losses.get("agree", 0) + 0.5 * disagreement(logits, frames, pairs)
    for name, token in (("cls", views.cls), ("cls_raw", views.cls_raw)):
        logits = cosines(token, direction)
        losses[name] = F.binary_cross_entropy_with_logits(logits[rows], label[rows])
        losses["twins"] += 0.25 * twins_loss(logits, label, sure)
        if pairs and name == "cls":
            both = sure[:pairs] & sure[-pairs:] & (label[:pairs] == label[-pairs:])
            apart = (logits[:pairs].sigmoid() - logits[-pairs:].sigmoid()).square()
            losses["cls_agree"] = (apart * both).sum() / both.sum().clamp_min(1)
    captions = text[2 * PAIRS :]
    said = batch.words[: len(captions)]
    losses["words"] = words_loss(text, text.new_tensor([0.5 if w[2] not in ("", "lost") else -0.5 for w in said]))
    sim = model.logit_scale.exp().clamp(max=100) * F.normalize(views.cls[: len(said)].float(), dim=-1) @ captions.T
    same = sim.new_tensor([[a[:3] == b[:3] for b in said] for a in said])
    soft = same / same.sum(1, keepdim=True)
    losses["contrast"] = -torch.stack([(soft * z.log_softmax(1)).sum(1).mean() for z in (sim, sim.T)]).mean()
    losses["kind"] = kind_loss(model, batch, texts, rng, views, target)
    if school is not None:
        losses["taught"] = school.loss(batch.images, views.middle, keep, grid)
    early = [k for k in losses if k.startswith("layer")]
    weights = PATCH_WEIGHTS | OTHER_WEIGHTS | dict(zip(early, EARLY_WEIGHTS, strict=True))
    losses["total"] = torch.stack([weights[k] * v for k, v in losses.items()]).sum()
    return losses


def words_loss(text: Tensor, captions: Tensor) -> Tensor:
    """Words for states sit at +-1/2 on the state axis; and a pair about one noun differs in nothing else.

    Args:
        text: (2 * PAIRS + C, E), normal and damaged in turns, then captions.
        captions: (C,) where each caption belongs on the axis.
    """
    axis = STATE_AXIS.to(text.device)
    along = text @ axis
    wanted = torch.cat([text.new_tensor([-0.5, 0.5]).repeat(PAIRS), captions])
    pairs = text[: 2 * PAIRS].unflatten(0, (PAIRS, 2))
    return (along - wanted).square().mean() + 0.05 * (pairs[:, 1] - pairs[:, 0] - axis).square().sum(-1).mean()


def pooled(patches: Tensor, weight: Tensor) -> Tensor:
    """Patches (B, P, E), weighted (B, P) and summed: (B, E), normalised."""
    return F.normalize((patches.float() * weight[..., None]).sum(1), dim=-1)


def kind_loss(
    model: CLIPModel, batch: Batch, texts: Texts, rng: np.random.Generator, views: Views, target: Tensor
) -> Tensor:
    """The defective patches of a picture, pooled, against words for the kinds of defect in the batch."""
    from defects import words_for

    kinds = sorted({w[2] for w in batch.words if w[2] and w[2] != "lost"})
    kinds = sorted(rng.permutation(kinds)[: max(FEWEST_KINDS, len(batch.words) // PER_KIND)].tolist())
    seen = (target.amax(1) > 0.3).tolist()
    rows = [i for i, w in enumerate(batch.words) if w[2] in kinds and seen[i]]
    if len(kinds) < 2 or not rows:
        return target.new_zeros(())
    noun = GENERIC[rng.integers(len(GENERIC))]
    sentences = [as_state(words_for(k)[rng.integers(len(words_for(k)))]).format(noun) for k in kinds]
    with torch.autocast(target.device.type, torch.bfloat16):
        text = texts.encode(model, sentences)
    defects = pooled(views.patches["last"][rows], target[rows])
    which = torch.tensor([kinds.index(batch.words[i][2]) for i in rows], device=target.device)
    return F.cross_entropy(defects @ text.T / TEMPERATURE, which)


@torch.no_grad()
def answers(model: CLIPModel, texts: Texts, batch: Batch) -> dict[str, np.ndarray]:
    """Scores (B,) or (B, P) of pictures by each read-out, asked about an "object"."""
    pairs = [[t.format(s.format("object")) for s in states] for t in HELD_OUT_TEMPLATES for states in STATES]
    e = texts.encode(model, [s for p in pairs for s in p]).view(len(pairs), 2, -1).mean(0)
    direction = F.normalize(e[1], dim=0) - F.normalize(e[0], dim=0)
    scores: dict[str, list[Tensor]] = {}
    for i in range(0, len(batch.images), 32):
        pixels = normalise(batch.images[i : i + 32], model)
        with torch.autocast(model.device.type, torch.bfloat16):
            v = image_views(model, pixels)
        out = {"cls": v.cls, "cls_raw": v.cls_raw, **v.patches}
        for k, t in out.items():
            scores.setdefault(k, []).append(F.normalize(t.float(), dim=-1) @ direction)
    return {k: torch.cat(parts).cpu().numpy() for k, parts in scores.items()}


def validate(model: CLIPModel, texts: Texts, batch: Batch, twins: Batch) -> dict[str, float]:
    """AUROC on synthetic pictures of another seed; and how often the damaged one of two twins has the higher score."""
    coverage = batch.coverage(patches_across(model)).numpy()
    label = batch.masks.any(2).any(1).numpy()
    known = np.array([w[2] != "lost" for w in batch.words])
    result = {}
    for k, s in answers(model, texts, batch).items():
        s = s[known]
        if s.ndim == 1:
            result[f"image/{k}"] = auroc(label[known], s)
        else:
            result[f"image/{k}_max"] = auroc(label[known], s.max(1))
            result[f"patch/{k}"] = auroc(coverage[known].ravel() > 0.1, s.ravel())
    told = np.array([a[2] == "" and b[2] not in ("", "lost") for a, b in zip(*2 * [iter(twins.words)], strict=True)])
    for k, s in answers(model, texts, twins).items():
        top = s if s.ndim == 1 else s.max(1)
        result[f"twins/{k}"] = float((top[1::2] > top[::2])[told].mean())
    return result


def validation_set(photos: list[np.ndarray], count: int = 384) -> Batch:
    return stack([make_sample(VALIDATION_SEED, i, photos) for i in range(count)])


def validation_twins(photos: list[np.ndarray], count: int = 192) -> Batch:
    return stack([made for i in range(count) for made in make_product(VALIDATION_SEED, i, photos)])


def stack(made: list[Made]) -> Batch:
    images, masks = (torch.from_numpy(np.stack([one[i] for one in made])) for i in (0, 1))
    return Batch(images, masks, [w for _, _, w in made])
