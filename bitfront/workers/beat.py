"""The beat of a machine's worker: a file that it touches while it lives, for health checks."""

from __future__ import annotations

import time
from pathlib import Path

BEAT_SECONDS = 5.0
"""Between two beats; a transport may have its own."""
_LATE_SECONDS = 60.0


def beat(home: Path) -> None:
    """Say that a worker lives.

    Args:
        home: folder of the machine.
    """
    (home / "worker.beat").touch()


def is_alive(home: Path) -> bool:
    """Whether a worker of this machine was heard of within the last minute."""
    try:
        return time.time() - (home / "worker.beat").stat().st_mtime < _LATE_SECONDS
    except FileNotFoundError:
        return False
