"""The search for what is learnt beside frozen blocks: pictures, cache, heads and left-out sets."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Computation, Request, Tap, load_backbone
from blemish.methods.ops import normalise
from pretraining.search import __main__ as search
from pretraining.search import baseline, retrain
from pretraining.search import cache as caches
from pretraining.search.cache import MASK_SIZE, MISSING, Cache, fill, make_cache, open_cache
from pretraining.search.designs import make_designs
from pretraining.search.heads import BlockHead, CentredHead, ConvHead, LinearHead, LowRankHead, MlpHead, TaughtHead
from pretraining.search.painting import SIZE, middle, paint
from pretraining.search.pictures import Numbers, list_pictures, open_picture
from pretraining.search.trial import Budget, Design, Step, embed, measure, predict, train, weights
from pretraining.search.words import UNSEEN, Words, encode_names

SIDE, WIDTH, JOINT = 8, 16, 8
#: What damaged tokens have; without a mean, which a layer norm takes away.
DIRECTION = normalise(torch.tensor([1.0, -1.0] * (WIDTH // 2)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets like MVTec AD: one with masks, one without, one without damage."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(1)
    for name, kinds in {"weld_seam": ("good", "leak"), "lemon": ("good", "bad"), "grocery_good": ("good",)}.items():
        for kind in kinds:
            (folder / name / "test" / kind).mkdir(parents=True)
            for number in range(3):
                image = rng.integers(0, 256, (40, 60, 3), np.uint8)
                Image.fromarray(image).save(folder / name / "test" / kind / f"{number}.png")
    (folder / "weld_seam" / "ground_truth" / "leak").mkdir(parents=True)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 255
    for number in range(3):
        Image.fromarray(mask).save(folder / "weld_seam" / "ground_truth" / "leak" / f"{number}_mask.png")
    return folder


@pytest.fixture
def images() -> tuple[np.ndarray, list[np.ndarray]]:
    """A smooth picture, and others that defects are made from."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    image = np.stack([rows / 2, columns / 2, (rows + columns) / 4], -1).astype(np.uint8) + 30
    return image, [np.random.default_rng(n).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for n in range(2)]


def test_normal_pictures_have_no_defect_and_damaged_ones_do(images) -> None:
    image, others = images
    for number in range(6):
        rngs = [np.random.default_rng([number, 5]) for _ in range(2)]
        first, second = (paint(rng, image, middle(SIZE), others, damaged=True) for rng in rngs)
        np.testing.assert_array_equal(first[0], second[0])
        assert 0 < first[1].mean() < 0.6
        normal, mask = paint(np.random.default_rng([number, 5]), image, middle(SIZE), others, damaged=False)
        assert not mask.any()
        assert normal.shape == image.shape


def test_pictures_are_those_of_the_sets_and_stay_the_same(sets: Path) -> None:
    numbers = Numbers(real=2, painted=2, drawn=1)
    pictures = list_pictures(sets, numbers)
    assert pictures == list_pictures(sets, numbers)
    assert [p.origin for p in pictures if p.source == "real" and p.label] == ["lemon"] * 2 + ["weld_seam"] * 2
    by_mask = {p.origin: open_picture(p, sets)[1] for p in pictures if p.source == "real" and p.label}
    assert by_mask["lemon"] is None
    assert by_mask["weld_seam"].shape == (40, 60)
    assert by_mask["weld_seam"].sum() == 200


