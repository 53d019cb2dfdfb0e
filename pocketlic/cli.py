"""The command line: `pocketlic SUBCOMMAND`.

Errors a user can cause end in one line on standard error and exit code 2.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import PlicError, PlicWarning, Runtime, shipped_model
from . import decode as decode_bytes
from . import encode as encode_pixels
from .codec import format as plic
from .codec.codec import STRIDE
from .codec.image import Picture, read_picture, write_atomic, write_picture
from .export.cli import export
from .models import Tune
from .profiling.cli import profile_app
from .quantization.network import RULES, ModelError, Rule
from .quantization.shipped import DEFAULT_QUALITY

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A learned image codec."
)
app.command()(export)
app.add_typer(profile_app, name="profile")

TUNE_HELP = "what weights are trained for"
CHOICE_HELP = f"{TUNE_HELP}; default: visual, with rule strict psnr"
RuleOption = Annotated[
    Rule, typer.Option("--rule", "--profile", help="cpu: exact on CPU runtimes; strict: on integer NPUs too")
]


@contextmanager
def one_line_errors(extra: str = "train") -> Iterator[None]:
    """Print what a user did wrong, or lacks, as one line and exit with 2; `extra` has what may be missing.

    A PlicWarning is printed as one line too.
    """
    try:
        with warnings.catch_warnings():
            show_others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
                if issubclass(category, PlicWarning):
                    typer.echo(f"pocketlic: warning: {message}", err=True)
                else:
                    show_others(message, category, *place)

            warnings.simplefilter("always", PlicWarning)
            warnings.showwarning = show
            yield
    except ImportError as error:
        if not error.name or error.name.startswith("pocketlic"):
            raise
        typer.echo(f"pocketlic: this needs the package {error.name}: pip install 'pocketlic[{extra}]'", err=True)
        raise typer.Exit(2) from None
    except (PlicError, ModelError, OSError, MemoryError) as error:
        typer.echo(f"pocketlic: {error or type(error).__name__}", err=True)
        raise typer.Exit(2) from None


def read_plic(path: Path) -> bytes:
    """The bytes of a file; PlicError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlicError(f"cannot read {path}: {error.strerror}") from None


@app.command()
def encode(
    picture: Path,
    out: Path,
    quality: Annotated[float | None, typer.Option(min=0.0, max=100.0, help="60 if no size is given")] = None,
    bpp: Annotated[float | None, typer.Option(help="instead of a quality: bits per pixel, met within 1 %")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="instead of a quality: the most the file may have")] = None,
    effort: Annotated[
        int,
        typer.Option(
            min=0, max=9, help="time spent on a smaller file; needs torch, but 1 and 2 with --tune psnr do without"
        ),
    ] = 0,
    rule: RuleOption = "cpu",
    tune: Annotated[Tune | None, typer.Option(help=CHOICE_HELP)] = None,
    runtime: Annotated[Runtime, typer.Option(help="what runs the networks; the result is the same")] = "litert",
) -> None:
    """Encode a picture file as .plic; ICC profile and EXIF are kept, EXIF orientation is applied."""
    with one_line_errors():
        source = read_picture(picture)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("encoding", total=1.0, visible=False)
            data = encode_pixels(
                source.pixels, quality, bpp=bpp, max_bytes=max_bytes, effort=effort, rule=rule, tune=tune,
                runtime=runtime, icc=source.icc, exif=source.exif,
                progress=lambda part: bar.update(task, completed=part, visible=True),
            )  # fmt: skip
        write_atomic(out, data)
        height, width = source.pixels.shape[:2]
        typer.echo(f"{out}: {len(data)} bytes, {len(data) * 8 / (height * width):.3f} bpp")


@app.command()
def decode(
    file: Path,
    out: Path,
    runtime: Annotated[Runtime, typer.Option(help="what runs the networks; the result is the same")] = "litert",
    max_pixels: Annotated[int, typer.Option(help="refuse files that claim more")] = plic.DEFAULT_MAX_PIXELS,
) -> None:
    """Decode a .plic file to .png, .tif, .ppm, .jpg, .webp, .avif or another format of Pillow."""
    with one_line_errors():
        data = read_plic(file)
        pixels = decode_bytes(data, runtime=runtime, max_pixels=max_pixels)
        content = plic.read(data, max_pixels)
        write_picture(out, Picture(pixels, content.icc, content.exif))


