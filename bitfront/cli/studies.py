"""bitfront studies, cancel, resume, extend: studies on a server, and what is to become of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bitfront.cli.options import AsJson
from bitfront.cli.server import StudyId, connected, line
from bitfront.errors import InvalidArgument

State = Annotated[str | None, typer.Option(help="Only those in this state, such as RUNNING.")]


def studies(state: State = None, as_json: AsJson = False) -> None:
    """List the studies of a server, newest first."""
    with connected() as client:
        for study in client.list(state.upper() if state else None):
            if as_json:
                print(json.dumps(asdict(study)))
            else:
                model = Path(str(study.request.get("model")))
                shown = model.name if model.is_absolute() else model
                print(f"{line(study)}  {shown}  {study.request.get('budget')}")


def cancel(study: StudyId) -> None:
    """Stop a study; what was measured stays."""
    with connected() as client:
        print(line(client.cancel(client.find(study))))


def resume(study: StudyId) -> None:
    """Go on with a study that was cancelled or failed."""
    with connected() as client:
        print(line(client.resume(client.find(study))))


def extend(
    study: StudyId,
    n_trials: Annotated[int | None, typer.Option(help="Measurements in all.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Minutes in all.")] = None,
) -> None:
    """Give a study more measurements or minutes; one that is over goes on."""
    if n_trials is None and max_minutes is None:
        raise InvalidArgument("Nothing to extend by: give --n-trials or --max-minutes, in all.")
    with connected() as client:
        print(line(client.extend(client.find(study), n_trials, max_minutes)))
