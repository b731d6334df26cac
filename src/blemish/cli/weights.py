"""`blemish weights`: list, fetch, convert and describe weights files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blemish.cli.console import columns, config_changes, count, note, print_json
from blemish.errors import UsageError

#: Tensors that `weights show` lists.
MAX_TENSORS = 40


def weights_list(*, json: bool = False) -> int:
    """List the published weights that blemish can fetch, and which of them are on this computer.

    Args:
        json: Print one JSON object per file instead of a table.
    """
    from blemish.hub import TABLE

    facts = [_entry(name) for name in TABLE]
    if json:
        for entry in facts:
            print_json(entry)
        return 0
    rows = [("NAME", "METHOD", "TRAINED ON", "BACKBONE", "HERE")]
    for entry in facts:
        rows.append((*(entry[key] for key in ("name", "method", "trained_on", "backbone")), _words(entry["here"])))
    print(columns(rows))
    note("Fetch one: blemish weights pull NAME. Convert a file from elsewhere: blemish weights import FILE.")
    return 0


def weights_pull(name: str, *, base_url: str | None = None, timeout: float = 30.0, attempts: int = 5) -> int:
    """Fetch published weights and check that they are the published file before anything reads them.

    The same command resumes a partial download. Proxies are taken from the environment (https_proxy, no_proxy).

    Args:
        name: Name from `blemish weights list`.
        base_url: Mirror that serves BASE/OWNER/REPOSITORY/COMMIT/PATH.
            [default: BLEMISH_WEIGHTS_URL, or else GitHub's raw files]
        timeout: Seconds without a byte after which a connection is closed.
        attempts: Attempts in a row that bring no new byte.
    """
    from blemish.hub import entry, home, pull
    from blemish.hub.download import RetryPolicy

    if timeout <= 0 or attempts < 1:
        raise UsageError("--timeout is more than 0 and --attempts at least 1")
    published, retry = entry(name), RetryPolicy(attempts=attempts, timeout=timeout)
    try:
        with _bytes_bar(name) as on_progress:
            path = pull(name, base=base_url, on_progress=on_progress, retry=retry)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: the partial download is in {home() / 'published'}; the same command resumes it."
        ) from None
    print(f"{path}  {path.stat().st_size:,} bytes, git blob {published.blob}: as published.")
    print(
        f"Use it: blemish detect PICTURES --method {published.method} --backbone {published.backbone} --weights {name}"
    )
    return 0


def weights_import(
    file: str,
    *,
    method: str | None = None,
    backbone: str | None = None,
    config: str | None = None,
    out: Path | None = None,
    trained_on: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> int:
    """Convert an authors' file to blemish's format, after checking all of it against the backbone.

    The names of the tensors give the method. No code in the file is run.

    Args:
        file: The authors' file, or the name of pulled weights.
        method: The method. [default: recognised by the tensors]
        backbone: Backbone that it was trained on: a hub id, a folder, a checkpoint file. [default: the paper's]
        config: Fields of the method's config that are not in the file, as JSON: '{"classes": ["bottle", "cable"]}'.
        out: File to write. [default: the same name with .safetensors, in this folder]
        trained_on: Description of the training data for the header. [default: known for files in `blemish weights
            list`]
        overwrite: Replace an existing file.
        json: Print the header as one JSON object.
    """
    changes = config_changes(config)
    from blemish.hub import entry, find

    if method is not None:
        from blemish.methods import info

        info(method)  # refuses an unknown name before torch is loaded
    path = _path(file)
    target = out or Path(f"{file if path is None else path.stem}.safetensors")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already: give another --out, or --overwrite")
    if path is None:
        path = find(entry(file).name)

    from blemish.hub.convert import convert, recognise, write

    official = recognise(path, method)
    from blemish.clip import load_backbone

    fitted, remarks = convert(official, load_backbone(backbone or official.backbone), changes)
    for remark in remarks:
        note(f"{path}: {remark}.")
    header = write(official, fitted, target, trained_on=trained_on, overwrite=overwrite)
    if json:
        print_json({"path": str(target), **dataclasses.asdict(header)})
        return 0
    data = f" trained on {header.trained_on}" if header.trained_on else ""
    print(f"{target}: {header.method}{data}, on the backbone {header.backbone} ({header.backbone_fingerprint}).")
    print(f"Use it: blemish detect PICTURES --method {header.method} --backbone {header.backbone} --weights {target}")
    return 0


def weights_show(file_or_name: str, *, json: bool = False) -> int:
    """Show what a weights file contains: method, config, backbone, training data, source, tensors.

    Args:
        file_or_name: A file of blemish or of a method's authors, or a name from `blemish weights list`.
        json: Print one JSON object instead of lines.
    """
    path = _path(file_or_name)
    facts = _entry(file_or_name) if path is None else {}
    if path is None and facts["here"]:
        from blemish.hub import find

        path = find(file_or_name)
    if path is not None:
        facts |= _file(path)
    if json:
        print_json(facts)
        return 0
    tensors = facts.pop("tensors", {})
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):<{width}}  {_words(value)}")
    if tensors:
        print(f"\n{count(len(tensors), 'tensor')}:")
        rows = [
            (f"  {name}", " x ".join(map(str, shape)) or "()") for name, shape in list(tensors.items())[:MAX_TENSORS]
        ]
        print(columns(rows))
        if len(tensors) > MAX_TENSORS:
            print(f"  ... and {len(tensors) - MAX_TENSORS:,} more")
    return 0


def _path(word: str) -> Path | None:
    """Return the path of a file, or None for a name in the table. Raises UsageError if it is neither."""
    from blemish.hub import TABLE, entry

    path = Path(word).expanduser()
    if path.is_file():
        return path
    if word in TABLE:
        return None
    if path.suffix or path.name != word:
        raise UsageError(f"there is no weights file {word}")
    entry(word)
    return None


def _entry(name: str) -> dict[str, Any]:
    from blemish.hub import entry, local_path

    published = entry(name)
    path = local_path(published)
    return {
        "name": published.name,
        "kind": "published weights",
        "method": published.method,
        "trained_on": published.trained_on,
        "backbone": published.backbone,
        "source": published.source,
        "git_blob": published.blob,
        "here": path.is_file(),
        "path": str(path),
    }


def _file(path: Path) -> dict[str, Any]:
    from blemish.methods import checkpoints

    facts: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size}
    if not checkpoints.is_official(path):
        header = checkpoints.read_header(path)
        return {"kind": "method weights", **facts, **dataclasses.asdict(header), "tensors": _shapes(path)}

    from blemish.hub.convert import recognise

    official = recognise(path)
    recognised = {"kind": "published weights", "method": official.method, "backbone": official.backbone}
    published = {} if official.entry is None else _entry(official.entry.name)
    shapes = {name: list(shape) for name, shape in official.tensors.items()}
    return {**recognised, **published, "here": True, **facts, "tensors": shapes}


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of a safetensors file's tensors, without reading them."""
    from safetensors import SafetensorError, safe_open

    from blemish.errors import WeightsError

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): get it again", path) from error


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else "-" if value in (None, "") else str(value)


@contextmanager
def _bytes_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar of bytes on standard error inside the block, if that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    parts = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
