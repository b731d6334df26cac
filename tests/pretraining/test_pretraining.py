"""How the built-in model is made: same computation as the library, honest pictures, repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch


def test_training_forward_is_the_librarys() -> None:
    """Every read-out that training shapes is what `Backbone` hands out."""
    from model import image_views, make_model, text_features
    from objective import tokenise
    from tokenizer import make_tokenizer

    from blemish.clip import Backbone, Computation, Request, Tap
    from blemish.clip.tokenizer import TextTokenizer, clip_merges

    torch.manual_seed(0)
    model = make_model().eval()
    backend = make_tokenizer(clip_merges(), ["flawless", "damaged"])
    backbone = Backbone(model, TextTokenizer(backend, backend.token_to_id("<|endoftext|>")), name="test")
    taps = {"value": Tap(8, "value", 5), "surgery": Tap(8, "value", 7, False), "last": Tap(8), "layer4": Tap(4)}
    pixels = torch.randn(2, 3, 384, 384)
    with torch.no_grad():
        views = image_views(model, pixels)
        features = backbone.encode_image(pixels, Request(frozenset(taps.values())), Computation(384))
        for name, tap in taps.items():
            torch.testing.assert_close(
                views.patches[name], backbone.project(features.taps[tap][:, 1:]), atol=2e-5, rtol=0
            )
        torch.testing.assert_close(views.cls, backbone.project(features.class_token), atol=2e-5, rtol=0)
        torch.testing.assert_close(views.cls_raw, backbone.project(features.class_token, norm=False), atol=2e-5, rtol=0)
        words = ["a photo of a damaged metal_nut.", "flawless object"]
        ours = text_features(model, *tokenise(backend, words, 4095))
        theirs = torch.nn.functional.normalize(backbone.encode_text(backbone.tokenize(words)), dim=-1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_left_out_patches_change_what_is_seen_but_not_the_order() -> None:
    from model import image_views, make_model

    torch.manual_seed(0)
    model = make_model().eval()
    pixels = torch.randn(1, 3, 384, 384)
    everything = torch.arange(576)[None]
    with torch.no_grad():
        full = image_views(model, pixels).patches["last"]
        listed = image_views(model, pixels, everything).patches["last"]
        part = image_views(model, pixels, everything[:, ::2]).patches["last"]
    torch.testing.assert_close(full, listed, atol=1e-5, rtol=0)
    assert part.shape == (1, 288, 256)


def test_tokenizer_keeps_our_words_whole_and_reads_any_other() -> None:
    from tokenizer import make_tokenizer

    from blemish.clip.tokenizer import clip_merges

    tok = make_tokenizer(clip_merges(), ["flawless", "contamination"])
    assert tok.get_vocab_size() == 4096
    assert tok.encode("Flawless  contamination").tokens[1:-1] == ["flawless</w>", "contamination</w>"]
    unseen = tok.encode("zyzzogeton 漢字 metal_nut")
    assert unseen.tokens[0] == "<|startoftext|>"
    assert unseen.tokens[-1] == "<|endoftext|>"
    assert "<|endoftext|>" not in unseen.tokens[:-1]


def test_pictures_follow_from_seed_and_number() -> None:
    from pool import make_sample

    for index in range(4):
        a, b = make_sample(3, index, []), make_sample(3, index, [])
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
        assert a[2] == b[2]
    assert not np.array_equal(make_sample(3, 0, [])[0], make_sample(4, 0, [])[0])


def test_masks_say_where_the_defect_is() -> None:
    """Where the mask is empty nothing changed; what changed visibly lies inside it, or right beside it."""
    from defects import add_defects
    from scenes import make_scene
    from scipy.ndimage import binary_dilation

    made = 0
    for index in range(24):
        rng = np.random.default_rng([11, index])
        scene = make_scene(rng, 128, ())
        before = scene.image.copy()
        defect = add_defects(rng, scene, ())
        assert np.array_equal(scene.image, before), "the normal picture was changed"
        if defect is None:
            continue
        made += 1
        assert defect.mask.any()
        change = np.abs(defect.image.astype(int) - before).max(2)
        near = binary_dilation(defect.mask, iterations=8)
        assert change[defect.mask].mean() > change[~near].mean() + 1
        assert (change[~near] > 24).mean() < 0.01
    assert made > 12


def test_normal_pictures_have_empty_masks_and_no_kind() -> None:
    from pool import make_sample

    for index in range(30):
        image, mask, (name, _, kind, place) = make_sample(5, index, [])
        assert image.shape == (384, 384, 3)
        assert image.dtype == np.uint8
        assert name
        assert bool(kind and kind != "lost") == bool(mask.any()) == bool(place)


def test_twins_are_one_scene_and_the_second_is_damaged() -> None:
    from pool import make_product

    told, alike = 0, []
    for index in range(12):
        (normal, empty, (name, _, good, _)), (_, mask, (same, _, bad, _)) = make_product(5, index, [])
        assert name == same
        assert good == ""
        assert not empty.any()
        told += bool(bad and bad != "lost")
        assert bool(mask.any()) == bool(bad and bad != "lost")
        alike.append(normal)
    assert told > 8
    assert len(make_product(5, 0, [], count=4)) == 4
    assert np.array_equal(make_product(5, 3, [])[0][0], alike[3])


def test_twins_loss_asks_for_the_order_and_leaves_out_what_is_not_sure() -> None:
    from objective import twins_loss

    sure = torch.ones(4, dtype=torch.bool)
    label = torch.tensor([0.0, 1.0, 0.0, 1.0])
    right, wrong = (torch.tensor([0.0, d, 0.0, d]) for d in (4.0, -4.0))
    assert twins_loss(right, label, sure) < 0.05 < 3.9 < twins_loss(wrong, label, sure)
    mixed = torch.tensor([0.0, 4.0, 4.0, 0.0])
    unsure = torch.tensor([True, True, True, False])
    assert torch.equal(twins_loss(mixed, label, unsure), twins_loss(right, label, sure))
    assert torch.equal(twins_loss(mixed, torch.tensor([0.0, 1.0, 0.0, 0.0]), sure), twins_loss(right, label, sure))
    assert twins_loss(mixed, torch.zeros(4), sure) == 0


def test_the_focal_loss_spends_nothing_on_what_is_already_right() -> None:
    from objective import patch_loss

    target = torch.zeros(1, 8)
    logits = torch.full((1, 8), -6.0, requires_grad=True)
    patch_loss(logits, target, focus=2).backward()
    easy = logits.grad.abs().max()
    hard = torch.zeros(1, 8, requires_grad=True)
    patch_loss(hard, target, focus=2).backward()
    assert hard.grad.abs().max() > 10_000 * easy
    logits.grad = None
    patch_loss(logits, target).backward()
    assert logits.grad.abs().max() > 10 * easy


def test_held_out_templates_are_not_taught() -> None:
    from words import HELD_OUT_TEMPLATES, TEMPLATES, state_pair

    assert not set(HELD_OUT_TEMPLATES) & set(TEMPLATES)
    rng = np.random.default_rng(0)
    normal, damaged = state_pair(rng, "metal nut")
    assert normal != damaged
    assert "metal nut" in normal
    assert "metal nut" in damaged


def test_a_resumed_run_sees_the_pictures_of_an_unbroken_one() -> None:
    from pool import Pool

    settings = {"fresh": 2, "capacity": 12, "workers": 1}
    with Pool(1, 0, **settings) as pool:
        for step in range(3):
            unbroken = pool.batch(step, 4, np.random.default_rng(step))
    with Pool(1, 2, **settings) as pool:
        resumed = pool.batch(2, 4, np.random.default_rng(2))
    assert torch.equal(unbroken.images, resumed.images)
    assert unbroken.words == resumed.words
    for normal, damaged in zip(*2 * [iter(unbroken.words)], strict=True):
        assert normal[:2] == damaged[:2]
        assert normal[2] == ""


def test_checkpoints_bring_everything_back(tmp_path: Path) -> None:
    from copy import deepcopy

    from model import make_model
    from teacher import Pupil
    from torch import nn
    from train import load_checkpoint, optimizers, save_checkpoint

    def parts() -> dict[str, nn.Module]:
        model = make_model()
        return {"model": model, "ema": deepcopy(model), "pupil": Pupil(256)}

    def step(parts: dict[str, nn.Module], opts: list[torch.optim.Optimizer], grad: float | None) -> None:
        for p in (*parts["model"].parameters(), *parts["pupil"].parameters()):
            p.grad = torch.randn_like(p) if grad is None else torch.full_like(p, grad)
        for opt in opts:
            opt.step()

    torch.manual_seed(0)
    one = parts()
    opts = optimizers(one["model"], 1e-3, 0.05, one["pupil"])
    step(one, opts, None)
    save_checkpoint(tmp_path / "c.safetensors", one, opts, 7, 2.5)
    other = parts()
    fresh = optimizers(other["model"], 1e-3, 0.05, other["pupil"])
    assert load_checkpoint(tmp_path / "c.safetensors", other, fresh) == (7, 2.5)
    step(one, opts, 1.0)
    step(other, fresh, 1.0)
    for name, part in one.items():
        for p, q in zip(part.parameters(), other[name].parameters(), strict=True):
            assert torch.equal(p, q)


def test_a_resumed_run_learns_what_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a step, half of them glimpses; the windows' sides are drawn anew, not taken from where it stopped."""
    import sys

    import objective
    import train
    from safetensors.torch import load_file

    monkeypatch.setattr(train, "validation_set", lambda photos: objective.validation_set([], 8))
    monkeypatch.setattr(train, "validation_twins", lambda photos: objective.validation_twins([], 4))
    monkeypatch.setattr(train, "bundled_photos", list)
    sides = []

    def losses(*args: object) -> dict[str, torch.Tensor]:
        sides.append(args[6])
        return objective.step_losses(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "step_losses", losses)
    options = "--batch 8 --accumulate 2 --glimpses 0.5 --pairs 2 --taught 0 --windows-until 0 --warmup 1 --cooldown 1"
    options += " --stock 12"
    for name, stops in (("unbroken", (4,)), ("broken", (2, 4))):
        for steps in stops:
            argv = ["x", "--out", str(tmp_path / name), "--steps", str(steps), *options.split(), "--threads", "1"]
            monkeypatch.setattr(sys, "argv", argv)
            train.main()
    assert sides[:8] == sides[8:]
    assert 24 in sides
    assert set(sides) - {24} <= set(train.GLIMPSES)
    assert len(set(sides)) > 1
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("unbroken", "broken"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, msg=key)
    assert (tmp_path / "broken/embedded/model.safetensors").exists()


