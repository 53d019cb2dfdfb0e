"""Training of the float codec: rate-distortion loss at random qualities, Muon for matrices, Adam for the rest.

A step depends only on the weights, the optimizers' state and the step's number, which seeds crops, qualities and noise.
So a resumed run takes exactly the steps that it would have taken.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from . import Tune
from .data import Photographs, list_photographs
from .layers import leaky_gradient
from .network import Coded, FloatCodec, pad_to_stride, rate_weight
from .perceptual import visual_bits
from .process import StopSignal, keep_freed_memory, process_group

LOG_EVERY = 50
# Weight of quality 100 relative to quality 0 in training for the eye, whose metrics vary most at low qualities.
VISUAL_EMPHASIS = 0.4
# Training for the eye minimises the logarithm of a crop's cost: a mean of BD-rates counts relative changes of each
# picture's rate. This is added, a third of the mean cost, so that empty skies do not dominate.
LEAST_COST = 0.3


@dataclass
class TrainOptions:
    """The options of a run. Lengths are in steps; learning rates fall to 0 over the last fraction `decay` of them."""

    data: Path
    out: Path
    steps: int = 100_000
    batch: int = 16
    crop: int = 256
    muon_lr: float = 0.01
    adam_lr: float = 2.5e-3
    warmup: int = 200
    decay: float = 0.6
    ema: float = 0.9995  # of the averaged weights; 0 for none
    relu_leak: float = 0.1  # before the decay; see layers.leaky_gradient
    tune: Tune = "psnr"
    qualities: tuple[float, float] = (0.0, 100.0)
    drawn: float = 0.0  # part of the crops that are drawn by code instead
    again: int = 0  # crops of each batch that have been coded once before
    seed: int = 0
    threads: int = 0
    bf16: bool = True
    kodak: Path | None = None
    save_minutes: float = 5.0
    check_minutes: float = 20.0


def learning_rate_factor(step: int, options: TrainOptions) -> float:
    """Warm-up, stable, decay: linear up to 1, constant, linear down to 0. More `steps` extend the middle."""
    left = options.steps - step
    return min(1.0, (step + 1) / options.warmup, left / max(1.0, options.decay * options.steps))


def rate_distortion(coded: Coded, image: Tensor, quality: Tensor, tune: Tune = "psnr") -> tuple[Tensor, Tensor, Tensor]:
    """(loss, bpp, distortion in 8-bit squared steps); the loss is a scalar, the others are [B].

    image: float32 [B, 3, H, W] in 0..1. quality: float32 [B], 0 to 100.

    bpp + weight * distortion grows with the square root of the weight. Divided by that root, every quality counts by
    its relative change, which is what a BD-rate measures. For the eye, distortion = visual_bits / rate_weight, and the
    logarithm makes every crop count by its relative change, too.
    """
    weight = rate_weight(quality)
    scale = (0.013 / weight).sqrt()
    bpp = (coded.latent_bits + coded.hyper_bits) / (image.shape[2] * image.shape[3])
    if tune == "visual":
        distortion = visual_bits(image * 255.0, coded.reconstruction * 255.0, quality) / weight
        scale = scale * VISUAL_EMPHASIS ** (quality / 100.0)
    else:
        error = (coded.reconstruction - image).permute(0, 2, 3, 1).flatten(1)
        distortion = (error * error).mean(1) * 255.0**2
    cost = (bpp + weight * distortion) * scale
    return (torch.log(cost + LEAST_COST) if tune == "visual" else cost).mean(), bpp, distortion


@torch.no_grad()
def check(codec: nn.Module, folder: Path, qualities: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """(quality, mean estimated bpp, mean RGB-PSNR in dB) over the pictures of a folder, for each quality."""
    device = next(codec.parameters()).device
    codec.eval()
    totals = np.zeros((len(qualities), 2))
    files = list_photographs(folder)
    for path in files:
        with Image.open(path) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None].float().to(device)
        h, w = pixels.shape[2:]
        padded = pad_to_stride(pixels / 255.0).contiguous(memory_format=torch.channels_last)
        for i, quality in enumerate(qualities):
            coded: Coded = codec(padded, torch.tensor([quality], device=device))
            decoded = (coded.reconstruction[:, :, :h, :w].clamp(0, 1) * 255).round()
            mse = (decoded - pixels).square().mean().item()
            bits = (coded.latent_bits + coded.hyper_bits).item()
            totals[i] += bits / (h * w), -10 * math.log10(max(mse, 1e-3) / 255.0**2)
    codec.train()
    return [(q, float(b), float(p)) for q, (b, p) in zip(qualities, totals / len(files), strict=True)]


class Optimizers:
    """Muon for the matrices of 1x1 convolutions, Adam for everything else, with one schedule."""

    def __init__(self, codec: nn.Module, options: TrainOptions) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in codec.named_parameters():
            (matrices if p.ndim == 2 and name.endswith("weight") else others).append(p)
        self.parameters = matrices + others
        self.muon = torch.optim.Muon(matrices, lr=options.muon_lr, weight_decay=0.0)
        self.adam = torch.optim.Adam(others, lr=options.adam_lr, betas=(0.9, 0.99))
        self._allow_capture()

    def _allow_capture(self) -> None:
        """Let a CUDA graph capture the step: Adam then counts steps on the GPU; Muon needs nothing."""
        capturable = self.parameters[0].is_cuda
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["capturable"] = capturable
        for state in self.adam.state.values():
            state["step"] = state["step"].to(self.parameters[0].device if capturable else "cpu")

    @torch.no_grad()
    def step(self, factor: Tensor) -> None:
        """One step at `factor` times the learning rates; `factor` is a scalar on the parameters' device.

        Updates are proportional to the learning rates, so scaling an update scales the rate.
        """
        values = [p.detach() for p in self.parameters]
        moved = [p.clone() for p in values]
        self.muon.step()
        self.adam.step()
        _move_towards(moved, values, factor)
        torch._foreach_copy_(values, moved)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self._allow_capture()


def _move_towards(start: list[Tensor], end: list[Tensor], part: Tensor) -> None:
    """start += part * (end - start), in place; `part` is a scalar tensor."""
    difference = torch._foreach_sub(end, start)
    torch._foreach_mul_(difference, part)
    torch._foreach_add_(start, difference)


class Step:
    """One step of training: gradients, optimizers, moving average, sums for the log.

    On a GPU it is captured as a CUDA graph and replayed: networks this small are thousands of short kernels, whose
    launches would take nearly all of the time.
    """

    WARM_UP = 3  # steps before the capture, in which the optimizers create their state

    def __init__(
        self, codec: FloatCodec, parallel: nn.Module, average: FloatCodec, optimizers: Optimizers, options: TrainOptions
    ) -> None:
        self.codec, self.parallel, self.average = codec, parallel, average
        self.optimizers, self.options = optimizers, options
        self.device = next(codec.parameters()).device
        self.sums = torch.zeros(3, device=self.device)  # of loss, bpp and distortion
        # The graph reads its inputs in place.
        side = options.crop
        self.image = torch.zeros(options.batch, 3, side, side, dtype=torch.uint8, device=self.device)
        self.image = self.image.contiguous(memory_format=torch.channels_last)
        # The qualities, the learning rate's factor, the rate of the average, the ReLUs' leak.
        self.numbers = torch.zeros(options.batch + 3, device=self.device)
        self.capture = self.device.type == "cuda" and parallel is codec
        self.graph: torch.cuda.CUDAGraph | None = None
        self.runs = 0

    def __call__(self, step: int, rank: int, image: Tensor) -> None:
        """image: uint8 [B, 3, crop, crop]."""
        options = self.options
        # All randomness of a step comes from its number.
        torch.manual_seed((options.seed * 1_000_003 + step) * 64 + rank)
        low, high = options.qualities
        spread = (torch.randperm(options.batch) + torch.rand(options.batch)) * ((high - low) / options.batch) + low
        self.image.copy_(image, non_blocking=True)
        average_rate = 1 - min(options.ema, (step + 1) / (step + 10))
        leak = options.relu_leak * (step < round(options.steps * (1 - options.decay)))
        numbers = torch.cat([spread, torch.tensor([learning_rate_factor(step, options), average_rate, leak])])
        self.numbers.copy_(numbers.pin_memory() if self.capture else numbers, non_blocking=True)
        if self.graph is not None:
            self.graph.replay()
        elif not self.capture:
            self._run()
        elif self.runs < self.WARM_UP:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run()
            torch.cuda.current_stream().wait_stream(stream)
        else:
            self.codec.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            # Other threads pin memory meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._run()
            self.graph.replay()
        self.runs += 1

    def means(self, steps: int) -> list[float]:
        """Means of loss, bpp and distortion over the last `steps` steps; starts new sums."""
        means = [value / steps for value in self.sums.tolist()]
        self.sums.zero_()
        return means

    def _run(self) -> None:
        image = self.image.float() / 255.0
        quality, (factor, average_rate, leak) = self.numbers[:-3], self.numbers[-3:]
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16, cache_enabled=False)
        if again := min(self.options.again, len(image)):  # so that a picture settles when it is coded again and again
            with autocast, torch.no_grad():
                decoded = self.codec(image[:again], quality[:again]).reconstruction
            image[:again] = (decoded.clamp(0, 1) * 255).round() / 255
        with autocast, leaky_gradient(leak):
            coded = self.parallel(image, quality)
        loss, bpp, distortion = rate_distortion(coded, image, quality, self.options.tune)
        self.codec.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), 5.0)
        finite = torch.isfinite(norm)
        for p in self.codec.parameters():
            if p.grad is not None:
                p.grad = torch.where(finite, p.grad, 0.0)
        self.optimizers.step(factor * finite)
        with torch.no_grad():
            if self.average is not self.codec:
                _move_towards(list(self.average.parameters()), list(self.codec.parameters()), average_rate)
            self.sums += torch.stack([loss.detach(), bpp.mean(), distortion.mean()])


class Checkpoint:
    """What a run resumes from: the weights, their moving average, the optimizers' state, and the steps done."""

    def __init__(self, codec: FloatCodec, average: FloatCodec, optimizers: Optimizers, options: TrainOptions) -> None:
        self.codec, self.average, self.optimizers, self.options = codec, average, optimizers, options

    def load(self, path: Path, device: torch.device) -> int:
        """Take over a file's state; returns its number of steps. OSError when it is damaged or of another kind."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            self.codec.load_state_dict(state["codec"])
            if self.average is not self.codec:
                self.average.load_state_dict(state["average"])
            self.optimizers.load_state_dict(state["optimizers"])
            return int(state["step"])
        except (RuntimeError, EOFError, LookupError, TypeError, ValueError, UnpicklingError) as error:
            raise OSError(f"cannot resume {path}: damaged, or of another kind of run") from error

    def save(self, path: Path, step: int) -> None:
        """Write a file whole or not at all: a run killed while saving keeps its last checkpoint."""
        content = {"codec": self.codec.state_dict(), "average": self.average.state_dict(), "step": step}
        options = {name: str(value) for name, value in asdict(self.options).items()}
        part = path.with_suffix(".part")
        torch.save({**content, "optimizers": self.optimizers.state_dict(), "options": options}, part)
        part.replace(path)


class Log:
    """A run's log.csv, its TensorBoard events and its progress bar. Only the process of rank 0 writes."""

    NAMES = ("loss", "bpp", "distortion")

    def __init__(self, options: TrainOptions, rank: int, console: Console, start: int) -> None:
        self.path = options.out / "log.csv"
        self.events = SummaryWriter(str(options.out / "tensorboard")) if rank == 0 else None
        if not self.path.exists():
            self._row("step", *self.NAMES, "lr_factor", "steps_per_second")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console)
        self.task = self.bar.add_task("training", total=options.steps, completed=start)
        self.marked = time.monotonic()

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.events:
            self.events.close()

    def advance(self, done: int) -> None:
        """Move the bar to the number of steps done."""
        self.bar.update(self.task, completed=done)

    def restart_clock(self) -> None:
        """Leave out of the next speed what has passed since the last one."""
        self.marked = time.monotonic()

    def write(self, done: int, means: list[float], factor: float) -> None:
        """means: of loss, bpp and distortion over the last `LOG_EVERY` steps. factor: of the learning rates."""
        speed = LOG_EVERY / (time.monotonic() - self.marked)
        self.restart_clock()
        self._row(done, *(f"{v:.5g}" for v in (*means, factor, speed)))
        self.bar.update(self.task, description=f"loss {means[0]:.3f}  {speed:.1f} steps/s")
        if self.events:
            for name, value in zip(self.NAMES, means, strict=True):
                self.events.add_scalar(name, value, done)

    def _row(self, *values: object) -> None:
        if self.events:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow(values)


