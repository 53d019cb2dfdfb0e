"""Photographs in memory, and random crops of them that depend on nothing but (seed, step, rank)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from .drawn import draw

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".ppm", ".tif", ".tiff"}


def list_photographs(folder: Path) -> list[Path]:
    """Picture files below `folder`, sorted; FileNotFoundError when there is none, or no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise FileNotFoundError(f"no pictures in {folder}")
    return files


class Photographs:
    """All pictures of a folder, decoded once to uint8[H, W, 3], from which batches of crops are drawn.

    A batch is a function of (seed, step, rank) alone, so resuming at a step needs no saved data position.
    drawn: the part of the crops that are drawn by code (`drawn.py`) instead.
    FileNotFoundError when no picture is as large as a crop; OSError when one cannot be read.
    """

    def __init__(self, folder: Path, crop: int, batch: int, seed: int = 0, drawn: float = 0.0) -> None:
        self.crop, self.batch, self.seed, self.drawn = crop, batch, seed, drawn
        self.images: list[NDArray[np.uint8]] = []
        for path in track(list_photographs(folder), "decoding photographs"):
            with Image.open(path) as file:
                image = np.asarray(file.convert("RGB"))
            if min(image.shape[:2]) >= crop:
                self.images.append(image)
        if not self.images:
            raise FileNotFoundError(f"no picture in {folder} is at least {crop} pixels high and wide")
        areas = np.array([i.shape[0] * i.shape[1] for i in self.images], float)
        self.cumulative = np.cumsum(areas / areas.sum())

    def __call__(self, step: int, rank: int = 0) -> Tensor:
        """Crops [batch, 3, crop, crop], uint8, channels_last."""
        rng = np.random.default_rng([self.seed, step, rank])
        crops = np.stack([self._crop(rng) for _ in range(self.batch)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2)

    def ahead(self, steps: range, rank: int = 0, pin: bool = False) -> Iterator[Tensor]:
        """The batches of `steps`, cut while their predecessors are used; pinned for a GPU if asked."""
        workers = 8 if pin else 1

        def batch(step: int) -> Tensor:
            return self(step, rank).pin_memory() if pin else self(step, rank)

        with ThreadPoolExecutor(workers) as pool:
            waiting = deque(pool.submit(batch, step) for step in steps[: 2 * workers])
            try:
                for step in steps:
                    yield waiting.popleft().result()
                    if step + 2 * workers in steps:
                        waiting.append(pool.submit(batch, step + 2 * workers))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _crop(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        n = self.crop
        if self.drawn and rng.random() < self.drawn:
            return draw(rng, n)
        while True:
            index = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.images) - 1)
            image = self.images[index]
            top, left = (int(rng.integers(side - n + 1)) for side in image.shape[:2])
            crop = image[top : top + n, left : left + n]
            # Skies and walls cost no bits and teach little: keep a quarter of them.
            if crop[::4, ::4].std() > 12 or rng.random() < 0.25:
                break
        # Moving whole pixels is several times faster than moving bytes.
        pixels = crop.view("V3")[..., 0]
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if rng.random() < 0.5:
            pixels = pixels.T
        return np.ascontiguousarray(pixels).view(np.uint8).reshape(n, n, 3)
