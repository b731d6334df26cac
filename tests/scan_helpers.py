"""What the tests of scans need besides fixtures."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

from blemish.scan.rows import VARYING, read_rows


def rows_of(out: Path, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the rows of a scan in the order of its pictures, without what differs between runs."""
    parts = sorted((out / "parts").glob("*.parquet"))
    rows = [row for part in parts for row in read_rows(out, int(part.stem[5:]))]
    kept = [{name: value for name, value in row.items() if name not in (*VARYING, *without)} for row in rows]
    return sorted(kept, key=lambda row: row["item"])


def pack(path: Path, files: list[tuple[str, bytes]]) -> Path:
    """Write a tar file, compressed if its name says so."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def ray_scorers() -> list[int]:
    """Return the processes of actors that score, among the descendants of this one (Linux)."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for process, name in names.items():
        above = process
        while above in parents and above != os.getpid():
            above = parents[above]
        if name.startswith(b"ray::MapWorker(") and above == os.getpid():
            found.append(process)
    return found
