"""Training of the float codec: rate-distortion loss at random qualities, Muon for matrices, else Adam.

A step depends only on the weights, the optimizer and the step's number (crops, qualities and noise are drawn
from generators seeded by it), so a run that is stopped and resumed takes exactly the steps it would have
taken.
"""

from __future__ import annotations

import copy
import csv
import ctypes
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from . import Tune
from .data import Photographs, list_photographs
from .layers import leaky_gradient
from .network import Codec, Coded, pad_to_stride, rate_weight
from .perceptual import visual_bits

LOG_EVERY = 50
# Weights for the eye see more of the low qualities, where most of its metrics' ranges lie: the last weighs so much.
VISUAL_EMPHASIS = 0.4
# Their loss is the logarithm of a crop's cost, as a mean of pictures' BD-rates counts what changes in relation to each
# picture's own rate; with a third of the mean cost added, so that empty skies do not take over.
LEAST_COST = 0.3


@dataclass
class TrainOptions:
    """What a run is told. Lengths are in steps; in the final part `decay` of them the rates fall to 0."""

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
    again: int = 0  # crops of each batch that the codec has coded once before it sees them
    seed: int = 0
    threads: int = 0
    bf16: bool = True
    kodak: Path | None = None
    save_minutes: float = 5.0
    check_minutes: float = 20.0


def learning_rate_factor(step: int, options: TrainOptions) -> float:
    """Warm-up, stable, decay: linear up, 1, linear down to 0 at the end. More `steps` extend the middle."""
    left = options.steps - step
    return min(1.0, (step + 1) / options.warmup, left / max(1.0, options.decay * options.steps))


