"""Write detectors as ONNX files, and run these with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from blemish.engine import TorchEngine
from blemish.errors import OutputError, UsageError, WeightsError
from blemish.exporting.backends import Calibration, Opened
from blemish.exporting.graph import DetectorGraph, digest, linear_weights, quiet, trace
from blemish.exporting.header import IMAGE, KEY, Header, from_json
from blemish.methods.base import MemoryBank

#: Largest protobuf message, and so ONNX file in one piece, in bytes.
MAX_BYTES = 2**31


def write(
    engine: TorchEngine, memory: MemoryBank | None, header: Header, path: Path, calibration: Calibration | None
) -> None:
    """See `blemish.exporting.backends.Module`. The graph resizes images of any size like Pillow."""
    import onnx

    graph = DetectorGraph(engine, memory, header, resize=True)
    weights = sum(part.numel() * part.element_size() for part in (*graph.parameters(), *graph.buffers()))
    if weights >= MAX_BYTES:
        raise OutputError(f"the detector is too large for an ONNX file ({weights / 1e9:.1f} GB): use OpenVINO", path)
    program = trace(graph)
    try:
        with quiet(), torch.no_grad():
            exported: Any = torch.onnx.export(
                program,
                (),
                input_names=[IMAGE],
                output_names=list(header.outputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UsageError(f"ONNX has no operation for a step of {header.provenance.method}: try openvino") from error
    model = exported.model_proto
    if calibration is not None:
        model = _quantised(model, graph, path, calibration)
    _name_axes(model, header.size)
    entries = {f"model_info {key}": value for key, value in header.model_info().items()}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: header.to_json(), **entries})
    model.producer_name, model.producer_version = "blemish", header.provenance.version
    try:
        onnx.save(model, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", path) from error


def _quantised(model: Any, graph: DetectorGraph, path: Path, calibration: Calibration) -> Any:
    """Quantise the linear layers of the vision tower to int8, weights per channel; all else stays float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, images: Iterable[NDArray[np.float32]]) -> None:
            self._images: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {IMAGE: image}

    linear = {digest(weight.numpy().T) for weight in linear_weights(graph)}
    constants = {array.name: digest(onnx.numpy_helper.to_array(array)) for array in model.graph.initializer}
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and any(constants.get(name) in linear for name in node.input)
    ]
    partial = path.with_name(f"{path.name}.int8")
    try:
        with quiet():
            quantize_static(
                model,
                partial,
                Reader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
            )
        return onnx.load(partial)
    finally:
        partial.unlink(missing_ok=True)


def _name_axes(model: Any, size: int) -> None:
    """Name the dynamic axes, which the exporter numbers."""
    names = {}
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        dimension = model.graph.input[0].type.tensor_type.shape.dim[axis]
        names[dimension.dim_param] = name
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
    del model.graph.value_info[:]  # they refer to the numbers, and runtimes infer them anyway


def read(path: Path, device: str, precision: str) -> Opened:
    """See `blemish.exporting.backends.Module`."""
    if precision not in ("auto", "float32"):
        raise UsageError(f"ONNX Runtime computes as the file says, not in {precision}: leave out the precision")
    providers = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    kind = "cpu" if device == "auto" else device.partition(":")[0]
    if kind not in providers or providers[kind][0] not in onnxruntime.get_available_providers():
        raise UsageError(f"this ONNX Runtime has no device {device!r}; try cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers[kind])
    except Exception as error:  # ONNX Runtime raises a private class for each fault
        raise WeightsError(f"{path} is damaged or no ONNX file: export it again", path) from error
    header = from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def infer(pixels: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        return list(session.run(list(outputs), {IMAGE: pixels}))

    return Opened(header, infer, header.precision, kind)
