"""The folder of a scan: its plan, its settings, its parts, and who writes which of them.

    plan.parquet          every picture once, split into parts
    settings.json         what scores depend on; another run has to have the same
    parts/part-*.parquet  the rows of each part
    map/, overlay/, ...   files of pictures, if asked for
    runs/1-of-1/          a journal of the parts that this process wrote; one folder for each shard of an array

The journals hold the hash of each part, and plan.sha256 that of the plan, so that a file that changed is not read as
whole.

Several processes may work on one folder, each on its own shard. A part appears whole or not at all, and whoever scores
it gets the same rows, so a part that is scored twice is no harm.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from blemish.errors import OutputError, UsageError
from blemish.files import file_sum, output_error, parse_json, remove_parts, try_lock, write_atomically
from blemish.outputs.journal import RunFolder, read_journal, settings_fingerprint
from blemish.scan.plan import Plan, PlanOptions, make_plan
from blemish.scan.rows import PartFacts, part_path, read_facts

#: Seconds between two looks at a lock that another process holds for a moment.
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Shard:
    """The share of one process: the parts whose number leaves `index - 1` when divided by `count`.

    Attributes:
        index: From 1.
        count: Number of processes.

    Raises:
        UsageError: They do not fit.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"a shard is written 1/4 to 4/4, not {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard in a text such as `3/8`. Raises UsageError."""
        index, slash, count = text.partition("/")
        if not (slash and index.strip().isdecimal() and count.strip().isdecimal()):
            raise UsageError(f"--shard must be the number of this process and how many there are, as 3/8, not {text!r}")
        return cls(int(index), int(count))

    def __contains__(self, part: int) -> bool:
        return part % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


class ScanFolder:
    """A folder of results that this process writes its shard to. Use it as a context manager.

    Args:
        path: The folder; created if it does not exist.
        shard: Share of this process.

    Attributes:
        path: The folder.
        journal: Facts of each part that processes of this shard wrote.

    Raises:
        OutputError: It cannot be written to, or another process writes the same shard.
        UsageError: A scan with another number of shards is going on in it.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path, self.shard = path, shard
        self._open = contextlib.ExitStack()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._share()
            run_folder = self._open.enter_context(RunFolder(path / "runs" / str(shard)))
            self.journal = run_folder.journal("parts.jsonl", lambda line: int(line["part"]), _facts)
            self._sums = _recorded(path)
        except OSError as error:
            self._open.close()
            raise output_error(path, error) from error
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> ScanFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def plan(self, options: PlanOptions, on_item: Callable[[], object] = lambda: None) -> tuple[Plan, bool]:
        """Return the plan, and whether it was made now; of several processes the first one makes it.

        Raises:
            UsageError: The folder holds a scan of other sources or parts, or the sources cannot be listed.
            StoreError: A store does not answer.
            OutputError: The plan is damaged, or cannot be written.
        """
        file, sums = self.path / "plan.parquet", self.path / "plan.sha256"
        with self._turn("plan"):
            if new := not file.is_file():
                sums.unlink(missing_ok=True)
                make_plan(file, options, on_item)
            if not sums.is_file():  # as `sha256sum` writes and checks it
                text = f"{file_sum(file)}  {file.name}\n".encode()
                write_atomically(sums, lambda stream: stream.write(text))
            if sums.read_bytes().split()[:1] != [file_sum(file).encode()]:
                raise OutputError(f"{str(file)!r} is damaged; scan into another folder.", file)
        plan = Plan(file)
        if new:
            return plan, True
        self._compare(plan.facts.options, options.to_dict(), "of other sources or parts")
        return plan, False

    def fix_settings(self, settings: Mapping[str, Any]) -> str:
        """Return the fingerprint of the settings; the first process writes them down.

        Raises:
            UsageError: The folder holds a scan with other settings.
            OutputError: They cannot be written, or are damaged.
        """
        file = self.path / "settings.json"
        plain = json.loads(json.dumps(settings))
        with self._turn("settings"):
            if not file.is_file():
                text = json.dumps(plain, indent=1, sort_keys=True).encode() + b"\n"
                write_atomically(file, lambda stream: stream.write(text))
            try:
                before = dict(parse_json(file.read_bytes()))
            except (ValueError, TypeError) as error:
                raise OutputError(f"{str(file)!r} is damaged; scan into another folder.", file) from error
        self._compare(before, plain, "with other settings")
        return settings_fingerprint(plain)

    def facts(self, number: int, plan: str, settings: str) -> PartFacts | None:
        """Return what a finished part says about itself; None if it has to be scored.

        A part that changed since it was written has to be. One that is in no journal, since its process was killed in
        between, is recorded now.
        """
        facts = read_facts(self.path, number)
        if facts is None or (facts.plan, facts.settings) != (plan, settings):
            return None
        if number not in self._sums:
            self.record(facts)
        elif file_sum(part_path(self.path, number)) not in self._sums[number]:
            return None
        return facts

    def record(self, facts: PartFacts) -> None:
        """Append a part that was written to the journal. Raises OutputError."""
        total = file_sum(part_path(self.path, facts.part))
        self.journal.append({**asdict(facts), "sha256": total, "error": None})

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if names:
            name = names[0]
            values = f"{name} was {_short(before.get(name))} and is {_short(now.get(name))} here"
            raise UsageError(
                f"{str(self.path)!r} holds a scan {what} ({values}): give the same again, or choose another folder"
            )

    def _share(self, tries: int = 50) -> None:
        """Hold a lock together with the processes of the other shards of the same array."""
        lock = self._open.enter_context((self.path / ".shards").open("a+", encoding="utf-8"))
        if try_lock(lock):  # nobody else is here
            parts = self.path / "parts"
            if parts.is_dir():
                remove_parts(parts)
            lock.truncate(0)
            lock.write(str(self.shard.count))
            lock.flush()
        shared = try_lock(lock, shared=True)
        lock.seek(0)
        count = lock.read().strip()
        if not shared:
            if tries == 0:
                raise OutputError(f"{str(self.path)!r} cannot be locked; choose a folder on another disk.", self.path)
            time.sleep(_POLL_SECONDS)  # another process is at this very place
            self._open.pop_all().close()
            self._share(tries - 1)
        elif count and count != str(self.shard.count):
            raise UsageError(
                f"{count} processes are scanning into {str(self.path)!r} (--shard i/{count}): give the same number, or "
                "wait for them"
            )

    @contextlib.contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Let one process at a time run the block."""
        lock: IO[str]
        with (self.path / f".{name}").open("w") as lock:
            while not try_lock(lock):
                time.sleep(_POLL_SECONDS)
            yield


def _recorded(path: Path) -> dict[int, set[str]]:
    """Return the hashes of each part in the journals of all shards; several if it was written more than once."""
    sums: dict[int, set[str]] = {}
    for file in path.glob("runs/*/parts.jsonl"):
        for line in read_journal(file):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                sums.setdefault(int(line["part"]), set()).add(str(line["sha256"]))
    return sums


def _facts(line: Mapping[str, Any]) -> PartFacts:
    return PartFacts(**{name: line[name] for name in PartFacts.__dataclass_fields__})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
