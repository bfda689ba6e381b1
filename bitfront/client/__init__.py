"""Client: what a bitfront server can be asked to do, from Python.

with Client("http://127.0.0.1:8765") as client:
    study = client.submit({"model": "org/name@main", "budget": "4.25bpw"})
    for event in client.watch(study.id):
        print(event.kind, event.body)
    points = client.front(study.id, "csv")
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2

from bitfront.artifacts import digest_of
from bitfront.client import records
from bitfront.client.connection import LOST, Connection, Patience, silent
from bitfront.client.records import (
    RemoteCheckpoint,
    RemoteEvent,
    RemoteFile,
    RemoteStudy,
    RemoteTrial,
)
from bitfront.errors import InvalidArgument, MismatchedArtifact, NotFound
from bitfront.files import replacing
from bitfront.signatures import is_signed

__all__ = [
    "Client",
    "RemoteCheckpoint",
    "RemoteEvent",
    "RemoteFile",
    "RemoteStudy",
    "RemoteTrial",
]

URL = "http://127.0.0.1:8765"
"""Where `bitfront serve` listens when nothing else is said."""

_ROOT = "/v1/studies"
_ID = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"[0-9a-f]{4,31}")


def uncounted(done: int, total: int) -> None:
    """Say nothing of bytes."""


class Client:
    """A server, and the key with which it is asked.

    An answer that is lost on its way is asked for again where that does no harm: what makes a study
    carries a key of its own, under which the server makes no second one.

    Args:
        url: address of the server.
        key: API key; `None` on a machine without keys.
        patience: seconds for which a server that went away is waited for.
        waiting: is told why a request is made again.
        http: makes the requests instead of a connection to `url`.

    Raises:
        InvalidArgument: `url` is no address, or `key` has characters that no key has.
    """

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        patience: float = 60.0,
        waiting: Callable[[str], None] = silent,
        http: httpx2.Client | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._server = Connection(url, key, patience, waiting, http)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; the next request opens one again."""
        self._server.close()

    def submit(self, study: Mapping[str, Any], idempotency_key: str | None = None) -> RemoteStudy:
        """Have a study searched.

        Args:
            study: the body of `POST /v1/studies`: `model`, `budget` and whatever else.
            idempotency_key: the same key and body again give the study that was made; by default
                a new one.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return records.study(self._server.json("POST", _ROOT, study, headers=headers))

    def get(self, study_id: str) -> RemoteStudy:
        """Where a study stands."""
        return records.study(self._server.json("GET", _place(study_id)))

    def list(self, state: str | None = None) -> Iterator[RemoteStudy]:
        """Studies of the key's owner, newest first; all of them for an administrator."""
        return map(records.study, self._server.items(_ROOT, {"state": state} if state else {}))

    def find(self, text: str) -> str:
        """The id of the study whose id begins or ends so; a whole id is taken as it is.

        Raises:
            NotFound: no study, or several.
            InvalidArgument: no part of an id.
        """
        if _ID.fullmatch(text):
            return text
        if not _PART.fullmatch(text):
            raise InvalidArgument(
                f"{text[:60]!r} is not the id of a study: give its 32 hexadecimal digits, or at "
                "least the first or last 4 of them."
            )
        found = [s.id for s in self.list() if s.id.startswith(text) or s.id.endswith(text)]
        if len(found) != 1:
            which = f"{len(found)} studies have ids" if found else "No study has an id"
            raise NotFound(f"{which} with {text!r} at an end: `bitfront studies` lists them.")
        return found[0]

    def watch(self, study_id: str, after: int = 0) -> Iterator[RemoteEvent]:
        """What happened to a study after an event, then what happens, until the study is over.

        A stream that breaks off is taken up where it ended.

        Raises:
            NotFound: no such study.
            Unreachable: the server stayed away for longer than `patience`.
        """
        patience = Patience(self._server)
        while True:
            last = {"Last-Event-ID": str(after)} if after else {}
            try:
                with self._server.stream(f"{_place(study_id)}/events", last) as answer:
                    if answer.status_code == 204:
                        return
                    patience.answered()
                    for event in _events(answer):
                        after = event.id
                        yield event
            except LOST as error:
                patience.wait(error)
            else:
                patience.sleep()

    def cancel(self, study_id: str) -> RemoteStudy:
        """Stop a study; what was measured stays."""
        return self._change(study_id, "cancel")

    def resume(self, study_id: str) -> RemoteStudy:
        """Go on with a study that was cancelled or failed."""
        return self._change(study_id, "resume")

    def extend(
        self, study_id: str, n_trials: int | None = None, max_minutes: float | None = None
    ) -> RemoteStudy:
        """Give a study more measurements or minutes, in all; one that is over goes on."""
        return self._change(study_id, "extend", _given(n_trials=n_trials, max_minutes=max_minutes))

    def _change(
        self, study_id: str, verb: str, body: Mapping[str, Any] | None = None
    ) -> RemoteStudy:
        path = f"{_place(study_id)}/{verb}"
        return records.study(self._server.json("POST", path, body, repeatable=False))

    def front(self, study_id: str, format: str = "json", allocations: bool = True) -> bytes:
        """The measured front as the bytes of a file.

        Args:
            study_id: of which study.
            format: `json`, `csv` or `parquet`.
            allocations: whether points have the format of each layer, which may be thousands.
        """
        path, asked = f"{_place(study_id)}/front", {"format": format, "allocations": allocations}
        return self._server.call("GET", path, params=asked).content

    def trials(
        self, study_id: str, text: str | None = None, finished: bool = False
    ) -> Iterator[RemoteTrial]:
        """Trials by number; of one text, or only those measured or failed, where asked."""
        asked = {"finished": finished, **_given(text=text)}
        return map(records.trial, self._server.items(f"{_place(study_id)}/trials", asked))

    def materialise(
        self,
        study_id: str,
        at: str | None = None,
        trial: int | None = None,
        exporter: str = "packed",
    ) -> RemoteCheckpoint:
        """Have the best point within a budget, or a trial, written; asked twice, it is one."""
        body = {"exporter": exporter, **_given(at=at, trial=trial)}
        return records.checkpoint(
            self._server.json("POST", f"{_place(study_id)}/checkpoints", body)
        )

    def checkpoints(self, study_id: str) -> Iterator[RemoteCheckpoint]:
        """Checkpoints of a study in the order they were asked for, without their files."""
        found = self._server.json("GET", f"{_place(study_id)}/checkpoints")
        return map(records.checkpoint, found["items"])

    def checkpoint(self, study_id: str, number: int) -> RemoteCheckpoint:
        """A checkpoint with its files."""
        path = f"{_place(study_id)}/checkpoints/{number}"
        return records.checkpoint(self._server.json("GET", path))

    def download(
        self,
        checkpoint: RemoteCheckpoint,
        folder: Path,
        progress: Callable[[int, int], None] = uncounted,
    ) -> None:
        """Bring the files of a checkpoint; those that are there are not brought again.

        Args:
            checkpoint: written, with its files.
            folder: where to.
            progress: is told the bytes that are there and the bytes in all.

        Raises:
            MismatchedArtifact: what came is not what the server has.
            StorageError: a file cannot be written.
        """
        total, before = sum(file.size for file in checkpoint.files), 0
        for file in checkpoint.files:
            target = _inside(folder, file.name)
            if not (target.is_file() and digest_of(target) == file.sha256):
                with replacing(target) as temporary:
                    self._fetch(
                        checkpoint, file, temporary, partial(_moved, progress, before, total)
                    )
            before += file.size
            progress(before, total)

    def _fetch(
        self,
        checkpoint: RemoteCheckpoint,
        file: RemoteFile,
        target: Path,
        progress: Callable[[int], None],
    ) -> None:
        root = f"{_place(checkpoint.study_id)}/checkpoints/{checkpoint.number}/files"
        patience = Patience(self._server)
        target.touch()
        while (n_there := target.stat().st_size) < file.size:
            # As stored, so that the rest of it is the rest of the file.
            rest = {"Accept-Encoding": "identity"}
            rest |= {"Range": f"bytes={n_there}-"} if n_there else {}
            try:
                with self._server.stream(f"{root}/{file.name}", rest) as answer:
                    patience.answered()
                    # A server may send the whole of it all the same.
                    with target.open("ab" if answer.status_code == 206 else "wb") as out:
                        for chunk in answer.iter_bytes():
                            out.write(chunk)
                            progress(out.tell())
            except LOST as error:
                patience.wait(error)
        if digest_of(target) != file.sha256:
            raise MismatchedArtifact(
                f"{file.name} came with other bytes than the server has: download it again."
            )

    def manifest(self, study_id: str, number: int) -> dict[str, Any]:
        """The signed manifest of a checkpoint."""
        path = f"{_place(study_id)}/checkpoints/{number}/manifest"
        found: dict[str, Any] = self._server.json("GET", path)
        return found

    def is_signed(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a manifest is as the server signed it."""
        return is_signed(manifest, self.manifest_key())

    def manifest_key(self) -> bytes:
        """The public key of the server, for `bitfront.signatures.is_signed` without it."""
        return bytes.fromhex(self._server.json("GET", "/v1/manifests/key")["public_key"])

    def plugins(self) -> Mapping[str, Any]:
        """Everything that a study may name, with the schemas of its parameters."""
        found: Mapping[str, Any] = self._server.json("GET", "/v1/plugins")
        return found


def _place(study_id: str) -> str:
    if not _ID.fullmatch(study_id):
        raise NotFound(f"{study_id[:60]!r} is no id of a study: give 32 hexadecimal digits.")
    return f"{_ROOT}/{study_id}"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _moved(progress: Callable[[int, int], None], before: int, total: int, n_bytes: int) -> None:
    progress(before + n_bytes, total)


def _inside(folder: Path, name: str) -> Path:
    """Where a file of a server goes; never outside the folder.

    Raises:
        MismatchedArtifact: the server names another place.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise MismatchedArtifact(f"The server names a file {name[:80]!r}: it is not brought.")
    return folder.joinpath(*parts)


def _events(answer: httpx2.Response) -> Iterator[RemoteEvent]:
    for event in httpx2.EventSource(answer):
        if event.id and event.data:
            yield RemoteEvent(int(event.id), event.event, json.loads(event.data))
