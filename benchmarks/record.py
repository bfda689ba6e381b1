"""Rows of measurements appended to `benchmarks/results/<name>.csv`."""

from __future__ import annotations

import csv
import datetime
import functools
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bitfront.environment import cpu_model

FOLDER = Path(__file__).parent / "results"
ORIGIN = ("machine", "date", "commit", "command")


@dataclass(frozen=True)
class Record:
    """One results file: where each row was measured comes first, then the columns.

    Args:
        name: file name without its ending.
        columns: names of the measured values, in order.
        folder: where the file lies.
        command: what made the rows; empty for the script that runs.

    >>> import tempfile
    >>> record = Record("demo", ("layers", "seconds"), Path(tempfile.mkdtemp()))
    >>> record.add(layers=224, seconds=0.5)
    >>> record.rows()[0]["seconds"]
    '0.5'
    """

    name: str
    columns: tuple[str, ...]
    folder: Path = FOLDER
    command: str = ""

    def __post_init__(self) -> None:
        # Before anything is measured: rows of other columns would not fit those in the file.
        if self.path.exists():
            with self.path.open(newline="") as file:
                found = next(csv.reader(file), [])
            if found != [*ORIGIN, *self.columns]:
                raise ValueError(f"{self.path} has other columns: {', '.join(found)}.")

    @property
    def path(self) -> Path:
        """The CSV file."""
        return self.folder / f"{self.name}.csv"

    def add(self, **values: object) -> None:
        """Append one row; a missing value stays empty, one that is no column is an error."""
        unknown = sorted(set(values) - set(self.columns))
        if unknown:
            raise KeyError(f"Not columns of {self.path.name}: {', '.join(unknown)}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, (*ORIGIN, *self.columns), restval="", lineterminator="\n")
            if is_new:
                writer.writeheader()
            made_by = {"command": self.command} if self.command else {}
            writer.writerow(origin() | made_by | values)

    def rows(self) -> list[dict[str, str]]:
        """Every row so far."""
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))


@functools.cache
def origin() -> dict[str, str]:
    """Machine, day, commit (with `+` when files differ from it) and command of this run.

    Taken at the first row, so that rows of one run agree. Results of other runs are no difference.
    Folders of the machine stay out.
    """
    changed = _git("diff", "--name-only", "HEAD", "--", ":/", ":(exclude,top)benchmarks/results")
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]
    return {
        "machine": f"{cpu_model()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if changed else ""),
        "command": shlex.join(command),
    }


def _git(*arguments: str) -> str:
    try:
        command = ["git", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
