"""What engines load, as data: a TOML file per engine and version; and the engines themselves.

A profile is a file such as `vllm.toml`; one of another version stands beside it under its own
name, such as `vllm-0.40.toml`. A runner is a file such as `vllm.py`.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.plugins import Plugins, nearest_name
from bitfront.runtimes.base import Runner, Runtime, read

RUNNERS: Plugins[Runner] = Plugins(__name__, "runtime")
_FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Every profile, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def named(name: str, tensor_parallel: int = 1) -> Runtime:
    """The profile of a name, for so many ranks.

    Raises:
        UnknownPlugin: no such profile; the message has the nearest name and the list.
        InvalidArgument: more ranks than the engine spreads weights over.
    """
    if name not in names():
        raise UnknownPlugin(
            f"Unknown runtime {name!r}.{nearest_name(name, names())} "
            f"Available: {', '.join(names())}."
        )
    found = _profile(name)
    if not 1 <= tensor_parallel <= found.max_tensor_parallel:
        raise InvalidArgument(
            f"tensor_parallel is {tensor_parallel}: runtime {name!r} takes "
            f"{'only 1' if found.max_tensor_parallel == 1 else '1 to '}"
            f"{'' if found.max_tensor_parallel == 1 else found.max_tensor_parallel}."
        )
    return replace(found, tensor_parallel=tensor_parallel)


@cache
def _profile(name: str) -> Runtime:
    with (_FOLDER / f"{name}.toml").open("rb") as file:
        return read(name, tomllib.load(file))
