"""The command line: `main` parses, runs, and turns every failure into one sentence and an exit code.

Exit codes: 0 success; 1 something failed (each failure is named); 2 wrong usage; 130 interrupted from the keyboard;
141 the reader of standard output went away; 143 ended by SIGTERM, which works like Ctrl-C. `BLEMISH_DEBUG=1` shows the
traceback of an error.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from blemish.cli.terminal import EscapingStream, escape

STDIN = "\0stdin"  # replaces a lone "-", which cyclopts would take for an option; no file can have this name
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports for any tool before `| head`
EXIT_TERMINATED = 143  # 128 + SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `blemish`; None = those of the process.

    Returns:
        The exit code.
    """
    _open_missing_streams()
    words = [STDIN if word == "-" else word for word in (sys.argv[1:] if arguments is None else arguments)]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that is not valid text must not stop the run
    if os.environ.get("BLEMISH_DEBUG"):
        return _run(words)
    # Not standard error: a progress bar moves by control characters; `_fail` and `note` escape what they print there.
    with redirect_stdout(EscapingStream(sys.stdout)), _termination() as terminated:
        try:
            return _run(words)
        except KeyboardInterrupt as stop:
            code = EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
            return _fail(str(stop) or "interrupted", code, prefix="")
        except SystemExit as stop:
            if not isinstance(stop.__context__, BrokenPipeError):
                raise
            return EXIT_BROKEN_PIPE  # help is printed by rich, which makes this of a reader that went away
        except BrokenPipeError:
            # What is still buffered must not fail again when the interpreter shuts down.
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return EXIT_BROKEN_PIPE
        except Exception as error:
            return _failure(error)


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Let SIGTERM end the block like Ctrl-C; yield a list that then has an entry."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_missing_streams() -> None:
    """Lead closed standard streams to nowhere, as a daemon's may be (`>&-`).

    Python has None in their place, and the next file that is opened would get their number. Standard input stays None,
    so that asking for a list on it is refused.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null < 3:  # the lowest free number comes first
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end


def _run(words: list[str]) -> int:
    from cyclopts import CycloptsError, MissingArgumentError

    from blemish.cli.app import app

    try:
        code = app(words, print_error=False, exit_on_error=False, verbose=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(("blemish", *(error.command_chain or ())))
        if isinstance(error, MissingArgumentError) and error.argument is not None:
            positional = error.argument.field_info.kind != inspect.Parameter.KEYWORD_ONLY
            name = error.argument.name.removeprefix("--").upper() if positional else error.argument.name
            missing = f"{error.keyword} needs a value" if error.keyword else f"`{command}` needs {name}"
            return _fail(f"{missing}. See `{command} --help`.", EXIT_USAGE)
        return _fail(f"{error} See `{command} --help`.", EXIT_USAGE)
    sys.stdout.flush()
    return code if isinstance(code, int) else EXIT_OK


def _failure(error: Exception) -> int:
    from blemish.errors import BlemishError, UsageError

    if isinstance(error, BlemishError):
        sentence = str(error).replace("\n", "\\n")  # of a file's name
        return _fail(sentence, EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return _fail(f"the disk is full{where}; free some space and run the same command again", EXIT_FAILED)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _fail("out of memory; try a smaller --batch-size or --max-pixels", EXIT_FAILED)
    kind = type(error).__name__
    return _fail(f"unexpected {kind}: {error} (BLEMISH_DEBUG=1 shows where it comes from)", EXIT_FAILED)


def _fail(sentence: str, code: int, prefix: str = "blemish: ") -> int:
    print(f"{prefix}{escape(sentence)}", file=sys.stderr)
    return code
