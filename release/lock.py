"""Lock what `pip install 'blemish[serve]'` installs, and list it: `make lock`.

    requirements.lock      every file on PyPI of one release of each dependency, by hash; for all platforms
    requirements-cpu.lock  the same without PyTorch and NVIDIA's libraries, for a PyTorch that was built for CPUs
    sbom.cdx.json          the bill of materials (CycloneDX 1.6) of Linux on x86-64, Python 3.11
    docs/licences.md       the licences of the same

uv resolves (within constraints.txt) and pip reports what it would install, with the packages' own metadata. Nothing in
the output depends on the time or the machine, so a second run changes nothing until PyPI or pyproject.toml do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
INDEX = "https://pypi.org/simple"
EXTRA = "serve"
#: Packages that a PyTorch for CPUs does without.
GPU = re.compile(r"(torch|triton|cuda-.*|nvidia-.*)==")
#: SPDX identifiers of licences that packages name in other words, or only among their classifiers.
SPDX = {
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def main() -> None:
    lock = ROOT / "requirements.lock"
    text = resolve(lock)
    lock.write_text(f"{head('requirements.lock')}{text}", encoding="utf-8")
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)
    cpu = "".join(block for block in blocks if not GPU.match(block))
    (ROOT / "requirements-cpu.lock").write_text(f"{head('requirements-cpu.lock')}{cpu}", encoding="utf-8")
    packages = sorted(report(lock), key=lambda package: name_of(package["metadata"]["name"]))
    bill = json.dumps(bill_of_materials(packages), indent=1, sort_keys=True, ensure_ascii=False)
    (ROOT / "sbom.cdx.json").write_text(f"{bill}\n", encoding="utf-8")
    (ROOT / "docs" / "licences.md").write_text(licences(packages), encoding="utf-8")


def head(name: str) -> str:
    """Return the first lines of a lock file."""
    lines = {
        "requirements.lock": [
            "What blemish[serve] needs, as PyPI has it (Linux: PyTorch for CUDA), for any platform and Python 3.11+.",
            "pip install --require-hashes -r requirements.lock && pip install --no-deps blemish",
        ],
        "requirements-cpu.lock": [
            "What blemish[serve] needs besides PyTorch. PyTorch for CPUs is not on PyPI, so its hash is not here:",
            "pip install --require-hashes -r requirements-cpu.lock",
            "pip install --no-deps torch==VERSION --index-url https://download.pytorch.org/whl/cpu",
            "pip install --no-deps blemish",
        ],
    }[name]
    return "".join(f"# {line}\n" for line in [*lines, "Made by `make lock`."])


def clean_environment() -> dict[str, str]:
    """Return the environment without what would add another source of packages than PyPI."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    certificates = os.environ.get("PIP_CERT")
    more = {"PIP_CERT": certificates, "SSL_CERT_FILE": certificates} if certificates else {}
    return {**kept, **more, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}


def resolve(lock: Path) -> str:
    """Return the lock without its first lines."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / lock.name
        options = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--python-version", "3.11"]
        words = ["uv", "pip", "compile", "pyproject.toml", "--extra", EXTRA, "--constraint", "constraints.txt"]
        words += [*options, "--default-index", INDEX, "--quiet", "--output-file", str(out)]
        subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=clean_environment(), check=True)
        return out.read_text(encoding="utf-8")


def report(lock: Path) -> list[dict[str, Any]]:
    """Return what pip would install here from the lock, checked against its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        words = ["pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--require-hashes", "--only-binary"]
        words += [":all:", "--index-url", INDEX, "--report", str(out), "--requirement", str(lock)]
        subprocess.run([sys.executable, "-m", *words], env=clean_environment(), check=True)
        installed: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["install"]
        return installed


def name_of(text: str) -> str:
    """Return a package's normalised name."""
    return re.sub(r"[-_.]+", "-", text).lower()


