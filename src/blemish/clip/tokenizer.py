"""Tokenizers: sentences to token numbers."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blemish.errors import UsageError, WeightsError
from blemish.files import parse_json

#: Size of CLIP's own vocabulary, which all of OpenAI's models and nearly all of open_clip's have.
CLIP_VOCABULARY = 49408
START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class TextTokenizer:
    """A `tokenizers.Tokenizer` that adds start and end tokens, and the number of its end token."""

    backend: Any
    eos: int

    def encode(self, texts: Sequence[str], context: int) -> Tensor:
        """Turn sentences into token numbers.

        Args:
            texts: T sentences.
            context: Length of each row.

        Returns:
            (T, context) int64, padded with 0 after the end token.

        Raises:
            UsageError: A sentence has more than `context` tokens; nothing is cut off.
        """
        out = torch.zeros(len(texts), context, dtype=torch.int64)
        for row, (text, encoded) in enumerate(zip(texts, self.backend.encode_batch(list(texts)), strict=True)):
            if len(encoded.ids) > context:
                raise UsageError(
                    f"the sentence {text!r} has {len(encoded.ids)} tokens, but the model reads {context}: shorten it"
                )
            out[row, : len(encoded.ids)] = torch.tensor(encoded.ids, dtype=torch.int64)
        return out


def as_text_tokenizer(tokenizer: Any) -> TextTokenizer:
    """Return a `TextTokenizer` as it is; of a fast tokenizer of transformers, wrap a copy of its backend."""
    if isinstance(tokenizer, TextTokenizer):
        return tokenizer
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return TextTokenizer(backend, int(tokenizer.eos_token_id))


def read_tokenizer(folder: Path, model_eos: int | None = None) -> TextTokenizer | None:
    """Read the tokenizer of a checkpoint folder.

    The end token is the `eos_token` of tokenizer_config.json, else CLIP's, else number `model_eos`.

    Args:
        folder: Folder with tokenizer.json, or with vocab.json and merges.txt (CLIP's kind), or without either.
        model_eos: Number of the end token in the model's configuration.

    Returns:
        The tokenizer, or None if the folder holds none.

    Raises:
        WeightsError: The files cannot be used.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            from tokenizers import Tokenizer

            backend = Tokenizer.from_file(str(path))
            backend.no_padding()
            backend.no_truncation()
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            path = folder / "merges.txt"
            vocab = parse_json((folder / "vocab.json").read_text(encoding="utf-8"))
            backend = build_clip_tokenizer(vocab, _pairs(path.read_text(encoding="utf-8")))
        else:
            return None
    except Exception as error:  # tokenizers raises bare Exception
        raise WeightsError(f"the tokenizer {path.name} cannot be read: {error}", path) from error
    eos = _end_token(folder, backend, model_eos)
    if eos is None or eos not in backend.encode("a").ids:
        raise WeightsError(f"the tokenizer {path.name} does not end sentences with an end-of-text token", path)
    return TextTokenizer(backend, eos)


def _end_token(folder: Path, backend: Any, model_eos: int | None) -> int | None:
    named: Any = None
    config = folder / "tokenizer_config.json"
    if config.is_file():
        try:
            named = parse_json(config.read_text(encoding="utf-8")).get("eos_token")
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"tokenizer_config.json cannot be read: {error}", config) from error
        named = named.get("content") if isinstance(named, dict) else named
    for candidate in (named, END):
        number: int | None = backend.token_to_id(candidate) if isinstance(candidate, str) else None
        if number is not None:
            return number
    return model_eos


def clip_tokenizer() -> TextTokenizer:
    """Return CLIP's own tokenizer, built from the merges that come with blemish.

    bpe_merges.txt.gz holds the 48,894 byte-pair merges of OpenAI's CLIP (MIT licence, (c) 2021 OpenAI). The vocabulary
    follows from them.
    """
    merges = clip_merges()
    backend = build_clip_tokenizer(clip_vocabulary(merges), merges)
    return TextTokenizer(backend, backend.token_to_id(END))


def clip_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return CLIP's vocabulary: 256 bytes, the same at the end of a word, the merged tokens, start and end."""
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def clip_merges() -> list[tuple[str, str]]:
    """Return the 48,894 byte-pair merges of CLIP, in order of rank."""
    packed = resources.files("blemish.clip").joinpath("bpe_merges.txt.gz").read_bytes()
    return _pairs(gzip.decompress(packed).decode("utf-8"))


def _pairs(merges: str) -> list[tuple[str, str]]:
    """Split lines of "left right"; the first line of merges.txt is its version."""
    # Not splitlines(): it would also split at characters that may be part of a token.
    pairs = (line.partition(" ") for line in merges.split("\n") if line and not line.startswith("#version"))
    return [(left, right) for left, _, right in pairs]


def _byte_letters() -> list[str]:
    """Return a printable letter for each byte, in the order of CLIP's vocabulary.

    Bytes that are printable in Latin-1 come first, as themselves; the others follow as letters from 256 on.
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printed] + [chr(256 + number) for number in range(256 - len(printed))]


def build_clip_tokenizer(vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    """Return CLIP's byte-pair encoding as a `tokenizers.Tokenizer`.

    Args:
        vocab: Number of each token.
        merges: Pairs in order of rank.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    backend = Tokenizer(
        models.BPE(vocab, list(merges), unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (END, vocab[END]), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (START, END)])
    return backend
