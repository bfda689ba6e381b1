"""What the numbers are: one family of formats a file; torch-free to import."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from bitfront.errors import UnknownPlugin
from bitfront.formats.base import Format
from bitfront.plugins import Plugins, nearest_name

FORMATS: Plugins[Format] = Plugins(__name__, "format family")


@cache
def catalogue() -> Mapping[str, Format]:
    """Every named format of every family, by name."""
    families = [FORMATS.load(family) for family in FORMATS.names()]
    return MappingProxyType({f.name: f for family in families for f in family.catalogue()})


def named(name: str) -> Format:
    """The format of a canonical name such as `"int4_g64"`.

    Raises:
        UnknownPlugin: no such format; the message has the nearest name and the list.
    """
    known = catalogue()
    if name not in known:
        raise UnknownPlugin(
            f"Unknown format {name!r}.{nearest_name(name, tuple(known))} "
            f"Available: {', '.join(known)}."
        )
    return known[name]
