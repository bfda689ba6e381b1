"""What plug-ins there are and which parameters they have, read from their files without a run.

Importing them would load torch, OR-tools and Optuna into a process that only checks words.
"""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bitfront.errors import UnknownPlugin
from bitfront.plugins import Choice, Param, Parameter, check_params, nearest_name

KINDS: Mapping[str, tuple[str, str]] = {
    "costs": ("costs", "cost"),
    "estimators": ("sensitivity", "estimator"),
    "exporters": ("export", "exporter"),
    "metrics": ("evaluation", "metric"),
    "quantizers": ("quantizers", "quantizer"),
    "searches": ("search", "search"),
    "solvers": ("solvers", "solver"),
}
"""Folder of each kind, and what one alternative is called in messages."""

_ROOT = Path(__file__).parents[1]
_PARSING = threading.Lock()


@dataclass(frozen=True)
class Declared:
    """A plug-in as its file declares it.

    Args:
        name: of the file.
        summary: what it computes, in a line.
        parameters: by name.
    """

    name: str
    summary: str
    parameters: Mapping[str, Parameter]


@cache
def names(kind: str) -> tuple[str, ...]:
    """Alternatives of a kind, sorted."""
    stems = [path.stem for path in (_ROOT / KINDS[kind][0]).glob("*.py")]
    return tuple(sorted(s for s in stems if s != "base" and not s.startswith("_")))


def declared(kind: str, name: str) -> Declared:
    """One alternative.

    Raises:
        UnknownPlugin: no such file; the message has the nearest name and the list.
    """
    # `ast.parse` in several threads at once fails with a SystemError (python/cpython#106905).
    with _PARSING:
        return _declared(kind, name)


@cache
def _declared(kind: str, name: str) -> Declared:
    folder, word = KINDS[kind]
    known = names(kind)
    if name not in known:
        raise UnknownPlugin(
            f"Unknown {word} {name[:80]!r}.{nearest_name(name, known)} "
            f"Available: {', '.join(known)}."
        )
    module = f"bitfront.{folder}.{name}"
    title = name.title().replace("_", "")
    summary = (ast.get_docstring(_classes(module)[title]) or "").partition("\n")[0]
    return Declared(name, summary, _parameters(module, title))


def check(kind: str, choice: Choice) -> None:
    """Refuse a plug-in that is not there, parameters that it lacks, values of another type.

    Ranges are the plug-in's own and checked where it is built.

    Raises:
        UnknownPlugin: no alternative of that name.
        InvalidArgument: names the parameter.
    """
    found = declared(kind, choice.name)
    check_params(f"{KINDS[kind][1]} {choice.name!r}", choice.params, found.parameters)


@cache
def _tree(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {n.name: n for n in _tree(module).body if isinstance(n, ast.ClassDef)}


def _parameters(module: str, name: str) -> dict[str, Parameter]:
    """Fields of a dataclass, those of its bases first, as `dataclasses.fields` has them."""
    node = _classes(module).get(name)
    if node is None:
        return {}
    found: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            found |= _parameters(*_home(module, base.id))
    for field in _fields(node):
        assert isinstance(field.target, ast.Name)
        found[field.target.id] = Parameter(
            ast.unparse(field.annotation), _value(module, field.value)
        )
    return found


def _fields(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or "ClassVar" in ast.unparse(each.annotation):
            continue
        if not (isinstance(each.value, ast.Call) and "init=False" in ast.unparse(each.value)):
            yield each


def _home(module: str, name: str) -> tuple[str, str]:
    """Module and name by which a name of `module` was defined."""
    if name in _classes(module):
        return module, name
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bitfront."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return str(node.module), alias.name
    return module, ""


def _value(module: str, node: ast.expr | None) -> Param:
    if isinstance(node, ast.Name):
        node = _constant(module, node.id)
    try:
        value: Param = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    return value


def _constant(module: str, name: str) -> ast.expr | None:
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node.value
    return None
