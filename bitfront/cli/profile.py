"""bitfront profile: how fast packed layers run here, and whether predictions hold."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from bitfront.budget import Budget
from bitfront.cli.options import FORMATS, AsJson, Device, Dtype, Menu, menu
from bitfront.cli.output import print_line
from bitfront.errors import InvalidArgument
from bitfront.loading import uncollected
from bitfront.study import Study

if TYPE_CHECKING:
    from bitfront.profile import Checked
    from bitfront.timings import Timings

_SHAPE = re.compile(r"\s*([0-9]+)x([0-9]+)\s*")


def profile(
    model: Annotated[
        str | None,
        typer.Argument(help="Local folder, GGUF file, or hub id; its layers and its step."),
    ] = None,
    formats: Menu = FORMATS,
    batch: Annotated[str, typer.Option(help="Sequences decoded together, as in 1,16.")] = "1",
    context: Annotated[str, typer.Option(help="Tokens before the step, as in 512,2048.")] = "2048",
    shapes: Annotated[
        str | None, typer.Option(help="Further layers, as in 4096x4096 (outputs x inputs).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Table; the same command continues it.")] = Path(
        "latency.json"
    ),
    pin: Annotated[str, typer.Option(help="Format of embedding and head, or none.")] = Study.pinned
    or "none",
    rounds: Annotated[int, typer.Option(help="How often everything is timed.")] = 5,
    seconds: Annotated[float, typer.Option(help="How long one thing is timed in a round.")] = 0.1,
    check: Annotated[
        Path | None,
        typer.Option(help="Results folder: decode its best point, and compare with what it says."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="With --check: budget of the point; default: the study's.")
    ] = None,
    n_points: Annotated[int, typer.Option(help="With --check: points of the front.")] = 1,
    dtype: Dtype = Study.dtype,
    device: Device = Study.device,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time packed layers on this device, for --costs memory,latency:table=FILE."""
    if check is not None:
        if model or shapes:
            raise InvalidArgument("Give a model to time, or --check with a results folder.")
        _check(check, at, n_points, rounds, seconds, as_json)
        return
    with uncollected():
        from bitfront.display import Display
        from bitfront.profile import Request
        from bitfront.profile import profile as timed

    request = Request(
        formats=menu(formats),
        batches=_numbers("--batch", batch),
        contexts=_numbers("--context", context),
        model=model,
        shapes=_shapes(shapes) if shapes else (),
        pinned=None if pin == "none" else pin,
        dtype=dtype,
        device=device,
        revision=revision,
    )
    with Display(as_json) as display:
        timings = timed(request, out, display.show, rounds, seconds)
    if as_json:
        print(json.dumps({"table": str(out), "n_entries": len(timings.entries)}))
        return
    console = Console()
    console.print(_table(timings))
    print_line(console, f"{timings.device}, {timings.dtype}. Table: {out}")


def _check(
    results: Path, at: str | None, n_points: int, rounds: int, seconds: float, as_json: bool
) -> None:
    from bitfront.display import Display
    from bitfront.profile import check

    budget = Budget.parse(at) if at else None
    with Display(as_json) as display:
        rows = check(results, budget, n_points, display.show, rounds, seconds)
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row) | {"error": row.error}))
        return
    console = Console()
    console.print(_checked(rows))
    print_line(console, f"{rows[0].device}, {rows[0].dtype}. Rows: {results / 'latency.json'}")


def _table(timings: Timings) -> Table:
    from bitfront.timings import LayerCall

    table = Table("layer", "format", "batch", "us", "spread", title="Median times", box=None)
    rows = []
    for key, timing in timings.entries.items():
        if isinstance(key, LayerCall):
            order = (1, *key.shape, key.batch, timing.ns)
            names = (f"{key.shape[0]}x{key.shape[1]}", key.format, str(key.batch))
        else:
            order = (0, key.context, 0, key.batch, timing.ns)
            names = ("rest of the step", f"context {key.context}", str(key.batch))
        rows.append((order, (*names, f"{timing.ns / 1e3:.1f}", f"{timing.spread / timing.ns:.0%}")))
    for _, texts in sorted(rows):
        table.add_row(*texts)
    return table


def _checked(rows: list[Checked]) -> Table:
    table = Table(
        "trial", "batch", "context", "predicted ms", "measured ms", "spread", "error",
        title="Decoding steps", box=None,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            *(str(row.number), str(row.batch), str(row.context)),
            *(f"{row.predicted_ns / 1e6:.3f}", f"{row.measured_ns / 1e6:.3f}"),
            *(f"{row.spread_ns / row.measured_ns:.0%}", f"{row.error:+.1%}"),
        )
    return table


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidArgument(
            f"Cannot read {option} {text!r}: give whole numbers, as in 1,16."
        ) from error


def _shapes(text: str) -> tuple[tuple[int, int], ...]:
    found = [_SHAPE.fullmatch(part) for part in text.split(",")]
    if not all(found):
        raise InvalidArgument(
            f"Cannot read --shapes {text!r}: give outputs x inputs, as in 4096x4096,14336x4096."
        )
    return tuple((int(m.group(1)), int(m.group(2))) for m in found if m)
