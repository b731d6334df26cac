"""Presets of the built-in model: what they change, what says so, and who refuses them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import blemish
from blemish import methods
from blemish.cli import main
from blemish.clip import Backbone, load_backbone
from blemish.errors import ProfileError, UsageError
from blemish.evaluation import load_detectors
from blemish.methods import builtin
from blemish.methods.configs import to_json
from blemish.outputs.journal import result_settings
from blemish.profile import read_profile

FAST = builtin.PRESETS["fast"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("builtin")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", methods.list_methods())
def test_every_method_has_every_preset(name: str, backbone: Backbone) -> None:
    """With `fast` the tower gets at most about half the patches, and the preset can be told from the config."""
    own = methods.create(name, backbone).config
    for preset, changes in builtin.PRESETS.items():
        method = methods.create(name, backbone, changes[name])
        assert method.config == dataclasses.replace(own, **changes[name])
        assert method.config.size % backbone.patch == 0
        assert method.computation.size == method.config.size
        assert builtin.preset_of(name, "builtin", to_json(method.config)) == preset
        assert builtin.preset_of(name, "another", to_json(method.config)) is None
        for references in (False, True):
            assert method.display_range(references=references) == methods.create(name, backbone).display_range(
                references=references
            )
    assert (FAST[name]["size"] / own.size) ** 2 < 0.51


def test_reaches_the_tower(backbone: Backbone, pictures: Path) -> None:
    size = FAST["clip"]["size"]
    detector = blemish.load("clip", backbone=backbone, preset="fast")
    assert detector.torch_engine.preprocess(Image.new("RGB", (50, 40))).shape == (1, 3, size, size)
    detection = detector(pictures / "0.png")
    assert detection.provenance is not None
    assert (detection.provenance.preset, detection.provenance.config["size"]) == ("fast", size)
    same = blemish.load("clip", backbone=backbone, config={"size": size})(pictures / "0.png")
    assert detection.score == same.score


def test_no_preset_is_the_default(backbone: Backbone) -> None:
    plain, named = (blemish.load("clip", backbone=backbone, preset=preset) for preset in (None, "default"))
    assert plain.provenance == named.provenance
    assert plain.provenance.preset == "default"


def test_fields_of_the_config_count_more(backbone: Backbone) -> None:
    other = blemish.load("clip", backbone=backbone, preset="fast", config={"size": 252})
    assert (other.engine.size, other.provenance.preset) == (252, None)
    smoother = blemish.load("clip", backbone=backbone, preset="fast", config={"sigma": 2})
    assert (smoother.engine.size, smoother.provenance.preset) == (FAST["clip"]["size"], "fast")


def test_results_do_not_depend_on_the_name(backbone: Backbone) -> None:
    """Folders of results from before there were presets go on; the size in the config tells presets apart."""
    plain, fast = (blemish.load("clip", backbone=backbone, preset=preset) for preset in (None, "fast"))
    assert "preset" not in result_settings(plain.provenance)
    assert result_settings(plain.provenance) != result_settings(fast.provenance)


def test_a_profile_remembers_it(backbone: Backbone, pictures: Path, tmp_path: Path) -> None:
    good = sorted(pictures.iterdir())[:3]
    fitted = blemish.load("joint", backbone=backbone, preset="fast").fit(good)
    assert fitted.profile is not None
    path = fitted.profile.save(tmp_path / "part.profile")
    read = read_profile(path)
    assert read.preset == read.summary()["preset"] == "fast"
    again = blemish.load(path)
    assert (again.provenance.preset, again.engine.size) == ("fast", FAST["joint"]["size"])
    assert again(pictures / "3.png").score == fitted(pictures / "3.png").score
    with pytest.raises(UsageError, match=r"^preset cannot be set beside a profile; leave out or fit again$"):
        blemish.load(path, preset="default")
    with pytest.raises(ProfileError, match=r"made with other settings: the config was \{'size': 238\}"):
        blemish.load("joint", backbone=backbone).with_profile(read)


def test_refusals_of_the_command_line_beside_a_profile(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "part.profile")
    assert main(["fit", str(pictures), "--preset", "fast", "--out", path]) == 0
    assert "by joint, preset fast." in capsys.readouterr().out
    assert main(["info", path]) == 0
    assert "\npreset         fast\n" in capsys.readouterr().out
    refused = "blemish: --preset is fixed in the profile: leave it out, or fit again with it\n"
    for words in (
        ["detect", str(pictures), "--profile", path],
        ["scan", str(pictures), "--profile", path, "--out", str(tmp_path / "out")],
        ["fit", "--profile", path, "--add", str(pictures)],
        ["export", "--profile", path, "--out", str(tmp_path / "x.onnx")],
    ):
        assert main([*words, "--preset", "default"]) == 2
        assert capsys.readouterr().err == refused
    assert main(["detect", str(pictures / "3.png"), "--profile", path, "--json"]) == 0
    assert '"preset": "fast"' in capsys.readouterr().out


@pytest.mark.parametrize("command", ["detect", "fit", "scan", "evaluate", "export", "serve"])
def test_an_unknown_preset(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [] if command in ("evaluate", "export", "serve") else ["parts"]
    words += ["--out", "x.onnx"] if command in ("scan", "export") else []
    assert main([command, *words, "--preset", "quick"]) == 2
    error = capsys.readouterr().err
    assert error.startswith('blemish: Invalid value "quick" for --preset. Choose from: "default", "fast".')
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["detect", "fit", "scan", "evaluate", "export", "serve"])
def test_another_backbone_has_none(
    command: str, pictures: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "detect": [str(pictures), "--method", "clip"],
        "fit": [str(pictures), "--method", "winclip", "--out", str(tmp_path / "x.profile")],
        "scan": [str(pictures), "--method", "clip", "--out", str(tmp_path / "out")],
        "evaluate": ["--data", str(labelled(tmp_path)), "--methods", "all"],
        "export": ["--method", "clip", "--out", str(tmp_path / "x.onnx")],
        "serve": ["--method", "clip", "--port", "0"],
    }[command]
    assert main([command, *words, "--backbone", str(tiny_backbone), "--preset", "fast"]) == 2
    error = capsys.readouterr().err
    assert error == f"blemish: {tiny_backbone} has no presets, only the built-in model has: leave out the preset\n"


def labelled(root: Path) -> Path:
    for folder in ("test/good", "test/bad"):
        (root / "set" / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40), (90, 90, 90)).save(root / "set" / folder / "0.png")
    return root / "set"


def test_names_that_there_are_not(backbone: Backbone) -> None:
    with pytest.raises(
        UsageError, match=r"^there is no preset 'fats' \(did you mean fast or default\?\); the presets are default"
    ):
        blemish.load("clip", backbone=backbone, preset="fats")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^my-method has no presets, only methods of blemish have"):
        builtin.preset_changes("fast", "my-method", "builtin")


def test_one_preset_for_all_methods_of_an_evaluation(backbone: Backbone) -> None:
    detectors, _ = load_detectors(["clip", "anomalyclip"], backbone, preset="fast", configs={"clip": {"sigma": 2}})
    assert {detector.provenance.preset for detector in detectors.values()} == {"fast"}
    assert detectors["clip"].provenance.config["sigma"] == 2
