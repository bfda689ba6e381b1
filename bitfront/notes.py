"""Notes: what an exporter says of the folder that it wrote, in `bitfront.json`."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

MARK = "bitfront.json"
"""File with the allocation, notes and the names of the files written with it: a folder that has it,
and no other files, may be written again."""
MANIFEST = "manifest.json"
VERDICT = "check-{runtime}.json"
"""File beside the weights with what `bitfront check` found."""


def is_later(name: str) -> bool:
    """Whether a file, named from its checkpoint's folder, is the manifest or a check's verdict.

    >>> is_later("manifest.json"), is_later("check-vllm.json"), is_later("web/manifest.json")
    (True, True, False)
    """
    return name == MANIFEST or ("/" not in name and fnmatch(name, VERDICT.format(runtime="*")))


def added(folder: Path) -> list[str]:
    """Files of a checkpoint's folder that were not written with it, such as a user's own."""
    # Exports of before `files` was there have a manifest that lists them.
    files = _read(folder).get("files") or _read(folder, MANIFEST).get("files")
    written = {MARK, *map(str, files)} if isinstance(files, (list, dict)) else {MARK}
    return [
        name
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
        if (name := path.relative_to(folder).as_posix()) not in written
        if not is_later(name)
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


def _read(folder: Path, name: str = MARK) -> dict[str, Any]:
    try:
        made = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return made if isinstance(made, dict) else {}
