"""Quantization-aware training: a float codec becomes one whose every network computes as its integers will.

`prepare` rescales the float codec to integer grids without changing what it computes, swaps its networks for
fake-quantized ones and calibrates them on training photographs; training then goes on in the ordinary loop.
`to_integer_model` turns the result into the integers that ship.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..models.data import Photographs
from ..models.entropy import ROWS_PER_OCTAVE, SCALE_MIN, mixture_tables
from ..models.layers import Depthwise, Pointwise, clamp_ste, round_ste
from ..models.network import DETAILS, HYPER, LATENTS, Codec
from ..models.train import TrainOptions, accelerator, train
from .equalize import equalize
from .fake import FakeQuantNetwork, FakeQuantProjection, Rule, settle, train_unscaled
from .integer import NETWORKS, Int8, IntegerModel, ModelError, Profile

LOG2_STEP_EXPONENT = -5  # the hyper-synthesis gives log2 steps in 1/32 octaves
GRID_REACH = 120.0  # latents are scaled so that nearly all lie within this of zero, on a grid of int8
WIDE = 4  # channels, those with most levels, that get a four times finer grid
SKIP_MASS = 2e-4  # rows whose symbols are nonzero more rarely than this are not coded
ADAPT_EVERY, ADAPT_PART = 500, 0.6  # steps between two fits of the weights' scales, and the part of a run that has them


def centred(x: Tensor) -> Tensor:
    """RGB/255 - 0.5 as (RGB - 128) / 256, whose int8 is the pixel less 128."""
    return (x + 0.5) * (255 / 256) - 0.5


class PixelInput(nn.Module):
    """Wraps the analysis, whose input becomes `centred`."""

    def __init__(self, network: FakeQuantNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(centred(x))  # type: ignore[no-any-return]


class Planes(nn.Module):
    """Wraps the synthesis: y_hat becomes int8 planes, coarse and for the wide channels fine; RGB returns.

    coarse = round(y), clamped; fine = 4 * (y - coarse), which also carries what the clamp cut off.
    """

    def __init__(self, network: FakeQuantNetwork, wide: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("wide", wide)

    def forward(self, y_hat: Tensor, details: Tensor) -> Tensor:
        coarse = round_ste(clamp_ste(y_hat, -128, 127))
        wide: Tensor = self.wide  # type: ignore[assignment]
        fine = torch.floor(4 * (y_hat - coarse).detach()[:, wide] + 0.5)
        pixels: Tensor = self.network(torch.cat([coarse, fine], 1), details)
        return (pixels + 0.5) * (256 / 255) - 0.5


class StepGrid(nn.Module):
    """Quantization steps are whole multiples, at least one, of each channel's unit.

    Then y_hat = mean + symbol * step lies on the grid and rounding it costs nothing.
    """

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit.view(1, -1, 1, 1))

    def forward(self, step: Tensor) -> Tensor:
        unit: Tensor = self.unit  # type: ignore[assignment]
        return clamp_ste(round_ste(step / unit), 1.0, 2.0**14) * unit


@torch.no_grad()
def rescale_latents(codec: Codec, octaves: Tensor, detail_octaves: Tensor) -> None:
    """Multiply y by 2**octaves [96] and d by 2**detail_octaves [48] everywhere they occur.

    The codec's function stays the same.
    """
    gain, detail_gain = torch.exp2(octaves), torch.exp2(detail_octaves)
    folded = detail_gain.repeat(4)
    for row in (codec.latent, codec.hyper_synthesis.mean, codec.context.out):
        row.weight.mul_(gain[:, None])
        row.bias.mul_(gain)
    for column in (codec.hyper_analysis.enter, codec.synthesis.enter, codec.synthesis.canvas):
        column.weight.div_(gain)
    codec.context.depthwise.weight.div_(gain[:, None, None, None])
    codec.detail.weight.mul_(detail_gain[:, None])
    codec.detail.bias.mul_(detail_gain)
    codec.hyper_analysis.enter_details.weight.div_(folded)
    codec.synthesis.canvas_details.weight.div_(detail_gain)
    both = torch.cat([octaves, detail_octaves.repeat(4)])
    codec.gains.log2_step.add_(both)
    codec.gains.log2_scale.add_(both)


@torch.no_grad()
def rescale_pixels(codec: Codec) -> None:
    """From RGB/255 - 0.5 to (RGB - 128)/256 at both ends."""
    enter, out = codec.analysis.enter, codec.synthesis.out
    enter.bias.add_(enter.weight.sum(1) * (0.5 / 255))
    enter.weight.mul_(256 / 255)
    out.weight.mul_(255 / 256)
    out.bias.mul_(255 / 256).sub_(0.5 / 256)


@torch.no_grad()
def widen(convolution: Pointwise, wide: Tensor) -> None:
    """Append input columns for the wide channels' fine planes: a quarter of the coarse ones' weights."""
    convolution.weight = nn.Parameter(torch.cat([convolution.weight, convolution.weight[:, wide] / 4], 1))


def _calls(codec: Codec, image: Tensor, quality: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """The inputs of each network in one float pass."""
    inputs: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, x: inputs.__setitem__(name, tuple(t.detach() for t in x))

    hooks = [getattr(codec, name).register_forward_pre_hook(remember(name)) for name in NETWORKS]
    codec(image, quality)
    for hook in hooks:
        hook.remove()
    return inputs


@torch.no_grad()
def prepare(codec: Codec, rule: Rule, photographs: Photographs, batches: int = 6) -> Codec:
    """Turn a float codec, in place, into a fake-quantized one calibrated on crops of training photographs."""
    codec.eval()
    device = next(codec.parameters()).device
    crops = [photographs(10**9 + i).to(device).float() / 255 for i in range(batches)]
    qualities = [torch.linspace(5, 100, photographs.batch, device=device)] * batches

    seen = [_calls(codec, x, q)["synthesis"] for x, q in zip(crops, qualities, strict=True)]
    reach, detail_reach = (_reach([tensors[i] for tensors in seen]) for i in (0, 1))
    rescale_pixels(codec)
    convolutions = [m for m in codec.modules() if isinstance(m, (Pointwise, Depthwise))]
    unscaled = [(m.weight.clone(), m.bias.clone()) for m in convolutions]
    rescale_latents(codec, _headroom(reach), _headroom(detail_reach.view(4, -1).amax(0)))
    # The finest steps, on the new grid, are where an int8 grid is too coarse.
    wide = codec.gains.log2_step[-1, :LATENTS].argsort()[:WIDE].sort().values
    widen(codec.synthesis.enter, wide)
    widen(codec.synthesis.canvas, wide)
    unit = torch.ones(LATENTS, device=device)
    unit[wide] = 0.25

    networks = {
        "analysis": FakeQuantNetwork("analysis", codec.analysis, rule, {"x": -8}),
        "hyper_analysis": FakeQuantNetwork("hyper_analysis", codec.hyper_analysis, rule, {"y": 0, "details": 0}),
        "hyper_synthesis": FakeQuantNetwork(
            "hyper_synthesis",
            codec.hyper_synthesis,
            rule,
            {"z": 0, "mean": 0, "log2_step": LOG2_STEP_EXPONENT},
        ),
        "synthesis": FakeQuantNetwork("synthesis", codec.synthesis, rule, {"y_hat": 0, "details": 0, "join": -8}),
    }
    originals = codec.synthesis
    planes = Planes(networks["synthesis"], wide)
    codec.synthesis = _Narrow(originals, wide)  # type: ignore[assignment]
    calls = [_calls(codec, x, q) for x, q in zip(crops, qualities, strict=True)]
    codec.synthesis = originals
    inputs = {name: [c[name] for c in calls] for name in NETWORKS}
    inputs["analysis"] = [(centred(x),) for (x,) in inputs["analysis"]]
    inputs["synthesis"] = [(_split(y, wide), details) for y, details in inputs["synthesis"]]
    users = {
        "analysis": dict(zip(networks["analysis"].outputs, ([codec.latent], [codec.detail]), strict=True)),
        "hyper_synthesis": {"out": [codec.context.hyper]},
    }
    for name, network in networks.items():
        equalize(network, inputs[name], users.get(name, {}))
        network.calibrate(inputs[name])
    # Its first input is an output of the hyper-synthesis, which equalization has rescaled: look again.
    networks["context"] = FakeQuantNetwork(
        "context", codec.context, rule,
        {"features": networks["hyper_synthesis"].exponent("out"), "anchors": 0, "out": 0}, {"features": -128},
    )  # fmt: skip
    inputs["context"] = [
        (networks["hyper_synthesis"].network(z)[0], anchors)
        for (z,), (_, anchors) in zip(inputs["hyper_synthesis"], inputs["context"], strict=True)
    ]
    equalize(networks["context"], inputs["context"], {})
    networks["context"].calibrate(inputs["context"])

    codec.analysis = PixelInput(networks["analysis"])  # type: ignore[assignment]
    codec.hyper_analysis = networks["hyper_analysis"]  # type: ignore[assignment]
    codec.hyper_synthesis = networks["hyper_synthesis"]  # type: ignore[assignment]
    codec.context = networks["context"]  # type: ignore[assignment]
    codec.synthesis = planes  # type: ignore[assignment]
    codec.latent = FakeQuantProjection(codec.latent)  # type: ignore[assignment]
    codec.detail = FakeQuantProjection(codec.detail)  # type: ignore[assignment]
    codec.rows = FakeQuantProjection(codec.rows)  # type: ignore[assignment]
    codec.detail_rows = FakeQuantProjection(codec.detail_rows)  # type: ignore[assignment]
    for module, (weight, bias) in zip(convolutions, unscaled, strict=True):
        if module.weight.shape != weight.shape:
            weight = torch.cat([weight, weight[:, wide]], 1)
        train_unscaled(module, weight, bias)
    codec.step_grid = StepGrid(unit)
    codec.detail_step_grid = StepGrid(torch.ones(4 * DETAILS, device=device))
    return codec.train()


def _reach(tensors: list[Tensor]) -> Tensor:
    """Per channel [C], what all but two in ten thousand values of [B, C, h, w] tensors stay below."""
    spread = torch.cat([t.transpose(0, 1).flatten(1) for t in tensors], 1).abs()
    return torch.quantile(spread[:, :: max(1, spread.shape[1] // 100_000)], 0.9998, dim=1)


def _headroom(reach: Tensor) -> Tensor:
    """Whole octaves by which a channel may grow before it exceeds the grid."""
    return torch.floor(torch.log2(GRID_REACH / reach.clamp(min=1e-3)))


def _split(y_hat: Tensor, wide: Tensor) -> Tensor:
    coarse = torch.floor(y_hat + 0.5).clamp(-128, 127)
    return torch.cat([coarse, torch.floor(4 * (y_hat - coarse)[:, wide] + 0.5)], 1)


class _Narrow(nn.Module):
    """A widened float synthesis fed with y_hat alone, for calibration."""

    def __init__(self, network: nn.Module, wide: Tensor) -> None:
        super().__init__()
        self.network, self.wide = network, wide

    def forward(self, y_hat: Tensor, details: Tensor) -> Tensor:
        return self.network(_split(y_hat, self.wide), details)  # type: ignore[no-any-return]


def load_float(path: Path) -> Codec:
    """A float codec: shipped weights (.safetensors) or the averaged ones of a training checkpoint (.pt).

    ModelError when the file holds something else, OSError when it cannot be read.
    """
    codec = Codec()
    try:
        if path.suffix == ".safetensors":
            codec.load_state_dict(load_file(path))
        else:
            codec.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
    except (SafetensorError, RuntimeError, EOFError, LookupError, TypeError, UnpicklingError) as error:
        raise ModelError(f"{path} does not hold the weights of a float codec") from error
    return codec


def save_float(codec: Codec, path: Path, notes: dict[str, str]) -> None:
    """Write float weights as float16 safetensors: half the size, and its rounding is far below int8's."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    save_file(state, path, metadata=notes)


