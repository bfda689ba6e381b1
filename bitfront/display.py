"""What the terminal shows while a study runs: progress with rich, or one JSON object a line."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
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
    "load": "Loading the model",
    "text": "Cutting texts into token blocks",
    "quantize": "Quantizing every layer in every format",
    "reference": "Predicting with the unquantized model",
    "estimate": "Estimating sensitivities",
    "slopes": "Following the gradient at the best allocation",
    "search": "Measuring allocations (calibration text)",
    "evaluate": "Measuring the front (evaluation text)",
}


@dataclass
class Display:
    """Shows events on standard error: bars on a terminal, plain lines elsewhere.

    Args:
        as_json: print one JSON object per event on standard output instead.
    """

    as_json: bool
    _progress: Progress = field(init=False)
    _tasks: dict[str, TaskID] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=self.as_json,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Take one event."""
        if self.as_json:
            print(json.dumps(_fields(event)), file=sys.stdout, flush=True)
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._progress.add_task(
                _STAGES[event.stage], total=event.total, note=""
            )
        self._progress.update(
            self._tasks[event.stage], completed=event.done, total=event.total, note=_note(event)
        )


def _note(event: Event) -> str:
    if not event.trial:
        return ""
    values = event.trial.values
    kl = f"kl {values['kl']:.4f}" if "kl" in values else "failed"
    return f"{kl} at {values['bits_per_weight']:.2f} bpw"


def _fields(event: Event) -> dict[str, object]:
    fields: dict[str, object] = {"stage": event.stage, "done": event.done, "total": event.total}
    if event.trial:
        fields["trial"] = json.loads(event.trial.to_json())
    return fields
