"""Templates, and the address of each static file by what is in it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bitfront.api.ui import words
from bitfront.trial import LOSSES, loss_name, loss_of

STATIC = Path(__file__).parent / "static"


@cache
def environment() -> Environment:
    """Templates that escape everything and know every name they use."""
    made = Environment(
        loader=PackageLoader("bitfront", "api/ui/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "duration": words.duration,
        "moment": words.moment,
        "iso": words.iso,
        "figure": words.figure,
        "told": words.told,
        "loss": loss_of,
        "loss_title": lambda values: LOSSES[loss_name(values)],
    }
    made.globals["static"] = static
    return made


@cache
def static(name: str) -> str:
    """Path of a static file, with a digest so that browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"static/{name}?v={digest[:12]}"
