"""Runs networks under LiteRT, given and answered in files. A program of its own, for emulated and other machines.

    python emulated.py FOLDER KERNELS THREADS

FOLDER has NETWORK.tflite files and calls.npz, whose arrays are named CALL/NETWORK/INPUT; results.npz is made of them,
with arrays named CALL/OUTPUT. Needs NumPy and ai_edge_litert only, no other part of this package.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def main(folder: Path, kernels: str, threads: int) -> None:
    """Answer every call; the exit code is not 0 if XNNPACK was asked for and did not take the convolutions."""
    calls: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    with np.load(folder / "calls.npz") as arrays:
        for key in arrays.files:
            call, network, index = key.split("/")
            calls.setdefault(network, {}).setdefault(call, {})[int(index)] = arrays[key]
    results = {}
    for network, given in calls.items():
        interpreter = Interpreter(
            str(folder / f"{network}.tflite"),
            experimental_op_resolver_type=RESOLVERS[kernels],
            num_threads=threads,
        )
        interpreter.allocate_tensors()
        if kernels == "xnnpack":
            operators = interpreter._get_ops_details()
            taken = {int(i) for o in operators if o["op_name"] == "DELEGATE" for i in o["inputs"]}
            if any(int(o["inputs"][1]) not in taken for o in operators if o["op_name"].endswith("CONV_2D")):
                sys.exit(f"{network}: XNNPACK left convolutions to other kernels")
        details = interpreter.get_input_details()
        for call, inputs in given.items():
            for i, detail in enumerate(details):
                interpreter.resize_tensor_input(detail["index"], (1, *inputs[i].shape))
            interpreter.allocate_tensors()
            for i, detail in enumerate(details):
                interpreter.set_tensor(detail["index"], inputs[i][None])
            interpreter.invoke()
            for detail in interpreter.get_output_details():
                results[f"{call}/{detail['name']}"] = interpreter.get_tensor(detail["index"])[0]
    np.savez(folder / "results.npz", **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
