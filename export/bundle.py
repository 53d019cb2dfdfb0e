"""The bundle: a folder with everything a device needs to encode and decode, written whole or not at all.

    analysis.tflite ... synthesis.tflite  one file per network; the ending is the target's
    model.safetensors                     the integer model: projections, gains, entropy tables, networks
    manifest.json                         what the files are: target, hashes, shapes, scales, cost, versions
    proof.plic                            the photograph that proved the bundle, if one did

A target may add files, such as networks compiled for one chip. Without `tile`, the networks have a default shape that
the runtime resizes. With `tile`, shapes are fixed and pictures run tile by tile. `open_bundle` checks every file
against the manifest, and the manifest's model id against the model.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..codec.codec import Executor
from ..codec.complexity import count
from ..codec.files import parse_json
from ..quantization.errors import ModelError
from ..quantization.model import IntegerModel
from ..quantization.network import IntegerNetwork
from .errors import ExportError
from .targets import DEFAULT_TILE, TARGETS, Kernels, Target, find, require
from .tiles import DEFAULT_PIXELS, PIXELS_PER_CELL, TiledExecutor, check_tile

FORMAT = "pocketlic-bundle"
VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
PROOF = "proof.plic"
TOOLS = ("pocketlic", "numpy", "safetensors")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. files: network name -> content of its file."""

    folder: Path
    model: IntegerModel
    target: str
    files: dict[str, bytes]
    tile: int | None
    manifest: dict[str, Any]

    def executor(self, kernels: Kernels = "xnnpack", threads: int = 1) -> Executor:
        """Run the bundle's networks under its target's runtime, in tiles if it was made for tiles.

        kernels: which of LiteRT's; other runtimes have no choice. Raises ExportError when this machine cannot
        run the target.
        """
        target = TARGETS[self.target]
        require(self.target, target.to_run)
        run = target.open(self.model, self.files, kernels, threads)
        return run if self.tile is None else TiledExecutor(run, self.tile)


def macs_per_pixel(model: IntegerModel) -> dict[str, float]:
    """Multiply-accumulates per pixel of each network and projection, and the sums `encode` and `decode`."""
    complexity = count(model)
    result = {name: 1000 * float(part["kmac_per_pixel"]) for name, part in complexity.components.items()}
    totals = {"encode": complexity.encode_kmac_per_pixel, "decode": complexity.decode_kmac_per_pixel}
    return result | {name: 1000 * kmac for name, kmac in totals.items()}


def write_bundle(model: IntegerModel, out: Path, tile: int | None = None, target: str = "tflite-int8") -> Bundle:
    """Write the bundle folder `out` with its parents, and replace an older bundle there.

    tile: None, or the side in pixels of fixed-shape tiles; targets with fixed shapes have a default. Raises
    ExportError, and changes nothing, when the target cannot be built here, the tile does not fit, `out` cannot be
    written, or `out` holds anything but a bundle.
    """
    kind = find(target)
    require(target, kind.to_build)
    if tile is None and kind.fixed:
        tile = DEFAULT_TILE
    if tile is not None:
        check_tile(model, tile)
    out = out.absolute()  # not resolved: a link to a folder is not a bundle
    _require_replaceable(out)
    content = kind.build(model, tile) | {MODEL: model.to_bytes()}
    manifest = _manifest(model, content, tile, target, kind)
    content[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()

    unique = secrets.token_hex(6)
    temporary, retired = out.with_name(f".pocketlic-{unique}.tmp"), out.with_name(f".pocketlic-{unique}.old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in content.items():
            (temporary / name).write_bytes(data)
        if out.exists():
            out.rename(retired)
        try:
            temporary.rename(out)
        except OSError:
            if retired.exists():
                retired.rename(out)
            raise
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if out.exists():
            shutil.rmtree(retired, ignore_errors=True)
    return open_bundle(out)


def open_bundle(folder: Path) -> Bundle:
    """Read and check a bundle. Raises ExportError when it is none, is damaged, or is of a later version."""
    manifest = _read_manifest(folder)
    if manifest is None:
        raise ExportError(f"{folder} is not a Pocketlic bundle")
    if manifest.get("version") != VERSION:
        raise ExportError(f"{folder}: version {manifest.get('version')} of the bundle, this package reads {VERSION}")
    try:
        data = {}
        for name, entry in manifest["files"].items():
            if Path(name).name != name:
                raise ExportError(f"{folder}: a file name leaves the bundle: {name}")
            data[name] = (folder / name).read_bytes()
            if (len(data[name]), _sha256(data[name])) != (entry["bytes"], entry["sha256"]):
                raise ExportError(f"{folder / name} is damaged: its SHA-256 is not the manifest's")
        model = IntegerModel.from_bytes(data[MODEL])
        if model.model_id != manifest["model_id"]:
            raise ExportError(f"{folder}: the model is not the manifest's")
        target = manifest["target"]
        if target not in TARGETS:
            raise ExportError(f"{folder}: this package does not know the target {target}")
        files = {name: data[name + TARGETS[target].suffix] for name in model.networks}
        tile = manifest["tile"]
        if tile is not None:
            check_tile(model, tile)
    except ExportError:
        raise
    except OSError as error:
        raise ExportError(f"cannot read {error.filename}: {error.strerror}") from None
    except ModelError as error:
        raise ExportError(f"{folder / MODEL}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ExportError(f"{folder / MANIFEST} is damaged: {type(error).__name__} {error}") from None
    return Bundle(folder, model, target, files, tile, manifest)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = parse_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _require_replaceable(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    try:
        present = {entry.name for entry in out.iterdir()}
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from None
    if not present and not out.is_symlink():
        return
    manifest = _read_manifest(out)
    if manifest is None or out.is_symlink():
        raise ExportError(f"{out} exists and is not a bundle; choose another folder")
    foreign = present - set(manifest.get("files", ())) - {MANIFEST, PROOF}
    if foreign:
        raise ExportError(f"{out} holds files that are not the bundle's, such as {min(foreign)}; move them first")


def _manifest(
    model: IntegerModel, content: dict[str, bytes], tile: int | None, target: str, kind: Target
) -> dict[str, Any]:
    macs = macs_per_pixel(model)
    files: dict[str, dict[str, Any]] = {
        name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in content.items()
    }
    for name, network in model.networks.items():
        cells = (tile or DEFAULT_PIXELS) // PIXELS_PER_CELL[name]
        files[name + kind.suffix] |= {
            "inputs": [_tensor(network, i, cells) for i in network.inputs],
            "outputs": [_tensor(network, o, cells) for o in network.outputs],
            "pixels_per_input_cell": PIXELS_PER_CELL[name],
            "mac_per_pixel": macs[name],
        }
    files[MODEL]["entropy_tables"] = ["table_radius", "table_freq"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": target,
        "profile": model.rule,
        "model_id": model.model_id,
        "tile": tile,
        "mac_per_pixel": macs,
        "files": files,
        "tools": {"python": platform.python_version()} | {name: _version(name) for name in (*TOOLS, *kind.tools)},
    }


def _tensor(network: IntegerNetwork, name: str, cells: int) -> dict[str, Any]:
    spec = network.specs[name]
    n, d = network.strides[name]
    side = cells * n // d
    return {
        "name": name,
        "shape": [1, side, side, spec.channels],
        "dtype": "int8",
        "scale": 2.0**spec.exponent,
        "zero_point": spec.zero_point,
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
