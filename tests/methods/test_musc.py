"""MuSc against its formulas, written as loops; what it remembers; a picture among its own references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from blemish.clip import Backbone, Dinov2Backbone, Dinov2Tower, ImageFeatures, Tap, load_backbone
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.methods import create
from blemish.methods.musc import MuSc, MuScConfig, MuScMemoryBank, rotate, shift, smooth_scores
from parity import tiny_dinov2

SIZE = 222  # a grid of 3


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def musc(backbone: Backbone) -> MuSc:
    layers = (1, backbone.layers)
    return MuSc(backbone, MuScConfig(size=SIZE, mutual_layers=layers, degrees=(1, 3), nearest=0.5)).eval()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)) for _ in range(6)]


@torch.no_grad()
def features_of(method: MuSc, pictures: list[Image.Image]) -> ImageFeatures:
    pixels = method.backbone.preprocess(pictures, SIZE)
    return method.backbone.encode_image(pixels, method.request, method.computation)


def aggregated(tokens: Tensor, degree: int) -> Tensor:
    """LNAMD of one picture, place by place: (N, D) to (N, D)."""
    side = round(len(tokens) ** 0.5)
    flat = (tokens - tokens.mean()) / (tokens.var(correction=0) + 1e-5).sqrt()
    grid, out = flat.view(side, side, -1), []
    for row in range(side):
        for column in range(side):
            total, reach = torch.zeros(tokens.shape[1]), range(-(degree // 2), degree // 2 + 1)
            for dy in reach:
                for dx in reach:
                    if 0 <= row + dy < side and 0 <= column + dx < side:  # beyond the border lie zeros
                        total += grid[row + dy, column + dx]
            out.append(functional.normalize(total / degree**2, dim=0))
    return torch.stack(out)


def mutual(method: MuSc, features: ImageFeatures, which: int, others: list[int]) -> Tensor:
    """A picture's patches against those of others: (N,)."""
    scores = []
    for layer in method.mutual_layers:
        tokens = features.taps[Tap(layer)][:, 1:]
        for degree in method.config.degrees:
            own = aggregated(tokens[which], degree)
            nearest = torch.stack([torch.cdist(own, aggregated(tokens[k], degree)).amin(1) for k in others], dim=1)
            count = max(1, int(method.config.nearest * len(others)))
            scores.append(nearest.sort(dim=1).values[:, :count].mean(1))
    return torch.stack(scores).mean(0)


def test_the_formulas(musc: MuSc, pictures: list[Image.Image]) -> None:
    features = features_of(musc, pictures)
    found = musc.mutual_map(features, musc.extract_memory(features)).flatten(1)
    for which in range(6):
        expected = mutual(musc, features, which, [k for k in range(6) if k != which])
        torch.testing.assert_close(found[which], expected, rtol=0, atol=2e-5)


def test_a_stranger_is_compared_with_all(musc: MuSc, pictures: list[Image.Image]) -> None:
    features = features_of(musc, pictures)
    memory = musc.extract_memory(features_of(musc, pictures[:5]))
    found = musc.mutual_map(features, memory).flatten(1)[5]
    torch.testing.assert_close(found, mutual(musc, features, 5, [0, 1, 2, 3, 4]), rtol=0, atol=2e-5)


def test_memory_in_parts_is_the_whole(musc: MuSc, pictures: list[Image.Image]) -> None:
    whole = musc.extract_memory(features_of(musc, pictures))
    parts = MuScMemoryBank.concat(
        [musc.extract_memory(features_of(musc, part)) for part in (pictures[:4], pictures[4:])]
    )
    assert whole.images == parts.images == 6
    for tap, rows in whole.taps.items():
        torch.testing.assert_close(rows, parts.taps[tap], rtol=0, atol=1e-5)


def test_a_copy_tells_nothing(musc: MuSc, pictures: list[Image.Image]) -> None:
    features = features_of(musc, pictures)
    once, twice = musc.extract_memory(features), musc.extract_memory(features_of(musc, [*pictures, pictures[0]]))
    expected = musc.mutual_map(features, once)[0]
    torch.testing.assert_close(musc.mutual_map(features, twice)[0], expected, rtol=0, atol=1e-5)


def test_half_precision_compares_as_well(musc: MuSc, pictures: list[Image.Image]) -> None:
    """What was made of bfloat16 products is compared in bfloat16; copies are still found."""
    exact = features_of(musc, [*pictures, pictures[0]])
    half = replace(exact, precision=torch.bfloat16)
    memory = musc.extract_memory(exact)
    found, expected = musc.mutual_map(half, memory), musc.mutual_map(exact, memory)
    assert float(expected.min()) > 0.02
    torch.testing.assert_close(found, expected, rtol=0.004, atol=0)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)


