"""The text forward against transformers and against the formulas written out as loops."""

from __future__ import annotations

import pytest
import torch

from blemish.clip import Backbone, from_openai_state_dict
from blemish.clip.model import quick_gelu
from blemish.clip.tokenizer import clip_tokenizer
from blemish.errors import UsageError

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SENTENCES = ["a photo of a cat", "", "a very long sentence about one damaged metal_nut, with scratches!", "object."]


def naive(backbone, embeddings, end, deep=(), activation=quick_gelu, inserted=None, before_norm=None):
    """All positions, one sentence at a time, with an explicit causal mask."""
    text = backbone.towers.text_model
    out = []
    for row in range(len(embeddings)):
        x = embeddings[row] + text.embeddings.position_embedding.weight[: embeddings.shape[1]]
        last = int(end[row])
        if inserted is not None:
            tokens = inserted if inserted.ndim == 2 else inserted[row]
            x, last = torch.cat([x[:1], tokens, x[1:]]), last + len(tokens) if last else 0
        hidden = torch.full((len(x), len(x)), -torch.inf).triu(1)
        for number, block in enumerate(text.encoder.layers, start=1):
            if 0 <= number - 2 < len(deep):
                prompt = deep[number - 2]
                prompt = prompt if prompt.ndim == 2 else prompt[row]
                x = torch.cat([x[:1], prompt, x[1 + len(prompt) :]])
            y = block.layer_norm1(x)
            q, k, v = (getattr(block.self_attn, f"{name}_proj")(y) for name in "qkv")
            x = x + block.self_attn.out_proj((q @ k.T / 8 + hidden).softmax(-1) @ v)  # one head of 64
            x = x + block.mlp.fc2(activation(block.mlp.fc1(block.layer_norm2(x))))
        x = x if before_norm is None else before_norm(x)
        out.append(text.final_layer_norm(x)[last] @ backbone.towers.text_projection.weight.T)
    return torch.stack(out)


