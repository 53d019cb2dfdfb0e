"""The command `pocketlic export`, which `export.py` launches too: write a bundle and prove it."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ..codec.image import read_picture
from ..console import one_line_errors
from ..models import Tune
from ..quantization.errors import Rule
from ..quantization.model import IntegerModel
from ..quantization.shipped import DEFAULT_QUALITY, shipped_model
from .bundle import MODEL, Bundle, open_bundle, write_bundle
from .errors import ExportError
from .prove import Report, prove, require_tile
from .targets import DEFAULT_TILE, SAMPLES, TARGETS, find, missing

FLOAT: Final = "tflite-float"


def export(
    target: Annotated[str, typer.Option(help="what to export: see --list")] = "tflite-int8",
    rule: Annotated[
        Rule,
        typer.Option("--rule", "--profile", help="cpu: exact on CPUs; strict: on integer NPUs too, at a higher rate"),
    ] = "cpu",
    tile: Annotated[
        int | None, typer.Option(help="make fixed-shape networks, for tiles of N x N pixels", metavar="N")
    ] = None,
    tune: Annotated[
        Tune | None, typer.Option(help="what the weights are trained for; default: visual, or psnr with rule strict")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="photograph for the proof; default: a sample")] = None,
    quality: Annotated[
        float, typer.Option(help="quality of the proof, 0 to 100; its model is exported", min=0.0, max=100.0)
    ] = DEFAULT_QUALITY,
    out: Annotated[
        Path | None, typer.Option(help="output folder; replaces an old bundle there; default: build/bundle")
    ] = None,
    list_targets: Annotated[bool, typer.Option("--list", help="show the targets and stop")] = False,
    operators: Annotated[
        Path | None, typer.Option(help="show the operators of the bundle in this folder and stop", metavar="BUNDLE")
    ] = None,
) -> None:
    """Export the codec as a bundle, and prove that its files and pixels equal the reference codec's.

    Exit code 1: they differ. Exit code 2: the export could not be made, with one line that says why.
    """
    with one_line_errors("export", program="export"):
        if list_targets:
            _list()
        elif operators is not None:
            _operators(open_bundle(operators))
        elif target == FLOAT:
            _export_float(out or Path("build/float"))
        else:
            _export(target, shipped_model(rule, tune, quality), tile, image, quality, out or Path("build/bundle"))


def _export(target: str, model: IntegerModel, tile: int | None, image: Path | None, quality: float, out: Path) -> None:
    pixels = read_picture(image or _sample()).pixels
    kind = find(target)
    require_tile(pixels, DEFAULT_TILE if kind.fixed and tile is None else tile)
    bundle = write_bundle(model, out, tile, target)
    lacking = missing(kind.to_run)
    report = None if lacking else prove(bundle, pixels, quality)
    _print(bundle, report)
    if report is None:
        typer.echo(f"pixels equal: not proved, running it needs {', '.join(lacking)}")
    elif not (report.files_equal and report.pixels_equal):
        raise typer.Exit(1)


def _list() -> None:
    table = Table("target", "what it is", "builds here", "runs here")
    for name, target in TARGETS.items():
        states = []
        for needs in (target.to_build, target.to_run):
            lacking = missing(needs)
            states.append(f"needs {', '.join(lacking)}" if lacking else "yes")
        table.add_row(name, target.meaning, *states)
    lacks = [f"the package {module}" for module in ("torch", "litert_torch") if find_spec(module) is None]
    table.add_row(
        FLOAT, "float LiteRT networks, for comparison", f"needs {', '.join(lacks)}" if lacks else "yes", "not a bundle"
    )
    console = Console()
    if not console.is_terminal:
        console.width = 180  # a file takes wide tables
    console.print(table)


def _operators(bundle: Bundle) -> None:
    from .operators import operators

    for name, rows in operators(bundle).items():
        table = Table("operator", "output", title=name)
        for heading in ("MAC", "bytes"):
            table.add_column(heading, justify="right")
        table.add_column("runs on")
        for row in rows:
            table.add_row(row.kind, row.output, f"{row.macs:,}", f"{row.bytes:,}", row.backend)
        table.add_section()
        table.add_row("", "", f"{sum(r.macs for r in rows):,}", f"{sum(r.bytes for r in rows):,}", "")
        Console().print(table)


def _export_float(out: Path) -> None:
    from .tflite_float import write_float

    for path in write_float(_float_weights(), out):
        typer.echo(f"wrote {path}")


def _float_weights() -> Path:
    name = "pocketlic-float.safetensors"
    path = resources.files("pocketlic.models") / "weights" / name
    if not path.is_file():
        raise ExportError(f"this installation has no weights {name}")
    return Path(str(path))


def _sample() -> Path:
    photos = sorted(SAMPLES.glob("*.jpg"))
    if not photos:
        raise ExportError("this installation has no sample photograph; name one with --image")
    return photos[0]


def _print(bundle: Bundle, report: Report | None) -> None:
    table = Table("file")
    for heading in ("KB", "MAC/pixel", "ms"):
        table.add_column(heading, justify="right")
    macs = bundle.manifest["mac_per_pixel"]
    outside = sum(macs[name] for name in bundle.model.projections)
    milliseconds = report.milliseconds if report else {}
    for name, entry in bundle.manifest["files"].items():
        network = name.removesuffix(TARGETS[bundle.target].suffix)
        cost = entry.get("mac_per_pixel", outside if name == MODEL else 0.0)
        time = f"{milliseconds[network]:.2f}" if network in milliseconds else ""
        table.add_row(name, f"{entry['bytes'] / 1000:.1f}", f"{cost:.0f}", time)
    Console().print(table)
    typer.echo(f"runs under: {TARGETS[bundle.target].runtime}")
    cost = f"encode {macs['encode'] / 1000:.2f} and decode {macs['decode'] / 1000:.2f} kMAC/pixel"
    if report is None:
        typer.echo(cost)
        return
    typer.echo(
        f"{report.bpp:.3f} bpp, PSNR {report.psnr:.2f} dB, {cost}, "
        f"files equal: {'yes' if report.files_equal else 'no'}, "
        f"pixels equal: {'yes' if report.pixels_equal else 'no'}"
    )
