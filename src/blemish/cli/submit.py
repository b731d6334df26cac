"""`blemish submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import Threshold, note, progress
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.detector import Detector

#: Problems that are listed.
MAX_PROBLEMS = 20


def submit(
    out: Path,
    *,
    data: Path | None = None,
    profiles: Path | None = None,
    method: str | None = None,
    threshold: Threshold = None,
    check: bool = False,
    pack: bool = False,
    backbone: str = "builtin",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
) -> int:
    """Write the files that the evaluation server of MVTec AD 2 takes, check them, and pack them.

    Args:
        out: Folder of the submission.
        data: Folder of MVTec AD 2 as it is distributed.
        profiles: Folder with one profile per object, such as can.profile, made by `blemish fit` from good pictures.
        method: Score without profiles, with this method and --threshold.
        threshold: Threshold of the masks, fixed beforehand; in place of the profiles' own.
        check: Only check what is there; with --data sizes are compared with the pictures.
        pack: Write OUT.tar.gz beside the folder once everything is right.
        backbone: `builtin`, or another backbone, as in detect.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower, as in detect.
    """
    if not check:
        if data is None:
            raise UsageError("there are no pictures to score: give --data with the folder of MVTec AD 2")
        if (profiles is None) == (method is None):
            raise UsageError("give --profiles DIR with a profile per object, or --method NAME with --threshold")
        if method is not None and threshold is None:
            raise UsageError("the server wants masks: give --threshold, fixed before the pictures are scored")

    from blemish.evaluation.submission import (
        PICTURES,
        SPLITS,
        check_submission,
        pack_submission,
        write_submission,
    )

    if not check and data is not None:
        from blemish.clip import load_backbone
        from blemish.loading import load

        loaded = load_backbone(backbone)

        def detector(name: str) -> Detector:
            if profiles is None:
                return load(
                    method or "",
                    backbone=loaded,
                    object_name=name.replace("_", " "),
                    threshold=threshold,
                    device=device,
                    precision=precision,
                )
            path = profiles / f"{name}.profile"
            if not path.is_file():
                raise UsageError(f"{profiles} has no {path.name}: make it with blemish fit")
            return load(path, backbone=loaded, mask_threshold=threshold, device=device, precision=precision)

        with progress(sum(PICTURES.values()) * len(SPLITS), "scoring") as advance:
            write_submission(detector, data, out, on_progress=advance)
    problems = check_submission(out, data)
    for problem in problems[:MAX_PROBLEMS]:
        note(problem)
    if problems:
        note(f"{len(problems)} problems: the server would refuse this submission.")
        return EXIT_FAILED
    print(f"{out} is complete: {sum(PICTURES.values()) * len(SPLITS):,} maps and as many masks.")
    if pack:
        print(f"Packed as {pack_submission(out)}.")
    print("Run the owner's own checker as well before you upload, and read the data set's licence.")
    return EXIT_OK
