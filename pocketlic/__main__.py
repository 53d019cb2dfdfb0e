"""The program `pocketlic`, also `python -m pocketlic`. A signal ends it in one line, from its first moment on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


def run(load: Callable[[], Callable[[], object]], program: str = "pocketlic") -> None:
    """Call what `load` imports. What ends it early, a signal or a full standard output, is told in one line."""
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
        os.write(2, f"{program}: {error.strerror}\n".encode())
        raise SystemExit(2) from None
    finally:
        running = False


def _load() -> Callable[[], object]:
    from .cli import app

    return lambda: app(prog_name="pocketlic")


def main() -> None:
    """Run the command line."""
    run(_load)


if __name__ == "__main__":
    main()
