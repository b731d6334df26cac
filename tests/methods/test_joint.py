"""The joint method against its formula, written as loops; what one more reference changes; what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Tap, load_backbone
from blemish.errors import UsageError
from blemish.loading import load
from blemish.methods.base import MemoryBank, Prediction
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.joint import MEAN, PATCH, Joint, JointConfig
from blemish.methods.ops import upsample_smoothly

SIZE = 222  # a grid of 3
REFERENCES = 4


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    loaded = load_backbone(str(tiny_backbone))
    assert isinstance(loaded, Backbone)
    return loaded


@pytest.fixture
def joint(backbone: Backbone) -> Joint:
    # `top` is two of nine patches.
    return Joint(
        backbone, JointConfig(size=SIZE, compared=(1, 2), top=0.23, whole=0.2, whole_layer=3, whole_floor=0.001)
    ).eval()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)) for _ in range(REFERENCES + 2)]


@torch.no_grad()
def features_of(method: Joint, pictures: list[Image.Image]) -> ImageFeatures:
    pixels = method.backbone.preprocess(pictures, SIZE)
    return method.backbone.encode_image(pixels, method.memory_request, method.computation)


@torch.no_grad()
def scored(method: Joint, pictures: list[Image.Image], references: list[Image.Image]) -> Prediction:
    features, text = features_of(method, pictures), method.text_features(["bolt"])[0]
    return method.score(features, text, method.extract_memory(features_of(method, references)))


def unit(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector)


def by_words(method: Joint, token: Tensor, text: Tensor) -> float:
    """Softmax over the cosines with both sentences."""
    logits = text @ unit(method.backbone.project(token)) / method.config.temperature
    return float(logits.softmax(0)[1])


@torch.no_grad()
def test_a_condensed_memory_gives_the_same(joint: Joint, pictures: list[Image.Image]) -> None:
    text = joint.text_features(["bolt"])[0]
    features, memory = features_of(joint, pictures), joint.extract_memory(features_of(joint, pictures[:REFERENCES]))
    small = joint.condensed(memory, text)
    assert {side: len(rows) for side, rows in small.windows.items()} == {PATCH: 1, MEAN: REFERENCES}
    expected, found = joint.score(features, text, memory), joint.score(features, text, small)
    torch.testing.assert_close(found.score, expected.score, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.map, expected.map, rtol=0, atol=1e-6)
    another = joint.condensed(memory, text.flip(0))
    assert not torch.equal(another.windows[PATCH], small.windows[PATCH])


@torch.no_grad()
def test_the_formula(joint: Joint, pictures: list[Image.Image]) -> None:
    text, last = joint.text_features(["bolt"])[0], Tap(joint.backbone.layers)
    features = features_of(joint, pictures)
    compared = [
        [unit(unit(features.taps[Tap(1)][i, p]) + unit(features.taps[Tap(2)][i, p])) for p in range(1, 10)]
        for i in range(len(pictures))
    ]
    words = [[by_words(joint, features.taps[last][i, p], text) for p in range(1, 10)] for i in range(len(pictures))]
    tokens = [features.taps[Tap(3)][i, 1:] for i in range(len(pictures))]
    means = [unit(torch.stack([unit(token) for token in rows]).mean(0)) for rows in tokens]
    spread = max(float((a - b).norm()) for a in means[:REFERENCES] for b in means[:REFERENCES])
    found = scored(joint, pictures, pictures[:REFERENCES])
    for i in range(len(pictures)):
        evidence = []
        for p in range(9):
            distance = min(float(1 - compared[i][p] @ row) for rows in compared[:REFERENCES] for row in rows)
            usual = max(max(row) for row in words[:REFERENCES])
            evidence.append(distance + 0.5 * max(0.0, words[i][p] - usual))
        assert features.class_token is not None
        whole = sum(sorted(evidence)[-2:]) / 2 + 0.1 * by_words(joint, features.class_token[i], text)
        change = min(float((means[i] - reference).norm()) for reference in means[:REFERENCES]) / (spread + 0.001)
        whole += 0.2 * min(change, joint.config.whole_most)
        assert float(found.score[i]) == pytest.approx(whole / (whole + 0.4), abs=1e-5)
        grid = torch.tensor([each / (each + 0.4) for each in evidence]).reshape(1, 3, 3)
        torch.testing.assert_close(found.map[i], upsample_smoothly(grid, SIZE, 4.0)[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_one_more_reference_never_raises_a_score_or_a_map(joint: Joint, pictures: list[Image.Image]) -> None:
    words = replace(joint.config, patch_words=20.0)  # so that the words decide in some places
    whole = replace(joint.config, whole=20.0, whole_floor=1e-6, whole_most=1e9)
    for method in (joint, Joint(joint.backbone, words), Joint(joint.backbone, whole)):
        assert method.monotone
        before = scored(method, pictures, pictures[:1])
        for count in range(2, REFERENCES + 1):
            after = scored(method, pictures, pictures[:count])
            assert bool((after.score <= before.score).all())
            assert bool((after.map <= before.map + 1e-6).all())
            before = after
    assert not torch.equal(before.map, scored(joint, pictures, pictures[:1]).map)


def test_a_reference_has_no_evidence_in_its_patches(joint: Joint, pictures: list[Image.Image]) -> None:
    found = scored(joint, pictures, pictures[:2])
    assert float(found.map[:2].max()) == 0
    assert float(found.map[2:].min()) > 0


def test_only_what_words_say_above_the_references_counts(joint: Joint, pictures: list[Image.Image]) -> None:
    mute = Joint(joint.backbone, replace(joint.config, patch_words=0.0))
    loud = Joint(joint.backbone, replace(joint.config, patch_words=20.0))
    quiet, heard = (scored(each, pictures[2:], pictures[:2]).map for each in (mute, loud))
    assert bool((heard >= quiet).all())
    assert not torch.equal(heard, quiet)
    own_words = scored(loud, pictures[:2], pictures[:2])
    assert torch.equal(own_words.map, scored(mute, pictures[:2], pictures[:2]).map)


@torch.no_grad()
def test_each_picture_may_have_its_own_words(joint: Joint, pictures: list[Image.Image]) -> None:
    features, texts = features_of(joint, pictures[:2]), joint.text_features(["bolt", "leaf"])
    memory = joint.extract_memory(features_of(joint, pictures[2:]))
    both = joint.score(features, texts, memory)
    for row in range(2):
        torch.testing.assert_close(both.score[row], joint.score(features, texts[row], memory).score[row])


@torch.no_grad()
def test_without_references_it_is_clip(joint: Joint, backbone: Backbone, pictures: list[Image.Image]) -> None:
    features, text = features_of(joint, pictures), joint.text_features(["bolt"])[0]
    expected = Clip(backbone, ClipConfig(size=SIZE)).score(features, text)
    found = joint.score(features, text)
    assert torch.equal(found.score, expected.score)
    assert torch.equal(found.map, expected.map)


@torch.no_grad()
def test_what_it_remembers(joint: Joint, pictures: list[Image.Image]) -> None:
    memory = joint.extract_memory(features_of(joint, pictures[:2]))
    assert memory.images == 2
    assert {tap: tuple(rows.shape) for tap, rows in memory.taps.items()} == {Tap(2): (18, joint.backbone.width)}
    assert tuple(memory.windows[PATCH].shape) == (18, joint.backbone.embed_dim)
    assert tuple(memory.windows[MEAN].shape) == (2, joint.backbone.width)
    torch.testing.assert_close(torch.linalg.vector_norm(memory.windows[MEAN], dim=1), torch.ones(2))


@torch.no_grad()
def test_the_whole_picture_counts_as_much_as_its_most(joint: Joint, pictures: list[Image.Image]) -> None:
    deaf = Joint(joint.backbone, replace(joint.config, whole=0.0))
    bounded = Joint(joint.backbone, replace(joint.config, whole_most=0.01))
    expected, found = (scored(each, pictures[1:], pictures[:1]) for each in (deaf, bounded))
    evidence = [0.4 * result.score / (1 - result.score) for result in (expected, found)]
    torch.testing.assert_close(
        evidence[1] - evidence[0], torch.full((len(pictures) - 1,), 0.2 * 0.01), rtol=0, atol=1e-5
    )
    assert torch.equal(found.map, expected.map)


@torch.no_grad()
def test_a_memory_without_the_whole_picture_scores_as_before_there_was_one(
    joint: Joint, pictures: list[Image.Image]
) -> None:
    deaf = Joint(joint.backbone, replace(joint.config, whole=0.0))
    features, text = features_of(joint, pictures[2:]), joint.text_features(["bolt"])[0]
    old = deaf.extract_memory(features_of(deaf, pictures[:2]))
    assert MEAN not in old.windows
    assert torch.equal(joint.score(features, text, old).score, deaf.score(features, text, old).score)


@torch.no_grad()
def test_what_a_bank_keeps_of_a_picture_scores_as_the_picture(joint: Joint, pictures: list[Image.Image]) -> None:
    features, text = features_of(joint, pictures[2:]), joint.text_features(["bolt"])[0]
    memory = joint.extract_memory(features_of(joint, pictures[:2]))
    entry = joint.score_entry(joint.extract_memory(features), text, memory, features.grid)
    torch.testing.assert_close(entry.score, joint.score(features, text, memory).score, rtol=0, atol=1e-6)


@torch.no_grad()
def test_features_and_banks_of_others_are_refused(joint: Joint, pictures: list[Image.Image]) -> None:
    features, text = features_of(joint, pictures), joint.text_features(["bolt"])[0]
    with pytest.raises(UsageError, match="the memory bank is of another method or config: build it"):
        joint.score(features, text, MemoryBank(1, {Tap(1): torch.ones(9, joint.backbone.width)}))
    bare = replace(features, taps={Tap(joint.backbone.layers): features.taps[Tap(joint.backbone.layers)]})
    with pytest.raises(UsageError, match="lack the patches to compare: encode with the method's memory_request"):
        joint.extract_memory(bare)


def texture(seed: int, left: float, above: float, corner: float) -> Image.Image:
    """Draw a stationary autoregressive texture: each pixel is a mix of three neighbours, and noise."""
    across = 2 * np.pi * np.fft.fftfreq(336)
    x, y = np.exp(-1j * across)[None, :], np.exp(-1j * across)[:, None]
    rng = np.random.default_rng(seed)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(336, 336))) / (1 - left * x - above * y - corner * x * y)).real
    levels = 120 + rng.uniform(-8, 8) + 27 * (field - field.mean()) / field.std()
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB")


@torch.no_grad()
def test_a_change_of_the_whole_texture_is_found_and_was_not_without(tmp_path: Path) -> None:
    good = [texture(seed, 0.85, 0.2, -0.1) for seed in range(6)]
    others = [texture(seed, 0.85, 0.2, -0.1) for seed in range(6, 9)]
    changed = [texture(seed, 0.85, -0.1, 0.15) for seed in range(9, 12)]
    scores, fitted = {}, {}
    for whole in (0.0, 0.15):
        detector = load("joint", device="cpu", precision="float32", config={"whole": whole}).fit(good)
        results = [detector(picture).score for picture in (*others, *changed)]
        scores[whole], fitted[whole] = results, detector
    assert min(scores[0.15][3:]) > max(scores[0.15][:3]) + 0.02
    threshold = fitted[0.15].limits.threshold
    assert threshold is not None
    assert min(scores[0.15][3:]) >= threshold
    assert min(scores[0.0][3:]) < max(scores[0.0][:3])

    # A profile of before there was a score of the whole knows none of its fields, and scores as it did.
    profile = fitted[0.0].profile
    assert profile is not None
    config = {name: value for name, value in profile.config.items() if not name.startswith("whole")}
    old = load(replace(profile, config=config).save(tmp_path / "old"), device="cpu")
    assert old.torch_engine.method.config.whole == 0  # so what is added to it has none, either
    assert old(changed[0]).score == scores[0.0][3]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"top": 0.0}, "top lies above 0 and is at most 1, not 0.0"),
        ({"half": 0.0}, "half has to be greater than 0, not 0.0"),
        ({"patch_words": -1.0}, "patch_words must not be negative, not -1.0"),
        ({"image_words": -0.1}, "image_words must not be negative, not -0.1"),
        ({"whole": -0.2}, "whole must not be negative, not -0.2"),
        ({"whole_floor": 0.0}, "whole_floor has to be greater than 0, not 0.0"),
        ({"whole_most": 0.0}, "whole_most has to be greater than 0, not 0.0"),
        ({"compared": (99,)}, "layer 99 does not exist"),
    ],
)
def test_values_that_cannot_work(backbone: Backbone, values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Joint(backbone, JointConfig(**values))  # type: ignore[arg-type]
