"""What a running study shows: bars on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from bitfront.progress import Event
    from bitfront.trial import Trial

_STAGES = {
    "fetch": "Fetch from the hub",
    "load": "Load model",
    "text": "Cut texts",
    "quantize": "Quantize",
    "reference": "Reference",
    "estimate": "Estimate",
    "slopes": "Slopes",
    "pairs": "Pairs",
    "screen": "Screen",
    "search": "Search",
    "evaluate": "Evaluate",
    "ask": "Answer items",
    "wait": "Wait for a worker",
    "write": "Write",
    "profile": "Time",
    "download": "Download",
}
_MEASURING = frozenset({"search", "evaluate"})
"""Stages whose steps make a trial each; a step without one was found stored."""
_SECONDS_BETWEEN_LINES = 5.0
_RECENT_SECONDS = 30.0
_RECENT_STEPS = 16
"""The pace is that of the last seconds or the last steps, whichever are more."""


@dataclass
class Stage:
    """Where one stage stands; some run several times, such as `reference` for each text."""

    done: int = 0
    total: int = 0
    n_runs: int = 0
    last_line: float = 0.0
    task: TaskID | None = None
    _last_step: float = 0.0
    _pace: float | None = None
    _recent: deque[tuple[float, float, int]] = field(default_factory=deque)

    def take(self, event: Event, now: float) -> bool:
        """Note an event; true when it begins the stage, for the first time or again."""
        begins = self.n_runs == 0 or event.done < self.done
        n_steps = event.done - self.done
        if not begins and n_steps > 0 and (event.trial or event.stage not in _MEASURING):
            self._time(now, n_steps)
        # From step to step: what a search does between its trials is part of its pace.
        if begins or n_steps > 0:
            self._last_step = now
        self.n_runs += begins
        self.done, self.total = event.done, event.total
        return begins

    def _time(self, now: float, n_steps: int) -> None:
        self._recent.append((now, now - self._last_step, n_steps))
        while len(self._recent) > _RECENT_STEPS and self._recent[0][0] < now - _RECENT_SECONDS:
            self._recent.popleft()
        seconds = sum(seconds for _, seconds, _ in self._recent)
        # Kept as a number, because the bars are drawn by a thread of their own.
        self._pace = seconds / sum(n for _, _, n in self._recent) or None

    def left(self, now: float) -> float | None:
        """Estimated seconds to the end of the stage; `None` before its pace is known.

        Rich's own estimate forgets steps after 30 seconds, so it has none for longer steps.
        """
        if self.done >= self.total:
            return 0.0
        if self._pace is None:
            return None
        in_step = min(now - self._last_step, self._pace)
        return self._pace * (self.total - self.done) - in_step


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
            self._progress = _bars(self.console, self.clock)

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
        begins = stage.take(event, self.clock())
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
        parts = [
            _clock(int(now - self._start)),
            _title(stage, event),
            f"{event.done}/{event.total}",
        ]
        left = stage.left(now)
        parts += [f"left {_clock(left)}"] if left else []
        parts += [_note(event.trial)] if event.trial else []
        _print(self.console, " ".join(parts))


class _Warnings(logging.Handler):
    """Prints what is logged, above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.console, f"{record.levelname.capitalize()}: {record.getMessage()}")


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    """Seconds, rounded up, as `h:mm:ss`."""
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class _TimeLeft(ProgressColumn):
    """What `Stage.left` estimates."""

    def render(self, task: Task) -> Text:
        left = task.fields["stage"].left(task.get_time())
        text = "-:--:--" if left is None else _clock(left)
        return Text(f"left {text}", style="progress.remaining")


def _bars(console: Console, clock: Callable[[], float]) -> Progress:
    """One line a stage; with a note at most 80 columns."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(),
        TextColumn("{task.fields[note]}"),
        console=console,
        get_time=clock,
    )


def _move(progress: Progress, stage: Stage, event: Event, begins: bool) -> None:
    title = _title(stage, event)
    if stage.task is None:
        stage.task = progress.add_task(title, total=event.total, note="", stage=stage)
    elif begins:
        # Not another bar: `slopes` and `screen` begin once per proposal.
        progress.reset(stage.task, total=event.total, description=title)
    progress.update(stage.task, completed=event.done, total=event.total)
    if event.trial:  # its values stay while the next one is measured
        progress.update(stage.task, note=_note(event.trial))


def _title(stage: Stage, event: Event) -> str:
    title = _STAGES.get(event.stage, event.stage)
    return title if stage.n_runs == 1 else f"{title} ({stage.n_runs})"


def _note(trial: Trial) -> str:
    values = trial.values
    name = trial.loss_name
    loss = f"{name} {values[name]:.4f}" if name in values else "failed"
    return f"{loss} {values['bits_per_weight']:.2f} bpw"


def _fields(event: Event) -> dict[str, object]:
    fields: dict[str, object] = {"stage": event.stage, "done": event.done, "total": event.total}
    if event.trial:
        fields["trial"] = json.loads(event.trial.to_json())
    return fields