def qat(options: TrainOptions, weights: Path, rule: Rule) -> Path:
    """Fine-tune float weights under fake quantization, or resume; returns the path of the last checkpoint.

    Unless the rule is `free`, the integers of the last weights are written to out/model.safetensors. Not those
    of the averaged ones: weights have settled on roundings that go together, and a mean of several such sets
    rounds to none of them (5 % more rate).
    """
    prepared: list[Codec] = []

    def tend(codec: Codec, step: int) -> None:
        settle(codec, adapt=step % ADAPT_EVERY == 0 and step <= ADAPT_PART * options.steps)

    def build(photographs: Photographs) -> Codec:
        prepared.append(prepare(load_float(weights).to(accelerator()), rule, photographs))
        return prepared[0]

    # Tensor cores multiply numbers of 11 bits, which holds all of int8, and sum them in float32.
    torch.set_float32_matmul_precision("high")
    last = train(options, build, tend)
    if rule != "free":
        codec = prepared[0].cpu()
        state = torch.load(last, map_location="cpu", weights_only=True)
        codec.load_state_dict(state["codec"])
        notes = {
            "float": weights.name,
            "qat_steps": str(state["step"]),
            "tune": options.tune,
            "qualities": "{:g} to {:g}".format(*options.qualities),
            "batch": f"{options.batch} x {options.crop}",
        }
        part = options.out / "model.part"
        part.write_bytes(to_integer_model(codec, notes).to_bytes())
        part.replace(options.out / "model.safetensors")
    return last


