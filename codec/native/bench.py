"""Times the native core beside LiteRT, in turns, on one thread.

    python codec/native/bench.py [--size 512x768] [--runs 20] [--quality 60] [--callgrind] [PICTURE]

Entropy decoding with the prediction of table indices, and decoding to pixels: median and 90th percentile of processor
and wall time, and the ratio of the medians to LiteRT's. Where other work runs on the machine, trust processor time, or
the instructions that --callgrind counts: it needs valgrind, which has no AVX-512, and g++.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import pocketlic
from pocketlic.codec import _native
from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec
from pocketlic.codec.figures import bits_per_pixel
from pocketlic.codec.image import read_picture
from pocketlic.export.litert import LiteRTExecutor
from pocketlic.profiling.device.phone import build_plic

SAMPLE = Path(__file__).parents[2] / "samples" / "spices.jpg"


def main() -> None:
    """Print one line for each thing that is timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--size", default="512x768", help="height x width; the picture is tiled or cut")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--quality", type=float, default=60)
    parser.add_argument("--callgrind", action="store_true", help="count instructions too")
    parser.add_argument("--profile", choices=["cpu", "strict"], default="cpu")
    arguments = parser.parse_args()

    height, width = map(int, arguments.size.split("x"))
    picture = read_picture(arguments.picture).pixels
    repeats = (-(-height // picture.shape[0]), -(-width // picture.shape[1]), 1)
    picture = np.ascontiguousarray(np.tile(picture, repeats)[:height, :width])
    data = pocketlic.encode(picture, arguments.quality, profile=arguments.profile)
    model = pocketlic.shipped_model(arguments.profile)
    file = plic.read(data)

    litert = Codec(model, LiteRTExecutor.from_model(model))
    symbols = litert.read_symbols(file)
    work: dict[str, Callable[[], object]] = {
        "LiteRT, symbols to pixels": lambda: litert.synthesise(symbols, file.header),
        "LiteRT, networks alone": networks_alone(litert, file.header),
        "NumPy + native rANS, symbols": lambda: litert.read_symbols(file),
    }
    content = model.to_bytes()
    for name in _native.kernels():
        native = _native.NativeDecoder(content, name)
        assert np.array_equal(native.decode(data), litert.decode(data))
        work[f"native {name}, symbols"] = partial(native.symbols, data)
        work[f"native {name}, pixels"] = partial(native.decode, data)

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for run in range(arguments.runs + 2):
        for name, function in work.items():
            wall, processor = time.perf_counter(), time.process_time()
            function()
            if run >= 2:
                elapsed = time.process_time() - processor, time.perf_counter() - wall
                times[name].append(elapsed)

    coded, rate = symbols.y.size + symbols.details.size, bits_per_pixel(len(data), height, width)
    print(f"{height}x{width}, {rate:.2f} bpp, {coded} latents; processor and wall time in ms")
    base = float(np.median([t[0] for t in times["LiteRT, networks alone"]]))
    for name, values in times.items():
        ms = 1e3 * np.array(values)
        (cpu, wall), (cpu90, wall90) = np.median(ms, 0), np.percentile(ms, 90, 0)
        speed = f"   {coded / cpu / 1e3:6.1f} million symbols/s" if name.endswith("symbols") else ""
        print(
            f"{name:30} processor {cpu:8.2f} p90 {cpu90:8.2f}   wall {wall:8.2f} p90 {wall90:8.2f}"
            f"   {1e6 * cpu / height / width:7.1f} ns/pixel   {cpu / 1e3 / base:6.2f} of LiteRT's networks{speed}"
        )
    if arguments.callgrind:
        for name in _native.kernels():
            if "avx512" not in name:
                entropy, pixels = (count / height / width for count in instructions(content, data, name))
                print(f"native {name:23} instructions/pixel: symbols {entropy:.1f}, pixels with symbols {pixels:.1f}")


def instructions(model: bytes, data: bytes, kernels: str) -> list[int]:
    """Of decoding a file to symbols and of decoding it to pixels, by the static tool under callgrind."""
    counts = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").write_bytes(model)
        (folder / "file").write_bytes(data)
        tool = build_plic("x86_64", folder)
        for function in ("plic_decode_symbols", "plic_decode"):
            callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
            command = [*callgrind, f"--toggle-collect={function}", str(tool), "--kernels", kernels]
            command += ["bench", str(folder / "model"), str(folder / "file"), "1"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            counts.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))  # type: ignore[index]
    return counts


def networks_alone(codec: Codec, header: plic.Header) -> Callable[[], object]:
    """What runs the decoder's three networks on inputs of the right size, and nothing else."""
    rng = np.random.default_rng(0)
    h, w = -(-header.height // 64), -(-header.width // 64)
    cells = {"hyper_synthesis": 1, "context": 4, "synthesis": 4}
    calls = []
    for name, scale in cells.items():
        network = codec.model.networks[name]
        shapes = [(scale * h, scale * w, s.channels) for s in network.inputs.values()]
        calls.append((network, [rng.integers(-20, 20, s).astype(np.int8) for s in shapes]))

    def run() -> None:
        for network, inputs in calls:
            codec.run(network, inputs)

    return run


if __name__ == "__main__":
    main()
