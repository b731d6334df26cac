"""Docs and code cannot drift: everything public has its place in the docs, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS, PAGES, ROOT, name_of

import blemish
from blemish import methods


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-])`?{re.escape(name)}(?![\w-])", text) is not None


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", blemish.__all__)
def test_every_public_name_is_in_the_api_reference(name: str) -> None:
    assert f":: blemish.{name}\n" in page("api.md")


def test_every_command_and_option_has_its_place(generate: ModuleType) -> None:
    text = page("command-line.md")
    commands = list(generate.commands())
    assert len(commands) > 10
    for words, command in commands:
        name = " ".join(words)
        _, heading, rest = text.partition(f"\n## {name}\n" if len(words) == 1 else f"\n### {name}\n")
        assert heading, f"blemish {name} has no section"
        section = re.split(r"\n##+ ", rest)[0]
        for option, meaning, _ in generate.options(command):
            assert f"| {option} |" in section, f"blemish {name} {option} is not described"
            assert meaning, f"blemish {name} {option} has no help"


def test_every_method_has_its_section_with_a_paper() -> None:
    text = page("methods.md")
    for name in blemish.list_methods():
        assert f"\n## {name}\n" in text
        assert methods.info(name).url in text


def test_every_metric_is_defined() -> None:
    from blemish import metrics

    for name in metrics.__all__:
        assert mentions(page("metrics.md"), name), name


def test_every_field_of_a_row_of_results_is_described() -> None:
    import dataclasses

    from blemish.evaluation import Row

    text = page("files.md")
    for field in dataclasses.fields(Row):
        ends = field.name.endswith(("_low", "_high"))
        assert ends or mentions(text, field.name), field.name


def test_every_error_is_described() -> None:
    from blemish import errors, metrics

    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]
    names = [item.__name__ for item in (*classes, metrics.MetricInputError) if not item.__name__.startswith("_")]
    for name in names:
        assert f"| `{name}` |" in page("errors.md")


def test_generated_parts_are_up_to_date(generate: ModuleType) -> None:
    outdated = [path.name for path, old, new in generate.pages() if old != new]
    assert not outdated, f"run make pages: {outdated}"


def test_every_room_is_in_the_contract(generate: ModuleType) -> None:
    package = ROOT / "src" / "blemish"
    there = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    rooms = {name for layer in generate.rooms() for name in layer}
    assert there - {"__init__", "__main__"} == rooms


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = "".join(page(f"{name}.md") for name in ("index", "guide", "reference", "develop"))
    trees = [
        line.strip()
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", contents, re.S)
        for line in tree.splitlines()
        if line and not line.startswith(":")
    ]
    listed = {path for entry in trees for path in DOCS.glob(f"{entry}.md")}
    assert {path for path in DOCS.rglob("*.md") if "_build" not in path.parts} - {DOCS / "index.md"} == listed


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert all(picture.stat().st_size < 200_000 for picture in (DOCS / "images").iterdir())


def test_the_glossary_is_short_and_sorted() -> None:
    terms = re.findall(r"^\| (.+?) \| ", page("glossary.md"), re.M)[2:]
    assert 20 < len(terms) <= 40
    assert terms == sorted(terms, key=str.lower)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target} leads nowhere"
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
