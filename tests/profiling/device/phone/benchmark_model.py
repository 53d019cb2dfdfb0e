"""LiteRT's benchmark_model for the emulated phone: its options, its text, and LiteRT's wheel for Arm.

The real program does not exist as a package. The network runs on the same XNNPACK, as Arm code.
"""

import argparse
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", required=True)
    for name in ("num_threads", "num_runs", "warmup_runs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options, _ = parser.parse_known_args()  # nothing here profiles operators
    start = time.perf_counter()
    interpreter = Interpreter(options.graph, num_threads=options.num_threads)
    interpreter.allocate_tensors()
    init = 1e6 * (time.perf_counter() - start)
    operators = interpreter._get_ops_details()
    taken = {int(i) for o in operators if o["op_name"] == "DELEGATE" for i in o["inputs"]}
    if any(int(o["inputs"][1]) not in taken for o in operators if o["op_name"].endswith("CONV_2D")):
        sys.exit("XNNPACK left convolutions to other kernels")
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))

    def runs(count: int) -> np.ndarray:
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            interpreter.invoke()
            times.append(1e6 * (time.perf_counter() - begin))
        us = np.array(times)
        print(f"count={count} first={us[0]:.0f} curr={us[-1]:.0f} min={us.min():.0f} max={us.max():.0f} "
              f"avg={us.mean():g} std={us.std():.0f}")  # fmt: skip
        return us

    warm, timed = runs(options.warmup_runs), runs(options.num_runs)
    print(f"Inference timings in us: Init: {init:.0f}, First inference: {warm[0]:.0f}, Warmup (avg): {warm.mean():g}, "
          f"Inference (avg): {timed.mean():g}")  # fmt: skip


if __name__ == "__main__":
    main()
