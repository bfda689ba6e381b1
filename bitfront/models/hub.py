"""What a study names on the hub: brought into a folder once, so that nothing else asks the hub."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from bitfront.errors import InvalidText
from bitfront.files import link_or_copy, replacing
from bitfront.models.data import save_rows, split_revision
from bitfront.models.load import HUB_PATTERNS, downloaded
from bitfront.study import Study, TextSource

_MODEL = "model"
_REQUEST = "request.json"
_CALIBRATION = "calibration.jsonl"
_EVALUATION = "evaluation.jsonl"


def is_of_hub(source: str) -> bool:
    """Whether a model or text that a service accepted is one of the hub: paths are stored whole."""
    return not Path(source).is_absolute()


def needs_hub(study: Study) -> bool:
    """Whether anything of an accepted study is on the hub."""
    return any(map(is_of_hub, (study.model, study.calibration.source, study.evaluation.source)))


def fetch(study: Study, folder: Path, max_gb: float = 0.0) -> Study:
    """Bring a study's model and texts of the hub into a folder.

    Args:
        study: an accepted one.
        folder: made if missing; the working directory of the process must be empty, because
            `datasets` takes a name for a path where it finds one.
        max_gb: largest model, in units of 10^9 bytes; 0 for no bound.

    Returns:
        The request with the commit of every revision, which the folder keeps too.

    Raises:
        InvalidModel, InvalidText: the hub and its cache do not have it, or it is too large.
        StorageError: the folder or the cache cannot be written, or has too little space.
    """
    if is_of_hub(study.model):
        snapshot = downloaded(study.model, study.revision, max_gb)
        (folder / _MODEL).mkdir(parents=True, exist_ok=True)
        for path in snapshot.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in HUB_PATTERNS):
                (folder / _MODEL / path.name).unlink(missing_ok=True)
                link_or_copy(path.resolve(), folder / _MODEL / path.name)
        study = replace(study, revision=snapshot.name)
    study = replace(
        study,
        calibration=_saved(study.calibration, folder / _CALIBRATION),
        evaluation=_saved(study.evaluation, folder / _EVALUATION),
    )
    with replacing(folder / _REQUEST) as path:
        path.write_text(study.to_json())
    return study


def fetched(folder: Path) -> Study | None:
    """What `fetch` returned for a folder; `None` where it did not come to its end."""
    path = folder / _REQUEST
    return Study.from_json(path.read_text()) if path.exists() else None


def located(study: Study, folder: Path) -> Study:
    """The study with the files of such a folder in place of names of the hub."""
    if is_of_hub(study.model):
        study = replace(study, model=str(folder / _MODEL), revision=None)
    return replace(
        study,
        calibration=_located(study.calibration, folder / _CALIBRATION),
        evaluation=_located(study.evaluation, folder / _EVALUATION),
    )


def _saved(text: TextSource, path: Path) -> TextSource:
    """Write a text down where it is of the hub; the text with the commit of its revision."""
    if not is_of_hub(text.source):
        return text
    source = _with_commit(text.source)
    save_rows(source, path)
    return replace(text, source=source)


def _located(text: TextSource, path: Path) -> TextSource:
    return replace(text, source=str(path)) if is_of_hub(text.source) else text


def _with_commit(source: str) -> str:
    """The name of a data set with its revision as a commit.

    Raises:
        InvalidText: the hub does not know it.
    """
    from huggingface_hub import HfApi  # only texts of the hub need it

    place, colon, rest = source.partition(":")
    name, revision = split_revision(place)
    try:
        commit = HfApi().dataset_info(name, revision=revision or None).sha
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InvalidText(
            f"Cannot get {place!r} from the hub ({reason}): check name, revision and network, or "
            "give a file."
        ) from error
    return f"{name}@{commit}{colon}{rest}"