def licence(metadata: dict[str, Any]) -> str:
    """Return the licence as an SPDX expression, as far as the package says it."""
    named = [metadata.get("license_expression"), metadata.get("license")]
    named += [word for word in metadata.get("classifier", []) if word.startswith("License ::")]
    for words in filter(None, named):
        known = SPDX.get(words, words)
        if _IDENTIFIER.fullmatch(known):
            return known
    return "not stated"


def needs(metadata: dict[str, Any], known: set[str], extras: tuple[str, ...] = ("",)) -> Iterator[str]:
    """Yield the names of the packages that one depends on, among the known ones."""
    for text in metadata.get("requires_dist", []):
        requirement = Requirement(text)
        name = name_of(requirement.name)
        applies = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if applies and name in known:
            yield name


def bill_of_materials(packages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the CycloneDX document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    refs = {
        name_of(package["metadata"]["name"]): f"pkg:pypi/{name_of(package['metadata']['name'])}"
        f"@{package['metadata']['version']}"
        for package in packages
    }
    components = [_component(package, refs) for package in packages] + _weights()
    direct = [*project["dependencies"], *project["optional-dependencies"][EXTRA]]
    dependencies = [{"ref": own, "dependsOn": sorted({refs[name_of(Requirement(text).name)] for text in direct})}]
    for package in packages:
        metadata = package["metadata"]
        extras = ("", *package.get("requested_extras", ()))
        found = sorted({refs[name] for name in needs(metadata, set(refs), extras)})
        dependencies.append({"ref": refs[name_of(metadata["name"])], "dependsOn": found})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"expression": project["license"]}],
            },
            "properties": [
                {"name": "blemish:extra", "value": EXTRA},
                {"name": "blemish:platform", "value": "Linux x86-64, CPython 3.11, files of PyPI"},
            ],
        },
        "components": components,
        "dependencies": dependencies,
    }


def _component(package: dict[str, Any], refs: dict[str, str]) -> dict[str, Any]:
    metadata, found = package["metadata"], package["download_info"]
    name, words = name_of(metadata["name"]), licence(package["metadata"])
    stated = {"license": {"name": words}} if words == "not stated" else {"expression": words}
    return {
        "type": "library",
        "bom-ref": refs[name],
        "name": name,
        "version": metadata["version"],
        "purl": refs[name],
        "licenses": [stated],
        "hashes": [{"alg": "SHA-256", "content": found["archive_info"]["hashes"]["sha256"]}],
        "externalReferences": [{"type": "distribution", "url": found["url"]}],
    }


def _weights() -> list[dict[str, Any]]:
    """Return the weights that lie in the package."""
    folder = ROOT / "src" / "blemish" / "weights"
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"blemish/weights/{path.relative_to(folder).as_posix()}",
            "name": path.relative_to(folder).as_posix(),
            "licenses": [{"expression": "Apache-2.0"}],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}],
        }
        for path in sorted(folder.rglob("*.safetensors"))
    ]


def licences(packages: list[dict[str, Any]]) -> str:
    """Return the page of licences."""
    rows = [
        (name_of(package["metadata"]["name"]), package["metadata"]["version"], licence(package["metadata"]))
        for package in packages
    ]
    table = "\n".join(f"| {name} | {version} | {words} |" for name, version, words in rows)
    return f"""# Licences of the dependencies

blemish itself and the weights in it are Apache-2.0. This is what `pip install 'blemish[{EXTRA}]'` installs beside it
on Linux (x86-64, Python 3.11) from PyPI, and the licence that each package states. PyPI's PyTorch for Linux brings
NVIDIA's libraries, which are proprietary and may be passed on under NVIDIA's terms; a PyTorch for CPUs or for a Mac
does without them.
`make lock` writes this page.

| package | version | licence |
| --- | --- | --- |
{table}
"""


if __name__ == "__main__":
    if tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) < (23, 0):
        sys.exit("pip is too old for a report; update it")
    main()
