"""The base of all errors that a user can meet. Each message is one line, fit to be printed as it is."""

from __future__ import annotations

from collections.abc import Sequence


class PlicError(ValueError):
    """The input or the output cannot be used: a bad picture, a bad file, a folder that cannot be written."""


class PlicWarning(UserWarning):
    """A picture was read or written, and something of it was changed or left out."""


def check_choice(what: str, choice: object, choices: Sequence[str]) -> None:
    """Raise PlicError, which lists the choices, unless it is one of them."""
    if choice not in choices:
        raise PlicError(f"{what} is one of {', '.join(choices)}, not {choice!r}")


def install_command(extra: str) -> str:
    """The shell command that adds the packages of an extra: from the folder that this installation was made from."""
    # Only here: every start of the command line would wait for them.
    import json
    import shlex
    import sys
    from importlib.metadata import PackageNotFoundError, distribution
    from pathlib import Path
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    source, editable = "pocketlic", ""
    try:
        origin = json.loads(distribution("pocketlic").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # as in a folder that pip made with --target
        origin = {}
    folder = url2pathname(urlparse(origin.get("url", "")).path)
    if origin.get("url", "").startswith("file:") and Path(folder).is_dir():
        source, editable = folder, "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"{shlex.quote(sys.executable)} -m pip install {editable}{shlex.quote(f'{source}[{extra}]')}"
