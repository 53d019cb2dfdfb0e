"""LiteRT networks compiled ahead of time for phones' NPUs, by the vendor's compiler plugin.

NETWORK.tflite runs on any CPU. Beside it there is one NETWORK_CHIP.tflite per chip, whose single operator holds the
compiled network. The plugins come with ai-edge-litert; the vendors' libraries that they load do not (`targets`).
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..quantization.model import IntegerModel
from .errors import ExportError
from .tflite import model_to_tflite

Vendor = Literal["qnn", "mediatek", "google_tensor"]

CHIPS: dict[Vendor, tuple[str, tuple[str, ...]]] = {
    "qnn": ("qualcomm", ("SM8550", "SM8650", "SM8750", "SM8850")),
    "mediatek": ("mediatek", ("MT6989", "MT6991", "MT6993")),
    "google_tensor": ("google_tensor", ("TENSOR_G3", "TENSOR_G4", "TENSOR_G5", "TENSOR_G6")),
}
"""Vendor -> LiteRT's name for it, and the names of recent phones' chips."""


def compile_for(vendor: Vendor, model: IntegerModel, pixels: int) -> dict[str, bytes]:
    """Return the networks of a model for pictures of pixels x pixels, plain and for each chip, by file name.

    Raises ExportError when the compiler fails or leaves any operator to the CPU.
    """
    from ai_edge_litert.aot import aot_compile

    folder, chips = CHIPS[vendor]
    library = import_module(f"ai_edge_litert.aot.vendors.{folder}.target")
    targets = [library.Target(library.SocModel[chip]) for chip in chips]
    files: dict[str, bytes] = {}
    with _libraries(vendor), tempfile.TemporaryDirectory() as work:
        for name, data in model_to_tflite(model, pixels).items():
            files[f"{name}.tflite"] = data
            path = Path(work) / f"{name}.tflite"
            path.write_bytes(data)
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                result = aot_compile.aot_compile(str(path), output_dir=work, target=targets, keep_going=True)
            for backend, error in result.failed_backends:
                raise ExportError(f"{name} cannot be compiled for {backend.target_id}: {_reason(str(error))}")
            for backend, compiled in result.models_with_backend:
                _require_whole(name, backend.target_id, compiled.partition_stats)
                files[f"{name}_{backend.target_id}.tflite"] = Path(compiled.path).read_bytes()
    return files


def _require_whole(name: str, chip: str, stats: Any) -> None:
    for part in stats.subgraph_stats:
        if part.num_ops_offloaded != part.num_total_ops:
            raise ExportError(f"{name}: {chip} takes {part.num_ops_offloaded} of {part.num_total_ops} operators")


def _reason(error: str) -> str:
    """The compiler's last error, from the log file that LiteRT's message names."""
    for word in error.split():
        if word.endswith(".error") and Path(word).is_file():
            lines = [line.strip() for line in Path(word).read_text(errors="replace").splitlines()]
            Path(word).unlink()
            complaints = [line for line in lines if "ould not" in line or "ERROR" in line or "ailed" in line]
            return " ".join((complaints or lines or [error])[-1].split())
    return " ".join(error.split())


@contextlib.contextmanager
def _libraries(vendor: Vendor) -> Iterator[None]:
    """Let the compiler find Qualcomm's libraries in onnxruntime-qnn's folder."""
    if vendor != "qnn":
        yield
        return
    spec = find_spec("onnxruntime_qnn")
    if spec is None or spec.origin is None:
        raise ExportError("the package onnxruntime_qnn is missing")
    qnn = Path(spec.origin).parent
    before = os.environ.get("LD_LIBRARY_PATH")
    with tempfile.TemporaryDirectory() as stubs:
        if not (qnn / "libQnnLpai.so").exists():
            # LiteRT's plugin is linked with this library but never calls it when compiling for HTP.
            command = ["cc", "-shared", "-o", f"{stubs}/libQnnLpai.so", "-x", "c", os.devnull]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                raise ExportError("target litert-qnn needs the C compiler cc, to stand in for libQnnLpai.so") from None
        os.environ["LD_LIBRARY_PATH"] = ":".join([str(qnn), stubs, *([before] if before else [])])
        try:
            yield
        finally:
            del os.environ["LD_LIBRARY_PATH"]
            if before is not None:
                os.environ["LD_LIBRARY_PATH"] = before
