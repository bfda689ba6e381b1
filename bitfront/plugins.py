"""Plug-ins by file name: `solvers/greedy.py` holds `Greedy`, built by `SOLVERS.build("greedy")`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Generic, TypeVar, cast

from bitfront.errors import InvalidArgument, UnknownPlugin

T = TypeVar("T")
Param = bool | int | float | str | None

_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "str": (str, "a word"),
    "None": (type(None), "none"),
}
"""What the words of a field's annotation accept, and how a message says it."""


@dataclass(frozen=True)
class Choice:
    """A plug-in by name with its parameters, as written in a study.

    >>> Choice.parse("fisher:n_samples=8")
    Choice(name='fisher', params={'n_samples': 8})
    >>> str(Choice("fisher", {"n_samples": 8}))
    'fisher:n_samples=8'
    """

    name: str
    params: Mapping[str, Param] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        params = ",".join(f"{key}={value}" for key, value in sorted(self.params.items()))
        return f"{self.name}:{params}" if params else self.name

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read `name` or `name:key=value,key=value`; numbers and true/false are converted.

        Raises:
            InvalidArgument: a part after the colon is not `key=value`, or nothing is there.
        """
        name, colon, tail = text.partition(":")
        if colon and not tail.strip():
            raise InvalidArgument(f"Cannot read {text!r}: write name, or name:key=value,key=value.")
        params: dict[str, Param] = {}
        for part in filter(None, tail.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise InvalidArgument(
                    f"Cannot read {part!r} in {text!r}: write name:key=value,key=value."
                )
            params[key.strip()] = _parsed(value.strip())
        return cls(name.strip(), params)

    @classmethod
    def parse_list(cls, text: str) -> tuple[Choice, ...]:
        """Read several choices, separated by commas; `key=value` belongs to the one before.

        >>> [str(choice) for choice in Choice.parse_list("a:x=1,y=2,b")]
        ['a:x=1,y=2', 'b']

        Raises:
            InvalidArgument: a parameter comes before any name.
        """
        parts: list[str] = []
        for part in filter(None, (each.strip() for each in text.split(","))):
            begins = ":" in part or "=" not in part
            if not begins and not parts:
                raise InvalidArgument(f"Cannot read {text!r}: begin with a name.")
            if begins:
                parts.append(part)
            else:
                parts[-1] += ("," if ":" in parts[-1] else ":") + part
        return tuple(map(cls.parse, parts))


def _parsed(text: str) -> Param:
    if text.lower() in {"true", "false", "none"}:
        return {"true": True, "false": False, "none": None}[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def nearest_name(name: str, known: tuple[str, ...], n: int = 1, cutoff: float = 0.6) -> str:
    """` Did you mean 'x'?` when a known name is close, else nothing; then others.

    Args:
        name: what was asked for.
        known: what there is.
        n: how many to name at most.
        cutoff: how close they must be, 1 for the same (`difflib`).
    """
    close = difflib.get_close_matches(name, known, n, cutoff)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return guess + (f" Near it, too: {', '.join(close[1:])}." if close[1:] else "")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The alternatives of one folder; nothing is imported until it is named.

    Args:
        package: dotted name of the folder, such as `"bitfront.solvers"`.
        kind: what one alternative is called in messages, such as `"solver"`.
    """

    package: str
    kind: str

    def names(self) -> tuple[str, ...]:
        """File names of the folder but for `base` and those that begin with `_`, sorted."""
        paths = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(paths)]
        return tuple(sorted(n for n in names if n != "base" and not n.startswith("_")))

    def load(self, name: str) -> type[T]:
        """The class of file `name`: its file name in CamelCase.

        Raises:
            UnknownPlugin: no such file; the message has the nearest name and the list.
        """
        known = self.names()
        if name not in known:
            raise UnknownPlugin(
                f"Unknown {self.kind} {name!r}.{nearest_name(name, known)} "
                f"Available: {', '.join(known)}."
            )
        module = importlib.import_module(f"{self.package}.{name}")
        return cast("type[T]", getattr(module, name.title().replace("_", "")))

    def build(self, name: str, params: Mapping[str, Param] = MappingProxyType({})) -> T:
        """An instance of alternative `name` with the given hyperparameters.

        Raises:
            UnknownPlugin: no such alternative.
            InvalidArgument: a parameter that the alternative lacks, or a value of another type or
                out of its range.
        """
        alternative = self.load(name)
        fields = dataclasses.fields(alternative)  # type: ignore[arg-type]
        known = {
            f.name: Parameter(str(getattr(f.type, "__name__", f.type)), cast("Param", f.default))
            for f in fields
            if f.init
        }
        check_params(f"{self.kind} {name!r}", params, known)
        try:
            return alternative(**params)
        except TypeError as error:
            raise InvalidArgument(f"Cannot build {self.kind} {name!r}: {error}.") from error


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter of a plug-in.

    Args:
        annotation: its type as it is written, such as `"int | None"`.
        default: what it is unless given.
    """

    annotation: str
    default: Param

    @property
    def words(self) -> list[str]:
        """Words of the annotation, such as `["int", "None"]`; a default of None allows None."""
        words = [word.strip() for word in self.annotation.split("|")]
        if self.default is None and "None" not in words:
            words.append("None")
        return [word for word in words if word in _TYPES]


def check_params(owner: str, params: Mapping[str, Param], known: Mapping[str, Parameter]) -> None:
    """Refuse parameters that a plug-in lacks, or values of another type.

    Args:
        owner: the plug-in in messages, such as `"solver 'greedy'"`.
        params: what was given.
        known: its parameters.

    Raises:
        InvalidArgument: names the first.
    """
    for key, value in params.items():
        if key not in known:
            raise InvalidArgument(
                f"Unknown parameter {key!r} of {owner}."
                f"{nearest_name(key, tuple(known))} Available: {', '.join(known) or 'none'}."
            )
        allowed = known[key].words
        if not any(_is_a(value, word) for word in allowed):
            raise InvalidArgument(
                f"Parameter {key!r} of {owner} is {value!r}: "
                f"give {' or '.join(_TYPES[word][1] for word in allowed)}."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidArgument(f"Parameter {key!r} of {owner} is {value}: give a finite number.")
        if key == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
            raise InvalidArgument(
                f"Parameter {key!r} of {owner} is {value}: give a whole number from 0 to 2**32 - 1."
            )


def _is_a(value: object, word: str) -> bool:
    # True is a whole number to Python; to a user it is not.
    return isinstance(value, _TYPES[word][0]) and (word == "bool" or not isinstance(value, bool))


def parameters(alternative: type) -> dict[str, Param]:
    """Hyperparameters of a plug-in class with their defaults."""
    return {f.name: cast("Param", f.default) for f in dataclasses.fields(alternative) if f.init}


def settings(plugin: object) -> dict[str, Param]:
    """Fields of a plug-in with the values they have, fixed ones too; a format by its name."""
    values = {f.name: getattr(plugin, f.name) for f in dataclasses.fields(plugin)}  # type: ignore[arg-type]
    return {key: getattr(value, "name", value) for key, value in values.items()}


def summary(alternative: type) -> str:
    """First line of a plug-in's docstring: what it computes."""
    return (inspect.getdoc(alternative) or "").partition("\n")[0]
