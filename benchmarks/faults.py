"""Faults at random: after each one the next run ends with what an unbroken one ends with, and keeps what was finished.

    python benchmarks/faults.py --faults 1000 --log faults.jsonl

Processes are killed at random moments, at random operations on files and within a write; disks are full; files
change under the program; servers break off; clocks jump; two runs share one folder. PyTorch and a tiny random CLIP
are loaded once, and each run is a fork of that process, so that a fault hits the work and not the imports.

A fault counts as lost if something that was reported finished before it is missing or was done again after the next
run. It counts as wrong if the next run ends with something else than an unbroken one, if a file under its final name
is not whole, or if a run ends with anything but success or a sentence. The log gets a line for each trial; the same
command goes on with it. Exit code 1 if anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import fault_commands
import fault_files
import fault_service
from fault_commands import Command

#: Seconds after which a run hangs.
_PATIENCE = 300
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
COMMANDS = ("detect", "scan", "evaluate", "train", "fit", "export", "weights pull")


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    seconds: float
    error: str

    @property
    def trouble(self) -> str | None:
        """What is wrong with it; None if it succeeded, was killed, or said why not in a sentence."""
        if self.code not in (0, 1, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGXFSZ):
            return f"exit code {self.code}: {self.error[-300:]}"
        if "Traceback" in self.error or "blemish: unexpected" in self.error:
            return self.error[-600:]
        return None


@dataclass
class Trial:
    """What a trial found."""

    tried: int = 0
    lost: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def find(self, kind: str, note: str) -> None:
        """Count a loss, or something wrong."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{kind}: {note}")


