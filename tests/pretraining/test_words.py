"""What is taught by hand, and what is kept from it; tokens of one tokenizer in another."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def unseen_names() -> set[str]:
    """Those of `benchmarks/words.py`."""
    tree = ast.parse((ROOT / "benchmarks/words.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "UNSEEN_NAMES"]
    return set(ast.literal_eval(values[0]))


def test_what_the_benchmark_asks_is_not_taught() -> None:
    import words
    from kept_words import BENCHMARK, kept_words

    taught = " ".join([*words.NORMAL_STATES, *words.ABNORMAL_STATES, *words.GENERIC, *words.TEMPLATES]).split()
    asked = {w for states in BENCHMARK.values() for s in states for w in s.split()} - {"{}", "in", "condition"}
    assert asked <= kept_words()
    assert not asked & set(taught)
    assert not unseen_names() & {*taught, *words.NAMES}
    assert not set(words.TEMPLATES) & set(words.HELD_OUT_TEMPLATES)


def test_states_are_said_once_and_on_one_side() -> None:
    from words import ABNORMAL_STATES, NORMAL_STATES

    both = [*NORMAL_STATES, *ABNORMAL_STATES]
    assert len(set(both)) == len(both) > 300
    assert all(s.count("{}") == 1 for s in both)


def test_nouns_are_no_words_for_states() -> None:
    from words import STATE_WORDS, random_noun

    rng = np.random.default_rng(0)
    nouns = [random_noun(rng, ("cable",), ("broken", "river")) for _ in range(300)]
    assert not STATE_WORDS & {w for noun in nouns for w in noun.replace("_", " ").split()}


def test_tokens_are_found_in_another_tokenizer(tmp_path: Path) -> None:
    from tokenizer import make_tokenizer, remap_tokens, save

    from blemish.clip.tokenizer import clip_merges

    old, new = (make_tokenizer(clip_merges(), [word]) for word in ("contamination", "delaminated"))
    save(old, tmp_path)
    same = remap_tokens(tmp_path, new)
    assert len(same) == 4096
    assert any(i < 0 for i in same)
    assert all(old.id_to_token(i) == new.id_to_token(k) for k, i in enumerate(same) if i >= 0)