def test_words_and_first_blocks_stay_when_they_are_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import objective
    import train
    from model import make_model
    from safetensors.torch import load_file

    monkeypatch.setattr(train, "validation_set", lambda photos: objective.validation_set([], 4))
    monkeypatch.setattr(train, "validation_twins", lambda photos: objective.validation_twins([], 2))
    monkeypatch.setattr(train, "bundled_photos", list)
    torch.manual_seed(3)
    start = make_model()
    train.export(tmp_path / "start", start, train.build_tokenizer())
    options = (
        "--steps 2 --batch 4 --pairs 2 --taught 0 --windows-until 0 --warmup 1 --cooldown 1 --stock 12 --words-stay"
        " --stay 3"
    )
    out = tmp_path / "out"
    argv = ["x", "--out", str(out), "--start", str(tmp_path / "start"), *options.split(), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    train.main()
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "start", out / "builtin"))
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert {key for key in before if key.startswith("text_")} <= same
    blocks = {int(key.split(".")[3]) for key in same if "mlp" in key and key.startswith("vision_model")}
    assert blocks == {0, 1, 2}
    assert {key for key in before if key.startswith("vision_model.embeddings")} <= same


def test_the_pupil_learns_what_it_is_taught_at_any_scale() -> None:
    from teacher import CHANNELS, Pupil

    torch.manual_seed(0)
    pupil, tokens = Pupil(32), torch.randn(4, 16, 32)
    taught = 50 * tokens @ torch.randn(32, CHANNELS) + 1000 * torch.randn(CHANNELS)
    opt = torch.optim.AdamW(pupil.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = pupil.loss(tokens, taught)
        opt.zero_grad()
        loss.backward()
        losses.append(loss.item())
        opt.step()
    assert 0.7 < losses[0] < 2.5  # about one variance, whatever the teacher's units
    assert losses[-1] < 0.2


def test_mixtures_of_runs_cover_the_simplex_and_keep_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    import average
    from model import make_model
    from safetensors.torch import save_file
    from train import export
    from transformers import CLIPModel

    found = set(average.shares(3, 4))
    assert len(found) == 15
    assert {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.25, 0.25, 0.5)} <= found
    assert all(sum(weights) == 1 for weights in found)
    start = make_model().state_dict()
    parts = {f"{which}.{k}": torch.full_like(v, 1.0) for k, v in start.items() for which in ("ema", "model")}
    save_file(parts, tmp_path / "a", {"step": "1"})
    exported = make_model()
    exported.load_state_dict({k: torch.full_like(v, 5.0) for k, v in start.items()})
    export(tmp_path / "b", exported, average.build_tokenizer())
    monkeypatch.setattr(average, "validation_set", lambda photos: None)
    monkeypatch.setattr(average, "validation_twins", lambda photos: None)
    monkeypatch.setattr(average, "bundled_photos", list)

    def validate(model: CLIPModel, *_: object) -> dict[str, float]:
        return dict.fromkeys(average.DECIDES, 1 - abs(model.logit_scale.item() - 2) / 10)

    monkeypatch.setattr(average, "validate", validate)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)])
    average.main()
    assert "0.75 0.25: mean 1.0000" in capsys.readouterr().out
    assert CLIPModel.from_pretrained(out).logit_scale.item() == 2
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--alike"])
    average.main()
    assert capsys.readouterr().out.startswith("0.50 0.50: mean 0.9000")
    assert CLIPModel.from_pretrained(out).logit_scale.item() == 3
