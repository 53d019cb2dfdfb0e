"""From a float codec to a fake-quantized one, whose networks compute what their integers will.

`prepare` rescales the float codec to integer grids without changing what it computes, replaces its networks by
fake-quantized ones, and calibrates them on training photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.data import Photographs
from ..models.layers import Pointwise, clamp_ste, round_ste
from ..models.network import LATENTS, STRIDE, FloatCodec
from ..models.postfilter import PostFilter
from .equalize import equalize
from .fake import CONVOLUTIONS, FakeQuantNetwork, FakeQuantProjection, TrainingRule, train_unscaled
from .model import NETWORKS

LOG2_STEP_EXPONENT = -5  # the hyper-synthesis gives log2 steps in 1/32 octaves
GRID_REACH = 120.0  # latents are scaled so that nearly all lie within this of zero, on a grid of int8
WIDE = 4  # channels with the most levels, which get a four times finer grid
ROOM = 1.05  # times its grid that a channel may reach for a flat colour


def centred(x: Tensor) -> Tensor:
    """From RGB/255 - 0.5 to (RGB - 128) / 256, whose int8 is the pixel less 128."""
    return (x + 0.5) * (255 / 256) - 0.5


class PixelInput(nn.Module):
    """Wraps the analysis, whose input becomes `centred`."""

    def __init__(self, network: FakeQuantNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features: tuple[Tensor, Tensor] = self.network(centred(x))
        return features


class Planes(nn.Module):
    """Wraps the synthesis: (y_hat, details) -> RGB, with y_hat as int8 planes.

    coarse = round(y_hat), clamped; fine = 4 * (y_hat - coarse) of the wide channels, plus what the clamp cuts.
    """

    wide: Tensor

    def __init__(self, network: FakeQuantNetwork, wide: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("wide", wide)

    def forward(self, y_hat: Tensor, details: Tensor) -> Tensor:
        coarse = round_ste(clamp_ste(y_hat, -128, 127))
        fine = torch.floor(4 * (y_hat - coarse).detach()[:, self.wide] + 0.5)
        pixels: Tensor = self.network(torch.cat([coarse, fine], 1), details)
        return (pixels + 0.5) * (256 / 255) - 0.5


class StepGrid(nn.Module):
    """Quantization steps are whole multiples, at least one, of each channel's unit.

    Then y_hat = mean + symbol * step lies on the grid and rounding it costs nothing.
    """

    unit: Tensor

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit.view(1, -1, 1, 1))

    def forward(self, step: Tensor) -> Tensor:
        return clamp_ste(round_ste(step / self.unit), 1.0, 2.0**14) * self.unit


@torch.no_grad()
def rescale_latents(codec: FloatCodec, octaves: Tensor, detail_octaves: Tensor) -> None:
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
def rescale_pixels(codec: FloatCodec) -> None:
    """Change the pixels' units at both ends from RGB/255 - 0.5 to (RGB - 128)/256."""
    enter, out = codec.analysis.enter, codec.synthesis.out
    enter.bias.add_(enter.weight.sum(1) * (0.5 / 255))
    enter.weight.mul_(256 / 255)
    out.weight.mul_(255 / 256)
    out.bias.mul_(255 / 256).sub_(0.5 / 256)


@torch.no_grad()
def widen(convolution: Pointwise, wide: Tensor) -> None:
    """Append input columns for the wide channels' fine planes, with a quarter of the coarse planes' weights."""
    convolution.weight = nn.Parameter(torch.cat([convolution.weight, convolution.weight[:, wide] / 4], 1))


