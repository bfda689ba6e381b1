"""What the numbers are: one family of formats a file; torch-free to import."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType

from bitfront.errors import UnknownPlugin
from bitfront.formats._activations import ACTIVATIONS
from bitfront.formats.base import Format
from bitfront.formats.weight_activation import parsed
from bitfront.plugins import Plugins, nearest_name

FORMATS: Plugins[Format] = Plugins(__name__, "format family")


@cache
def catalogue() -> Mapping[str, Format]:
    """Every listed format of every family, by name; pairs with inputs that are not go by name."""
    families = [FORMATS.load(family) for family in FORMATS.names()]
    return MappingProxyType({f.name: f for family in families for f in family.catalogue()})


def named(name: str) -> Format:
    """The format of a canonical name such as `"int4_g64"`, or of a pair: `"int4_g64_aint8"`.

    Raises:
        UnknownPlugin: no such format; the message has names near it and says what lists all.
    """
    known = catalogue()
    found = known.get(name) or _pair(name)
    if found is None:
        raise UnknownPlugin(
            f"Unknown format {name!r}.{nearest_name(name, tuple(known), 6, 0.5)} "
            f"`bitfront plugins` lists all {len(known)}; "
            f"those of weights go with inputs in {', '.join(ACTIVATIONS)}, as in int4_g64_aint8."
        )
    return found


@cache
def _of_weights() -> Mapping[str, Format]:
    return {name: f for name, f in catalogue().items() if f.input_format is None}


@lru_cache(4096)  # of what users ask for
def _pair(name: str) -> Format | None:
    return parsed(name, _of_weights())
