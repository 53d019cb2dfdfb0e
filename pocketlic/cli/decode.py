"""The command `pocketlic decode`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import api
from ..codec import format as plic
from ..codec.files import STANDARD, read_bytes
from ..codec.image import Picture, check_suffix, write_picture
from ..console import one_line_errors
from . import batch
from .options import Jobs, MaxMemory, MaxPixels, OutDir, RuntimeOption, Threads


@dataclass(frozen=True)
class Settings:
    """How files are decoded; `suffix`: what they become, None for what the output's name says."""

    runtime: api.Runtime
    max_pixels: int
    max_memory: int | None
    threads: int
    suffix: str | None


def decode_file(settings: Settings, source: Path, target: Path) -> batch.Written:
    """Decode a file, to the format of `suffix` if it is given. PlicError when it cannot be read, decoded or written."""
    data = read_bytes(source)
    try:
        pixels = api.decode(
            data, runtime=settings.runtime, max_pixels=settings.max_pixels, max_memory=settings.max_memory,
            threads=settings.threads,
        )  # fmt: skip
    except api.FormatError as error:
        raise api.FormatError(f"{source}: {error}") from None
    content = plic.read(data, settings.max_pixels)
    write_picture(target, Picture(pixels, content.icc, content.exif), settings.suffix)
    size = target.stat().st_size if target.is_file() else 0
    return batch.Written(size, content.header.width * content.header.height)


def decode(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE OUT",
            help="a .plic file and the picture to make of it, - for standard input and output; "
            "or files and folders of them, with --out-dir",
            show_default=False,
        ),
    ],
    out_dir: OutDir = None,
    jobs: Jobs = 1,
    suffix: Annotated[
        str | None,
        typer.Option("--format", help="such as png; default: the output's suffix, png with --out-dir and to -"),
    ] = None,
    runtime: RuntimeOption = "native",
    max_pixels: MaxPixels = plic.DEFAULT_MAX_PIXELS,
    max_memory: MaxMemory = None,
    threads: Threads = 0,
) -> None:
    """Decode .plic files to .png, .tif, .ppm, .jpg, .webp, .avif or another format that Pillow writes."""
    with one_line_errors():
        given = f".{suffix.removeprefix('.')}" if suffix is not None else None
        settings = Settings(runtime, max_pixels, max_memory, threads, given)
        if out_dir is not None:
            check_suffix(out_dir, given or ".png")
            tasks = batch.many(paths, out_dir, frozenset({batch.PLIC}), given or ".png")
            batch.run(tasks, partial(decode_file, settings), jobs, encoded=False)
            return
        task = batch.one(paths)
        batch.check(task, [task.source], encoded=False)
        if str(task.target) == STANDARD and given is None:
            settings = replace(settings, suffix=".png")
        check_suffix(task.target, settings.suffix)
        decode_file(settings, *task)
