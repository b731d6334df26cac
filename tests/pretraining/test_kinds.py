"""Words for kinds of defect follow what these look like; everything else that the text tower says stays."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import CLIPModel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kinds() -> Any:
    pytest.importorskip("cv2")
    import kinds

    return kinds


@pytest.fixture(scope="module")
def embedded() -> tuple[CLIPModel, Tokenizer]:
    folder = ROOT / "src/blemish/weights/builtin"
    return CLIPModel.from_pretrained(folder).float().eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_words_follow_what_kinds_look_like(
    kinds: Any, embedded: tuple[CLIPModel, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scratches are made to look as cracks did, and the other way round."""
    model, tok = deepcopy(embedded[0]), embedded[1]
    some = ("scratch", "crack", "stain")
    numbers = [tuple(kinds.KINDS).index(kind) for kind in some]
    with torch.no_grad():
        said = [kinds.as_state(kinds.words_for(kind)[0]).format("object") for kind in some]
        looks = kinds.text_features(model, *kinds.tokenise(tok, said, tok.token_to_id("<|endoftext|>")))
    seen = kinds.Seen(looks.repeat(8, 1), torch.tensor(numbers).repeat(8))
    turned = kinds.Seen(looks[[1, 0, 2]].repeat(8, 1), seen.kinds)
    assert kinds.right(model, tok, seen, some) == 1
    assert kinds.right(model, tok, turned, some) < 0.5
    monkeypatch.setattr(kinds, "REHEARSED", 32)
    monkeypatch.setattr(kinds, "WEIGHT", 2.0)
    kinds.study(model, tok, turned, ("thimble", "harmonica"), 60, 5e-4)
    assert kinds.right(model, tok, turned, some) > 0.6
    others = ["a photo of a flawless cable.", "damaged carpet", "a picture of the object with an anomaly"]
    ids = kinds.tokenise(tok, others, tok.token_to_id("<|endoftext|>"))
    with torch.no_grad():
        now, before = kinds.text_features(model, *ids), kinds.text_features(embedded[0], *ids)
    assert (now * before).sum(-1).min() > 0.9
    for (name, p), q in zip(model.named_parameters(), embedded[0].parameters(), strict=True):
        if "vision" in name or "visual" in name:
            assert torch.equal(p, q), name


def test_what_is_seen_are_the_defective_patches(kinds: Any, embedded: tuple[CLIPModel, Tokenizer]) -> None:
    seen = kinds.look(embedded[0], 6, [])
    assert seen.tokens.shape == (len(seen.kinds), 256)
    assert 3 <= len(seen.kinds) <= 6
    torch.testing.assert_close(seen.tokens.norm(dim=-1), torch.ones(len(seen.kinds)))
    made = [kinds.make_product(kinds.STREAM, index, [])[1] for index in range(6)]
    names = [words[2] for _, _, words in made if words[2] not in ("", "lost")]
    assert [tuple(kinds.KINDS)[k] for k in seen.kinds] == names
    image, mask, _ = made[0]
    with torch.no_grad():
        patches = kinds.image_views(embedded[0], kinds.normalise(torch.from_numpy(image)[None], embedded[0])).patches
    whole = torch.from_numpy(mask).view(24, 16, 24, 16).float().mean((1, 3)).flatten() > 0.1
    assert 0 < whole.sum() < 288
    nearness = patches["last"][0].float() @ seen.tokens[0]
    assert nearness[whole].mean() > nearness[~whole].mean() + 0.1


def test_sentences_that_stay_are_not_about_a_kind(kinds: Any) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    said = [kinds.rehearsed(rng, ("thimble", "harmonica")) for _ in range(300)]
    assert any("thimble" in s or "harmonica" in s for s in said)
    assert any("flawless" in s for s in said)
    assert any("without" in s or "free of" in s for s in said)
    assert not any(" with a scratch" in s for s in said)
