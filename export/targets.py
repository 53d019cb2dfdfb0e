"""The export targets: the files that each makes, the packages it needs, and the runtime that runs it here.

A target's `build` turns an integer model into files. Its `open` runs the files NETWORK + suffix, with the contract of
`IntegerNetwork.run`. Packages that only one target needs are imported when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..codec.codec import Executor
from ..models.errors import install_command
from ..quantization.model import IntegerModel
from .errors import ExportError
from .tiles import DEFAULT_PIXELS

Kernels = Literal["xnnpack", "builtin", "reference"]
"""LiteRT's."""

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
DEFAULT_TILE = 512
"""Default side of tiles in pixels, for runtimes with fixed shapes."""

Files = dict[str, bytes]
Build = Callable[[IntegerModel, int | None], Files]
Open = Callable[[IntegerModel, Mapping[str, bytes], Kernels, int], Executor]


@dataclass(frozen=True)
class Need:
    """A requirement: its name, how to get it, and whether it is there."""

    name: str
    remedy: str
    found: Callable[[], bool]


@dataclass(frozen=True)
class Target:
    """One kind of bundle.

    meaning: one line for `export --list`. build: (model, tile in pixels) -> files by name. open: (model, file of each
    network, LiteRT's kernels, threads) -> executor. runtime: what the executor runs on, in words. suffix: of the
    networks' files. fixed: whether shapes are fixed, so that pictures run in tiles. to_build, to_run: requirements.
    tools: distributions whose versions go into the manifest.
    """

    meaning: str
    build: Build
    open: Open
    runtime: str
    suffix: str = ".tflite"
    fixed: bool = False
    to_build: tuple[Need, ...] = ()
    to_run: tuple[Need, ...] = ()
    tools: tuple[str, ...] = ("ai-edge-litert", "flatbuffers")


def find(name: str) -> Target:
    """A target by name. Raises ExportError when there is none."""
    if name not in TARGETS:
        raise ExportError(f"there is no target {name}: pocketlic export --list shows all")
    return TARGETS[name]


def require(target: str, needs: tuple[Need, ...]) -> None:
    """Raise ExportError, with one line that says what to do, unless all needs are met."""
    for need in needs:
        if not need.found():
            raise ExportError(f"target {target} needs {need.name}: {need.remedy}")


def missing(needs: tuple[Need, ...]) -> list[str]:
    """Names of the needs that are not met."""
    return [need.name for need in needs if not need.found()]


def _package(module: str, extra: str) -> Need:
    return Need(f"the package {module}", install_command(extra), lambda: find_spec(module) is not None)


def _tflite(model: IntegerModel, tile: int | None) -> Files:
    from .tflite import model_to_tflite

    return {f"{name}.tflite": data for name, data in model_to_tflite(model, tile or DEFAULT_PIXELS).items()}


def _open_tflite(_: IntegerModel, files: Mapping[str, bytes], kernels: Kernels, threads: int) -> Executor:
    from .litert import LiteRTExecutor

    return LiteRTExecutor(files, kernels, threads)


def _android_assets(model: IntegerModel, tile: int | None) -> Files:
    photos = sorted(SAMPLES.glob("*.jpg"))
    if not photos:
        raise ExportError("this installation has no sample photographs for the app")
    try:
        return _tflite(model, tile) | {photo.name: photo.read_bytes() for photo in photos}
    except OSError as error:
        raise ExportError(f"cannot read {error.filename}: {error.strerror}") from None


def _onnx(model: IntegerModel, _: int | None) -> Files:
    from .qdq import model_to_onnx

    return {f"{name}.onnx": data for name, data in model_to_onnx(model).items()}


def _open_onnx(_: IntegerModel, files: Mapping[str, bytes], __: Kernels, threads: int) -> Executor:
    from .ort import OnnxRuntimeExecutor

    return OnnxRuntimeExecutor(files, threads)


def _pte(backend: Literal["xnnpack", "portable", "vulkan"]) -> Build:
    def build(model: IntegerModel, tile: int | None) -> Files:
        with quiet_imports():
            from .pte import model_to_pte

            return {f"{name}.pte": data for name, data in model_to_pte(model, tile or DEFAULT_TILE, backend).items()}

    return build


def _open_pte(backend: Literal["xnnpack", "portable"]) -> Open:
    def open_files(_: IntegerModel, files: Mapping[str, bytes], __: Kernels, threads: int) -> Executor:
        with quiet_imports():
            from .executorch import ExecuTorchExecutor
        return ExecuTorchExecutor(files, backend, threads)

    return open_files


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence the logs of executorch's parts: missing GPU libraries, lists of operators."""
    chatty = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)


def _npu(vendor: Literal["qnn", "mediatek", "google_tensor"]) -> Build:
    def build(model: IntegerModel, tile: int | None) -> Files:
        from .npu import compile_for

        return compile_for(vendor, model, tile or DEFAULT_TILE)

    return build


def _open_htp(model: IntegerModel, _: Mapping[str, bytes], __: Kernels, ___: int) -> Executor:
    from .htp import HtpExecutor

    return HtpExecutor(model)


def _cannot(what: str) -> Build:
    def build(model: IntegerModel, tile: int | None) -> Files:
        raise ExportError(what)

    return build


