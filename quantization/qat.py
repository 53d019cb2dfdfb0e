"""Quantization-aware training: trains a fake-quantized codec in the ordinary loop and writes the integer model."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..models.data import Photographs
from ..models.network import FloatCodec, Widths
from ..models.process import accelerator
from ..models.train import TrainOptions, train
from .convert import from_integer_model, to_integer_model
from .errors import ModelError
from .fake import TrainingRule, settle
from .model import load_model
from .prepare import make_room, prepare

ADAPT_EVERY, ADAPT_PART = 500, 0.6  # steps between fits of the weights' scales, and the part of a run with such fits

# What loading foreign or damaged files can end in.
FOREIGN = SafetensorError, UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError


def load_float(path: Path) -> FloatCodec:
    """A float codec: shipped weights (.safetensors) or the averaged ones of a training checkpoint (.pt).

    ModelError when the file holds something else, OSError when it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)["average"]
        layers = {name.removesuffix(".weight").split(".", 1)[-1].replace(".", "_"): name for name in state}
        codec = FloatCodec(Widths.of({layer: state[name].shape for layer, name in layers.items()}))
        codec.load_state_dict(state)
    except FOREIGN as error:
        raise ModelError(f"{path} does not hold the weights of a float codec") from error
    return codec


def save_float(codec: FloatCodec, path: Path, notes: dict[str, str]) -> None:
    """Write float weights as float16 safetensors: half the size, with rounding errors far below int8's."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(state, part, metadata=notes)
    part.replace(path)


def starting_codec(weights: Path, rule: TrainingRule, photographs: Photographs) -> FloatCodec:
    """A fake-quantized codec of float weights or of an integer model; ModelError, OSError as `load_float`'s."""
    try:
        model = load_model(weights)
    except ModelError:
        return prepare(load_float(weights).to(accelerator()), rule, photographs)
    if model.rule != rule:
        raise ModelError(f"{weights} is a model of rule {model.rule}, not {rule}")
    codec = from_integer_model(model).to(accelerator())
    make_room(codec)
    return codec


def qat(options: TrainOptions, weights: Path, rule: TrainingRule) -> Path:
    """Train float weights, or an integer model on, under fake quantization; or resume. Returns the last checkpoint.

    Unless the rule is `free`, writes out/model.safetensors, the integers of the last weights. Not of the averaged ones:
    an average of weights rounds to none of the sets of integers that training has found (5 % more rate).
    """
    prepared: list[FloatCodec] = []

    def tend(codec: FloatCodec, step: int) -> None:
        settle(codec, adapt=step % ADAPT_EVERY == 0 and step <= ADAPT_PART * options.steps)

    def build(photographs: Photographs) -> FloatCodec:
        prepared.append(starting_codec(weights, rule, photographs))
        return prepared[0]

    # Tensor cores multiply numbers of 11 bits, which holds all of int8, and sum them in float32.
    torch.set_float32_matmul_precision("high")
    last = train(options, build, tend)
    if rule != "free":
        codec = prepared[0].cpu()
        state = torch.load(last, map_location="cpu", weights_only=True)
        codec.load_state_dict(state["codec"])
        notes = {
            "from": weights.name,
            "qat_steps": str(state["step"]),
            "tune": options.tune,
            "qualities": "{:g} to {:g}".format(*options.qualities),
            "batch": f"{options.batch} x {options.crop}",
        }
        part = options.out / "model.part"
        part.write_bytes(to_integer_model(codec, notes).to_bytes())
        part.replace(options.out / "model.safetensors")
    return last
