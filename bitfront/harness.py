"""Tasks of lm-eval, the evaluation harness, put to a model; needs the extra `lm-eval`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.answers import Answers
from bitfront.errors import InvalidArgument, InvalidText, first_line
from bitfront.models.load import LoadedModel, quiet

_MISSING = "lm-eval is not installed here: pip install 'bitfront[lm-eval]', or give --items FILE."
_LOUD = ("lm_eval", "datasets")
BATCH = 8


def check_installed() -> None:
    """Refuse to go on without lm-eval, before anything else takes time.

    Raises:
        InvalidArgument: says how to get it.
    """
    _library()


def language_model(model: LoadedModel) -> Any:
    """The model as lm-eval's `HFLM`, which any function of lm-eval takes.

    Args:
        model: quantized or not; a packed checkpoint loads through transformers like any other.
    """
    _library()
    from lm_eval.models.huggingface import HFLM

    module: Any = model.module
    # It ties once more what is tied, and a packed embedding has no weight that transformers finds.
    module.tie_weights = lambda: None
    try:
        with quiet():
            return HFLM(pretrained=module, tokenizer=model.tokenizer, batch_size=BATCH)
    finally:
        del module.tie_weights


def task_of(path: Path, name: str) -> dict[str, Any]:
    """Items of a file as a task of lm-eval; each with one context for all choices.

    Args:
        path: JSON lines with `context`, `choices` and `answer`, as `Item.to_json` writes them.
        name: of the task.
    """
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(path.resolve())},
        "output_type": "multiple_choice",
        "test_split": "train",  # what `datasets` calls the rows of a plain file
        "doc_to_text": "{{context}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": x} for x in ("acc", "acc_norm", "acc_bytes")],
    }


def answers_to_tasks(
    model: LoadedModel,
    tasks: Sequence[str | dict[str, Any]],
    include: Path | None = None,
    n: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, Answers]:
    """The answers of a model to multiple-choice tasks of lm-eval, by task.

    Args:
        model: quantized or not.
        tasks: names that lm-eval knows, or whole configurations (`task_of`). The rows of its own
            tasks come from the hub or the cache of `datasets`.
        include: folder with further tasks as YAML.
        n: how many items of each, from the first; `None` for all.
        progress: called with `(tasks done, tasks in all)`.

    Raises:
        InvalidArgument: lm-eval is not installed, knows no such task, or fails.
        InvalidText: a task is not of multiple choice.
    """
    library, known = _library(), _tasks(tasks, include)
    found: dict[str, Answers] = {}
    for index, task in enumerate(tasks):
        with quiet(), _silenced():
            try:
                asked = library.simple_evaluate(
                    model=language_model(model),
                    tasks=[task],
                    limit=n,
                    log_samples=True,
                    bootstrap_iters=0,
                    task_manager=known,
                )
            except Exception as error:  # of dozens of kinds, from the loading of rows to a template
                name = task if isinstance(task, str) else task["task"]
                raise InvalidArgument(
                    f"lm-eval cannot run task {name!r} ({first_line(error)}): check its name, the "
                    "network that its rows come from, or give --items FILE."
                ) from error
        found |= {name: _answers(name, rows) for name, rows in asked["samples"].items()}
        if progress:
            progress(index + 1, len(tasks))
    return found


def _library() -> Any:
    try:
        import lm_eval
    except ImportError:
        raise InvalidArgument(_MISSING) from None
    return lm_eval


def _tasks(tasks: Sequence[str | dict[str, Any]], include: Path | None) -> Any:
    """Where names are looked up; among lm-eval's own, which take seconds, only where needed."""
    from lm_eval.tasks import TaskManager

    ours = TaskManager(include_path=str(include) if include else None, include_defaults=False)
    if all(isinstance(task, dict) or task in ours.all_tasks for task in tasks):
        return ours
    return TaskManager(include_path=str(include) if include else None)


@contextmanager
def _silenced() -> Iterator[None]:
    """Notices and progress bars of lm-eval off inside the block; the bars have no switch."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _answers(name: str, rows: Sequence[Mapping[str, Any]]) -> Answers:
    """Log-likelihoods of the choices of every item, from what lm-eval logs of it.

    Raises:
        InvalidText: an item has no choices, or not one right one.
    """
    rows = sorted(rows, key=lambda row: int(row["doc_id"]))
    found = []
    for row in rows:
        texts, target = [arguments[-1] for arguments in row["arguments"]], row["target"]
        values = row["filtered_resps"]
        is_choice = len(values) > 1 and all(len(x) == 2 for x in values if not isinstance(x, str))
        if not is_choice or not isinstance(target, int) or not 0 <= target < len(values):
            raise InvalidText(
                f"Task {name!r} is not of multiple choice with one right answer: run it with "
                "lm-eval on a checkpoint, or give another."
            )
        found.append(([float(x[0]) for x in values], [len(x.lstrip().encode()) for x in texts]))
    shape = (len(found), max(len(values) for values, _ in found))
    log_likelihoods, n_bytes = np.full(shape, -np.inf), np.ones(shape)
    for index, (values, lengths) in enumerate(found):
        log_likelihoods[index, : len(values)] = values
        n_bytes[index, : len(lengths)] = lengths
    right = np.array([row["target"] for row in rows])
    return Answers(log_likelihoods, n_bytes, right)
