"""Many files by one command: what goes where, several at a time, and what is said at the end."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import typer

from ..codec.errors import PlicError
from ..codec.figures import bits_per_pixel
from ..codec.files import STANDARD, refuse_input
from ..console import complain, message, printable, printed_warnings

PLIC = ".plic"
PICTURES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heif", ".hif", ".ico", ".j2k", ".jfif",
    ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd",
    ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Suffixes that are taken for pictures in a folder."""
RAW = frozenset({".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"})


class Written(NamedTuple):
    """What one file came to: bytes that were written, and pixels of the picture."""

    bytes: int
    pixels: int


class Task(NamedTuple):
    """One file to make of another."""

    source: Path
    target: Path


Work = Callable[[Path, Path], Written]
"""(source, target); PlicError or OSError when it fails. Can be pickled."""


def one(paths: Sequence[Path]) -> Task:
    """The input and the output that a command names without --out-dir. PlicError when it is not two names."""
    if len(paths) != 2:
        raise PlicError(f"{len(paths)} names are not an input and an output; for more inputs say where to: --out-dir")
    return Task(*paths)


def many(paths: Iterable[Path], out_dir: Path, suffixes: frozenset[str], suffix: str) -> list[Task]:
    """What becomes of files, and of those below folders that have one of the suffixes, hidden ones left out.

    PlicError for a folder without any. Below a folder, results lie as the files do.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise PlicError(f"cannot write into {out_dir}: it is no folder")
    tasks = []
    for path in paths:
        if str(path) == STANDARD:
            raise PlicError("standard input has no name for a result in --out-dir")
        if not path.is_dir():
            tasks.append(Task(path, out_dir / f"{path.stem}{suffix}"))
            continue
        files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in suffixes and file.is_file())
        inside = [name for name in (file.relative_to(path) for file in files) if not _is_hidden(name)]
        tasks += [Task(path / name, out_dir / name.with_suffix(suffix)) for name in inside]
        if not inside:
            raise PlicError(f"{path} has no files {' '.join(sorted(suffixes))}")
    return tasks


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def check(task: Task, sources: Iterable[Path], encoded: bool) -> None:
    """PlicError when an input is no file, or an output has no folder, is an input or named like the other kind."""
    suffix = task.target.suffix.lower()
    try:
        if str(task.source) != STANDARD and stat.S_ISDIR(task.source.stat().st_mode):
            raise PlicError(f"cannot read {task.source}: it is a folder, which needs --out-dir")
    except OSError as error:
        raise PlicError(f"cannot read {task.source}: {error.strerror}") from None
    try:
        if not stat.S_ISDIR(task.target.parent.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise PlicError(f"cannot write {task.target}: {error.strerror}") from None
    refuse_input(task.target, sources)
    if encoded and suffix != PLIC and suffix in PICTURES | RAW | _pillow_suffixes():
        raise PlicError(f"cannot write {task.target}: that is a picture's name; name it {PLIC}, or say --out-dir")
    if not encoded and suffix == PLIC:
        raise PlicError(f"cannot write {task.target}: that is an encoded file's name; name it .png, or say --out-dir")


def _pillow_suffixes() -> set[str]:
    from PIL import Image

    return set(Image.registered_extensions())


GRACE = 2.0  # seconds to end a task that was interrupted, and to remove its temporary file


def run(tasks: Sequence[Task], work: Work, jobs: int, encoded: bool) -> None:
    """Do all tasks, `jobs` at a time; what fails is told at the end, and the exit code is 2 then.

    ImportError when a package is missing.
    """
    began = time.monotonic()
    failures: list[str] = []
    written: list[Written] = []
    sound: dict[Path, Task] = {}
    sources = [task.source for task in tasks]
    for task in tasks:
        try:
            if task.target in sound:
                raise PlicError(f"{task.source}: {sound[task.target].source} becomes {task.target} too")
            task.target.parent.mkdir(parents=True, exist_ok=True)
            check(task, sources, encoded)
            sound[task.target] = task
        except (PlicError, OSError) as error:
            failures.append(message(error))
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        # Closed at once when a signal ends this loop: else the processes would do all that is left.
        closing(_results(list(sound.values()), work, jobs)) as results,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        shown = bar.add_task("encoding" if encoded else "decoding", total=len(sound))
        for task, result in results:
            bar.advance(shown)
            if isinstance(result, str):
                failures.append(result)
                continue
            written.append(result)
            if encoded:
                bar.console.file.flush()
                typer.echo(told(task.target, result))
    size, pixels = (sum(result[i] for result in written) for i in (0, 1))
    rate = f", {bits_per_pixel(size, 1, pixels):.3f} bpp" if encoded and pixels else ""
    typer.echo(
        f"{'encoded' if encoded else 'decoded'} {len(written)} of {len(tasks)} files: {size} bytes{rate}, "
        f"{pixels / 1e6:.2f} MP, {time.monotonic() - began:.2f} s"
    )
    for failure in failures:
        complain(failure)
    if failures:
        raise typer.Exit(2)


def told(target: Path, written: Written) -> str:
    """What is printed of an encoded file."""
    return f"{printable(target)}: {written.bytes} bytes, {bits_per_pixel(written.bytes, 1, written.pixels):.3f} bpp"


def _attempt(work: Work, task: Task) -> Written | str:
    """The result, or one line that says what went wrong."""
    try:
        with printed_warnings():
            return work(*task)
    except (PlicError, OSError, MemoryError) as error:
        return message(error)


def _results(tasks: Sequence[Task], work: Work, jobs: int) -> Generator[tuple[Task, Written | str], None, None]:
    if min(jobs, len(tasks)) < 2:
        yield from ((task, _attempt(work, task)) for task in tasks)
        return
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

    # Not forked: threads of the runtimes do not survive that.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, _begin_worker)
    futures = {pool.submit(_attempt, work, task): task for task in tasks}
    try:
        for future in as_completed(futures):
            task = futures[future]
            try:
                yield task, future.result()
            except BrokenExecutor:
                yield task, f"{printable(task.source)}: its process ended, for lack of memory perhaps"
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        processes = multiprocessing.active_children()
        for process in processes:
            process.terminate()
        # One that is within a task takes the signal for the task's end, and would go on with the next.
        for process in processes:
            process.join(GRACE)
            process.kill()
        raise


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one ends the others
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves no temporary file behind
