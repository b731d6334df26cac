"""The built-in model's tokenizer: the front of CLIP's byte-pair merges, and what our own words need of the rest.

CLIP's merges (OpenAI, MIT) are ordered by frequency, so their front is a small vocabulary of common English; words that
the prompts use often are kept whole by adding the merges on their way.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from blemish.clip.tokenizer import END, START, build_clip_tokenizer, clip_vocabulary


def needed_merges(words: Iterable[str], ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The merges that byte-pair encoding applies to `words`."""
    used: set[tuple[str, str]] = set()
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = [(ranks.get((a, b), 1 << 30), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
            rank, i = min(pairs)
            if rank == 1 << 30:
                break
            used.add((parts[i], parts[i + 1]))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return used


def make_tokenizer(merges: Sequence[tuple[str, str]], words: Iterable[str], size: int = 4096) -> Tokenizer:
    """A tokenizer with `size` tokens: 512 byte tokens, the chosen merges in CLIP's order, start and end of text."""
    ranks = {m: i for i, m in enumerate(merges)}
    chosen = needed_merges(words, ranks)
    for merge in merges:
        if len(chosen) >= size - 514:
            break
        chosen.add(merge)
    ordered = sorted(chosen, key=ranks.__getitem__)
    return build_clip_tokenizer(clip_vocabulary(ordered), ordered)


def whole_words(tok: Tokenizer) -> tuple[str, ...]:
    """Words that are one token: a stock of nouns and other words to put into prompts."""
    return tuple(sorted(t[:-4] for t in tok.get_vocab() if t.endswith("</w>") and t[:-4].isascii() and t[:-4].isalpha()
                        and len(t) > 7))  # fmt: skip


def remap_tokens(folder: Path, tok: Tokenizer) -> list[int]:
    """For each id of `tok` the id of the same token in the tokenizer that is kept in `folder`, or -1."""
    old = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    vocabulary = tok.get_vocab()
    return [old.get(token, -1) for token in sorted(vocabulary, key=vocabulary.__getitem__)]


def save(tok: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and the config that transformers wants beside it."""
    tok.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "pad_token": END}
    config |= {"unk_token": END, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
