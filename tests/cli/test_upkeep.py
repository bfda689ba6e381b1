"""Keys, upgrades, collection, and what `serve` refuses before it serves."""

import json
import os
import socket
import sqlite3
import sys
import time

import pytest
import sqlalchemy as sa

from bitfront.artifacts import Artifacts
from bitfront.budget import Budget
from bitfront.collection import collect
from bitfront.errors import Unauthorised
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Outcome
from bitfront.store.tables import audit
from bitfront.study import Study
from tests.cli.commands import one_line

DAY = 24 * 3600


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The database that commands find by themselves."""
    for name in [name for name in os.environ if name.startswith("BITFRONT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BITFRONT_HOME", str(tmp_path / "home"))
    made = Store(Settings().database)
    yield made
    made.db.pool.dispose()


def test_a_key_is_made_listed_and_revoked(store, run):
    code, secret, told = run("key", "create", "anna", "--scopes", "read,admin", "--days", 2)
    assert code == 0
    assert "shown this once" in told
    key = store.keys.verified(secret.strip())
    assert (key.owner, key.scopes) == ("anna", ("read", "admin"))
    assert key.expires_at == pytest.approx(time.time() + 2 * DAY, abs=60)
    (line,) = run("key", "list")[1].splitlines()
    assert line.split()[:3] == [key.id, "anna", "read,admin"]
    assert "valid until" in line
    assert line.endswith("0 device hours")
    assert secret.strip() not in run("key", "list", "--json")[1]
    assert run("key", "revoke", key.id)[0] == 0
    assert "revoked" in run("key", "list")[1]
    with pytest.raises(Unauthorised):
        store.keys.verified(secret.strip())
    with store.db.reading() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.id)).all()
    assert [(row.action, row.key_id, row.target, row.status) for row in rows] == [
        ("create_key", key.id, "anna: read,admin", 201),
        ("revoke_key", key.id, "anna", 204),
    ]
    assert all(row.owner.startswith("operator ") for row in rows)
    assert secret.strip() not in repr(rows)


def test_a_key_of_another_owner_says_that_it_does_not_see_what_was_made_without_keys(store, run):
    store.db.upgrade()
    assert "local" not in run("key", "create", "anna")[2]
    store.studies.create(Study("org/tiny", Budget.parse("4bpw")), "local")
    told = run("key", "create", "anna")[2].splitlines()[-1]
    assert "made without a key belong to local" in told
    assert "`bitfront key create local`" in told
    for arguments in (["local"], ["anna", "--scopes", "read,admin"]):
        assert "made without" not in run("key", "create", *arguments)[2]


def test_keys_that_cannot_be_are_one_line(store, run):
    run("upgrade")
    for arguments in (
        ["create", "anna", "--scopes", "root"],
        ["create", "anna", "--days", "nan"],
        ["create", "anna", "--days", "1e300"],
        ["create", "anna", "--days", "-5"],
        ["create", "anna", "--max-device-hours", "nan"],
        ["revoke", "0" * 32],
    ):
        code, _, errors = run("key", *arguments)
        assert one_line(code, errors), arguments
    assert run("key", "list")[:2] == (0, "")


def test_a_key_that_an_earlier_version_made_for_longer_than_any_calendar_is_listed(store, run):
    assert run("key", "create", "anna")[0] == 0
    with store.db.writing() as connection:
        connection.exec_driver_sql("update api_keys set expires_at = 9e999")
    code, out, _ = run("key", "list")
    assert code == 0
    assert "valid until 9999-12-31" in out


def test_a_database_is_upgraded_and_a_newer_one_is_left_alone(store, tmp_path, run):
    code, _, errors = run("key", "list")
    assert one_line(code, errors)
    assert "bitfront upgrade" in errors
    assert run("upgrade")[0] == 0
    assert run("upgrade")[0] == 0
    assert run("key", "list")[:2] == (0, "")
    with sqlite3.connect(tmp_path / "home" / "bitfront.db") as database:
        database.execute("update alembic_version set version_num = 'of tomorrow'")
    code, _, errors = run("upgrade")
    assert one_line(code, errors)


@pytest.fixture
def artifacts(store, tmp_path):
    store.db.upgrade()
    return Artifacts(Settings().artifacts)


def stored(artifacts, tmp_path, text, days=0.0):
    path = tmp_path / "file"
    path.write_text(text)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    digest = artifacts.put(path)
    path.unlink()
    return digest


def grown_old(store, *digests):
    with store.db.writing() as connection:
        for digest in digests:
            connection.exec_driver_sql(
                "update artifacts set created_at = created_at - ? where digest = ?",
                (2 * DAY, digest),
            )


def test_what_nothing_refers_to_is_collected_after_a_day(
    store, artifacts, tmp_path, run, monkeypatch
):
    names = ("used", "unused", "new", "unlisted", "unlisted and new")
    days = (2, 2, 0, 2, 0)
    digests = {
        name: stored(artifacts, tmp_path, name, n) for name, n in zip(names, days, strict=True)
    }
    for name in names[:3]:
        store.files.add(digests[name], 4)
    study, _ = store.studies.create(Study("org/tiny", Budget(4, "bpw")), "anna")
    claim = store.queue.claim("worker-1", ("cpu",))
    store.queue.finish(claim, Outcome({"bank/used": digests["used"]}))
    grown_old(store, digests["used"], digests["unused"])
    store.keys.note("anna", None, "cancel_study", "/v1/studies/x", 202)
    with store.db.writing() as connection:
        connection.exec_driver_sql("update audit set at = at - ?", (31 * DAY,))
    monkeypatch.setenv("BITFRONT_AUDIT_DAYS", "30")
    code, out, _ = run("collect")
    told = "Removed 1 unused and 1 unlisted files, and 1 row that nobody asks for any more.\n"
    assert (code, out) == (0, told)
    assert set(artifacts.all()) == {digests[n] for n in ("used", "new", "unlisted and new")}
    assert store.files.of(study.id) == {"bank/used": digests["used"]}
    assert run("collect")[1].startswith("Removed 0 unused and 0 unlisted files, and 0 rows")


def test_what_is_listed_again_while_it_is_collected_stays(store, artifacts, tmp_path):
    """A worker that stores a file again renews it, and the collector looks once more."""
    digest = stored(artifacts, tmp_path, "unused", 2)
    store.files.add(digest, 6)
    grown_old(store, digest)
    assert store.files.unused(DAY) == [digest]
    store.files.add(digest, 6)
    assert not store.files.forget(digest, DAY, artifacts.remove)
    assert not store.files.forget_unlisted(digest, artifacts.remove)
    assert collect(store, artifacts).n_unused == 0
    assert artifacts.has(digest)


def test_a_file_whose_bytes_cannot_be_removed_stays_listed(store, artifacts, tmp_path):
    digest = stored(artifacts, tmp_path, "unused", 2)
    store.files.add(digest, 6)
    grown_old(store, digest)

    def fail(_digest):
        raise PermissionError

    with pytest.raises(PermissionError):
        store.files.forget(digest, DAY, fail)
    assert store.files.listed() == {digest}


def test_other_machines_are_served_only_with_a_key(store, run):
    code, _, errors = run("serve", "--host", "0.0.0.0", "--port", 0, "--no-dashboard")
    assert one_line(code, errors)
    assert "bitfront key create OWNER" in errors


def test_the_dashboard_too_needs_a_key_for_other_machines(store, monkeypatch, run):
    monkeypatch.setenv("BITFRONT_DASHBOARD_HOST", "0.0.0.0")
    code, _, errors = run("serve", "--port", 0, "--dashboard-port", 0)
    assert one_line(code, errors)
    assert "bitfront key create OWNER" in errors


@pytest.mark.parametrize("option", ["--port", "--dashboard-port", "--metrics-port"])
def test_a_port_in_use_is_one_line(option, store, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = run("serve", "--port", 0, "--dashboard-port", 0, option, port)
    assert one_line(code, errors)
    assert f"127.0.0.1:{port}" in errors


def test_the_dashboard_is_served_at_the_port_of_the_settings(store, monkeypatch, run):
    plans = []
    monkeypatch.setattr("bitfront.cli.serving.serve", lambda settings, plan: plans.append(plan))
    monkeypatch.setenv("BITFRONT_DASHBOARD_PORT", "4321")
    assert run("serve")[0] == run("serve", "--dashboard-port", 1234)[0] == 0
    monkeypatch.delenv("BITFRONT_DASHBOARD_PORT")
    assert run("serve")[0] == 0
    assert [plan.dashboard_port for plan in plans] == [4321, 1234, 8766]


@pytest.mark.parametrize("command", [["serve", "--port", "0", "--no-dashboard"], ["worker"]])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nowhere://x", "Protocol not known"),
        ("s3://bucket/prefix", "s3fs"),
        ("ftp://no.such.host.invalid/x", "BITFRONT_ARTIFACTS_URL"),
        ("/proc/none", "BITFRONT_ARTIFACTS_URL"),
        ("http://127.0.0.1:1/x", "BITFRONT_ARTIFACTS_URL"),
    ],
)
def test_a_place_where_no_artifacts_can_be_kept_is_one_line(
    url, expected, command, store, monkeypatch, run
):
    store.db.upgrade()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setenv("BITFRONT_ARTIFACTS_URL", url)
    code, _, errors = run(*command)
    assert one_line(code, errors)
    assert expected in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--model-root", "nowhere"], "No folder at nowhere"),
        (["serve", "--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["serve", "--port", "70000"], "65535"),
        (["worker", "--queue", "tpu"], "cpu or gpu"),
        (["worker"], "bitfront upgrade"),
    ],
    ids=str,
)
def test_parts_that_cannot_start_are_one_line(arguments, expected, store, run):
    code, _, errors = run(*arguments)
    assert one_line(code, errors)
    assert expected in errors


@pytest.mark.parametrize(
    "command", [["serve", "--port", "0"], ["worker"], ["key", "list"]], ids=str
)
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BITFRONT_DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("BITFRONT_LEASE_SECONDS", "-1", "greater than 0"),
        ("BITFRONT_LEASE_SECONDS", "inf", "less than or equal to 86400"),
        ("BITFRONT_MIRROR_SECONDS", "inf", "less than or equal to 86400"),
        ("BITFRONT_MODEL_ROOTS", "/models", '["/models"]'),
        ("BITFRONT_DATABASE_URL", "mysql://host/name", "postgresql+psycopg://"),
        ("BITFRONT_HOME", "/proc/none", "Cannot write to /proc/none"),
    ],
)
def test_settings_that_cannot_be_are_one_line(name, value, expected, command, monkeypatch, run):
    monkeypatch.setenv(name, value)
    code, _, errors = run(*command)
    assert one_line(code, errors)
    assert expected in errors
    assert name in errors or name == "BITFRONT_DATABASE_URL"


def test_json_keys_have_no_secret(store, run):
    run("key", "create", "anna")
    (row,) = map(json.loads, run("key", "list", "--json")[1].splitlines())
    assert set(row) == {
        "id", "owner", "scopes", "max_running", "max_device_hours", "created_at", "expires_at",
        "revoked_at", "used_device_hours",
    }  # fmt: skip
    assert row["used_device_hours"] == 0
