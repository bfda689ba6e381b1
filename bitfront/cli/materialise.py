"""bitfront materialise: a point of a server's study, written there and brought here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.cli.options import AsJson, ExporterChoice
from bitfront.cli.output import tell_notes
from bitfront.cli.server import PATIENCE, StudyId, connected
from bitfront.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from bitfront.client import Client, RemoteCheckpoint

_LOOK_SECONDS = 0.5


def materialise(
    study: StudyId,
    at: Annotated[str, typer.Option(help="Budget: 3.5bpw, 3.5bits, or 60MB.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    exporter: ExporterChoice = "packed",
    as_json: AsJson = False,
) -> None:
    """Have the best point within a budget written by the server, and download it."""
    from bitfront.display import Display
    from bitfront.progress import Event

    with connected(PATIENCE) as client, Display(as_json) as display:
        made = client.materialise(client.find(study), at=at, exporter=exporter)
        written = _written(client, made, lambda stage: display.show(Event(stage, 0, 1)))
        display.show(Event("write", 1, 1))
        _check_free(out, written)
        client.download(
            written, out, lambda done, total: display.show(Event("download", done, total))
        )
    tell_notes(out)
    print(json.dumps({"checkpoint": str(out), **asdict(written)}) if as_json else out)


def _check_free(out: Path, written: RemoteCheckpoint) -> None:
    """Refuse a folder that has files which are none of a checkpoint's.

    Raises:
        InvalidArgument: names one of them.
    """
    ours = {file.name.partition("/")[0] for file in written.files}
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = sorted(name for name in there - ours if not name.startswith("."))
    if others:
        raise InvalidArgument(
            f"{out} has files of something else, such as {others[0]}: give a new or empty folder."
        )


def _written(
    client: Client, made: RemoteCheckpoint, show: Callable[[str], None]
) -> RemoteCheckpoint:
    """The checkpoint once it has files; shows whether it waits or is being written.

    Raises:
        Conflict: it could not be written.
    """
    shown = ""
    while True:
        now = client.checkpoint(made.study_id, made.number)
        stage = "write" if now.state != "WAITING" else "wait"
        if stage != shown:
            show(stage)
            shown = stage
        if now.state == "COMPLETE":
            return now
        if now.is_over:
            raise Conflict(
                f"Checkpoint {now.number} of study {now.study_id} was not written: "
                f"{now.error or now.state}"
            )
        time.sleep(_LOOK_SECONDS)
