"""Timings: how long packed layers, and the rest of a model, take on one device; a JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.files import replacing
from bitfront.space import SearchSpace

Shape = tuple[int, int]
_VERSION = 1


@dataclass(frozen=True)
class Timing:
    """One thing timed in several rounds, between which all others were timed.

    Args:
        samples: nanoseconds, the median over the calls of each round.
    """

    samples: tuple[float, ...]

    @property
    def ns(self) -> float:
        """Median of the rounds."""
        return median(self.samples)

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds in nanoseconds; 0 where there is one."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = quantiles(self.samples, n=4, method="inclusive")
        return high - low


@dataclass(frozen=True)
class LayerCall:
    """A packed layer at work: `[batch, 1, in_features]` in, `[batch, 1, out_features]` out.

    Args:
        shape: `(out_features, in_features)`.
        format: its name; `"bf16"` is a plain linear layer.
        batch: sequences that are decoded together.
    """

    shape: Shape
    format: str
    batch: int


@dataclass(frozen=True)
class RestOfStep:
    """A decoding step of a model without its searched layers.

    That is attention over the context, norms, embedding and head in their pinned format, and what
    launching all of it takes.

    Args:
        model: `rest_digest` of its space.
        batch: sequences that are decoded together.
        context: tokens that each has before the step.
    """

    model: str
    batch: int
    context: int


Timed = LayerCall | RestOfStep


@dataclass(frozen=True)
class Timings:
    """What `bitfront profile` writes.

    Args:
        device: what was timed, in words; threads too on a CPU.
        dtype: of activations, and of weights that no format touches.
        versions: of the software that ran.
        date: of the last entry, ISO.
        entries: time of each thing.
    """

    device: str
    dtype: str
    versions: Mapping[str, str]
    date: str = ""
    entries: Mapping[Timed, Timing] = field(default_factory=dict)

    def with_sample(self, timed: Timed, ns: float, date: str) -> Timings:
        """One more round of one thing."""
        samples = self.entries[timed].samples if timed in self.entries else ()
        entries = {**self.entries, timed: Timing((*samples, ns))}
        return replace(self, entries=entries, date=date)

    def check_same(self, other: Timings) -> None:
        """Refuse to mix times of two machines.

        Raises:
            MismatchedArtifact: device, dtype or versions differ; says which.
        """
        for what in ("device", "dtype", "versions"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise MismatchedArtifact(
                    f"The table of latencies is of {what} {_words(mine)}, this is "
                    f"{_words(theirs)}: give another file with --out."
                )

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            StorageError: it could not be written; what was there is untouched.
        """
        fields = {
            "bitfront_timings": _VERSION,
            "device": self.device,
            "dtype": self.dtype,
            "versions": dict(self.versions),
            "date": self.date,
            "layers": [
                {"shape": key.shape, "format": key.format, "batch": key.batch} | _times(timing)
                for key, timing in self.entries.items()
                if isinstance(key, LayerCall)
            ],
            "rest_of_step": [
                {"model": key.model, "batch": key.batch, "context": key.context} | _times(timing)
                for key, timing in self.entries.items()
                if isinstance(key, RestOfStep)
            ],
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(fields, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Timings:
        """Read a file of `save`.

        Raises:
            InvalidArgument: there is none, or it is something else.
        """
        try:
            fields = json.loads(path.read_text())
            if fields["bitfront_timings"] != _VERSION:
                raise ValueError(f"version {fields['bitfront_timings']}")
            entries: dict[Timed, Timing] = {}
            for row in fields["layers"]:
                rows, columns = row["shape"]
                call = LayerCall((int(rows), int(columns)), str(row["format"]), int(row["batch"]))
                entries[call] = _timing(row)
            for row in fields["rest_of_step"]:
                rest = RestOfStep(str(row["model"]), int(row["batch"]), int(row["context"]))
                entries[rest] = _timing(row)
            device, dtype, date = (str(fields[name]) for name in ("device", "dtype", "date"))
            return cls(device, dtype, dict(fields["versions"]), date, entries)
        except OSError as error:
            raise InvalidArgument(
                f"Cannot read the table of latencies {str(path)!r}: {error.strerror}. "
                "Make one with `bitfront profile MODEL --out FILE`."
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(
                f"{str(path)!r} is no table of latencies ({type(error).__name__}: {error}): "
                "make one with `bitfront profile MODEL --out FILE`."
            ) from error


def rest_digest(space: SearchSpace) -> str:
    """SHA-256 of the model around the searched layers, in hexadecimal; menu and groups are free."""
    pinned = [[x.name, x.shape, f.name] for x, f in space.pinned]
    rest = [[[x.name, x.shape] for x in space.layers], pinned, space.fixed_bytes]
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


def _times(timing: Timing) -> dict[str, Any]:
    samples = [round(sample) for sample in timing.samples]
    return {"ns": round(timing.ns), "spread_ns": round(timing.spread), "samples_ns": samples}


def _timing(row: Mapping[str, Any]) -> Timing:
    samples = tuple(float(sample) for sample in row["samples_ns"])
    if not samples or not all(0 < sample < 1e15 for sample in samples):
        raise ValueError(f"samples_ns of {samples[:4]}")
    return Timing(samples)


def _words(value: str | Mapping[str, str]) -> str:
    if isinstance(value, str):
        return repr(value)
    return ", ".join(f"{name} {version}" for name, version in sorted(value.items()))
