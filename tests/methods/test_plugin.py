"""A method from outside: the example of docs/adding-a-method.md, installed as a package and used in a fresh process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-method.md"

USE = """
import sys
import numpy as np, torch
from PIL import Image
from blemish import methods
from blemish.clip import load_backbone
from blemish.training import Sample, train

backbone = load_backbone(sys.argv[1])
method = methods.create("weighted-clip", backbone, {"size": 148, "layers": [6, 12, -1]})
assert type(method).__module__ == "weighted_clip"
rng = np.random.default_rng(0)
pictures = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(4)]
masks = [rng.integers(0, 2, (20, 30)).astype(bool) if label else None for label in (0, 1, 0, 1)]
samples = [Sample(p, m, int(m is not None), "metal nut") for p, m in zip(pictures, masks, strict=True)]
history = train(method, samples, steps=6, batch_size=4, out=sys.argv[2])
assert history[-1]["total"] < history[0]["total"], history
again = methods.create("weighted-clip", backbone, weights=sys.argv[2] + "/weights.safetensors")
assert again.config == method.config and torch.equal(again.weights, method.weights)
with torch.no_grad():
    features = backbone.encode_image(backbone.preprocess(pictures, 148), again.request, again.computation)
    found = again.score(features, again.text_features(["metal nut"])[0])
assert found.map.shape == (4, 148, 148) and 0 <= float(found.map.min()) <= float(found.map.max()) <= 1
print("done")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip leaves it: the module of the guide, and what its entry points are; one of them is broken."""
    folder = tmp_path_factory.mktemp("site")
    text = GUIDE.read_text(encoding="utf-8")
    (module,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (folder / "weighted_clip.py").write_text(module, encoding="utf-8")
    (entry,) = re.findall(r'^(weighted-clip) = "(.*)"$', text, re.MULTILINE)
    written = folder / "weighted_clip-1.0.dist-info"
    written.mkdir()
    (written / "METADATA").write_text("Metadata-Version: 2.1\nName: weighted-clip\nVersion: 1.0\n", encoding="utf-8")
    lines = [
        "[blemish.methods]",
        " = ".join(entry),
        "broken = no_such_module:Thing",
        "clip = weighted_clip:WeightedClip",
    ]
    (written / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def test_a_plugin_is_a_method_like_ours(site: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    done = run(site, "-c", USE, str(tiny_backbone), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("done")


def test_plugins_are_listed_without_being_loaded(site: Path) -> None:
    code = "import sys; from blemish import methods; print(*methods.list_methods(), 'torch' in sys.modules)"
    done = run(site, "-c", code)
    *names, torch = done.stdout.split()
    assert {"weighted-clip", "broken", "clip"} <= set(names)
    assert names.count("clip") == 1
    assert torch == "False"


def test_info_of_plugins(site: Path) -> None:
    code = """
from blemish import methods
from blemish.errors import UsageError
print(methods.info("weighted-clip").title)
print(methods.info("clip").title)
try:
    methods.info("broken")
except UsageError as error:
    print(error)
"""
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    ours, clip, broken = done.stdout.splitlines()
    assert ours == "Weighted CLIP"
    assert clip == "CLIP, two prompts"  # the name is taken
    assert broken.startswith("the plug-in broken (no_such_module:Thing) cannot be loaded: ")
