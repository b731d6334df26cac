"""The public surface: what can be imported from `blemish`, and that importing it is quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

import blemish

HEAVY = ("torch", "transformers", "numpy", "scipy", "PIL", "tokenizers", "pyarrow")


def test_the_list_is_sorted_and_all_of_it_is_there() -> None:
    assert blemish.__all__ == sorted(blemish.__all__)
    for name in blemish.__all__:
        assert getattr(blemish, name) is not None
    assert set(blemish.__all__) <= set(dir(blemish))


def test_lazy_names_are_those_of_the_rooms() -> None:
    from blemish.detection import Detection
    from blemish.detector import Detector
    from blemish.image_io import read_image
    from blemish.loading import load

    assert (blemish.Detection, blemish.Detector, blemish.load) == (Detection, Detector, load)
    assert blemish.read_image is read_image


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        blemish.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import blemish",
        "from blemish.cli import main; main(['--version'])",
        "from blemish.cli import main; main(['--help'])",
        "from blemish.cli import main; main(['detect', '--help'])",
        "from blemish.cli import main; main(['evaluate', '--help'])",
        "from blemish.cli import main; main(['export', '--help'])",
        "from blemish.cli import main; main(['methods'])",
        "from blemish.cli import main; main(['methods', '--json'])",
        "from blemish.cli import main; main(['detect', 'x.png', '--treshold', '1'])",
        "from blemish.cli import main; main(['train', '--help'])",
        "from blemish.cli import main; main(['weights', 'import', '--help'])",
        "from blemish.cli import main; main(['weights', 'list'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    check = f"{code}\nimport sys\nfound = [name for name in {HEAVY} if name in sys.modules]\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
