"""Tiles: how pictures are cut, that the parts make the whole again without seams, and what a detector makes of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import Backbone, load_backbone
from blemish.detection import Provenance, Timing
from blemish.detector import Detector
from blemish.engine import Run
from blemish.errors import ImageError, UsageError
from blemish.loading import load
from blemish.methods.base import Prediction
from blemish.tiling import MAX_MAP_PIXELS, TileMerger, Tiling, cut, resize
from helpers import load_pixels, save_picture


class Brightness:
    """An engine whose map is how bright the picture is, and whose score is the brightest place."""

    provenance = Provenance("brightness", "none", "0" * 16)
    needs_object = finishes_maps = False
    finish_map = staticmethod(resize)

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.batches: list[int] = []

    def map_range(self, memory: object = None) -> tuple[float, float]:
        return 0.0, 1.0

    display_range = map_range

    def preprocess(self, picture: Image.Image) -> torch.Tensor:
        pixels = np.asarray(picture.convert("L").resize((self.size, self.size), Image.Resampling.BOX), np.float32)
        return torch.from_numpy(pixels / 255).expand(1, 3, -1, -1)

    def run(self, pixels: torch.Tensor, object_name: str, memory: object = None) -> Run:
        self.batches.append(len(pixels))
        maps = pixels[:, 0].contiguous()
        return Run(Prediction(maps.amax(dim=(1, 2)), maps), 0.0, 0.0)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def blended(size: tuple[int, int], tiling: Tiling, field, side: int = 16, limit: int = MAX_MAP_PIXELS):
    """The blend of maps that see `field(x, y)` at the centres of their cells."""
    canvas = TileMerger(size, tiling, max_map_pixels=limit)
    for row, (top, bottom) in enumerate(canvas.down.spans):
        for column, (left, right) in enumerate(canvas.across.spans):
            x = left + (torch.arange(side) + 0.5) * (right - left) / side
            y = top + (torch.arange(side) + 0.5) * (bottom - top) / side
            assert not canvas.done
            canvas.add((row, column), 0.1, field(x[None, :], y[:, None]).float(), Timing())
    assert canvas.done
    return canvas


# cutting


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 100, 1001])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_tiles_cover_all_and_overlap_enough(length: int, overlap: float) -> None:
    tiling = Tiling(16, overlap)
    spans = tiling.spans(length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert {end - start for start, end in spans} == {min(length, 16)}
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= tiling.ramp
    fewest = 1 if length <= 16 else 1 + -(-(length - 16) // (16 - tiling.ramp))
    assert len(spans) == fewest


@pytest.mark.parametrize(("side", "overlap"), [(15, 0.25), (0, 0.25), (-518, 0.25), (518, -0.1), (518, 0.76), (518, 1)])
def test_tilings_that_make_no_sense(side: int, overlap: float) -> None:
    with pytest.raises(UsageError, match=str(side if side < 16 else overlap)):
        Tiling(side, overlap)


# putting together


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (57, 23), (16, 90), (101, 64)])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
@pytest.mark.parametrize("limit", [MAX_MAP_PIXELS, 300])
def test_constant_maps_stay_constant(size: tuple[int, int], overlap: float, limit: int) -> None:
    canvas = blended(
        size, Tiling(16, overlap), lambda x, y: torch.full(torch.broadcast_shapes(x.shape, y.shape), 0.7), 5, limit
    )
    assert canvas.map.shape == (-(-size[1] // canvas.step), -(-size[0] // canvas.step))
    assert canvas.map.numel() <= limit
    torch.testing.assert_close(canvas.map, torch.full_like(canvas.map, 0.7))


def test_a_smooth_field_shows_no_seams() -> None:
    """Bilinear enlarging keeps a plane but for half a cell at a tile's edge, where the tile fades out."""
    canvas = blended((200, 120), Tiling(64, 0.25), lambda x, y: 0.001 * x + 0.002 * y + 0 * x * y, 64)
    x, y = torch.arange(200) + 0.5, torch.arange(120) + 0.5
    torch.testing.assert_close(canvas.map, 0.001 * x[None, :] + 0.002 * y[:, None], atol=1e-4, rtol=0)


