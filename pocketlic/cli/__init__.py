"""The command line: `pocketlic SUBCOMMAND`, one module a command, imported when it is asked for.

Errors a user can cause end in one line on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "encode": ".encode",
    "decode": ".decode",
    "info": ".info",
    "compare": ".compare",
    "complexity": ".complexity",
    "train": ".train",
    "qat": ".train",
    "evaluate": ".evaluate",
    "verify": ".verify",
    "export": "..export.cli",
    "profile": "..profiling.cli",
}


class Commands(TyperGroup):
    """The commands, each made of its module's function, or app, of that name."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = import_module(COMMANDS[cmd_name], __package__)
            app = getattr(module, f"{cmd_name}_app", None)
            if app is None:
                app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
                app.command(cmd_name)(getattr(module, cmd_name))
            command = get_command(app)
            command.name = cmd_name
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            for name in COMMANDS:  # to be suggested
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def print_version(wanted: bool) -> None:
    """Print the version and stop, as typer's callback."""
    if wanted:
        from importlib.metadata import version

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
