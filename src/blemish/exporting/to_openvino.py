"""Detectors as OpenVINO files (.xml and .bin), run by OpenVINO."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor
from openvino.utils.decorators import custom_preprocess_function

from blemish.engine import TorchEngine
from blemish.errors import OutputError, UsageError, WeightsError
from blemish.exporting.backends import Calibration, Opened
from blemish.exporting.graph import Whole, digest, linear_weights, quiet, trace
from blemish.exporting.header import IMAGE, KEY, MAP, SCORE, Header, from_json
from blemish.methods.base import MemoryBank

#: What can be asked for, in OpenVINO's words.
HINTS = {"auto": "f32", "float32": "f32", "bfloat16": "bf16"}
#: The node behind the resizing, by its name in the file.
PREPARED = "prepared"
#: Weights in bytes up to which one product is too small for all processors, and pictures share them better.
SMALL = 200_000_000
#: Pictures that go through a small model together, on a processor of their own.
TOGETHER = 4


def write(
    engine: TorchEngine, memory: MemoryBank | None, header: Header, path: Path, calibration: Calibration | None
) -> None:
    """See `blemish.exporting.backends.Module`. OpenVINO's own Pillow filter is put before the graph."""
    whole = Whole(engine, memory, header, resize=False)
    program = trace(whole)
    try:
        with quiet(), torch.no_grad():
            model = openvino.convert_model(program)
    except RuntimeError as error:
        raise UsageError(f"OpenVINO has no operation for a step of {header.provenance.method}: try onnx") from error
    model.reshape([-1, 3, header.size, header.size])
    for output, name in zip(model.outputs, header.outputs, strict=True):
        output.get_tensor().set_names({name})
    if calibration is not None:
        model = _quantised(model, whole, calibration)
    model = _with_resizing(model, header.size)
    model.inputs[0].get_tensor().set_names({IMAGE})
    model.set_rt_info(header.to_json(), [KEY])
    for key, value in header.model_info().items():
        model.set_rt_info(value, ["model_info", key])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path} cannot be written: {error}", path) from error


def _with_resizing(model: Any, size: int) -> Any:
    """Pictures of any size in front, brought to S x S as Pillow does: rows first, rounded to whole 255ths between."""

    @custom_preprocess_function  # type: ignore[untyped-decorator]  # OpenVINO has no types
    def as_pillow(picture: Any) -> Any:
        across = np.array([size], np.int64)
        height = ops.gather(ops.shape_of(picture), np.array([2]), np.array(0))
        picture = ops.multiply(picture, np.float32(255))
        for sides in (ops.concat([height, ops.constant(across)], 0), ops.constant(np.repeat(across, 2))):
            picture = ops.interpolate(picture, sides, "bicubic_pillow", "sizes", axes=np.array([2, 3]))
            picture = ops.clamp(ops.round(picture, "half_to_even"), 0.0, 255.0)
        picture = ops.divide(picture, np.float32(255))
        picture.set_friendly_name(PREPARED)
        return picture

    steps = PrePostProcessor(model)
    picture = steps.input(0)
    picture.tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NCHW")).set_shape([-1, 3, -1, -1])
    picture.model().set_layout(openvino.Layout("NCHW"))
    picture.preprocess().custom(as_pillow)
    return steps.build()


def _quantised(model: Any, whole: Whole, calibration: Calibration) -> Any:
    """The linear layers of the vision tower in int8, weights by channel; all else stays float32."""
    import nncf

    known = {digest(one.numpy()) for one in linear_weights(whole)}
    known |= {digest(one.numpy().T) for one in linear_weights(whole)}
    others = [node.get_friendly_name() for node in model.get_ops() if not _is_linear(node, known)]
    # its bars go where progress goes, and nowhere if that is no terminal: standard output is for results
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with quiet(), contextlib.redirect_stdout(bars):
        return nncf.quantize(
            model,
            nncf.Dataset(calibration),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


def _is_linear(node: Any, known: set[bytes]) -> bool:
    if node.get_type_name() != "MatMul":
        return False
    sources = [node.input_value(number).get_node() for number in range(2)]
    return any(one.get_type_name() == "Constant" and digest(one.get_data()) in known for one in sources)


def read(path: Path, device: str, precision: str) -> Opened:
    """See `blemish.exporting.backends.Module`. An ONNX file is read, too."""
    if precision not in HINTS:
        raise UsageError(f"OpenVINO computes in auto, float32 or bfloat16 here, not {precision}")
    core = openvino.Core()
    place = "CPU" if device == "auto" else device.upper()
    if place not in core.available_devices:
        raise UsageError(f"OpenVINO finds no device {device!r} here; try {', '.join(core.available_devices).lower()}")
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise WeightsError(f"{path} is damaged or no file of OpenVINO: run blemish export again", path) from error
    header = from_json(_told(model), path)
    alone = _expects_prepared(model, header.size)
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    compiled, sharing = core.compile_model(model, place, options), None
    if alone and place == "CPU" and path.with_suffix(".bin").stat().st_size < SMALL:
        model.reshape([TOGETHER, 3, header.size, header.size])
        sharing = core.compile_model(model, place, {**options, "PERFORMANCE_HINT": "THROUGHPUT"})
    own = threading.local()  # a request serves one caller at a time

    def infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
            own.queue = None if sharing is None else openvino.AsyncInferQueue(sharing)
        shared = len(pixels) // TOGETHER if sharing is not None and len(pixels) >= 2 * TOGETHER else 0
        found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

        def keep(request: Any, number: int) -> None:
            found[number] = request.get_tensor(SCORE).data.copy(), request.get_tensor(MAP).data.copy()

        if shared:
            own.queue.set_callback(keep)
            for number in range(shared):
                own.queue.start_async({IMAGE: pixels[number * TOGETHER : (number + 1) * TOGETHER]}, number)
            own.queue.wait_all()
        if len(rest := pixels[shared * TOGETHER :]):
            last = own.request.infer({IMAGE: rest})
            found[shared] = last[SCORE], last[MAP]
        scores, maps = zip(*(found[number] for number in sorted(found)), strict=True)
        return np.concatenate(scores), np.concatenate(maps)

    really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    kind = "bfloat16" if really == "bf16" else "float32"
    return Opened(header, infer, header.precision if header.calibration else kind, place.lower())


def _expects_prepared(model: Any, size: int) -> bool:
    """Leave out the resizing of a model that was read, since what comes from here has its size already.

    Returns:
        Whether that was possible: in a file that `write` made.
    """
    for node in model.get_ops():
        if node.get_friendly_name() == PREPARED:
            node.output(0).replace(model.input(0).node.output(0))
            model.reshape([-1, 3, size, size])
            return True
    return False


def _told(model: Any) -> str | None:
    """The header's JSON: OpenVINO keeps that of an ONNX file among what its framework said."""
    for where in ([KEY], ["framework", KEY]):
        if model.has_rt_info(where):
            return str(model.get_rt_info(where).astype(str))
    return None
