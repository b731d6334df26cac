"""Files of weights: everything that does not fit is refused in one sentence, and no code is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.errors import OutputError, WeightsError
from blemish.methods import checkpoints
from blemish.methods.anomalyclip import AnomalyCLIP, AnomalyClipConfig
from blemish.methods.configs import to_json
from helpers import save_tiny_backbone

CONFIG = AnomalyClipConfig(size=148, n_ctx=3, depth=3, t_n_ctx=2)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def learnt(backbone: Backbone) -> AnomalyCLIP:
    return AnomalyCLIP(backbone, CONFIG)


@pytest.fixture
def written(learnt: AnomalyCLIP, tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    checkpoints.save(learnt, path, trained_on="plates")
    return path


def change(path: Path, tensors: dict[str, Any] | None = None, **metadata: str) -> None:
    """Writes the file anew with other tensors (None takes one away) or other header entries."""
    old, header = checkpoints.read_tensors(path)
    both = {**old, **(tensors or {})}
    save_file({k: v for k, v in both.items() if v is not None}, path, {**header, **metadata})


def refused(backbone: Backbone, path: Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        methods.create("anomalyclip", backbone, weights=path)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)


def test_header(written: Path, backbone: Backbone) -> None:
    header = checkpoints.read_header(written)
    assert header == checkpoints.Header(
        "anomalyclip", to_json(CONFIG), backbone.name, backbone.fingerprint, trained_on="plates", source=""
    )


def test_a_header_is_read_without_the_tensors(written: Path) -> None:
    header, data = checkpoints.read_header(written), written.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    written.write_bytes(data[:length])
    assert checkpoints.read_header(written) == header
    written.write_bytes(data[: length // 2])
    with pytest.raises(WeightsError, match="is damaged or not a safetensors file"):
        checkpoints.read_header(written)


def test_headers_of_older_files_are_read(learnt: AnomalyCLIP, written: Path) -> None:
    """The config was once called recipe, and the built-in backbone embedded."""
    tensors, entries = checkpoints.read_tensors(written)
    entries["recipe"] = entries.pop("config")
    checkpoints.write_tensors(written, tensors, {**entries, "backbone": "embedded"})
    header = checkpoints.load(learnt, written)
    assert (header.config, header.backbone) == (to_json(CONFIG), "builtin")


def test_same_content_same_bytes(learnt: AnomalyCLIP, written: Path, tmp_path: Path) -> None:
    for number in range(5):
        checkpoints.save(learnt, tmp_path / f"{number}", trained_on="plates")
        assert (tmp_path / f"{number}").read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"deep": None}, "no tensor 'deep'"),
        ({"more": torch.zeros(1)}, "a tensor 'more' that the method does not know"),
        ({"context": torch.zeros(2, 4, 16)}, r"'context' .* shape \(2, 4, 16\) .* ask for \(2, 3, 16\)"),
        ({"context": torch.full((2, 3, 16), float("nan"))}, "not finite"),
        ({"context": torch.zeros(2, 3, 16, dtype=torch.int64)}, "not finite numbers"),
    ],
)
def test_tensors_that_do_not_fit(backbone: Backbone, written: Path, tensors: dict[str, Any], message: str) -> None:
    change(written, tensors)
    refused(backbone, written, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": "other"}, "not written by blemish"),
        ({"method": "clip"}, "holds weights of clip, not of anomalyclip"),
        ({"config": "{"}, "damaged header"),
        ({"config": "[]"}, "damaged header"),
        ({"backbone_fingerprint": "0" * 16}, "load that backbone or train on this one"),
    ],
)
def test_headers_that_do_not_fit(backbone: Backbone, written: Path, entries: dict[str, str], message: str) -> None:
    change(written, **entries)
    refused(backbone, written, message)


def test_other_backbone(written: Path, tmp_path: Path) -> None:
    other = load_backbone(str(save_tiny_backbone(tmp_path / "other", seed=1)))
    refused(other, written, "which is not the one in use")
    method = AnomalyCLIP(other, CONFIG)
    assert checkpoints.load(method, written, any_backbone=True).trained_on == "plates"


def test_nothing_is_changed_by_a_refusal(learnt: AnomalyCLIP, written: Path) -> None:
    change(written, {"more": torch.zeros(1), "context": torch.ones(2, 3, 16)})
    before = learnt.context.detach().clone()
    with pytest.raises(WeightsError):
        checkpoints.load(learnt, written)
    assert torch.equal(learnt.context, before)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"not weights at all, but long enough to be something"])
def test_not_a_safetensors_file(backbone: Backbone, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(backbone, path, "damaged or not a safetensors file")


def test_truncated_and_missing(backbone: Backbone, written: Path, tmp_path: Path) -> None:
    written.write_bytes(written.read_bytes()[:-10])
    refused(backbone, written, "damaged")
    refused(backbone, tmp_path / "none", "cannot be read")
    with pytest.raises(WeightsError, match="there is no weights file"):
        checkpoints.read_header(tmp_path / "none")


def test_cannot_be_written(learnt: AnomalyCLIP, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoints.save(learnt, tmp_path / "file" / "w.safetensors")


# the authors' own files


def official(method: AnomalyCLIP) -> dict[str, dict[str, torch.Tensor]]:
    """What the authors' code would save: learnt tokens, unused projections, frozen embeddings and numbers."""
    r, backbone = method.config, method.backbone
    words = backbone.tokenize(["object.", "damaged object."])
    embedded, kept = backbone.embed(words), backbone.context - r.n_ctx
    state: dict[str, torch.Tensor] = {
        "compound_prompt_projections.0.weight": torch.ones(3, 2),
        "compound_prompt_projections.0.bias": torch.ones(3),
    }
    for row, name in enumerate(("pos", "neg")):
        state[f"ctx_{name}"] = method.context.detach()[row][None, None].clone()
        state[f"token_prefix_{name}"] = embedded[row, :1][None, None]
        state[f"token_suffix_{name}"] = embedded[row, 1:kept][None, None]
        placeholders = torch.full((r.n_ctx,), 7)
        ids = torch.cat([words[row, :1], placeholders, words[row, 1:kept]])
        state[f"tokenized_prompts_{name}"] = ids[None, None].int()
    state |= {f"compound_prompts_text.{k}": tokens.detach().clone() for k, tokens in enumerate(method.deep)}
    return {"prompt_learner": state}


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_published_layout(backbone: Backbone, tmp_path: Path, depth: int) -> None:
    method = AnomalyCLIP(backbone, replace(CONFIG, depth=depth, n_ctx=4))
    method.reset(3)
    torch.save(official(method), tmp_path / "epoch_15.pth")
    found = methods.create("anomalyclip", backbone, {"size": 148}, weights=tmp_path / "epoch_15.pth")
    assert (found.config.n_ctx, found.config.depth, found.config.size) == (4, depth, 148)
    for name, value in method.state_dict().items():
        if value.numel():
            assert torch.equal(found.state_dict()[name], value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("ctx_neg"), "no tensor 'ctx_neg'"),
        (lambda s: s.pop("compound_prompts_text.0"), "no tensor 'compound_prompts_text.0'"),
        (lambda s: s.update(ctx_neg=torch.zeros(1, 1, 3, 8)), "'ctx_neg' .* shape"),
        (lambda s: s.update({"compound_prompts_text.1": torch.zeros(1, 8)}), "'compound_prompts_text.1' .* shape"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra' that the method does not know"),
        (lambda s: s.update(token_other=torch.zeros(1)), "'token_other' that the method does not know"),
        (lambda s: s["token_prefix_pos"].add_(0.1), "'token_prefix_pos' .* another CLIP"),
        (lambda s: s["token_suffix_neg"].mul_(1.1), "'token_suffix_neg' .* another CLIP"),
        (lambda s: s["tokenized_prompts_pos"].add_(1), "'tokenized_prompts_pos' .* another CLIP"),
        (lambda s: s.update(token_prefix_pos=torch.zeros(1, 1, 1, 8)), "'token_prefix_pos' .* another CLIP"),
        (lambda s: s.pop("ctx_pos"), "no 'ctx_pos'"),
    ],
)
def test_published_files_that_do_not_fit(
    learnt: AnomalyCLIP, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = official(learnt)
    edit(state["prompt_learner"])
    with pytest.raises(WeightsError, match=message):
        checkpoints.load_official(learnt, state)


def test_published_frozen_parts_may_be_missing_or_rounded(learnt: AnomalyCLIP) -> None:
    state = official(learnt)
    learner = state["prompt_learner"]
    for name in ("token_prefix_pos", "token_suffix_neg"):
        learner[name] = learner[name].half().float()
    del learner["tokenized_prompts_pos"], learner["token_suffix_pos"]
    checkpoints.load_official(learnt, state)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil-was-here",)


def test_no_code_is_run(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"prompt_learner": Evil()}, "archive.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("archive.pth", "plain.pth"):
        refused(backbone, Path(name), "damaged or holds more than tensors")
    assert not Path("evil-was-here").exists()


def test_not_the_authors_layout(backbone: Backbone, tmp_path: Path) -> None:
    torch.save({"state": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no 'prompt_learner'"):
        methods.create("anomalyclip", backbone, weights=tmp_path / "x.pth")
    torch.save([1], tmp_path / "x.pth")
    refused(backbone, tmp_path / "x.pth", "does not hold a dictionary")


def test_no_changed_byte_is_read_as_weights(learnt: AnomalyCLIP, written: Path) -> None:
    whole = written.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 100):
        changed = bytearray(whole)
        changed[at] ^= 1
        written.write_bytes(changed)
        with pytest.raises(WeightsError, match="is damaged or not a safetensors file"):
            checkpoints.read_tensors(written)


def test_files_of_earlier_versions_have_no_hash(written: Path) -> None:
    tensors, entries = checkpoints.read_tensors(written)
    save_file(tensors, written, entries)
    assert checkpoints.read_tensors(written)[1] == entries
