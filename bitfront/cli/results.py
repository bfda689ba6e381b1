"""bitfront front, report, export: what a search left in its results folder."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bitfront.cli.options import AsJson, ExporterChoice, ResultsFolder
from bitfront.cli.output import tell_rounded, written_report
from bitfront.cli.server import connected
from bitfront.study import Budget

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
    results: ResultsFolder,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    at: Annotated[str | None, typer.Option(help="Budget; default: the study's.")] = None,
    exporter: ExporterChoice = "packed",
    model: Annotated[
        str | None, typer.Option(help="Where the model is now; default: where it was.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the checkpoint of the best measured point within a budget."""
    from bitfront.results import Results

    folder = Results(results)
    study = replace(folder.study, model=model) if model else folder.study
    budget = Budget.parse(at) if at else study.budget
    point = folder.front().best("kl", **budget.bounds())
    from bitfront.display import Display
    from bitfront.run import export_checkpoint

    with Display(as_json) as display:
        export_checkpoint(study, point, out, exporter, results, display.show)
    tell_rounded(out)
    print(json.dumps({"checkpoint": str(out), "values": point.values}) if as_json else out)