class Bench:
    """Runs commands in forked processes, and knows what an unbroken run of each ends with."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "out"
        self.commands = fault_commands.make_commands(root)
        self.server = fault_service.FaultyServer(root)
        self.seconds: dict[str, float] = {}
        self.outcomes: dict[str, Any] = {}
        self.errors: dict[int, int] = {}
        os.environ["BLEMISH_HOME"], os.environ["BLEMISH_WEIGHTS_URL"] = str(self.out), self.server.address

    def words(self, command: Command) -> list[str]:
        """Return the words of a command in the folder of all trials."""
        return [word.replace("{out}", str(self.out)) for word in command.words]

    def warm(self, names: Collection[str]) -> None:
        """Run commands once in this process, for their imports, and keep what they end with."""
        from blemish import cli

        for name in names:
            command = self.commands[name]
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir()
            code = cli.main(self.words(command))
            if code:
                raise SystemExit(f"{name} ends with {code}")
            if command.before is not None:  # an earlier result stands where the next one will
                shutil.rmtree(command.before, ignore_errors=True)
                shutil.copytree(self.out, command.before)
            fault_commands.fill(command, self.out)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = self.run(self.words(command))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.seconds[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if ended.code:
                raise SystemExit(f"{name} ends with {ended.code}: {ended.error}")
            self.outcomes[name] = command.outcome(self.out)
            shutil.rmtree(self.root / "finished" / name, ignore_errors=True)
            shutil.copytree(self.out, self.root / "finished" / name)

    def start(self, words: Sequence[str], setup: Callable[[], object] = lambda: None) -> int:
        """Fork a process that runs a command; return its number."""
        sys.stdout.flush()
        sys.stderr.flush()
        # No file, since the size of files may be limited.
        reading, error = os.pipe()
        gentle = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, gentle)  # until the new process can take them
        process = os.fork()
        if process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, gentle)
            os.close(error)
            os.set_blocking(reading, False)
            self.errors[process] = reading
            return process
        code = 70
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, gentle)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(error, 2)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            import torch

            from blemish import cli

            torch.set_num_threads(1)  # makes its pool again after the fork, before there are threads that race for it
            setup()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = cli.main(list(words))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def end(self, process: int) -> Ended:
        """Wait for the end of a process."""
        start = time.perf_counter()
        while True:
            number, status = os.waitpid(process, os.WNOHANG)
            if number:
                break
            if time.perf_counter() - start > _PATIENCE:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return Ended(99, _PATIENCE, "it hangs")
            time.sleep(0.002)
        reading = self.errors.pop(process)
        with contextlib.closing(os.fdopen(reading, "rb")) as stream:
            error = (stream.read() or b"").decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), time.perf_counter() - start, error)

    def run(self, words: Sequence[str], setup: Callable[[], object] = lambda: None) -> Ended:
        """Run a command to its end."""
        return self.end(self.start(words, setup))

    def interrupt(self, command: Command, number: int, seconds: float) -> Ended | None:
        """Send a signal to a run after some seconds of processor time; None if it was over by then."""
        process = self.start(self.words(command))
        while int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) < seconds * 1e9:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self.end(process)
                return None
            time.sleep(0.001)
        os.kill(process, number)
        return self.end(process)

    # What a fault must not do

    def finished(self, command: Command, trial: Trial) -> dict[str, Any]:
        """Return what the folder reports as finished; what is not whole is wrong."""
        for problem in fault_files.not_whole(self.out, self.root / "published.pth"):
            trial.find("wrong", problem)
        try:
            return command.finished(self.out)
        except Exception as error:
            trial.find("lost", f"{command.name}: {type(error).__name__}: {error}")
            return {}

    def heal(
        self, command: Command, trial: Trial, before: dict[str, Any], setup: Callable[[], object] = lambda: None
    ) -> None:
        """Run a command once more, and compare."""
        ended = self.run(self.words(command), setup)
        if ended.code != 0:
            return trial.find("wrong", f"the next run ends with {ended.code}: {ended.error[-300:]}")
        after = self.finished(command, trial)
        if lost := [key for key, value in before.items() if after.get(key) != value]:
            trial.find("lost", f"{lost[:3]}")
        try:
            outcome = command.outcome(self.out)
        except Exception as error:
            return trial.find("wrong", f"the outcome cannot be read: {type(error).__name__}: {error}")
        if outcome != self.outcomes[command.name]:
            trial.find("wrong", f"another outcome: {fault_files.difference(self.outcomes[command.name], outcome)}")
        return None

    # Faults

    def kills(self, command: Command, rng: random.Random, number: int) -> Trial:
        """Signals at random moments of several runs."""
        trial = Trial()
        fault_commands.fill(command, self.out)
        before: dict[str, Any] = {}
        for _ in range(rng.randint(3, 6)):
            if command.name == "weights pull":
                self.server.plan([{"do": "slow", "seconds": 0.2}])
            ended = self.interrupt(command, number, rng.uniform(0.05, 0.95) * self.seconds[command.name])
            if ended is None:
                continue
            trial.tried += 1
            if ended.trouble:
                trial.find("wrong", ended.trouble)
            self._keep(command, trial, before)
        self.server.plan([])
        self.heal(command, trial, before)
        return trial

    def _keep(self, command: Command, trial: Trial, before: dict[str, Any]) -> None:
        """Note what is finished now; what was finished before has to be there still."""
        now = self.finished(command, trial)
        if lost := [key for key, value in before.items() if now.get(key) != value]:
            trial.find("lost", f"{lost[:3]}")
        before |= now

    def operations(self, command: Command, rng: random.Random) -> Trial:
        """SIGKILL right before a random operation on a file: opening, renaming, removing, making a folder."""
        trial = Trial()
        fault_commands.fill(command, self.out)
        before: dict[str, Any] = {}
        for _ in range(rng.randint(3, 6)):
            count = rng.randint(1, 4 if command.before or command.name == "weights pull" else 20)
            ended = self.run(self.words(command), functools.partial(fault_files.kill_at, str(self.out), count))
            if ended.code != -signal.SIGKILL:
                continue  # it had fewer operations
            trial.tried += 1
            self._keep(command, trial, before)
        self.heal(command, trial, before)
        return trial

    def writes(self, command: Command, rng: random.Random) -> Trial:
        """Killed within a write, by a limit of the size of files (SIGXFSZ)."""
        return self._limited(command, rng, killed=True)

    def write_errors(self, command: Command, rng: random.Random) -> Trial:
        """A write fails (EFBIG) after a random number of bytes."""
        return self._limited(command, rng, killed=False)

    def _limited(self, command: Command, rng: random.Random, *, killed: bool) -> Trial:
        trial = Trial()
        fault_commands.fill(command, self.out)
        before: dict[str, Any] = {}
        largest = {"export": 400_000, "weights pull": 600_000, "train": 60_000, "fit": 60_000}.get(command.name, 4000)

        def limit(size: int) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        for _ in range(rng.randint(2, 5)):
            ended = self.run(self.words(command), functools.partial(limit, int(largest ** rng.uniform(0.3, 1))))
            if ended.code == 0:
                continue
            trial.tried += 1
            if ended.trouble:
                trial.find("wrong", ended.trouble)
            self._keep(command, trial, before)
        self.heal(command, trial, before)
        return trial

    def full_disk(self, command: Command, rng: random.Random) -> Trial:
        """A disk of a few pages (tmpfs), then a larger one."""
        trial = Trial()
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        pages = {"export": 200, "weights pull": 150, "train": 60, "fit": 20}.get(command.name, 40)
        self._mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
        try:
            if command.before is not None:
                shutil.copytree(command.before, self.out, dirs_exist_ok=True)
            before: dict[str, Any] = {}
            self._keep(command, trial, before)
            for _ in range(rng.randint(2, 4)):
                used = shutil.disk_usage(self.out).used
                size = used + 4096 * rng.randint(1, pages)
                self._mount("-o", f"remount,size={size}")
                ended = self.run(self.words(command))
                self._mount("-o", "remount,size=64m")
                if ended.code == 0:
                    continue
                trial.tried += 1
                if ended.trouble or ended.code not in (1, 2):
                    trial.find("wrong", ended.trouble or f"it ends with {ended.code}")
                self._keep(command, trial, before)
            self.heal(command, trial, before)
        finally:
            subprocess.run(["umount", str(self.out)], check=True)
        return trial

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.out)], check=True)

    def clocks(self, command: Command, rng: random.Random) -> Trial:
        """Clocks that jump by up to ten years, forth and back, within a run that is killed and in the next one."""
        trial = Trial()
        fault_commands.fill(command, self.out)
        before: dict[str, Any] = {}
        for _ in range(3):
            jump = functools.partial(fault_files.jump, rng.randrange(2**32))
            count = rng.randint(5, 40)

            def setup(jump: Callable[[], object] = jump, count: int = count) -> None:
                jump()
                fault_files.kill_at(str(self.out), count)

            ended = self.run(self.words(command), setup)
            trial.tried += 1
            if ended.trouble:
                trial.find("wrong", ended.trouble)
            fault_files.shift_times(self.out, rng)
            self._keep(command, trial, before)
        self.heal(command, trial, before, functools.partial(fault_files.jump, rng.randrange(2**32)))
        return trial

    def two_runs(self, command: Command, rng: random.Random) -> Trial:
        """Two runs of one command in one folder at the same time."""
        trial = Trial(tried=1)
        fault_commands.fill(command, self.out)
        first = self.start(self.words(command))
        time.sleep(rng.choice([0.0, rng.uniform(0, self.seconds[command.name])]))
        second = self.start(self.words(command))
        ends = self.end(first), self.end(second)
        for ended in ends:
            if ended.trouble or (ended.code and "another run" not in ended.error):
                trial.find("wrong", ended.trouble or ended.error[-300:])
        before: dict[str, Any] = {}
        self._keep(command, trial, before)
        if all(ended.code for ended in ends):
            trial.find("wrong", "both are refused")
        self.heal(command, trial, before)
        return trial

    def network(self, command: Command, rng: random.Random) -> Trial:
        """Servers that drop, cut, stall, answer with errors, or send wrong bytes."""
        trial = Trial()
        fault_commands.fill(command, self.out)
        plan = [fault_service.behave(rng) for _ in range(rng.randint(1, 4))]
        self.server.plan(plan)
        before: dict[str, Any] = {}
        for _ in range(2):
            ended = self.run([*self.words(command), "--timeout", "0.5", "--attempts", "2"], fault_service.no_pauses)
            if ended.trouble:
                trial.find("wrong", f"{plan}: {ended.trouble}")
            self._keep(command, trial, before)
        trial.tried += len(plan) - self.server.left()
        self.server.plan([])
        self.heal(command, trial, before)
        return trial

    def damage(self, command: Command, rng: random.Random) -> Trial:
        """Bits that flip, bytes that are overwritten, files that are cut, in a file of a finished run."""
        return fault_files.damage(self, command, rng, Trial(tried=1))

    def damaged_reading(self, command: Command, rng: random.Random) -> Trial:
        """The same, twenty times, with nothing but the reader of the file."""
        return fault_files.damage_and_read(self, command, rng, Trial())

    def service(self, command: Command, rng: random.Random) -> Trial:
        """A service that is killed while it answers or accepts feedback."""
        return fault_service.serve_and_kill(self, rng, Trial())


def schedule() -> list[tuple[str, str, Callable[..., Trial]]]:
    """Return name, command and method of each kind of trial, as often as it comes in a round."""
    kinds: list[tuple[str, str, Callable[..., Trial]]] = []
    for name in COMMANDS:
        often = {"detect": 2, "scan": 2, "weights pull": 4}.get(name, 1)
        for each in SIGNALS:
            kinds += [(each, name, functools.partial(Bench.kills, number=signal.Signals[each]))] * often
        kinds += [("SIGKILL at a file operation", name, Bench.operations)] * often
        kinds += [("killed within a write", name, Bench.writes), ("a write fails (EFBIG)", name, Bench.write_errors)]
        kinds += [("disk full (tmpfs)", name, Bench.full_disk)] if _can_mount() else []
        kinds += [("two runs in one folder", name, Bench.two_runs)] if name != "export" else []
    kinds += [("clock jumps", name, Bench.clocks) for name in ("detect", "scan", "evaluate", "train")]
    kinds += [("network", "weights pull", Bench.network)] * 12
    kinds += [("damaged file", name, Bench.damage) for name in ("detect", "scan", "evaluate", "train")] * 4
    kinds += [("damaged file", "weights pull", Bench.damage)]
    kinds += [("damaged file, read", name, Bench.damaged_reading) for name in ("detect", "train", "fit")] * 2
    kinds += [("SIGKILL, SIGTERM, SIGINT", "serve", Bench.service)] * 2
    return kinds


@functools.cache
def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        try:
            if subprocess.run(words, capture_output=True, check=False).returncode:
                return False
        except OSError:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of all trials as Markdown."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        sums.setdefault((row["fault"], row["command"]), Counter()).update(
            {n: row[n] for n in ("tried", "lost", "wrong")}
        )
    total = sum(sums.values(), Counter())
    lines = ["| fault | command | tried | lost | wrong |", "| --- | --- | ---: | ---: | ---: |"]
    for (fault, command), n in sorted(sums.items()):
        lines.append(f"| {fault} | `{command}` | {n['tried']:,} | {n['lost']} | {n['wrong']} |")
    lines.append(f"| **all** | | **{total['tried']:,}** | **{total['lost']}** | **{total['wrong']}** |")
    return "\n".join(lines)


def main() -> int:
    """Inject the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"), help="a line for each trial; goes on with it")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--only", default="", help="only faults or commands with this text in their name")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after that many seconds")
    given = parser.parse_args()
    start = time.perf_counter()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the server ends, too
    rows = [json.loads(line) for line in given.log.read_text().splitlines()] if given.log.exists() else []
    fault_files.one_thread()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(given.folder or Path(temporary))
        try:
            kinds = [kind for kind in schedule() if given.only in f"{kind[0]} {kind[1]}"]
            names = {"fit" if kind[1] == "serve" else kind[1] for kind in kinds}
            bench.warm([name for name in COMMANDS if name in names])
            number = len(rows)
            while sum(row["tried"] for row in rows) < given.faults and time.perf_counter() - start < given.seconds:
                rng = random.Random(f"{given.seed} {number}")
                fault, name, method = random.Random(f"{given.seed} {number // len(kinds)}").sample(kinds, len(kinds))[
                    number % len(kinds)
                ]
                trial = method(bench, bench.commands.get(name), rng)
                number += 1
                if trial.notes:
                    print(fault, name, *trial.notes, sep="\n  ", flush=True)
                rows.append({"fault": fault, "command": name, **vars(trial)})
                with given.log.open("a") as log:
                    log.write(json.dumps(rows[-1]) + "\n")
        finally:
            bench.server.stop()
    print(table(rows))
    return int(any(row["lost"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
