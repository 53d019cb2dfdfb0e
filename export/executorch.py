"""Runs exported networks under ExecuTorch, with the same contract as `IntegerNetwork.run`.

Importing this needs the packages torch and executorch.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Literal

import executorch.kernels.quantized  # noqa: F401, registers kernels
import numpy as np
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Program, Runtime

from ..quantization.network import Int8, IntegerNetwork
from .errors import ExportError

Backend = Literal["xnnpack", "portable", "vulkan"]

DELEGATE = "XnnpackBackend"


class ExecuTorchExecutor:
    """Callable on (network, inputs int8 [H, W, C]) that returns the outputs by name, int8 [H, W, C].

    files: network name -> program with fixed shapes. Threads that share an executor take turns. threads: ExecuTorch's
    own; a setting of the whole process, the latest executor's counts.

    Raises ExportError for a network that `files` lacks, for inputs that do not fit it, and when `backend` is
    xnnpack but a program leaves anything to other kernels.
    """

    def __init__(self, files: Mapping[str, bytes], backend: Backend, threads: int = 1) -> None:
        self.files = dict(files)
        self.backend = backend
        self._programs: dict[str, Program] = {}  # a method is valid only while its program is alive
        self._turn = Lock()
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)  # safe while nothing runs, as at start

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        with self._turn:
            method = self._program(network.name).load_method("forward")
            shapes = [tuple(method.metadata.input_tensor_meta(i).sizes()) for i in range(method.metadata.num_inputs())]
            if [(1, *x.shape) for x in inputs] != shapes or any(x.dtype != np.int8 for x in inputs):
                given = ", ".join(f"{x.dtype} {list(x.shape)}" for x in inputs)
                raise ExportError(f"{network.name}: inputs do not fit the exported network: {given}")
            try:
                results = method.execute([torch.from_numpy(np.ascontiguousarray(x)).unsqueeze(0) for x in inputs])
            except RuntimeError as error:
                raise ExportError(f"{network.name}: ExecuTorch refused: {' '.join(str(error).split())}") from error
            return {name: y.numpy()[0].copy() for name, y in zip(network.outputs, results, strict=True)}

    def operator_times(self, network: IntegerNetwork, inputs: Sequence[Int8], runs: int) -> list[tuple[str, float]]:
        """Median ms of each operator, in the order they run, by ExecuTorch's own profiler (ETDump).

        Operators inside a delegate are listed, not the call of the delegate.
        """
        from executorch.devtools import Inspector

        self._program(network.name)  # checks the file
        program = Runtime.get().load_program(self.files[network.name], enable_etdump=True)
        method = program.load_method("forward")
        tensors = [torch.from_numpy(np.ascontiguousarray(x)).unsqueeze(0) for x in inputs]
        for _ in range(runs):
            method.execute(tensors)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program.write_etdump_result_to_file(f"{folder}/etdump", f"{folder}/debug")
            blocks = Inspector(etdump_path=f"{folder}/etdump").event_blocks
        events = [event for block in blocks if block.name == "Execute" for event in block.events]
        ours = [e for e in events if e.is_delegated_op or e.name.startswith("native_call_")]
        return [(e.name.removeprefix("native_call_"), float(np.median(e.perf_data.raw))) for e in ours]

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            if name not in self.files:
                raise ExportError(f"there is no exported network {name}")
            if self.backend == "xnnpack":
                require_delegate(self.files[name], name)
            try:
                self._programs[name] = Runtime.get().load_program(self.files[name])
            except (RuntimeError, ValueError) as error:
                raise ExportError(f"{name}: ExecuTorch refused: {' '.join(str(error).split())}") from error
        return self._programs[name]


def require_delegate(data: bytes, name: str) -> None:
    """Raise ExportError unless XNNPACK runs all of a program, and this runtime has it."""
    plan = read_plan(data, name)
    if plan.operators:
        others = ", ".join(sorted({f"{o.name}.{o.overload}" for o in plan.operators}))
        raise ExportError(f"{name}: XNNPACK does not run all of it: {others}")
    if {delegate.id for delegate in plan.delegates} != {DELEGATE} or not Runtime.get().backend_registry.is_available(
        DELEGATE
    ):
        raise ExportError(f"{name}: XNNPACK is not in use")


def read_plan(data: bytes, name: str) -> Any:
    """The execution plan of a program's one method. Raises ExportError when the bytes are no program."""
    try:
        (plan,) = deserialize_pte_binary(data).program.execution_plan
    except Exception as error:  # the parser may raise anything on damaged bytes
        raise ExportError(f"{name}: not an ExecuTorch program: {type(error).__name__}") from error
    return plan
