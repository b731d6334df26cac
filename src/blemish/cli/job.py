"""One run of `blemish detect`: what is to be done, doing it, and saying what came of it."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import columns, count, note, print_json, progress, shown
from blemish.cli.keep import Keeper, Name
from blemish.cli.record import Record, State
from blemish.cli.sources import absolute
from blemish.concurrency import BackgroundWriter, Commit
from blemish.detection import Detection
from blemish.detector import Detector, Scored
from blemish.errors import BlemishError, ImageError
from blemish.outputs.tables import COLUMNS, error_row, input_key, row, settings_fingerprint

#: Rows of the ranking on a terminal; a pipe gets all.
SHOWN = 25


@dataclass(frozen=True)
class Order:
    """What the command line asked for beyond the detector."""

    kinds: Sequence[str]
    formats: Sequence[str]
    batch_size: int
    out: Path | None
    root: Path | None
    overwrite: bool
    json: bool

    @property
    def streams_json(self) -> bool:
        """Whether standard output is for JSON lines, as pictures are finished."""
        return self.json or (self.out is None and "jsonl" in self.formats)


@dataclass
class Job:
    """Runs an order and keeps count."""

    detector: Detector
    order: Order
    ranking: list[tuple[float, str, bool | None]] = field(default_factory=list)  # score, path, anomalous
    rows: list[dict[str, Any]] = field(default_factory=list)  # for CSV on standard output only
    failed: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    finished: int = 0

    def run(self, pictures: Sequence[Path]) -> int:
        """Do the pictures; returns the exit code.

        Raises:
            KeyboardInterrupt: With one sentence on what is finished.
            OutputError: A result cannot be written; what was finished before stays.
        """
        start = time.perf_counter()
        try:
            if self.order.out is None:
                self._do(pictures, None)
            else:
                self._do_and_keep(pictures, self.order.out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._state(len(pictures), "interrupted")) from None
        except BlemishError:
            if self.finished:
                note(self._state(len(pictures), "stopped"))
            raise
        self._summary(time.perf_counter() - start)
        return EXIT_FAILED if self.failed else EXIT_OK

    def _do_and_keep(self, pictures: Sequence[Path], out: Path) -> None:
        settings = settings_fingerprint(self._settings())
        with Record(out, settings) as record:
            keys = {str(path): input_key(path, settings) for path in pictures}
            states = {path: record.state(absolute(path), keys[str(path)], self.order.kinds) for path in pictures}
            todo = [path for path in pictures if self.order.overwrite or states[path] != "same"]
            for path in pictures:
                if not self.order.overwrite and states[path] == "same":
                    self._take_over(record, absolute(path))
            self._say(Counter(states.values()), out)
            with Keeper(out, self.order.kinds, self.order.root, record, keys) as keeper:
                self._do(todo, keeper)
            record.close([form for form in self.order.formats if form in ("csv", "parquet")])

    def _do(self, pictures: Sequence[Path], keeper: Keeper | None) -> None:
        """Score pictures; what is made of one is drawn in a thread while the model is busy with the next ones."""
        with progress(len(pictures), "scoring") as advance, BackgroundWriter() as writer:

            def fail(path: str, error: ImageError) -> None:
                self._fail(path, str(error), keeper)
                advance()

            def done(detection: Detection, line: dict[str, Any], name: Name | None, files: dict[str, Path]) -> None:
                if keeper is not None and name is not None:
                    line = keeper.note(detection, line, name, files)
                self._tell(detection, line)
                advance()

            def draw(one: Scored, name: Name | None) -> Commit:
                picture, detection = one.finish()
                files = {} if keeper is None or name is None else keeper.draw(picture, detection, name)
                return partial(done, detection, {**detection.to_dict(), "error": None}, name, files)

            scored = self.detector.scored(
                map(str, pictures),
                batch_size=self.order.batch_size,
                on_error=lambda path, error: writer.submit(lambda: partial(fail, str(path), error)),
            )
            with contextlib.closing(scored):
                for one in scored:
                    name = None if keeper is None else keeper.name(str(one.canvas.path))
                    writer.submit(partial(draw, one, name), one.pixels)

    def _fail(self, path: str, reason: str, keeper: Keeper | None) -> None:
        self.failed.append((path, reason))
        if keeper is not None:
            keeper.record.add_error(absolute(path), path, reason)
        if self.order.streams_json:
            print_json({"path": path, "error": reason})

    def _tell(self, detection: Detection, line: dict[str, Any]) -> None:
        self.ranking.append((detection.score, str(detection.path), detection.anomalous))
        if self.order.streams_json:
            print_json(line)
        elif self.order.out is None and "csv" in self.order.formats:
            self.rows.append(row(detection))
        self.finished += 1

    def _take_over(self, record: Record, file: str) -> None:
        """Count what an earlier run did as if it were done now."""
        entry = record.entries[file]
        self.ranking.append((entry.score, entry.path, entry.anomalous))
        self.finished += 1
        if self.order.streams_json:
            print_json(record.line(entry))

    def _settings(self) -> dict[str, Any]:
        """Everything that bears on a result, and nothing else: not names of files, not the device."""
        made = self.detector.provenance.to_dict()
        for name in ("backbone", "weights", "device", "model"):
            del made[name]
        told = self.detector.object_name if self.detector.engine.needs_object else None
        return {**made, "object": told, "threshold": self.detector.threshold, "mask": self.detector.mask_threshold}

    def _say(self, states: Counter[State], out: Path) -> None:
        """Say what becomes of earlier results, before anything is overwritten."""
        same = "overwritten" if self.order.overwrite else "skipped (--overwrite redoes all)"
        sentences: dict[State, str] = {
            "same": f"done already with the same settings: {same}",
            "other settings": "done before with other settings: redone, earlier results are replaced",
            "changed file": "changed since: redone, earlier results are replaced",
            "missing files": "done before without all the files asked for now: redone",
        }
        for state, sentence in sentences.items():
            if states[state]:
                note(f"{out}: {count(states[state], 'picture')} {sentence}.")
        if states["other settings"] and "regions" not in self.order.kinds and (out / "regions.json").exists():
            note(f"{out}: regions.json keeps the regions of the earlier settings, as --save does not name regions.")

    def _state(self, total: int, what: str) -> str:
        """One sentence for a run that ends early."""
        done = f"{what}: {self.finished} of {count(total, 'picture')} finished"
        if self.order.out is None:
            return f"{done}; nothing is kept without --out."
        return f"{done} and kept in {self.order.out}; the same command goes on from there."

    def _summary(self, seconds: float) -> None:
        self.ranking.sort(key=lambda entry: (-entry[0], entry[1]))
        if not self.order.streams_json:
            if "table" in self.order.formats:
                print(self._table())
            elif self.rows or "csv" in self.order.formats:
                self._csv()
        say = print if "table" in self.order.formats and not self.order.streams_json else note
        say(self._made_by(seconds))
        if self.order.out is not None:
            say(f"Results are in {self.order.out}: {', '.join(self._kept())}.")
        if self.failed:
            note(f"{count(len(self.failed), 'picture')} failed, {len(self.ranking):,} of {self._total():,} scored:")
            for path, reason in self.failed:
                note(f"  {shown(path)}: {shown(reason)}")

    def _table(self) -> str:
        listed = self.ranking[:SHOWN] if sys.stdout.isatty() else self.ranking
        verdicts = {True: "anomalous", False: "normal", None: "-"}
        rows = [("RANK", "SCORE", "VERDICT", "PICTURE")]
        rows += [
            (str(rank), f"{score:.4f}", verdicts[anomalous], shown(path))
            for rank, (score, path, anomalous) in enumerate(listed, 1)
        ]
        rest = len(self.ranking) - len(listed)
        return columns(rows, right=(0, 1)) + (f"\n... and {rest:,} more" if rest else "") + "\n"

    def _csv(self) -> None:
        table = csv.DictWriter(sys.stdout, list(COLUMNS), lineterminator="\n")
        table.writeheader()
        failures = (error_row(path, reason) for path, reason in self.failed)
        ranked: Iterable[dict[str, Any]] = sorted(self.rows, key=lambda one: -one["score"])
        table.writerows([*ranked, *failures])

    def _made_by(self, seconds: float) -> str:
        made = self.detector.provenance
        weights = f" (weights {made.weights}, {made.weights_fingerprint})" if made.weights else ""
        examples = (
            f" with {count(made.references, 'reference')} ({made.references_fingerprint})" if made.references else ""
        )
        exported = f" as {made.model} ({made.model_fingerprint}) by {made.backend}" if made.model else ""
        judged = (
            "no threshold: ranked, not judged"
            if self.detector.threshold is None
            else f"{sum(bool(entry[2]) for entry in self.ranking):,} anomalous at threshold {self.detector.threshold:g}"
        )
        return (
            f"{count(len(self.ranking), 'picture')}, {judged}. Scored by {made.method}{weights}{examples} "
            f"on the backbone {made.backbone} ({made.backbone_fingerprint}){exported}, "
            f"{made.precision} on {made.device}, in {seconds:.1f} s."
        )

    def _kept(self) -> list[str]:
        tables = [f"results.{form}" for form in ("csv", "parquet") if form in self.order.formats]
        kinds = ["regions.json" if kind == "regions" else f"{kind}/" for kind in self.order.kinds]
        return ["results.jsonl", *tables, *kinds]

    def _total(self) -> int:
        return len(self.ranking) + len(self.failed)
