"""bitfront compare: how well estimators rank what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bitfront.budget import Budget
from bitfront.cli.options import (
    FORMATS,
    AsJson,
    CalibrationText,
    Device,
    Dtype,
    Experts,
    Menu,
    Model,
    OneChoice,
    Out,
    Seed,
    SequenceLength,
    Ties,
    menu,
)
from bitfront.cli.output import print_line, print_note
from bitfront.errors import InvalidArgument
from bitfront.loading import uncollected
from bitfront.plugins import Choice
from bitfront.study import Study, TextSource

_BELOW_BF16 = 15.0


def compare(
    model: Model,
    out: Out = Path("comparison"),
    estimators: Annotated[
        str, typer.Option(help="name or name:key=value,...; several, separated by commas; or all")
    ] = "all",
    formats: Menu = FORMATS,
    calibration: CalibrationText = Study.calibration.source,
    evaluation: Annotated[
        str, typer.Option(help="Another text; only checked to be another.")
    ] = Study.evaluation.source,
    quantizer: OneChoice = str(Study.quantizer),
    n_allocations: Annotated[int, typer.Option(help="Allocations to measure.")] = 60,
    n_sequences: Annotated[int, typer.Option(help="Calibration blocks of estimators.")] = 8,
    n_search_sequences: Annotated[
        int, typer.Option(help="Further blocks on which KL is measured.")
    ] = Study.n_search_sequences,
    sequence_length: SequenceLength = TextSource.sequence_length,
    ties: Ties = Study.tied,
    experts: Experts = Study.experts,
    seed: Seed = Study.seed,
    dtype: Dtype = Study.dtype,
    device: Device = Study.device,
    as_json: AsJson = False,
) -> None:
    """Run estimators on MODEL and see how well each ranks measured allocations, and its cost."""
    from bitfront.formats import named
    from bitfront.sensitivity import ESTIMATORS

    names = menu(formats)
    every = tuple(map(Choice, ESTIMATORS.names()))
    given = Choice.parse_list(estimators)
    chosen = [x for choice in given for x in (every if choice == Choice("all") else (choice,))]
    bits = [named(name).code_bits for name in names]
    if len(set(bits)) < 2 or not chosen:
        raise InvalidArgument(
            f"Given formats {formats!r} and estimators {estimators!r}: a comparison needs formats "
            "of at least two widths, and an estimator."
        )
    study = Study(
        model=model,
        # No search is made: any budget that the menu can meet.
        budget=Budget(min(max(bits), _BELOW_BF16), "bits"),
        calibration=TextSource(calibration, n_sequences, sequence_length),
        evaluation=TextSource(evaluation, 1, sequence_length),
        formats=names,
        quantizer=Choice.parse(quantizer),
        estimator=Choice("weight_error"),
        n_search_sequences=n_search_sequences,
        tied=ties,
        experts=experts,
        seed=seed,
        dtype=dtype,
        device=device,
    )
    with uncollected():
        from bitfront.compare import compare as compare_all
        from bitfront.display import Display
        from bitfront.report.comparison import comparison_table, write_comparison

    with Display(as_json) as display:
        rows = compare_all(study, chosen, out, n_allocations, display.show)
    write_comparison(out / "comparison.html", Path(model).name, rows)
    if as_json:
        for row in rows:
            print(json.dumps(row.__dict__))
        return
    console = Console()
    console.print(comparison_table(rows))
    for row in rows:
        print_note(console, row.estimator, row.note)
    page = (out / "comparison.html").resolve()
    print_line(console, f"Report: {page}")
