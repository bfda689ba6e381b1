"""A Celery worker without a model: as `bitfront.workers.tasks`, with the stages of `simulated`.

Celery's new processes run this module again, under another name that is not its own either.
"""

import sys
from functools import cache

from workers.simulated import STAGES, SimulatedBench

from bitfront.loading import leave
from bitfront.processes import end_when_stuck
from bitfront.store import Store
from bitfront.workers import tasks
from bitfront.workers.lease import STUCK_LEASES


@cache
def bench():
    """Of this process."""
    settings = tasks.settings
    end_when_stuck(STUCK_LEASES * settings.lease_seconds)
    return SimulatedBench(Store(settings.database, settings.lease_seconds), settings)


if __name__.startswith("__"):  # else it is only looked through for tests
    tasks.bench, tasks.stages = bench, lambda: STAGES

if __name__ == "__main__":
    tasks.main(sys.argv[1:])
    leave(0)