def test_cache_is_continued_without_opening_what_is_done(
    sets: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = list_pictures(sets, Numbers(real=2, painted=0, drawn=0))
    backbone = load_backbone(str(small_model))
    cache = make_cache(tmp_path, pictures, (6, 8), 17, backbone.width)
    with pytest.raises(SystemExit, match="lacks 10 pictures"):
        open_cache(tmp_path)
    fill(cache, backbone, pictures, sets, size=56)
    opened = []
    monkeypatch.setattr(caches, "open_picture", lambda p, folder: opened.append(p) or open_picture(p, folder))
    cache.labels[3] = MISSING
    cache.layers[6][3] = 0
    fill(make_cache(tmp_path, pictures, (6, 8), 17, backbone.width), backbone, pictures, sets, size=56)
    assert opened == [pictures[3]]
    done = open_cache(tmp_path)
    image = Image.fromarray(open_picture(pictures[3], sets)[0])
    pixels = backbone.preprocess([image], 56)
    taps = backbone.encode_image(pixels, Request(frozenset([Tap(6)])), Computation(56)).taps
    torch.testing.assert_close(done.tokens(6, [3]), taps[Tap(6)], atol=2e-3, rtol=2e-3)
    assert done.labels.tolist() == [p.label for p in pictures]
    assert done.has_mask.tolist() == [not (p.origin == "lemon" and p.label) for p in pictures]
    with pytest.raises(SystemExit, match="other pictures or layers"):
        make_cache(tmp_path, pictures[1:], (6, 8), 17, backbone.width)


@pytest.mark.parametrize("make", [LinearHead, CentredHead, ConvHead])
def test_heads_of_several_layers_embed_patches_and_pictures(make: type) -> None:
    tokens = {layer: torch.randn(2, 17, 64) for layer in (6, 8)}
    out = make((6, 8), 64, 32)(tokens)
    assert {each.shape for each in out.patches} == {(2, 16, 32)}
    assert out.class_token.shape == out.pooled.shape == (2, 32)


def test_centred_tokens_forget_what_all_patches_of_a_picture_share() -> None:
    head, tokens = CentredHead((8,), WIDTH, JOINT), torch.randn(1, 17, WIDTH)
    tokens = torch.nn.functional.layer_norm(tokens, (WIDTH,))
    shared = torch.randn(WIDTH) / 10
    before, after = (head.features({8: x})[0][:, 1:] for x in (tokens, tokens + shared - shared.mean()))
    torch.testing.assert_close(before, after, atol=0.3, rtol=0)
    assert before.mean(1).abs().max() < 1e-5


def test_blocks_start_as_the_tower_and_only_updates_are_learnt(small_model: Path) -> None:
    backbone = load_backbone(str(small_model))
    request = Request(frozenset([Tap(6), Tap(8)]), class_token=False)
    taps = backbone.encode_image(torch.randn(1, 3, 56, 56), request, Computation(56)).taps
    expected = torch.nn.functional.layer_norm(taps[Tap(8)], (64,))
    low, whole = LowRankHead(6, backbone, (7, 8)), BlockHead(6, backbone, (7, 8))
    for head in (low, whole):
        torch.testing.assert_close(head.features({6: taps[Tap(6)]})[0], expected, atol=1e-4, rtol=1e-4)
    learnt = [name for name, parameter in low.blocks.named_parameters() if parameter.requires_grad]
    assert learnt
    assert all(name.endswith((".down", ".up")) for name in learnt)
    assert all(parameter.requires_grad for parameter in whole.parameters())
    other = BlockHead(6, backbone, (7,), random=True).features({6: taps[Tap(6)]})[0]
    near = torch.nn.functional.layer_norm(taps[Tap(6)], (64,))
    torch.testing.assert_close(other, near, atol=0.2, rtol=0.2)  # what it adds begins small
    assert MlpHead(6, 64, 32)({6: taps[Tap(6)]}).patches[0].shape == (1, 16, 32)
    assert len(make_designs(backbone, backbone)) > 12


def test_taught_blocks_start_with_the_answers_of_their_tower() -> None:
    """The shipped tower's stream is on another scale than the untouched one's, from which the tokens come."""
    taught = load_backbone("builtin")
    request = Request(frozenset([Tap(6), Tap(8)]))
    taps = taught.encode_image(torch.randn(1, 3, 56, 56), request, Computation(56)).taps
    head = TaughtHead(6, taught, (7, 8), rank=4)
    out = head({6: taps[Tap(6)] / head.scale})
    assert head.scale == pytest.approx(64)
    torch.testing.assert_close(
        normalise(out.patches[0]), normalise(taught.project(taps[Tap(8)][:, 1:])), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        normalise(out.class_token), normalise(taught.project(taps[Tap(8)][:, 0])), atol=1e-3, rtol=0
    )


def artificial_cache(directions: torch.Tensor) -> Cache:
    """Tokens of noise; those of damaged patches have one direction, and of three sets."""
    rng, count, cell = np.random.default_rng(0), 60, MASK_SIZE // SIDE
    layer = rng.standard_normal((count, 1 + SIDE * SIDE, WIDTH)).astype(np.float16)
    masks, labels = np.zeros((count, MASK_SIZE, MASK_SIZE), np.uint8), np.arange(count, dtype=np.int8) % 2
    for row in np.flatnonzero(labels):
        y, x = rng.integers(0, SIDE - 1, 2)
        masks[row, y * cell : (y + 2) * cell, x * cell : (x + 2) * cell] = 1
        inside = (y + np.arange(2))[:, None] * SIDE + x + np.arange(2)
        layer[row, 1 + inside.ravel()] += directions.numpy().astype(np.float16)
    names = ("weld_seam", "lemon", "grocery_good")
    kinds = ("surface", "plant", "plant")
    pictures = [
        {"origin": names[n % 3], "source": "painted" if n % 7 == 0 else "real", "name": "thing", "kind": kinds[n % 3]}
        for n in range(count)
    ]
    return Cache(pictures, {8: layer}, masks, labels, np.ones(count, bool))


@pytest.fixture
def cache() -> Cache:
    return artificial_cache(5 * DIRECTION)


@pytest.fixture
def words() -> dict[str, Words]:
    generator = torch.Generator().manual_seed(1)
    normal, damaged = (normalise(torch.randn(5, JOINT, generator=generator) + 2 * sign) for sign in (-1, 1))
    return {name: Words(normal, damaged) for name in ("thing", "object")}


def design(**settings) -> Design:
    return Design(lambda: LinearHead((8,), WIDTH, JOINT), lr=1e-2, mix={"real": 0.5, "painted": 0.5}, **settings)


def test_left_out_sets_are_never_drawn_and_kinds_count_alike(cache: Cache) -> None:
    probability = weights(cache, design(), ["weld_seam"])
    assert probability.sum() == pytest.approx(1)
    assert not probability[cache.origins == "weld_seam"].any()
    assert probability[cache.labels == 1].sum() == pytest.approx(0.5)
    everything = weights(cache, design(), [])
    real = cache.sources == "real"
    surface, plant = (everything[real & (cache.kinds == kind)].sum() for kind in ("surface", "plant"))
    assert surface == pytest.approx(plant)
    uneven = weights(cache, design(balanced=False), [])
    assert uneven[real & (cache.kinds == "plant")].sum() > 1.5 * uneven[real & (cache.kinds == "surface")].sum()


def test_windows_keep_tokens_and_masks_together(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretraining.search.trial.WINDOW", 4)
    rows = np.flatnonzero(cache.labels)
    step = Step(cache, rows, (8,), np.random.default_rng(3))
    cell = MASK_SIZE // SIDE
    damaged = step.masks[:, cell // 2 :: cell, cell // 2 :: cell].flatten(1) > 0
    evidence = step.tokens[8][:, 1:] @ DIRECTION
    assert step.tokens[8].shape == (len(rows), 17, WIDTH)
    assert damaged.any(1).float().mean() > 0.6
    assert evidence[damaged].mean() > 4
    assert evidence[~damaged].mean().abs() < 0.5


@pytest.mark.parametrize("settings", [{}, {"pixel_loss": "bce"}, {"image_loss": False}])
def test_a_head_finds_damage_on_a_left_out_set_and_follows_the_words(
    cache: Cache, words: dict[str, Words], settings: dict
) -> None:
    head = train(design(**settings), cache, words, ["weld_seam"], 0, Budget(steps=60, batch=8, warmup=5))
    rows, text = np.flatnonzero(cache.origins == "weld_seam"), words["thing"].mean()
    embeddings = embed(head, cache, rows)
    found = measure(predict(embeddings, text, MASK_SIZE, images=True), cache, rows)
    assert found["image largest 3 %"] > 0.95
    assert found["pixel AUROC"] > 0.9
    assert found["pixel AUPRO"] > 0.8
    swapped = measure(predict(embeddings, text.flip(0), MASK_SIZE, images=False), cache, rows)
    assert swapped["pixel AUROC"] < 0.1


def test_learnt_weights_can_be_averaged_with_the_start(cache: Cache, words: dict[str, Words]) -> None:
    budget = Budget(steps=3, batch=4, warmup=1)
    start, end, half = (
        train(design(keep=keep), cache, words, [], 0, budget).to_patches[0].weight for keep in (1.0, 0.0, 0.5)
    )
    assert not torch.equal(start, end)
    torch.testing.assert_close(half, (start + end) / 2)


def test_methods_learn_from_other_sets_than_they_are_measured_on(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = []

    def train(method, features):
        learnt.append(len(features))
        next(method.parameters()).data.mul_(-1)

    monkeypatch.setattr(retrain, "NUMBERS", Numbers(real=3, painted=2, drawn=0))
    monkeypatch.setattr(retrain, "GROUPS", (("weld_seam",), ("lemon",)))
    monkeypatch.setattr(retrain, "train", train)
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr("sys.argv", ["retrain", "--sets", str(sets), "--out", str(out), "--methods", "coop"])
    for _ in range(2):  # the second run finds everything done
        retrain.main()
    # Without weld seams: 6 lemons and 3 groceries, and 2 painted ones of each. Without lemons the same numbers.
    assert learnt == [9, 13, 9, 13]
    results = search.read_results(out)
    assert [(r["mix"], r["set"]) for r in results] == [
        (mix, name) for name in ("weld_seam", "lemon") for mix in ("ships", *retrain.MIXES)
    ]
    assert ["AUPRO" in result for result in results] == [True] * 3 + [False] * 3
    assert results[0]["AUPRO"] != results[1]["AUPRO"]
    assert results[1]["AUPRO"] == results[2]["AUPRO"], "each mix begins at what ships"
    assert "| `coop` | real | " in capsys.readouterr().out


def test_tables_have_means_over_sets_and_the_spread_of_seeds(tmp_path: Path) -> None:
    lines = [
        {"design": "a", "seed": seed, "set": name, search.RULE: value, "seconds": 4}
        for seed, values in enumerate([(0.5, 0.7), (0.6, 0.8)])
        for name, value in zip(("x", "y"), values, strict=True)
    ]
    (tmp_path / "r").write_text("\n".join(json.dumps(line) for line in lines))
    results = search.read_results(tmp_path / "r")
    assert "| a | 0.650 ± 0.071 | - | - | - | 0.55 | 4 |" in search.table(results)
    assert "| largest 0.6 % | 0.650 |" in search.rules_table(results)


def test_both_commands_add_lines_to_one_file(
    sets: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = list_pictures(sets, Numbers(real=3, painted=2, drawn=0))
    backbone = load_backbone(str(small_model))
    folder, out = tmp_path / "cache", tmp_path / "results.jsonl"
    fill(make_cache(folder, pictures, (8,), 17, backbone.width), backbone, pictures, sets, size=56)
    for module in (search, baseline):
        monkeypatch.setattr(module, "GROUPS", (("weld_seam",), ("lemon",)))
    head = Design(lambda: LinearHead((8,), backbone.width, backbone.embed_dim), mix={"real": 0.5, "painted": 0.5})
    monkeypatch.setattr(search, "encode_names", partial(encode_names, prompts=UNSEEN))  # fewer sentences
    monkeypatch.setattr(search, "make_designs", lambda backbone, taught: {"linear": head})
    places = ["--cache", str(folder), "--out", str(out)]
    command = ["search", "--tower", str(small_model), *places, "--seeds", "1", "--steps", "2"]
    for _ in range(2):  # the second run finds everything done
        monkeypatch.setattr("sys.argv", command)
        search.main()
    monkeypatch.setattr("sys.argv", ["baseline", "--sets", str(sets), *places, "--methods", "clip"])
    baseline.main()
    results = search.read_results(out)
    assert [(r["design"], r["set"]) for r in results] == [
        ("linear", "weld_seam"), ("linear", "lemon"), ("ships: clip", "weld_seam"), ("ships: clip", "lemon"),
    ]  # fmt: skip
    assert ["pixel AUPRO" in result for result in results] == [True, False, True, False]
    assert "image its own" in results[2]
    assert "| linear | " in capsys.readouterr().out
