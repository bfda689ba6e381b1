"""The `bitfront` command."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bitfront import formats
from bitfront.errors import BitfrontError, InvalidArgument
from bitfront.formats.base import Format
from bitfront.plugins import Choice, Plugins, parameters, settings, summary
from bitfront.study import Budget, Study, TextSource

app = typer.Typer(
    help="Mixed-precision bit allocation: a model and a budget in, a measured Pareto front and a "
    "quantized checkpoint out.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
"""Exit code after Ctrl-C; typer returns it where it caught the interrupt itself."""

_BELOW_BF16 = 15.0
_FORMATS = ",".join(Study.formats)

Model = Annotated[str, typer.Argument(help="Local folder, GGUF file, or hub id.")]
Menu = Annotated[str, typer.Option(help="Menu, separated by commas.")]
CalibrationText = Annotated[str, typer.Option(help="Text file, JSON lines, or datasets name.")]
OneChoice = Annotated[str, typer.Option(help="name or name:key=value,...")]
SequenceLength = Annotated[int, typer.Option(help="Tokens of a block.")]
Ties = Annotated[bool, typer.Option(help="Fused layers (q/k/v, gate/up) share a format.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Out = Annotated[Path, typer.Option("--out", help="Results folder; the same command continues it.")]
ResultsFolder = Annotated[Path, typer.Argument(help="Results folder of a search.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Machine-readable lines instead of a display.")
]


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except BitfrontError as error:
        _fail(" ".join(str(error).split()))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # As in `bitfront front | head`.
        _stop_writing()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:  # not the standard output
            raise
        _stop_writing()
        _fail(f"Cannot write standard output: {error.strerror}.")
    except Exception as error:
        # Typer's usage errors are click exceptions, whichever click it was built on.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())
    if code == _INTERRUPTED:
        continues = sys.argv[1:2] in (["search"], ["compare"])
        kept = (
            " The same command continues: only the measurement, the table or the predictions "
            "in the making are lost."
        )
        print(f"Stopped.{kept * continues}", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _fail(message: str) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


def _stop_writing() -> None:
    """Write nothing more: the interpreter flushes once more at its end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def search(
    model: Model,
    budget: Annotated[str, typer.Option(help="3.5bpw, 3.5bits, or 60MB.")],
    out: Out = Path("results"),
    formats: Menu = _FORMATS,
    calibration: CalibrationText = Study.calibration.source,
    evaluation: Annotated[
        str, typer.Option(help="Another text, for the reported values.")
    ] = Study.evaluation.source,
    estimator: OneChoice = str(Study.estimator),
    search: Annotated[
        str, typer.Option(help="name or name:key=value,...; several, separated by commas, in turn")
    ] = ",".join(map(str, Study.searches)),
    quantizer: OneChoice = str(Study.quantizer),
    costs: Annotated[
        str, typer.Option(help="memory, or with latency: memory,roofline:device=h100")
    ] = ",".join(map(str, Study.costs)),
    n_trials: Annotated[
        int, typer.Option(help="Measurements on the calibration text.")
    ] = Study.n_trials,
    n_pairs: Annotated[
        int, typer.Option(help="Measured interactions, for --search sweep:solver=quadratic.")
    ] = Study.n_pairs,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="Stop when measuring candidates and slopes has taken that long."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop when so many proposals brought nothing.")
    ] = None,
    n_parallel: Annotated[int, typer.Option(help="Proposals in flight.")] = Study.n_parallel,
    ties: Ties = Study.tied,
    pin: Annotated[str, typer.Option(help="Format of embedding and head, or none.")] = Study.pinned
    or "none",
    n_sequences: Annotated[
        int, typer.Option(help="Calibration blocks of estimators and quantizers.")
    ] = TextSource.n_sequences,
    n_search_sequences: Annotated[
        int, typer.Option(help="Further calibration blocks that each trial measures.")
    ] = Study.n_search_sequences,
    n_evaluation_sequences: Annotated[
        int, typer.Option(help="Evaluation blocks.")
    ] = TextSource.n_sequences,
    n_finalists: Annotated[
        int, typer.Option(help="Points measured on the evaluation text.")
    ] = Study.n_finalists,
    sequence_length: SequenceLength = TextSource.sequence_length,
    seed: Seed = Study.seed,
    dtype: Dtype = Study.dtype,
    device: Device = Study.device,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Also write the answer as a packed checkpoint here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the best allocation of MODEL within a budget and measure the front around it."""
    study = Study(
        model=model,
        budget=Budget.parse(budget),
        calibration=TextSource(calibration, n_sequences, sequence_length),
        evaluation=TextSource(evaluation, n_evaluation_sequences, sequence_length),
        formats=_menu(formats),
        quantizer=Choice.parse(quantizer),
        estimator=Choice.parse(estimator),
        searches=Choice.parse_list(search),
        costs=Choice.parse_list(costs),
        n_trials=n_trials,
        n_pairs=n_pairs,
        max_minutes=max_minutes,
        patience=patience,
        n_parallel=n_parallel,
        n_search_sequences=n_search_sequences,
        n_finalists=n_finalists,
        seed=seed,
        tied=ties,
        pinned=None if pin == "none" else pin,
        revision=revision,
        dtype=dtype,
        device=device,
    )
    from bitfront.display import Display
    from bitfront.export.base import check_target
    from bitfront.report.study import report_data
    from bitfront.report.terminal import front_table
    from bitfront.run import export_checkpoint, run_study

    if checkpoint:
        check_target(checkpoint, model)  # before hours are spent
    with Display(as_json) as display:
        front = run_study(study, out, display.show)
        chosen = front.best("kl", **study.budget.bounds())
        data = report_data(out)
        page = _written_report(out, data)
        if checkpoint:
            export_checkpoint(study, chosen, checkpoint, results=out, progress=display.show)
    if as_json:
        written = {"checkpoint": str(checkpoint)} if checkpoint else {}
        row = {"chosen": chosen.number, "values": chosen.values, "report": str(page)}
        print(json.dumps(row | written))
        return
    console = Console()
    console.print(front_table(front, chosen))
    _print_note(console, str(study.estimator), data.loss.note)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)
    if checkpoint:
        console.print(f"Checkpoint: {checkpoint}", soft_wrap=True, highlight=False)


def _print_note(console: Console, estimator: str, note: str) -> None:
    if note:
        console.print(f"{estimator}: {note}", highlight=False, markup=False, soft_wrap=True)


def _menu(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _written_report(out: Path, data: Any) -> Path:
    from bitfront.report.page import write_report

    write_report(out / "report.html", data)
    return (out / "report.html").resolve()


@app.command()
def compare(
    model: Model,
    out: Out = Path("comparison"),
    estimators: Annotated[
        str, typer.Option(help="name or name:key=value,...; several, separated by commas; or all")
    ] = "all",
    formats: Menu = _FORMATS,
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
    seed: Seed = Study.seed,
    dtype: Dtype = Study.dtype,
    device: Device = Study.device,
    as_json: AsJson = False,
) -> None:
    """Run estimators on MODEL and see how well each ranks measured allocations, and its cost."""
    from bitfront.formats import named
    from bitfront.sensitivity import ESTIMATORS

    menu = _menu(formats)
    every = tuple(map(Choice, ESTIMATORS.names()))
    given = Choice.parse_list(estimators)
    chosen = [x for choice in given for x in (every if choice == Choice("all") else (choice,))]
    bits = [named(name).num_bits for name in menu]
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
        formats=menu,
        quantizer=Choice.parse(quantizer),
        estimator=Choice("weight_error"),
        n_search_sequences=n_search_sequences,
        tied=ties,
        seed=seed,
        dtype=dtype,
        device=device,
    )
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
        _print_note(console, row.estimator, row.note)
    page = (out / "comparison.html").resolve()
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


@app.command()
def front(
    results: ResultsFolder,
    format: Annotated[str, typer.Option(help="json, csv or parquet.")] = "json",
    out: Annotated[Path | None, typer.Option(help="File; default: standard output.")] = None,
) -> None:
    """Print or write the measured front of a study."""
    from bitfront.report.points import write_points
    from bitfront.results import Results

    write_points(Results(results).front(), out or sys.stdout, format)


@app.command()
def report(results: ResultsFolder) -> None:
    """Write the HTML report of a study."""
    from bitfront.report.study import report_data

    print(_written_report(results, report_data(results)))


@app.command()
def export(
    results: ResultsFolder,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    at: Annotated[str | None, typer.Option(help="Budget; default: the study's.")] = None,
    exporter: Annotated[str, typer.Option(help="packed or fake_quant.")] = "packed",
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
    print(json.dumps({"checkpoint": str(out), "values": point.values}) if as_json else out)


@app.command()
def plugins(as_json: AsJson = False) -> None:
    """List every estimator, solver, search, quantizer, exporter and format with its parameters."""
    rows = list(_plugin_rows())
    if as_json:
        print(json.dumps([row.__dict__ for row in rows], indent=1))
        return
    console = Console(highlight=False)
    for kind in dict.fromkeys(row.kind for row in rows):
        console.print(f"\n[bold]{kind}[/bold]")
        for row in (r for r in rows if r.kind == kind):
            params = ", ".join(f"{k}={v}" for k, v in row.parameters.items())
            console.print(f"  {row.name}  [dim]{escape(row.summary)}[/dim]", soft_wrap=True)
            if params:
                console.print(f"      {params}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class PluginRow:
    """One alternative as the listing shows it."""

    kind: str
    name: str
    summary: str
    parameters: dict[str, Any]


def plugin_kinds() -> dict[str, Plugins[Any]]:
    """The folders of alternatives, by what one alternative is called."""
    from bitfront.costs import COSTS
    from bitfront.evaluation import METRICS
    from bitfront.export import EXPORTERS
    from bitfront.quantizers import QUANTIZERS
    from bitfront.search import SEARCHES
    from bitfront.sensitivity import ESTIMATORS
    from bitfront.solvers import SOLVERS

    return {
        "estimator": ESTIMATORS,
        "solver": SOLVERS,
        "search": SEARCHES,
        "quantizer": QUANTIZERS,
        "cost": COSTS,
        "metric": METRICS,
        "exporter": EXPORTERS,
    }


def _plugin_rows() -> list[PluginRow]:
    rows = [
        PluginRow(kind, name, summary(folder.load(name)), parameters(folder.load(name)))
        for kind, folder in plugin_kinds().items()
        for name in folder.names()
    ]
    return rows + [_format_row(format) for format in formats.catalogue().values()]


def _format_row(format: Format) -> PluginRow:
    stored = f"{format.bits_per_weight((4096, 4096)):.4g} bits per weight"
    return PluginRow("format", format.name, f"{stored}. {summary(type(format))}", settings(format))
