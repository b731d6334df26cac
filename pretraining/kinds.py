"""Teach the text tower what kinds of defect look like to the finished image tower, which stays.

    python pretraining/kinds.py FOLDER [--products 4000] [--words LIST] [--photos FOLDER ...]

Rewrites the text tower of the model in FOLDER (as `train.py` exports it). Both towers learnt the kinds together, and
the words followed an image tower that still moved; here they are fitted to the one that ships (locked-image tuning;
Zhai et al., 2022). Seen are defective patches of synthetic pictures, pooled; what the tower says of anything else is
rehearsed, with words of LIST among it. Prints how often the words tell the kind, on every fifth product, which teaches
nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from defects import KINDS, words_for
from model import image_views, text_features
from objective import STATE_AXIS, TEMPERATURE, normalise, patch_target, patches_across, pooled, stack, tokenise
from pool import Made, bundled_photos, load_photos, make_product
from reading import ADJECTIVE, DENIALS, FORMS, WITH, word_list
from tokenizer import whole_words
from tokenizers import Tokenizer
from torch import Tensor
from train import export, text_weights
from transformers import CLIPModel
from words import ABNORMAL_STATES, GENERIC, HELD_OUT_TEMPLATES, NAMES, NORMAL_STATES, TEMPLATES, as_state

STREAM, SEED = 424_242, 12
#: Kinds of a step, and examples of each; sentences that are rehearsed.
OF_A_STEP, EXAMPLES, REHEARSED = 40, 4, 96
#: Every so many-th product tells how well it went.
TOLD = 5
#: How much the kinds count beside what is rehearsed.
WEIGHT = 0.3
#: What is denied in each form: adjectives for kinds, and what a thing may be with.
_PHRASES = tuple(phrase for kind in KINDS for phrase in words_for(kind))
DENIED = {
    ADJECTIVE: tuple(p for p in _PHRASES if not p.startswith("with")),
    WITH: tuple(p.removeprefix("with ") for p in _PHRASES if p.startswith("with")),
}


@dataclass(frozen=True)
class Seen:
    """Defective patches of each picture, pooled and normalised (n, E); their kinds (n,), numbers into `KINDS`."""

    tokens: Tensor
    kinds: Tensor

    def __getitem__(self, rows: Tensor) -> Seen:
        return Seen(self.tokens[rows], self.kinds[rows])


_PHOTOS: list[np.ndarray] = []


def _damaged(index: int) -> Made:
    return make_product(STREAM, index, _PHOTOS)[1]


@torch.inference_mode()
def look(model: CLIPModel, products: int, photos: list[np.ndarray], batch: int = 32) -> Seen:
    """What the image tower makes of the damaged pictures of so many products."""
    numbers = {kind: k for k, kind in enumerate(KINDS)}
    tokens, kinds = [], []
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        made = [m for m in pool.imap(_damaged, range(products), chunksize=8) if m[2][2] in numbers]
    for start in range(0, len(made), batch):
        seen = stack(made[start : start + batch])
        with torch.autocast("cpu", torch.bfloat16):
            patches = image_views(model, normalise(seen.images, model)).patches["last"].float()
        weight = patch_target(seen.coverage(patches_across(model)))
        tokens.append(pooled(patches, weight))
        kinds += [numbers[kind] for _, _, kind, _ in seen.words]
    return Seen(torch.cat(tokens).clone(), torch.tensor(kinds))


def sentence(rng: np.random.Generator, state: str, noun: str) -> str:
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(state.format(noun))


def rehearsed(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    """A sentence whose meaning is to stay: damage in general, nothing wrong, any word in any form, damage denied."""

    def one(stock: tuple[str, ...]) -> str:
        return stock[rng.integers(len(stock))]

    noun, u = one((GENERIC, NAMES, words)[rng.integers(3)]), rng.random()
    if u < 0.5:
        return sentence(rng, one(ABNORMAL_STATES if u < 0.25 else NORMAL_STATES), noun)
    form = tuple(FORMS)[rng.integers(len(FORMS))]
    if u < 0.85:
        return sentence(rng, one(FORMS[form]).format(word=one(words)), noun)
    return sentence(rng, one(DENIALS[form]).format(word=one(DENIED[form])), noun)


def study(
    model: CLIPModel, tok: Tokenizer, seen: Seen, words: tuple[str, ...], steps: int, rate: float, seed: int = SEED
) -> None:
    """Trains the text tower of `model`: words for a kind come nearer to what it looks like, all else stays."""
    rng, eos, kinds = np.random.default_rng(seed), tok.token_to_id("<|endoftext|>"), tuple(KINDS)
    before = deepcopy(model).requires_grad_(False)
    weights = text_weights(model)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
    examples = {int(k): (seen.kinds == k).nonzero()[:, 0].numpy() for k in seen.kinds.unique()}
    for step in range(steps):
        for g in optimizer.param_groups:
            g["lr"] = rate * min(1, (step + 1) / 50) * (steps - step) / steps
        chosen = rng.permutation(list(examples))[:OF_A_STEP].tolist()
        rows = np.concatenate([rng.choice(examples[k], EXAMPLES) for k in chosen])
        said = []
        for k in chosen:
            phrases = words_for(kinds[k])
            phrase, noun = phrases[rng.integers(len(phrases))], GENERIC[rng.integers(len(GENERIC))]
            said.append(sentence(rng, as_state(phrase), noun))
        stay = [rehearsed(rng, words) for _ in range(REHEARSED)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            wanted = text_features(before, *tokenise(tok, stay, eos)).float()
        with torch.autocast("cpu", torch.bfloat16):
            features = text_features(model, *tokenise(tok, said + stay, eos))
        features = features.float()
        of_kinds, others = features[: len(said)], features[len(said) :]
        which = torch.arange(len(said)).repeat_interleave(EXAMPLES)
        told = F.cross_entropy(seen.tokens[rows] @ of_kinds.T / TEMPERATURE, which)
        moved = (others - wanted).square().sum(-1).mean() * 2
        along = (of_kinds @ STATE_AXIS - 0.5).square().mean() * 4
        (WEIGHT * told + moved + along).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} kinds {told:.3f} others moved {moved:.4f} along {along:.4f}", flush=True)


@torch.inference_mode()
def right(model: CLIPModel, tok: Tokenizer, seen: Seen, some: tuple[str, ...] = tuple(KINDS)) -> float:
    """How often the words for its kind are nearest, of the words for `some` kinds; each kind counts alike."""
    numbers, eos = [tuple(KINDS).index(kind) for kind in some], tok.token_to_id("<|endoftext|>")
    texts = []
    for kind in some:
        states = [as_state(phrase).format("object") for phrase in words_for(kind)]
        said = [t.format(state) for t in HELD_OUT_TEMPLATES for state in states]
        texts.append(F.normalize(text_features(model, *tokenise(tok, said, eos)).mean(0), dim=0))
    near = (seen.tokens @ torch.stack(texts).T).argmax(1)
    hits = [(near[seen.kinds == k] == n).float().mean() for n, k in enumerate(numbers) if (seen.kinds == k).any()]
    return float(torch.stack(hits).mean())


#: Asked about by themselves.
THREE = ("scratch", "stain", "crack")


def report(when: str, model: CLIPModel, tok: Tokenizer, seen: Seen) -> None:
    three = seen[torch.isin(seen.kinds, torch.tensor([tuple(KINDS).index(kind) for kind in THREE]))]
    print(
        f"{when}: {right(model, tok, seen):.3f} right of {len(KINDS)} kinds ({len(seen.kinds):,} pictures); "
        f"{right(model, tok, three, THREE):.3f} of {', '.join(THREE)} ({len(three.kinds):,})",
        flush=True,
    )


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder", type=Path)
    a.add_argument("--products", type=int, default=4000)
    a.add_argument("--words", type=Path, help="a list of words that are rehearsed")
    a.add_argument("--steps", type=int, default=400)
    a.add_argument("--lr", type=float, default=3e-4)
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    torch.manual_seed(SEED)
    clock = time.monotonic()
    model = CLIPModel.from_pretrained(o.folder).float().eval()
    tok = Tokenizer.from_file(str(o.folder / "tokenizer.json"))
    words = whole_words(tok)
    if o.words is not None:
        words += tuple(word_list(o.words))
    seen = look(model, o.products, load_photos(o.photos) + bundled_photos())
    print(f"{len(seen.kinds):,} defects seen in {time.monotonic() - clock:.0f} s")
    held = torch.arange(len(seen.kinds)) % TOLD == 0
    report("before", model, tok, seen[held])
    study(model, tok, seen[~held], words, o.steps, o.lr)
    report("after", model, tok, seen[held])
    export(o.folder, model, tok)
    print(f"done in {time.monotonic() - clock:.0f} s: {o.folder}")


if __name__ == "__main__":
    main()
