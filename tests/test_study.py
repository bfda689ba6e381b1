import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from instances import random_space

from bitfront import formats
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.plugins import Choice
from bitfront.space import Layer, SearchSpace
from bitfront.study import Study, TextSource


@pytest.fixture
def space():
    menu = tuple(formats.named(f"int{bits}_g64") for bits in (2, 4, 8))
    pinned = ((Layer("embed", (32, 64), "embed"), menu[2]),)
    return SearchSpace((Layer("a", (64, 64), "a"), Layer("b", (64, 128), "b")), menu, pinned, 100)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("3.5bpw", 3.5, "bpw"),
        ("60 MB", 60.0, "MB"),
        ("4bits", 4.0, "bits"),
        (" 1e3KiB ", 1e3, "KiB"),
    ],
)
def test_budgets_are_read_from_text(text, value, unit):
    budget = Budget.parse(text)
    assert (budget.value, budget.unit) == (value, unit)
    assert Budget.parse(str(budget)) == budget


@given(
    st.floats(1e-3, 1e15).flatmap(lambda x: st.sampled_from([x, round(x, 4), float(round(x))])),
    st.sampled_from(["bits", "bpw", "B", "KB", "GiB"]),
)
def test_a_printed_budget_reads_back_as_it_was(value, unit):
    assume(value > 0)
    assert Budget.parse(str(Budget(value, unit))) == Budget(value, unit)


def test_budgets_are_printed_without_what_nobody_typed():
    assert [str(Budget(x, "B")) for x in (60.0, 3.5, 13476839425.0)] == [
        "60B",
        "3.5B",
        "13476839425B",
    ]


@pytest.mark.parametrize(
    "text", ["", "3.5", "bpw", "-3bpw", "0MB", "3.5parsecs", "1.2.3MB", "nanbpw"]
)
def test_unreadable_budgets_say_what_is_allowed(text):
    with pytest.raises(InvalidArgument, match=r"such as 3\.5bpw or 60MB"):
        Budget.parse(text)


def test_limits_are_on_the_searched_layers(space):
    n_weights = 64 * 64 + 64 * 128
    assert Budget.parse("3.5bits").limits(space) == {"code_bits": 3.5 * n_weights}
    assert Budget.parse("3.5bpw").limits(space) == {"bytes": 3.5 * n_weights / 8}
    assert Budget.parse("10KB").limits(space) == {"bytes": 10_000 - space.outside_bytes}


def test_uniform_int4_meets_a_budget_of_exactly_its_own_size(space):
    four = space.formats[1]
    nbytes = sum(four.nbytes(x.shape) for x in space.layers)
    assert Budget(8 * nbytes / space.n_weights, "bpw").limits(space)["bytes"] == nbytes
    assert Budget(nbytes + space.outside_bytes, "B").limits(space)["bytes"] == nbytes


@pytest.mark.parametrize("text", ["16bits", "16bpw", "1GB"])
def test_a_budget_that_bf16_meets_is_refused(text):
    space = random_space(np.random.default_rng(0), 3, 3)
    if text == "16bpw":
        text = "16.5bpw"
    with pytest.raises(InvalidArgument, match="the unquantized model fits"):
        Budget.parse(text).limits(space)


def study(**changes):
    fields = {
        "model": "folder",
        "budget": Budget.parse("3.5bpw"),
        "calibration": TextSource("a.txt"),
        "evaluation": TextSource("b.txt", 8, 128),
        "estimator": Choice("fisher", {"n_samples": 8}),
    }
    return Study(**(fields | changes))


def test_json_round_trip():
    assert Study.from_json(study().to_json()) == study()


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": 1}', "not json"])
def test_other_json_is_refused(text):
    with pytest.raises(InvalidArgument, match="Not the JSON of a study"):
        Study.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [{"n_trials": 0}, {"formats": ()}, {"dtype": "int8"}, {"device": "abacus"}],
    ids=lambda changes: next(iter(changes)),
)
def test_values_out_of_range_are_refused(changes):
    with pytest.raises(InvalidArgument):
        study(**changes)


def test_unknown_formats_are_refused_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="Did you mean 'int4_g64'"):
        study(formats=("int4_g46",))


def test_texts_need_a_sequence():
    with pytest.raises(InvalidArgument, match="at least 1 sequence of 8 tokens"):
        TextSource("a.txt", 0)


def test_a_quantizer_that_a_search_would_run_as_another_is_refused():
    with pytest.raises(InvalidArgument, match="would be gptq") as refused:
        Study("m", Budget.parse("4bpw"), quantizer=Choice("gptaq", {"share": 1.0}))
    assert "\n" not in str(refused.value)
