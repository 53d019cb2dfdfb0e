"""Float networks -> float .tflite through litert-torch, to compare the integer networks with.

Importing this needs the packages torch and litert-torch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import litert_torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..codec.files import write_atomic
from ..models.network import FloatCodec
from ..quantization.model import NETWORKS
from .errors import ExportError

SIZE = (512, 768)  # height and width of the picture that sets the files' shapes


def write_float(weights: Path, out: Path) -> list[Path]:
    """Write one float .tflite per network of the float codec into the folder `out`, and return their paths.

    weights: safetensors file with the state of `models.network.FloatCodec`. Inputs and outputs are float32
    [1, H, W, C]. Raises ExportError when the weights do not fit or `out` cannot be made, PlicError when
    a file cannot be written.
    """
    codec = FloatCodec()
    try:
        codec.load_state_dict(load_file(weights))
        out.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, SafetensorError) as error:
        raise ExportError(f"cannot use {weights}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from None
    codec.eval()
    paths = []
    for name, inputs in _inputs(codec).items():
        network = getattr(codec, name)
        results = network(*inputs)
        count = len(results) if isinstance(results, tuple) else 1
        wrapped = litert_torch.to_channel_last_io(network, list(range(len(inputs))), list(range(count)))
        converted = litert_torch.convert(wrapped.eval(), tuple(x.permute(0, 2, 3, 1).clone() for x in inputs))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.tflite"
            converted.export(str(file))
            write_atomic(out / file.name, file.read_bytes())
        paths.append(out / file.name)
    return paths


@torch.no_grad()
def _inputs(codec: FloatCodec) -> dict[str, tuple[Tensor, ...]]:
    """Inputs of each network in one pass over a grey picture, [1, C, H, W]."""
    seen: dict[str, tuple[Tensor, ...]] = {}
    for name in NETWORKS:
        getattr(codec, name).register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs}))
    codec(torch.full((1, 3, *SIZE), 0.5), torch.tensor([50.0]))
    for name in NETWORKS:
        getattr(codec, name)._forward_pre_hooks.clear()
    return seen
