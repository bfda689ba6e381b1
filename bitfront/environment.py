"""Environment: versions, machine and command that a result was made with."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bitfront.version import __version__


def environment() -> dict[str, str]:
    """Versions, machine and command that a result was made with."""
    return versions() | {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on, and the commit of bitfront where it is known."""
    commit = _commit()
    return {
        "bitfront": __version__,
        **({"commit": commit} if commit else {}),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy", "safetensors")},
    }


def cpu_model() -> str:
    """Name of the central processor, as its maker gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def _commit() -> str:
    """Commit of the repository that bitfront runs from, with `-dirty` if files were changed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
