"""The command line: `pocketlic SUBCOMMAND`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="folder of photographs, searched recursively")],
    out: Annotated[Path, typer.Option(help="folder for checkpoints and logs; resumed when it has a checkpoint")],
    steps: int = 100_000,
    batch: int = 8,
    crop: int = 256,
    muon_lr: float = 0.01,
    adam_lr: float = 1e-3,
    decay: Annotated[float, typer.Option(help="final part of the steps in which the learning rate falls to 0")] = 0.2,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="CPU threads, 0 for torch's choice")] = 0,
    bf16: bool = True,
    kodak: Annotated[Optional[Path], typer.Option(help="folder of evaluation pictures for periodic checks")] = None,
    save_minutes: float = 5.0,
    check_minutes: float = 20.0,
) -> None:
    """Train the float codec, or resume training it."""
    from .models.train import TrainOptions
    from .models.train import train as run

    options = TrainOptions(
        data, out, steps, batch, crop, muon_lr, adam_lr, 200, decay, 0.9995, seed, threads, bf16, kodak,
        save_minutes, check_minutes,
    )  # fmt: skip
    run(options)


if __name__ == "__main__":
    app()
