"""Commands that speak to a server, over the API in this process."""

import json
import socket
import sys

import pytest

from bitfront.client import Client
from bitfront.client.connection import Connection
from bitfront.store.records import StudyState
from tests.api.conftest import BODY, bench_at
from tests.cli.commands import one_line

STUDY = """
model = "org/tiny@main"
budget = "4.25bpw"
formats = ["int2_g64", "int4_g64", "int8_g64"]
n_trials = 3
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = bench_at(tmp_path / "server")
    made.store.db.upgrade()
    for name in ("BITFRONT_URL", "BITFRONT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with made.client() as http:
        monkeypatch.setattr(Connection, "_http", property(lambda _: http))
        yield made
    made.store.db.pool.dispose()


@pytest.fixture
def client(bench):
    return Client("http://127.0.0.1")


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def done(client, bench):
    """Id of a study that is complete."""
    study = client.submit(BODY)
    bench.work()
    return study.id


def test_submit_prints_the_id_and_the_page(bench, study_file, run):
    code, out, _ = run("submit", study_file)
    (study,) = bench.store.studies.page()
    assert code == 0
    assert out.splitlines() == [
        f"Study {study.id}",
        f"Page  http://127.0.0.1:8765/ui/studies/{study.id}",
    ]
    assert study.study.n_trials == 3
    code, out, _ = run("submit", study_file, "--json")
    assert json.loads(out)["state"] == "WAITING"


def test_whoever_watches_waits_as_long_for_a_server(bench, study_file, done, monkeypatch, run):
    patience = []
    init = Connection.__post_init__
    monkeypatch.setattr(
        Connection, "__post_init__", lambda self: (init(self), patience.append(self.patience))
    )
    monkeypatch.setattr("bitfront.cli.watch.follow", lambda *_: None)
    for arguments in (["submit", study_file], ["submit", study_file, "--watch"], ["watch", done]):
        assert run(*arguments)[0] == 0
    assert patience == [60.0, 600.0, 600.0]


BAD_STUDIES = {
    "no file": (None, "examples/study.toml"),
    "no toml": ("model: tiny", "is not TOML"),
    "no text": (b"\xff\xfe", "is not TOML"),
    "unknown field": (STUDY + "n_trails = 3", "n_trails"),
    "no budget": ('model = "org/tiny"', "budget"),
    "a date": (STUDY.replace("3", "2026-01-01"), "cannot be sent"),
    "no number": (STUDY + "max_minutes = nan", "cannot be sent"),
    "unknown plug-in": (STUDY + 'estimator = "fischer"', "Did you mean 'fisher'"),
    "place on this machine": (STUDY.replace("org/tiny@main", "/etc"), "cannot be used"),
}


@pytest.mark.parametrize("case", BAD_STUDIES)
def test_a_study_that_is_none_is_one_line(case, bench, tmp_path, run):
    content, expected = BAD_STUDIES[case]
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, errors = run("submit", path)
    assert one_line(code, errors)
    assert expected in errors
    assert not bench.store.studies.page()


def test_studies_are_listed_with_their_state(bench, client, done, run):
    waiting = client.submit(BODY).id
    _, out, _ = run("studies")
    first, second = out.splitlines()
    assert first.split() == [waiting, "WAITING", "prepare", "org/tiny", "4.25bpw"]
    assert second.split() == [done, "COMPLETE", "org/tiny", "4.25bpw"]
    _, out, _ = run("studies", "--state", "complete", "--json")
    assert json.loads(out)["id"] == done
    code, _, errors = run("studies", "--state", "lost")
    assert one_line(code, errors)


def test_a_study_is_cancelled_resumed_and_extended_by_a_part_of_its_id(bench, client, run):
    study = client.submit(BODY).id
    bench.work(4)
    short = study[-6:]
    assert "CANCELLED" in run("cancel", short)[1]
    assert "RUNNING" in run("resume", short)[1]
    bench.work()
    code, _, errors = run("cancel", short)
    assert one_line(code, errors)
    assert "RUNNING" in run("extend", short, "--n-trials", 6)[1]
    assert bench.store.studies.get(study).study.n_trials == 6
    code, _, errors = run("extend", short)
    assert one_line(code, errors)
    assert "--n-trials" in errors


def test_the_watch_of_a_study_ends_with_its_front(done, run):
    code, out, _ = run("watch", done)
    assert code == 0
    assert "Measured front" in out
    assert out.splitlines()[-1] == f"Page: http://127.0.0.1:8765/ui/studies/{done}"


@pytest.mark.parametrize("state", [StudyState.FAIL, StudyState.CANCELLED])
def test_the_watch_of_a_study_that_is_not_complete_ends_with_1(state, bench, client, run):
    study = client.submit(BODY).id
    if state is StudyState.FAIL:
        claim = bench.store.queue.claim("worker-1", ("cpu",))
        bench.store.queue.fail(claim, "No model at org/tiny.", final=True)
    else:
        client.cancel(study)
    code, out, errors = run("watch", study)
    assert code == 1
    assert f"State: {state}" in out
    assert ("No model at org/tiny." in out) == (state is StudyState.FAIL)
    assert errors == ""


def test_events_are_lines_of_json(done, run):
    code, out, _ = run("watch", done, "--json")
    *events, last = map(json.loads, out.splitlines())
    assert code == 0
    assert [e["id"] for e in events] == sorted(e["id"] for e in events)
    assert {"event", "at"} <= set(events[0])
    assert last == {"study": done, "state": "COMPLETE", "error": None}


def test_what_happened_before_the_watch_is_counted_and_not_listed(bench, client, monkeypatch, run):
    study = client.submit(BODY)
    # As if it ran while it is watched: the stream of this process comes whole.
    bench.work()
    first = client.get(study.id)
    running = first.__class__(**{**vars(first), "state": "RUNNING"})
    answers = iter([running, first])
    monkeypatch.setattr(Client, "get", lambda *_: next(answers))
    code, out, errors = run("watch", study.id)
    assert code == 0
    assert "Measured front" in out
    # All of it is over when it is heard of: no line for each trial.
    assert [line.split()[1:] for line in errors.splitlines()][-1] == ["Evaluate", "3/3"]
    assert not any(" bpw" in line for line in errors.splitlines())
    assert any("Search 3/3" in line for line in errors.splitlines())


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_a_front_comes_from_the_server(format, client, done, tmp_path, run):
    out = tmp_path / "front"
    assert run("front", done[-8:], "--format", format, "--out", out)[0] == 0
    assert out.read_bytes() == client.front(done, format)


def test_a_folder_that_exists_is_no_id(done, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / done).mkdir()
    code, _, errors = run("front", done)
    assert one_line(code, errors)
    code, _, errors = run("front", "abad", "--format", "xml")
    assert one_line(code, errors)
    assert "json, csv, parquet" in errors


def test_a_point_is_written_by_the_server_and_brought_here(bench, client, done, tmp_path, run):
    client.materialise(done, at="4.25bpw")
    bench.work()
    out = tmp_path / "checkpoint"
    code, shown, errors = run("materialise", done, "--at", "4.25bpw", "--out", out)
    assert code == 0, errors
    assert shown.strip() == str(out)
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json"}
    # Once more: nothing is to be done.
    assert run("materialise", done, "--at", "4.25bpw", "--out", out)[0] == 0
    (out / "letter.txt").write_text("keep me")
    code, _, errors = run("materialise", done, "--at", "4.25bpw", "--out", out)
    assert one_line(code, errors)
    assert "letter.txt" in errors
    code, _, errors = run("materialise", done, "--at", "1bpw", "--out", tmp_path / "none")
    assert one_line(code, errors)


def test_a_manifest_is_checked_without_the_server(client, bench, done, tmp_path, run):
    made = client.materialise(done, at="4.25bpw")
    bench.work()
    key, out = client.manifest_key().hex(), tmp_path / "checkpoint"
    assert run("materialise", done, "--at", "4.25bpw", "--out", out)[0] == 0
    manifest, path = client.manifest(done, made.number), tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    check = ("check-manifest", path, "--public-key", key)
    code, shown, errors = run(*check, "--files", out)
    assert code == 0, errors
    assert "2 files are as listed" in shown
    (out / "more.py").write_text("")
    assert run(*check, "--files", out)[:2] == (1, "more.py is not in the manifest.\n")
    (out / "more.py").unlink()
    (out / "config.json").write_text("{}")
    code, shown, _ = run(*check, "--files", out)
    assert (code, shown) == (1, "config.json is not the file of the manifest.\n")
    (out / "config.json").unlink()
    code, shown, _ = run(*check, "--files", out)
    assert (code, shown.startswith("config.json is missing")) == (1, True)
    path.write_text(json.dumps({**manifest, "trial": made.trial + 1}))
    assert run(*check)[:2] == (1, f"{path} is not as it was signed.\n")


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("{}", "abc", "64 hexadecimal digits"),
        ("{}", "0" * 62, "64 hexadecimal digits"),
        ("[]", "0" * 64, "not a manifest"),
        ("{", "0" * 64, "Cannot read manifest"),
    ],
)
def test_a_manifest_or_key_that_is_none_is_one_line(tmp_path, run, text, key, says):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    code, _, errors = run("check-manifest", path, "--public-key", key)
    assert one_line(code, errors)
    assert says in errors


def test_a_checkpoint_that_cannot_be_written_is_one_line(bench, client, done, tmp_path, run):
    client.materialise(done, at="4.25bpw")
    claim = bench.store.queue.claim("worker-1", ("cpu",))
    bench.store.queue.fail(claim, "The model is gone.", final=True)
    made = client.checkpoint(done, 0)
    assert made.is_over
    asked = iter([made])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(Client, "materialise", lambda *_, **__: next(asked))
    with monkey.context():
        code, _, errors = run("materialise", done, "--at", "4bpw", "--out", tmp_path / "out")
    monkey.undo()
    assert one_line(code, errors)
    assert "The model is gone." in errors


@pytest.mark.parametrize("command", ["studies", "watch", "cancel"])
def test_a_server_that_is_not_there_is_one_line(command, monkeypatch, run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("BITFRONT_URL", url)
        code, _, errors = run(command, *(["0" * 32] * (command != "studies")))
    assert one_line(code, errors)
    assert "bitfront serve" in errors
    assert url in errors


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.setattr("bitfront.cli.server.find_spec", lambda name: None)
    for command in (["studies"], ["serve"], ["key", "list"]):
        code, _, errors = run(*command)
        assert one_line(code, errors)
        assert "pip install 'bitfront[service]'" in errors
