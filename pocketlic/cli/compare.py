"""The command `pocketlic compare`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..codec.files import refuse_input, write_atomic
from ..codec.format import DEFAULT_MAX_PIXELS
from ..console import one_line_errors, printable
from .options import MaxPixels


def compare(
    original: Annotated[Path, typer.Argument(help="the picture, or a .plic file")],
    files: Annotated[list[Path], typer.Argument(help="what was made of it: .plic files or pictures")],
    metrics: Annotated[str, typer.Option(help="names separated by commas, jpeg-ai, or all")] = "rgb_psnr,jpeg-ai",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    html: Annotated[Path | None, typer.Option(help="write a page that shows any two of them")] = None,
) -> None:
    """Compare files with the picture they were made of: sizes, metrics, and a page with a handle between two."""
    with one_line_errors("profile"):
        from ..api import decode
        from ..profiling.console import print_table
        from ..profiling.evaluation import compare as pairs
        from ..profiling.evaluation.metrics import parse_metrics

        if html is not None:
            refuse_input(html, [original, *files])
        within = partial(decode, max_pixels=max_pixels)
        pair = pairs.compare(original, files, parse_metrics(metrics), within, max_pixels)
        if html is not None:
            write_atomic(html, pairs.page(pair))
        print_table(pairs.table(pair))
        if html is not None:
            typer.echo(f"wrote {printable(html)}")
