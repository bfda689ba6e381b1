"""The command `bitfront`, whose workers measure nothing.

python -m workers.simulated_command worker --queue cpu        with tests/ on the path
"""

from functools import partial

from bitfront import cli
from bitfront.workers import local


def main():
    """Only here: who collects tests imports this file."""
    local.LocalWorkers = partial(local.LocalWorkers, module="workers.simulated")
    local.CeleryWorker = partial(local.CeleryWorker, module="workers.simulated_tasks")
    cli.main()


if __name__ == "__main__":
    main()
