"""What `import bitfront` offers is listed, sorted, documented, and there."""

import inspect
import subprocess
import sys

import pytest

import bitfront

NOUNS = {
    "Allocation", "Format", "LayerTable", "ParetoFront", "Problem", "SearchSpace", "Study", "Trial",
}  # fmt: skip


def test_the_list_is_sorted_and_without_repeats():
    assert bitfront.__all__ == sorted(set(bitfront.__all__))


def test_nouns_and_verbs_are_public():
    assert NOUNS | {"run_study", "export_checkpoint"} <= set(bitfront.__all__)


@pytest.mark.parametrize("name", bitfront.__all__)
def test_public_names_exist_and_say_what_they_are(name):
    value = getattr(bitfront, name)
    if callable(value):
        assert inspect.getdoc(value)
        assert value.__module__.startswith("bitfront.")


def test_every_class_of_the_package_is_listed():
    ours = {
        name
        for name, value in vars(bitfront).items()
        if inspect.isclass(value) and value.__module__.startswith("bitfront.")
    }
    assert ours
    assert ours <= set(bitfront.__all__)


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="run_studio"):
        _ = bitfront.run_studio


def test_importing_bitfront_loads_no_torch():
    code = "import sys, bitfront; assert 'torch' not in sys.modules; bitfront.Study"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
