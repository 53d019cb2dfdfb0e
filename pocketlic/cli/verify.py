"""The command `pocketlic verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..codec.files import refuse_input, write_atomic
from ..console import one_line_errors, table_console
from ..quantization.network import RULES
from ..quantization.shipped import shipped_model


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
        from ..export.bundle import open_bundle
        from ..profiling.conformance import matrix
        from ..profiling.conformance.vectors import extreme_model

        opened = open_bundle(bundle) if bundle is not None else None
        if opened is not None:
            models = {"bundle": opened.model}
            if json_file is not None:
                refuse_input(json_file, opened.folder.iterdir())
        else:
            models = {name: shipped_model(name) for name in RULES}
            models |= {f"extreme-{name}": extreme_model(name) for name in RULES}
        progress = table_console(stderr=True)
        table = Table("cell", "outcome", "vectors", "symbols differ", "pixels differ", "seconds", "why")

        def add(result: matrix.Result) -> None:
            counts = (result.vectors, result.symbol_mismatches, result.pixel_mismatches)
            table.add_row(result.name, result.outcome, *map(str, counts), f"{result.seconds:.1f}", result.note)
            progress.print(f"{result.outcome:8} {result.name}")

        done = matrix.verify(models, opened, arm64, tuple(only or ()), jobs, add)
        table_console().print(table)
        typer.echo(f"{done.ran} of {len(done.results)} cells ran, {done.bad} differ or failed")
        if json_file is not None:
            write_atomic(json_file, (json.dumps(done.to_json(), indent=1) + "\n").encode())
    if done.bad or not done.ran:
        raise typer.Exit(1)
