"""Who writes next to an SQLite database: nobody goes twice while others wait."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Barrier

from bitfront.store import Store

N_WRITERS, N_TURNS = 4, 25


def test_writers_take_turns(tmp_path):
    """Each has a database of its own, as processes do, and asks again as soon as it has written."""
    url = f"sqlite:///{tmp_path / 'bitfront.db'}"
    together, order = Barrier(N_WRITERS), []

    def write(name):
        store = Store(url)
        store.db.time()
        together.wait()
        for _ in range(N_TURNS):
            with store.db.writing():
                order.append(name)
                time.sleep(0.005)
        store.db.pool.dispose()

    with ThreadPoolExecutor(N_WRITERS) as pool:
        list(pool.map(write, range(N_WRITERS)))
    # At the end the last of them is alone.
    everyone = order[: -2 * N_TURNS]
    assert max(len(list(run)) for _, run in groupby(everyone)) < N_TURNS / 3
