"""The vision blocks in half precision: the same computation, weights cast once, streams float32."""

from __future__ import annotations

import pytest
import torch

from blemish.clip import Backbone, Computation, Request, Tap, blocks, forward

TAPS = frozenset(
    {Tap(2), Tap(5), Tap(3, "middle"), Tap(5, "middle"), Tap(5, "value", 2), Tap(4, "value", 3, False)}
)  # fmt: skip
REQUESTS = {
    "everything": Request(TAPS, windows=(2,)),
    "class token": Request(),  # of the last block one row
    "values": Request(frozenset({Tap(2, "value", 2)}), class_token=False),  # of the last block no query, no key
}


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "checkpoint"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@torch.no_grad()
def test_is_the_same_computation(backbone: Backbone, pixels, request_: Request, activation) -> None:
    """Made in float32, where nothing is rounded, it agrees to the last digits."""
    vision = backbone.towers.vision_model
    function = blocks.nonlinearity(activation, vision.config)
    exact = [blocks.ModuleBlock(layer, function) for layer in vision.encoder.layers]
    joined = [blocks.halve(layer, function, torch.float32) for layer in vision.encoder.layers]
    tokens, grid = forward.embed_image(vision, pixels, "bilinear")

    def run(chosen):
        taps, token = forward.run_image_blocks(chosen, tokens, request_.taps, class_token=request_.class_token)
        windows = [forward.run_windows(chosen, tokens, grid, side) for side in request_.windows]
        return [*(taps[tap] for tap in sorted(taps)), *windows, *([] if token is None else [token])]

    for found, expected in zip(run(joined), run(exact), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [64, 70, 79])
@torch.no_grad()
def test_patches_are_embedded_alike(backbone: Backbone, size: int) -> None:
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    vision = backbone.towers.vision_model
    exact, grid = forward.embed_image(vision, pixels, "bilinear")
    half, same = forward.embed_image(vision, pixels, "bilinear", torch.float16)
    assert (grid, half.dtype) == (same, torch.float32)
    torch.testing.assert_close(half, exact, atol=0.01, rtol=0)


@pytest.mark.parametrize(("precision", "apart"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
@torch.no_grad()
def test_is_near_and_hands_out_float32(backbone: Backbone, pixels, precision, apart) -> None:
    request = REQUESTS["everything"]
    exact = backbone.encode_image(pixels, request)
    half = backbone.encode_image(pixels, request, precision=precision)
    pairs = [(half.taps[tap], exact.taps[tap]) for tap in TAPS]
    pairs += [(half.class_token, exact.class_token), (half.windows[2], exact.windows[2])]
    for found, expected in pairs:
        assert found.dtype == torch.float32
        error = (found - expected).norm() / expected.norm()
        assert 0 < error < apart


@torch.no_grad()
def test_weights_are_cast_once_for_each_activation_and_precision(backbone: Backbone, pixels, monkeypatch) -> None:
    own = Backbone(backbone.towers, backbone.tokenizer)
    made = []
    halve = blocks.halve
    monkeypatch.setattr(blocks, "halve", lambda *given: made.append(given[2]) or halve(*given))
    gelu = Computation(64, activation="gelu")
    for precision in (torch.float32, torch.bfloat16, torch.bfloat16, torch.float16):
        own.encode_image(pixels, precision=precision)
    own.encode_image(pixels, computation=gelu, precision=torch.bfloat16)
    own.encode_image(pixels, computation=gelu, precision=torch.bfloat16)
    assert made == [torch.bfloat16] * 5 + [torch.float16] * 5 + [torch.bfloat16] * 5


@torch.no_grad()
def test_the_checkpoint_stays_as_it_is(backbone: Backbone, pixels) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    exact = backbone.encode_image(pixels).class_token
    backbone.encode_image(pixels, precision=torch.bfloat16)
    assert torch.equal(backbone.encode_image(pixels).class_token, exact)
    after = backbone.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
