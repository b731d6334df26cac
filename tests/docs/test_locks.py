"""The locked dependencies are those of pyproject.toml and constraints.txt, by hash; the lists name the same."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pages import ROOT

LOCKS = ("requirements.lock", "requirements-cpu.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def pins(name: str) -> dict[str, tuple[str, str]]:
    """Return version and the rest of the entry of each package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {canonicalize_name(match[1]): (match[2], match[3]) for match in _PIN.finditer(text)}


def direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["serve"])]


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_locked_by_hash(name: str) -> None:
    locked = pins(name)
    for requirement in direct():
        if requirement.name == "torch" and name == "requirements-cpu.lock":
            assert "torch" not in locked
            continue
        version, _ = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: run `make lock`"
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", rest) for _, rest in locked.values())


def test_the_locks_are_those_of_the_tests() -> None:
    constrained = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    known = {canonicalize_name(name): version for name, version in constrained.items()}
    differing = {
        name for name, (version, _) in pins("requirements.lock").items() if known.get(name, version) != version
    }
    assert not differing, "run `make lock`"


def test_the_lists_name_what_is_locked() -> None:
    locked = {name: version for name, (version, _) in pins("requirements.lock").items()}
    bill = json.loads((ROOT / "sbom.cdx.json").read_text(encoding="utf-8"))
    listed = {part["name"]: part["version"] for part in bill["components"] if part["type"] == "library"}
    assert listed.items() <= locked.items()
    assert locked.keys() - listed.keys() <= {"colorama", "httpx2-jsfetch"}, "packages of other platforms"
    refs = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {ref for entry in bill["dependencies"] for ref in (entry["ref"], *entry["dependsOn"])} <= refs
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([^ ]+) \|", page, re.MULTILINE))
    rows.pop("package", None)
    assert {name: version for name, version in rows.items() if name != "---"} == listed
