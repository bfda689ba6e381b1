"""What a running study shows: bars on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from bitfront.inputs import Event

_STAGES = {
    "load": "Load model",
    "text": "Cut texts",
    "quantize": "Quantize",
    "reference": "Reference",
    "estimate": "Estimate",
    "slopes": "Slopes",
    "search": "Search",
    "evaluate": "Evaluate",
}
_SECONDS_BETWEEN_LINES = 5.0


@dataclass
class Stage:
    """Where one stage stands; some run several times, such as `reference` for each text."""

    done: int = 0
    n_runs: int = 0
    last_line: float = 0.0
    task: TaskID | None = None

    def take(self, event: Event) -> bool:
        """Note an event; true when it begins the stage, for the first time or again."""
        begins = self.n_runs == 0 or event.done < self.done
        self.n_runs += begins
        self.done = event.done
        return begins


@dataclass
class Display:
    """Shows events on standard error: bars on a terminal, plain lines elsewhere.

    Warnings that the library logs inside the block are lines of their own.

    Args:
        as_json: write one JSON object per event on standard output instead.
        console: where to show.
        clock: seconds, for the time between plain lines.
    """

    as_json: bool
    console: Console = field(default_factory=lambda: Console(stderr=True))
    clock: Callable[[], float] = time.monotonic
    _stages: dict[str, Stage] = field(default_factory=dict, init=False)
    _progress: Progress | None = field(default=None, init=False)
    _start: float = field(init=False)
    _warnings: logging.Handler = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()
        self._warnings = _Warnings(self.console)
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.as_json:
            self._progress = _bars(self.console)

    def __enter__(self) -> Display:
        logging.getLogger("bitfront").addHandler(self._warnings)
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger("bitfront").removeHandler(self._warnings)
        if self._progress:
            self._progress.stop()

    def show(self, event: Event) -> None:
        """Take one event."""
        if self.as_json:
            sys.stdout.write(json.dumps(_fields(event)) + "\n")
            sys.stdout.flush()
            return
        stage = self._stages.setdefault(event.stage, Stage())
        begins = stage.take(event)
        if self._progress:
            _move(self._progress, stage, event, begins)
        else:
            self._line(stage, event, begins)

    def _line(self, stage: Stage, event: Event, begins: bool) -> None:
        now = self.clock()
        due = now - stage.last_line >= _SECONDS_BETWEEN_LINES
        if not (begins or due or event.trial or event.done >= event.total):
            return
        stage.last_line = now
        elapsed = timedelta(seconds=int(now - self._start))
        text = f"{elapsed} {_title(stage, event)} {event.done}/{event.total} {_note(event)}"
        _print(self.console, text.rstrip())


class _Warnings(logging.Handler):
    """Prints what is logged, above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.console, f"{record.levelname.capitalize()}: {record.getMessage()}")


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bars(console: Console) -> Progress:
    """One line a stage; with a note at most 80 columns."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _move(progress: Progress, stage: Stage, event: Event, begins: bool) -> None:
    title = _title(stage, event)
    if stage.task is None:
        stage.task = progress.add_task(title, total=event.total, note="")
    elif begins:
        # Not another bar: `slopes` begins once per proposal.
        progress.reset(stage.task, total=event.total, description=title)
    progress.update(stage.task, completed=event.done, total=event.total, note=_note(event))


def _title(stage: Stage, event: Event) -> str:
    title = _STAGES.get(event.stage, event.stage)
    return title if stage.n_runs == 1 else f"{title} ({stage.n_runs})"


def _note(event: Event) -> str:
    if not event.trial:
        return ""
    values = event.trial.values
    kl = f"kl {values['kl']:.4f}" if "kl" in values else "failed"
    return f"{kl} {values['bits_per_weight']:.2f} bpw"


def _fields(event: Event) -> dict[str, object]:
    fields: dict[str, object] = {"stage": event.stage, "done": event.done, "total": event.total}
    if event.trial:
        fields["trial"] = json.loads(event.trial.to_json())
    return fields
