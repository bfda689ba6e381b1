"""Which artifacts are listed, while workers store them and others collect them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

DIGEST = "a" * 64


def test_workers_that_store_the_same_file_list_it_once(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.files.add(DIGEST, 4), range(32)))
    assert store.files.listed() == {DIGEST}


def listed_meanwhile(store):
    """What a collector calls, during which a worker lists the file again; and that worker."""
    worker = threading.Thread(target=store.files.add, args=(DIGEST, 4))

    def remove(_digest):
        worker.start()
        time.sleep(0.3)
        assert worker.is_alive(), "it did not wait for the collector"

    return remove, worker


def test_a_file_that_is_stored_while_it_is_collected_is_listed_after_it_is_gone(store):
    """So that its worker finds no bytes, and stores them again."""
    store.files.add(DIGEST, 4)
    remove, worker = listed_meanwhile(store)
    assert store.files.forget(DIGEST, -1.0, remove)
    worker.join()
    assert store.files.listed() == {DIGEST}


def test_a_file_that_was_never_listed_is_collected_in_the_same_way(store):
    remove, worker = listed_meanwhile(store)
    assert store.files.forget_unlisted(DIGEST, remove)
    worker.join()
    assert store.files.listed() == {DIGEST}
    assert not store.files.forget_unlisted(DIGEST, remove)
