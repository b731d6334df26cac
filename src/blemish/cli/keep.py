"""What a run with --out keeps of each picture: drawn in any thread, then noted down in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from blemish.cli.record import Record
from blemish.cli.sources import absolute
from blemish.detection import Detection
from blemish.files import output_name
from blemish.image_io import LoadedImage
from blemish.outputs.files import Writer
from blemish.outputs.tables import Key

#: What is collected in one file, and so written in order.
_COLLECTED = ("regions",)


@dataclass(frozen=True)
class Name:
    """What a picture's files are called, and whether that is what they would be called anyway."""

    name: str
    plain: bool


class Keeper:
    """The files of a run and its record. A context manager.

    Args:
        out: folder for results.
        kinds: of files to write.
        root: folder that names are relative to.
        record: of the same folder, open.
        keys: of the pictures, taken before they were read.
    """

    def __init__(
        self, out: Path, kinds: Sequence[str], root: Path | None, record: Record, keys: Mapping[str, Key | None]
    ) -> None:
        self.record = record
        self._keys, self._root = keys, root
        self._drawn = Writer(out, [kind for kind in kinds if kind not in _COLLECTED], root=root, resume=True)
        self._collected = Writer(out, [kind for kind in kinds if kind in _COLLECTED], root=root, resume=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drawn.close()
        self._collected.close()

    def name(self, path: str) -> Name:
        """The name for a picture's files; to be asked in order, as the first picture takes the plain name."""
        plain = output_name(path, self._root).as_posix()
        name = self.record.name(absolute(path), plain)
        return Name(name, name == plain)

    def draw(self, picture: LoadedImage, detection: Detection, name: Name) -> dict[str, Path]:
        """Write the files that are the picture's own, in any thread. Raises OutputError."""
        return self._drawn.write(detection, picture, name=None if name.plain else name.name)

    def note(
        self, detection: Detection, line: Mapping[str, Any], name: Name, files: Mapping[str, Path]
    ) -> dict[str, Any]:
        """Write what is collected, and the picture's line, which makes it finished. Raises OutputError."""
        path = str(detection.path)
        file = absolute(path)
        key = self._keys[path] or (file, -1, -1, self.record.settings)  # it came into being after the list was made
        collected = self._collected.write(detection, name=None if name.plain else name.name)
        return self.record.add(line, key, name.name, {**files, **collected})
