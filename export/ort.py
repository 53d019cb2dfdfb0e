"""Runs exported networks under ONNX Runtime, with the same contract as `IntegerNetwork.run`.

Importing this needs the package onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np
import onnxruntime

from ..quantization.network import Int8, IntegerNetwork
from .errors import ExportError


class OnnxRuntimeExecutor:
    """Callable on (network, inputs int8 [H, W, C]) that returns the outputs by name, int8 [H, W, C].

    files: network name -> ONNX file. Runs on the CPU, on `threads` threads. Thread-safe.

    Raises ExportError for a network that `files` lacks, and for inputs or a file that the runtime refuses.
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:
        self.files = dict(files)
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._turn = Lock()

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        session = self._session(network.name)
        names = [i.name for i in session.get_inputs()]
        if names != list(network.inputs) or len(inputs) != len(names):
            raise ExportError(f"{network.name}: inputs do not fit the exported network")
        feed = {name: np.ascontiguousarray(x[None]) for name, x in zip(names, inputs, strict=True)}
        try:
            results = session.run(list(network.outputs), feed)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            raise ExportError(f"{network.name}: ONNX Runtime refused: {' '.join(str(error).split())}") from error
        return {name: y[0] for name, y in zip(network.outputs, results, strict=True)}

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        with self._turn:
            if name not in self._sessions:
                if name not in self.files:
                    raise ExportError(f"there is no exported network {name}")
                try:
                    self._sessions[name] = onnxruntime.InferenceSession(
                        self.files[name], self.options, providers=["CPUExecutionProvider"]
                    )
                except Exception as error:
                    raise ExportError(f"{name}: ONNX Runtime refused: {' '.join(str(error).split())}") from error
            return self._sessions[name]
