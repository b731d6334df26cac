"""Write detectors as OpenVINO files (.xml and .bin), and run these with OpenVINO."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Sequence
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
from blemish.exporting.graph import RESIZINGS, DetectorGraph, digest, linear_weights, quiet, trace
from blemish.exporting.header import IMAGE, KEY, Header, from_json
from blemish.methods.base import MemoryBank

#: Precisions and their names in OpenVINO.
HINTS = {"auto": "f32", "float32": "f32", "bfloat16": "bf16"}
#: Name of the node after the resizing.
PREPARED = "prepared"
#: Up to these bytes of weights, several small batches in parallel are faster than one batch on all cores.
MAX_SMALL_BYTES = 200_000_000
#: Images in each batch of a small model.
SMALL_BATCH = 4


def write(
    engine: TorchEngine, memory: MemoryBank | None, header: Header, path: Path, calibration: Calibration | None
) -> None:
    """See `blemish.exporting.backends.Module`. OpenVINO's Pillow filter resizes images before the graph."""
    graph = DetectorGraph(engine, memory, header, resize=False)
    program = trace(graph)
    try:
        with quiet(), torch.no_grad():
            model = openvino.convert_model(program)
    except RuntimeError as error:
        raise UsageError(f"OpenVINO has no operation for a step of {header.provenance.method}: try onnx") from error
    model.reshape([-1, 3, header.size, header.size])
    for output, name in zip(model.outputs, header.outputs, strict=True):
        output.get_tensor().set_names({name})
    if calibration is not None:
        model = _quantised(model, graph, calibration)
    model = _with_resizing(model, header.size, RESIZINGS[header.geometry])
    model.inputs[0].get_tensor().set_names({IMAGE})
    model.set_rt_info(header.to_json(), [KEY])
    for key, value in header.model_info().items():
        model.set_rt_info(value, ["model_info", key])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path} cannot be written: {error}", path) from error


def _with_resizing(model: Any, size: int, mode: str) -> Any:
    """Put resizing to S x S before a model, like Pillow: rows first, rounded to 8 bits in between."""

    @custom_preprocess_function  # type: ignore[untyped-decorator]  # OpenVINO has no types
    def resize_like_pillow(image: Any) -> Any:
        side = np.array([size], np.int64)
        height = ops.gather(ops.shape_of(image), np.array([2]), np.array(0))
        image = ops.multiply(image, np.float32(255))
        for sides in (ops.concat([height, ops.constant(side)], 0), ops.constant(np.repeat(side, 2))):
            image = ops.interpolate(image, sides, f"{mode}_pillow", "sizes", axes=np.array([2, 3]))
            image = ops.clamp(ops.round(image, "half_to_even"), 0.0, 255.0)
        image = ops.divide(image, np.float32(255))
        image.set_friendly_name(PREPARED)
        return image

    steps = PrePostProcessor(model)
    image = steps.input(0)
    image.tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NCHW")).set_shape([-1, 3, -1, -1])
    image.model().set_layout(openvino.Layout("NCHW"))
    image.preprocess().custom(resize_like_pillow)
    return steps.build()


def _quantised(model: Any, graph: DetectorGraph, calibration: Calibration) -> Any:
    """Quantise the linear layers of the vision tower to int8, weights per channel; all else stays float32."""
    import nncf

    weights = linear_weights(graph)
    linear = {digest(array) for weight in weights for array in (weight.numpy(), weight.numpy().T)}
    others = [node.get_friendly_name() for node in model.get_ops() if not _is_linear(node, linear)]
    # Standard output is for results, so NNCF's progress bars go to a terminal on standard error, or nowhere.
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with quiet(), contextlib.redirect_stdout(bars):
        return nncf.quantize(
            model,
            nncf.Dataset(calibration),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


def _is_linear(node: Any, weights: set[bytes]) -> bool:
    """Return whether a node multiplies with one of the weights, given by their digests."""
    if node.get_type_name() != "MatMul":
        return False
    sources = [node.input_value(number).get_node() for number in range(2)]
    return any(source.get_type_name() == "Constant" and digest(source.get_data()) in weights for source in sources)


def read(path: Path, device: str, precision: str) -> Opened:
    """See `blemish.exporting.backends.Module`. It reads ONNX files, too."""
    if precision not in HINTS:
        raise UsageError(f"OpenVINO computes in auto, float32 or bfloat16 here, not {precision}")
    core = openvino.Core()
    target = "CPU" if device == "auto" else device.upper()
    if target not in core.available_devices:
        raise UsageError(f"OpenVINO finds no device {device!r} here; try {', '.join(core.available_devices).lower()}")
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise WeightsError(f"{path} is damaged or no file of OpenVINO: export it again", path) from error
    header = from_json(_header_text(model), path)
    is_resized = _remove_resizing(model, header.size)
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    compiled, parallel = core.compile_model(model, target, options), None
    if is_resized and target == "CPU" and path.with_suffix(".bin").stat().st_size < MAX_SMALL_BYTES:
        model.reshape([SMALL_BATCH, 3, header.size, header.size])
        parallel = core.compile_model(model, target, {**options, "PERFORMANCE_HINT": "THROUGHPUT"})
    own = threading.local()  # each thread needs a request of its own

    def infer(pixels: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
            own.queue = None if parallel is None else openvino.AsyncInferQueue(parallel)
        batches = len(pixels) // SMALL_BATCH if parallel is not None and len(pixels) >= 2 * SMALL_BATCH else 0
        results: dict[int, list[NDArray[np.float32]]] = {}

        def store(request: Any, number: int) -> None:
            results[number] = [request.get_tensor(name).data.copy() for name in outputs]

        if batches:
            own.queue.set_callback(store)
            for number in range(batches):
                own.queue.start_async({IMAGE: pixels[number * SMALL_BATCH : (number + 1) * SMALL_BATCH]}, number)
            own.queue.wait_all()
        if len(rest := pixels[batches * SMALL_BATCH :]):
            last = own.request.infer({IMAGE: rest})
            results[batches] = [last[name] for name in outputs]
        parts = [results[number] for number in sorted(results)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    kind = "bfloat16" if really == "bf16" else "float32"
    return Opened(header, infer, header.precision if header.calibration else kind, target.lower())


def _remove_resizing(model: Any, size: int) -> bool:
    """Remove the resizing, since blemish resizes images itself; return False for a file that `write` did not make."""
    for node in model.get_ops():
        if node.get_friendly_name() == PREPARED:
            node.output(0).replace(model.input(0).node.output(0))
            model.reshape([-1, 3, size, size])
            return True
    return False


def _header_text(model: Any) -> str | None:
    """Return the header's JSON, which OpenVINO stores under "framework" for an ONNX file."""
    for keys in ([KEY], ["framework", KEY]):
        if model.has_rt_info(keys):
            return str(model.get_rt_info(keys).astype(str))
    return None
