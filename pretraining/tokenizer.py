"""The embedded model's tokenizer: the front of CLIP's byte-pair merges, and what our own words need of the rest.

CLIP's merges (OpenAI, MIT) are ordered by frequency, so their front is a small vocabulary of common English; words that
the prompts use often are kept whole by adding the merges on their way.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_merges() -> list[tuple[str, str]]:
    """All 48,894 merges of CLIP, most frequent first; they come with `blemish.clip`."""
    lines = (
        gzip.decompress(resources.files("blemish.clip").joinpath("bpe_merges.txt.gz").read_bytes()).decode().split("\n")
    )
    return [(a, b) for a, _, b in (line.partition(" ") for line in lines if line)]


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    extra = [256 + i for i in range(256 - len(keep))]
    return [chr(c) for c in keep + extra]


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
    letters = byte_alphabet()
    tokens = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in ordered), BOS, EOS]
    vocab = {t: i for i, t in enumerate(tokens)}
    tok = Tokenizer(models.BPE(vocab, ordered, unk_token=EOS, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tok.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.post_processor = processors.RobertaProcessing(
        (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets=False, add_prefix_space=False
    )
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([BOS, EOS])
    return tok


def whole_words(tok: Tokenizer) -> tuple[str, ...]:
    """Words that are one token: a stock of nouns and other words to put into prompts."""
    return tuple(sorted(t[:-4] for t in tok.get_vocab() if t.endswith("</w>") and t[:-4].isascii() and t[:-4].isalpha()
                        and len(t) > 7))  # fmt: skip


def save(tok: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and the config that transformers wants beside it."""
    tok.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS}
    config |= {"unk_token": EOS, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
