"""The program `pocketlic`, also `python -m pocketlic`. A signal ends it in one line, from its first moment on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line."""
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    running, tty = False, os.isatty(2)

    def stop(number: int, frame: FrameType | None) -> None:
        line = f"pocketlic: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
        os.write(2, (f"\n{line}" if tty else line).encode())  # a terminal shows ^C at the beginning of the line
        if not running:
            os._exit(128 + number)  # an exception in the middle of an import is printed, whatever catches it
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
    from .cli import app

    try:
        running = True
        app(prog_name="pocketlic")
    finally:
        running = False


if __name__ == "__main__":
    sys.exit(main())
