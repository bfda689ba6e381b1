"""A worker without a model: measuring is sleeping, values follow from the allocation.

    python -m workers.simulated NAME QUEUE...        with tests/ on the path

Everything but the stages is that of a real worker. `SIMULATED_SECONDS` says how long a measurement
takes, `SIMULATED_POISON` names a trial that kills whoever measures it, and how: `kill`, `exit` or
`loop`.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass

from store.studies import outcome

from bitfront.logs import set_up_logs
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Stage
from bitfront.workers.child import loop, told_to_stop


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
        poisoned, _, how = os.environ.get("SIMULATED_POISON", ":").partition(":")
        if poisoned == str(claim.number):
            _die(how)
        end = time.monotonic() + float(os.environ.get("SIMULATED_SECONDS", "0.05"))
        while (left := end - time.monotonic()) > 0:
            lease.check()
            time.sleep(min(0.02, left))
    return outcome(bench.store, claim)


def _die(how):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    sum(10**12 * [0]) if how == "memory" else None
    while how == "loop":  # never looks at the lease
        time.sleep(0.01)


STAGES = dict.fromkeys(Stage, simulated)


def main(arguments):
    """As `bitfront.workers.child.main`."""
    is_stopping, settings = told_to_stop(), Settings()
    set_up_logs()
    store = Store(settings.database, settings.lease_seconds)
    loop(arguments[0], arguments[1:], SimulatedBench(store, settings), STAGES, is_stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
