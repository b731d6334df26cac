"""A small model, and PyTorch's global settings restored after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported: one thread is faster for small models
import torch

import blemish
from pretraining.training.model import Shape, export, make_model

BUILTIN = Path(blemish.__file__).parent / "weights" / "builtin"
#: As deep as the built-in model, as its methods' configs name its layers; 4 patches along a side.
SHAPE = Shape(depth=8, width=64, patch=14, size=56)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random model and the built-in tokenizer."""
    folder = tmp_path_factory.mktemp("small-model")
    torch.manual_seed(3)
    export(make_model(SHAPE), folder, tokenizer=BUILTIN)
    return folder


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
