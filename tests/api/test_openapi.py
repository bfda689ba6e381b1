"""The document says all that the API does; what clients were built on does not go away."""

import json

import jsonschema
import pytest

OPERATIONS = {
    "create_study": ("post", "/v1/studies", 202),
    "list_studies": ("get", "/v1/studies", 200),
    "get_study": ("get", "/v1/studies/{study_id}", 200),
    "delete_study": ("delete", "/v1/studies/{study_id}", 204),
    "cancel_study": ("post", "/v1/studies/{study_id}/cancel", 202),
    "resume_study": ("post", "/v1/studies/{study_id}/resume", 202),
    "extend_study": ("post", "/v1/studies/{study_id}/extend", 202),
    "list_trials": ("get", "/v1/studies/{study_id}/trials", 200),
    "get_trial": ("get", "/v1/studies/{study_id}/trials/{number}", 200),
    "get_front": ("get", "/v1/studies/{study_id}/front", 200),
    "list_tables": ("get", "/v1/studies/{study_id}/tables", 200),
    "get_table": ("get", "/v1/studies/{study_id}/tables/{name}", 200),
    "get_report": ("get", "/v1/studies/{study_id}/report", 200),
    "watch_events": ("get", "/v1/studies/{study_id}/events", 200),
    "create_checkpoint": ("post", "/v1/studies/{study_id}/checkpoints", 202),
    "list_checkpoints": ("get", "/v1/studies/{study_id}/checkpoints", 200),
    "get_checkpoint": ("get", "/v1/studies/{study_id}/checkpoints/{number}", 200),
    "get_manifest": ("get", "/v1/studies/{study_id}/checkpoints/{number}/manifest", 200),
    "get_checkpoint_file": (
        "get", "/v1/studies/{study_id}/checkpoints/{number}/files/{path}", 200,
    ),
    "get_manifest_key": ("get", "/v1/manifests/key", 200),
    "export_fronts": ("get", "/v1/exports", 200),
    "estimate_study": ("post", "/v1/estimate", 200),
    "list_plugins": ("get", "/v1/plugins", 200),
    "list_workers": ("get", "/v1/workers", 200),
    "get_health": ("get", "/healthz", 200),
    "get_readiness": ("get", "/readyz", 200),
}  # fmt: skip
FIELDS = {
    "StudyBody": {
        "model", "budget", "calibration", "evaluation", "formats", "quantizer", "estimator",
        "searches", "costs", "n_pairs", "n_trials", "max_minutes", "patience", "n_parallel",
        "n_search_sequences", "n_finalists", "seed", "tied", "pinned", "revision", "dtype",
        "device", "runtime", "task", "tensor_parallel", "experts", "kv_cache", "base", "second",
        "items",
    },
    "StudyAnswer": {
        "id", "owner", "state", "stage", "progress", "seconds_left", "error", "created_at",
        "started_at", "finished_at", "request", "links",
    },
    "TrialAnswer": {
        "study_id", "number", "text", "origin", "state", "values", "error", "allocation", "target",
    },
    "PointAnswer": {"number", "origin", "values", "allocation"},
    "Problem": {"type", "title", "status", "detail", "instance", "code", "errors"},
}  # fmt: skip


@pytest.fixture
def document(bench):
    return bench.client().get("/openapi.json").json()


def test_every_operation_is_where_it_was(document):
    found = {
        operation["operationId"]: (method, path, min(map(int, operation["responses"])))
        for path, by_method in document["paths"].items()
        for method, operation in by_method.items()
    }
    assert found == OPERATIONS


@pytest.mark.parametrize("name", FIELDS)
def test_bodies_have_the_fields_they_had(document, name):
    assert set(document["components"]["schemas"][name]["properties"]) == FIELDS[name]


def test_every_error_of_the_document_is_a_problem(document):
    for path, by_method in document["paths"].items():
        for method, operation in by_method.items():
            errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
            assert path == "/healthz" or "503" in errors
            assert path in {"/healthz", "/readyz"} or operation["security"], (method, path)
            for answer in errors.values():
                assert list(answer["content"]) == ["application/problem+json"]


def test_links_lead_to_operations_with_parameters_they_have(document):
    operations = {
        operation["operationId"]: {p["name"] for p in operation.get("parameters", [])}
        for by_method in document["paths"].values()
        for operation in by_method.values()
    }
    links = [
        link
        for by_method in document["paths"].values()
        for operation in by_method.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert len(links) > 20
    for link in links:
        assert set(link["parameters"]) <= operations[link["operationId"]]


def test_the_examples_of_a_study_are_studies(document, client, bench):
    for part, n in (("train", 192), ("val", 512)):
        folder = bench.settings.data_roots[0] / "images" / part
        folder.mkdir(parents=True)
        for index in range(n):
            (folder / f"{index}.png").touch()
    body = document["paths"]["/v1/studies"]["post"]["requestBody"]["content"]["application/json"]
    examples = body["schema"].get("examples") or [
        each["value"] if isinstance(each, dict) and "value" in each else each
        for each in body["examples"].values()
    ]
    assert len(examples) == 2
    for number, example in enumerate(examples):
        key = {"Idempotency-Key": str(number)}
        answer = client.post("/v1/studies", json=example, headers=key)
        assert answer.status_code == 202, answer.text


def test_problems_are_as_the_document_says(document, client):
    schema = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    for path in ("/nowhere", "/v1/studies?page_size=0", "/v1/studies?state=x&page_size=y"):
        validator.validate(json.loads(client.get(path).text))
