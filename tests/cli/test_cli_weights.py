"""`blemish weights`: fetching, converting and showing; every file that does not fit is refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blemish.clip import Backbone, load_backbone
from blemish.hub import TABLE, Published, blob_id, local_path
from blemish.methods import create, load_class
from blemish.methods.base import Method
from helpers import save_picture, save_tiny_backbone

RECIPES: dict[str, dict[str, Any]] = {
    "anomalyclip": {"n_ctx": 12, "depth": 9, "t_n_ctx": 4},
    "april-gan": {},
    "clip-ad-sdp-plus": {},
    "vcp-clip": {},
}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def official(method: Method) -> dict[str, Any]:
    """What the method's authors would have saved."""
    own = {name: value.clone() for name, value in method.state_dict().items()}
    match method.info.name:
        case "anomalyclip":
            learner = {"ctx_pos": own["context"][0][None, None], "ctx_neg": own["context"][1][None, None]}
            return {"prompt_learner": learner | {f"compound_prompts_text.{k}": v for k, v in enumerate(own["deep"])}}
        case "april-gan" | "clip-ad-sdp-plus" as name:
            inner = {key.removeprefix("adapters."): value for key, value in own.items()}
            return {"trainable_linearlayer" if name == "april-gan" else "linear_layers": inner}
    post = {"query": "q_proj_pre", "key": "k_proj_pre_1", "value": "v_proj_pre_1", "out": "proj_post_t"}
    conv = {f"{theirs}.weight": own[f"post.{ours}.weight"][..., None] for ours, theirs in post.items()}
    bias = {f"{theirs}.bias": own[f"post.{ours}.bias"] for ours, theirs in post.items()}
    return {
        "trainable_linearlayer": {k.removeprefix("linear."): v for k, v in own.items() if k.startswith("linear.")},
        "New_Lan_Embed": {
            "prompt_query": own["pre.query"][None],
            "prompt_temp": own["raw_scale"],
            "prompt_linear1.fc.weight": own["pre.conv.weight"],
            "prompt_linear1.fc.bias": own["pre.conv.bias"],
        },
        "Zero_try": {"prompt_temp_l1": own["new_scale"], **conv, **bias},
        "prompt_embeddings": own["deep.tokens"][:1],
        "deep_prompt_embeddings": own["deep.tokens"][1:],
        "prompt_proj.weight": own["deep.projection.weight"],
        "prompt_proj.bias": own["deep.projection.bias"],
        "prompt_norm.weight": own["deep.norm.weight"],
        "prompt_norm.bias": own["deep.norm.bias"],
    }


@pytest.fixture
def publication(backbone: Backbone, tmp_path: Path) -> Callable[[str], tuple[Method, Path]]:
    """A method with values of its own, and a file as its authors would publish it."""

    def make(name: str) -> tuple[Method, Path]:
        cls = load_class(name)
        method = cls(backbone, replace(cls.Config(), **RECIPES[name]))
        method.reset(3)
        torch.save(official(method), tmp_path / f"{name}.pth")
        return method, tmp_path / f"{name}.pth"

    return make


@pytest.fixture
def fit(run, tiny_backbone: Path, tmp_path: Path):
    """`blemish weights import` with the stand-in backbone."""

    def call(file: object, *words: object):
        return run("weights", "import", file, "--backbone", tiny_backbone, "--out", tmp_path / "o.safetensors", *words)

    return call


