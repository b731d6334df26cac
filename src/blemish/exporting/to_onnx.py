"""Detectors as ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from blemish.engine import TorchEngine
from blemish.errors import OutputError, UsageError, WeightsError
from blemish.exporting.backends import Calibration, Opened
from blemish.exporting.graph import Whole, digest, linear_weights, quiet, trace
from blemish.exporting.header import IMAGE, KEY, MAP, SCORE, Header, from_json
from blemish.methods.base import MemoryBank

#: A protobuf message, and so an ONNX file in one piece, is smaller than this, in bytes.
LIMIT = 2**31


def write(
    engine: TorchEngine, memory: MemoryBank | None, header: Header, path: Path, calibration: Calibration | None
) -> None:
    """See `blemish.exporting.backends.Module`. The graph resizes pictures of any size as Pillow does."""
    import onnx

    whole = Whole(engine, memory, header, resize=True)
    weights = sum(one.numel() * one.element_size() for one in whole.parameters())
    if weights >= LIMIT:
        raise OutputError(f"the detector is too large for an ONNX file ({weights / 1e9:.1f} GB): use OpenVINO", path)
    program = trace(whole)
    try:
        with quiet(), torch.no_grad():
            made: Any = torch.onnx.export(
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
    model = made.model_proto
    if calibration is not None:
        model = _quantised(model, whole, path, calibration)
    _name_axes(model, header.size)
    entries = {f"model_info {key}": value for key, value in header.model_info().items()}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: header.to_json(), **entries})
    model.producer_name, model.producer_version = "blemish", header.provenance.version
    try:
        onnx.save(model, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", path) from error


def _quantised(model: Any, whole: Whole, path: Path, calibration: Calibration) -> Any:
    """The linear layers of the vision tower in int8, weights by channel; all else stays float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, pictures: Iterable[NDArray[np.float32]]) -> None:
            self._pictures: Iterator[NDArray[np.float32]] = iter(pictures)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {IMAGE: picture}

    known = {digest(one.numpy().T) for one in linear_weights(whole)}
    arrays = {one.name: digest(onnx.numpy_helper.to_array(one)) for one in model.graph.initializer}
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and any(arrays.get(name) in known for name in node.input)
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
                nodes_to_quantize=chosen,
            )
        return onnx.load(partial)
    finally:
        partial.unlink(missing_ok=True)


def _name_axes(model: Any, size: int) -> None:
    """The dynamic axes in words: exporters number them."""
    names = {}
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        dimension = model.graph.input[0].type.tensor_type.shape.dim[axis]
        names[dimension.dim_param] = name
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
    del model.graph.value_info[:]  # they speak of the numbers; runtimes infer them anyway


def read(path: Path, device: str, precision: str) -> Opened:
    """See `blemish.exporting.backends.Module`."""
    if precision not in ("auto", "float32"):
        raise UsageError(f"ONNX Runtime computes as the file says, not in {precision}: leave out the precision")
    providers = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    place = "cpu" if device == "auto" else device.partition(":")[0]
    if place not in providers or providers[place][0] not in onnxruntime.get_available_providers():
        raise UsageError(f"this ONNX Runtime has no device {device!r}; try cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers[place])
    except Exception as error:  # one class per fault, none of them public
        raise WeightsError(f"{path} is damaged or no ONNX file: run blemish export again", path) from error
    header = from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        score, maps = session.run([SCORE, MAP], {IMAGE: pixels})
        return score, maps

    return Opened(header, infer, header.precision, place)