@app.command()
def info(file: Path, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Describe a .plic file without decoding it."""
    with one_line_errors():
        data = read_plic(file)
        content = plic.read(data, max_pixels=plic.MAX_SIDE**2)
        header = content.header
        facts: dict[str, object] = {
            "version": plic.VERSION,
            "width": header.width,
            "height": header.height,
            "components": 1 if header.grey else 3,
            "quality": header.quality_hundredths / 100,
            "model_id": header.model_id.hex(),
            "bytes": len(data),
            "bpp": len(data) * 8 / (header.width * header.height),
            "band_bytes": [len(part) for part in content.bands],
            "icc_bytes": len(content.icc),
            "exif_bytes": len(content.exif),
        }
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            for name, value in facts.items():
                typer.echo(f"{name:12} {value}")


@app.command()
def complexity(
    rule: RuleOption = "cpu",
    tune: Annotated[Tune | None, typer.Option(help=CHOICE_HELP)] = None,
    quality: Annotated[float, typer.Option(min=0.0, max=100.0, help="whose model it is")] = DEFAULT_QUALITY,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Count the multiply-accumulates per pixel of encoding and decoding, as the shipped networks run."""
    from .codec.complexity import VMUC_KMAC_PER_PIXEL, count

    with one_line_errors():
        result = count(shipped_model(rule, tune, quality))
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    table = Table("component", "runs in", "MAC/pixel", "parameters")
    for name, part in result.components.items():
        sides = " ".join(side for side in ("encode", "decode") if part[f"{side}s"])
        table.add_row(name, sides, f"{1000 * part['kmac_per_pixel']:.1f}", f"{part['parameters']:,}")
    Console().print(table)
    for side, kmac, ratio in (
        ("decode", result.decode_kmac_per_pixel, result.decode_ratio_to_vmuc),
        ("encode", result.encode_kmac_per_pixel, result.encode_ratio_to_vmuc),
    ):
        typer.echo(f"{side} {kmac:.3f} kMAC/pixel, 1/{ratio:.1f} of VMuC's {VMUC_KMAC_PER_PIXEL:g}")


def multiple_of_stride(pixels: int) -> int:
    """Refuse, as typer's callback, sides of crops that the networks cannot take."""
    if pixels < 1 or pixels % STRIDE:
        raise typer.BadParameter(f"{pixels} is not a multiple of {STRIDE}")
    return pixels


Data = Annotated[Path, typer.Option(help="folder of photographs, searched recursively")]
Out = Annotated[Path, typer.Option(help="folder for checkpoints and logs; resumed when it has a checkpoint")]
Kodak = Annotated[Path | None, typer.Option(help="folder of evaluation pictures for periodic checks")]
Threads = Annotated[int, typer.Option(help="CPU threads, 0 for torch's choice")]
Decay = Annotated[float, typer.Option(min=0, max=1, help="final part of the steps, where rates fall to 0")]
Steps = Annotated[int, typer.Option(min=1, help="where training ends, counted from its start")]
Batch = Annotated[int, typer.Option(min=1, help="crops per step and process")]
Crop = Annotated[int, typer.Option(callback=multiple_of_stride, help="side of the crops, a multiple of 64")]
Minutes = Annotated[float, typer.Option(help="minutes between checkpoints")]


@app.command()
def train(
    data: Data,
    out: Out,
    weights: Annotated[
        Path | None, typer.Option(help="start from float weights (.pt, .safetensors), not from noise")
    ] = None,
    steps: Steps = 100_000,
    batch: Batch = 16,
    crop: Crop = 256,
    muon_lr: float = 0.01,
    adam_lr: float = 2.5e-3,
    decay: Decay = 0.6,
    tune: Annotated[Tune, typer.Option(help=TUNE_HELP)] = "psnr",
    seed: int = 0,
    threads: Threads = 0,
    bf16: bool = True,
    kodak: Kodak = None,
    save_minutes: Minutes = 5.0,
) -> None:
    """Train the float codec, or resume; also under torchrun. Stop with Ctrl-C: the state is saved."""
    with one_line_errors():
        from .models.train import TrainOptions
        from .models.train import train as run

        options = TrainOptions(
            data,
            out,
            steps,
            batch,
            crop,
            muon_lr,
            adam_lr,
            decay=decay,
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
            from .quantization.qat import load_float

            start = load_float(weights)
            run(options, lambda _: start)


@app.command()
def qat(
    weights: Annotated[Path, typer.Option(help="float weights (.pt, .safetensors), or an integer model to train on")],
    data: Data,
    out: Out,
    rule: RuleOption = "cpu",
    steps: Steps = 8000,
    batch: Batch = 8,
    crop: Crop = 256,
    muon_lr: float = 0.002,
    adam_lr: float = 2e-4,
    decay: Decay = 0.9,
    tune: Annotated[Tune, typer.Option(help=TUNE_HELP)] = "psnr",
    qualities: Annotated[tuple[float, float], typer.Option(help="the least and the greatest it is for")] = (0, 100),
    seed: int = 1,
    threads: Threads = 0,
    kodak: Kodak = None,
    save_minutes: Minutes = 5.0,
) -> None:
    """Train weights for integers, or resume; writes the integer model OUT/model.safetensors."""
    with one_line_errors():
        from .codec.calibrate import calibrate, sample
        from .export.litert import LiteRTExecutor
        from .models.train import TrainOptions
        from .quantization.model import load_model
        from .quantization.qat import qat as run

        low, high = qualities
        if not 0 <= low < high <= 100:
            raise PlicError(f"qualities are two from 0 to 100, the lesser first, not {low:g} and {high:g}")
        options = TrainOptions(
            data, out, steps, batch, crop, muon_lr, adam_lr, decay=decay, seed=seed, threads=threads,
            ema=0.0, bf16=False, relu_leak=0.0, tune=tune, qualities=qualities, kodak=kodak, save_minutes=save_minutes,
        )  # fmt: skip
        run(options, weights, rule)
        path = out / "model.safetensors"
        model = load_model(path)
        calibrated = calibrate(model, sample(data), LiteRTExecutor.from_model(model), qualities)
        write_atomic(path, calibrated.to_bytes())


@app.command()
def evaluate(
    images: Annotated[Path, typer.Argument(help="folder of pictures")],
    out: Annotated[Path, typer.Option(help="folder for files and results; what it has already is not redone")],
    qualities: Annotated[str, typer.Option(help="of Pocketlic, 0 to 100")] = "0,10,25,40,55,70,85,95,100",
    rule: RuleOption = "cpu",
    tune: Annotated[str | None, typer.Option(help=f"{CHOICE_HELP}; both with a comma")] = None,
    model: Annotated[Path | None, typer.Option(help="an integer model file instead of the rule's")] = None,
    effort: Annotated[str, typer.Option(help="of Pocketlic, 0 to 9; a curve for each")] = "0",
    verify: Annotated[bool, typer.Option("--verify", help="repeat with the NumPy reference; slow")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="processes of one thread each")] = 1,
    codecs: Annotated[str, typer.Option(help="names separated by commas, or all")] = "pocketlic",
    metrics: Annotated[str, typer.Option(help="names separated by commas, jpeg-ai, or all")] = "rgb_psnr,yuv_psnr",
    vvc: Annotated[Path | None, typer.Option(help="folder of VVC streams NAME_qpQP.266 to compare with")] = None,
    anchor: Annotated[
        str | None, typer.Option(help="codec that the others' BD-rates are against; vvc if there")
    ] = None,
) -> None:
    """Measure rate and distortion of codecs on pictures: real files, curves and BD-rates.

    Exit code 1: Pocketlic's files are off their estimated entropy, or not equal to the reference's.
    """
    with one_line_errors("profile"):
        from .profiling.evaluation.codecs import parse_codecs
        from .profiling.evaluation.metrics import parse_metrics
        from .profiling.evaluation.rate_distortion import evaluate as run
        from .profiling.evaluation.report import print_tables, write_json, write_page, write_plots

        chosen = parse_codecs(codecs, qualities, effort, rule, model, vvc, tune)
        evaluation = run(images, chosen, out, parse_metrics(metrics), jobs=jobs, verify=verify, anchor=anchor)
        write_json(evaluation, out / "evaluation.json")
        write_plots(evaluation, out)
        write_page(evaluation, images, chosen, out, jobs)
        console = Console()
        if not console.is_terminal:
            console.width = 160  # a file takes wide tables
        print_tables(evaluation, console)
    if evaluation.off_entropy or evaluation.unequal:
        raise typer.Exit(1)


@app.command()
def verify(
    bundle: Annotated[Path | None, typer.Argument(help="folder of a bundle, to verify its model and files")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all hashes there")] = None,
    only: Annotated[list[str] | None, typer.Option(help="run cells with this in their name; may be repeated")] = None,
    arm64: Annotated[
        Path | None, typer.Option(help="folder with Debian for arm64; made there, by mmdebstrap, if it is not")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="cells at a time")] = 1,
) -> None:
    """Decode the conformance vectors with every compiler, instruction set and runtime that can be found.

    Without a bundle: the shipped models, and two of extreme values. Exit code 1: a cell differs or failed.
    """
    with one_line_errors("executorch"):
        from .export.bundle import open_bundle
        from .profiling.conformance import matrix
        from .profiling.conformance.vectors import extreme_model

        opened = open_bundle(bundle) if bundle is not None else None
        if opened is not None:
            models = {"bundle": opened.model}
        else:
            models = {name: shipped_model(name) for name in RULES}
            models |= {f"extreme-{name}": extreme_model(name) for name in RULES}
        console = Console()
        table = Table("cell", "outcome", "vectors", "symbols differ", "pixels differ", "seconds", "why")
        if not console.is_terminal:
            console.width = 160  # a file takes wide tables

        def add(result: matrix.Result) -> None:
            counts = (result.vectors, result.symbol_mismatches, result.pixel_mismatches)
            table.add_row(result.name, result.outcome, *map(str, counts), f"{result.seconds:.1f}", result.note)
            if console.is_terminal:
                console.print(f"{result.outcome:8} {result.name}", highlight=False)

        done = matrix.verify(models, opened, arm64, tuple(only or ()), jobs, add)
        console.print(table)
        typer.echo(f"{done.ran} of {len(done.results)} cells ran, {done.bad} differ or failed")
        if json_file is not None:
            write_atomic(json_file, (json.dumps(done.to_json(), indent=1) + "\n").encode())
    if done.bad or not done.ran:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
