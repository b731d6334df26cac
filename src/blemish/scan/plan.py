"""The plan of a scan: every picture once, split into parts. It is made once, so that each run sees the same parts.

A part is the unit of work: its pictures go through the model in the same batches whoever scores it, and its rows are
written together. The plan is a Parquet file with one row group for each part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from blemish.errors import OutputError, UsageError
from blemish.files import write_atomically
from blemish.outputs.journal import settings_fingerprint
from blemish.scan.items import Item
from blemish.scan.parquets import require_arrow
from blemish.scan.sources import Listing, SourceOptions, list_files, list_items
from blemish.scan.stores import full_name
from blemish.scan.tars import is_compressed

PART_SIZE = 256
"""Pictures of a part, unless another number is given."""

#: Pictures of a part at most: their rows are in memory together.
_MAX_PART = 100_000
_KEY = b"blemish-plan"
_TEXTS = ("path", "file", "kind", "column", "profile", "error")


@dataclass(frozen=True)
class PlanOptions:
    """What a plan is made of.

    Attributes:
        sources: Words as `blemish.scan.sources` takes them.
        source_options: How they are read.
        part_size: Pictures of a part.

    Raises:
        UsageError: The part size is out of range, or there is no source.
    """

    sources: tuple[str, ...]
    source_options: SourceOptions = field(default_factory=SourceOptions)
    part_size: int = PART_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.part_size <= _MAX_PART:
            raise UsageError(f"a part holds 1 to {_MAX_PART:,} pictures, not {self.part_size}")
        if not self.sources:
            raise UsageError("no pictures are given: give folders, lists, Parquet files, tar shards or addresses")

    def to_dict(self) -> dict[str, Any]:
        """Return what parts depend on, from any working directory, as JSON-able values."""
        return {
            "sources": [full_name(word) for word in self.sources],
            "column": self.source_options.column,
            "profile_from": self.source_options.profile_from,
            "part_size": self.part_size,
        }


@dataclass(frozen=True)
class PlanFacts:
    """What a plan says about itself.

    Attributes:
        options: `PlanOptions.to_dict` of its making.
        pictures: Number of pictures.
        files: Number of source files.
        digest: Hash of their names, sizes and versions.
        not_read: Number of files besides pictures, by suffix.
    """

    options: dict[str, Any]
    pictures: int
    files: int
    digest: str
    not_read: dict[str, int]


class Plan:
    """A plan on the disk.

    Args:
        path: Its file.

    Attributes:
        path: Its file.
        facts: What it says about itself.

    Raises:
        OutputError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        require_arrow()
        self.path = path
        try:
            self.facts = PlanFacts(**json.loads(self._file.metadata.metadata[_KEY]))
        except Exception as error:
            raise self._damaged() from error

    def _damaged(self) -> OutputError:
        return OutputError(f"{str(self.path)!r} is damaged; scan into another folder.", self.path)

    def __len__(self) -> int:
        """Number of parts."""
        return int(self._file.metadata.num_row_groups)

    def rows(self, number: int) -> int:
        """Return the number of pictures of a part."""
        return int(self._file.metadata.row_group(number).num_rows)

    def items(self, number: int) -> list[Item]:
        """Return the pictures of a part. Raises OutputError if the file is damaged."""
        try:
            rows = self._file.read_row_group(number).to_pylist()
            return [Item(**{name: _from_text(value) for name, value in row.items()}) for row in rows]
        except Exception as error:
            raise self._damaged() from error

    @property
    def fingerprint(self) -> str:
        """Hash of what the parts depend on, 16 hex digits."""
        return settings_fingerprint({**self.facts.options, "digest": self.facts.digest})

    @cached_property
    def _file(self) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(self.path)


def make_plan(path: Path, options: PlanOptions, on_item: Callable[[], object] = lambda: None) -> Plan:
    """List the sources and write the plan.

    Args:
        path: The file; it appears whole or not at all. Pictures in its folder are results, and left out.
        options: What is listed.
        on_item: Called for each picture.

    Raises:
        UsageError: A source does not exist or cannot be read, or there are no pictures.
        StoreError: A store does not answer.
        OutputError: The plan cannot be written.
    """
    require_arrow()
    import pyarrow
    from pyarrow import parquet

    listing = Listing()
    types = {name: pyarrow.string() if name in _TEXTS else pyarrow.int64() for name in _NAMES}
    schema = pyarrow.schema(list(types.items()))

    def items() -> Iterator[Item]:
        for source in listing.watch(list_files(options.sources, listing.passed_over, results=path.parent.absolute())):
            for item in list_items(source, options.source_options, listing.passed_over):
                on_item()
                yield item

    def fill(stream: IO[bytes]) -> None:
        count = 0
        with parquet.ParquetWriter(stream, schema) as file:
            for part in split(items(), options.part_size):
                rows = [replace(item, number=count + index) for index, item in enumerate(part)]
                columns = {name: [_to_text(getattr(item, name)) for item in rows] for name in _NAMES}
                file.write_table(pyarrow.table(columns, schema=schema), row_group_size=len(rows))
                count += len(rows)
            if not count:
                raise UsageError("the sources hold no pictures; give others")
            facts = PlanFacts(options.to_dict(), count, listing.files, listing.digest, dict(listing.passed_over.files))
            file.add_key_value_metadata({_KEY.decode(): json.dumps(vars(facts))})

    write_atomically(path, fill)
    return Plan(path)


def split(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield parts: up to `size` pictures of one profile, in order; of a compressed shard all together.

    A compressed shard can only be read from its beginning, so it is no use to read it once for each part.
    """
    waiting: dict[str | None, list[Item]] = {}
    shard: list[Item] = []
    for item in items:
        whole = item.kind == "tar" and is_compressed(item.file) and item.profile is None
        if shard and (not whole or item.file != shard[-1].file):
            yield shard
            shard = []
        part = shard if whole else waiting.setdefault(item.profile, [])
        part.append(item)
        if not whole and len(part) == size:
            yield waiting.pop(item.profile)
    yield from filter(None, [shard, *waiting.values()])


def has_changed(plan: Plan, options: PlanOptions) -> str | None:
    """Return a sentence if the sources are not as they were when the plan was made; None if they are.

    Raises:
        StoreError: A store does not answer.
    """
    listing, facts = Listing(), plan.facts
    try:
        for _ in listing.watch(list_files(options.sources, results=plan.path.parent.absolute())):
            pass
    except UsageError as error:
        return f"The source changed since this scan began: {error} The scan goes on with what it listed then."
    if listing.digest == facts.digest:
        return None
    return (
        f"The source changed since this scan began: it had {facts.files:,} files and has {listing.files:,}, or some "
        "are other ones. The scan goes on with what it listed then; a new folder scans the source as it is now."
    )


_NAMES = tuple(each.name for each in fields(Item))


def _to_text(value: Any) -> Any:
    """Escape the halves of broken UTF-8 in names, which Arrow refuses."""
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return "\0" + value.encode("utf-8", "surrogateescape").hex()
    return value


def _from_text(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("\0"):
        return bytes.fromhex(value[1:]).decode("utf-8", "surrogateescape")
    return value
