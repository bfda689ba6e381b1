"""Notes: what an exporter says of the folder that it wrote, in `bitfront.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = "bitfront.json"
"""File with the allocation, notes and the names of the files written with it: a folder that has it,
and no other files, may be written again."""
LATER = ("manifest.json", "check-*.json")
"""Files that come beside those: the manifest and the verdicts of checks."""


def added(folder: Path) -> list[str]:
    """Files of a checkpoint's folder that were not written with it, such as a user's own."""
    files = _read(folder).get("files")
    written = [MARK, *files] if isinstance(files, list) else [MARK]
    return [
        name
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
        if (name := path.relative_to(folder).as_posix()) not in written
        if not any(path.match(later) for later in LATER)
    ]


def unmeasured(folder: Path) -> str:
    """What the weights of a checkpoint are instead of the measured ones; empty where they are.

    What cannot be read says nothing; its digest does.
    """
    made = _read(folder)
    if made.get("unquantized"):
        return "they are unquantized"
    if anew := made.get("rounded_anew"):
        kinds = ", ".join(sorted(set(anew.values())))
        return f"{len(anew)} of {len(made['formats'])} layers were rounded anew, to {kinds}"
    return ""


def widened(folder: Path) -> str:
    """Which layers take 16 bits a weight in place of their format, and the bytes that this costs.

    Their values are the measured ones all the same. Empty where there are none.
    """
    more: dict[str, int] = _read(folder).get("at_16_bits", {})
    if not more:
        return ""
    kept = f"{', '.join(more)} {'is' if len(more) == 1 else 'are'} stored at 16 bits"
    return f"{kept}, {sum(more.values()) / 1e6:.3g} MB more than was counted"


def base_of(folder: Path) -> dict[str, Any] | None:
    """Source, digest and bytes of what the offsets of a folder are added to; `None` without any."""
    note = _read(folder).get("base")
    kinds = {"source": str, "digest": str, "bytes": int}
    is_whole = isinstance(note, dict) and all(
        isinstance(note.get(name), kind) and note[name] for name, kind in kinds.items()
    )
    return note if is_whole else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        made = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return made if isinstance(made, dict) else {}
