"""The commands `pocketlic train` and `pocketlic qat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..codec.codec import STRIDE
from ..codec.errors import PlicError
from ..codec.files import write_atomic
from ..console import one_line_errors
from ..models import Tune
from .options import TUNE_HELP, RuleOption, number

DRAWN = 1 / 12  # of the crops: enough for flat colours, little enough for photographs


def multiple_of_stride(pixels: int) -> int:
    """Refuse, as typer's callback, sides of crops that the networks cannot take."""
    if pixels < 1 or pixels % STRIDE:
        raise typer.BadParameter(f"{pixels} is not a multiple of {STRIDE}")
    return pixels


Data = Annotated[Path, typer.Option(help="folder of photographs, searched recursively")]
Out = Annotated[Path, typer.Option(help="folder for checkpoints and logs; resumed when it has a checkpoint")]
Kodak = Annotated[Path | None, typer.Option(help="folder of evaluation pictures for periodic checks")]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="CPU threads, 0 for torch's choice")]
Decay = Annotated[
    float, typer.Option(min=0, max=1, callback=number, help="final part of the steps, where rates fall to 0")
]
Steps = Annotated[int, typer.Option(min=1, max=1 << 40, help="where training ends, counted from its start")]
Batch = Annotated[int, typer.Option(min=1, max=1 << 16, help="crops per step and process")]
Crop = Annotated[int, typer.Option(max=1 << 14, callback=multiple_of_stride, help="their sides, a multiple of 64")]
Minutes = Annotated[float, typer.Option(min=0, callback=number, help="minutes between checkpoints")]
MuonRate = Annotated[float, typer.Option(min=0, max=1, callback=number, help="learning rate of Muon, for matrices")]
AdamRate = Annotated[float, typer.Option(min=0, max=1, callback=number, help="learning rate of Adam, for all else")]
Drawn = Annotated[float, typer.Option(min=0, max=1, callback=number, help="part of the crops that are drawn by code")]
Again = Annotated[int, typer.Option(min=0, max=1 << 16, help="crops of a batch that have been coded once before")]
Seed = Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="of noise and of the order of crops")]


def train(
    data: Data,
    out: Out,
    weights: Annotated[
        Path | None, typer.Option(help="start from float weights (.pt, .safetensors), not from noise")
    ] = None,
    steps: Steps = 100_000,
    batch: Batch = 16,
    crop: Crop = 256,
    muon_lr: MuonRate = 0.01,
    adam_lr: AdamRate = 2.5e-3,
    decay: Decay = 0.6,
    tune: Annotated[Tune, typer.Option(help=TUNE_HELP)] = "psnr",
    drawn: Drawn = DRAWN,
    again: Again = 0,
    seed: Seed = 0,
    threads: Threads = 0,
    bf16: Annotated[bool, typer.Option(help="compute in bfloat16 where the processor can")] = True,
    kodak: Kodak = None,
    save_minutes: Minutes = 5.0,
) -> None:
    """Train the float codec, or resume; also under torchrun. Stop with Ctrl-C: the state is saved."""
    with one_line_errors():
        from ..models.train import TrainOptions
        from ..models.train import train as run

        options = TrainOptions(
            data,
            out,
            steps,
            batch,
            crop,
            muon_lr,
            adam_lr,
            decay=decay,
            drawn=drawn,
            again=again,
            seed=seed,
            threads=threads,
            bf16=bf16,
            tune=tune,
            kodak=kodak,
            save_minutes=save_minutes,
        )
        if weights is None:
            run(options)
        else:
            from ..quantization.qat import load_float

            start = load_float(weights)
            run(options, lambda _: start)


def qat(
    weights: Annotated[Path, typer.Option(help="float weights (.pt, .safetensors), or an integer model to train on")],
    data: Data,
    out: Out,
    rule: RuleOption = "cpu",
    steps: Steps = 8000,
    batch: Batch = 8,
    crop: Crop = 256,
    muon_lr: MuonRate = 0.002,
    adam_lr: AdamRate = 2e-4,
    decay: Decay = 0.9,
    tune: Annotated[Tune, typer.Option(help=TUNE_HELP)] = "psnr",
    qualities: Annotated[tuple[float, float], typer.Option(help="the least and the greatest it is for")] = (0, 100),
    drawn: Drawn = DRAWN,
    again: Again = 1,
    seed: Seed = 1,
    threads: Threads = 0,
    kodak: Kodak = None,
    save_minutes: Minutes = 5.0,
) -> None:
    """Train weights for integers, or resume; writes the integer model OUT/model.safetensors."""
    with one_line_errors():
        from ..codec._native import NativeDecoder
        from ..codec.calibrate import calibrate, sample
        from ..models.train import TrainOptions
        from ..quantization.model import load_model
        from ..quantization.qat import qat as run

        low, high = qualities
        if not 0 <= low < high <= 100:
            raise PlicError(f"qualities are two from 0 to 100, the lesser first, not {low:g} and {high:g}")
        options = TrainOptions(
            data, out, steps, batch, crop, muon_lr, adam_lr, decay=decay, drawn=drawn,
            again=again, seed=seed, threads=threads, ema=0.0, bf16=False, relu_leak=0.0, tune=tune,
            qualities=qualities, kodak=kodak, save_minutes=save_minutes,
        )  # fmt: skip
        run(options, weights, rule)
        path = out / "model.safetensors"
        model = load_model(path)
        native = NativeDecoder(model.to_bytes())
        calibrated = calibrate(model, sample(data), lambda network, inputs: native.run(network.name, inputs), qualities)
        write_atomic(path, calibrated.to_bytes())