def test_a_small_defect_is_no_copy(backbone: Backbone) -> None:
    """Where a defect is all that differs, flawless pictures are copies of each other, but not of the defective one."""
    musc = MuSc(backbone, MuScConfig(size=518, mutual_layers=(1,), degrees=(1,)))
    good = Image.fromarray(np.full((518, 518, 3), 120, np.uint8))
    bad = good.copy()
    bad.paste((130, 120, 120), (250, 250, 256, 256))  # in the patch in the middle of 7 x 7
    features = musc.backbone.encode_image(backbone.preprocess([good, good, good, bad], 518), musc.request)
    found = musc.mutual_map(features, musc.extract_memory(features))
    assert found[3].argmax() == 24
    assert float(found[3].max()) > 0.03


def test_alone(musc: MuSc, pictures: list[Image.Image]) -> None:
    features = features_of(musc, pictures[:1])
    memory = musc.extract_memory(features)
    assert torch.equal(musc.mutual_map(features, memory), torch.zeros(1, 3, 3))


def rscin(scores: Tensor, class_features: Tensor, counts: tuple[int, ...]) -> Tensor:
    """RsCIN, image by image."""
    stretched = (scores - scores.min()) / (scores.max() - scores.min())
    out = []
    for row in class_features @ class_features.T:
        smoothed = []
        for count in counts:
            near = row.argsort(descending=True)[:count]
            smoothed.append(sum(row[j] / row[near].sum() * stretched[j] for j in near.tolist()))
        out.append(torch.stack([torch.as_tensor(value) for value in smoothed]).mean())
    return torch.stack(out)


def test_similar_images_smooth_the_scores(musc: MuSc, pictures: list[Image.Image]) -> None:
    """An image of the set has the score of the whole set, wherever it is; a stranger counts among its own, too."""
    told = MuSc(musc.backbone, replace(musc.config, similar_images=(1, 3), whole_set=True))
    features = features_of(told, pictures)

    def encode(pixels: Tensor) -> ImageFeatures:
        return told.backbone.encode_image(pixels, told.request, told.computation)

    with torch.no_grad():
        memory = told.build_memory_bank(
            [told.backbone.preprocess(part, SIZE) for part in (pictures[:2], pictures[2:5])], encode, num_images=5
        )
        found = told.score(features, told.text_features(["thing"])[0], memory)
        assert isinstance(memory, MuScMemoryBank)
        peaks, class_features = found.map.amax((1, 2)), told.class_features(features)
        expected = rscin(peaks[:5], class_features[:5], (1, 3))
        torch.testing.assert_close(found.score[:5], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(memory.peaks, peaks[:5], rtol=0, atol=1e-5)
        with_stranger = rscin(peaks, class_features, (1, 3))
        torch.testing.assert_close(found.score[5], with_stranger[5], rtol=0, atol=1e-4)
    assert not torch.allclose(found.score, (peaks - peaks.min()) / (peaks.max() - peaks.min()), atol=1e-3)


def test_all_scores_equal() -> None:
    found = smooth_scores(torch.ones(3), torch.eye(3) + 0.1, (1, 2))
    assert torch.equal(found, torch.zeros(3))


def test_more_similar_images_than_there_are(musc: MuSc, pictures: list[Image.Image]) -> None:
    told = MuSc(musc.backbone, replace(musc.config, similar_images=(9,)))
    pixels = told.backbone.preprocess(pictures, SIZE)
    with torch.no_grad(), pytest.raises(UsageError, match="ask for 9 pictures, and the set has 6"):
        told.build_memory_bank(
            [pixels], lambda x: told.backbone.encode_image(x, told.request, told.computation), num_images=6
        )


@pytest.mark.parametrize("changes", [{"similar_images": (0,)}, {"similar_images": (1,), "words": 0.5}])
def test_similar_images_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="similar_images"):
        MuScConfig(**changes)  # type: ignore[arg-type]


def test_the_whole_set(musc: MuSc) -> None:
    assert musc.sample_size(100) == musc.max_sampled_images
    assert MuSc(musc.backbone, replace(musc.config, whole_set=True)).sample_size(100) == 100


