"""Runs exported networks under LiteRT, with the same contract as `IntegerNetwork.run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ..codec.stderr import held_back
from ..quantization.model import IntegerModel
from ..quantization.network import Int8, IntegerNetwork
from .errors import ExportError
from .targets import Kernels
from .tflite import model_to_tflite

_RESOLVERS: dict[Kernels, OpResolverType] = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class LiteRTExecutor:
    """Callable on (network, inputs int8 [H, W, C]) that returns the outputs by name, int8 [H, W, C].

    files: network name -> flatbuffer. An interpreter is made when its network first runs, is kept, and is resized
    when the inputs' size changes. Threads that share an executor take turns; `threads` is LiteRT's own number.

    Raises ExportError for a network that `files` lacks or that has other inputs, for inputs of a wrong shape,
    and when XNNPACK was asked for but not every convolution runs on it.
    """

    def __init__(self, files: Mapping[str, bytes], kernels: Kernels = "xnnpack", threads: int = 1) -> None:
        self.files = dict(files)
        self.kernels = kernels
        self.threads = threads
        self._interpreters: dict[str, Interpreter] = {}
        self._turn = Lock()

    @classmethod
    def from_model(cls, model: IntegerModel, kernels: Kernels = "xnnpack", threads: int = 1) -> LiteRTExecutor:
        """An executor of flatbuffers made in memory."""
        return cls(model_to_tflite(model), kernels, threads)

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        with self._turn:
            return self._run(network, inputs)

    def _run(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        interpreter = self._interpreter(network)
        details = interpreter.get_input_details()
        if [d["name"] for d in details] != list(network.inputs) or len(inputs) != len(details):
            raise ExportError(f"{network.name}: inputs do not fit the exported network")
        resized = False
        for detail, x in zip(details, inputs, strict=True):
            if x.dtype != np.int8 or x.ndim != 3 or x.shape[2] != detail["shape"][3]:
                raise ExportError(f"{network.name}: input {detail['name']} does not fit: {x.dtype} {x.shape}")
            if tuple(detail["shape"][1:3]) != x.shape[:2]:
                interpreter.resize_tensor_input(detail["index"], (1, *x.shape))
                resized = True
        try:
            if resized:
                interpreter.allocate_tensors()
            for detail, x in zip(details, inputs, strict=True):
                interpreter.set_tensor(detail["index"], np.ascontiguousarray(x[None]))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            del self._interpreters[network.name]  # in an unknown state
            raise ExportError(f"{network.name}: LiteRT refused: {' '.join(str(error).split())}") from error
        return {d["name"]: interpreter.get_tensor(d["index"])[0] for d in interpreter.get_output_details()}

    def _interpreter(self, network: IntegerNetwork) -> Interpreter:
        if network.name in self._interpreters:
            return self._interpreters[network.name]
        if network.name not in self.files:
            raise ExportError(f"there is no exported network {network.name}")
        try:
            # LiteRT's greeting, which none of its settings prevents
            with held_back(lambda line: line.startswith(b"INFO: ")):
                interpreter = Interpreter(
                    model_content=self.files[network.name],
                    experimental_op_resolver_type=_RESOLVERS[self.kernels],
                    num_threads=self.threads,
                )
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{network.name}: LiteRT refused: {' '.join(str(error).split())}") from error
        if self.kernels == "xnnpack":
            require_delegate(interpreter, network.name)
        self._interpreters[network.name] = interpreter
        return interpreter


def require_delegate(interpreter: Interpreter, name: str) -> None:
    """Raise ExportError unless a delegate has taken every convolution.

    LiteRT silently drops XNNPACK where it cannot identify the processor (unreadable files under
    /sys/devices/system/cpu). Times would then mean nothing.
    """
    operators: list[dict[str, Any]] = interpreter._get_ops_details()
    # The list has the original operators, then the delegate's, which name the operators they replaced.
    taken = {int(i) for o in operators if o["op_name"] == "DELEGATE" for i in o["inputs"]}
    weights = {int(o["inputs"][1]) for o in operators if o["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")}
    if not weights <= taken:
        raise ExportError(
            f"{name}: XNNPACK took {len(weights & taken)} of {len(weights)} convolutions; "
            "are the files under /sys/devices/system/cpu readable?"
        )
