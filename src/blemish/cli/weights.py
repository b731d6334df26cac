"""`blemish weights`: the files that authors published, and what a weights file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blemish.cli.console import columns, config_changes, count, note, print_json
from blemish.errors import UsageError

#: Tensors that `weights show` lists before it says how many more there are.
SHOWN = 40


def weights_list(*, json: bool = False) -> int:
    """List the weights that authors published and blemish can fetch, and which of them are here.

    Args:
        json: Print one JSON object per file instead of a table.
    """
    from blemish.hub import TABLE, kept_at

    if json:
        for one in TABLE.values():
            print_json(_entry(one.name))
        return 0
    rows = [("NAME", "METHOD", "TRAINED ON", "BACKBONE", "HERE")]
    for one in TABLE.values():
        rows.append((one.name, one.method, one.trained_on, one.backbone, "yes" if kept_at(one).is_file() else "no"))
    print(columns(rows))
    note("Fetch one with: blemish weights pull NAME. VCP-CLIP's are in no git repository: blemish weights import FILE.")
    return 0


def weights_pull(name: str, *, base_url: str | None = None, timeout: float = 30.0, attempts: int = 5) -> int:
    """Fetch weights that authors published, and check that they are what was published before anything reads them.

    What has arrived is kept when it is cut off, and continued by the same command. Proxies are taken from the
    environment (https_proxy, no_proxy).

    Args:
        name: As in `blemish weights list`.
        base_url: Of a mirror that answers to <base>/<owner>/<repository>/<commit>/<path>.
            [default: BLEMISH_WEIGHTS_URL, or else GitHub's raw files]
        timeout: Seconds without a byte after which a connection is given up.
        attempts: Connections in a row that bring nothing before it is given up.
    """
    from blemish.hub import entry, home, pull
    from blemish.hub.download import Patience

    if timeout <= 0 or attempts < 1:
        raise UsageError("--timeout is more than 0 and --attempts at least 1")
    one = entry(name)
    try:
        with _bytes_bar(name) as told:
            path = pull(name, base=base_url, told=told, patience=Patience(attempts=attempts, timeout=timeout))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: what arrived is kept in {home() / 'published'}; the same command goes on from there."
        ) from None
    print(f"{path}  {path.stat().st_size:,} bytes, git blob {one.blob}: as published.")
    print(f"Use it: blemish detect PICTURES --method {one.method} --backbone {one.backbone} --weights {name}")
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
    """Turn a file that authors published into blemish's own, after checking all of it against the backbone.

    The method is told by the names of the tensors. No code in the file is run.

    Args:
        file: The authors' file, or the name of one that was pulled.
        method: Whose it is, if not to be found out.
        backbone: What it was learnt on: a hub id, a folder, a checkpoint file. [default: the paper's]
        config: Fields of the method's config that the file does not tell, as JSON: '{"classes": ["bottle", "cable"]}'.
        out: The file to write. [default: the same name with .safetensors, in this folder]
        trained_on: The training data in words, for the header; known for files in `blemish weights list`.
        overwrite: Replace a file that is there.
        json: Print the header as one JSON object.
    """
    changes = config_changes(config)
    from blemish.hub import entry, find

    if method is not None:
        from blemish.methods import info

        info(method)  # complains of an unknown name before torch is loaded
    path = _path(file)
    place = out or Path(f"{file if path is None else path.stem}.safetensors")
    if place.exists() and not overwrite:
        raise UsageError(f"{place} is there already: give another --out, or --overwrite")
    if path is None:
        path = find(entry(file).name)

    from blemish.hub.convert import convert, recognise, write

    official = recognise(path, method)
    from blemish.clip import load_backbone

    fitted, remarks = convert(official, load_backbone(backbone or official.backbone), changes)
    for remark in remarks:
        note(f"{path}: {remark}.")
    header = write(official, fitted, place, trained_on=trained_on, overwrite=overwrite)
    if json:
        import dataclasses

        print_json({"path": str(place), **dataclasses.asdict(header)})
        return 0
    known = f" trained on {header.trained_on}" if header.trained_on else ""
    print(f"{place}: {header.method}{known}, on the backbone {header.backbone} ({header.backbone_fingerprint}).")
    print(f"Use it: blemish detect PICTURES --method {header.method} --backbone {header.backbone} --weights {place}")
    return 0


def weights_show(file_or_name: str, *, json: bool = False) -> int:
    """Say what a weights file is: method, config, backbone, training data, source, tensors.

    Args:
        file_or_name: A file, of blemish or of a method's authors, or a name from `blemish weights list`.
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
        print(f"{key.replace('_', ' '):<{width}}  {_plain(value)}")
    if tensors:
        print(f"\n{count(len(tensors), 'tensor')}:")
        rows = [(f"  {name}", " x ".join(map(str, shape)) or "()") for name, shape in list(tensors.items())[:SHOWN]]
        print(columns(rows))
        if len(tensors) > SHOWN:
            print(f"  ... and {len(tensors) - SHOWN:,} more")
    return 0


def _path(word: str) -> Path | None:
    """The file that is named; None for a name in the table. Raises UsageError if it is neither."""
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
    from blemish.hub import entry, kept_at

    one = entry(name)
    place = kept_at(one)
    return {
        "name": one.name,
        "kind": "published weights",
        "method": one.method,
        "trained_on": one.trained_on,
        "backbone": one.backbone,
        "source": one.source,
        "git_blob": one.blob,
        "here": place.is_file(),
        "path": str(place),
    }


def _file(path: Path) -> dict[str, Any]:
    import dataclasses

    from blemish.methods import checkpoints

    facts: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size}
    if not checkpoints.is_official(path):
        header = checkpoints.read_header(path)
        tensors = {name: list(value.shape) for name, value in checkpoints.read_tensors(path)[0].items()}
        return {"kind": "method weights", **facts, **dataclasses.asdict(header), "tensors": tensors}

    from blemish.hub.convert import recognise

    official = recognise(path)
    told = {} if official.entry is None else _entry(official.entry.name)
    shapes = {name: list(shape) for name, shape in official.tensors.items()}
    found = {"kind": "published weights", "method": official.method, "backbone": official.backbone}
    return {**found, **told, "here": True, **facts, "tensors": shapes}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else "-" if value in (None, "") else str(value)


@contextmanager
def _bytes_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of bytes on standard error while the block runs, if that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    shown = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
