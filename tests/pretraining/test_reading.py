"""The text tower learns untaught words from a sentence encoder, and forgets none that it knew."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "pretraining"
DAMAGE, CALM = ("marred", "ruined", "gouged", "shattered", "spoilt", "rotten"), ("table", "river", "music", "seven")


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("cv2")
    monkeypatch.syspath_prepend(str(FOLDER))
    import reading

    return reading


class Encoder:
    """Stands in for the sentence encoder: it knows which words are bad, and each word has a direction of its own."""

    def __init__(self, reading: Any) -> None:
        self.bad = {w for s in reading.damage_states() for w in s.replace("{}", "").split()} | set(DAMAGE)
        self.bad -= {"with", "a", "on", "it", "an"}

    def __call__(self, sentences: list[str]) -> Tensor:
        rows = []
        for sentence in sentences:
            row = torch.zeros(384)
            for word in sentence.split():
                row += torch.randn(384, generator=torch.Generator().manual_seed(sum(word.encode()))) / 40
                row[0] += word in self.bad
            rows.append(row)
        return torch.stack(rows)

    def states(self, states: list[str], noun: str) -> Tensor:
        return self([s.format(noun) for s in states]) - self([noun])


def test_words_of_damage_are_found_and_likened_to_taught_ones(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_BACK", 1 / 6)
    monkeypatch.setattr(reading, "UNLIKE", 0.5)
    words = [*DAMAGE, *CALM, "damaged", "flawless"]
    found = reading.read(Encoder(reading), words, np.random.default_rng(0))
    assert {s for s, _, _ in found.damage} | set(found.kept_back) == {f"{w} {{}}" for w in DAMAGE}
    assert len(found.kept_back) == 1
    assert set(found.plain) == set(CALM)  # and no word that was taught
    for _, states, likely in found.damage:
        assert set(states) <= set(reading.damage_states())
        assert likely.sum() == pytest.approx(1)


def test_the_text_tower_learns_the_words_and_keeps_the_old_ones(reading: Any) -> None:
    from model import text_features
    from transformers import CLIPModel

    weights = Path(__file__).resolve().parents[2] / "src/blemish/weights/embedded"
    model = CLIPModel.from_pretrained(weights).float().eval()
    before = deepcopy(model)
    new = ("zorped", "quimmed", "blathed", "trindled", "fimmocked")
    said = [f"{w} {{}}" for w in new]
    lexicon = reading.Lexicon([(s, ["damaged {}"], np.ones(1)) for s in said], [], ["table", "river"])
    torch.manual_seed(0)
    reading.study(model, lexicon, 60, 5e-4, np.random.default_rng(0))
    assert reading.right(before, said) < 1
    assert reading.right(model, [*said, "damaged {}"]) == 1
    assert reading.right(model, ["table {}", "flawless {}"]) == 0
    tok = reading.build_tokenizer()
    known = reading.tokenise(
        tok, ["a photo of a scratched cable.", "flawless carpet"], tok.token_to_id("<|endoftext|>")
    )
    with torch.no_grad():
        assert (text_features(model, *known) * text_features(before, *known)).sum(-1).min() > 0.95
    for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True):
        if "vision" in name or "visual" in name:
            assert torch.equal(p, q), name
