"""One process of a group: `test_processes_training.py` starts two of it, each with its number in the environment.

Runs commands of blemish one after another and writes what each left: exit code, standard output, standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from blemish.cli import main


def run(words: list[str], port: int) -> tuple[int, str, str]:
    os.environ["MASTER_PORT"] = str(port)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([word.replace("{rank}", os.environ["RANK"]) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    if distributed.is_initialized():  # after an error, when a process would end
        distributed.destroy_process_group()
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    results = [run(words, port) for words, port in json.loads((folder / "commands.json").read_text())]
    (folder / f"results-{os.environ['RANK']}.json").write_text(json.dumps(results))
