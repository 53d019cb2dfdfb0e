"""Runs networks on the host library of Qualcomm's Hexagon Tensor Processor, which emulates the unit bit by bit.

Compiled networks run on phones only. The host library shows the results of the unit's kernels for the same integers.
Importing this needs the packages onnx, onnxruntime and onnxruntime_qnn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn

from ..quantization.model import IntegerModel
from ..quantization.network import Int8, IntegerNetwork
from .errors import ExportError
from .qdq import to_onnx

PROVIDER = "QNNExecutionProvider"


@cache
def _devices() -> Any:
    with contextlib.suppress(Exception):  # raised when something else in this process has registered it
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    if not devices:
        raise ExportError("onnxruntime-qnn offers no device")
    return devices[:1]


class HtpExecutor:
    """Callable on (network, inputs int8 [H, W, C]) that returns the outputs by name, int8 [H, W, C].

    A network is compiled for each size it is given. Raises ExportError when the library refuses a network or
    would run any of it on the CPU.
    """

    def __init__(self, model: IntegerModel) -> None:
        self.model = model
        self._sessions: dict[tuple[str, int, int], Any] = {}
        self._turn = Lock()

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        with self._turn:
            session = self._session(network, *inputs[0].shape[:2])
            feed = {name: np.ascontiguousarray(x[None]) for name, x in zip(network.inputs, inputs, strict=True)}
            try:
                results = session.run(list(network.outputs), feed)
            except Exception as error:  # onnxruntime's exceptions share no base but this
                raise ExportError(f"{network.name}: HTP refused: {' '.join(str(error).split())}") from error
            return {name: y[0] for name, y in zip(network.outputs, results, strict=True)}

    def _session(self, network: IntegerNetwork, height: int, width: int) -> Any:
        key = network.name, height, width
        if key not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            options.add_free_dimension_override_by_name("height", height)
            options.add_free_dimension_override_by_name("width", width)
            options.add_provider_for_devices(_devices(), {"backend_path": onnxruntime_qnn.get_qnn_htp_path()})
            try:
                data = to_onnx(network, self.model.rule)
                self._sessions[key] = onnxruntime.InferenceSession(data, options)
            except Exception as error:
                raise ExportError(f"{network.name}: HTP refused: {' '.join(str(error).split())}") from error
        return self._sessions[key]