def _calls(codec: FloatCodec, image: Tensor, quality: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """The inputs of each network in one pass of a float codec."""
    inputs: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, x: inputs.__setitem__(name, tuple(t.detach() for t in x))

    hooks = [getattr(codec, name).register_forward_pre_hook(remember(name)) for name in NETWORKS]
    codec(image, quality)
    for hook in hooks:
        hook.remove()
    return inputs


@torch.no_grad()
def prepare(codec: FloatCodec, rule: TrainingRule, photographs: Photographs, batches: int = 6) -> FloatCodec:
    """Turn a float codec, in place, into a fake-quantized one, calibrated on `batches` batches of crops."""
    codec.eval()
    device = next(codec.parameters()).device
    crops = [photographs(10**9 + i).to(device).float() / 255 for i in range(batches)]
    qualities = [torch.linspace(5, 100, photographs.batch, device=device)] * batches

    seen = [_calls(codec, x, q)["synthesis"] for x, q in zip(crops, qualities, strict=True)]
    reach, detail_reach = (_reach([tensors[i] for tensors in seen]) for i in (0, 1))
    rescale_pixels(codec)
    convolutions = [m for m in codec.modules() if isinstance(m, CONVOLUTIONS)]
    unscaled = [(m.weight.clone(), m.bias.clone()) for m in convolutions]
    rescale_latents(codec, _headroom(reach), _headroom(detail_reach.view(4, -1).amax(0)))
    # The finest steps, on the new grid, are where an int8 grid is too coarse.
    wide = codec.gains.log2_step[-1, :LATENTS].argsort()[:WIDE].sort().values
    widen(codec.synthesis.enter, wide)
    widen(codec.synthesis.canvas, wide)

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
    codec.register_module("synthesis", _Narrow(originals, wide))
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
    # Equalization has rescaled its first input, an output of the hyper-synthesis: run that again.
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

    install(codec, networks, wide)
    for module, (weight, bias) in zip(convolutions, unscaled, strict=True):
        if module.weight.shape != weight.shape:
            weight = torch.cat([weight, weight[:, wide]], 1)
        train_unscaled(module, weight, bias)
    return codec.train()


@torch.no_grad()
def make_room(codec: FloatCodec) -> list[int]:
    """Give the channels of y room whose grid is too small for flat colours; in place, of a fake-quantized codec.

    Grids are chosen by what photographs need, and 255 green is more than any photograph shows. Such a channel gets a
    unit twice as large and becomes a wide one, so that its grid gets no coarser at high rates. What the codec computes
    stays the same but for rounding; training makes good what that costs. Returns the channels changed, and changes
    none when called again.
    """
    levels = torch.linspace(0, 1, 3)
    colours = torch.cartesian_prod(levels, levels, levels)
    side = 2 * STRIDE  # the middle sees no border
    device = next(codec.parameters()).device
    reach = torch.zeros(LATENTS, device=device)
    for part in colours.to(device).chunk(3):
        features, _ = codec.analysis(part[:, :, None, None].expand(-1, -1, side, side) - 0.5)
        middle = codec.latent(features)[:, :, 3:5, 3:5]
        reach = torch.maximum(reach, middle.abs().amax((0, 2, 3)))
    wide = codec.get_buffer("synthesis.wide")
    reach[wide] = 0
    channels: list[int] = (reach > ROOM * 128).nonzero().flatten().tolist()
    for channel in channels:
        _widen_channel(codec, channel)
    return channels


@torch.no_grad()
def _widen_channel(codec: Any, channel: int) -> None:
    """Double a channel's unit and make it wide. codec: fake-quantized, which no type of its parts says."""
    analysis, context, means, planes = codec.hyper_analysis, codec.context, codec.hyper_synthesis, codec.synthesis
    synthesis = planes.network
    _halve_row(codec.latent.projection, codec.latent.weight_exponent, channel)
    for network, name in ((means, "mean"), (context, "out")):
        module = network.network.get_submodule(name)
        _halve_row(module, module.weight_exponent, channel)
    depthwise = context.network.depthwise
    depthwise.weight_gain[channel] *= 2
    depthwise.weight_exponent[channel] += 1
    analysis.network.enter.weight_gain[:, channel] *= 2
    planes.wide = torch.cat([planes.wide, planes.wide.new_tensor([channel])]).sort().values
    column = LATENTS + int((planes.wide == channel).nonzero())
    for module in (synthesis.network.enter, synthesis.network.canvas):
        module.weight_gain[:, channel] *= 2
        weight, gain = (_insert_column(x, channel, column) for x in (module.weight, module.weight_gain))
        gain[:, column] /= 4
        module.weight, module.weight_gain = nn.Parameter(weight), gain
    synthesis.channels["y_hat"] = LATENTS + len(planes.wide)
    codec.step_grid.unit[0, channel] = 0.25
    codec.gains.log2_step[:, channel] -= 1
    codec.gains.log2_scale[:, channel] -= 1
    for network in (analysis, context, means, synthesis):
        network.fit_scales(1)


def _halve_row(module: Any, exponent: Tensor, row: int) -> None:
    module.weight_gain[row] /= 2
    module.bias_gain[row] /= 2
    exponent[row] -= 1


def _insert_column(x: Tensor, source: int, target: int) -> Tensor:
    """A copy of column `source` of [out, in] in front of column `target`."""
    return torch.cat([x[:, :target], x[:, source : source + 1], x[:, target:]], 1)


def install(codec: FloatCodec, networks: dict[str, FakeQuantNetwork], wide: Tensor) -> None:
    """Replace a codec's networks and projections, in place, by fake-quantized ones, and round its steps to the grids.

    Also adds a post-filter, which changes nothing until it is trained.

    wide: the channels of y with a four times finer grid, for which the networks have been widened.
    """
    codec.register_module("analysis", PixelInput(networks["analysis"]))
    for name in ("hyper_analysis", "hyper_synthesis", "context"):
        codec.register_module(name, networks[name])
    codec.register_module("synthesis", Planes(networks["synthesis"], wide))
    for name, projection in (
        ("latent", codec.latent), ("detail", codec.detail), ("rows", codec.rows), ("detail_rows", codec.detail_rows),
    ):  # fmt: skip
        codec.register_module(name, FakeQuantProjection(projection))
    unit = torch.ones(codec.gains.log2_step.shape[1], device=wide.device)
    unit[wide] = 0.25
    codec.step_grid, codec.detail_step_grid = StepGrid(unit[:LATENTS]), StepGrid(unit[LATENTS:])
    codec.post_filter = PostFilter().to(wide.device)


def _reach(tensors: list[Tensor]) -> Tensor:
    """The 0.9998 quantile of magnitudes in each channel, [C], of tensors [B, C, h, w]."""
    spread = torch.cat([t.transpose(0, 1).flatten(1) for t in tensors], 1).abs()
    return torch.quantile(spread[:, :: max(1, spread.shape[1] // 100_000)], 0.9998, dim=1)


def _headroom(reach: Tensor) -> Tensor:
    """Whole octaves by which a channel may grow before it exceeds the grid."""
    return torch.floor(torch.log2(GRID_REACH / reach.clamp(min=1e-3)))


def _split(y_hat: Tensor, wide: Tensor) -> Tensor:
    coarse = torch.floor(y_hat + 0.5).clamp(-128, 127)
    return torch.cat([coarse, torch.floor(4 * (y_hat - coarse)[:, wide] + 0.5)], 1)


class _Narrow(nn.Module):
    """A widened float synthesis that takes y_hat without its fine planes, for calibration."""

    def __init__(self, network: nn.Module, wide: Tensor) -> None:
        super().__init__()
        self.network, self.wide = network, wide

    def forward(self, y_hat: Tensor, details: Tensor) -> Tensor:
        pixels: Tensor = self.network(_split(y_hat, self.wide), details)
        return pixels
