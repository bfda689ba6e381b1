"""Checkpoints whose weights are not the measured ones, as their exporter says."""

from __future__ import annotations

import json
from pathlib import Path

from bitfront.export.base import MARK


def unmeasured(folder: Path) -> str:
    """What the weights of a checkpoint are instead of the measured ones; empty where they are.

    What cannot be read says nothing; its digest does.
    """
    try:
        made = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(made, dict):
        return ""
    if made.get("unquantized"):
        return "they are unquantized"
    if anew := made.get("rounded_anew"):
        kinds = ", ".join(sorted(set(anew.values())))
        return f"{len(anew)} of {len(made['formats'])} layers were rounded anew, to {kinds}"
    return ""
