"""What the commands print: tables, and progress that can be read in a file too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from ..console import table_console
from .text import Table

PARTS = 20  # lines of progress, at most, where there is no terminal


@contextmanager
def progress(console: Console, what: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show how many of `total` are done: a bar in a terminal, else a line now and then. Gives what counts one more."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bars:
            bar = bars.add_task(what, total=total, completed=done)
            yield lambda: bars.advance(bar)
        return

    def advance() -> None:
        nonlocal done
        done += 1
        if done * PARTS // total > (done - 1) * PARTS // total:
            console.print(f"{what}: {done} of {total}")

    console.print(f"{what}: {done} of {total}")
    yield advance


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    shown = RichTable(title=table.title, title_justify="left")
    for index, heading in enumerate(table.head):
        shown.add_column(heading, justify="left" if index < table.words else "right")
    for index, row in enumerate(table.rows):
        shown.add_row(*row, style="bold red" if index in table.bad else None)
    table_console().print(shown)
