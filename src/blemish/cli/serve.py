"""`blemish serve`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from blemish.cli import EXIT_OK
from blemish.cli.console import (
    COMPUTING,
    METHOD_OPTIONS,
    PICTURES,
    VERDICTS,
    Range,
    Threshold,
    config_changes,
    note,
    waiting,
)
from blemish.cli.detect import checked_weights
from blemish.cli.loading_options import OBJECT
from blemish.errors import UsageError
from blemish.types import Preset

SERVICE, LIMITS, LINES = (Group.create_ordered(name) for name in ("Service", "Limits", "Lines"))

#: Environment variable with the API key.
KEY = "BLEMISH_API_KEY"

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def serve(
    *,
    profile: Annotated[Words, Parameter(group=VERDICTS)] = None,
    threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    mask_threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    method: Annotated[Words, Parameter(group=METHOD_OPTIONS)] = None,
    backbone: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    weights: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    preset: Annotated[Preset | None, Parameter(group=METHOD_OPTIONS)] = None,
    config: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    object_name: Annotated[str, Parameter(name="--object", group=METHOD_OPTIONS)] = OBJECT,
    host: Annotated[str, Parameter(group=SERVICE)] = "127.0.0.1",
    port: Annotated[int, Parameter(group=SERVICE)] = 8000,
    api_key_file: Annotated[Path | None, Parameter(group=SERVICE)] = None,
    cors: Annotated[Words, Parameter(group=SERVICE)] = None,
    access_log: Annotated[bool, Parameter(negative="", group=SERVICE)] = False,
    max_bytes: Annotated[int, Parameter(group=LIMITS)] = 64 * 2**20,
    max_pixels: Annotated[int, Parameter(group=LIMITS)] = 64_000_000,
    max_pictures: Annotated[int | None, Parameter(group=LIMITS)] = None,
    timeout: Annotated[float, Parameter(group=LIMITS)] = 60.0,
    queue: Annotated[int, Parameter(group=LIMITS)] = 64,
    client_queue: Annotated[int | None, Parameter(group=LIMITS)] = None,
    watch: Annotated[Path | None, Parameter(group=LINES)] = None,
    watch_out: Annotated[Path | None, Parameter(group=LINES)] = None,
    webhook: Annotated[str | None, Parameter(group=LINES)] = None,
    value_range: Annotated[Range, Parameter(group=PICTURES)] = None,
    tile: Annotated[int | None, Parameter(group=PICTURES)] = None,
    overlap: Annotated[float | None, Parameter(group=PICTURES)] = None,
    batch_size: Annotated[int, Parameter(group=COMPUTING)] = 8,
    batch_wait_ms: Annotated[float, Parameter(group=COMPUTING)] = 10.0,
    device: Annotated[str, Parameter(group=COMPUTING)] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Parameter(group=COMPUTING)] = "auto",
) -> int:
    """Answer over HTTP with one loaded model: a page in the browser, a REST API, a watched folder.

    Args:
        profile: Profiles from `blemish fit`; each answers under the name of its file, and the first one by default.
        threshold: The methods call pictures with this score or a higher one anomalous; profiles have their own.
        mask_threshold: The same for pixels. [default: the picture threshold]
        method: Methods that score without a profile. [default: anomalyclip if there is no profile]
        backbone: Backbone of all of them. [default: that of the profiles, else the built-in one]
        weights: Weights of the method, as in detect.
        preset: fast scores with the built-in model in at most half the time per picture, a little less accurately.
            [default: default]
        config: Fields of the method's config to change, as JSON.
        object_name: What the pictures show, unless a request says so.
        host: Address to listen on; the default is reachable from this machine only.
        port: Port to listen on; 0 takes a free one.
        api_key_file: File with the key that requests have to carry. [default: the environment variable BLEMISH_API_KEY]
        cors: Origins whose pages may call the service, such as https://line.example.
        access_log: Log each request.
        max_bytes: Largest body of a request, in bytes.
        max_pixels: Largest picture, in pixels.
        max_pictures: Most pictures in a request. [default: 32, or what the queue takes]
        timeout: Seconds in which a body has to arrive, and then has to be answered.
        queue: Most pictures that are accepted and not answered yet; more are turned away (429).
        client_queue: The same for each client address. [default: no limit of its own]
        watch: Folder whose new pictures are scored as they come.
        watch_out: Folder for their results. [default: the folder's name with -results]
        webhook: URL that each result is posted to as JSON.
        value_range: LOW,HIGH: the values that become black and white for the methods; profiles have their own.
        tile: Cut larger pictures into tiles of this side for the methods; profiles have their own.
        overlap: Overlap of neighbouring tiles, as a fraction of their side. [default: 0.25]
        batch_size: Pictures that go through the model together.
        batch_wait_ms: Milliseconds that a batch waits for pictures that are being read.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower, as in detect.
    """
    from blemish.serve import extra

    extra.require()
    methods = method or ([] if profile else ["anomalyclip"])
    refuse_beside_profiles(
        {
            "--threshold": threshold is not None,
            "--mask-threshold": mask_threshold is not None,
            "--weights": weights is not None,
            "--preset": preset is not None,
            "--config": config is not None,
            "--object": object_name != OBJECT,
            "--value-range": value_range is not None,
            "--tile": tile is not None,
        },
        methods,
    )
    if overlap is not None and tile is None:
        raise UsageError("--overlap is the overlap of tiles: give --tile PIXELS, too")
    from blemish.serve.options import ServeOptions

    options = ServeOptions(
        host=host,
        port=port,
        api_key=read_key(api_key_file),
        cors=tuple(cors or ()),
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_pictures=max(1, min(32, queue)) if max_pictures is None else max_pictures,
        timeout=timeout,
        queue=queue,
        client_queue=client_queue,
        batch_size=batch_size,
        batch_wait=batch_wait_ms / 1000,
        watch=watch,
        watch_out=watch_out,
        webhook=webhook,
        access_log=access_log,
    )
    if watch is not None and not watch.is_dir():
        raise UsageError(f"--watch {watch} is no folder; make it first")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("torch").setLevel(logging.WARNING)  # it reports its caches when the process ends
    from blemish.serve.server import bind, make_server

    settings: dict[str, Any] = {"device": device, "precision": precision, "max_pixels": max_pixels}
    if methods:
        if weights is not None and len(methods) > 1:
            raise UsageError("--weights are those of one method: give one --method with them")
        for name in methods:
            weights = checked_weights(name, backbone or "builtin", weights, object_name)
        settings |= {
            "weights": weights,
            "preset": preset,
            "config": config_changes(config) or None,
            "object_name": object_name,
            "threshold": threshold,
            "mask_threshold": mask_threshold,
            "value_range": value_range,
            "tile": tile,
        }
        if overlap is not None:
            settings["overlap"] = overlap
    with bind(host, port) as listener:  # before the model is loaded, which takes a while
        from blemish.serve.profiles import load_registry
        from blemish.serve.service import Service

        with waiting("loading the model"):
            registry = load_registry(profile or (), methods, backbone=backbone, **settings)
            service = Service(registry, options)
        address = listener.getsockname()
        location = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"http://{location}:{address[1]}/"
        if options.api_key is None and host not in ("127.0.0.1", "::1", "localhost"):
            note("Everybody who reaches this address can use the service: give a key (--api-key-file).")
        names = ", ".join([*registry.profiles, *registry.methods])
        make_server(service, lambda: note(f"blemish serves {names} at {url}")).run(sockets=[listener])
    return EXIT_OK


def refuse_beside_profiles(given: dict[str, bool], methods: list[str]) -> None:
    """Raise a UsageError for an option of methods where there are only profiles."""
    for option, is_given in given.items():
        if is_given and not methods:
            raise UsageError(f"{option} is fixed in a profile: leave it out, or give --method, which it is for")


def read_key(file: Path | None) -> str | None:
    """Return the API key of a file or of the environment; None without."""
    if file is None:
        return os.environ.get(KEY) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {file} cannot be read; give a text file with the key") from error
    if not key:
        raise UsageError(f"--api-key-file {file} is empty; write the key into it")
    return key
