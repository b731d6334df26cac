"""The vision forward against transformers and against the formulas written out as loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from blemish.clip import Backbone, Computation, Request, Tap, from_openai_state_dict
from blemish.clip.model import quick_gelu
from blemish.clip.tokenizer import clip_tokenizer
from blemish.errors import UsageError

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def attention(block, y, against):
    """Softmax attention, head by head; queries and keys of `against` are q and k, or both the values."""
    module = block.self_attn
    query, key, value = module.q_proj(y), module.k_proj(y), module.v_proj(y)
    if against == "values":
        query = key = value
    heads = []
    for part in range(module.num_heads):
        columns = slice(64 * part, 64 * part + 64)
        weights = (query[..., columns] @ key[..., columns].transpose(1, 2) / 8).softmax(-1)
        heads.append(weights @ value[..., columns])
    return module.out_proj(torch.cat(heads, -1))


def naive_streams(backbone, tokens, activation=quick_gelu):
    """x_0..x_L, a_1..a_L, v_1..v_L as in the papers, from tokens before the first layer norm."""
    vision = backbone.towers.vision_model
    x = [vision.pre_layrnorm(tokens)]
    a, v = [None], [None]
    for block in vision.encoder.layers:
        y = block.layer_norm1(x[-1])
        a.append(attention(block, y, "keys"))
        v.append(attention(block, y, "values"))
        middle = x[-1] + a[-1]
        x.append(middle + block.mlp.fc2(activation(block.mlp.fc1(block.layer_norm2(middle)))))
    return x, a, v


def naive_tokens(backbone, pixels, positions=None):
    """Class token first, then patches row by row, plus positions."""
    embeddings = backbone.towers.vision_model.embeddings
    patches = F.conv2d(pixels, embeddings.patch_embedding.weight, stride=backbone.patch).flatten(2).transpose(1, 2)
    first = embeddings.class_embedding.expand(len(pixels), 1, -1)
    positions = embeddings.position_embedding.weight if positions is None else positions
    return torch.cat([first, patches], 1) + positions


def expected(backbone, streams, tap):
    x, a, v = streams
    if tap.path == "residual":
        return x[tap.layer]
    if tap.path == "middle":
        return x[tap.layer] + a[tap.layer + 1] if tap.layer < backbone.layers else x[tap.layer]
    total = x[tap.start - 1] if tap.seeded else torch.zeros_like(x[0])
    for number in range(tap.start, tap.layer + 1):
        total = total + v[number]
    return total


TAPS = [
    *(Tap(layer) for layer in range(1, 6)),
    *(Tap(layer, "middle") for layer in range(1, 6)),
    *(
        Tap(layer, "value", start, seeded)
        for start in (1, 2, 4, 5)
        for layer in range(start, 6)
        for seeded in (True, False)
    ),
]


@pytest.fixture(scope="module")
def streams(backbone, pixels):
    with torch.no_grad():
        return naive_streams(backbone, naive_tokens(backbone, pixels))


@torch.no_grad()
def test_class_token_is_that_of_transformers(backbone, pixels):
    features = backbone.encode_image(pixels)
    theirs = backbone.model.get_image_features(pixels).pooler_output
    assert features.class_token.shape == (3, 128)
    assert features.grid == (4, 4)
    assert dict(features.taps) == {}
    torch.testing.assert_close(backbone.project(features.class_token), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_class_token_at_another_size_is_that_of_transformers(backbone):
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    features = backbone.encode_image(pixels, Request(), Computation(96, position="bicubic"))
    theirs = backbone.model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(backbone.project(features.class_token), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_tap_is_what_the_papers_say(backbone, pixels, streams):
    features = backbone.encode_image(pixels, Request(TAPS))
    assert set(features.taps) == set(TAPS)
    for tap in TAPS:
        torch.testing.assert_close(features.taps[tap], expected(backbone, streams, tap), **CLOSE, msg=str(tap))
    torch.testing.assert_close(features.class_token, streams[0][5][:, 0], **CLOSE)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("tap", TAPS, ids=str)
@torch.no_grad()
def test_a_tap_alone_equals_the_tap_in_company(backbone, pixels, streams, tap, class_token):
    alone = backbone.encode_image(pixels, Request([tap], class_token=class_token))
    torch.testing.assert_close(alone.taps[tap], expected(backbone, streams, tap), **CLOSE)
    assert (alone.class_token is not None) == class_token
    if class_token:
        torch.testing.assert_close(alone.class_token, streams[0][5][:, 0], **CLOSE)


@torch.no_grad()
def test_the_union_of_requests_holds_both(backbone, pixels):
    one = Request([Tap(2), Tap(3, "value", 2)], class_token=False)
    two = Request([Tap(4, "middle")], windows=(2,))
    both = backbone.encode_image(pixels, one | two)
    for request in (one, two):
        features = backbone.encode_image(pixels, request)
        for tap in request.taps:
            torch.testing.assert_close(both.taps[tap], features.taps[tap], **CLOSE)
    torch.testing.assert_close(both.class_token, features.class_token, **CLOSE)
    torch.testing.assert_close(both.windows[2], features.windows[2], **CLOSE)


class Counter:
    """Counts calls of modules through their class, so that the model itself stays as it is."""

    def __init__(self, monkeypatch, backbone):
        self.names = {module: name for name, module in backbone.towers.vision_model.named_modules()}
        self.calls = []
        original = torch.nn.Linear.forward

        def forward(module, x):
            self.calls.append((self.names.get(module), tuple(x.shape)))
            return original(module, x)

        monkeypatch.setattr(torch.nn.Linear, "forward", forward)

    def of(self, part):
        return [name for name, _ in self.calls if name and part in name]


@pytest.mark.parametrize(
    ("tap", "blocks", "attentions", "mlps"),
    [
        (Tap(2), 2, 2, 2),
        (Tap(2, "middle"), 3, 3, 2),
        (Tap(5, "middle"), 5, 5, 5),
        # The first block only adds its V-V attention to the second: no queries, keys or MLP at the end.
        (Tap(2, "value", 2), 2, 1, 1),
        (Tap(1, "value"), 1, 0, 0),
    ],
)
@torch.no_grad()
def test_only_what_is_needed_runs(backbone, pixels, monkeypatch, tap, blocks, attentions, mlps):
    counter = Counter(monkeypatch, backbone)
    backbone.encode_image(pixels, Request([tap], class_token=False))
    assert len(counter.of("v_proj")) == blocks
    assert len(counter.of("q_proj")) == len(counter.of("k_proj")) == attentions
    assert len(counter.of("fc1")) == len(counter.of("fc2")) == mlps


@torch.no_grad()
def test_nothing_asked_runs_no_block(backbone, pixels, monkeypatch):
    counter = Counter(monkeypatch, backbone)
    features = backbone.encode_image(pixels, Request(class_token=False))
    assert counter.calls == []
    assert features.class_token is None


@torch.no_grad()
def test_the_last_block_computes_the_class_token_only_if_that_is_all(backbone, pixels, monkeypatch):
    counter = Counter(monkeypatch, backbone)
    backbone.encode_image(pixels)
    assert [shape for name, shape in counter.calls if name == "encoder.layers.4.mlp.fc1"] == [(3, 1, 128)]
    assert [shape for name, shape in counter.calls if name == "encoder.layers.3.mlp.fc1"] == [(3, 17, 128)]


@torch.no_grad()
def test_value_attention_of_two_groups_is_computed_once(backbone, pixels, monkeypatch):
    counter = Counter(monkeypatch, backbone)
    backbone.encode_image(pixels, Request([Tap(3, "value", 2), Tap(3, "value", 1, False)], class_token=False))
    # Blocks 1 and 2 also need their ordinary attention; block 3 only the V-V one.
    assert len(counter.of("out_proj")) == 3 + 2


def test_a_call_changes_nothing(backbone, pixels):
    before = {name: (value.clone(), value._version) for name, value in backbone.state_dict(keep_vars=True).items()}
    attributes = {name: set(vars(module)) for name, module in backbone.named_modules()}
    given = pixels.clone().requires_grad_()
    kept = given.detach().clone()
    features = backbone.encode_image(given, Request(TAPS, windows=(2,)), Computation(64))
    snapshots = {tap: value.detach().clone() for tap, value in features.taps.items()}
    backbone.encode_image(torch.randn(1, 3, 96, 96))
    backbone.encode_text(backbone.tokenize(["a"]))
    after = backbone.state_dict(keep_vars=True)
    assert all(torch.equal(after[name], value) and after[name]._version == v for name, (value, v) in before.items())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in backbone.parameters())
    assert {name: set(vars(module)) for name, module in backbone.named_modules()} == attributes
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert not any(getattr(module, kind) for module in backbone.modules() for kind in hooks)
    assert torch.equal(given, kept)
    assert all(torch.equal(features.taps[tap], value) for tap, value in snapshots.items())


def test_gradients_reach_the_pixels(backbone, pixels):
    given = pixels[:1].clone().requires_grad_()
    request = Request([Tap(4), Tap(3, "middle"), Tap(5, "value", 2)], windows=(3,))
    features = backbone.encode_image(given, request)
    outputs = [*features.taps.values(), features.class_token, *features.windows.values()]
    for output in outputs:
        (gradient,) = torch.autograd.grad(output.square().sum(), given, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_trainable_weights_get_gradients(state):
    model = from_openai_state_dict(state, activation="gelu").requires_grad_(True)
    backbone = Backbone(model, clip_tokenizer())
    features = backbone.encode_image(torch.randn(2, 3, 96, 96), Request([Tap(5)]))
    backbone.project(features.taps[Tap(5)]).square().mean().backward()
    assert model.vision_model.embeddings.position_embedding.weight.grad.abs().max() > 0
    assert model.vision_model.encoder.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(backbone, pixels):
    request = Request([Tap(5), Tap(4, "value", 2)], windows=(2,))
    together = backbone.encode_image(pixels, request)
    for number in range(3):
        alone = backbone.encode_image(pixels[number : number + 1], request)
        torch.testing.assert_close(alone.class_token[0], together.class_token[number], **CLOSE)
        torch.testing.assert_close(alone.windows[2][0], together.windows[2][number], **CLOSE)
        for tap in request.taps:
            torch.testing.assert_close(alone.taps[tap][0], together.taps[tap][number], **CLOSE)


@torch.no_grad()
def test_bfloat16_autocast_stays_close(backbone, pixels):
    request = Request([Tap(5), Tap(5, "value", 2)], windows=(2,))
    exact = backbone.encode_image(pixels, request)
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone.encode_image(pixels, request)
        projected = backbone.project(rough.class_token)
        text = backbone.encode_text(backbone.tokenize(["a photo of a cat"]))
    for tap in request.taps:
        assert F.cosine_similarity(rough.taps[tap].float(), exact.taps[tap], dim=-1).min() > 0.995
    assert F.cosine_similarity(rough.windows[2].float(), exact.windows[2], dim=-1).min() > 0.995
    assert F.cosine_similarity(projected.float(), backbone.project(exact.class_token), dim=-1).min() > 0.995
    plain = backbone.encode_text(backbone.tokenize(["a photo of a cat"]))
    assert F.cosine_similarity(text.float(), plain, dim=-1).min() > 0.995


@pytest.mark.parametrize("position", ["bilinear", "bicubic", "bicubic-antialias"])
@pytest.mark.parametrize("size", [48, 96, 112])
@torch.no_grad()
def test_positions_are_resized_from_the_checkpoints_grid(backbone, position, size):
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
    stored = backbone.towers.vision_model.embeddings.position_embedding.weight
    grid = size // 16
    resized = F.interpolate(
        stored[1:].T.reshape(1, 128, 4, 4),
        (grid, grid),
        mode=position.split("-")[0],
        align_corners=False,
        antialias=position.endswith("antialias"),
    )
    positions = torch.cat([stored[:1], resized[0].flatten(1).T])
    x, _, _ = naive_streams(backbone, naive_tokens(backbone, pixels, positions))
    # Twice, and another size between: nothing is remembered.
    for _ in range(2):
        features = backbone.encode_image(pixels, Request([Tap(1)]), Computation(size, position=position))
        assert features.grid == (grid, grid)
        torch.testing.assert_close(features.taps[Tap(1)], x[1], **CLOSE)
        backbone.encode_image(torch.randn(1, 3, 80, 80), Request([Tap(1)], class_token=False))


@torch.no_grad()
def test_positions_are_not_resized_at_the_checkpoints_size(backbone, pixels, streams):
    for position in ("bilinear", "bicubic", "bicubic-antialias"):
        features = backbone.encode_image(pixels, Request([Tap(1)]), Computation(64, position=position))
        torch.testing.assert_close(features.taps[Tap(1)], streams[0][1], **CLOSE)


@torch.no_grad()
def test_pixels_beyond_the_last_whole_patch_do_not_matter(backbone):
    pixels = torch.randn(1, 3, 75, 75)
    other = pixels.clone()
    other[..., 64:] += 5
    features, same = backbone.encode_image(pixels), backbone.encode_image(other)
    assert features.grid == (4, 4)
    assert torch.equal(features.class_token, same.class_token)


@pytest.mark.parametrize(
    ("name", "function"), [("quick_gelu", quick_gelu), ("gelu", F.gelu), ("checkpoint", quick_gelu)]
)
@torch.no_grad()
def test_the_activation_can_be_replaced(backbone, pixels, name, function):
    features = backbone.encode_image(pixels, Request(windows=(4,)), Computation(64, activation=name))
    x, _, _ = naive_streams(backbone, naive_tokens(backbone, pixels), function)
    torch.testing.assert_close(features.class_token, x[5][:, 0], **CLOSE)
    # A window as large as the grid is the picture.
    torch.testing.assert_close(features.windows[4][:, 0], x[5][:, 0], **CLOSE)


@pytest.mark.parametrize("tokens_at_once", [7, 8192])
@torch.no_grad()
def test_windows_keep_the_class_token_and_their_own_patches(backbone, pixels, monkeypatch, tokens_at_once):
    monkeypatch.setattr("blemish.clip.forward.WINDOW_TOKENS", tokens_at_once)
    features = backbone.encode_image(pixels, Request(windows=(3, 1, 2, 2)))
    tokens = naive_tokens(backbone, pixels)
    assert list(features.windows) == [1, 2, 3]
    for side in (1, 2, 3):
        places = 5 - side
        assert features.windows[side].shape == (3, places * places, 128)
        for top in range(places):
            for left in range(places):
                kept = [0] + [1 + 4 * (top + i) + left + j for i in range(side) for j in range(side)]
                x, _, _ = naive_streams(backbone, tokens[:, kept])
                found = features.windows[side][:, top * places + left]
                torch.testing.assert_close(found, x[5][:, 0], **CLOSE)


@pytest.mark.parametrize("tokens_at_once", [1, 17, 40])
@torch.no_grad()
def test_a_batch_run_in_parts_is_the_batch(backbone, pixels, streams, monkeypatch, tokens_at_once):
    monkeypatch.setattr("blemish.clip.forward.IMAGE_TOKENS", tokens_at_once)
    lengths = []
    first = backbone.towers.vision_model.encoder.layers[0].mlp.fc1
    with first.register_forward_pre_hook(lambda _, given: lengths.append(len(given[0]))):
        features = backbone.encode_image(pixels, Request(TAPS))
        nothing = backbone.encode_image(pixels, Request(class_token=False))
    for tap in TAPS:
        torch.testing.assert_close(features.taps[tap], expected(backbone, streams, tap), **CLOSE, msg=str(tap))
    torch.testing.assert_close(features.class_token, streams[0][5][:, 0], **CLOSE)
    assert nothing.class_token is None
    assert lengths == ([3] if tokens_at_once == 40 else [1, 1, 1])


@torch.no_grad()
def test_windows_share_what_the_first_block_makes_of_a_token_alone(backbone, pixels, monkeypatch):
    monkeypatch.setattr("blemish.clip.forward.WINDOW_TOKENS", 20)
    shapes = []
    attention = backbone.towers.vision_model.encoder.layers[0].self_attn
    with attention.k_proj.register_forward_hook(lambda _, given, __: shapes.append(tuple(given[0].shape))):
        backbone.encode_image(pixels, Request(windows=(2,), class_token=False))
    assert shapes == [(3, 17, 128)]  # not the 45 tokens of the windows of each picture


@pytest.mark.parametrize(
    ("shape", "request_", "computation"),
    [
        ((1, 3, 64, 64), Request([Tap(6)]), None),
        ((1, 3, 64, 64), Request(windows=(5,)), None),
        ((1, 3, 64, 64), None, Computation(80)),
        ((1, 3, 64, 80), None, None),
        ((1, 3, 8, 8), None, None),
        ((1, 1, 64, 64), None, None),
        ((3, 64, 64), None, None),
        ((1, 3, 64, 64), None, Computation(64, activation="relu")),
        ((1, 3, 96, 96), None, Computation(96, position="nearest")),
    ],
)
def test_what_does_not_fit_is_a_usage_error(backbone, shape, request_, computation):
    with pytest.raises(UsageError):
        backbone.encode_image(torch.zeros(shape), request_, computation)
