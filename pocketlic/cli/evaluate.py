"""The command `pocketlic evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..codec.errors import PlicError
from ..console import one_line_errors, printable, table_console
from .options import CHOICE_HELP, RuleOption


def evaluate(
    images: Annotated[Path, typer.Argument(help="folder of pictures")],
    out: Annotated[Path, typer.Option(help="folder for files and results; what it has already is not redone")],
    qualities: Annotated[str, typer.Option(help="of Pocketlic, 0 to 100")] = "0,10,25,40,55,70,85,95,100",
    rule: RuleOption = "cpu",
    tune: Annotated[str | None, typer.Option(help=f"{CHOICE_HELP}; both with a comma")] = None,
    model: Annotated[Path | None, typer.Option(help="an integer model file instead of the rule's")] = None,
    effort: Annotated[str, typer.Option(help="of Pocketlic, 0 to 9; a curve for each")] = "0",
    check_reference: Annotated[
        bool, typer.Option("--check-reference", help="repeat with the NumPy reference; slow")
    ] = False,
    old_check_reference: Annotated[
        bool, typer.Option("--verify", hidden=True, help="an older name of --check-reference")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="processes of one thread each")] = 1,
    codecs: Annotated[str, typer.Option(help="names separated by commas, or all")] = "pocketlic",
    metrics: Annotated[str, typer.Option(help="names separated by commas, jpeg-ai, or all")] = "rgb_psnr,yuv_psnr",
    vvc: Annotated[Path | None, typer.Option(help="folder of VVC streams NAME_qpQP.266 to compare with")] = None,
    anchor: Annotated[
        str | None, typer.Option(help="codec that the others' BD-rates are against; default: vvc if there, else jpeg")
    ] = None,
) -> None:
    """Measure rate and distortion of codecs on pictures: real files, curves and BD-rates.

    Exit code 1: Pocketlic's files are off their estimated entropy, or not equal to the reference's.
    """
    with one_line_errors("profile"):
        from ..profiling.evaluation.codecs import parse_codecs
        from ..profiling.evaluation.metrics import parse_metrics
        from ..profiling.evaluation.rate_distortion import evaluate as run
        from ..profiling.evaluation.rate_distortion import with_an_anchor
        from ..profiling.evaluation.report import print_tables, write_json, write_page, write_plots

        if out.is_dir() and images.is_dir() and out.samefile(images):
            raise PlicError(f"cannot write into {out}: the plots would be taken for pictures; name another folder")
        chosen = parse_codecs(codecs, qualities, effort, rule, model, vvc, tune)
        if anchor is None:
            chosen = with_an_anchor(chosen, images)
        check = check_reference or old_check_reference
        evaluation = run(images, chosen, out, parse_metrics(metrics), jobs=jobs, check_reference=check, anchor=anchor)
        write_json(evaluation, out / "evaluation.json")
        write_plots(evaluation, out)
        page = write_page(evaluation, images, chosen, out, jobs)
        print_tables(evaluation, table_console())
        typer.echo(f"wrote {printable(page)}")
    if evaluation.off_entropy or evaluation.unequal:
        raise typer.Exit(1)
