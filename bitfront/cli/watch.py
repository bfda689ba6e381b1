"""bitfront watch: what a study on a server does, as it does it, and the front at its end."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from bitfront.budget import Budget
from bitfront.cli.options import AsJson
from bitfront.cli.output import print_line
from bitfront.cli.server import PATIENCE, StudyId, connected, page
from bitfront.errors import BitfrontError, InvalidArgument, Unreachable

if TYPE_CHECKING:
    from bitfront.client import Client, RemoteEvent, RemoteStudy
    from bitfront.display import Display
    from bitfront.pareto import ParetoFront
    from bitfront.trial import Trial

logger = logging.getLogger(__name__)

_WAITING_SECONDS = 15.0
_LOOK_SECONDS = 1.0
"""Between looks at the progress of a stage that makes no events."""
_STAGES = {"calibration": "search", "evaluation": "evaluate"}
_UNSHOWN = {"prepare", "propose", "finalists"}
"""Stages of which there is nothing to count."""


def watch(study: StudyId, as_json: AsJson = False) -> None:
    """Watch a study until it is over; exit code 0 when it is complete, else 1."""
    with connected(PATIENCE) as client:
        follow(client, client.find(study), as_json)


def follow(client: Client, study_id: str, as_json: bool) -> None:
    """Show a study until it is over, then its front.

    Raises:
        typer.Exit: with code 1 where the study did not end complete.
    """
    if as_json:
        for event in client.watch(study_id):
            line = {"id": event.id, "event": event.kind, **event.body}
            print(json.dumps(line), flush=True)
        ended = client.get(study_id)
        print(json.dumps({"study": ended.id, "state": ended.state, "error": ended.error}))
    else:
        ended = _shown(client, client.get(study_id))
        _print_end(client, ended)
    if ended.state != "COMPLETE":
        raise typer.Exit(1)


def _shown(client: Client, study: RemoteStudy) -> RemoteStudy:
    """The study once it is over."""
    if study.is_over:
        return study
    from bitfront.display import Display

    with Display(as_json=False) as display:
        watched = _Watched(client, study, display)
        for event in _with_looks(client, study.id):
            if event is not None:
                watched.take(event)
            else:
                watched.look()
    return client.get(study.id)


def _with_looks(client: Client, study_id: str) -> Iterator[RemoteEvent | None]:
    """Events as they come, and `None` where a second passed without one."""
    arrived: queue.Queue[RemoteEvent | BitfrontError | None] = queue.Queue()

    def read() -> None:
        try:
            for event in client.watch(study_id):
                arrived.put(event)
            arrived.put(None)
        except BitfrontError as error:
            arrived.put(error)

    # A daemon: Ctrl-C does not wait for a stream that is quiet.
    threading.Thread(target=read, name="events", daemon=True).start()
    while True:
        try:
            event = arrived.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            yield None
            continue
        if event is None:
            return
        if isinstance(event, BitfrontError):
            raise event
        yield event


class _Watched:
    """Turns what a server tells into what a local search shows.

    Args:
        client: of the server.
        study: as it stood at the beginning.
        display: where it is shown.
    """

    def __init__(self, client: Client, study: RemoteStudy, display: Display) -> None:
        self._client = client
        self._study = study
        self._display = display
        self._wanted = {"search": int(study.request.get("n_trials", 0)), "evaluate": 0}
        self._ended: Counter[str] = Counter()
        self._proposed: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._is_told = False
        # What happened before comes at once and says nothing about the pace.
        self._is_live = False

    def take(self, event: RemoteEvent) -> None:
        """Show an event."""
        stage = _STAGES.get(str(event.body.get("text")), "")
        if event.kind == "proposed":
            self._proposed[stage] += 1
        elif event.kind == "trial" and stage:
            self._ended[stage] += 1
            total = max(self._wanted[stage], self._proposed[stage], self._ended[stage])
            trial = _trial(event.body) if self._is_live else None
            self._show(stage, self._ended[stage], total, trial)

    def look(self) -> None:
        """Show where the study stands while nothing else happens."""
        self._is_live = True
        try:
            study = self._client.get(self._study.id)
        except Unreachable:
            return
        if study.state == "WAITING":
            self._tell_of_waiting()
        elif study.stage not in _UNSHOWN and study.total:
            # The study is read before the events that brought it there: what it has measured by
            # then would be counted twice, as a second search.
            is_measuring = study.stage in self._wanted
            done = self._ended[study.stage] if is_measuring else study.done
            self._show(study.stage, done, study.total)

    def _tell_of_waiting(self) -> None:
        if not self._is_told and time.monotonic() - self._begun > _WAITING_SECONDS:
            self._is_told = True
            logger.warning("No worker has taken the study yet: `bitfront worker` starts one.")

    def _show(self, stage: str, done: int, total: int, trial: Trial | None = None) -> None:
        from bitfront.progress import Event

        self._display.show(Event(stage, done, total, trial))


def _trial(body: Mapping[str, Any]) -> Trial | None:
    """The trial of an event; `None` for one that ended without values."""
    from bitfront.allocation import Allocation
    from bitfront.trial import Trial, TrialState

    values = body.get("values") or {}
    if "bits_per_weight" not in values:
        return None
    state = TrialState(body.get("state", TrialState.COMPLETE))
    place = (int(body["number"]), Allocation({}), str(body["text"]), str(body["origin"]))
    return Trial(*place, state, values, body.get("error"))


def _print_end(client: Client, study: RemoteStudy) -> None:
    from bitfront.report.terminal import front_table

    console = Console()
    front = _front(client, study)
    if front.trials:
        console.print(front_table(front, _chosen(front, study)))
    if study.state != "COMPLETE":
        why = f": {study.error}" if study.error else ""
        print_line(console, f"State: {study.state}{why}")
    print_line(console, f"Page: {page(client, study.id)}")


def _front(client: Client, study: RemoteStudy) -> ParetoFront:
    from bitfront.allocation import Allocation
    from bitfront.pareto import ParetoFront, objectives
    from bitfront.trial import Trial

    points = json.loads(client.front(study.id))
    trials = tuple(
        Trial(
            p["number"], Allocation(p["allocation"]), "evaluation", p["origin"], values=p["values"]
        )
        for p in points
    )
    return ParetoFront(trials, objectives(trials, _bounds(study)))


def _chosen(front: ParetoFront, study: RemoteStudy) -> Trial | None:
    try:
        return front.best(front.goal, **bounds) if (bounds := _bounds(study)) else None
    except (InvalidArgument, KeyError):
        return None


def _bounds(study: RemoteStudy) -> dict[str, float]:
    """What the study's budget bounds; nothing where it is not known or not understood."""
    try:
        return Budget.parse(str(study.request["budget"])).bounds()
    except (InvalidArgument, KeyError):
        return {}
