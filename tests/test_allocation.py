from bitfront.allocation import Allocation

ONE = Allocation({"b": "int4_g64", "a": "bf16"})


def test_order_does_not_matter():
    other = Allocation({"a": "bf16", "b": "int4_g64"})
    assert other == ONE
    assert hash(ONE) == hash(other)
    assert ONE.digest == other.digest
    assert ONE.to_json() == other.to_json()


def test_another_format_is_another_allocation():
    other = Allocation({"a": "bf16", "b": "int3_g64"})
    assert other != ONE
    assert ONE.digest != other.digest
    assert len({ONE, other}) == 2


def test_json_round_trip():
    assert Allocation.from_json(ONE.to_json()) == ONE
