"""Every operation against generated requests, alone and one after another by the links."""

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished
from soak import n

from bitfront.api import feed, refusals

N_EXAMPLES = n(3, 500)
"""Of each operation."""
N_CHAINS = n(12, 500)
"""Of operations along the links; most end at a request that is none."""
CHECKS = {
    # What a schema cannot say, such as which parameters go with which plug-in, is a 422; what does
    # not go with the state of a study is a 409.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "304", "401", "403", "404", "406", "409", "416", "422"]
    },
}
# Its body is that of a study.
ESTIMATE = {
    "include-operation-id": "estimate_study",
    "phases": {"coverage": {"enabled": False}},
}
PARTS = "/v1/studies/{study_id}/"
CHANGES = ("cancel", "resume", "extend", "checkpoints")
NOT_OF_A_STUDY = ["create_study", "estimate_study", "check_manifest", "delete_study"]
"""The last would end the study that the others are about."""


def found(app, key, **options):
    """Failed checks and errors of a run, and the statuses that each operation gave by phase."""
    options = {
        "seed": 1,
        "headers": {"Authorization": f"Bearer {key}"},
        "generation": {"max-examples": N_EXAMPLES, "no-shrink": True, "database": "none"},
        "checks": CHECKS,
        "operations": [ESTIMATE],
        "request-timeout": 30.0,
        **options,
    }
    config = SchemathesisConfig.from_dict(options)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    failures, statuses = [], {}
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            failures.append(str(event.value))
        if isinstance(event, ScenarioFinished):
            failures += failed(event.recorder)
            for phase, operation, status in answered(event):
                statuses.setdefault((phase, operation), set()).add(status)
    return failures, statuses


def failed(recorder):
    for case_id, checks in recorder.checks.items():
        operation = recorder.cases[case_id].value.operation.label
        for check in checks:
            if check.failure_info:
                told = check.failure_info
                yield f"{operation} {check.name}: {told.failure} {told.code_sample}"


def answered(event):
    for case_id, interaction in event.recorder.interactions.items():
        if interaction.response is not None and case_id in event.recorder.cases:
            operation = event.recorder.cases[case_id].value.operation
            yield event.phase.name, operation.label, interaction.response.status_code


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request):
    return request.param


@pytest.fixture
def key(bench, monkeypatch):
    """One that may do everything, on an API that forgives wrong ones and ends every stream."""
    monkeypatch.setattr(refusals, "N_ALLOWED", 10**9)
    read = feed.Feed._read
    monkeypatch.setattr(feed.Feed, "_read", lambda *args: (True, read(*args)[1]))
    return bench.key("local", "read", "write", "admin", max_running=10**6)


@pytest.mark.fault("B1")
def test_no_check_fails_on_any_operation(bench, key, record_property):
    record_property("rounds", N_EXAMPLES)
    app = bench.app()
    chains = {"stateful": {"generation": {"max-examples": N_CHAINS}}}
    failures, statuses = found(app, key, phases=chains)
    assert not failures, "\n\n".join(failures[:20])
    operations = sum(len(by_method) for by_method in app.openapi()["paths"].values())
    assert len({operation for _, operation in statuses}) == operations
    linked = {operation for phase, operation in statuses if phase == "STATEFUL_TESTING"}
    assert len(linked) > 5
    assert 202 in statuses["STATEFUL_TESTING", f"POST {PARTS}cancel"]


@pytest.mark.fault("B1")
def test_no_check_fails_on_a_finished_study(bench, done, key, record_property):
    record_property("rounds", N_EXAMPLES)
    bench.store.checkpoints.create(
        done.id, bench.store.trials.front(done.id).trials[0].number, "packed"
    )
    bench.work()
    place = {"path.study_id": done.id, "path.number": 0, "path.name": "fisher_directional"}
    place |= {"path.path": "config.json", "query.study": [done.id]}
    failures, statuses = found(
        bench.app(),
        key,
        parameters=place,
        phases={"coverage": {"enabled": False}, "stateful": {"enabled": False}},
        operations=[{"include-operation-id": NOT_OF_A_STUDY, "enabled": False}],
    )
    assert not failures, "\n\n".join(failures[:20])
    reads = {operation for _, operation in statuses if operation.startswith("GET ")}
    assert all(200 in found for (_, operation), found in statuses.items() if operation in reads)
    assert len(reads) >= 16
    written = {operation for _, operation in statuses} - reads
    assert written == {f"POST {PARTS}{part}" for part in CHANGES}
