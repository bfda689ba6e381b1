import subprocess
import sys

import pytest

from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.plugins import Choice, parameters, summary
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
