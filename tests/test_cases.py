"""Every plug-in of every kind has a line in cases.py, and every line has a plug-in."""

import importlib
import pkgutil

import cases
import pytest

import bitfront
from bitfront.plugins import Plugins, summary


def plugin_folders():
    folders = [m.name for m in pkgutil.iter_modules(bitfront.__path__) if m.ispkg]
    modules = [importlib.import_module(f"bitfront.{folder}") for folder in folders]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Plugins) and value.package == module.__name__
    }


KINDS = plugin_folders()


def test_every_kind_is_found():
    assert {"FORMATS", "QUANTIZERS", "ESTIMATORS", "SOLVERS", "SEARCHES"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_has_a_claim(kind):
    claims = getattr(cases, kind)
    assert sorted(claims) == list(KINDS[kind].names()), f"add or remove lines of cases.{kind}"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, folder in KINDS.items() for name in folder.names()]
)
def test_every_plugin_builds_by_name_and_says_what_it_computes(kind, name):
    plugin = KINDS[kind].build(name)
    assert plugin == KINDS[kind].build(name)
    assert summary(type(plugin)).endswith((".", ":"))
