"""The same key at once: one study, and who comes too early is told so."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from soak import n
from store.studies import request

from bitfront.errors import InFlight, KeyReused


class Slow:
    """A quota that is looked at for as long as the test says; the key is taken by then."""

    max_device_hours = None

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def check(self, _connection, _owner, _study_id):
        self.begun.set()
        assert self.go_on.wait(30)


# With SQLite every writer waits for the one before it.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.fault("F11", database="postgresql")
def test_a_key_whose_first_request_is_not_answered_yet(store):
    quota = Slow()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.studies.create, request(), "anna", key="k", quota=quota)
        assert quota.begun.wait(30)
        with pytest.raises(InFlight, match="'k' is being answered: send it again"):
            store.studies.create(request(), "anna", key="k")
        assert store.studies.create(request(), "bert", key="k")[1]
        quota.go_on.set()
        made, is_new = first.result()
    again, is_new_again = store.studies.create(request(), "anna", key="k")
    assert (again.id, is_new, is_new_again) == (made.id, True, False)


@pytest.mark.fault("F11")
def test_many_at_once_make_one_study(store):
    """F11: fewer at a time than there are connections, so that nobody waits long for one."""

    def post(_):
        try:
            return store.studies.create(request(), "anna", key="k")
        except InFlight:
            return None

    with ThreadPoolExecutor(12) as pool:
        answers = [answer for answer in pool.map(post, range(n(20, 1000))) if answer]
    assert len({study.id for study, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert len(store.studies.page()) == 1
    with pytest.raises(KeyReused, match="another request"):
        store.studies.create(request(seed=1), "anna", key="k")
    assert store.studies.create(request(), "ben", key="k")[1]