def _not_here(what: str) -> Open:
    def open_files(*_: object) -> Executor:
        raise ExportError(what)

    return open_files


_TORCH = (_package("torch", "executorch"), _package("executorch", "executorch"))
_TORCH_TOOLS = ("torch", "executorch")
_PHONE = Need(
    "a phone", "there is no such unit in this machine; push the bundle to a phone that has one", lambda: False
)


def _sdk(name: str, module: str, remedy: str) -> tuple[Need, ...]:
    return (Need(f"{name} ({module})", remedy, lambda: find_spec(module) is not None),)


_LITERT = (_package("ai_edge_litert", "litert"), _package("flatbuffers", "litert"))

TARGETS: dict[str, Target] = {
    "tflite-int8": Target(
        "LiteRT, full-integer networks",
        _tflite,
        _open_tflite,
        runtime="LiteRT with XNNPACK",
        to_build=_LITERT,
        to_run=_LITERT,
    ),
    "android-assets": Target(
        "tflite-int8 with sample pictures: the demo app's assets",
        _android_assets,
        _open_tflite,
        runtime="LiteRT with XNNPACK",
        to_build=_LITERT,
        to_run=_LITERT,
    ),
    "executorch-xnnpack": Target(
        "ExecuTorch, one XNNPACK call per network",
        _pte("xnnpack"),
        _open_pte("xnnpack"),
        runtime="ExecuTorch with XNNPACK",
        suffix=".pte",
        fixed=True,
        to_build=_TORCH,
        to_run=_TORCH,
        tools=_TORCH_TOOLS,
    ),
    "executorch-portable": Target(
        "ExecuTorch, portable kernels: slow, runs anywhere",
        _pte("portable"),
        _open_pte("portable"),
        runtime="ExecuTorch with portable kernels",
        suffix=".pte",
        fixed=True,
        to_build=_TORCH,
        to_run=_TORCH,
        tools=_TORCH_TOOLS,
    ),
    "onnx-qdq": Target(
        "ONNX, every operation between quantize and dequantize",
        _onnx,
        _open_onnx,
        runtime="ONNX Runtime on the CPU",
        suffix=".onnx",
        to_build=(_package("onnx", "onnx"),),
        to_run=(_package("onnxruntime", "onnx"),),
        tools=("onnx", "onnxruntime"),
    ),
    "litert-qnn": Target(
        "LiteRT, compiled for Qualcomm's Hexagon units",
        _npu("qnn"),
        _open_htp,
        runtime="the same integers on Hexagon's host library",
        fixed=True,
        to_build=(*_LITERT, _package("onnxruntime_qnn", "qnn")),
        to_run=(_package("onnxruntime_qnn", "qnn"), _package("onnx", "qnn")),
        tools=("ai-edge-litert", "onnxruntime-qnn"),
    ),
    "litert-mediatek": Target(
        "LiteRT, compiled for MediaTek's NPUs",
        _npu("mediatek"),
        _not_here("litert-mediatek runs on phones only"),
        runtime="none here",
        fixed=True,
        to_build=_sdk(
            "MediaTek's NeuroPilot SDK", "ai_edge_litert_sdk_mediatek", "MediaTek gives it to its developers"
        ),
        to_run=(_PHONE,),
    ),
    "litert-google-tensor": Target(
        "LiteRT, compiled for Google Tensor's TPUs",
        _npu("google_tensor"),
        _not_here("litert-google-tensor runs on phones only"),
        runtime="none here",
        fixed=True,
        to_build=_sdk("Google's Tensor SDK", "ai_edge_litert_sdk_google_tensor", "Google gives it to its developers"),
        to_run=(_PHONE,),
    ),
    "executorch-qnn": Target(
        "ExecuTorch, compiled for Qualcomm's Hexagon units",
        _cannot("executorch-qnn cannot be built yet"),
        _not_here("executorch-qnn runs on phones only"),
        runtime="none here",
        suffix=".pte",
        fixed=True,
        to_build=(
            Need(
                "ExecuTorch built with Qualcomm's AI Engine Direct SDK",
                "litert-qnn compiles the same networks without it",
                lambda: False,
            ),
            *_TORCH,
        ),
        to_run=(_PHONE,),
        tools=_TORCH_TOOLS,
    ),
    "executorch-coreml": Target(
        "ExecuTorch for Core ML on Apple devices",
        _cannot("executorch-coreml cannot be built yet"),
        _not_here("executorch-coreml runs on Apple devices only"),
        runtime="none here",
        suffix=".pte",
        fixed=True,
        to_build=(
            Need("a Core ML converter that takes int8 tensors", "coremltools 9.0 refuses their type", lambda: False),
        ),
        to_run=(Need("a Mac or an iPhone", "Core ML exists nowhere else", lambda: False),),
        tools=_TORCH_TOOLS,
    ),
    "executorch-vulkan": Target(
        "ExecuTorch, int8 kernels on Vulkan GPUs; not proved exact",
        _pte("vulkan"),
        _not_here("executorch-vulkan runs on phones only"),
        runtime="none here",
        suffix=".pte",
        fixed=True,
        to_build=_TORCH,
        to_run=(Need("a runtime with the Vulkan backend", "ExecuTorch's Python package has none", lambda: False),),
        tools=_TORCH_TOOLS,
    ),
}
