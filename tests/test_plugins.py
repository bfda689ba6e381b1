import subprocess
import sys
from dataclasses import dataclass

import pytest

from bitfront.cli.plugins import plugin_kinds
from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.plugins import Choice, Plugins, parameters, summary
from bitfront.quantizers import QUANTIZERS
from bitfront.sensitivity import ESTIMATORS
from bitfront.solvers import SOLVERS


def test_names_are_the_files_of_the_folder():
    assert SOLVERS.names() == tuple(sorted(SOLVERS.names()))
    assert {"cp_sat", "greedy", "lagrangian"} <= set(SOLVERS.names())
    assert "base" not in SOLVERS.names()


def test_a_name_loads_the_class_in_camel_case():
    assert SOLVERS.load("dynamic_programming").__name__ == "DynamicProgramming"


def test_unknown_names_list_the_known_and_guess_the_nearest():
    with pytest.raises(
        UnknownPlugin, match=r"Unknown solver 'gredy'.*Did you mean 'greedy'.*cp_sat, "
    ):
        SOLVERS.load("gredy")


def test_unknown_parameters_list_the_known_and_guess_the_nearest():
    with pytest.raises(
        InvalidArgument, match=r"'time_limits' of solver 'cp_sat'.*'time_limit'.*seed"
    ):
        SOLVERS.build("cp_sat", {"time_limits": 3})


@pytest.mark.parametrize("params", [{"time_limit": -1}, {"time_limit": "soon"}])
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(InvalidArgument):
        SOLVERS.build("cp_sat", params)


WRONG_TYPES = [
    (QUANTIZERS, "rtn", "clip_steps", 2.5, "a whole number"),
    (QUANTIZERS, "rtn", "clip_steps", True, "a whole number"),
    (QUANTIZERS, "rtn", "clip_steps", None, "a whole number"),
    (QUANTIZERS, "gptq", "act_order", "maybe", "true or false"),
    (QUANTIZERS, "gptq", "act_order", 1, "true or false"),
    (QUANTIZERS, "gptq", "damping", "maybe", "a number"),
    (ESTIMATORS, "fisher", "n_draws", 1.5, "a whole number"),
    (ESTIMATORS, "fisher", "n_draws", "maybe", "a whole number"),
    (ESTIMATORS, "fisher", "labels", 3, "a word"),
    (SOLVERS, "cp_sat", "time_limit", False, "a number"),
]


@pytest.mark.parametrize(
    ("folder", "name", "key", "value", "allowed"),
    WRONG_TYPES,
    ids=[f"{name}-{key}-{value}" for _, name, key, value, _ in WRONG_TYPES],
)
def test_parameters_of_another_type_are_refused(folder, name, key, value, allowed):
    with pytest.raises(InvalidArgument) as refused:
        folder.build(name, {key: value})
    message = str(refused.value)
    assert f"{key!r} of {folder.kind} {name!r}" in message
    assert repr(value) in message
    assert f"give {allowed}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("hessian_trace", {"seed": -1}, "from 0 to"),
        ("evolved", {"seed": 2**32}, "from 0 to"),
        ("salience", {"damping": float("inf")}, "finite"),
        ("salience", {"damping": float("nan")}, "finite"),
    ],
)
def test_numbers_that_nothing_can_use_are_refused(name, params, message):
    with pytest.raises(InvalidArgument, match=message):
        ESTIMATORS.build(name, params)


def test_whole_numbers_are_numbers():
    assert SOLVERS.build("cp_sat", {"time_limit": 3}).time_limit == 3
    assert ESTIMATORS.build("fisher", {"n_draws": 3}).n_draws == 3


@pytest.mark.parametrize("value", [None, 3])
def test_nothing_is_given_only_where_the_annotation_allows_it(monkeypatch, value):
    @dataclass(frozen=True)
    class Capped:
        limit: int | None = 4

    monkeypatch.setattr(Plugins, "load", lambda self, name: Capped)
    assert SOLVERS.build("capped", {"limit": value}).limit == value
    with pytest.raises(InvalidArgument, match="give a whole number or none"):
        SOLVERS.build("capped", {"limit": 2.5})


@pytest.mark.parametrize("kind", ["estimator", "solver", "search", "quantizer"])
def test_every_parameter_has_a_type_that_is_checked(kind):
    folder = plugin_kinds()[kind]
    for name in folder.names():
        for key in parameters(folder.load(name)):
            with pytest.raises(InvalidArgument, match=f"{key!r} of {kind} {name!r}"):
                folder.build(name, {key: [1]})


def test_listing_imports_no_plugin():
    code = (
        "import sys; from bitfront.solvers import SOLVERS; SOLVERS.names();"
        "assert 'ortools' not in sys.modules and 'bitfront.solvers.cp_sat' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("cp_sat", {}),
        ("cp_sat:seed=3", {"seed": 3}),
        ("x:a=1e-3,b=true,c=none,d=word", {"a": 1e-3, "b": True, "c": None, "d": "word"}),
    ],
)
def test_choices_are_read_from_text(text, params):
    choice = Choice.parse(text)
    assert choice == Choice(text.partition(":")[0], params)
    assert Choice.parse(str(choice)) == choice


def test_choice_without_equals_is_refused():
    with pytest.raises(InvalidArgument, match="name:key=value"):
        Choice.parse("cp_sat:fast")


def test_parameters_and_summary_come_from_the_class():
    solver = SOLVERS.load("cp_sat")
    assert parameters(solver)["n_workers"] == 1
    assert summary(solver).startswith("The optimum by constraint programming")