def refused(outcome, *parts: str) -> None:
    assert outcome.code == 1, outcome.err
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", RECIPES)
def test_import(fit, publication, backbone: Backbone, tmp_path: Path, name: str) -> None:
    method, path = publication(name)
    outcome = fit(path, "--trained-on", "plates", "--json")
    assert outcome.code == 0, outcome.err
    header = json.loads(outcome.out)
    assert (header["method"], header["trained_on"]) == (name, "plates")
    assert header["backbone_fingerprint"] == backbone.fingerprint
    assert path.name in header["source"]
    again = create(name, backbone, weights=tmp_path / "o.safetensors")
    assert again.config == method.config
    for key, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_import_of_contexts_for_classes(fit, backbone: Backbone, tmp_path: Path) -> None:
    path, context = tmp_path / "model.pth.tar-50", torch.randn(6, 4, backbone.text_width)
    torch.save({"state_dict": {"ctx": context}}, path)
    refused(
        fit(path, "--method", "coop"), "contexts for 6 phrases", "name the objects that they were trained on as cla"
    )
    outcome = fit(path, "--method", "coop", "--config", '{"classes": ["bolt", "nut", "cable"]}', "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["config"]["classes"] == ["bolt", "nut", "cable"]
    assert fit(path, "--method", "coop", "--config", "[1]", "--overwrite").code == 2


def test_a_file_from_the_table_is_known_by_its_content(fit, publication, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = publication("april-gan")
    one = Published("plates", "april-gan", "PlateS", "owner/code", "0" * 40, "weights/x.pth", blob_id(path))
    monkeypatch.setitem(TABLE, "plates", one)
    header = json.loads(fit(path, "--json").out)
    assert header["trained_on"] == "PlateS"
    assert one.blob in header["source"]


def test_of_another_method(fit, publication) -> None:
    _, path = publication("anomalyclip")
    refused(fit(path, "--method", "april-gan"), "AnomalyCLIP, not of APRIL-GAN")
    _, path = publication("clip-ad-sdp-plus")
    refused(fit(path, "--method", "anomalyclip"), "dual path with adapters, not of AnomalyCLIP")


def test_of_no_method(fit, tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
    refused(fit(tmp_path / "resnet.pth"), "like none of the files that are known (AnomalyCLIP", "state_dict")


@pytest.mark.parametrize("name", RECIPES)
def test_for_another_backbone(fit, publication, tmp_path: Path, name: str) -> None:
    method, path = publication(name)
    state = torch.load(path)
    for inner in state.values():
        for key in list(inner) if isinstance(inner, dict) else ():
            if key.endswith("weight") or key == "ctx_pos":
                inner[key] = torch.cat([inner[key], inner[key]], dim=-1)  # twice as wide
                break
    torch.save(state, path)
    refused(fit(path), f"does not fit {name} on the backbone {method.backbone.name}", "shape")
    assert not (tmp_path / "o.safetensors").exists()


def test_for_another_backbone_of_the_same_sizes(fit, publication, backbone: Backbone) -> None:
    _, path = publication("anomalyclip")
    state = torch.load(path)
    state["prompt_learner"]["token_prefix_pos"] = torch.ones(1, 1, 1, backbone.text_width)
    torch.save(state, path)
    refused(fit(path), "'token_prefix_pos'", "another CLIP")


def test_truncated_missing_and_our_own(fit, publication, backbone: Backbone, tmp_path: Path) -> None:
    method, path = publication("april-gan")
    path.write_bytes(path.read_bytes()[:-200])
    refused(fit(path), "damaged or holds more than tensors")
    assert fit(tmp_path / "none.pth").code == 2
    from blemish.methods import checkpoints

    checkpoints.save(method, tmp_path / "own.safetensors")
    refused(fit(tmp_path / "own.safetensors"), "blemish's own file already (of april-gan)")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil-was-here",)


def test_no_code_is_run(fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"prompt_learner": Evil()}, "archive.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("archive.pth", "plain.pth"):
        refused(fit(name), "damaged or holds more than tensors")
        refused(run("weights", "show", name), "damaged or holds more than tensors")
    assert not Path("evil-was-here").exists()


def test_nothing_is_overwritten_unasked(fit, publication, tmp_path: Path) -> None:
    _, path = publication("april-gan")
    (tmp_path / "o.safetensors").write_text("precious")
    assert fit(path).code == 2
    assert (tmp_path / "o.safetensors").read_text() == "precious"
    assert fit(path, "--overwrite").code == 0


# pull, list, show, detect


@pytest.fixture
def pulled(run, publication, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of weights that lie where `pull` puts them."""
    monkeypatch.setenv("BLEMISH_HOME", str(tmp_path / "home"))
    _, path = publication("april-gan")
    one = Published("plates", "april-gan", "PlateS", "owner/code", "0" * 40, "weights/x.pth", blob_id(path))
    monkeypatch.setitem(TABLE, "plates", one)
    local_path(one).parent.mkdir(parents=True)
    path.rename(local_path(one))
    return "plates"


def test_list(run, pulled: str) -> None:
    rows = {line.split()[0]: line.split()[-1] for line in run("weights", "list").out.splitlines()}
    assert rows["plates"] == "yes"
    assert rows["anomalyclip-trained-on-visa"] == "no"
    found = [json.loads(line) for line in run("weights", "list", "--json").out.splitlines()]
    assert {one["name"] for one in found if one["here"]} == {"plates"}


def test_pull(run, pulled: str) -> None:
    outcome = run("weights", "pull", pulled)
    assert outcome.code == 0
    assert "as published" in outcome.out
    assert run("weights", "pull", "plate").code == 2
    assert run("weights", "pull", pulled, "--attempts", 0).code == 2
    outcome = run("weights", "pull", "anomalyclip-trained-on-visa", "--base-url", "http://127.0.0.1:9", "--attempts", 1)
    refused(outcome, "could not be fetched")
    assert run("weights", "pull", "anomalyclip-trained-on-visa", "--base-url", "file:///x").code == 2


def test_show(run, pulled: str, fit, tmp_path: Path) -> None:
    outcome = run("weights", "show", pulled)
    assert outcome.code == 0
    assert "trainable_linearlayer/fc.0.weight" in outcome.out
    assert "PlateS" in outcome.out
    assert fit(pulled).code == 0
    facts = json.loads(run("weights", "show", tmp_path / "o.safetensors", "--json").out)
    assert (facts["method"], facts["trained_on"]) == ("april-gan", "PlateS")
    assert facts["tensors"]["adapters.fc.0.weight"] == [16, 32]
    assert run("weights", "show", "anomalyclip-trained-on-visa").code == 0
    assert run("weights", "show", "nonsense").code == 2
    assert run("weights", "show", tmp_path / "none.pth").code == 2


def test_detect_finds_it_by_name(run, pulled: str, tiny_backbone: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    words = ("detect", picture, "--weights", pulled, "--device", "cpu")
    outcome = run(*words, "--method", "april-gan", "--backbone", tiny_backbone)
    assert outcome.code == 0, outcome.err
    for more, message in (
        (("--backbone", tiny_backbone), "are weights of april-gan, not of anomalyclip"),
        (("--method", "april-gan"), "not on the built-in model"),
    ):
        outcome = run(*words, *more)
        assert outcome.code == 2
        assert message in outcome.err


def test_weights_of_another_backbone_in_detect(run, fit, publication, tmp_path: Path, capsys) -> None:
    _, path = publication("april-gan")
    assert fit(path).code == 0
    other = save_tiny_backbone(tmp_path / "other", seed=1)
    capsys.readouterr()  # transformers shows a bar
    words = ("detect", save_picture(tmp_path / "a.png"), "--method", "april-gan", "--backbone", other)
    refused(run(*words, "--weights", tmp_path / "o.safetensors"), "which is not the one in use")
