"""Models of the hub, found in its cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clip_loading import open_clip_folder, refused, rewrite, same

from blemish.clip import load_backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Makes a model of the hub in a cache of the test's own, and takes the network away."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(source: Path, name: str = "owner/tiny", ref: str = "main") -> Path:
        model = tmp_path / "home" / "hub" / ("models--" + name.replace("/", "--"))
        (model / "refs").mkdir(parents=True)
        (model / "refs" / ref).write_text(COMMIT)
        return Path(shutil.copytree(source, model / "snapshots" / COMMIT))

    return put


def test_a_model_in_the_cache(hub, folder, backbone, tmp_path, monkeypatch):
    hub(folder)
    monkeypatch.chdir(tmp_path)
    loaded = load_backbone("owner/tiny")
    assert loaded.name == "owner/tiny"
    assert same(loaded, backbone)
    assert load_backbone("owner/tiny", revision=COMMIT).name == f"owner/tiny@{COMMIT}"
    refused("owner/tiny", "neither", revision="other")


def test_a_revision_in_the_cache(hub, folder, backbone):
    hub(folder, ref="v2")
    assert load_backbone("owner/tiny", revision="v2").fingerprint == backbone.fingerprint
    refused("owner/tiny", "neither")


def test_a_model_of_open_clip_in_the_cache(hub, state, tmp_path):
    hub(open_clip_folder(tmp_path / "oc", state))
    assert load_backbone("owner/tiny").towers.config.vision_config.num_attention_heads == 4


def test_sharded_weights_in_the_cache(hub, backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path / "shards", max_shard_size="4MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    snapshot = hub(tmp_path / "shards")
    assert load_backbone("owner/tiny").fingerprint == backbone.fingerprint
    next(snapshot.glob("model-*.safetensors")).unlink()
    refused("owner/tiny", "weights of 'owner/tiny' are not on this computer")


def test_what_is_not_in_the_cache_is_told_in_a_sentence(hub, folder):
    refused("owner/other", "hf download owner/other")
    (hub(folder) / "model.safetensors").unlink()
    refused("owner/tiny", "hf download owner/tiny")


def test_another_model_in_the_cache_is_named(hub, own):
    rewrite(own / "config.json", model_type="bert")
    hub(own)
    refused("owner/tiny", "'bert'")


def test_names_that_the_hub_does_not_allow(hub):
    refused("owner/bad--name", "neither")


@pytest.mark.slow
def test_hf_home_and_offline_are_respected_by_a_fresh_process(folder, tmp_path):
    model = tmp_path / "home" / "hub" / "models--owner--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, model / "snapshots" / COMMIT)
    code = "from blemish.clip import load_backbone; print(load_backbone('owner/tiny').fingerprint)"
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == load_backbone(str(folder)).fingerprint
    assert done.stderr == ""


class Session:
    """Stands in for the hub's client: counts requests, and has no network."""

    def __init__(self) -> None:
        self.requests = 0

    def head(self, url: str, **options: object) -> None:
        self.requests += 1
        raise ConnectionError("Name or service not known")


def test_without_network_a_sentence_comes_at_once(hub, folder, tmp_path, monkeypatch):
    import huggingface_hub
    import huggingface_hub.constants as constants
    import huggingface_hub.utils

    from blemish.clip import huggingface

    session = Session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: session)
    huggingface._probe.cache_clear()
    try:
        error = refused("owner/other", r"the hub cannot be reached \(Name or service not known\): run 'hf download")
        assert str(error).count("\n") == 0
        hub(folder)
        assert load_backbone("owner/tiny").name == "owner/tiny"  # what is in the cache needs no network
        assert session.requests == 1
    finally:
        huggingface._probe.cache_clear()
