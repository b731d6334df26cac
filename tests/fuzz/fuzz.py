"""Fuzz one reader, guided by the coverage of blemish's own code; it needs atheris (`pip install atheris`).

    python tests/fuzz/fuzz.py TARGET --seconds 3600 --findings findings/

A target is a name in `targets.TARGETS`. Every kind of exception is kept once: findings/TARGET-EXCEPTION-LINE, and the
run goes on. Inputs that kill the process (memory, a crash in a decoder) are kept by libFuzzer as crash-*, oom-* and
timeout-* in the same folder; run again after them. Inputs that reached new code are kept in findings/TARGET.corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import sys
import time
import traceback
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["blemish", "PIL.TiffImagePlugin", "nibabel"]):
    import targets

#: Seconds of processor time after which an input counts as slow.
SLOW = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    options = parser.parse_args()
    target = targets.TARGETS[options.target]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    corpus = options.findings / f"{options.target}.corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    kept = Path(__file__).parent / "corpus" / options.target
    for seed in [*target.seeds(), *(path.read_bytes() for path in sorted(kept.glob("*")))]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    seen: set[str] = set()

    def keep(kind: str, data: bytes, text: str) -> None:
        if kind in seen:
            return
        seen.add(kind)
        path = options.findings / f"{options.target}-{kind}"
        path.write_bytes(data)
        path.with_name(f"{path.name}.txt").write_text(text)
        print(f"found {kind} in {len(data)} bytes", flush=True)

    def run(data: bytes) -> None:
        start = time.process_time()
        try:
            target.run(data)
        except target.expected:
            pass
        except Exception as error:
            where = [frame for frame in traceback.extract_tb(error.__traceback__) if "blemish" in frame.filename]
            last = where[-1]
            keep(f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}", data, traceback.format_exc())
        if (seconds := time.process_time() - start) > SLOW:
            keep(f"slow-{seconds:.0f}", data, f"{seconds} s")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return target.repair(atheris.Mutate(data, max_size))[:max_size]

    words = [sys.argv[0], f"-max_total_time={options.seconds}", "-max_len=20000", "-timeout=60", "-rss_limit_mb=4000"]
    words += [f"-artifact_prefix={options.findings}/", "-print_final_stats=1", "-verbosity=1", "-reload=0", str(corpus)]
    custom = {} if target.repair is bytes else {"custom_mutator": mutate}
    with contextlib.redirect_stdout(sys.stderr):
        atheris.Setup(words, run, **custom)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