@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_reduced_map_is_the_mean_of_the_full_one(step: int) -> None:
    size, tiling = (83, 59), Tiling(24, 0.3)

    def field(x, y):
        return torch.sin(x / 5) * torch.cos(y / 7)

    full = blended(size, tiling, field).map.numpy()
    small = blended(size, tiling, field, limit=83 * 59 // step**2 + 1)
    assert small.step == step
    for row in range(small.map.shape[0]):
        for column in range(small.map.shape[1]):
            cells = full[row * step : (row + 1) * step, column * step : (column + 1) * step]
            assert small.map[row, column].item() == pytest.approx(cells.mean(), abs=1e-5)


def test_one_tile_is_put_in_place_like_an_untiled_map() -> None:
    tile = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    canvas = TileMerger((40, 30), Tiling(64))
    canvas.add((0, 0), 0.3, tile, Timing())
    torch.testing.assert_close(canvas.map, resize(tile, 30, 40), rtol=0, atol=0)
    # And the matrices, which one tile does without, are that very interpolation.
    by_hand = canvas.down.matrix(0, 16) @ tile @ canvas.across.matrix(0, 16).T
    torch.testing.assert_close(by_hand, resize(tile, 30, 40))


# detectors


def test_a_picture_of_one_tile_is_scored_as_untiled(backbone: Backbone, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", 3, (64, 50))
    whole, tiled = (load("clip", backbone=backbone, device="cpu", **words) for words in ({}, {"tile": 64}))
    one, other = whole(path), tiled(path)
    assert one.score == other.score
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    assert (other.map_step, other.notes) == (1, ())


def test_the_score_is_that_of_the_worst_tile_and_the_map_on_the_same_scale(backbone: Backbone, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", 3, (150, 90))
    image = load_pixels(path)
    tiled = load("clip", backbone=backbone, device="cpu", tile=64, overlap=0)
    parts = [piece.image for piece in cut(path, Tiling(64, 0), max_pixels=10**9)]
    assert [part.size for part in parts] == [(64, 64)] * 6
    np.testing.assert_array_equal(parts[-1], image.crop((86, 26, 150, 90)))
    whole = load("clip", backbone=backbone, device="cpu")
    alone = list(whole.stream(parts))
    found = tiled(path)
    assert found.score == pytest.approx(max(one.score for one in alone), abs=1e-5)
    assert found.anomaly_map.shape == (90, 150)
    assert found.map_range == alone[0].map_range
    low, high = min(one.anomaly_map.min() for one in alone), max(one.peak for one in alone)
    assert low - 1e-5 <= found.anomaly_map.min() <= found.peak <= high + 1e-5


def test_a_flaw_moves_with_the_picture() -> None:
    """Where the tiles happen to lie leaves no trace: the map of a shifted picture is the shifted map."""
    y, x = np.mgrid[:200, :260]
    smooth = 120 + 60 * np.sin(x / 30) * np.cos(y / 25)
    picture = np.round(smooth + 60 * np.exp(-((x - 120) ** 2 + (y - 90) ** 2) / 200)).clip(0, 255).astype(np.uint8)
    detector = Detector(Brightness(32), tiling=Tiling(64, 0.5))
    maps = [detector(picture[:, shift : shift + 220]).anomaly_map for shift in (0, 9, 23, 40)]
    for shift, found in zip((9, 23, 40), maps[1:], strict=True):
        inner = slice(4, 216 - shift)
        np.testing.assert_allclose(maps[0][4:-4, shift:][:, inner], found[4:-4, inner], atol=0.02)
    assert np.abs(maps[0] - picture[:, :220] / 255).max() < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (333, 17), (64, 65), (65, 64), (200, 131)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    found = Detector(Brightness(), tiling=Tiling(64))(picture)
    assert found.size == size
    assert found.anomaly_map.shape == size[::-1]


def test_tiles_of_many_pictures_share_batches_and_keep_order(tmp_path: Path) -> None:
    sizes = [(30, 30), (200, 100), (40, 200), (64, 64), (300, 20)]
    paths = [save_picture(tmp_path / f"{number}.png", number, size) for number, size in enumerate(sizes)]
    engine = Brightness()
    detector = Detector(engine, tiling=Tiling(64))
    many = list(detector.stream(paths, batch_size=5))
    assert [one.path for one in many] == [str(path) for path in paths]
    assert [one.size for one in many] == sizes
    assert set(engine.batches[:-1]) == {5}
    for one, path in zip(many, paths, strict=True):
        single = detector(path)
        assert one.score == single.score
        np.testing.assert_allclose(one.anomaly_map, single.anomaly_map, atol=1e-6)
        assert one.timing.read > 0
        assert one.timing.preprocess > 0


def test_a_broken_picture_between_tiled_ones(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{number}.png", number, (150, 100)) for number in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    seen: list[str | None] = []
    detector = Detector(Brightness(), tiling=Tiling(64))
    for one in detector.stream(paths, batch_size=4, on_error=lambda path, error: seen.append(path)):
        seen.append(one.path)
    assert seen == [str(path) for path in paths]


def test_large_pictures_have_a_map_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.tiling.MAX_MAP_PIXELS", 2_000)
    picture = np.full((150, 203), 100, np.uint8)
    picture[60:90, 100:140] = 250
    detector = Detector(Brightness(64), tiling=Tiling(50, 0), threshold=0.8)  # rows of tiles begin within cells
    for source in (picture, tmp_path / "a.png", tmp_path / "a.tif"):
        if isinstance(source, Path):
            Image.fromarray(picture).save(source)
        ((shown, found),) = detector.stream_with_images([source])
        assert (found.map_step, found.size) == (4, (203, 150))
        assert found.anomaly_map.shape == (38, 51)
        np.testing.assert_array_equal(shown.image, Image.fromarray(picture).reduce(4))
        (region,) = found.regions
        assert np.abs(np.subtract(region.box, (100, 60, 140, 90))).max() <= 4
        assert region.area == pytest.approx(40 * 30, rel=0.25)
        assert found.overlay(shown).size == (51, 38)
        assert found.notes == ("map and preview at 1/4 of its size",)


def test_provenance_says_how_pictures_were_cut(backbone: Backbone) -> None:
    made = load("clip", backbone=backbone, device="cpu", tile=100, overlap=0.3).provenance
    assert (made.tile, made.overlap) == (100, 0.3)
    made = load("clip", backbone=backbone, device="cpu").provenance
    assert (made.tile, made.overlap) == (None, None)


def test_references_are_cut_like_what_is_compared_with_them(backbone: Backbone, tmp_path: Path) -> None:
    """Every tile of a reference is remembered, so a picture that is its own reference adds no distance anywhere."""
    path = save_picture(tmp_path / "a.png", 1, (150, 90))
    alone, shown = (
        load("winclip", backbone=backbone, device="cpu", tile=64, references=references)(path)
        for references in (None, [path])
    )
    np.testing.assert_allclose(shown.anomaly_map, alone.anomaly_map, atol=1e-3)
    assert shown.provenance is not None
    assert shown.provenance.references == 1


def test_a_picture_too_large_to_be_decoded_whole(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", 1, (150, 90))
    with pytest.raises(ImageError, match="max_pixels"):
        Detector(Brightness(), tiling=Tiling(64), max_pixels=10_000)(path)