def _int32(values: Tensor) -> NDArray[np.int32]:
    return np.asarray(torch.round(values.double()).int())


def _projection(codec: Codec, name: str) -> tuple[Int8, Tensor, Tensor]:
    """A fake-quantized projection: weights int8 [out, in], their exponents and the bias, float64 [out]."""
    module = codec.get_submodule(name)
    assert isinstance(module, FakeQuantProjection)
    weight, exponent, bias = module.integers()
    return weight.round().numpy().astype(np.int8), exponent.double(), bias.double()


@torch.no_grad()
def to_integer_model(codec: Codec, notes: dict[str, str]) -> IntegerModel:
    """The integers of a prepared (and trained) codec; ModelError when they break a rule."""
    networks: dict[str, FakeQuantNetwork] = {
        name: module if isinstance(module, FakeQuantNetwork) else module.network
        for name, module in ((n, getattr(codec, n)) for n in NETWORKS)
    }
    rule = networks["analysis"].rule
    assert rule != "free"
    profile: Profile = rule
    wide: Tensor = codec.synthesis.wide  # type: ignore[assignment]
    features, fine = (networks["analysis"].exponent(name) for name in networks["analysis"].outputs)
    latent_weight, latent_exponent, latent_bias = _projection(codec, "latent")
    detail_weight, detail_exponent, detail_bias = _projection(codec, "detail")
    row_weight, row_exponent, row_bias = _projection(codec, "rows")
    detail_row_weight, detail_row_exponent, detail_row_bias = _projection(codec, "detail_rows")
    row_fixed = ROWS_PER_OCTAVE * 2**16
    gains = codec.gains
    hyper_exponent = networks["hyper_analysis"].exponent(networks["hyper_analysis"].outputs[0])
    finer = torch.zeros(LATENTS + 4 * DETAILS)
    finer[wide] = 2.0
    row_gain = gains.log2_scale - gains.log2_step - math.log2(SCALE_MIN)
    row_gain[:, LATENTS:] += detail_row_bias
    radius, freq = mixture_tables()
    scales = SCALE_MIN * 2.0 ** (np.arange(64) / ROWS_PER_OCTAVE)
    skip = int(sum(math.erfc(0.5 / (s * math.sqrt(2))) < SKIP_MASS for s in scales))
    model = IntegerModel(
        profile=profile,
        networks={name: network.to_integer() for name, network in networks.items()},
        latent_weight=latent_weight,
        latent_bias=_int32(latent_bias / torch.exp2(latent_exponent + features)),
        latent_shift=(latent_exponent + features + 8).numpy().astype(np.int8),
        detail_weight=detail_weight,
        detail_bias=_int32(detail_bias / torch.exp2(detail_exponent + fine)),
        detail_shift=(detail_exponent + fine + 8).numpy().astype(np.int8),
        row_weight=row_weight,
        row_scale=_int32(row_fixed * torch.exp2(row_exponent)),
        row_bias=_int32(row_fixed * row_bias),
        detail_row_weight=detail_row_weight,
        detail_row_scale=_int32(row_fixed * torch.exp2(detail_row_exponent) / 16),
        magnitude=np.round(16 * np.log2(1.0 + np.arange(128))).astype(np.int8),
        step_knots=_int32(256 * (gains.log2_step + finer)),
        row_knots=_int32(row_fixed * row_gain),
        # A channel that is switched off at some quality may drift to any small gain.
        hyper_gain_knots=_int32(256 * (gains.log2_hyper_gain + hyper_exponent).clamp(-15, 15)),
        hyper_row_knots=_int32(row_fixed * (gains.log2_hyper_scale - math.log2(SCALE_MIN)).double()),
        hyper_prediction=np.zeros((HYPER, 3), np.int8),  # until calibration
        wide=wide.numpy().astype(np.int16),
        exp2=np.round(2.0 ** (16 + np.arange(256) / 256)).astype(np.int32),
        table_radius=radius,
        table_freq=freq,
        skip=skip,
        notes=notes,
    )  # fmt: skip
    model.check()
    return model
