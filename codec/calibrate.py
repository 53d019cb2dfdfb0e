"""Fitting a model's entropy tables to the symbols it produces.

Training assumes one mixture of Gaussians for every row. The symbols of a finished model differ from it, and from
row to row; tables that say so save rate (models/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from ..models.data import list_photographs
from ..models.entropy import fit_mixture, mixture_tables
from ..quantization.integer import IntegerModel
from .codec import Codec, Executor, reference

QUALITIES = tuple(range(0, 10001, 1000))  # hundredths
LARGEST = 512  # larger symbols count as this
PICTURES, SIDE = 48, 512


def sample(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """The middles, at most 512x512, of 48 pictures spread over a folder, uint8 [H, W, 3]."""
    files = list_photographs(folder)
    chosen = [files[i * len(files) // PICTURES] for i in range(PICTURES)] if len(files) > PICTURES else files
    for path in track(chosen, "calibrating the entropy tables"):
        with Image.open(path) as file:
            left, top = (max(side - SIDE, 0) // 2 for side in file.size)
            yield np.asarray(file.convert("RGB"))[top : top + SIDE, left : left + SIDE]


def count_symbols(codec: Codec, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """How often each magnitude 0, 1, ..., 512 or more comes in each table row, int64 [rows, 513].

    pictures: uint8 [H, W, 3], each coded at every one of `QUALITIES`.
    """
    counts = np.zeros((len(codec.model.table_radius), LARGEST + 1), np.int64)
    for picture in pictures:
        for quality in QUALITIES:
            for symbols, rows in codec.coded(codec.analyse(picture, quality), quality):
                coded = rows >= codec.model.skip
                cell = rows[coded].astype(np.int64) * (LARGEST + 1) + np.minimum(np.abs(symbols[coded]), LARGEST)
                counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    return counts


def calibrate(model: IntegerModel, pictures: Iterable[NDArray[np.uint8]], run: Executor = reference) -> IntegerModel:
    """The model with tables fitted to its symbols on pictures, uint8 [H, W, 3], which must not be test data."""
    radius, freq = mixture_tables(fit_mixture(count_symbols(Codec(model, run), pictures)))
    calibrated = replace(model, table_radius=radius, table_freq=freq)
    calibrated.check()
    return calibrated
