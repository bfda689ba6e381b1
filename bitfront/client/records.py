"""What a server tells, as frozen records; fields that are not known here are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from bitfront.errors import Unreachable

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteStudy:
    """A study on a server, as it stood when it was asked for.

    Args:
        id: 32 hexadecimal digits.
        owner: whose it is.
        state: `WAITING`, `RUNNING`, `CANCELLING`, `COMPLETE`, `PARTIAL`, `FAIL` or `CANCELLED`.
        stage: what is being done.
        done: steps done of that stage.
        total: steps in all.
        seconds_left: at the pace so far; `None` while unknown.
        error: why it failed.
        created_at: ISO 8601, as the server says it.
        request: what was asked, defaults included.
    """

    id: str
    owner: str
    state: str
    stage: str
    done: int
    total: int
    seconds_left: float | None
    error: str | None
    created_at: str
    request: Mapping[str, Any]

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens unless someone resumes or extends it."""
        return self.state not in {"WAITING", "RUNNING", "CANCELLING"}


@dataclass(frozen=True)
class RemoteEvent:
    """Something that happened to a study.

    Args:
        id: grows with time; `Client.watch` goes on after it.
        kind: `state`, `stage`, `trial`, `proposed`, `checkpoint` or `stale`.
        body: what happened.
    """

    id: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class RemoteTrial:
    """A measured allocation, or one that is to be measured, without its formats."""

    number: int
    text: str
    origin: str
    state: str
    values: Mapping[str, float]
    error: str | None


@dataclass(frozen=True)
class RemoteFile:
    """A file of a checkpoint."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A point that is to be, or was, written; it has files once its state is `COMPLETE`."""

    study_id: str
    number: int
    trial: int
    exporter: str
    state: str
    error: str | None
    files: tuple[RemoteFile, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether it is written, or never will be unless it is asked for again."""
        return self.state not in {"WAITING", "RUNNING"}


def study(item: Any) -> RemoteStudy:
    """A study from an answer."""
    return _made(RemoteStudy, _part(item) | _part(_part(item).get("progress")))


def trial(item: Any) -> RemoteTrial:
    """A trial from an answer."""
    return _made(RemoteTrial, _part(item))


def checkpoint(item: Any) -> RemoteCheckpoint:
    """A checkpoint from an answer."""
    files = tuple(_made(RemoteFile, _part(file)) for file in _part(item).get("files", ()))
    return _made(RemoteCheckpoint, _part(item) | {"files": files})


def _part(item: Any) -> dict[str, Any]:
    return dict(item) if isinstance(item, Mapping) else {}


def _made(kind: type[T], item: Mapping[str, Any]) -> T:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in item.items() if name in names})
    except TypeError as error:
        raise Unreachable(
            f"The server's answer is no {kind.__name__}: check that BITFRONT_URL is the address "
            "of a bitfront server of this version."
        ) from error
