"""Keys that every database can store, or none."""

import math

import pytest

from bitfront.errors import InvalidArgument
from bitfront.store.keys import MAX_SECONDS


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"owner": ""}, "1 to 64"),
        ({"owner": "x" * 65}, "1 to 64"),
        ({"owner": "a\x00b"}, r"a\x00b"),
        ({"owner": "a\nb"}, "printable"),
        ({"scopes": ()}, "read, write, admin"),
        ({"scopes": ("read", "x" * 300)}, "read, write, admin"),
        ({"seconds": math.nan}, "seconds"),
        ({"seconds": math.inf}, "seconds"),
        ({"seconds": -5.0}, "seconds"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": 2 * MAX_SECONDS}, "seconds"),
        ({"max_running": 0}, "2,147,483,647"),
        ({"max_running": 99_999_999_999}, "2,147,483,647"),
        ({"max_device_hours": math.nan}, "hours"),
        ({"max_device_hours": math.inf}, "hours"),
        ({"max_device_hours": -1.0}, "hours"),
    ],
    ids=str,
)
def test_keys_that_cannot_be_are_refused_before_the_database_sees_them(store, change, told):
    with pytest.raises(InvalidArgument) as caught:
        store.keys.create(**{"owner": "anna", **change})
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not store.keys.exist()


def test_the_largest_key_that_can_be(store):
    scopes = ["read", "admin", "read"] * 100
    made, secret = store.keys.create("ü" * 64, scopes, 2**31 - 1, MAX_SECONDS, 1e300)
    assert store.keys.verified(secret) == made
    assert made.scopes == ("read", "admin")
    assert made.max_running == 2**31 - 1
