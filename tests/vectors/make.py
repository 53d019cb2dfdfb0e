"""Writes the conformance vectors of the shipped models and of the extreme ones: python tests/vectors/make.py

Each model has a folder of `.plic` files. `vectors.json` has the hashes of what the NumPy reference decodes. Run this
after a change of weights. Any other change that alters an old vector is a new version of the format.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec
from pocketlic.profiling.conformance.vectors import Vector, extreme_model, vectors
from pocketlic.quantization.model import IntegerModel, load_model
from pocketlic.quantization.network import RULES

FOLDER = Path(__file__).parent


def models(folder: Path = FOLDER) -> dict[str, IntegerModel]:
    """Models by the names of their vectors' folders. The files of the extreme ones are kept while they are right."""
    found = {name: pocketlic.shipped_model(name) for name in RULES}
    for rule in RULES:
        model, path = extreme_model(rule), folder / f"extreme-{rule}.safetensors"
        # Another version of safetensors may order a file differently.
        kept = load_model(path) if path.exists() else model
        found[f"extreme-{rule}"] = kept if replace(kept).to_bytes() == model.to_bytes() else model
    return found


def describe(model: IntegerModel, vector: Vector) -> dict[str, Any]:
    """The entry of a vector in `vectors.json`."""
    codec, file = Codec(model), plic.read(vector.data)
    header, symbols = file.header, codec.read_symbols(file)
    pixels = codec.synthesise(symbols, header)
    return {
        "name": vector.name,
        "width": header.width,
        "height": header.height,
        "components": 1 if header.grey else 3,
        "quality": header.quality_hundredths / 100,
        "bands": len(file.bands),
        "bytes": len(vector.data),
        "file": hashlib.sha256(vector.data).hexdigest(),
        "symbols": symbols.sha256(),
        "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def main() -> None:
    """Write everything anew."""
    content: dict[str, Any] = {"version": plic.VERSION, "models": {}}
    for name, model in models().items():
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if name not in RULES:
            (FOLDER / f"{name}.safetensors").write_bytes(model.to_bytes())
        entries = []
        for vector in vectors(model):
            (folder / f"{vector.name}.plic").write_bytes(vector.data)
            entries.append(describe(model, vector))
        content["models"][name] = {"id": model.model_id, "vectors": entries}
    (FOLDER / "vectors.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
