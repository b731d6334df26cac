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
from blemish.export.backends import Calibration, Opened
from blemish.export.graph import Whole, digest, linear_weights, quiet, trace
from blemish.export.header import IMAGE, KEY, MAP, SCORE, Header, from_json

#: What can be asked for, in OpenVINO's words.
HINTS = {"auto": "f32", "float32": "f32", "bfloat16": "bf16"}


def write(engine: TorchEngine, header: Header, path: Path, calibration: Calibration | None) -> None:
    """See `blemish.export.backends.Module`. OpenVINO's own Pillow filter is put before the graph."""
    whole = Whole(engine, header, resize=False)
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
        return ops.divide(picture, np.float32(255))

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
    """See `blemish.export.backends.Module`. An ONNX file is read, too."""
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
    compiled = core.compile_model(model, place, {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    requests = threading.local()  # a request serves one caller at a time

    def infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not hasattr(requests, "mine"):
            requests.mine = compiled.create_infer_request()
        found = requests.mine.infer({IMAGE: pixels})
        return found[SCORE], found[MAP]

    really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    kind = "bfloat16" if really == "bf16" else "float32"
    return Opened(header, infer, header.precision if header.calibration else kind, place.lower())


def _told(model: Any) -> str | None:
    """The header's JSON: OpenVINO keeps that of an ONNX file among what its framework said."""
    for where in ([KEY], ["framework", KEY]):
        if model.has_rt_info(where):
            return str(model.get_rt_info(where).astype(str))
    return None
