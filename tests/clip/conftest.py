"""A tiny random CLIP under OpenAI's key names, as a state dict and as a backbone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from blemish.clip import Backbone, from_openai_state_dict
from blemish.clip.tokenizer import clip_tokenizer
from parity import tiny_clip

#: Grid 4 x 4 of patches of 16 pixels, 5 vision and 4 text blocks, heads of 64.
CONFIG = replace(tiny_clip.TINY_B16, image_size=64, vision_layers=5, text_layers=4, context_length=24)


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    return tiny_clip.state_dict(CONFIG, seed=3)


@pytest.fixture
def state(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors of the test's own: the dict may be changed, the tensors may not."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


@pytest.fixture(scope="session")
def backbone(arrays: dict[str, np.ndarray]) -> Backbone:
    return Backbone(from_openai_state_dict(arrays, activation="quick_gelu"), clip_tokenizer(), "tiny")


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def folder(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers writes: config.json, model.safetensors; no tokenizer, as the vocabulary is CLIP's."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    backbone.model.save_pretrained(path)
    return path


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "tiny"))
