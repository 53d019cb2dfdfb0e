"""Equalization: rescale channels so that each fills the range of its int8 tensor.

An int8 tensor has one scale, set by its widest channel; narrow channels then get few levels. Multiplying a channel by a
positive factor where it is made, and dividing by it where it is used, changes nothing in float. Nagel et al.,
"Data-free quantization through weight equalization and bias correction", ICCV 2019, here by the activations' ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models.layers import Depthwise, Pointwise
from .fake import CONVOLUTIONS, FakeQuantNetwork

STRENGTH = 0.8  # 1 would equalize activations fully, but cost the weights precision
QUANTILE = 0.9999


@torch.no_grad()
def equalize(
    network: FakeQuantNetwork, batches: Sequence[tuple[Tensor, ...]], users: Mapping[str, Sequence[Pointwise]]
) -> None:
    """Rescale the channels of every tensor whose scale is not fixed, by changing a network's float weights in place.

    batches: float inputs [B, C, H, W]. users: output name -> the convolutions outside the network that read it, which
    are rescaled too. Other outputs keep their channels.
    """
    frozen = set(network.exponents) | {network.group[o] for o in network.outputs if o not in users}
    frozen |= {network.group[name] for name in network.inputs}
    channels: dict[str, int] = {}
    reach: dict[str, Tensor] = {}

    def observe(tensor: str, x: Tensor) -> Tensor:
        group, count = network.group[tensor], x.shape[1]
        if group not in frozen:
            high = torch.quantile(x.transpose(0, 1).flatten(1).abs()[:, ::7], QUANTILE, dim=1)
            smallest = min(count, channels.get(group, count))
            # Layers that move pixels repeat channels in the order (dy, dx, c): fold them to the smallest count.
            parts = [high] if group not in reach else [high, reach[group]]
            reach[group] = torch.stack([p.view(-1, smallest).amax(0) for p in parts]).amax(0)
            channels[group] = smallest
        return x

    for batch in batches:
        network.execute(batch, observe, lambda node, x: node.module(*x))
    factor = {}
    for group, high in reach.items():
        high = high.clamp(min=max(float(high.max()) * 2.0**-8, 1e-9))
        factor[group] = (high.max() / high) ** STRENGTH

    def gain(tensor: str, count: int) -> Tensor:
        f = factor.get(network.group[tensor])
        return torch.ones(count) if f is None else f.repeat(count // len(f))

    for node in network.nodes:
        if isinstance(node.module, CONVOLUTIONS):
            _scale_outputs(node.module, gain(node.name, len(node.module.bias)))
            _divide_inputs(node.module, gain(node.inputs[0], _inputs(node.module)))
    for output, readers in users.items():
        for module in readers:
            _divide_inputs(module, gain(output, _inputs(module)))


def _inputs(module: Pointwise | Depthwise) -> int:
    return module.weight.shape[1 if isinstance(module, Pointwise) else 0]


def _scale_outputs(module: Pointwise | Depthwise, gain: Tensor) -> None:
    gain = gain.to(module.weight.device)
    module.weight.mul_(gain.view(-1, *[1] * (module.weight.ndim - 1)))
    module.bias.mul_(gain)


def _divide_inputs(module: Pointwise | Depthwise, gain: Tensor) -> None:
    gain = gain.to(module.weight.device)
    module.weight.div_(gain if isinstance(module, Pointwise) else gain[:, None, None, None])