def rate_distortion(coded: Coded, image: Tensor, quality: Tensor, tune: Tune = "psnr") -> tuple[Tensor, Tensor, Tensor]:
    """(loss, bpp, distortion in 8-bit squared steps), the loss a scalar and the others [B].

    bpp + weight * distortion grows with the square root of the weight; dividing by it gives every quality an
    equal say in relative terms, which is what a BD-rate measures. For the eye the distortion is what squared steps
    would have to be for `rate_weight` to make `perceptual.visual_bits` of them, and every crop has its say in
    relative terms.
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
    """Per quality: (quality, mean estimated bpp, mean RGB-PSNR in dB) over the pictures of a folder."""
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
    """Muon for the 1x1 convolutions' matrices, Adam for everything else, one schedule."""

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
        """Let a CUDA graph hold the step: Adam then counts on the GPU, Muon does not mind."""
        capturable = self.parameters[0].is_cuda
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["capturable"] = capturable
        for state in self.adam.state.values():
            state["step"] = state["step"].to(self.parameters[0].device if capturable else "cpu")

    @torch.no_grad()
    def step(self, factor: Tensor) -> None:
        """One step at `factor` (a scalar on the parameters' device) times the full learning rates.

        Both optimizers' updates are proportional to their rates, so scaling the update is scaling the rate.
        """
        values = [p.detach() for p in self.parameters]
        moved = [p.clone() for p in values]
        self.muon.step()  # type: ignore[no-untyped-call]
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
    """One step of training, by its number: gradients, optimizers, moving average, sums for the log.

    On a GPU it is captured once as a CUDA graph and replayed: a network this small is thousands of short
    kernels, whose launches would otherwise take nearly all of the time.
    """

    WARM_UP = 3  # steps before the capture, in which the optimizers make their state

    def __init__(
        self, codec: Codec, parallel: nn.Module, average: Codec, optimizers: Optimizers, options: TrainOptions
    ) -> None:
        self.codec, self.parallel, self.average = codec, parallel, average
        self.optimizers, self.options = optimizers, options
        self.device = next(codec.parameters()).device
        self.sums = torch.zeros(3, device=self.device)  # of loss, bpp and distortion
        # Inputs: the graph reads them where they are.
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
        # Everything random in a step comes from its number.
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
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run()
            torch.cuda.current_stream().wait_stream(stream)
        else:
            self.codec.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            # Meanwhile other threads pin memory.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._run()
            self.graph.replay()
        self.runs += 1

    def _run(self) -> None:
        image = self.image.float() / 255.0
        quality, (factor, average_rate, leak) = self.numbers[:-3], self.numbers[-3:]
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16, cache_enabled=False)
        if again := self.options.again:  # so that a picture settles when it is coded again and again
            with autocast, torch.no_grad():
                decoded = self.codec(image[:again], quality[:again]).reconstruction
            image[:again] = (decoded.clamp(0, 1) * 255).round() / 255
        with autocast, leaky_gradient(leak):
            coded = self.parallel(image, quality)
        loss, bpp, distortion = rate_distortion(coded, image, quality, self.options.tune)
        self.codec.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
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


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """torch.save beside the target, then rename: a run killed while saving keeps its last checkpoint."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks: by default each big tensor's pages are mapped, and fault, anew."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # not glibc: nothing to tune
        pass


class StopSignal:
    """While entered, turns the first SIGINT or SIGTERM into a request to stop at the end of the step."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> StopSignal:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def agreed(self, world: int, device: torch.device) -> bool:
        """Whether any process has been asked to stop: all must leave at the same step, or those left hang."""
        if world == 1:
            return self.received
        flag = torch.tensor(float(self.received), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        signal.signal(number, signal.SIG_DFL)


def accelerator() -> torch.device:
    """The GPU of this process, or the CPU."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def process_group() -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world size, device); joins torchrun's group when started by it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, device = int(os.environ.get("RANK", "0")), accelerator()
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield rank, world, device
    finally:
        if world > 1:
            dist.destroy_process_group()


Tend = Callable[[Codec, int], None]
"""Is given the codec in training and the number of steps done, every `LOG_EVERY` steps."""


def train(
    options: TrainOptions,
    build: Callable[[Photographs], Codec] = lambda _: Codec(),
    tend: Tend = lambda codec, step: None,
) -> Path:
    """Train, or resume `out/last.pt`; returns the path of the last checkpoint.

    `build` makes the codec to start from, given the photographs (which quantization calibrates on); `tend` may change
    it in between, in place. Writes
    out/last.pt, out/stable.pt (the state before the decay, from which a longer run continues), out/log.csv
    and TensorBoard events. Raises OSError on unusable data or folders.
    """
    with process_group() as (rank, world, device):
        return _train(options, build, tend, rank, world, device)


def _train(
    options: TrainOptions,
    build: Callable[[Photographs], Codec],
    tend: Tend,
    rank: int,
    world: int,
    device: torch.device,
) -> Path:
    console = Console(quiet=rank > 0)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # the latents need their digits
    photographs = Photographs(options.data, options.crop, options.batch, options.seed, options.drawn)
    torch.manual_seed(options.seed)
    codec = build(photographs).to(device)
    average = copy.deepcopy(codec).requires_grad_(False) if options.ema else codec
    optimizers = Optimizers(codec, options)
    options.out.mkdir(parents=True, exist_ok=True)
    last = options.out / "last.pt"
    start = 0
    if last.exists():
        try:
            state = torch.load(last, map_location=device, weights_only=True)
            codec.load_state_dict(state["codec"])
            if average is not codec:
                average.load_state_dict(state["average"])
            optimizers.load_state_dict(state["optimizers"])
            start = state["step"]
        except (RuntimeError, EOFError, LookupError, TypeError, ValueError, UnpicklingError) as error:
            raise OSError(f"cannot resume {last}: damaged, or of another kind of run") from error
        console.print(f"resumed {last} at step {start}")
    parallel: nn.Module = DistributedDataParallel(codec) if world > 1 else codec
    run = Step(codec, parallel, average, optimizers, options)

    def save(path: Path, step: int) -> None:
        if rank == 0:
            content = {"codec": codec.state_dict(), "average": average.state_dict(), "step": step}
            described = {k: str(v) for k, v in asdict(options).items()}
            save_checkpoint(path, {**content, "optimizers": optimizers.state_dict(), "options": described})

    log_path = options.out / "log.csv"
    fresh = not log_path.exists()
    writer = SummaryWriter(str(options.out / "tensorboard")) if rank == 0 else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Path(log_path if rank == 0 else os.devnull).open("a", newline="") as log,
        Progress(*columns, console=console) as bar,
        StopSignal() as stop,
    ):
        table = csv.writer(log)
        if fresh:
            table.writerow(["step", "loss", "bpp", "distortion", "lr_factor", "steps_per_second"])
        task = bar.add_task("training", total=options.steps, completed=start)
        saved = checked = marked = time.monotonic()
        steps = range(start, options.steps)
        for step, image in zip(steps, photographs.ahead(steps, rank, pin=device.type == "cuda"), strict=True):
            run(step, rank, image)
            done = step + 1
            bar.update(task, completed=done)
            if done % LOG_EVERY == 0:
                tend(codec, done)
                means = [value / LOG_EVERY for value in run.sums.tolist()]
                run.sums.zero_()
                now = time.monotonic()
                speed, marked = LOG_EVERY / (now - marked), now
                factor = learning_rate_factor(step, options)
                table.writerow([done, *(f"{v:.5g}" for v in (*means, factor, speed))])
                log.flush()
                bar.update(task, description=f"loss {means[0]:.3f}  {speed:.1f} steps/s")
                if writer:
                    for name, value in zip(("loss", "bpp", "distortion"), means, strict=True):
                        writer.add_scalar(name, value, done)
            if done == round(options.steps * (1 - options.decay)):
                save(options.out / "stable.pt", done)
            if stop.agreed(world, device):
                save(last, done)
                console.print(f"stopped; {last} is at step {done}")
                return last
            if time.monotonic() - saved > 60 * options.save_minutes:
                save(last, done)
                saved = time.monotonic()
            if rank == 0 and options.kodak and time.monotonic() - checked > 60 * options.check_minutes:
                for q, b, p in check(average, options.kodak, (10, 40, 70, 95)):
                    console.print(f"step {done}  quality {q:g}: {b:.4f} bpp  {p:.2f} dB")
                checked = marked = time.monotonic()
        save(last, max(start, options.steps))
    if rank == 0 and options.kodak:
        for q, b, p in check(average, options.kodak, (10, 40, 70, 95)):
            console.print(f"final  quality {q:g}: {b:.4f} bpp  {p:.2f} dB")
    return last
