"""Export the codec for a phone: python export.py --target tflite-int8. See `python export.py --help`."""

import sys
from collections.abc import Callable
from pathlib import Path

# Here lie the folders that an installation makes subpackages of pocketlic: only the installed one has them.
here = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]

try:
    from pocketlic.__main__ import run
except ImportError as error:
    print(f"export: {error}; run: pip install .", file=sys.stderr)
    sys.exit(2)


def load() -> Callable[[], object]:
    """Import the command."""
    try:
        import typer

        from pocketlic.export.cli import export
    except ImportError as error:
        print(f"export: {error}; run: pip install .", file=sys.stderr)
        sys.exit(2)
    return lambda: typer.run(export)


if __name__ == "__main__":
    run(load, "export")
