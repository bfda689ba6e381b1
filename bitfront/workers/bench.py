"""Bench: where a worker works. Its folder, and the study it has loaded."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import torch

from bitfront.artifacts import Artifacts
from bitfront.environment import environment
from bitfront.errors import MismatchedArtifact, StorageError
from bitfront.job import Job
from bitfront.models.hub import fetched, located, needs_hub
from bitfront.progress import Event, Progress
from bitfront.results import Results
from bitfront.run import Prepared, estimated, prepared
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.study import Study
from bitfront.workers.fetching import fetched_beside

logger = logging.getLogger(__name__)

_KEPT_FOLDERS = 4
_HUB = "hub"
_NOT_STORED = {"trials.jsonl", "screened.jsonl", "study.json"}
"""Files of a results folder whose truth is the database, or which only this worker needs."""


def use_gpu(index: int) -> None:
    """Have `cuda` mean one GPU in this process, another one in each process of the machine.

    Args:
        index: of the process among those of the machine that may use one; they share GPUs where
            there are fewer.
    """
    if n_gpus := torch.cuda.device_count():
        torch.cuda.set_device(index % n_gpus)


@dataclass(eq=False)
class _Warm:
    """A study that is loaded."""

    study_id: str
    stack: ExitStack
    prepared: Prepared
    job: Job | None = None
    files: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Bench:
    """A place to work at: one process, one folder, at most one study loaded.

    Args:
        store: the database.
        artifacts: where files are exchanged with other workers.
        settings: of this machine.
        queues: what its tasks are taken from.
    """

    store: Store
    artifacts: Artifacts
    settings: Settings
    queues: tuple[str, ...] = ("cpu", "gpu")
    _warm: _Warm | None = field(default=None, init=False)
    _folder: Path | None = field(default=None, init=False)
    _lock: IO[str] | None = field(default=None, init=False)
    _report: Progress | None = field(default=None, init=False)

    @property
    def warm(self) -> str | None:
        """The study that is loaded."""
        return self._warm.study_id if self._warm else None

    @property
    def folder(self) -> Path:
        """A folder of this process alone; the next one takes it over with all that is in it.

        Raises:
            StorageError: none can be made.
        """
        if self._folder is None:
            self._folder = self._taken()
        return self._folder

    def _taken(self) -> Path:
        index, may_use_gpu = 0, "gpu" in self.queues and self.settings.device != "cpu"
        while True:
            # Those that use none are counted apart, so that each GPU has its process.
            name = f"{index}" if may_use_gpu else f"cpu-{index}"
            folder = self.settings.home / "work" / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = (folder / ".lock").open("w")
            except OSError as error:
                raise StorageError(f"Cannot write to {folder}: {error.strerror}.") from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                index += 1
            else:
                self._lock = lock
                if may_use_gpu:
                    use_gpu(index)
                return folder

    def study(self, study_id: str) -> Study:
        """The request, with files for what the hub has; a device left open is this machine's."""
        study = located(self.store.studies.get(study_id).study, self.folder / study_id / _HUB)
        return replace(study, device=self.settings.device) if study.device == "auto" else study

    def request(self, study_id: str, progress: Progress) -> Study:
        """The request with the commit of each revision; fetches what it names on the hub.

        Raises:
            InvalidModel, InvalidText: the hub does not have it.
        """
        study, folder = self.store.studies.get(study_id).study, self.folder / study_id / _HUB
        if not needs_hub(study):
            return study
        event = Event("fetch", 0, 1)
        # What an earlier attempt brought: a branch may have moved since.
        known = fetched(folder)
        return known or fetched_beside(study, folder, self.settings, lambda: progress(event))

    def prepared(
        self, study_id: str, progress: Progress, max_layers: int | None = None
    ) -> Prepared:
        """The study loaded and quantized; kept until another one is asked for.

        Raises:
            InvalidModel: it has more than `max_layers`.
        """
        self._report = progress
        if self._warm is None or self._warm.study_id != study_id:
            self.cool()
            files = self.fetch(study_id)
            stack = ExitStack()
            try:
                folder = self.folder / study_id
                study = self.study(study_id)
                loading = prepared(study, folder, self._shown, max_layers)
                made = stack.enter_context(loading)
                self._check_identity(study_id, made.results, files)
            except BaseException:
                stack.close()
                raise
            self._warm = _Warm(study_id, stack, made, files=files)
        return self._warm.prepared

    def job(self, study_id: str, progress: Progress) -> Job:
        """The study ready to propose, with its trials as the database has them."""
        job = self.loaded(study_id, progress)
        job.stored.extend(self.store.trials.of(study_id))
        return job

    def loaded(self, study_id: str, progress: Progress) -> Job:
        """The study ready to measure, without its trials, which may be many."""
        made = self.prepared(study_id, progress)
        warm = self._warm
        assert warm is not None
        warm.files = self.fetch(study_id, warm.files)
        if warm.job is None:
            warm.job = warm.stack.enter_context(estimated(made, self._shown))
        now = self.store.studies.get(study_id).study
        # What may change while a study is loaded.
        study = replace(made.study, n_trials=now.n_trials, max_minutes=now.max_minutes)
        return replace(warm.job, study=study, stored=[])

    def _shown(self, event: Event) -> None:
        if self._report is not None:
            self._report(event)

    def cool(self) -> None:
        """Let go of the study that is loaded."""
        if self._warm is not None:
            self._warm.stack.close()
            self._warm = None

    def close(self) -> None:
        """Let go of everything."""
        self.cool()
        if self._lock is not None:
            self._lock.close()
            self._lock = self._folder = None

    def fetch(self, study_id: str, known: dict[str, str] | None = None) -> dict[str, str]:
        """Bring files that other workers stored; returns what is stored, by name."""
        stored = {
            name: digest
            for name, digest in self.store.files.of(study_id).items()
            if not name.startswith("checkpoints/")
        }
        for name, digest in stored.items():
            if (known or {}).get(name) != digest:
                self.artifacts.fetch(digest, self.folder / study_id / name)
        if known is None:
            self._drop_old(study_id)
        return stored

    def stored(
        self, study_id: str, check: Callable[[], None], kinds: tuple[str, ...] = ("",)
    ) -> dict[str, str]:
        """Store the files of this study that nobody stored yet; their names and digests."""
        known = self._warm.files if self._warm and self._warm.study_id == study_id else {}
        folder, new = self.folder / study_id, {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if hidden or not path.is_file() or name in _NOT_STORED or not name.startswith(kinds):
                continue
            if name not in known:
                check()
                new[name] = self.put(path)
        # Known only when the next `fetch` finds them: the task may not come to its end.
        return new

    def put(self, path: Path) -> str:
        """Store one file."""
        digest = self.artifacts.put(path)
        self.store.files.add(digest, path.stat().st_size)
        if not self.artifacts.has(digest):
            # It was there unused for long and was collected before it was listed again.
            self.artifacts.put(path)
        return digest

    def _check_identity(self, study_id: str, results: Results, files: dict[str, str]) -> None:
        """Refuse to measure with another model or other weights than those prepared."""
        if "identity.json" not in files:
            return
        with self.artifacts.open(files["identity.json"]) as file:
            prepared_with = json.load(file)
        differing = sorted(
            key
            for key in prepared_with.keys() | results.identity.keys()
            if prepared_with.get(key) != results.identity.get(key)
        )
        if differing:
            raise MismatchedArtifact(
                f"This worker cannot measure study {study_id}: its {', '.join(differing)} is not "
                "what the study was prepared with. Give it the same files."
            )

    def write_environment(self, study_id: str) -> None:
        """Note the versions and the machine that prepared a study."""
        path = self.folder / study_id / "environment.json"
        path.write_text(json.dumps(environment(), indent=1))

    def _drop_old(self, study_id: str) -> None:
        """Remove the folders of studies that were not worked at for long."""
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        folders.sort(key=lambda path: path.stat().st_mtime)
        others = [path for path in folders if path.name != study_id]
        for path in others[: max(0, len(folders) - _KEPT_FOLDERS)]:
            shutil.rmtree(path, ignore_errors=True)
