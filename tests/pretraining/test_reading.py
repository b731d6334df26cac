"""The text tower learns untaught words from a sentence encoder, and forgets none that it knew."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

DAMAGE, CALM = ("marred", "ruined", "wrecked", "mangled", "spoilt", "maimed"), ("table", "river", "music", "seven")


@pytest.fixture
def reading() -> Any:
    pytest.importorskip("cv2")
    import reading

    return reading


class Encoder:
    """Stands in for the sentence encoder: it knows which words are bad, and each word has a direction of its own."""

    def __init__(self, reading: Any) -> None:
        self.bad = {w for s in reading.damage_states() for w in s.replace("{}", "").split()} | set(DAMAGE)
        self.bad -= {w for s in reading.NORMAL_STATES for w in s.split()} | {"in", "a", "on", "it", "an", "one"}

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
    monkeypatch.setattr(reading, "WORTH", 0.5)
    monkeypatch.setattr(reading, "UNLIKE", 0.5)
    monkeypatch.setattr(reading, "KEPT_BACK", 1 / 12)
    words = [*DAMAGE, *CALM, "damaged", "flawless"]
    found = reading.read(Encoder(reading), words, np.random.default_rng(0))
    read = {d.word for d in found.damage} | {w for s in found.kept_back for w in DAMAGE if w in s.split()}
    assert read == set(DAMAGE)
    assert found.kept_back
    assert not {d.state for d in found.damage} & set(found.kept_back)
    for plain in found.plain.values():
        assert set(plain) == set(CALM)  # and no word that was taught
    for word in found.damage:
        assert set(word.states) <= set(reading.damage_states())
        assert word.likely.sum() == pytest.approx(1)


def test_denials_are_the_other_way_round(reading: Any) -> None:
    damage = {"bruised", "crack"}
    assert reading.denied("unbruised", damage) is True
    assert reading.denied("crackless", damage) is True
    assert reading.denied("unhealthy", damage) is False
    assert reading.denied("bruised", damage) is None
    assert reading.denied("table", damage) is None
    for form, denials in reading.DENIALS.items():
        for denial in denials:
            assert denial.format(word="crack").format("cable").count("cable") == 1, form


def test_what_shows_a_thing_is_rehearsed_in_no_template_that_validation_asks_with(reading: Any) -> None:
    assert all(t.count("{}") == 1 and "show" in t for t in reading.SHOWING)
    assert not set(reading.SHOWING) & {*reading.HELD_OUT_TEMPLATES, *reading.TEMPLATES}


def test_features_are_moved_along_the_axis_alone(reading: Any) -> None:
    text = torch.nn.functional.normalize(torch.randn(5, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    along = torch.tensor([0.5, -0.5, 0.0, 0.5, -0.5])
    moved = reading.on_axis(text, along)
    torch.testing.assert_close(moved @ reading.STATE_AXIS, along, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(reading.on_axis(text, text @ reading.STATE_AXIS), text, atol=1e-5, rtol=0)


def test_kept_words_are_taught_nowhere_by_hand(reading: Any) -> None:
    taught = {*reading.NORMAL_STATES, *reading.damage_states()}
    for kept in (reading.DEVELOPMENT, reading.LAST):
        for states in kept.values():
            assert not taught & set(states)


def test_the_text_tower_learns_the_words_and_keeps_the_old_ones(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from model import text_features
    from tokenizers import Tokenizer
    from transformers import CLIPModel

    weights = Path(__file__).resolve().parents[2] / "src/blemish/weights/builtin"
    model = CLIPModel.from_pretrained(weights).float().eval()
    before = deepcopy(model)
    tok = Tokenizer.from_file(str(weights / "tokenizer.json"))
    invented = [a + b for a in ("zorp", "quim", "blath", "trind", "fimm") for b in ("al", "ic", "y", "o", "ine")]
    new = [w for w in invented if reading.right(before, tok, [f"{w} {{}}"]) == 0][:5]
    assert len(new) == 5
    for name, count in {"KNOWN": 24, "DAMAGE": 16, "PLAIN": 12, "DENIED": 4}.items():
        monkeypatch.setattr(reading, name, count)
    said = [f"{w} {{}}" for w in new]
    damage = [reading.Damage(w, reading.ADJECTIVE, ["damaged {}"], np.ones(1)) for w in new]
    plain = {form: ["table", "river"] for form in reading.FORMS}
    lexicon = reading.Lexicon(damage, [], plain)
    torch.manual_seed(0)
    reading.study(model, tok, lexicon, 60, 5e-4, np.random.default_rng(0))
    assert reading.right(model, tok, [*said, "damaged {}"]) == 1
    assert reading.right(model, tok, ["table {}", "flawless {}"]) == 0
    found = reading.places(model, tok, {"damaged": said, "neutral": ["table {}"]})
    assert [p.side for p in found] == ["damaged"] * len(said) + ["neutral"]
    assert min(p.along for p in found[:-1]) > 0 > found[-1].along
    known = reading.tokenise(
        tok, ["a photo of a scratched cable.", "flawless carpet"], tok.token_to_id("<|endoftext|>")
    )
    with torch.no_grad():
        assert (text_features(model, *known) * text_features(before, *known)).sum(-1).min() > 0.95
    for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True):
        if "vision" in name or "visual" in name:
            assert torch.equal(p, q), name
