"""The command `pocketlic export`, which `export.py` launches too: write a bundle and prove it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ..codec.errors import PlicError
from ..codec.image import read_picture
from ..quantization.integer import ModelError, Profile, load_model
from .bundle import MODEL, Bundle, write_bundle
from .errors import ExportError
from .verify import Report, prove, require_tile

Target = Literal["tflite-int8", "tflite-float"]

TARGETS: dict[Target, str] = {
    "tflite-int8": "full-integer LiteRT networks with exactly the integers of the model",
    "tflite-float": "float LiteRT networks, for comparison; needs the package litert-torch",
}
SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def export(
    target: Annotated[Target, typer.Option(help="what to export, see --list")] = "tflite-int8",
    profile: Annotated[
        Profile, typer.Option(help="cpu: exact on CPUs; strict: on integer NPUs too, at some cost")
    ] = "cpu",
    tile: Annotated[
        int | None, typer.Option(help="fixed-shape networks for tiles of N x N pixels", metavar="N")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="photograph for the proof; default: a sample")] = None,
    quality: Annotated[float, typer.Option(help="of the proof, 0 to 100", min=0.0, max=100.0)] = 60.0,
    out: Annotated[
        Path | None, typer.Option(help="folder; an old bundle there is replaced; default: build/bundle")
    ] = None,
    list_targets: Annotated[bool, typer.Option("--list", help="show the targets and stop")] = False,
) -> None:
    """Export the codec as a bundle, and prove that its files and pixels equal the reference codec's.

    Exit code 1: they differ. Exit code 2: the export could not be made, with one line that says why.
    """
    if list_targets:
        for name, meaning in TARGETS.items():
            typer.echo(f"{name:14} {meaning}")
        return
    try:
        if target == "tflite-float":
            _export_float(out or Path("build/float"))
            return
        pixels = read_picture(image or _sample()).pixels
        require_tile(pixels, tile)
        bundle = write_bundle(load_model(_weights(profile)), out or Path("build/bundle"), tile)
        report = prove(bundle, pixels, quality)
    except (PlicError, ModelError) as error:
        typer.echo(f"export: {error}", err=True)
        raise typer.Exit(2) from None
    _print(bundle, report)
    if not (report.files_equal and report.pixels_equal):
        raise typer.Exit(1)


def _export_float(out: Path) -> None:
    try:
        from .tflite_float import write_float
    except ImportError as error:
        raise ExportError(f"this target needs the package {error.name}: pip install 'pocketlic[export]'") from None
    for path in write_float(_weights("float"), out):
        typer.echo(f"wrote {path}")


def _weights(kind: str) -> Path:
    name = f"pocketlic-{kind}.safetensors"
    path = resources.files("pocketlic.models") / "weights" / name
    if not path.is_file():
        raise ExportError(f"this installation has no weights {name}")
    return Path(str(path))


def _sample() -> Path:
    photos = sorted(SAMPLES.glob("*.jpg"))
    if not photos:
        raise ExportError("this installation has no sample photograph; name one with --image")
    return photos[0]


def _print(bundle: Bundle, report: Report) -> None:
    table = Table("file")
    for heading in ("KB", "MAC/pixel", "ms"):
        table.add_column(heading, justify="right")
    macs = bundle.manifest["mac_per_pixel"]
    outside = sum(macs[name] for name in bundle.model.projections)
    for name, entry in bundle.manifest["files"].items():
        network = name.removesuffix(".tflite")
        cost = entry.get("mac_per_pixel", outside if name == MODEL else 0.0)
        time = f"{report.milliseconds[network]:.2f}" if network in report.milliseconds else ""
        table.add_row(name, f"{entry['bytes'] / 1000:.1f}", f"{cost:.0f}", time)
    Console().print(table)
    typer.echo(
        f"{report.bpp:.3f} bpp, PSNR {report.psnr:.2f} dB, encode {macs['encode'] / 1000:.2f} and decode "
        f"{macs['decode'] / 1000:.2f} kMAC/pixel, files equal: {'yes' if report.files_equal else 'no'}, "
        f"pixels equal: {'yes' if report.pixels_equal else 'no'}"
    )
