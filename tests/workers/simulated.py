"""A worker without a model: measuring is sleeping, values follow from the allocation.

    python -m workers.simulated NAME QUEUE...        with tests/ on the path

Everything but the stages is that of a real worker. `SIMULATED_SECONDS` says how long a measurement
takes, `SIMULATED_POISON` (study:trial:how, several with spaces between) a trial that kills whoever
measures it, by one of `POISONS` or `LONG`, `SIMULATED_FREEZE` (study:trial) one whose worker stops
with the result in its hands.
"""

import ctypes
import os
import re
import resource
import signal
import sys
import time
from dataclasses import dataclass

from store.studies import outcome

from bitfront.loading import leave
from bitfront.logs import set_up_logs
from bitfront.processes import end_when_stuck
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Stage
from bitfront.workers.child import loop, told_to_stop
from bitfront.workers.lease import STUCK_LEASES


@dataclass
class SimulatedBench:
    """A place with nothing on it."""

    store: Store
    settings: Settings
    warm: str | None = None

    def cool(self) -> None:
        """Nothing is loaded."""


def simulated(bench, claim, lease):
    """Take the time of a measurement, then leave what the study's made-up values say."""
    bench.warm = claim.study_id
    if claim.stage is Stage.EVALUATE:
        for poison in os.environ.get("SIMULATED_POISON", "").split():
            poisoned, _, how = poison.rpartition(":")
            if poisoned == f"{claim.study_id}:{claim.number}":
                (POISONS | LONG)[how](lease)
        _measure(lease, float(os.environ.get("SIMULATED_SECONDS", "0.05")))
    found = outcome(bench.store, claim)
    is_measured = claim.stage is Stage.EVALUATE
    if is_measured and os.environ.get("SIMULATED_FREEZE") == f"{claim.study_id}:{claim.number}":
        os.kill(os.getpid(), signal.SIGSTOP)
    return found


def _measure(lease, seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        lease.check()
        time.sleep(min(0.02, left))


def _run_out_of_memory():
    """Of what the process may have; a system without memory left kills it instead."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
    try:
        bytearray(8 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _run_out_of_memory_in_c():
    """In a library of C++, which nobody above it can be told of: the process is aborted."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    ctypes.CDLL("libstdc++.so.6")._Znwm(ctypes.c_size_t(8 << 30))  # operator new


def _loop():
    """For ever, without a look at the lease."""
    while True:
        time.sleep(0.01)


def _loop_in_c():
    """For ever in a library that lets no other thread run."""
    re.match("(x+x+)+y", 60 * "x")


POISONS = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda _: os._exit(3),
    "segfault": lambda _: ctypes.string_at(0),
    "memory": lambda _: _run_out_of_memory(),
    "memory_in_c": lambda _: _run_out_of_memory_in_c(),
    "loop": lambda _: _loop(),
    "loop_in_c": lambda _: _loop_in_c(),
}


def _last(lease):
    """For ever, with a look at the lease: no poison, but long enough to be cancelled."""
    _measure(lease, 3600.0)


LONG = {"slow": _last, "loop": POISONS["loop"], "loop_in_c": POISONS["loop_in_c"]}
"""Measurements that do not end by themselves."""


STAGES = dict.fromkeys(Stage, simulated)


def main(arguments):
    """As `bitfront.workers.child.main`."""
    is_stopping, settings = told_to_stop(), Settings()
    set_up_logs()
    end_when_stuck(STUCK_LEASES * settings.lease_seconds)
    store = Store(settings.database, settings.lease_seconds)
    loop(arguments[0], arguments[1:], SimulatedBench(store, settings), STAGES, is_stopping)
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
