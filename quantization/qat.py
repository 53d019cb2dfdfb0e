"""Quantization-aware training: a prepared codec goes on in the ordinary loop, and becomes the integers that ship."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..models.data import Photographs
from ..models.network import Codec, Widths
from ..models.process import accelerator
from ..models.train import TrainOptions, train
from .convert import from_integer_model, to_integer_model
from .fake import TrainingRule, settle
from .model import load_model
from .network import ModelError
from .prepare import make_room, prepare

ADAPT_EVERY, ADAPT_PART = 500, 0.6  # steps between two fits of the weights' scales, and the part of a run that has them

# What loading other files than ours, or damaged ones, ends in.
FOREIGN = SafetensorError, UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError


def load_float(path: Path) -> Codec:
    """A float codec: shipped weights (.safetensors) or the averaged ones of a training checkpoint (.pt).

    ModelError when the file holds something else, OSError when it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)["average"]
        layers = {name.removesuffix(".weight").split(".", 1)[-1].replace(".", "_"): name for name in state}
        codec = Codec(Widths.of({layer: state[name].shape for layer, name in layers.items()}))
        codec.load_state_dict(state)
    except FOREIGN as error:
        raise ModelError(f"{path} does not hold the weights of a float codec") from error
    return codec


def save_float(codec: Codec, path: Path, notes: dict[str, str]) -> None:
    """Write float weights as float16 safetensors: half the size, and its rounding is far below int8's."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    save_file(state, path, metadata=notes)


def starting_codec(weights: Path, rule: TrainingRule, photographs: Photographs) -> Codec:
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

    Unless the rule is `free`, the integers of the last weights are written to out/model.safetensors. Not those
    of the averaged ones: weights have settled on roundings that go together, and a mean of several such sets
    rounds to none of them (5 % more rate).
    """
    prepared: list[Codec] = []

    def tend(codec: Codec, step: int) -> None:
        settle(codec, adapt=step % ADAPT_EVERY == 0 and step <= ADAPT_PART * options.steps)

    def build(photographs: Photographs) -> Codec:
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
