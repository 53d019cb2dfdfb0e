"""The command line: `pocketlic SUBCOMMAND`, one module a command.

Errors a user can cause end in one line on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from ..export.cli import export
from ..profiling.cli import profile_app
from .complexity import complexity
from .decode import decode
from .encode import encode
from .evaluate import evaluate
from .info import info
from .train import qat, train
from .verify import verify

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
for command in (encode, decode, info, complexity, train, qat, evaluate, verify, export):
    app.command()(command)
app.add_typer(profile_app, name="profile")


def print_version(wanted: bool) -> None:
    """Print the version and stop, as typer's callback."""
    if wanted:
        typer.echo(f"pocketlic {version('pocketlic')}")
        raise typer.Exit


@app.callback()
def prepare(
    _: Annotated[
        bool,
        typer.Option("--version", "-v", callback=print_version, is_eager=True, help="print the version and stop"),
    ] = False,
) -> None:
    """A learned image codec small enough for a phone."""
    # Names of files may hold bytes that are no text, and a terminal may lack a character.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
