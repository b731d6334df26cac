"""Python blocks of the docs run, and shell lines parse."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cyclopts import CycloptsError
from pages import PAGES, ROOT, Block, blocks, name_of

from blemish.cli.app import app
from dataset_trees import TREES
from helpers import save_picture

PYTHON = [page for page in PAGES if any(block.reason is None for block in blocks(page, "python"))]
SHELL = [block for page in PAGES for block in blocks(page, "sh", "bash") if block.reason is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures under the names that the docs use."""
    root = tmp_path_factory.mktemp("snippets")
    names = ("part.jpg", "photos/a.png", "photos/b.jpg", "photos/c.png", "good/1.png", "good/2.png")
    for seed, name in enumerate(names):
        save_picture(root / name, seed=seed)
    next(tree for tree in TREES if str(tree) == "folder-categories").build(root / "mine")
    return root


@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_python_blocks_run_one_after_another(
    page: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("snippets")
    monkeypatch.setitem(sys.modules, "snippets", module)  # dataclasses look their module up
    for block in blocks(page, "python"):
        if block.reason is None:
            code = "\n" * (block.line - 1) + block.code  # so that a traceback shows the page's own line
            exec(compile(code, str(page), "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_shell_lines_parse(block: Block) -> None:
    for words in _commands(block.code):
        while re.fullmatch("[A-Z_]+=.*", words[0]):  # a variable of the environment
            words = words[1:]
        match words:
            case ["blemish", *arguments] | ["torchrun", "--nproc-per-node", _, "-m", "blemish", *arguments]:
                _parses(arguments)
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), script
            case ["pip", "install", *arguments]:
                extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
                project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
                assert {extra for group in extras for extra in group.split(",")} <= {*project["optional-dependencies"]}
            case ["docker", "build", "-f", file, *_]:
                assert (ROOT / file).is_file(), file
            case ["docker", "run", *_] | ["python3", "-m", "venv", *_] | ["pip", "wheel", *_]:
                pass
            case ["/opt/blemish/bin/pip", "install", "--no-index", *_]:
                pass
            case [".ci/run" | ".venv-test/bin/pre-commit" | "ls" | "curl", *_]:
                pass
            case _:
                pytest.fail(f"what is {shlex.join(words)}?")


def _commands(code: str) -> Iterator[list[str]]:
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            cut = next((place for place, word in enumerate(words) if word in ("|", "&&", ">", ";")), len(words))
            if words[:cut]:
                yield words[:cut]
            words = [] if words[cut : cut + 1] == [">"] else words[cut + 1 :]


def _parses(arguments: list[str]) -> None:
    from blemish.cli import STDIN

    words = [STDIN if word == "-" else word for word in arguments]
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        pytest.fail(f"blemish {shlex.join(arguments)}: {error}")


def test_a_misspelt_option_would_be_noticed() -> None:
    with pytest.raises(pytest.fail.Exception, match="--treshold"):
        _parses(["detect", "photos/", "--treshold", "0.6"])
