"""What libraries in C print to standard error, held back: they do not ask Python, and one line is promised there."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

_redirecting = Lock()


@contextmanager
def held_back(idle: Callable[[bytes], bool]) -> Iterator[None]:
    """Keep those lines from standard error that `idle` is true of; the others arrive at the end. A thread at a time."""
    with _redirecting, tempfile.TemporaryFile() as said:
        try:
            stderr = os.dup(2)
        except OSError:  # closed
            yield
            return
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            if rest := b"".join(line for line in said if not idle(line)):
                os.write(2, rest)
