"""Write the generated parts of the documentation: tables of options, methods, data sets and rooms.

    python docs/generate.py            write them
    python docs/generate.py --check    fail if they are out of date

A generated part stands between `<!-- generated: NAME -->` and `<!-- end generated -->`; everything else in a page is
written by hand.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from cyclopts import App

import blemish
from blemish.cli.app import app
from blemish.methods import WEIGHTS, info

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
BLOCK = re.compile(r"(<!-- generated: ([^\n]+?) -->\n)(.*?)(<!-- end generated -->)", re.DOTALL)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def commands(parent: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield the words and the app of every command, subcommands after their parent."""
    for name in parent:
        if not name.startswith("-"):
            command = parent[name]
            yield (*words, name), command
            yield from commands(command, (*words, name))


def options(command: App) -> list[list[str]]:
    """Return name, description and default of every argument and option of a command."""
    if command.default_command is None:
        return []
    rows = []
    for argument in command.assemble_argument_collection(parse_docstring=True):
        help_text = " ".join((argument.parameter.help or "").split())
        written, _, default = help_text.partition(" [default: ")
        default, _, rest = default.partition("]")
        value = argument.field_info.default
        if default:
            written, default = f"{written}{rest}", f"{default}"
        elif argument.required:
            default = "required"
        elif value not in (inspect.Parameter.empty, None, False):
            default = f"`{value}`"
        choices = argument.get_choices()
        if choices and not all(choice in written for choice in choices):
            written += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        name = argument.names[0]
        if argument.field_info.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            name = name.lstrip("-").upper()
        rows.append([f"`{name}`", written, default])
    return rows


def command_table(words: str) -> str:
    """Return the table of one command's arguments and options."""
    command = app
    for word in words.split():
        command = command[word]
    return table(["argument", "meaning", "default"], options(command))


def method_table() -> str:
    """Return the table of the methods with paper and needs."""
    rows = []
    for name in blemish.list_methods():
        method = info(name)
        needs = [
            word
            for word, needed in (
                ("object name", method.needs_object),
                ("learnt weights", method.trainable),
                ("a set of pictures", method.transductive),
            )
            if needed
        ]
        weights = (WEIGHTS / f"{name}.safetensors").exists()
        builtin = "weights shipped" if weights else "weights needed" if method.trainable else "yes"
        paper = f"[{method.title}]({method.url}), {method.venue} {method.year}"
        references = ("needed" if method.needs_references else "optional") if method.few_shot else ""
        backbone = method.default_backbone.rpartition("/")[2]
        rows.append([f"[`{name}`](#{name})", paper, ", ".join(needs), references, builtin, backbone])
    head = ["method", "paper", "needs", "normal references", "on the built-in model", "backbone of the paper"]
    return table(head, rows)


def dataset_table() -> str:
    """Return the table of the data sets that can be read."""
    from blemish.datasets import DATASETS

    return table(
        ["name", "data set", "kind", "licence"],
        [[f"`{name}`", entry.title, entry.domain, entry.licence or "not known"] for name, entry in DATASETS.items()],
    )


def rooms() -> list[list[str]]:
    """Return the layers of the import contract, from the top, each a list of modules."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return [[name.strip(" ()") for name in re.split("[:|]", layer)] for layer in contract[0]["layers"]]


def room_table() -> str:
    """Return the table of rooms, with the first sentence of each module's docstring."""
    rows = []
    for level, layer in enumerate(reversed(rooms()), start=1):
        for name in layer:
            package, module = (ROOT / "src/blemish" / part for part in (f"{name}/__init__.py", f"{name}.py"))
            path = package if package.exists() else module
            if not path.exists():
                raise SystemExit(f"there is no room {name}: adapt the import contract in pyproject.toml")
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(text.split("\n\n")[0].split())
            link = path.parent if path == package else path
            shown = f"{name}/" if path == package else f"{name}.py"
            rows.append([str(level), f"[`{shown}`](../{link.relative_to(ROOT).as_posix()})", first])
    return table(["level", "room", "what it holds"], rows)


def block(name: str) -> str:
    """Return the generated text of that name."""
    kind, _, rest = name.partition(" ")
    makers: dict[str, Callable[[], str]] = {"methods": method_table, "datasets": dataset_table, "rooms": room_table}
    return command_table(rest) if kind == "command" else makers[kind]()


def pages() -> Iterator[tuple[Path, str, str]]:
    """Yield path, present text and new text of every page with generated parts."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if BLOCK.search(text):
            yield path, text, BLOCK.sub(lambda found: f"{found[1]}{block(found[2])}{found[4]}", text)


def main() -> None:
    check = "--check" in sys.argv[1:]
    outdated = [(path, new) for path, old, new in pages() if old != new]
    if check and outdated:
        shown = ", ".join(path.name for path, _ in outdated)
        sys.exit(f"out of date: {shown}; run python docs/generate.py")
    for path, new in outdated:
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
