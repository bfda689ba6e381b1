"""Manifest: what a checkpoint was made of, kept in its folder as `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.errors import BitfrontError, InvalidArgument, MismatchedArtifact
from bitfront.notes import MANIFEST, is_later
from bitfront.plugins import Choice
from bitfront.study import Study
from bitfront.trial import Trial


@dataclass(frozen=True)
class Digest:
    """SHA-256 of a file, in hexadecimal, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """All that it takes to make a checkpoint again and to measure it again.

    Args:
        study: what was asked.
        trial: the point: allocation, the text it was measured on, measured values.
        exporter: what wrote the folder, with parameters.
        identity: digests of what the values depend on: model, formats, quantized weights, tokens of
            each text, seed (`identity.json` of a results folder).
        measured_with: versions, machine and command of what measured the values.
        written_with: versions and commit of what wrote the folder.
        files: digest of every file of the folder but this one.
        requantized: quantizer with parameters that the point was quantized again by, for its
            allocation alone: `trial` and `identity` are then of these weights, and not those that
            the search measured. `None` where they are.
    """

    study: Study
    trial: Trial
    exporter: str
    identity: Mapping[str, str]
    measured_with: Mapping[str, str]
    written_with: Mapping[str, str]
    files: Mapping[str, Digest]
    requantized: Choice | None = None

    @property
    def command(self) -> str:
        """Writes the same files again, from the folder of the checkpoint."""
        return f"bitfront export . --exporter {self.exporter} --out ../again"

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it back."""
        trial: dict[str, Any] = json.loads(self.trial.to_json())
        allocation = trial.pop("allocation")["formats"]
        fields: dict[str, Any] = {
            "study": json.loads(self.study.to_json()),
            "study_digest": self.study.digest,
            "allocation": allocation,
            "trial": trial,
            "exporter": self.exporter,
            "identity": dict(self.identity),
            "measured_with": dict(self.measured_with),
            "written_with": dict(self.written_with),
            "files": {name: vars(digest) for name, digest in self.files.items()},
            "command": self.command,
        }
        if self.requantized is not None:  # without it as manifests always were
            fields["requantized"] = str(self.requantized)
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Inverse of `to_json`; what is no such JSON raises what reading it happens to raise."""
        fields = json.loads(text)
        study = Study.from_json(json.dumps(fields["study"]))
        if fields["study_digest"] != study.digest:
            raise InvalidArgument("study_digest is not that of the study")
        again = fields.get("requantized")
        trial = {**fields["trial"], "allocation": {"formats": fields["allocation"]}}
        return cls(
            study,
            Trial.from_json(json.dumps(trial)),
            str(fields["exporter"]),
            _words(fields["identity"]),
            _words(fields["measured_with"]),
            _words(fields["written_with"]),
            {str(name): Digest(**each) for name, each in fields["files"].items()},
            None if again is None else Choice.parse(again),
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a checkpoint.

        Raises:
            InvalidArgument: the folder has none.
            MismatchedArtifact: it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise InvalidArgument(
                f"{folder} has no {MANIFEST}: give a checkpoint that bitfront export wrote, "
                "or export it again."
            )
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MismatchedArtifact(f"{path} cannot be read: {error.strerror}.") from error
        # JSON of anything may be found there; which of a dozen types it raises says nothing.
        except Exception as error:
            kind = "" if isinstance(error, BitfrontError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split()).rstrip(".")
            raise MismatchedArtifact(
                f"{path} is damaged ({reason}): export the checkpoint again."
            ) from error

    def changes(self, folder: Path) -> tuple[str, ...]:
        """One line for each file that is missing, added, or not as it was written."""
        there, lines = digests(folder), []
        for name in sorted(there.keys() | self.files.keys()):
            was, now = self.files.get(name), there.get(name)
            if now is None:
                lines.append(f"{name} is missing.")
            elif was is None:
                lines.append(f"{name} was not written with the checkpoint.")
            elif was.size != now.size:
                lines.append(f"{name} has {now.size:,} bytes, was written with {was.size:,}.")
            elif was != now:
                lines.append(f"{name} has SHA-256 {now.sha256[:16]}, was {was.sha256[:16]}.")
        return tuple(lines)


def digests(folder: Path) -> dict[str, Digest]:
    """Digest of every file of a checkpoint but its manifest and the verdicts of checks."""
    return {
        name: _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_later(name := path.relative_to(folder).as_posix())
    }


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _words(fields: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(word) for name, word in fields.items()}
