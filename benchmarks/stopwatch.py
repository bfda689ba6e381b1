"""Seconds, processor seconds and peak memory by stage; standard library only, for peers too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ANNOUNCED = ("load", "text", "search", "evaluate")
"""Stages of a study with an event before each step as well as after it."""


def peak_memory() -> float:
    """Largest resident set since the last `reset_peak`, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def cpu_seconds() -> float:
    """Processor seconds of this process and its finished children, user and system."""
    return sum(os.times()[:4])


def reset_peak() -> None:
    """Let the kernel forget the largest resident set of this process so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def timed(records: dict[str, dict], stage: str) -> Iterator[None]:
    """Store wall and CPU seconds, peak memory and load of the machine under `records[stage]`."""
    reset_peak()
    load, cpu, wall = os.getloadavg()[0], cpu_seconds(), time.perf_counter()
    yield
    records[stage] = {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(cpu_seconds() - cpu, 3),
        "peak_mib": peak_memory(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def stage_of(event) -> str:
    """The stage that an event of a study names."""
    return event.stage


class Stages:
    """Progress of a study that adds up, in `records`, what each stage took.

    What passes between two events counts to the later one: the solver's time to the search, the
    check that the texts differ to quantization.

    Args:
        name: what a stage is called, by the event that ends a part of it.
    """

    def __init__(self, name: Callable[..., str] = stage_of) -> None:
        self.records: dict[str, dict] = {}
        self._name = name
        self._last: dict[str, int] = {}
        reset_peak()
        self._load, self._cpu, self._wall = os.getloadavg()[0], cpu_seconds(), time.perf_counter()

    def __call__(self, event) -> None:
        """Close the part that this event ends."""
        wall, cpu, load = time.perf_counter(), cpu_seconds(), os.getloadavg()[0]
        before = {"n_steps": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_mib": 0.0}
        spent = self.records.setdefault(self._name(event), before | {"load_before": self._load})
        spent["n_steps"] += self._ends_step(event)
        spent["seconds"] = round(spent["seconds"] + wall - self._wall, 6)
        spent["cpu_seconds"] = round(spent["cpu_seconds"] + cpu - self._cpu, 6)
        spent["peak_mib"] = max(spent["peak_mib"], peak_memory())
        spent["load_after"] = load
        self._load, self._cpu, self._wall = load, cpu, wall
        reset_peak()

    def _ends_step(self, event) -> bool:
        last = self._last.get(event.stage, event.done)
        self._last[event.stage] = event.done
        return event.stage not in ANNOUNCED or event.done > last
