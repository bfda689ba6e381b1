"""Search spaces that a process keeps."""

import gc
import weakref

from store.studies import SPACE

from bitfront.space import Layer, SearchSpace
from bitfront.store.database import insert_new
from bitfront.store.lifecycle import space_of
from bitfront.store.tables import spaces


def test_search_spaces_are_kept_while_they_are_used(store):
    def stored(index):
        layer = Layer(f"layer-{index}", (128, 128), "block", index)
        space = SearchSpace((layer,), SPACE.formats)
        with store.db.writing() as connection:
            insert_new(connection, spaces, {"digest": space.digest, "body": space.to_json()})
            return weakref.ref(space_of(connection, space.digest)), space.digest

    used, digest = stored(0)
    unused, _ = stored(1)
    for index in range(2, 40):
        stored(index)
        with store.db.reading() as connection:
            assert space_of(connection, digest) is used()
    gc.collect()
    assert unused() is None