Tend = Callable[[FloatCodec, int], None]
"""Is given the codec in training and the number of steps done, every `LOG_EVERY` steps."""


def train(
    options: TrainOptions,
    build: Callable[[Photographs], FloatCodec] = lambda _: FloatCodec(),
    tend: Tend = lambda codec, step: None,
) -> Path:
    """Train, or resume `out/last.pt`; returns the path of the last checkpoint.

    build: makes the codec to start from, given the photographs, on which quantization calibrates. tend: may change the
    codec in place between steps. Writes out/last.pt, out/stable.pt (the state before the decay, from which a longer run
    continues), out/log.csv and TensorBoard events. Raises OSError on unusable data or folders.
    """
    torch.set_flush_denormal(True)  # of the whole process, so only while training
    try:
        with process_group() as (rank, world, device):
            return _train(options, build, tend, rank, world, device)
    finally:
        torch.set_flush_denormal(False)


def _train(
    options: TrainOptions,
    build: Callable[[Photographs], FloatCodec],
    tend: Tend,
    rank: int,
    world: int,
    device: torch.device,
) -> Path:
    console = Console(quiet=rank > 0)
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # y needs all digits of float32
    photographs = Photographs(options.data, options.crop, options.batch, options.seed, options.drawn)
    if options.kodak:
        list_photographs(options.kodak)  # to fail now, not at the first check
    torch.manual_seed(options.seed)
    codec = build(photographs).to(device)
    average = copy.deepcopy(codec).requires_grad_(False) if options.ema else codec
    optimizers = Optimizers(codec, options)
    checkpoint = Checkpoint(codec, average, optimizers, options)
    options.out.mkdir(parents=True, exist_ok=True)
    last = options.out / "last.pt"
    start = 0
    if last.exists():
        start = checkpoint.load(last, device)
        console.print(f"resumed {last} at step {start}")
    parallel: nn.Module = DistributedDataParallel(codec) if world > 1 else codec
    run = Step(codec, parallel, average, optimizers, options)

    def save(path: Path, done: int) -> None:
        if rank == 0:
            checkpoint.save(path, done)

    def report(what: str) -> None:
        if rank == 0 and options.kodak:
            for q, b, p in check(average, options.kodak, (10, 40, 70, 95)):
                console.print(f"{what}  quality {q:g}: {b:.4f} bpp  {p:.2f} dB")

    with Log(options, rank, console, start) as log, StopSignal() as stop:
        saved = checked = time.monotonic()
        steps = range(start, options.steps)
        for step, image in zip(steps, photographs.ahead(steps, rank, pin=device.type == "cuda"), strict=True):
            run(step, rank, image)
            done = step + 1
            log.advance(done)
            if done % LOG_EVERY == 0:
                tend(codec, done)
                log.write(done, run.means(LOG_EVERY), learning_rate_factor(step, options))
            if done == round(options.steps * (1 - options.decay)):
                save(options.out / "stable.pt", done)
            if stop.agreed(world, device):
                save(last, done)
                console.print(f"stopped; {last} is at step {done}")
                return last
            if time.monotonic() - saved > 60 * options.save_minutes:
                save(last, done)
                saved = time.monotonic()
            if options.kodak and time.monotonic() - checked > 60 * options.check_minutes:
                report(f"step {done}")
                log.restart_clock()
                checked = time.monotonic()
        save(last, max(start, options.steps))
    report("final")
    return last
