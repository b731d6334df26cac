"""Finding and making methods by name."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.errors import UsageError
from blemish.methods.clip import Clip, ClipConfig


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def test_every_class_has_its_entry() -> None:
    for name, entry in methods.METHODS.items():
        assert entry.name == name
        assert methods.load_class(name).info is entry is methods.info(name)


def test_what_a_method_author_needs_is_in_one_place() -> None:
    for name in methods.__all__:
        assert getattr(methods, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = methods.Nothing


def test_listing_imports_no_torch() -> None:
    code = "import sys; from blemish import methods; list(map(methods.info, methods.list_methods()))"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_name(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r"'anomaly-clip' \(did you mean anomalyclip.*clip-ac"):
        methods.create("anomaly-clip", backbone)
    with pytest.raises(UsageError, match=r"no method called 'zzz'; the methods are anomalyclip, "):
        methods.info("zzz")


def test_which_config(backbone: Backbone) -> None:
    assert methods.create("clip", backbone).config == ClipConfig()
    assert methods.create("clip", backbone, {"sigma": 2, "layers": [6, -1]}).config == ClipConfig(
        sigma=2.0, layers=(6, -1)
    )
    assert methods.create("clip", backbone, ClipConfig(size=74)).config.size == 74
    builtin = Backbone(backbone.model, backbone.tokenizer, name="builtin")
    assert methods.create("clip", builtin).config == ClipConfig(size=336)


def test_plugins(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("mine", "blemish.methods.clip:Clip", "blemish.methods"),
        importlib.metadata.EntryPoint("broken", "nowhere:Nothing", "blemish.methods"),
        importlib.metadata.EntryPoint("clip-ac", "nowhere:Nothing", "blemish.methods"),  # cannot take our names
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "blemish.methods" else [])
    assert methods.list_methods() == sorted([*methods.METHODS, "broken", "mine"])
    assert isinstance(methods.create("mine", backbone), Clip)
    assert methods.info("clip-ac").title.startswith("CLIP-AC")
    with pytest.raises(UsageError, match=r"plug-in broken \(nowhere:Nothing\) cannot be loaded"):
        methods.create("broken", backbone)
