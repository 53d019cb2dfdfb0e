"""The command `pocketlic encode`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import api
from ..codec.files import is_standard_output, write_atomic
from ..codec.format import DEFAULT_MAX_PIXELS
from ..codec.image import read_picture
from ..console import one_line_errors
from ..models import Tune
from ..quantization.errors import Rule
from . import batch
from .options import Jobs, MaxMemory, MaxPixels, OutDir, RuleOption, RuntimeOption, Threads, TuneOption


@dataclass(frozen=True)
class Settings:
    """How pictures are encoded."""

    quality: float | None
    bpp: float | None
    max_bytes: int | None
    effort: int
    rule: Rule
    tune: Tune | None
    runtime: api.Runtime
    strip: bool
    max_pixels: int
    max_memory: int | None
    threads: int


def encode_file(
    settings: Settings, source: Path, target: Path, progress: Callable[[float], None] | None = None
) -> batch.Written:
    """Encode a picture file. PlicError when it cannot be read, encoded or written."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = settings.max_pixels  # Pillow's own limit would be another
    picture = read_picture(source, settings.max_pixels)
    data = api.encode(
        picture.pixels, settings.quality, bpp=settings.bpp, max_bytes=settings.max_bytes, effort=settings.effort,
        rule=settings.rule, tune=settings.tune, runtime=settings.runtime, max_memory=settings.max_memory,
        threads=settings.threads, icc=picture.icc, exif=b"" if settings.strip else picture.exif, progress=progress,
    )  # fmt: skip
    write_atomic(target, data)
    return batch.Written(len(data), picture.pixels.shape[0] * picture.pixels.shape[1])


def encode(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURE OUT",
            help="a picture and the file to make of it, - for standard input and output; "
            "or pictures and folders of them, with --out-dir",
            show_default=False,
        ),
    ],
    out_dir: OutDir = None,
    jobs: Jobs = 1,
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
    tune: TuneOption = None,
    runtime: RuntimeOption = "native",
    strip: Annotated[bool, typer.Option("--strip", help="leave out EXIF, GPS among it; the ICC profile stays")] = False,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    max_memory: MaxMemory = None,
    threads: Threads = 0,
) -> None:
    """Encode pictures as .plic; ICC profile and EXIF are kept, EXIF orientation is applied."""
    with one_line_errors():
        settings = Settings(
            quality, bpp, max_bytes, effort, rule, tune, runtime, strip, max_pixels, max_memory, threads
        )
        if out_dir is not None:
            tasks = batch.many(paths, out_dir, batch.PICTURES, batch.PLIC)
            batch.run(tasks, partial(encode_file, settings), jobs, encoded=True)
            return
        task = batch.one(paths)
        batch.check(task, [task.source], encoded=True)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            shown = bar.add_task("encoding", total=1.0, visible=False)
            written = encode_file(
                settings, *task, progress=lambda part: bar.update(shown, completed=part, visible=True)
            )
        typer.echo(batch.told(task.target, written), err=is_standard_output(task.target))
