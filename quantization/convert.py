"""From a fake-quantized codec, which trains, to the integer model, which ships, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.entropy import SCALE_MIN, TABLES_PER_OCTAVE, mixture_tables
from ..models.network import HYPER, LATENTS, FloatCodec, Widths
from .errors import ModelError
from .fake import CONVOLUTIONS, FakeQuantNetwork, FakeQuantProjection, train_balanced
from .model import NETWORKS, IntegerModel
from .network import Int8
from .prepare import install, widen

SKIP_MASS = 2e-4  # tables whose symbols are nonzero more rarely than this are not coded
OCTAVE = TABLES_PER_OCTAVE * 2**16  # in table indices, 2**-16
FINER = 2  # octaves by which a wide channel's grid is finer


def _int32(values: Tensor) -> NDArray[np.int32]:
    return np.asarray(torch.round(values.double()).int())


def _double(values: NDArray[np.integer[Any]]) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))


def _projection(codec: FloatCodec, name: str) -> tuple[Int8, Tensor, Tensor]:
    """Weights int8 [out, in] of a fake-quantized projection, their exponents and the bias, float64 [out]."""
    module = codec.get_submodule(name)
    assert isinstance(module, FakeQuantProjection)
    weight, exponent, bias = module.integers()
    return weight.round().numpy().astype(np.int8), exponent.double(), bias.double()


def _assign(codec: FloatCodec, name: str, weight: Int8, exponent: Tensor, bias: Tensor) -> None:
    """The inverse of `_projection`."""
    module = codec.get_submodule(name)
    assert isinstance(module, FakeQuantProjection)
    module.assign(_double(weight), exponent, bias)


@torch.no_grad()
def to_integer_model(codec: FloatCodec, notes: dict[str, str]) -> IntegerModel:
    """The integers of a fake-quantized codec; ModelError when they break a rule. notes: provenance, for the model."""
    networks: dict[str, FakeQuantNetwork] = {
        name: module if isinstance(module, FakeQuantNetwork) else module.network
        for name, module in ((n, getattr(codec, n)) for n in NETWORKS)
    }
    rule = networks["analysis"].rule
    assert rule != "free"
    wide = codec.get_buffer("synthesis.wide")
    features, fine = (networks["analysis"].exponent(name) for name in networks["analysis"].outputs)
    latent_weight, latent_exponent, latent_bias = _projection(codec, "latent")
    detail_weight, detail_exponent, detail_bias = _projection(codec, "detail")
    row_weight, row_exponent, row_bias = _projection(codec, "rows")
    detail_row_weight, detail_row_exponent, detail_row_bias = _projection(codec, "detail_rows")
    gains = codec.gains
    hyper_exponent = networks["hyper_analysis"].exponent(networks["hyper_analysis"].outputs[0])
    step_knots = _int32(256 * gains.log2_step)
    step_knots[:, wide] += 256 * FINER
    row_gain = gains.log2_scale - gains.log2_step - math.log2(SCALE_MIN)
    row_gain[:, LATENTS:] += detail_row_bias
    radius, freq = mixture_tables()
    scales = SCALE_MIN * 2.0 ** (np.arange(64) / TABLES_PER_OCTAVE)
    skip = int(sum(math.erfc(0.5 / (s * math.sqrt(2))) < SKIP_MASS for s in scales))
    model = IntegerModel(
        rule=rule,
        networks={name: network.to_integer() for name, network in networks.items()},
        latent_weight=latent_weight,
        latent_bias=_int32(latent_bias / torch.exp2(latent_exponent + features)),
        latent_shift=(latent_exponent + features + 8).numpy().astype(np.int8),
        detail_weight=detail_weight,
        detail_bias=_int32(detail_bias / torch.exp2(detail_exponent + fine)),
        detail_shift=(detail_exponent + fine + 8).numpy().astype(np.int8),
        row_weight=row_weight,
        row_scale=_int32(OCTAVE * torch.exp2(row_exponent)),
        row_bias=_int32(OCTAVE * row_bias),
        detail_row_weight=detail_row_weight,
        detail_row_scale=_int32(OCTAVE * torch.exp2(detail_row_exponent) / 16),
        magnitude=np.round(16 * np.log2(1.0 + np.arange(128))).astype(np.int8),
        step_knots=step_knots,
        row_knots=_int32(OCTAVE * row_gain),
        # The gain of a channel that is off at some quality may drift to any small value.
        hyper_gain_knots=_int32(256 * (gains.log2_hyper_gain + hyper_exponent).clamp(-15, 15)),
        hyper_row_knots=_int32(OCTAVE * (gains.log2_hyper_scale - math.log2(SCALE_MIN)).double()),
        hyper_prediction=np.zeros((HYPER, 3), np.int8),  # until calibration
        wide=wide.numpy().astype(np.int16),
        exp2=np.round(2.0 ** (16 + np.arange(256) / 256)).astype(np.int32),
        table_radius=radius,
        table_freq=freq,
        skip=skip,
        post_filter=codec.post_filter.integers().numpy().astype(np.int8) if codec.post_filter is not None else None,
        notes=notes,
    )  # fmt: skip
    model.check()
    return model


@torch.no_grad()
def from_integer_model(model: IntegerModel) -> FloatCodec:
    """The inverse of `to_integer_model`: a fake-quantized codec to continue training, which computes what a model does.

    Entropy coding becomes what training assumes: z without prediction, and one mixture for all tables. ModelError when
    the model's networks are not those of `models.network`.
    """
    shapes = {la.name: la.weight.shape for net in model.networks.values() for la in net.layers if la.weight is not None}
    try:
        widths = Widths.of({**shapes, "latent": model.latent_weight.shape, "detail": model.detail_weight.shape})
    except KeyError as error:
        raise ModelError(f"not a model that can be trained here: it has no layer {error}") from error
    codec = FloatCodec(widths)
    wide = torch.from_numpy(model.wide.astype(np.int64))
    widen(codec.synthesis.enter, wide)
    widen(codec.synthesis.canvas, wide)
    networks = {
        name: FakeQuantNetwork.from_integer(network, getattr(codec, name), model.rule)
        for name, network in model.networks.items()
    }
    convolutions = [m for network in networks.values() for m in network.modules() if isinstance(m, CONVOLUTIONS)]
    convolutions += [codec.latent, codec.detail]
    install(codec, networks, wide)
    for name, output in zip(("latent", "detail"), networks["analysis"].outputs, strict=True):
        source = networks["analysis"].exponent(output)
        exponent = _double(getattr(model, f"{name}_shift")) - 8 - source
        bias = _double(getattr(model, f"{name}_bias")) * torch.exp2(exponent + source)
        _assign(codec, name, getattr(model, f"{name}_weight"), exponent, bias)
    # A row of almost no weight has a scale of 0.
    exponent = torch.log2(_double(model.row_scale).clamp(min=0.25) / OCTAVE).round()
    _assign(codec, "rows", model.row_weight, exponent, _double(model.row_bias) / OCTAVE)
    exponent = torch.log2(_double(model.detail_row_scale).clamp(min=0.25) * 16 / OCTAVE).round()
    _assign(codec, "detail_rows", model.detail_row_weight, exponent, torch.zeros(len(exponent)))
    gains = codec.gains
    step_knots = _double(model.step_knots) / 256
    step_knots[:, wide] -= FINER
    gains.log2_step.copy_(step_knots)
    gains.log2_scale.copy_(_double(model.row_knots) / OCTAVE + step_knots + math.log2(SCALE_MIN))
    hyper_exponent = networks["hyper_analysis"].exponent(networks["hyper_analysis"].outputs[0])
    gains.log2_hyper_gain.copy_(_double(model.hyper_gain_knots) / 256 - hyper_exponent)
    gains.log2_hyper_scale.copy_(_double(model.hyper_row_knots) / OCTAVE + math.log2(SCALE_MIN))
    if model.post_filter is not None:
        assert codec.post_filter is not None
        codec.post_filter.assign(_double(model.post_filter))
    for convolution in convolutions:
        train_balanced(convolution)
    return codec.train()
