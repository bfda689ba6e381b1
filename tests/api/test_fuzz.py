"""Every operation against generated requests, alone and one after another by the links."""

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from bitfront.api import refusals

N_EXAMPLES = 8
CHECKS = {
    # What a schema cannot say, such as which parameters go with which plug-in, is a 422; what does
    # not go with the state of a study is a 409.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "304", "401", "403", "404", "406", "409", "416", "422"]
    },
}


def found(app, key, n_examples=N_EXAMPLES):
    """Failed checks and errors of a run, and which operations were called how often."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "headers": {"Authorization": f"Bearer {key}"},
            "generation": {"max-examples": n_examples, "no-shrink": True, "database": "none"},
            "checks": CHECKS,
            "request-timeout": 0.3,
            "max-stream-events": 3,
            # Its body is that of a study.
            "operations": [
                {
                    "include-operation-id": "estimate_study",
                    "phases": {"coverage": {"enabled": False}},
                }
            ],
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    failures, calls, statuses = [], {}, {}
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            failures.append(str(event.value))
        if isinstance(event, ScenarioFinished):
            for case_id, checks in event.recorder.checks.items():
                case = event.recorder.cases[case_id].value
                phase = calls.setdefault(event.phase.name, {})
                phase[case.operation.label] = phase.get(case.operation.label, 0) + 1
                answer = event.recorder.interactions[case_id].response
                code = answer.status_code if answer else None
                statuses.setdefault(case.operation.label, set()).add(code)
                failures += [
                    f"{case.operation.label} {check.name}: {check.failure_info.failure} {check.failure_info.code_sample}"
                    for check in checks
                    if check.failure_info
                ]
    return failures, calls, statuses


def test_no_check_fails_on_any_operation(bench, done, monkeypatch):
    monkeypatch.setattr(refusals, "N_ALLOWED", 10**9)
    key = bench.key("local", "read", "write", "admin", max_running=10**6)
    failures, calls, statuses = found(bench.app(), key)
    print(calls, statuses)
    assert not failures, "\n\n".join(failures[:20])
