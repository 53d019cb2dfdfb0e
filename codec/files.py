"""Files in and out: `-` is a standard stream, and what is written appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import PlicError

STANDARD = "-"
_LINKS = 40


def open_seekable(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to read from any place; standard input and pipes are read whole first. OSError when that fails."""
    if os.fspath(path) == STANDARD:
        return io.BytesIO(sys.stdin.buffer.read())
    file = Path(path).open("rb")  # noqa: SIM115
    if file.seekable():
        return file
    with file:
        return io.BytesIO(file.read())


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, or of standard input. PlicError, which names the file, when it cannot be read."""
    try:
        with open_seekable(path) as file:
            return file.read()
    except OSError as error:
        raise PlicError(f"cannot read {os.fspath(path)}: {reason(error)}") from None


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether what is written there goes to standard output: `-`, /dev/stdout, or the file that it is redirected to."""
    with contextlib.suppress(OSError, ValueError):
        return os.fspath(path) == STANDARD or os.path.samestat(Path(path).stat(), os.fstat(sys.stdout.fileno()))
    return False


def refuse_input(target: Path, sources: Iterable[Path]) -> None:
    """PlicError when a file to write is one of those that are read, by whatever name: it would be lost."""
    for source in sources:
        with contextlib.suppress(OSError):
            if target.is_file() and target.samefile(source):
                raise PlicError(f"cannot write {target}: it is one of the inputs, which would be lost")


def parse_json(data: bytes) -> Any:
    """The value of a JSON text; ValueError when it is none, is nested too deep, or holds half a character."""
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text, and in no name of a file
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment there is the old one, if any, or the whole new one.

    The bytes go to a temporary file beside it, which then takes its name; owner and mode of a file that is replaced
    stay, and a symbolic link stays one. What is no regular file (a device, a pipe, standard output as `-` or
    /dev/stdout) is written to directly. Raises PlicError, with one line that names the file, when that fails: no such
    folder, not writable, disk full. Nothing is left behind.
    """
    try:
        if os.fspath(path) == STANDARD:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        target = _followed(Path(path))
        try:
            old = target.stat()
        except FileNotFoundError:
            old = None
        if _is_descriptor(target) or (old is not None and not stat.S_ISREG(old.st_mode)):
            # A pipe that nobody reads is refused, not waited for.
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NONBLOCK", 0))
            os.set_blocking(descriptor, True)
            with open(descriptor, "wb") as file:  # noqa: PTH123
                file.write(data)
        else:
            _replace(target, old, data)
    except OSError as error:
        raise PlicError(f"cannot write {os.fspath(path)}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What went wrong, in one line and without the file's name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _replace(target: Path, old: os.stat_result | None, data: bytes) -> None:
    if old is not None:
        os.close(os.open(target, os.O_WRONLY))  # what may not be written may not be replaced either
    temporary = target.with_name(f".pocketlic-{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            if old is not None:
                # Not every user, file system and system can.
                with contextlib.suppress(OSError, AttributeError):
                    os.chown(temporary, old.st_uid, old.st_gid)
                with contextlib.suppress(OSError):
                    temporary.chmod(stat.S_IMODE(old.st_mode))
            file.write(data)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _followed(path: Path) -> Path:
    """The file that a name leads to; symbolic links are followed, also to a file that is not there yet."""
    for _ in range(_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        if _is_descriptor(path) or not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return path


def _is_descriptor(path: Path) -> bool:
    """Descriptors of this process, such as what /dev/stdout leads to, look like links to files and are none."""
    return path.is_relative_to("/proc")
