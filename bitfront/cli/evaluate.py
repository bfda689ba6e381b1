"""bitfront evaluate: multiple-choice items put to a point of a study or to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bitfront.budget import Budget
from bitfront.cli.options import AsJson
from bitfront.errors import InvalidArgument
from bitfront.loading import uncollected

if TYPE_CHECKING:
    from bitfront.answers import Bools
    from bitfront.exam import Examined

_SMALLEST = 0.001


def evaluate(
    target: Annotated[Path, typer.Argument(help="Results folder of a search, or a checkpoint.")],
    items: Annotated[
        list[Path] | None,
        typer.Option(help="JSON lines with context or question, choices, answer; may be repeated."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-eval, separated by commas: pip install lm-eval.")
    ] = "",
    include: Annotated[
        Path | None, typer.Option(help="Folder with further tasks of lm-eval, as YAML.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Best point within this budget; may be repeated. Default: the study's."),
    ] = None,
    trial: Annotated[
        list[int] | None, typer.Option(help="Number of a measured trial; may be repeated.")
    ] = None,
    n_items: Annotated[
        int | None, typer.Option(help="So many of each, from the first; default: all.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the unquantized model is now; default: where it was.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer multiple-choice items, quantized and not: accuracies, intervals, paired tests."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if bool(items) == bool(names):
        raise InvalidArgument("Give either --items FILE or --tasks NAMES: what is to be answered.")
    with uncollected():
        from bitfront.display import Display
        from bitfront.exam import examined, of_files, of_tasks, points

    with Display(as_json) as display:
        # Read before the model is, which takes longer.
        ask = of_files(items, n_items) if items else of_tasks(names, include, n_items)
        budgets = [Budget.parse(text) for text in at or ()]
        chosen = points(target, budgets, trial or (), model, display.show)
        rows = list(examined(chosen, ask, display.show))
    if as_json:
        for row in rows:
            print(json.dumps(row.to_fields()))
        return
    console = Console()
    for name in dict.fromkeys(row.items for row in rows):
        console.print(answers_table([row for row in rows if row.items == name]))


def answers_table(rows: Sequence[Examined]) -> Table:
    """The points that answered the same items, the unquantized model first; 80 columns wide."""
    table = Table(
        title=f"{escape(rows[0].items)}: {rows[0].answers.n} items; lost, gained and margin (nats) "
        "are against the first row",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for title in ("point", "acc, 95 %", "acc_norm, 95 %", "lost", "gained", "p", "margin", "p"):
        left = title == "point"
        table.add_column(title, justify="left" if left else "right", no_wrap=not left)
    for row in rows:
        shares = [_share(x) for x in (row.answers.correct, row.answers.correct_norm)]
        table.add_row(escape(row.point), *shares, *_paired(row))
    return table


def _share(correct: Bools) -> str:
    """Per cent with its interval: `50.0 (43-57)`."""
    from bitfront.answers import wilson

    interval = wilson(int(correct.sum()), len(correct))
    return f"{100 * correct.mean():.1f} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def _paired(row: Examined) -> tuple[str, ...]:
    if (paired := row.paired) is None:
        return ("",) * 5
    return (
        str(paired.n_lost),
        str(paired.n_gained),
        _p(paired.accuracy_p),
        f"{paired.margin:+.3f}",
        _p(paired.margin_p),
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= _SMALLEST else f"{value:.0e}"
