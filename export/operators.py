"""The operators of a bundle's network files: their cost, and the backend that runs each.

All of it is read from the files and the runtime that loads them, not from the model.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .errors import ExportError


@dataclass(frozen=True)
class Operator:
    """One operator. output: shape of its result, with its name where the file keeps names.

    macs: multiply-accumulates for the file's shapes. bytes: of all tensors it reads and writes.
    """

    kind: str
    output: str
    macs: int
    bytes: int
    backend: str


def operators(bundle: Bundle) -> dict[str, list[Operator]]:
    """Operators of each network in the order they run. Raises ExportError for files that are not .tflite or .pte."""
    suffix = {".tflite": _tflite, ".pte": _pte}
    name = next(iter(bundle.files))
    endings = [ending for ending in suffix if f"{name}{ending}" in bundle.manifest["files"]]
    if not endings:
        raise ExportError(f"there is no operator table for target {bundle.target}")
    return {name: list(suffix[endings[0]](data, name)) for name, data in bundle.files.items()}


def _tflite(data: bytes, name: str) -> Iterator[Operator]:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{name}: LiteRT refused: {' '.join(str(error).split())}") from error
    tensors = {int(t["index"]): t for t in interpreter.get_tensor_details()}
    listed: list[dict[str, Any]] = interpreter._get_ops_details()
    delegated = _inside_delegates(listed)
    for index, operator in enumerate(listed):
        if operator["op_name"] == "DELEGATE":
            continue
        reads = [tensors[int(i)] for i in operator["inputs"] if int(i) in tensors]
        (output,) = (tensors[int(i)] for i in operator["outputs"])
        shape = [int(n) for n in output["shape"]]
        macs = 0
        if operator["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weight = [int(n) for n in reads[1]["shape"]]
            # A pointwise weight is [out, 1, 1, in], a depthwise one [1, k, k, channels].
            macs = math.prod(shape) * math.prod(weight[1:3]) * (weight[3] if operator["op_name"] == "CONV_2D" else 1)
        yield Operator(
            operator["op_name"],
            f"{output['name']} {_shape(shape)}",
            macs,
            sum(math.prod(int(n) for n in t["shape"]) * t["dtype"]().itemsize for t in [*reads, output]),
            "XNNPACK" if index in delegated else "LiteRT built-in",
        )


def _inside_delegates(listed: Sequence[dict[str, Any]]) -> set[int]:
    """Indices of the operators that delegates run: all between a delegate's inputs and outputs."""
    writer = {int(o): i for i, op in enumerate(listed) if op["op_name"] != "DELEGATE" for o in op["outputs"]}
    inside: set[int] = set()
    for delegate in (op for op in listed if op["op_name"] == "DELEGATE"):
        border = {int(i) for i in delegate["inputs"]}
        todo = [int(o) for o in delegate["outputs"]]
        while todo:
            tensor = todo.pop()
            if tensor in border or tensor not in writer or writer[tensor] in inside:
                continue
            inside.add(writer[tensor])
            todo += [int(i) for i in listed[writer[tensor]]["inputs"]]
    return inside


def _pte(data: bytes, name: str) -> Iterator[Operator]:
    from .targets import quiet_imports

    with quiet_imports():
        from executorch.exir._serialize._program import deserialize_pte_binary

        from .executorch import read_plan

    plan = read_plan(data, name)
    blobs = [entry.data for entry in deserialize_pte_binary(data).program.backend_delegate_data]
    for instruction in plan.chains[0].instructions:
        call = instruction.instr_args
        if hasattr(call, "op_index"):
            yield _kernel(plan, call)
        elif hasattr(call, "delegate_index"):
            delegate = plan.delegates[call.delegate_index]
            if delegate.id == "XnnpackBackend":
                yield from _xnnpack(bytes(blobs[delegate.processed.index]))
            else:
                tensors = [_tensor(plan, i) for i in call.args]
                yield Operator("(compiled part)", "", 0, sum(t[1] for t in tensors if t), delegate.id)


def _tensor(plan: Any, index: int) -> tuple[list[int], int] | None:
    """Shape and bytes of a value of a plan, if it is a tensor."""
    value = plan.values[index].val
    if not hasattr(value, "sizes"):
        return None
    width = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1}[int(value.scalar_type)]
    return list(value.sizes), math.prod(value.sizes) * width


def _kernel(plan: Any, call: Any) -> Operator:
    operator = plan.operators[call.op_index]
    # The last two arguments are the same tensor: written and returned.
    tensors = [t for t in (_tensor(plan, i) for i in call.args[:-1]) if t]
    shape = tensors[-1][0]
    macs = 0
    if operator.name == "aten::addmm":
        macs = math.prod(shape) * tensors[1][0][1]
    elif operator.name == "aten::convolution":
        macs = math.prod(shape) * math.prod(tensors[1][0][1:])
    return Operator(operator.name, _shape(shape), macs, sum(size for _, size in tensors), "portable kernels")


def _xnnpack(blob: bytes) -> Iterator[Operator]:
    """The nodes of XNNPACK's graph, which the program holds for its delegate."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialize
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = serialize.XNNHeader.from_bytes(blob[: serialize.XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "schema.fbs").write_bytes(serialize._get_schema_bytes())
        end = header.flatbuffer_offset + header.flatbuffer_size
        (work / "graph.bin").write_bytes(blob[header.flatbuffer_offset : end])
        _flatc_decompile(folder, str(work / "schema.fbs"), str(work / "graph.bin"), ["--raw-binary"])
        graph = json.loads((work / "graph.json").read_text())
    values = {}
    for entry in graph["xvalues"]:
        value = entry["xvalue_union"]
        value = value.get("tensor_value", value)
        width = 4 if value["datatype"].endswith(("32", "cint32")) else 1
        values[value["id_out"]] = value["dims"], math.prod(value["dims"]) * width
    for node in graph["xnodes"]:
        kind, fields = node["xnode_union_type"].removeprefix("XNN"), node["xnode_union"]
        ids = [v for k, v in fields.items() if k.endswith("_id") and v in values]
        shape = values[fields["output_id"]][0]
        macs = 0
        if "filter_id" in fields:
            weight = values[fields["filter_id"]][0]
            taps = math.prod(weight[1:3]) if kind == "DepthwiseConv2d" else math.prod(weight[1:])
            macs = math.prod(shape) * taps
        yield Operator(kind, _shape(shape), macs, sum(values[i][1] for i in ids), "XNNPACK")


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(str(n) for n in sizes)
