"""The command `pocketlic info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..codec import format as plic
from ..codec.errors import FormatError, PlicError
from ..codec.figures import bits_per_pixel
from ..codec.files import read_bytes
from ..console import complain, message, one_line_errors, printable
from .options import Json


def facts_of(path: Path) -> dict[str, object]:
    """What a file says about itself. PlicError when it cannot be read or is damaged."""
    data = read_bytes(path)
    try:
        content = plic.read(data, max_pixels=plic.MAX_SIDE**2)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    header = content.header
    return {
        "file": printable(path),
        "version": plic.VERSION,
        "width": header.width,
        "height": header.height,
        "components": 1 if header.grey else 3,
        "quality": header.quality_hundredths / 100,
        "model_id": header.model_id.hex(),
        "bytes": len(data),
        "bpp": bits_per_pixel(len(data), header.height, header.width),
        "band_bytes": [len(part) for part in content.bands],
        "icc_bytes": len(content.icc),
        "exif_bytes": len(content.exif),
    }


def info(
    files: Annotated[list[Path], typer.Argument(help=".plic files, - for standard input", show_default=False)],
    as_json: Json = False,
) -> None:
    """Describe .plic files without decoding them; with --json, one object a line."""
    failures: list[PlicError] = []
    with one_line_errors():
        for i, path in enumerate(files):
            try:
                facts = facts_of(path)
            except PlicError as error:
                failures.append(error)
                continue
            if as_json:
                typer.echo(json.dumps(facts))
                continue
            if i:
                typer.echo("")
            for name, value in facts.items():
                typer.echo(f"{name:12} {value}")
        for failure in failures:
            complain(message(failure))
        if failures:
            raise typer.Exit(2)
