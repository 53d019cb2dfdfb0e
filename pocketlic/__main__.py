"""The program `pocketlic`, also `python -m pocketlic`. A signal ends it in one line, from its first moment on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def run(load: Callable[[], Callable[[], object]], program: str = "pocketlic") -> None:
    """Call what `load` imports. What ends it early, a signal or a full standard output, is told in one line."""
    _open_standard_streams()
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    running, tty = False, os.isatty(2)

    def stop(number: int, frame: FrameType | None) -> None:
        line = f"{program}: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
        os.write(2, (f"\n{line}" if tty else line).encode())  # a terminal shows ^C at the beginning of the line
        if not running:
            os._exit(128 + number)  # an exception in the middle of an import is printed, whatever catches it
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
    command = load()
    try:
        running = True
        command()
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        os.write(2, f"{program}: {place}{error.strerror}\n".encode(errors="backslashreplace"))
        raise SystemExit(2) from None
    finally:
        running = False
        _drop_unwritten()


def _open_standard_streams() -> None:
    """Give closed standard streams a place that fails when used: else the next file to be opened would be one."""
    for descriptor, wrong in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, wrong)  # takes the least number that is free, this one
    # Python has None for a closed one.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115


def _drop_unwritten() -> None:
    """Leave nothing for Python to write at its end, which would tell once more, and in its own way, that it fails."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _load() -> Callable[[], object]:
    from .cli import app

    return lambda: app(prog_name="pocketlic")


def main() -> None:
    """Run the command line."""
    run(_load)


if __name__ == "__main__":
    main()
