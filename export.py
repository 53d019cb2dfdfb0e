"""Export the codec for a phone: python export.py --target tflite-int8. See `python export.py --help`."""

import sys
from pathlib import Path

# This folder hides the installed package, which alone has all subpackages: take it off the path.
here = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]

try:
    import typer

    from pocketlic.export.cli import export
except ImportError as error:
    print(f"export: {error}; run: pip install .", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    typer.run(export)
