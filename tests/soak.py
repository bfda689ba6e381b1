"""How long a fault is made for: a moment in `make test`, at length and written down in `make soak`.

Tests say which scenario they are with `pytest.mark.fault("F1", transport="celery")`, and what they
count with `record_property`. In the long form each is a row of `benchmarks/results/soak.csv`.
"""

import os
import shlex
import sys
from pathlib import Path

import pytest

IS_SOAK = bool(os.environ.get("BITFRONT_SOAK"))
"""The long form, `make soak`."""
COUNTED = ("rounds", "kills", "trials", "reruns", "stale", "slowest_seconds")
"""How often it was made to happen, what was killed how often, measurements, those made again,
results refused as too late, longest time until the next measurement or answer."""
COLUMNS = ("scenario", "test", "database", "transport", *COUNTED, "seconds", "outcome")


def n(quick, long):
    """A number of the form that runs."""
    return long if IS_SOAK else quick


def write(item, report):
    """A row for a test that says which scenario it is, whether it passed or not."""
    marker = item.get_closest_marker("fault")
    if marker is None or not IS_SOAK or report.skipped:
        return
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from record import Record

    params = item.callspec.params if hasattr(item, "callspec") else {}
    place = {**marker.kwargs, **{k: v for k, v in params.items() if k in ("database", "transport")}}
    place.setdefault("database", params.get("database_url") or params.get("database_kind", ""))
    words = ["python", "-m", "pytest", *item.config.invocation_params.args]
    Record("soak", COLUMNS, command=f"BITFRONT_SOAK=1 {shlex.join(words)}").add(
        scenario=marker.args[0],
        test=item.name,
        **place,
        **{name: value for name, value in item.user_properties if name in COUNTED},
        seconds=round(report.duration, 1),
        outcome=report.outcome,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        write(item, report)
    return report
