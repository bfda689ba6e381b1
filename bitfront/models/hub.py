"""What a study names on the hub: brought into a folder once, so that nothing else asks the hub."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from bitfront.errors import InvalidModel, InvalidText, first_line
from bitfront.files import link_or_copy, replacing
from bitfront.models.downloads import HUB_PATTERNS, downloaded
from bitfront.models.texts import save_rows, split_revision
from bitfront.notes import base_of
from bitfront.seeing import check_fed, read_config, task_that_sees
from bitfront.study import Study, TextSource

_MODEL, _BASE = "model", "base"
_REQUEST = "request.json"


def is_of_hub(source: str) -> bool:
    """Whether a model or text that a service accepted is one of the hub: paths are stored whole."""
    return not Path(source).is_absolute()


def needs_hub(study: Study) -> bool:
    """Whether anything of an accepted study is on the hub."""
    named = [study.model, *(text.source for text in study.texts.values())]
    return any(map(is_of_hub, named + ([] if study.base is None else [study.base])))


def fetch(study: Study, folder: Path, max_gb: float = 0.0) -> Study:
    """Bring what a study names on the hub into a folder: model, base and texts.

    Args:
        study: an accepted one.
        folder: made if missing; the working directory of the process must be empty, because
            `datasets` takes a name for a path where it finds one.
        max_gb: largest model, in units of 10^9 bytes; 0 for no bound.

    Returns:
        The request with the commit of every revision, which the folder keeps too.

    Raises:
        InvalidModel, InvalidText: the hub and its cache do not have it, it is too large, or it does
            not go with the rest.
        StorageError: the folder or the cache cannot be written, or has too little space.
    """
    model = Path(study.model)
    if is_of_hub(study.model):
        model = folder / _MODEL
        study = replace(study, revision=_copied(study.model, study.revision, model, max_gb))
    if study.base is not None and is_of_hub(study.base):
        name, _, revision = study.base.partition("@")
        study = replace(study, base=f"{name}@{_copied(name, revision, folder / _BASE, max_gb)}")
        # Its own base would be any place that a stranger wrote down.
        if base_of(folder / _BASE) is not None:
            raise InvalidModel(
                f"{study.base} holds offsets to another base: have the operator put both below a "
                "model folder."
            )
    _check_fed(study, model)
    study = study.with_texts(lambda name, text: _saved(text, folder / f"{name}.jsonl"))
    with replacing(folder / _REQUEST) as path:
        path.write_text(study.to_json())
    return study


def _copied(name: str, revision: str | None, folder: Path, max_gb: float) -> str:
    """Bring a model of the hub into a folder; its commit."""
    snapshot = downloaded(name, revision, max_gb)
    folder.mkdir(parents=True, exist_ok=True)
    for path in snapshot.iterdir():
        if any(fnmatch(path.name, pattern) for pattern in HUB_PATTERNS):
            (folder / path.name).unlink(missing_ok=True)
            link_or_copy(path.resolve(), folder / path.name)
    return snapshot.name


def _check_fed(study: Study, model: Path) -> None:
    """Refuse texts of another kind than the model reads, before they are fetched."""
    task = study.task
    if task == "auto":
        task = task_that_sees(read_config(model)) or "text"
    for text in (study.calibration, study.evaluation):
        check_fed(task, study.model, text.source)


def fetched(folder: Path) -> Study | None:
    """What `fetch` returned for a folder; `None` where it did not come to its end."""
    path = folder / _REQUEST
    return Study.from_json(path.read_text()) if path.exists() else None


def located(study: Study, folder: Path) -> Study:
    """The study with the files of such a folder in place of names of the hub."""
    if is_of_hub(study.model):
        study = replace(study, model=str(folder / _MODEL), revision=None)
    if study.base is not None and is_of_hub(study.base):
        study = replace(study, base=str(folder / _BASE))
    return study.with_texts(lambda name, text: _located(text, folder / f"{name}.jsonl"))


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
        raise InvalidText(
            f"Cannot get {place!r} from the hub ({first_line(error)}): check name, revision and "
            "network, or give a file."
        ) from error
    return f"{name}@{commit}{colon}{rest}"
