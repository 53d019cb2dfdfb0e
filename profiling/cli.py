"""The commands `pocketlic profile`, `pocketlic profile compare` and `pocketlic profile codecs`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..codec.errors import PlicError
from ..codec.files import refuse_input, write_atomic
from ..console import one_line_errors, printable, table_console
from ..models import Tune
from ..quantization.errors import Rule
from .console import print_table

if TYPE_CHECKING:
    from .device.results import Report

TIMED_CODECS = "jpeg,webp,webp-method-0,avif,avif-speed-10,jxl,jxl-effort-1,jxl-effort-3,heic"

profile_app = typer.Typer(
    invoke_without_command=True, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Measure a bundle on this machine or on phones: latency, memory, energy, determinism.",
)  # fmt: skip


def _sizes(text: str) -> list[tuple[int, int]]:
    try:
        sizes = [(int(w), int(h)) for w, h in (part.split("x") for part in text.split(","))]
    except ValueError:
        sizes = []
    if not sizes or any(side < 1 for size in sizes for side in size):
        raise PlicError(f"{text} is not a list of sizes, such as 768x512,1920x1080")
    return sizes


@profile_app.callback()
def profile(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option(help="folder that export wrote")] = None,
    out: Annotated[Path, typer.Option(help="folder for profile.json, .md and .html")] = Path("build/profile"),
    device: Annotated[str, typer.Option(help="host, adb, adb:SERIAL, or all phones")] = "host",
    images: Annotated[Path | None, typer.Option(help="folder of pictures; default: a sample in three sizes")] = None,
    sizes: Annotated[str, typer.Option(help="of the sample")] = "768x512,1920x1080,4032x3024",
    runs: Annotated[int, typer.Option(min=1, help="timed runs, after 3 warm-ups")] = 20,
    quality: Annotated[float, typer.Option(min=0, max=100, help="of the pictures")] = 60.0,
    threads: Annotated[int, typer.Option(min=1, help="of LiteRT, ONNX Runtime, or the native core on a phone")] = 1,
    plic: Annotated[Path | None, typer.Option(help="the native core's program for the phone; else built")] = None,
    benchmark_model: Annotated[Path | None, typer.Option(help="LiteRT's benchmark_model for the phone")] = None,
    vectors: Annotated[Path | None, typer.Option(help="folder of conformance vectors to run on the phone")] = None,
    allow_hot: Annotated[bool, typer.Option("--allow-hot", help="measure a hot or throttled device, flagged")] = False,
) -> None:
    """Measure a bundle: latency by stage, memory, energy and determinism.

    Exit code 1: a result differs from the reference. Exit code 2: not measured, with one line that says why.
    """
    if context.invoked_subcommand:
        return
    with one_line_errors("profile", program="profile"):
        from ..export.bundle import open_bundle
        from ..export.targets import SAMPLES
        from .device.devices import find_devices
        from .device.profiler import profile as run
        from .device.protocol import Protocol, Tools, subjects
        from .device.report import write_reports

        if bundle is None:
            raise PlicError("say which bundle: --bundle FOLDER")
        for file in (plic, benchmark_model):
            if file is not None and not file.is_file():
                raise PlicError(f"cannot read {file}: no such file")
        opened = open_bundle(bundle)
        devices = find_devices(device)
        samples = sorted(SAMPLES.glob("*.jpg"))
        if images is None and not samples:
            raise PlicError("this installation has no sample photograph; name a folder with --images")
        console = table_console(stderr=True)
        with tempfile.TemporaryDirectory() as work:
            pictures = subjects(images, samples[0] if samples else Path(), Path(work), _sizes(sizes))
            tools = Tools(plic, benchmark_model, vectors)
            protocol = Protocol(quality, runs, threads, tools, allow_hot)
            report = run(devices, opened, pictures, protocol, console)
        paths = write_reports(report, out)
    _print(report)
    typer.echo(f"wrote {', '.join(str(path) for path in paths)}")
    exact = [run["determinism"].get("equal", True) for device in report["devices"] for run in device["runs"]]
    exact += [device["vectors"].get("equal", True) for device in report["devices"] if "vectors" in device]
    if not all(exact):
        raise typer.Exit(1)


@profile_app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="profile.json to compare with")],
    after: Annotated[Path, typer.Argument(help="profile.json to judge")],
    fail_over: Annotated[str, typer.Option(help="how much a total may rise")] = "5%",
    anyway: Annotated[bool, typer.Option("--anyway", help="compare profiles of unlike measurements too")] = False,
    html: Annotated[Path | None, typer.Option(help="write one page of both")] = None,
) -> None:
    """Compare two profiles. Exit code 1: something rose by more than allowed, or gives other bits.

    Profiles of other settings, bundles or devices are refused: their figures do not tell what changed.
    """
    with one_line_errors("profile", program="profile"):
        from .device.compare import compare as run
        from .device.compare import parse_percent
        from .device.report import page, read_report

        if html is not None:
            refuse_input(html, [before, after])
        reports = [read_report(before), read_report(after)]
        result = run(reports[0], reports[1], parse_percent(fail_over))
        if result.differences and not anyway:
            unlike = "; ".join(map(printable, result.differences))
            raise PlicError(f"the two profiles are not alike: {unlike}; --anyway compares them all the same")
        if html is not None:
            write_atomic(html, page(reports, result))
    for line in result.differences:
        typer.echo(f"NOT ALIKE {printable(line)}")
    print_table(result.table)
    for line in result.mismatches:
        typer.echo(f"MISMATCH {printable(line)}")
    typer.echo(result.verdict)
    if result.failed:
        raise typer.Exit(1)


@profile_app.command("codecs")
def codecs(
    images: Annotated[Path, typer.Argument(help="folder of pictures")],
    out: Annotated[Path, typer.Option(help="folder for codecs.json and codecs.md")] = Path("build/codecs"),
    quality: Annotated[float, typer.Option(min=0, max=100, help="of Pocketlic; the others meet its rate")] = 60.0,
    names: Annotated[str, typer.Option("--codecs", help="names separated by commas")] = TIMED_CODECS,
    runs: Annotated[int, typer.Option(min=1, help="timed passes, after one to warm up")] = 10,
    rule: Annotated[Rule, typer.Option("--rule", "--profile", help="of Pocketlic's weights")] = "cpu",
    tune: Annotated[
        Tune | None, typer.Option(help="what they are trained for; default: visual, with rule strict psnr")
    ] = None,
) -> None:
    """Time Pocketlic beside other codecs on this machine: one thread, the same rate, in turns."""
    with one_line_errors("profile", program="profile"):
        from .device.side_by_side import choose, side_by_side, table, write

        report = side_by_side(images, choose(names, quality, rule, tune), runs, table_console(stderr=True))
        paths = write(report, out)
    print_table(table(report))
    typer.echo(f"wrote {', '.join(str(path) for path in paths)}")


def _print(report: Report) -> None:
    """What is most asked for: `profile.md` has the rest."""
    from .device.report import tables

    for device in report["devices"]:
        for table in tables(device, summary=True):
            print_table(replace(table, title=printable(f"{device['name']}: {table.title}")))
        for flag in device["flags"]:
            typer.echo(printable(f"{device['name']}: {flag}"))