def test_on_a_backbone_without_words(pictures: list[Image.Image]) -> None:
    config = replace(tiny_dinov2.TINY_S14, num_hidden_layers=4, image_size=56)
    state = {key: torch.from_numpy(value) for key, value in tiny_dinov2.state_dict(config).items()}
    dinov2 = Dinov2Backbone(Dinov2Tower.from_state_dict(state, {"num_attention_heads": 2}), "tiny")
    method = create("musc", dinov2, {"size": 84})
    assert isinstance(method, MuSc)
    c = method.config
    assert (c.geometry, c.position, c.final_norm, c.mutual_layers) == (
        "squash-bilinear",
        "dinov2-hub",
        True,
        (1, 2, 3, 4),
    )
    engine = TorchEngine(method)
    detector = Detector(engine)
    with pytest.raises(UsageError, match="without words musc only compares pictures with each other"):
        detector(pictures[0])
    found = detector.with_set(pictures)(pictures[0])
    assert 0 < found.score <= 1
    with pytest.raises(UsageError, match="reads no words"):
        create("musc", dinov2, {"words": 0.5})


def test_words_are_added(backbone: Backbone, pictures: list[Image.Image]) -> None:
    plain = create("musc", backbone, {"size": SIZE, "mutual_layers": [1]})
    told = create("musc", backbone, replace(plain.config, words=0.5))
    clip = create("clip", backbone, {"size": SIZE, "sigma": 0.0, "position": "bicubic-antialias"})
    assert isinstance(plain, MuSc)
    assert isinstance(told, MuSc)
    features, text = features_of(plain, pictures), plain.text_features(["thing"])[0]
    memory = plain.extract_memory(features)
    without, with_words = plain.score(features, text, memory), told.score(features, text, memory)
    grid = clip.patch_map(features, text)  # type: ignore[operator]
    added = functional.interpolate(0.5 * grid[:, None], (SIZE, SIZE), mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(with_words.map, without.map + added, rtol=0, atol=1e-5)
    assert told.memory_map_range == (0.0, 2.5)
    torch.testing.assert_close(with_words.score, with_words.map.amax((1, 2)) / 2.5)
    assert torch.equal(told.score(features, text).map, clip_like(told, features, text))
    turned_too = told.extract_memory(features, features_of(plain, [one.rotate(90) for one in pictures]))
    assert torch.equal(told.score(features, text, turned_too).map, plain.score(features, text, turned_too).map)


def clip_like(method: MuSc, features: ImageFeatures, text: Tensor) -> Tensor:
    """Without a memory: the words' map."""
    grid = method.patch_map(features, text)[:, None]
    return functional.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"nearest": 0.0},
        {"nearest": 1.5},
        {"words": -1.0},
        {"degrees": [2]},
        {"degrees": []},
        {"turns": 0},
        {"grids": 3},
        {"grids": 4, "turns": 4},
    ],
)
def test_configs_that_cannot_work(backbone: Backbone, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        create("musc", backbone, wrong)


@torch.no_grad()
def test_turned_views_are_looked_at_too(musc: MuSc, pictures: list[Image.Image]) -> None:
    """The nearest patch of any view of a picture counts; a copy is known by its first view alone."""
    features = features_of(musc, pictures)
    others = [features_of(musc, [one.rotate(angle) for one in pictures]) for angle in (90, 180, 270)]
    memory = musc.extract_memory(features, *others)
    assert memory.images == 6
    found = musc.mutual_map(features, memory).flatten(1)
    views = [{tap: kept.reshape(6, 4, 9, -1)[:, k] for tap, kept in memory.taps.items()} for k in range(4)]
    for tap, kept in musc.extract_memory(features).taps.items():
        torch.testing.assert_close(views[0][tap].flatten(0, 1), kept)
    scores = []
    for layer in musc.mutual_layers:
        for number, degree in enumerate(musc.config.degrees):
            own = torch.stack([aggregated(features.taps[Tap(layer)][k, 1:], degree) for k in range(6)])
            width = own.shape[-1]
            part = slice(number * width, (number + 1) * width)
            apart = torch.stack([torch.cdist(own[:, None], view[Tap(layer)][None, ..., part]) for view in views])
            nearest = apart.amin((0, 4)).permute(0, 2, 1)  # own pictures, patches, others
            nearest[torch.arange(6), :, torch.arange(6)] = torch.inf
            scores.append(nearest.sort(dim=2).values[..., :2].mean(2))
    torch.testing.assert_close(found, torch.stack(scores).mean(0), rtol=0, atol=2e-5)
    assert not torch.allclose(found, musc.mutual_map(features, musc.extract_memory(features)).flatten(1), atol=1e-3)


def things(in_any_pose: bool, size: int = 336) -> list[Image.Image]:
    """Four photographs of one drawn thing on grainy ground."""
    rng = np.random.default_rng(2)
    thing = Image.new("L", (size, size), 90)
    draw = ImageDraw.Draw(thing)
    draw.rectangle((60, 140, 270, 180), fill=210)
    draw.ellipse((220, 90, 300, 230), fill=30)
    draw.polygon([(60, 120), (120, 140), (60, 200)], fill=250)
    out = []
    for angle in (0, 130, 215, 290):
        seen = np.asarray(thing.rotate(angle if in_any_pose else 0, fillcolor=90)) + rng.normal(0, 5, (size, size))
        out.append(Image.fromarray(seen.clip(0, 255).astype(np.uint8)).convert("RGB"))
    return out


@pytest.mark.parametrize(("in_any_pose", "views"), [(True, 8), (False, 2)])
def test_what_lies_in_any_pose_is_turned(in_any_pose: bool, views: int) -> None:
    engine = TorchEngine(create("musc", load_backbone("builtin")))
    method = engine.method
    assert isinstance(method, MuSc)
    pixels = torch.cat([engine.preprocess(one) for one in things(in_any_pose)])

    @torch.inference_mode()
    def number(images: Tensor) -> int:
        def encode(batch: Tensor) -> ImageFeatures:
            return method.backbone.encode_image(batch, method.memory_request, method.computation)

        return len(method.augmentations(images, encode))

    assert number(pixels) == views
    assert number(pixels[:1]) == 2
    assert number(pixels[:1].expand(3, -1, -1, -1)) == 2  # copies


@torch.no_grad()
def test_a_move_by_half_a_patch_is_no_anomaly_on_two_grids() -> None:
    """What lies half a patch further down and to the right is as it is on the second grid; the words stay."""
    grain = np.random.default_rng(3).integers(0, 255, (62, 62, 3), np.uint8)
    whole = Image.fromarray(grain).resize((434, 434), Image.Resampling.BICUBIC)
    here, there = whole.crop((49, 49, 385, 385)), whole.crop((42, 42, 378, 378))
    found = {}
    for grids in (1, 2):
        engine = TorchEngine(create("musc", load_backbone("builtin"), {"grids": grids, "words": 0.0}))
        memory = engine.build_memory_bank([engine.preprocess(here)], num_images=1)
        map = engine.run(engine.preprocess(there), "object", memory).prediction.map[0]
        found[grids] = float(map[84:252, 84:252].mean())  # the middle: at the edges another part is seen
    assert found[2] < 0.8 * found[1]
    alone = create("musc", load_backbone("builtin"), {"grids": 1})
    both = create("musc", load_backbone("builtin"))
    assert isinstance(alone, MuSc) and isinstance(both, MuSc)  # noqa: PT018
    pixels = alone.backbone.preprocess(things(False), 336)
    features = alone.backbone.encode_image(pixels, alone.request, alone.computation)
    text = alone.text_features(["object"])[0]
    once, twice = alone.extract_memory(features), both.extract_memory(features, features)
    torch.testing.assert_close(both.score(features, text, twice).map, alone.score(features, text, once).map)


def test_moved_goes_down_and_to_the_right() -> None:
    pixels = torch.arange(2 * 3 * 25.0).reshape(2, 3, 5, 5)
    assert torch.equal(shift(pixels, 0, 0), pixels)
    found = shift(pixels, 1, 2)
    assert torch.equal(found[:, :, 1:, 2:], pixels[:, :, :-1, :-2])
    assert torch.equal(found[:, :, 1:, :2], pixels[:, :, :-1, [2, 1]])
    assert torch.equal(found[:, :, 0], found[:, :, 2])


def test_turned_is_about_the_middle() -> None:
    pixels = torch.rand(2, 3, 34, 34, generator=torch.Generator().manual_seed(0))
    for angle in (0, 90, 180, 270):
        torch.testing.assert_close(rotate(pixels, angle), rotate(pixels, angle + 1e-4), rtol=0, atol=1e-3)
    assert torch.equal(rotate(pixels, 0), pixels)
    spot = torch.zeros(1, 3, 65, 65)
    spot[..., 30:35, 58:63] = 1  # to the right of the middle
    assert divmod(int(rotate(spot, 45)[0, 0].argmax()), 65)[0] < 20  # goes up
