"""The command `pocketlic complexity`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..console import one_line_errors
from ..quantization.shipped import DEFAULT_QUALITY, shipped_model
from .options import Json, RuleOption, TuneOption, number


def complexity(
    rule: RuleOption = "cpu",
    tune: TuneOption = None,
    quality: Annotated[
        float, typer.Option(min=0.0, max=100.0, callback=number, help="whose model it is")
    ] = DEFAULT_QUALITY,
    as_json: Json = False,
) -> None:
    """Count the multiply-accumulates per pixel of encoding and decoding, as the shipped networks run."""
    from ..codec.complexity import VMUC_KMAC_PER_PIXEL, count

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
