"""What all commands share in how they speak: one line for what a user did wrong, and tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import typer

from .models.errors import PlicError, PlicWarning, install_command

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160
"""Columns of a table in a file."""


def printable(text: object) -> str:
    """A text, or the name of a file, on one line; what cannot be printed, as bytes that are no UTF-8, is escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    code = ord(character)
    # Python stands for a byte that is no text by a surrogate.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def message(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror if error.filename is None else f"{error.filename}: {error.strerror}")
    return printable(" ".join(str(error).split())) or type(error).__name__


def complain(text: str, program: str = "pocketlic") -> None:
    """One line on standard error."""
    typer.echo(f"{program}: {text}", err=True)


@contextmanager
def printed_warnings(program: str = "pocketlic") -> Iterator[None]:
    """Print each PlicWarning as one line on standard error."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
            line: str | None = None,
        ) -> None:  # fmt: skip
            if issubclass(category, PlicWarning):
                complain(f"warning: {printable(message)}", program)
            else:
                show_others(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", PlicWarning)
        warnings.showwarning = show
        yield


@contextmanager
def one_line_errors(extra: str = "train", program: str = "pocketlic") -> Iterator[None]:
    """Print what a user did wrong, or lacks, as one line and exit with 2; `extra` has what may be missing."""
    try:
        with printed_warnings(program):
            yield
    except ImportError as error:
        if not error.name or error.name.startswith("pocketlic"):
            raise
        complain(f"this needs the package {error.name}: {install_command(extra)}", program)
        raise typer.Exit(2) from None
    except BrokenPipeError:  # whoever reads has seen enough, as `head` does: typer ends without a word
        raise
    except (PlicError, OSError, MemoryError) as error:
        complain(message(error), program)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        complain("interrupted", program)
        raise typer.Exit(130) from None


def table_console(stderr: bool = False) -> Console:
    """Standard output, or error, for tables and progress: wide where it is a file, and names print as they are."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console
