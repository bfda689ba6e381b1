"""Connections to a PostgreSQL that is frozen, or was started anew."""

import time

import pytest
import sqlalchemy as sa
from servers import PostgresServer, database
from soak import n
from starlette.testclient import TestClient

from bitfront.api import recent
from bitfront.api.app import create_app
from bitfront.artifacts import Artifacts
from bitfront.cli import serving
from bitfront.errors import StorageError
from bitfront.settings import Settings
from bitfront.store import Store

ANSWER_SECONDS = 0.5
AT_ONCE = 20.0
"""Against waiting for ever."""
PROMISED_SECONDS = n(5 * 3.0, 3.0)
"""Five times what is promised, where the machine is busy with other tests."""


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def impatient(server):
    """A store that waits half a second for an answer."""
    with database(server.url) as url:
        store = Store(url, answer_seconds=ANSWER_SECONDS)
        store.db.upgrade()
        yield store
        store.db.pool.dispose()


def test_a_frozen_server_counts_as_down_and_is_used_again_when_it_goes_on(server, impatient):
    impatient.db.time()
    with server.frozen():
        begun = time.monotonic()
        for _ in range(2):  # a connection that was open, then a new one
            with pytest.raises(StorageError):
                impatient.db.time()
        assert time.monotonic() - begun < AT_ONCE
    impatient.db.wait(AT_ONCE)
    assert impatient.keys.all() == []


def test_a_transaction_that_a_server_froze_in_is_not_committed(server, impatient):
    begun = time.monotonic()

    def write():
        with impatient.db.writing() as connection:
            connection.execute(sa.text("create table made (n int)"))
            with server.frozen():
                connection.execute(sa.text("insert into made values (1)"))

    with pytest.raises(StorageError):
        write()
    assert time.monotonic() - begun < AT_ONCE
    with impatient.db.reading() as connection:
        assert not sa.inspect(connection).has_table("made")


@pytest.fixture
def served(server):
    """A store as `bitfront serve` opens it."""
    with database(server.url) as url:
        store = Store(url, answer_seconds=serving.ANSWER_SECONDS)
        store.db.upgrade()
        yield store
        store.db.pool.dispose()


@pytest.mark.fault("F3", database="postgresql")
def test_the_answer_is_503_while_the_server_is_frozen(
    server, served, tmp_path, monkeypatch, record_property
):
    """After one wait, whether connections were open or not, though the change would be noted."""
    monkeypatch.setattr(recent, "SECONDS", 3600.0)  # no key is looked for meanwhile
    app = create_app(served, Artifacts(str(tmp_path)), Settings(home=tmp_path))
    body, waits, seconds = {"model": "org/tiny@main", "budget": "4.25bpw"}, [], []
    sa.event.listen(served.db.pool, "handle_error", waits.append)
    with TestClient(app, "http://127.0.0.1", client=("127.0.0.1", 5000)) as client:

        def submit():
            return client.post("/v1/studies", json=body, headers={"Idempotency-Key": "k"})

        assert submit().status_code == 202
        with server.frozen():
            for n_waits in (1, 2):  # connections that were open, then a new one
                begun = time.monotonic()
                answer = submit()
                seconds.append(time.monotonic() - begun)
                assert seconds[-1] < PROMISED_SECONDS
                assert len(waits) == n_waits
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "2"
        served.db.wait(AT_ONCE)
        assert submit().headers["Idempotency-Replayed"] == "true"
    record_property("slowest_seconds", round(max(seconds), 2))


def test_connections_of_a_server_that_was_started_anew_are_replaced(server):
    store = Store(server.url)
    with store.db.reading() as first, store.db.reading() as second:
        for connection in (first, second):
            connection.execute(sa.text("select 1"))
    server.kill()
    server.start()
    for _ in range(3):
        store.db.time()
    store.db.pool.dispose()


def test_a_statement_that_takes_long_is_waited_for(server):
    patient = Store(server.url, answer_seconds=30.0)
    with patient.db.reading() as connection:
        connection.execute(sa.text("select pg_sleep(1)"))
    patient.db.pool.dispose()
