"""Fitting a model's entropy coding to the symbols it produces.

Training assumes one mixture of Gaussians for every table, and codes z as it is. The symbols of a finished model differ
from that mixture, and from table to table; and z resembles its neighbours. Fitting both saves rate
(docs/experiments/2026-11-23-entropy-model.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from ..models.data import list_photographs
from ..models.entropy import TABLES, fit_mixture, mixture_tables, symbol_bits
from ..quantization.model import IntegerModel
from ..quantization.network import Int8
from .codec import Codec, Executor, hyper_neighbours, reference

SPACING = 1000  # hundredths of quality
QUALITIES = tuple(range(0, 10001, SPACING))
LARGEST = 512  # larger magnitudes are counted as this one
PICTURES, SIDE = 48, 512


def sample(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """The middles, at most 512x512, of 48 pictures spread over a folder, uint8 [H, W, 3]."""
    files = list_photographs(folder)
    chosen = [files[i * len(files) // PICTURES] for i in range(PICTURES)] if len(files) > PICTURES else files
    for path in track(chosen, "calibrating the entropy tables"):
        with Image.open(path) as file:
            left, top = (max(side - SIDE, 0) // 2 for side in file.size)
            yield np.asarray(file.convert("RGB"))[top : top + SIDE, left : left + SIDE]


def count_magnitudes(codec: Codec, coded: Iterable[tuple[NDArray[np.int32], NDArray[np.uint8]]]) -> NDArray[np.int64]:
    """Count each magnitude 0, 1, ..., 512 or more by table, int64 [tables, 513].

    coded: symbols and their table indices, of one shape; skipped symbols do not count.
    """
    counts = np.zeros((len(codec.model.table_radius), LARGEST + 1), np.int64)
    for symbols, indices in coded:
        kept = indices >= codec.model.skip
        cell = indices[kept].astype(np.int64) * (LARGEST + 1) + np.minimum(np.abs(symbols[kept]), LARGEST)
        counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    return counts


def fit_prediction(hypers: Iterable[Int8]) -> Int8:
    """`IntegerModel.hyper_prediction`, int8 [64, 3], with the least squared error on z of pictures, int8 [h, w, 64]."""
    cells = [(hyper_neighbours(z, *at), z[at]) for z in hypers for at in np.ndindex(z.shape[:2])]
    around, center = (np.array(part, float) for part in zip(*cells, strict=True))
    # A channel that hardly varies is not predicted.
    covariance = np.einsum("nci,ncj->cij", around, around) + 10 * np.eye(3)
    weights = np.linalg.solve(covariance, np.einsum("nci,nc->ci", around, center)[:, :, None])[:, :, 0]
    return np.clip(np.round(64 * weights), -128, 127).astype(np.int8)


def fit_hyper_indices(codec: Codec, hypers: dict[int, list[Int8]]) -> NDArray[np.int32]:
    """`IntegerModel.hyper_row_knots` that code z in the fewest bits. hypers: z by quality_hundredths."""
    bits = symbol_bits(torch.arange(LARGEST + 1.0)[None], torch.arange(float(TABLES))[:, None]).numpy()
    knots = np.zeros_like(codec.model.hyper_row_knots)
    for knot in range(len(knots)):
        nearest = min(hypers, key=lambda quality_hundredths: abs(quality_hundredths * (len(knots) - 1) - knot * 10000))
        differences = np.concatenate([codec.differences(z).reshape(-1, knots.shape[1]) for z in hypers[nearest]])
        cost = bits[:, np.minimum(np.abs(differences), LARGEST)].sum(1)
        knots[knot] = cost.argmin(0) << 16
    return knots


def calibrate(
    model: IntegerModel,
    pictures: Iterable[NDArray[np.uint8]],
    run: Executor = reference,
    qualities: tuple[float, float] = (0.0, 100.0),
) -> IntegerModel:
    """The model with z's prediction, table indices and all tables fitted to its symbols on pictures, uint8 [H, W, 3].

    Each picture is coded at all `QUALITIES`; pictures must not be test data. qualities: the range that the model was
    trained for. Tables are fitted to that range alone, because symbols of other qualities fit their tables badly.
    """
    codec = Codec(model, run)
    low, high = (100 * bound for bound in qualities)
    # The neighbours too: gains are interpolated between them.
    counted = [each for each in QUALITIES if low - SPACING < each < high + SPACING]
    counts = np.zeros((len(model.table_radius), LARGEST + 1), np.int64)
    hypers: dict[int, list[Int8]] = {each: [] for each in QUALITIES}
    for picture in pictures:
        for quality_hundredths in QUALITIES:
            symbols = codec.analyse(picture, quality_hundredths)
            hypers[quality_hundredths].append(symbols.z)
            if quality_hundredths in counted:
                counts += count_magnitudes(codec, codec.coded(symbols, quality_hundredths)[1:])
    model = replace(model, hyper_prediction=fit_prediction(chain.from_iterable(hypers.values())))
    model = replace(model, hyper_row_knots=fit_hyper_indices(Codec(model), hypers))
    codec = Codec(model)
    for quality_hundredths in counted:
        counts += count_magnitudes(
            codec, (codec.coded_hyper(z, quality_hundredths) for z in hypers[quality_hundredths])
        )
    radius, freq = mixture_tables(fit_mixture(counts))
    calibrated = replace(model, table_radius=radius, table_freq=freq)
    calibrated.check()
    return calibrated
