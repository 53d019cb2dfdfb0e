"""Options that several commands have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ..api import Runtime
from ..models import Tune
from ..quantization.errors import Rule


def number(value: float) -> float:
    """Refuse, as typer's callback, what is no number: a range lets it pass."""
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


TUNE_HELP = "what weights are trained for"
CHOICE_HELP = f"{TUNE_HELP}; default: visual, with rule strict psnr"

RuleOption = Annotated[
    Rule, typer.Option("--rule", "--profile", help="cpu: exact on CPU runtimes; strict: on integer NPUs too")
]
TuneOption = Annotated[Tune | None, typer.Option(help=CHOICE_HELP)]
Threads = Annotated[int, typer.Option(min=0, help="at most so many; 0: as many as there are cores")]
MaxMemory = Annotated[
    int | None, typer.Option(min=1, help="bytes that a file may take besides itself and its pixels", show_default=False)
]
RuntimeOption = Annotated[Runtime, typer.Option(help="what runs the networks; the result is the same")]
MaxPixels = Annotated[int, typer.Option(min=1, help="refuse pictures of more pixels")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
OutDir = Annotated[
    Path | None, typer.Option(help="folder for the results, made if it is not there; allows many inputs and folders")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="files at a time, with --out-dir")]