@torch.no_grad()
def test_ids_give_the_text_features_of_transformers(backbone):
    ids = backbone.tokenize(SENTENCES)
    theirs = backbone.model.get_text_features(ids).pooler_output
    torch.testing.assert_close(backbone.encode_text(ids), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_long_lists_come_back_in_order(backbone, monkeypatch):
    ids = backbone.tokenize(SENTENCES * 5)
    whole = backbone.encode_text(ids)
    monkeypatch.setattr("blemish.clip.forward.SENTENCES", 3)
    torch.testing.assert_close(backbone.encode_text(ids), whole, **CLOSE)
    prompts = [torch.randn(20, 3, 64, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    in_parts = backbone.encode_text(ids, deep=prompts)
    torch.testing.assert_close(
        in_parts, naive(backbone, backbone.embed(ids), backbone.end_of_text(ids), prompts), **CLOSE
    )


@torch.no_grad()
def test_embeddings_in_place_of_ids(backbone):
    ids = backbone.tokenize(SENTENCES)
    end = backbone.end_of_text(ids)
    plain = backbone.encode_text(ids)
    embeddings = backbone.embed(ids)
    assert embeddings.shape == (4, 24, 64)
    torch.testing.assert_close(backbone.encode_text(embeddings=embeddings, end=end), plain, **CLOSE)
    torch.testing.assert_close(backbone.encode_text(ids, embeddings=embeddings), plain, **CLOSE)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
# 9 tokens reach beyond the end of the shorter sentences, 23 fill the whole context.
@pytest.mark.parametrize("length", [1, 9, 23])
@torch.no_grad()
def test_deep_prompts_replace_hidden_states(backbone, depth, shared, length):
    ids = backbone.tokenize(SENTENCES)
    end = backbone.end_of_text(ids)
    shape = (length, 64) if shared else (4, length, 64)
    deep = [torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in range(depth)]
    embeddings = backbone.embed(ids)
    wanted = naive(backbone, embeddings, end, deep)
    torch.testing.assert_close(backbone.encode_text(embeddings=embeddings, end=end, deep=deep), wanted, **CLOSE)
    if depth:
        assert (wanted - backbone.encode_text(ids)).abs().max() > 0.01


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("length", [1, 4])
@torch.no_grad()
def test_inserted_tokens_leave_the_positions_to_the_sentence(backbone, depth, shared, length, monkeypatch):
    ids = backbone.tokenize(SENTENCES)
    end = torch.cat([backbone.end_of_text(ids)[:3], torch.tensor([0])])
    shape = (length, 64) if shared else (4, length, 64)
    inserted, *deep = (torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in range(depth + 1))
    options = {"embeddings": backbone.embed(ids), "end": end, "deep": deep, "inserted": inserted}
    wanted = naive(backbone, **options)
    torch.testing.assert_close(backbone.encode_text(**options), wanted, **CLOSE)
    assert (wanted - backbone.encode_text(ids))[:3].abs().max() > 0.01
    monkeypatch.setattr("blemish.clip.forward.SENTENCES", 3)
    torch.testing.assert_close(backbone.encode_text(**options), wanted, **CLOSE)


@torch.no_grad()
def test_inserted_tokens_need_no_room_in_the_context(backbone):
    ids = torch.full((1, backbone.context), 320)
    end, inserted = torch.tensor([backbone.context - 1]), torch.randn(3, 64)
    wanted = naive(backbone, backbone.embed(ids), end, inserted=inserted)
    torch.testing.assert_close(backbone.encode_text(ids, end=end, inserted=inserted), wanted, **CLOSE)


@pytest.mark.parametrize("added", [0, 2])
@pytest.mark.parametrize(("start", "length", "count"), [(1, 1, 1), (5, 3, 4)])
@torch.no_grad()
def test_sentences_that_begin_alike_are_each_as_by_itself(backbone, added, start, length, count):
    generator = torch.Generator().manual_seed(start)
    first, endings = (torch.randn(size, 64, generator=generator).view(3, -1, 64) for size in (3 * start, 12 * length))
    endings = endings.view(3, 4, length, 64)[:, :count]
    options = {"before_norm": torch.nn.LayerNorm(64)}
    deep = [torch.randn(3, added, 64, generator=generator) for _ in range(3)] if added else []
    if added:
        options |= {"inserted": deep[0]}
    found = backbone.encode_endings(first, endings, deep=deep[1:], **options)
    assert found.shape == (3, count, backbone.embed_dim)
    for which in range(count):
        whole, end = torch.cat([first, endings[:, which]], 1), torch.full((3,), start + length - 1)
        wanted = backbone.encode_text(embeddings=whole, end=end, deep=deep[1:], **options)
        torch.testing.assert_close(found[:, which], wanted, **CLOSE)


def test_endings_have_to_fit_into_the_context(backbone):
    first, endings = torch.zeros(1, backbone.context - 1, 64), torch.zeros(1, 2, 2, 64)
    with pytest.raises(UsageError, match=f"sentences of {backbone.context + 1} tokens were given"):
        backbone.encode_endings(first, endings)


@torch.no_grad()
def test_before_the_final_norm(backbone):
    ids = backbone.tokenize(SENTENCES)
    norm = torch.nn.LayerNorm(64, eps=0.1)
    norm.weight.copy_(torch.linspace(0.5, 2, 64))
    wanted = naive(backbone, backbone.embed(ids), backbone.end_of_text(ids), before_norm=norm)
    torch.testing.assert_close(backbone.encode_text(ids, before_norm=norm), wanted, **CLOSE)


@torch.no_grad()
def test_deep_prompts_in_half_precision_are_only_rounded(backbone):
    ids = backbone.tokenize(SENTENCES)
    deep = [torch.randn(4, 4, 64).half()]
    found = backbone.encode_text(ids, deep=deep)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, backbone.encode_text(ids, deep=[deep[0].float()]), atol=0, rtol=0)


def test_gradients_reach_inserted_tokens(backbone):
    inserted = torch.randn(2, 64, requires_grad=True)
    backbone.encode_text(backbone.tokenize(["object."]), inserted=inserted).square().sum().backward()
    assert bool(inserted.grad.any(dim=1).all())


def test_gradients_reach_embeddings_and_deep_prompts(backbone):
    ids = backbone.tokenize(["X X object.", "X X damaged object."])
    embeddings = backbone.embed(ids).requires_grad_()
    deep = [torch.randn(2, 64, requires_grad=True) for _ in range(2)]
    backbone.encode_text(ids, embeddings=embeddings, deep=deep).square().sum().backward()
    assert all(prompt.grad.abs().max() > 0 for prompt in deep)
    assert embeddings.grad[0, :5].abs().max() > 0
    # Nothing after the end token matters.
    assert embeddings.grad[1, int(backbone.end_of_text(ids)[1]) + 1 :].abs().max() == 0


@torch.no_grad()
def test_the_activation_can_be_replaced(backbone):
    ids = backbone.tokenize(SENTENCES)
    wanted = naive(backbone, backbone.embed(ids), backbone.end_of_text(ids), activation=torch.nn.functional.gelu)
    torch.testing.assert_close(backbone.encode_text(ids, activation="gelu"), wanted, **CLOSE)


def test_the_end_is_the_first_end_token(backbone):
    ids = torch.tensor([[49406, 320, 49407, 0, 0], [49406, 49407, 49407, 49407, 49407], [49406, 1, 2, 3, 49407]])
    assert backbone.end_of_text(ids).tolist() == [2, 1, 4]


@torch.no_grad()
def test_no_sentences_give_no_features(backbone):
    assert backbone.encode_text(backbone.tokenize([])).shape == (0, 64)


def test_trainable_weights_get_gradients(state):
    model = from_openai_state_dict(state, activation="gelu").requires_grad_(True)
    backbone = Backbone(model, clip_tokenizer())
    backbone.encode_text(backbone.tokenize(SENTENCES)).square().mean().backward()
    assert model.text_model.embeddings.token_embedding.weight.grad.abs().max() > 0
    assert model.text_projection.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embeddings": torch.zeros(1, 5, 64)},
        {"ids": torch.zeros(1, 5, dtype=torch.int64)},
        {"ids": torch.full((1, 25), 49407)},
        {"ids": torch.full((2, 5), 49407), "embeddings": torch.zeros(1, 5, 64)},
        {"embeddings": torch.zeros(1, 5, 64), "end": torch.tensor([5])},
        {"embeddings": torch.zeros(1, 5, 64), "end": torch.tensor([-1])},
        {"ids": torch.full((1, 5), 49407), "deep": [torch.zeros(5, 64)]},
        {"ids": torch.full((1, 5), 49407), "deep": [torch.zeros(1, 64)] * 4},
        {"ids": torch.full((1, 5), 49407), "activation": "relu"},
    ],
)
def test_what_does_not_fit_is_a_usage_error(backbone, options):
    with pytest.raises(UsageError):
        backbone.encode_text(**options)
