"""What the numbers are: one family of formats a file; torch-free to import."""

from __future__ import annotations

from bitfront.errors import UnknownPlugin
from bitfront.formats.base import Format
from bitfront.plugins import Plugins, nearest_name

FORMATS: Plugins[Format] = Plugins(__name__, "format family")


def catalogue() -> dict[str, Format]:
    """Every named format of every family."""
    return {f.name: f for family in FORMATS.names() for f in FORMATS.load(family).catalogue()}


def named(name: str) -> Format:
    """The format of a canonical name such as `"int4_g64"`.

    Raises:
        UnknownPlugin: no such format; the message has the nearest name and the list.
    """
    known = catalogue()
    if name not in known:
        raise UnknownPlugin(
            f"Unknown format {name!r}.{nearest_name(name, tuple(known))} Available: {', '.join(known)}."
        )
    return known[name]
