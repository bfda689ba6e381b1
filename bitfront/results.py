"""Results: the folder of one study. What it was asked, what made it, what was measured."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.errors import InvalidArgument, MismatchedArtifact, StorageError
from bitfront.experts import FILE as EXPERTS
from bitfront.files import drop_cut_line, reading, replacing
from bitfront.pareto import ParetoFront, objectives
from bitfront.space import SearchSpace
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Screened, Trial, TrialState, priced

_SIZES = ("bytes", "code_bits", "weight_bytes")
_SAID = {"layers": "layers (of ties, experts, KV cache, runtime)"}  # a digest says nothing


@dataclass(frozen=True)
class Results:
    """A results folder.

    ```
    study.json       the request of the latest finished run
    identity.json    digests of everything that measured values depend on
    space.json       layers and formats
    tables/          <estimator>.npz: its loss table, <estimator>-block<n>.npz until it is whole;
                     slopes-<allocation>.npz: slopes at a trial; cost-<quantity>.npz: latency_ns
                     and other costs of the latest run, by which every trial is priced
    trials.jsonl     one measured allocation a line, only ever appended
    screened.jsonl   one allocation a line that was measured on few sequences, the same
    pairs.json       KL of single groups and of pairs, where pairs were asked for
    experts.json     calibration tokens that each expert saw, of models with experts
    latency.json     predicted decoding steps held against measured ones, by `bitfront profile`
    comparison.json  what `bitfront compare` found, and comparison.html with its chart
    bank/            quantized weights     references/   predictions of the unquantized model
    bank.json        the file in bank/ of each layer in each format
    requantized/     the same of points that were quantized again
    environment.json versions, machine and command of that run
    report.html      its page, written by `bitfront search` and `bitfront report`
    ```

    Args:
        directory: the folder; made on first use.
    """

    directory: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises:
            MismatchedArtifact: another process is writing to it.
            StorageError: the folder cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (self.directory / ".lock").open("w")
        except OSError as error:
            raise StorageError(
                f"Cannot write to {self.directory}: {error.strerror}. Give another one with --out."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MismatchedArtifact(
                    f"{self.directory} is in use by another run: wait or give another folder."
                ) from error
            yield

    def admit(self, identity: Mapping[str, str]) -> None:
        """Refuse what cannot go on from the trials of the folder; one without trials is free.

        Raises:
            MismatchedArtifact: as `check`, or nothing tells what was measured.
        """
        if not any(self._lines()):
            return
        if not self._claimed:
            raise MismatchedArtifact(
                f"{self.directory} has trials but no identity.json that tells of what: "
                "give another folder with --out."
            )
        self.check(identity)

    def claim(self, space: SearchSpace, identity: Mapping[str, str]) -> None:
        """Make the folder one of this identity, or check that it already is.

        Budget, search, solver and number of trials may change between runs: every measurement
        stays valid. Whatever measurements depend on may not. What a run of another identity
        left without a trial, tables and screened allocations, is removed.

        Raises:
            MismatchedArtifact: model, text, formats, quantizer or estimator differ.
            StorageError: the folder cannot be written.
        """
        self.admit(identity)
        if not self.is_of(identity):
            self._drop_unused()
        self._write("space.json", space.to_json())
        self._write("identity.json", json.dumps(dict(identity), indent=1))

    def finish(self, study: Study, environment: Mapping[str, str]) -> None:
        """Store the request whose measurements are all there, and what made them.

        Not before: until then the folder answers the request of the run before.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._write("environment.json", json.dumps(dict(environment), indent=1))
        self._write("study.json", study.to_json())

    def check(self, identity: Mapping[str, str]) -> None:
        """Refuse a folder that is of other things; those that `identity` does not name may differ.

        Raises:
            InvalidArgument: the folder is of nothing.
            MismatchedArtifact: names what differs.
        """
        stored = self.identity
        differing = [k for k in sorted(identity) if stored.get(k) != identity[k]]
        if differing:
            detail = "; ".join(
                f"{_SAID.get(k, k)} was {_short(stored.get(k))}, is {_short(identity.get(k))}"
                for k in differing
            )
            raise MismatchedArtifact(
                f"{self.directory} holds another study ({detail}): give another folder with --out."
            )

    def is_of(self, identity: Mapping[str, str]) -> bool:
        """Whether the folder was claimed by what agrees with all that `identity` names."""
        return self._claimed and identity.items() <= self.identity.items()

    @property
    def _claimed(self) -> bool:
        return (self.directory / "identity.json").exists()

    @property
    def study(self) -> Study:
        """The request of the latest finished run."""
        if self._claimed and not (self.directory / "study.json").exists():
            raise InvalidArgument(
                f"{self.directory} has no finished search yet: run `bitfront search` to its end."
            )
        with reading(self._existing("study.json")) as path:
            return Study.from_json(path.read_text())

    @property
    def identity(self) -> dict[str, str]:
        """Digests of what measured values depend on."""
        # Without it measurements of another study would be taken for this one's.
        return _read_words(self._existing("identity.json"), replaceable=False)

    @property
    def space(self) -> SearchSpace:
        """What was searched."""
        with reading(self._existing("space.json")) as path:
            return SearchSpace.from_json(path.read_text())

    def trials(self, text: str | None = None) -> tuple[Trial, ...]:
        """Finished trials, oldest first; of one text when named.

        A last line that a kill cut short is dropped: that trial is measured again.

        Raises:
            MismatchedArtifact: a line is not a trial of this study; names it.
        """
        lines = self._lines()
        if not lines:
            return ()
        space = self.space if (self.directory / "space.json").exists() else None
        trials = []
        for number, line in enumerate(lines, 1):
            with reading(self.directory / "trials.jsonl", line=number):
                trials += [_trial(line, space)] if line else []
        prices = [] if space is None else self._prices(space)
        return tuple(priced(t, prices) for t in trials if text in (None, t.text))

    def save_prices(self, costs: Sequence[LayerTable]) -> None:
        """Store the cost tables beyond sizes; trials of earlier runs are priced by them too."""
        wanted = {f"cost-{t.quantity}": t for t in costs if t.quantity not in _SIZES}
        for path in self.directory.glob("tables/cost-*.npz"):
            if path.stem not in wanted:
                self.remove_table(path.stem)
        for name, table in wanted.items():
            self.save_table(name, table)

    def _prices(self, space: SearchSpace) -> list[LayerTable]:
        names = sorted(path.stem for path in self.directory.glob("tables/cost-*.npz"))
        return [table for name in names if (table := self.load_table(name, space))]

    def screened(self) -> tuple[Screened, ...]:
        """What was measured on few sequences, oldest first; a last line cut short is dropped.

        Raises:
            MismatchedArtifact: a line is not of that kind; names it.
        """
        made = []
        for number, line in enumerate(self._lines("screened.jsonl"), 1):
            with reading(self.directory / "screened.jsonl", line=number):
                made += [Screened.from_json(line.decode())] if line else []
        return tuple(made)

    def _lines(self, name: str = "trials.jsonl") -> list[bytes]:
        """Complete lines of a log."""
        path = self.directory / name
        if not path.exists():
            return []
        with reading(path):
            return path.read_bytes().split(b"\n")[:-1]

    def append(self, made: Trial | Screened) -> None:
        """Store what was measured, on disk before this returns.

        Raises:
            StorageError: disk full or no permission; earlier lines are untouched.
        """
        log = "trials.jsonl" if isinstance(made, Trial) else "screened.jsonl"
        path = self.directory / log
        try:
            # Unbuffered: a buffer would try to write its rest again when the file is closed.
            with path.open("a+b", buffering=0) as file:
                drop_cut_line(file.fileno())
                end = file.seek(0, os.SEEK_END)
                line = memoryview(made.to_json().encode() + b"\n")
                try:
                    while line:
                        line = line[file.write(line) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise StorageError(
                f"Cannot write {path}: {error.strerror}. Free some space and run the same command "
                "again: it continues with the measurement in flight."
            ) from error

    def front(self) -> ParetoFront:
        """Non-dominated trials on the evaluation text.

        Raises:
            InvalidArgument: nothing was measured on the evaluation text yet.
        """
        trials = [t for t in self.trials("evaluation") if t.state is TrialState.COMPLETE]
        if not trials:
            raise InvalidArgument(
                f"{self.directory} has no measured front yet: run `bitfront search` to the end."
            )
        finished = (self.directory / "study.json").exists()
        bounded = self.study.budget.bounds() if finished else ()
        return ParetoFront(tuple(trials), objectives(trials, bounded))

    @property
    def environment(self) -> dict[str, str]:
        """Versions, machine and command of the latest finished run; empty where none is."""
        path = self.directory / "environment.json"
        return _read_words(path) if path.exists() else {}

    @property
    def checks(self) -> tuple[dict[str, Any], ...]:
        """Rows of `latency.json`; none where it is not there.

        Raises:
            MismatchedArtifact: it cannot be read.
        """
        path = self.directory / "latency.json"
        if not path.exists():
            return ()
        with reading(path):
            return tuple(dict(row) for row in json.loads(path.read_text()))

    def save_bank_entries(
        self, entries: Mapping[tuple[str, str], str], again: str | None = None
    ) -> None:
        """Store which file of the bank each `(layer name, format name)` is.

        Those of a point that was quantized again go by the digest of its weights.
        """
        words = {f"{layer} {format}": entry for (layer, format), entry in entries.items()}
        self._write(_entries_of(again), json.dumps(words, indent=1))

    def bank_entries(self, again: str | None = None) -> dict[tuple[str, str], str]:
        """What `save_bank_entries` stored.

        Raises:
            MismatchedArtifact: missing or damaged.
        """
        path = self.directory / _entries_of(again)
        if not path.exists():
            raise MismatchedArtifact(f"{path} is missing: run `bitfront search` again to make it.")
        rows = [(key.rpartition(" "), entry) for key, entry in _read_words(path).items()]
        return {(layer, format): entry for (layer, _, format), entry in rows}

    def reference(self, text: str) -> Path:
        """Where the unquantized model's predictions of a text are kept."""
        return self.directory / "references" / f"{text}.safetensors"

    def save_table(self, name: str, table: LayerTable) -> None:
        """Store a table under `tables/<name>.npz`."""
        path = self.directory / "tables" / f"{name}.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                values=table.values,
                quantity=table.quantity,
                source=table.source,
                reduction=table.reduction,
                note=table.note,
                outside=table.outside,
            )

    def load_table(self, name: str, space: SearchSpace) -> LayerTable | None:
        """A stored table; `None` when there is none."""
        path = self.directory / "tables" / f"{name}.npz"
        if not path.exists():
            return None
        # Opened here because numpy leaves a damaged file open.
        with reading(path), path.open("rb") as file:
            return LayerTable.read(file, space)

    def remove_table(self, name: str) -> None:
        """Remove `tables/<name>.npz`."""
        _remove(self.directory / "tables" / f"{name}.npz")

    def _drop_unused(self) -> None:
        # Whatever else lies there is not ours: `--out .` may name any folder.
        for path in self.directory.glob("tables/*.npz"):
            self.remove_table(path.stem)
        for name in ("screened.jsonl", "pairs.json", EXPERTS):
            _remove(self.directory / name)

    def _write(self, name: str, text: str) -> None:
        with replacing(self.directory / name) as temporary:
            temporary.write_text(text + "\n")

    def _existing(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            raise InvalidArgument(
                f"{self.directory} is not a results folder (no {name}): give the --out of a search."
            )
        return path


def _entries_of(again: str | None) -> str:
    return "bank.json" if again is None else f"requantized/{text_digest(again)[:16]}.json"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot remove {path}: {error.strerror}.") from error


def _read_words(path: Path, replaceable: bool = True) -> dict[str, str]:
    """A JSON object of names and words; arguments as of `reading`.

    Raises:
        MismatchedArtifact: cannot be read, or is something else.
    """
    with reading(path, replaceable):
        return {str(name): str(word) for name, word in json.loads(path.read_text()).items()}


def _trial(line: bytes, space: SearchSpace | None) -> Trial:
    """The trial of a line; its allocation must be one of the space, where that is known."""
    trial = Trial.from_json(line.decode())
    if space is not None:
        right = space.decode(space.encode(trial.allocation))
        for layer, format in sorted(trial.allocation.formats.items() - right.formats.items()):
            raise InvalidArgument(f"layer {layer!r} cannot have format {format!r} in this study")
        if trial.allocation != right:
            raise InvalidArgument("the allocation lacks a pinned layer")
    return trial


def text_digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: str | None) -> str:
    return "absent" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
