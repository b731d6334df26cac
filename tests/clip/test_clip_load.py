"""Everything that `load_backbone` takes, and everything that it must refuse."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import pytest
import torch
from clip_loading import open_clip_folder, refused, rewrite, same
from safetensors.torch import save_file

from blemish.clip import Backbone, from_openai_state_dict, load_backbone
from blemish.clip import load as load_module
from blemish.clip.tokenizer import clip_tokenizer
from blemish.errors import UsageError

# Folders of transformers


def test_a_folder_of_transformers(folder, backbone, capfd):
    random = torch.random.get_rng_state()
    loaded = load_backbone(str(folder))
    assert same(loaded, backbone)
    assert loaded.name == str(folder)
    assert not loaded.towers.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.mean, loaded.std) == (backbone.mean, backbone.std)
    assert torch.equal(torch.random.get_rng_state(), random)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_a_folder_with_a_tokenizer_and_numbers_of_its_own(own, backbone):
    clip_tokenizer().backend.save(str(own / "tokenizer.json"))
    (own / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0, 0], "image_std": [1, 2, 3.5]}))
    loaded = load_backbone(str(own))
    assert same(loaded, backbone)
    assert (loaded.mean, loaded.std) == ((0.5, 0.0, 0.0), (1.0, 2.0, 3.5))


def test_half_weights_become_float32(own, backbone):
    weights = {key: value.half().contiguous() for key, value in backbone.model.state_dict().items()}
    # Older checkpoints also hold position numbers.
    weights["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    loaded = load_backbone(str(own))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    weight = loaded.towers.visual_projection.weight
    assert torch.equal(weight, backbone.towers.visual_projection.weight.half().float())


def test_weights_of_torch_save_in_a_folder(own, backbone):
    (own / "model.safetensors").unlink()
    torch.save(backbone.model.state_dict(), own / "pytorch_model.bin")
    assert same(load_backbone(str(own)), backbone)


def test_weights_of_torch_save_in_several_files(own, backbone):
    (own / "model.safetensors").unlink()
    state = backbone.towers.state_dict()
    files = {name: f"pytorch_model-{number % 2}.bin" for number, name in enumerate(state)}
    for file in set(files.values()):
        torch.save({name: value for name, value in state.items() if files[name] == file}, own / file)
    index = own / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert same(load_backbone(str(own)), backbone)
    (own / "pytorch_model-1.bin").unlink()
    refused(own, "cannot be opened")
    index.write_text("{}")
    refused(own, "does not list")


def test_the_home_folder_is_understood(own, backbone, monkeypatch):
    monkeypatch.setenv("HOME", str(own.parent))
    assert load_backbone("~/tiny").fingerprint == backbone.fingerprint


def cut(path, size=2000):
    path.write_bytes(path.read_bytes()[:size])


def drop_weight(own):
    from safetensors.torch import load_file

    weights = load_file(own / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})


def add_weight(own):
    from safetensors.torch import load_file

    weights = load_file(own / "model.safetensors")
    weights["adapter.weight"] = torch.zeros(2)
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})


def evil_folder(own):
    (own / "model.safetensors").unlink()
    (own / "pytorch_model.bin").write_bytes(evil_pickle(own / "ran"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda own: cut(own / "model.safetensors"), "cannot be loaded"),
        (lambda own: cut(own / "config.json", 30), "cannot be read"),
        (lambda own: (own / "config.json").write_text("[]"), "JSON object"),
        (lambda own: (own / "config.json").unlink(), "holds no model"),
        (lambda own: (own / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda own: (own / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "LFS"),
        (lambda own: rewrite(own / "config.json", model_type="bert"), "'bert'"),
        (lambda own: rewrite(own / "config.json", vision_config__num_hidden_layers=6), "missing keys"),
        (lambda own: rewrite(own / "config.json", vision_config__num_hidden_layers=4), "unexpected keys"),
        (
            lambda own: rewrite(own / "config.json", vision_config__image_size=80),
            r"position_embedding.weight \(17, 128\) instead of \(26, 128\)",
        ),
        (lambda own: rewrite(own / "config.json", vision_config__num_attention_heads=3), "hidden size"),
        (drop_weight, "text_projection"),
        (add_weight, "adapter.weight"),
        (evil_folder, "runs no code"),
        (lambda own: (own / "preprocessor_config.json").write_text('{"image_mean": [1, 2]}'), "three numbers"),
        (lambda own: (own / "preprocessor_config.json").write_text('{"image_std": [1, 2, 0]}'), "above zero"),
        (lambda own: (own / "tokenizer.json").write_text("{}"), "tokenizer"),
    ],
)
def test_damaged_folders_are_refused(own, damage, says):
    damage(own)
    assert refused(own, says).path is not None
    assert not (own / "ran").exists()


def test_a_tokenizer_is_needed_where_the_vocabulary_is_not_clips(state, tmp_path):
    state["token_embedding.weight"] = state["token_embedding.weight"][:100]
    from_openai_state_dict(state, activation="gelu").to_transformers().save_pretrained(tmp_path)
    refused(tmp_path, "no tokenizer")
    clip_tokenizer().backend.save(str(tmp_path / "tokenizer.json"))
    refused(tmp_path, "more tokens")


# Files


def evil_pickle(mark):
    class Evil:
        def __reduce__(self):
            return open, (str(mark), "w")

    return pickle.dumps({"visual.proj": Evil()}, protocol=2)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_open_clip_files_have_exact_gelu_by_default(state, tmp_path, suffix, wrapped):
    path = tmp_path / f"open_clip{suffix}"
    if wrapped:
        state = {f"module.{key}": value for key, value in state.items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    for given, wanted in ((None, "gelu"), ("quick_gelu", "quick_gelu")):
        loaded = load_backbone(str(path), activation=given)
        model = from_openai_state_dict(bare, activation=wanted)
        assert loaded.towers.config.vision_config.hidden_act == wanted
        assert same(loaded, Backbone(model, clip_tokenizer()))


def module_of(state):
    """A module whose parameters have the names of a state dict, and what else OpenAI's archives hold."""
    root = torch.nn.Module()
    for key, value in state.items():
        *path, last = key.split(".")
        at = root
        for name in path:
            if not hasattr(at, name):
                at.add_module(name, torch.nn.Module())
            at = getattr(at, name)
        at.register_parameter(last, torch.nn.Parameter(value.half(), requires_grad=False))
    root.register_buffer("input_resolution", torch.tensor(64))
    root.transformer.register_buffer("attn_mask", torch.zeros(24, 24))
    return root


