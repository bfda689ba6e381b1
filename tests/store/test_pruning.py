"""Rows that nobody asks for any more, and those that somebody may."""

import pytest
import sqlalchemy as sa
from store.studies import SPACE, request, run

from bitfront.space import Layer, SearchSpace
from bitfront.store.database import insert_new
from bitfront.store.pruning import DAY, pruned
from bitfront.store.tables import audit, spaces, workers


def names(store, column):
    with store.db.reading() as connection:
        return set(connection.execute(sa.select(column)).scalars())


def aged(store, table, column, days, *place):
    with store.db.writing() as connection:
        connection.execute(sa.update(table).where(*place).values({column: column - days * DAY}))


def test_old_workers_audits_and_unused_spaces_go(store):
    for name in ("gone", "here"):
        store.queue.seen(name, "cpu", "celery", "1")
    aged(store, workers, workers.c.seen_at, 2, workers.c.name == "gone")
    for target in ("old", "new"):
        store.keys.note("anna", None, "cancel_study", target, 202)
    aged(store, audit, audit.c.at, 400, audit.c.target == "old")
    kept, _ = store.studies.create(request(n_trials=4), "anna")
    run(store)
    unused = SearchSpace((Layer("a", (128, 128), "a", 0),), SPACE.formats)
    with store.db.writing() as connection:
        insert_new(connection, spaces, {"digest": unused.digest, "body": unused.to_json()})
    assert pruned(store.db, audit_days=365) == 3
    assert "here" in names(store, workers.c.name)
    assert "gone" not in names(store, workers.c.name)
    assert names(store, audit.c.target) == {"new"}
    assert names(store, spaces.c.digest) == {SPACE.digest}
    assert pruned(store.db, audit_days=365) == 0
    store.studies.delete(kept.id)
    assert pruned(store.db, audit_days=365) == 1
    store.studies.create(request(n_trials=4), "anna")
    run(store)
    assert names(store, spaces.c.digest) == {SPACE.digest}


def test_a_worker_that_was_started_again_under_its_name_is_up_for_as_long_as_its_process(store):
    store.queue.seen("machine-1-0", "cpu", "local", "1", age=100.0)
    (first,) = store.activity.workers()
    assert first.seen_at - first.started_at == pytest.approx(100.0, abs=0.1)
    store.queue.seen("machine-1-0", "gpu", "local", "2", age=0.5)
    (again,) = store.activity.workers()
    assert again.seen_at - again.started_at == pytest.approx(0.5, abs=0.1)
    assert (again.queue, again.version) == ("gpu", "2")
