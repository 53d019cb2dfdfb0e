"""The integer model: all integers that a codec needs, and what they have to obey."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from ..models.filter_classes import CLASSES, OFFSETS
from . import model_file
from .errors import ModelError, Rule
from .network import MAX_CHANNELS, RULES, Int8, Int32, IntegerNetwork

NETWORKS = ("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis")

Int16 = NDArray[np.int16]
UInt16 = NDArray[np.uint16]


@dataclass(frozen=True)
class IntegerModel:
    """Five networks, four projections, gain knots, entropy tables and filters, all in integers.

    An array's annotation gives its shape, in the sizes that `sizes` has; `ARRAYS` lists them all, by the names that
    they have in the model file. Fixed-point units: latents 2**-8 of the latent grid; logarithms 2**-8 octaves; table
    indices 2**-16.
    """

    rule: Rule
    networks: dict[str, IntegerNetwork]
    # Features at 1/16 -> y; y = accumulator << shift, or rounded >> -shift, in 2**-8.
    latent_weight: Annotated[Int8, "latents", "features"]
    latent_bias: Annotated[Int32, "latents"]
    latent_shift: Annotated[Int8, "latents"]
    # Features at 1/8 -> d, in the same way; d is then folded to the grid of y as (dy, dx, c).
    detail_weight: Annotated[Int8, "details/4", "fine features"]
    detail_bias: Annotated[Int32, "details/4"]
    detail_shift: Annotated[Int8, "details/4"]
    # z -> table indices of y and d, channels (dy, dx, c) of a depth-to-space by 4; accumulator * scale is in 2**-16.
    row_weight: Annotated[Int8, "16*(latents+details)", "hyper-latents"]
    row_scale: Annotated[Int32, "16*(latents+details)"]
    row_bias: Annotated[Int32, "16*(latents+details)"]
    # Magnitudes of y's symbols -> what they add to the table indices of d; accumulator * scale is in 2**-16.
    detail_row_weight: Annotated[Int8, "details", "latents"]
    detail_row_scale: Annotated[Int32, "details"]
    magnitude: Annotated[Int8, 128]  # round(16 * log2(1 + i)), for the symbol i or -i; greater ones count as 127
    step_knots: Annotated[Int32, "knots", "latents+details"]  # log2 of the step in units of the grid, 2**-8 octaves
    row_knots: Annotated[Int32, "knots", "latents+details"]  # what quality adds to the table index
    hyper_gain_knots: Annotated[Int32, "knots", "hyper-latents"]  # log2 of the encoder's gain on z, 2**-8 octaves
    hyper_row_knots: Annotated[Int32, "knots", "hyper-latents"]  # table index that codes z less its prediction
    hyper_prediction: Annotated[Int8, "hyper-latents", 3]  # of z from the cells left, above and above left, in 2**-6
    wide: Annotated[Int16, "wide"]  # channels whose grid is four times finer; the two bits are a plane of their own
    exp2: Annotated[Int32, 256]  # round(2**16 * 2**(i/256))
    table_radius: Annotated[UInt16, "tables"]
    table_freq: Annotated[UInt16, "frequencies"]  # of all tables in order, 2*radius+2 each that sum to 2**16
    skip: int  # tables of a lower index are not coded: their symbols are 0
    # By quality and class of the picture around a cell, in 2**-8; some models have none.
    post_filter: Annotated[Int8 | None, "filter knots", CLASSES, len(OFFSETS)] = None
    notes: dict[str, str] = field(default_factory=dict)  # provenance: training steps, data, figures
    _file: bytes | None = field(default=None, init=False, repr=False, compare=False)  # what it was read from

    @property
    def projections(self) -> dict[str, tuple[Int8, int]]:
        """What is multiplied outside the networks: name -> (weights, pixels per side of a cell).

        Encoding runs them all, decoding those of the table indices.
        """
        return {
            "latent": (self.latent_weight, 16),
            "detail": (self.detail_weight, 8),
            "rows": (self.row_weight, 64),
            "detail_rows": (self.detail_row_weight, 16),
        }

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, without those that the model does not have."""
        found = ((name, getattr(self, name)) for name in ARRAYS)
        return {name: array for name, array in found if array is not None}

    def sizes(self) -> dict[str, int]:
        """The sizes that shapes are made of; 0 when the array that gives a size has too few axes."""
        latents, features = _matrix(self.latent_weight)
        detail, fine = _matrix(self.detail_weight)
        total = latents + 4 * detail
        entries = 2 * self.table_radius.astype(np.int64) + 2
        return {
            "latents": latents,
            "features": features,
            "details/4": detail,
            "details": 4 * detail,
            "fine features": fine,
            "latents+details": total,
            "16*(latents+details)": 16 * total,
            "hyper-latents": _matrix(self.row_weight)[1],
            "knots": _length(self.step_knots),
            "filter knots": _length(self.post_filter),
            "wide": self.wide.size,
            "tables": self.table_radius.size,
            "frequencies": int(entries.sum()),
        }

    def check(self) -> None:
        """Raise ModelError unless all parts are there, fit together, and obey the tie-free rule."""
        if self.rule not in RULES:
            raise ModelError(f"there is no rule {self.rule}")
        if set(self.networks) != set(NETWORKS):
            names = ", ".join(NETWORKS)
            raise ModelError(f"a model has the networks {names}; this one has {', '.join(self.networks)}")
        for network in self.networks.values():
            network.check(self.rule)
        if not isinstance(self.notes, dict) or not all(isinstance(v, str) for v in self.notes.values()):
            raise ModelError("notes are not texts by name")
        self._check_arrays()
        self._check_faces()

    def _check_faces(self) -> None:
        """The networks' inputs and outputs."""
        size = self.sizes()
        latents, details, hyper = size["latents"], size["details"], size["hyper-latents"]
        synthesis = self.networks["hyper_synthesis"]
        context = synthesis.specs[synthesis.outputs[0]].channels
        # network -> channels of inputs; channels of outputs and their cells per cell of the inputs
        faces: dict[str, tuple[list[int], list[tuple[int, tuple[int, int]]]]] = {
            "analysis": ([3], [(size["features"], (1, 16)), (size["fine features"], (1, 8))]),
            "hyper_analysis": ([latents, details], [(hyper, (1, 4))]),
            "hyper_synthesis": ([hyper], [(context, (4, 1)), (latents, (4, 1)), (latents, (4, 1))]),
            "context": ([context, latents], [(latents, (1, 1))]),
            "synthesis": ([latents + len(self.wide), details], [(3, (16, 1))]),
        }
        for name, (inputs, outputs) in faces.items():
            network = self.networks[name]
            specs, strides = network.specs, network.strides
            if [s.channels for s in network.inputs.values()] != inputs or (
                [(specs[o].channels, strides[o]) for o in network.outputs] != outputs
            ):
                raise ModelError(f"{name}: inputs or outputs do not fit the codec")
            # Pictures are padded to 64 pixels, which is 4 cells of y and one of z.
            cells = {"analysis": 64, "hyper_synthesis": 1}.get(name, 4)
            if any(cells % coarser for _, coarser in strides.values()):
                raise ModelError(f"{name}: its grids do not divide pictures of all sizes")

    def _check_arrays(self) -> None:
        size = self.sizes()
        for name, array in self.arrays.items():
            dtype, dimensions = ARRAYS[name]
            shape = tuple(size[d] if isinstance(d, str) else d for d in dimensions)
            if array.dtype != dtype or array.shape != shape or 0 in shape[1:]:
                raise ModelError(f"{name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}")
        latents, details, hyper = size["latents"], size["details"], size["hyper-latents"]
        if latents == 0 or details == 0 or max(4 * latents, details) > MAX_CHANNELS or hyper > MAX_CHANNELS:
            raise ModelError(f"{latents} latents, {details} details and {hyper} hyper-latents are no codec")
        for count in (size["knots"], *([] if self.post_filter is None else [size["filter knots"]])):
            if count < 2 or 10000 % (count - 1):
                raise ModelError(f"{count} knots are no codec")
        for shift in (self.latent_shift, self.detail_shift):
            if shift.min() < -31 or shift.max() > 16:
                raise ModelError("latent_shift or detail_shift is outside -31..16")
        if self.hyper_gain_knots.min() < -15 << 8 or self.hyper_gain_knots.max() > 15 << 8:
            raise ModelError("hyper_gain_knots exceed 15 octaves")
        if self.wide.size and (self.wide.min() < 0 or (np.diff(self.wide) <= 0).any() or self.wide[-1] >= latents):
            raise ModelError("wide does not list channels in order")
        if self.exp2.min() < 1 << 16 or self.exp2.max() >= 1 << 17:
            raise ModelError("exp2 is outside one octave")
        if not 1 <= size["tables"] <= 256 or self.table_radius.max() > 32767 or self.table_freq.min() < 1:
            raise ModelError("the entropy tables break the coder's limits")
        entries = 2 * self.table_radius.astype(np.int64) + 2
        if (np.add.reduceat(self.table_freq.astype(np.int64), np.cumsum(entries) - entries) != 1 << 16).any():
            raise ModelError("the frequencies of an entropy table do not sum to 65536")
        if type(self.skip) is not int or not 0 <= self.skip < size["tables"]:
            raise ModelError(f"skip {self.skip} is not the index of a table")

    def to_bytes(self) -> bytes:
        """The model file: the one that it was read from, or else a new one. Equal models give equal bytes."""
        if self._file is not None:
            return self._file
        return model_file.write(model_file.Description(self.rule, self.skip, self.notes, self.networks), self.arrays)

    @staticmethod
    def from_bytes(data: bytes) -> IntegerModel:
        """Inverse of `to_bytes`; ModelError on anything that is not a sound model."""
        try:
            description, arrays = model_file.read(data)
            if set(arrays) - set(ARRAYS):
                raise ModelError(f"array {min(set(arrays) - set(ARRAYS))} is unknown")
            required = set(ARRAYS) - {"post_filter"}
            if required - set(arrays):
                raise ModelError(f"array {min(required - set(arrays))} is missing")
            parts: dict[str, Any] = description._asdict() | arrays
            model = IntegerModel(**parts)
            model.check()
        except ModelError:
            raise
        except model_file.FOREIGN as error:
            raise ModelError(f"not a Pocketlic model: {type(error).__name__}: {error}") from error
        object.__setattr__(model, "_file", data)
        return model

    @property
    def model_id(self) -> str:
        """SHA-256 of the model file, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


_DTYPES: dict[object, type[np.generic]] = {
    Int8: np.int8, Int8 | None: np.int8, Int16: np.int16, Int32: np.int32, UInt16: np.uint16,
}  # fmt: skip


def _schema() -> dict[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
    hints = get_type_hints(IntegerModel, include_extras=True)
    annotated = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
    return {name: (np.dtype(_DTYPES[kind]), tuple(shape)) for name, (kind, *shape) in annotated.items()}


ARRAYS = _schema()
"""Name -> dtype and shape of every array that a model can have; a dimension is a number or one of the model's sizes."""


def _matrix(array: NDArray[Any]) -> tuple[int, int]:
    rows, columns = array.shape if array.ndim == 2 else (0, 0)
    return rows, columns


def _length(array: NDArray[Any] | None) -> int:
    return 0 if array is None or array.ndim == 0 else len(array)


def load_model(path: Path) -> IntegerModel:
    """Read a model file; ModelError with one line when it cannot be read or is unsound."""
    try:
        return IntegerModel.from_bytes(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror}") from error
