"""What long work reports as it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitfront.trial import Trial


@dataclass(frozen=True)
class Event:
    """What a running study is doing.

    Args:
        stage: `load`, `text`, `quantize`, `reference`, `estimate`, `slopes`, `screen`, `search`,
            `evaluate`, `ask` or `profile`.
        done: steps done of this stage.
        total: steps in all.
        trial: the measurement that was just finished.
    """

    stage: str
    done: int
    total: int
    trial: Trial | None = None


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Report nothing."""


def counted(progress: Progress, stage: str) -> Callable[[int, int], None]:
    """A callback of `(done, total)` that reports one stage."""
    return lambda done, total: progress(Event(stage, done, total))
