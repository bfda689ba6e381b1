"""What a request feeds its model: texts, folders of images, or files of samples, as its task wants.

The task of a model in a folder is read from its configuration; that of one on the hub is known once
a worker has fetched it, so that there any kind is taken, the same for calibration and evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitfront.api import weights
from bitfront.api.sources import Sources
from bitfront.errors import InvalidArgument
from bitfront.seeing import (
    FED,
    IMAGE_TEXT,
    SEEING,
    architectures,
    classes_of,
    kind_of,
    read_config,
    task_that_sees,
)
from bitfront.study import Study

_TEXT = "text"


@dataclass(frozen=True)
class Fed:
    """What the model of a request is fed.

    Args:
        sources: what requests may name.
        task: of the model: one that sees, or `"text"` for any that reads texts; `None` where only a
            worker will know.
        classes: name of each class by number, where they are known.
    """

    sources: Sources
    task: str | None
    classes: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, task: str, sources: Sources) -> Fed:
        """Of an accepted model.

        Args:
            model: folder, file, or id of the hub.
            task: that the request names.
            sources: what requests may name.

        Raises:
            InvalidArgument: the request names a task that sees, and the folder says another.
        """
        folder = Path(model)
        if not folder.is_absolute():
            known = None if task == "auto" else task if task in SEEING else _TEXT
            return cls(sources, known)
        config = read_config(folder) if folder.is_dir() else {}
        told = task_that_sees(config) or _TEXT
        if task in SEEING and task != told:
            named = ", ".join(architectures(config)) or "nothing of the kind"
            raise InvalidArgument(
                f"Model {folder.name!r} is not for the task {task} (it is {named}): leave out task."
            )
        return cls(sources, told if task == "auto" or task in SEEING else _TEXT, classes_of(config))

    @property
    def is_seeing(self) -> bool:
        """Whether the model is known to see."""
        return self.task in SEEING

    def pair(self, calibration: str, n_calibration: int, evaluation: str, n: int) -> list[str]:
        """Places of calibration and evaluation, which are of one kind.

        Args:
            calibration: as the request names it.
            n_calibration: samples of it that are needed.
            evaluation: as the request names it.
            n: samples of it that are needed.

        Raises:
            InvalidArgument: one may not be named, is of another kind, is the other, or has too few
                samples.
            InvalidText: images have labels that the model lacks.
        """
        kinds = [self.task or self.sources.kind(text) for text in (calibration, evaluation)]
        if len(set(kinds)) > 1:
            first, second = (FED.get(kind, "a text") for kind in kinds)
            raise InvalidArgument(
                f"Calibration is {first}, evaluation {second}: give two of the kind that the model "
                "reads."
            )
        places = [
            self._place(kind, text, n_needed)
            for kind, text, n_needed in zip(
                kinds, (calibration, evaluation), (n_calibration, n), strict=True
            )
        ]
        if kinds[0] in SEEING and places[0] == places[1]:
            raise InvalidArgument(
                f"Calibration and evaluation are one source, {calibration!r}: give two that share "
                "no image."
            )
        return places

    def _place(self, kind: str, text: str, n_needed: int) -> str:
        if kind == "images":
            return self.sources.images(text, n_needed, self.classes)
        if kind == "image-text":
            return self.sources.samples(text, n_needed)
        return self.sources.text(text)


def check_samples(study: Study) -> None:
    """Refuse samples that end before anything of a KV cache is quantized, by their whole length.

    A worker, which opens the file, leaves out image tokens at the end as well.

    Args:
        study: whose files of samples requests may name.

    Raises:
        InvalidArgument: they are too short.
    """
    files = [x.source for x in study.texts.values() if kind_of(x.source) == IMAGE_TEXT]
    if study.kv_cache is not None and files:
        study.kv_cache.check_length(min(weights.sample_length(Path(file)) for file in files))
