"""The process that trains: its device, its group, its memory, and the signals that stop it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks; by default it maps the pages of each large tensor anew, with page faults."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # not glibc: nothing to tune
        pass


class StopSignal:
    """While entered, the first SIGINT or SIGTERM only asks to stop after the current step."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> StopSignal:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def agreed(self, world: int, device: torch.device) -> bool:
        """Whether any process has been asked to stop. All must stop at the same step, or the others hang."""
        if world == 1:
            return self.received
        flag = torch.tensor(float(self.received), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        signal.signal(number, signal.SIG_DFL)


def accelerator() -> torch.device:
    """The GPU of this process, or the CPU."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def process_group() -> Iterator[tuple[int, int, torch.device]]:
    """(rank, number of processes, device); joins torchrun's group when started by it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, device = int(os.environ.get("RANK", "0")), accelerator()
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield rank, world, device
    finally:
        if world > 1:
            dist.destroy_process_group()
