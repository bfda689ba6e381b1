"""bitfront front, report, export: what a search left in its results folder."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bitfront.budget import Budget
from bitfront.cli.options import AsJson, ResultsFolder
from bitfront.cli.output import tell_notes, tell_requantized, written_report
from bitfront.cli.server import connected
from bitfront.errors import InvalidArgument
from bitfront.loading import uncollected
from bitfront.progress import Progress
from bitfront.trial import Trial

_ID = re.compile(r"[0-9a-f]{4,32}")


def front(
    results: Annotated[str, typer.Argument(help="Results folder, or id of a server's study.")],
    format: Annotated[str, typer.Option(help="json, csv or parquet.")] = "json",
    out: Annotated[Path | None, typer.Option(help="File; default: standard output.")] = None,
) -> None:
    """Print or write the measured front of a study."""
    from bitfront.report.points import check_format, write_data, write_points
    from bitfront.results import Results

    if Path(results).exists() or not _ID.fullmatch(results):
        write_points(Results(Path(results)).front(), out or sys.stdout, format)
        return
    with connected() as client:
        check_format(format)
        write_data(client.front(client.find(results), format), out or sys.stdout, format)


def report(results: ResultsFolder) -> None:
    """Write the HTML report of a study."""
    from bitfront.report.study import report_data

    print(written_report(results, report_data(results)))


def export(
    results: Annotated[
        Path, typer.Argument(help="Results folder of a search, or a checkpoint to write again.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    at: Annotated[str | None, typer.Option(help="Budget; default: the study's.")] = None,
    exporter: Annotated[
        str | None,
        typer.Option(
            help="name or name:key=value,...; default: that of the runtime, else packed; of a "
            "checkpoint, the one that wrote it."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the model is now; default: where it was.")
    ] = None,
    requantize: Annotated[
        str | None,
        typer.Option(
            help="gptaq, with parameters such as gptaq:share=0.5: make the weights anew for this "
            "point and measure it again."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the checkpoint of the best measured point within a budget, or one again."""
    from bitfront.display import Display
    from bitfront.manifest import Manifest
    from bitfront.notes import MANIFEST

    before: Trial | None = None
    with Display(as_json) as display:
        if (results / MANIFEST).exists():
            for given, what in ((at, "a budget"), (requantize, "requantize")):
                if given is not None:
                    raise InvalidArgument(
                        f"{results} is a checkpoint: {what} has no meaning there."
                    )
            from bitfront.proof.again import export_again

            export_again(results, out, exporter, model, display.show)
        else:
            before = _export(results, out, at, exporter, model, requantize, display.show)
    tell_notes(out)
    trial = Manifest.read(out).trial
    row: dict[str, object] = {"checkpoint": str(out), "values": trial.values}
    if requantize is not None and before is not None:
        tell_requantized(requantize, before, trial)
        row["values_before"] = before.values
    print(json.dumps(row) if as_json else out)


def _export(
    results: Path,
    out: Path,
    at: str | None,
    exporter: str | None,
    model: str | None,
    requantize: str | None,
    progress: Progress,
) -> Trial:
    """The point that was exported, as the search measured it."""
    with uncollected():
        from bitfront.results import Results
        from bitfront.run import export_checkpoint

    folder = Results(results)
    study = replace(folder.study, model=model) if model else folder.study
    budget = Budget.parse(at) if at else study.budget
    front = folder.front()
    point = front.best(front.goal, **budget.bounds())
    usual = study.deployment.exporter if study.deployment else "packed"
    export_checkpoint(
        study, point, out, exporter or usual, results, progress, requantize=requantize
    )
    return point
