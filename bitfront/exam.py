"""Exam: multiple-choice items put to quantized models, and to the unquantized one beside them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitfront.answers import Answers, Paired, wilson
from bitfront.banks import stored_bank
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument
from bitfront.harness import answers_to_tasks, check_installed
from bitfront.inputs import load_searched, weights_identity
from bitfront.items import Item, read_items
from bitfront.manifest import Manifest
from bitfront.models.caches import RoundedCaches
from bitfront.models.choices import Questions
from bitfront.models.exported import holds_weights, load_exported
from bitfront.models.load import LoadedModel
from bitfront.models.patch import PatchedModel
from bitfront.models.tasks import check_language_model
from bitfront.notes import MANIFEST
from bitfront.progress import Progress, counted, silent
from bitfront.proof.rebuilt import study_of
from bitfront.results import Results
from bitfront.trial import Trial, TrialState

UNQUANTIZED = "unquantized"
_SIZES = ("bits", "bits_per_weight", "bytes")

Ask = Callable[[LoadedModel, Progress], Mapping[str, Answers]]
"""Puts items to a model: answers by the name of a file or task."""


@dataclass(frozen=True, eq=False)
class Point:
    """A model that items are put to.

    Args:
        name: `"unquantized"`, a trial's number, or the name of a checkpoint's folder.
        model: with the tokenizer; valid until the next point is asked for.
        sizes: `bits`, `bits_per_weight` and `bytes` of a quantized one.
    """

    name: str
    model: LoadedModel
    sizes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Examined:
    """One model's answers to the items of one file or task.

    Args:
        items: name of the file or task.
        point: name of the model.
        sizes: of the model, where it is quantized.
        answers: what it answered.
        paired: held against the unquantized model's; `None` of that itself.
    """

    items: str
    point: str
    sizes: Mapping[str, float]
    answers: Answers
    paired: Paired | None

    def to_fields(self) -> dict[str, object]:
        """Plain fields for JSON: shares with their intervals, and the paired tests."""
        made: dict[str, object] = {"items": self.items, "point": self.point, "n": self.answers.n}
        for name, correct in (
            ("acc", self.answers.correct),
            ("acc_norm", self.answers.correct_norm),
        ):
            interval = wilson(int(correct.sum()), self.answers.n)
            made |= {name: float(correct.mean()), f"{name}_95": [interval.low, interval.high]}
        made |= {"margin": float(self.answers.margins.mean()), **self.answers.values, **self.sizes}
        if (paired := self.paired) is not None:
            made |= {
                "lost": paired.n_lost,
                "gained": paired.n_gained,
                "acc_change": paired.accuracy,
                "acc_change_95": [paired.accuracy_interval.low, paired.accuracy_interval.high],
                "acc_p": paired.accuracy_p,
                "margin_change": paired.margin,
                "margin_change_95": [paired.margin_interval.low, paired.margin_interval.high],
                "margin_p": paired.margin_p,
            }
        return made


def examined(
    points: Generator[Point, None, None], ask: Ask, progress: Progress = silent
) -> Iterator[Examined]:
    """Put items to the unquantized model and to others, and pair their answers.

    Args:
        points: of `points`; the unquantized model comes first. Closed at the end, however that
            comes: it holds the lock of a results folder.
        ask: puts the items.
        progress: called as the work goes on.

    Yields:
        Point by point as they are answered, each file or task in its order.

    Raises:
        InvalidArgument: a model is for something else than text.
        BitfrontError: as `points` and `ask`.
    """
    first: dict[str, Answers] = {}
    with closing(points):
        for point in points:
            check_language_model(
                point.model.module,
                "Items are put to",
                point.model.source,
                "`bitfront verify` measures a checkpoint of it",
            )
            for name, answers in ask(point.model, progress).items():
                paired = Paired.of(answers, first[name]) if name in first else None
                first.setdefault(name, answers)
                yield Examined(name, point.name, point.sizes, answers, paired)


def of_files(paths: Sequence[Path], n: int | None = None) -> Ask:
    """Ask the items of files, which are read at once.

    Args:
        paths: JSON lines.
        n: how many of each, from the first; `None` for all.

    Raises:
        InvalidText: as `read_items`, or two files of one name.
    """
    named: dict[str, tuple[Item, ...]] = {path.stem: read_items(path, n) for path in paths}
    if len(named) < len(paths):
        raise InvalidArgument("Two files of items have one name: rename one of them.")

    def ask(model: LoadedModel, progress: Progress) -> Mapping[str, Answers]:
        return {
            name: Questions.of(items, model, name).asked(model.module, counted(progress, "ask"))
            for name, items in named.items()
        }

    return ask


def of_tasks(tasks: Sequence[str], include: Path | None = None, n: int | None = None) -> Ask:
    """Ask tasks of lm-eval.

    Args:
        tasks: their names.
        include: folder with further tasks as YAML.
        n: how many items of each, from the first; `None` for all.

    Raises:
        InvalidArgument: lm-eval is not installed.
    """
    check_installed()

    def ask(model: LoadedModel, progress: Progress) -> Mapping[str, Answers]:
        return answers_to_tasks(model, tasks, include, n, counted(progress, "ask"))

    return ask


def points(
    target: Path,
    at: Sequence[Budget] = (),
    trials: Sequence[int] = (),
    model: str | None = None,
    progress: Progress = silent,
) -> Generator[Point, None, None]:
    """The unquantized model, then points of a results folder or the model of a checkpoint.

    Args:
        target: a results folder or a checkpoint.
        at: of a results folder the best measured point within each of these.
        trials: of a results folder, numbers of trials besides; with neither, the best point within
            the budget of the study.
        model: where the unquantized model is now; `None` for where it was.
        progress: called as the work goes on.

    Raises:
        BitfrontError: a trial or budget that the folder does not have, or a model that is not there
            or not the one that was measured.
    """
    if (target / MANIFEST).exists():
        if at or trials:
            raise InvalidArgument(f"{target} is a checkpoint: it has one point, give no other.")
        return _of_checkpoint(target, model, progress)
    results = Results(target)
    study = replace(results.study, model=model) if model else results.study
    budgets = list(at) or ([] if trials else [study.budget])
    known = {
        trial.number: trial for trial in results.trials() if trial.state is TrialState.COMPLETE
    }
    if missing := [number for number in trials if number not in known]:
        raise InvalidArgument(
            f"{target} has no trial {missing[0]}: it has "
            f"{', '.join(map(str, known)) or 'none'} measured."
        )
    front = results.front()
    chosen = [front.best(front.goal, **budget.bounds()) for budget in budgets]
    return _of_results(results, [*chosen, *(known[n] for n in trials)], model, progress)


def _of_results(
    results: Results, trials: Sequence[Trial], model: str | None, progress: Progress
) -> Generator[Point, None, None]:
    study = results.study
    dtype = results.identity.get("dtype", study.dtype)
    study = replace(study, model=model or study.model, dtype=dtype)
    loaded, space = load_searched(study, progress)
    with results.locked():
        results.check(weights_identity(study, loaded, space))
        yield Point(UNQUANTIZED, loaded)
        for trial in trials:
            bank = stored_bank(study, loaded, space, trial.allocation, results, progress)
            with PatchedModel(loaded.module, bank, as_stored=True) as patched:
                patched.apply(trial.allocation)
                yield Point(f"trial {trial.number}", loaded, _sizes(trial))


def _of_checkpoint(
    folder: Path, model: str | None, progress: Progress
) -> Generator[Point, None, None]:
    if not holds_weights(folder):
        raise InvalidArgument(f"{folder} has a recipe, not weights: carry it out, or export anew.")
    manifest = Manifest.read(folder)
    study, trial = study_of(manifest, model), manifest.trial
    loaded, space = load_searched(study, progress)
    yield Point(UNQUANTIZED, loaded)
    module = loaded.module
    exported = load_exported(folder, module.dtype, str(module.device))  # type: ignore[arg-type]
    with RoundedCaches(exported, space) as rounded:
        rounded.apply({x: f for x, f in trial.allocation.formats.items() if space.is_cache(x)})
        yield Point(folder.resolve().name, replace(loaded, module=exported), _sizes(trial))


def _sizes(trial: Trial) -> dict[str, float]:
    return {name: trial.values[name] for name in _SIZES if name in trial.values}