@pytest.fixture(scope="module")
def openai_archive(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("openai") / "ViT-tiny.pt"
    state = {key: torch.tensor(value) for key, value in arrays.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is giving up TorchScript; OpenAI's files stay what they are
        torch.jit.script(module_of(state)).save(str(path))
    return path


def test_openai_archives_have_quick_gelu(openai_archive, state):
    loaded = load_backbone(str(openai_archive))
    rounded = {key: value.half() for key, value in state.items()}
    model = from_openai_state_dict(rounded, activation="quick_gelu")
    assert loaded.towers.config.text_config.hidden_act == "quick_gelu"
    assert same(loaded, Backbone(model, clip_tokenizer()))
    assert load_backbone(str(openai_archive), activation="gelu").towers.config.text_config.hidden_act == "gelu"


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("size", [0, 7, 3000])
def test_truncated_files_are_refused(state, tmp_path, suffix, size):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    cut(path, size)
    assert refused(path, "damaged").path == str(path)


def test_a_truncated_archive_is_refused(openai_archive, tmp_path):
    path = tmp_path / "cut.pt"
    shutil.copy(openai_archive, path)
    cut(path, path.stat().st_size // 2)
    refused(path, "damaged")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_malicious_files_do_not_run(tmp_path, suffix):
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(evil_pickle(tmp_path / "ran"))
    refused(path, "damaged")
    assert not (tmp_path / "ran").exists()


def test_a_malicious_zip_does_not_run(state, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"state_dict": state, "extra": Evil()}, tmp_path / "evil.pt")
    refused(tmp_path / "evil.pt", "no code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda s: [1, 2], "a list"),
        (lambda s: {"epoch": 3}, "no tensors"),
        (lambda s: {"weight": torch.zeros(2)}, "is missing"),
        (lambda s: {"vision_model.embeddings.class_embedding": torch.zeros(2)}, "name the folder"),
        (lambda s: s | {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "ResNet"),
        (lambda s: {k: v for k, v in s.items() if k != "ln_final.bias"}, "ln_final"),
        (lambda s: s | {"visual.proj": torch.zeros(127, 64)}, "shape"),
        (lambda s: s | {"token_embedding.weight": torch.zeros(100, 64)}, "no tokenizer"),
    ],
)
def test_files_of_other_models_are_refused(state, tmp_path, made, says):
    torch.save(made(state), tmp_path / "other.pt")
    refused(tmp_path / "other.pt", says)


def test_an_lfs_pointer_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(tmp_path / "model.safetensors", "LFS")


# Folders of open_clip


def test_a_folder_of_open_clip(state, tmp_path):
    loaded = load_backbone(str(open_clip_folder(tmp_path / "oc", state)))
    model = from_openai_state_dict(state, heads=(4, 2), activation="quick_gelu")
    assert same(loaded, Backbone(model, clip_tokenizer()))
    assert (loaded.mean, loaded.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vision_cfg": {"timm_model_name": "x"}}, "not a CLIP"),
        ({"vision_cfg": {"width": 128, "pool_type": "avg"}}, "pools"),
        ({"text_cfg": None}, "not a CLIP"),
    ],
)
def test_other_models_of_open_clip_are_refused(state, tmp_path, changes, says):
    refused(open_clip_folder(tmp_path / "oc", state, **changes), says)


def test_a_folder_of_open_clip_without_weights(state, tmp_path):
    folder = open_clip_folder(tmp_path / "oc", state)
    (folder / "open_clip_model.safetensors").unlink()
    refused(folder, "no weights")


# Names


def test_builtin_is_a_folder_in_the_package(own, backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(load_module, "BUILTIN", own)
    loaded = load_backbone()
    assert loaded.name == "builtin"
    assert loaded.fingerprint == backbone.fingerprint
    assert load_backbone("embedded").name == "builtin"  # its earlier name
    monkeypatch.setattr(load_module, "BUILTIN", tmp_path / "nowhere")
    refused("builtin", "missing from this installation")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/nowhere/at/all", "./gone.pt", "with blank/name"])
def test_what_is_neither_path_nor_name_is_refused(name):
    refused(name, "there is no file or folder")


def test_options_that_do_not_apply(folder, openai_archive):
    for name, options in (
        (folder, {"activation": "gelu"}),
        ("builtin", {"activation": "gelu"}),
        ("owner/model", {"activation": "gelu"}),
        (folder, {"revision": "main"}),
        (openai_archive, {"revision": "main"}),
        ("builtin", {"revision": "main"}),
        ("", {}),
    ):
        with pytest.raises(UsageError):
            load_backbone(str(name), **options)
