"""Verify: files against their digests, and the recorded values measured again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.budget import Budget
from bitfront.errors import InvalidArgument, InvalidModel, NonFinite, UnknownPlugin
from bitfront.evaluation.base import evaluate
from bitfront.formats import named
from bitfront.inputs import load_searched, measured_samples, weights_identity
from bitfront.manifest import Manifest
from bitfront.measurement import metrics_of, sizes_of
from bitfront.models.caches import RoundedCaches
from bitfront.models.data import digest
from bitfront.models.embeddings import answers_of
from bitfront.models.exported import holds_weights, load_exported
from bitfront.models.load import LoadedModel
from bitfront.models.reference import Reference
from bitfront.models.samples import Samples
from bitfront.models.tasks import set_task, task_of
from bitfront.notes import unmeasured
from bitfront.plugins import Choice
from bitfront.pricing import cost_tables
from bitfront.progress import Event, Progress, counted, silent
from bitfront.proof.again import exporter_of
from bitfront.proof.rebuilt import differences, study_of
from bitfront.space import SearchSpace
from bitfront.study import Study

_TOLERANCES: Mapping[str, tuple[float, float]] = {
    "kl": (0.05, 0.001),
    "perplexity": (0.03, 0.0),
    "top1_error": (0.05, 0.01),
    "label_error": (0.05, 0.01),
    "cosine_error": (0.05, 0.0001),
    "rank_correlation_error": (0.05, 0.001),
    "bits": (0.0, 1e-9),
    "bits_per_weight": (0.0, 1e-9),
    "bytes": (0.0, 0.0),
}
"""Relative and absolute deviation that is allowed; the two are added.

Other engines keep scales or weights in bfloat16, GGUF norms and biases in float32.
"""
_STANDARD_ERRORS = 3
"""Allowed besides, where inputs are rounded and the model runs in bfloat16: a packed weight is
multiplied by another kernel than the measured one, whose last bits move some inputs by a whole step
of 4 bits, and what a single sample is then predicted to be is another draw. The difference of two
draws has sqrt(2) standard errors. Of a loss never more than the loss itself.
"""
_SHARES = ("top1_error", "label_error")


@dataclass(frozen=True)
class Remeasured:
    """What `bitfront verify` found.

    Args:
        values: by quantity, those that were measured again.
        recorded: by quantity, those of the manifest.
        n_files: files whose digest was compared.
        differences: one line for everything that is not as the manifest says.
        note: why the weights were not measured, and that sizes are not those of the folder; empty
            where neither is so.
    """

    values: Mapping[str, float]
    recorded: Mapping[str, float]
    n_files: int
    differences: tuple[str, ...]
    note: str = ""


def verify(
    folder: Path,
    model: str | None = None,
    text: str | None = None,
    progress: Progress = silent,
) -> Remeasured:
    """Compare a checkpoint with its manifest: files, data, and values measured again.

    Weights that are not the measured ones (unquantized, rounded anew) are not measured.

    Args:
        folder: a checkpoint.
        model: where the unquantized model is now; `None` for where it was.
        text: where the text that was measured is now; `None` for where it was.
        progress: called as the work goes on.

    Raises:
        BitfrontError: no manifest, or the model or the text is not there.
    """
    manifest = Manifest.read(folder)
    recorded = dict(manifest.trial.values)
    lines = list(manifest.changes(folder))
    study = _placed(study_of(manifest, model), manifest.trial.text, text)
    loaded, space = load_searched(study, progress)
    lines += differences(manifest, weights_identity(study, loaded, space, manifest.requantized))
    lines += _wrong_words(manifest, space)
    values: dict[str, float] = {}
    noise: dict[str, float] = {}
    try:
        values |= _sizes(study, manifest, space)
    except InvalidArgument as error:
        lines.append(str(error))
    instead = unmeasured(folder)
    if holds_weights(folder) and not instead:
        samples = measured_samples(study, loaded, manifest.trial.text)
        lines += differences(manifest, {f"{manifest.trial.text} tokens": digest(samples.inputs)})
        try:
            caches = {
                x: f for x, f in manifest.trial.allocation.formats.items() if space.is_cache(x)
            }
            values |= _measured(folder, loaded, space, caches, samples, progress)
            formats = manifest.trial.allocation.formats.values()
            has_pairs = any(named(f).input_format for f in formats)
            if has_pairs and study.dtype != "float32":
                n_scored = task_of(loaded.module).n_scored(samples.inputs)
                noise = _standard_errors(recorded, len(samples.inputs) * n_scored)
        except (InvalidModel, NonFinite) as error:
            lines.append(str(error))
    lines += [
        line
        for name, value in values.items()
        if name in recorded and (line := _difference(name, value, recorded[name], noise))
    ]
    notes = [f"the weights are not the measured ones: {instead}"] if instead else []
    if manifest.exporter.partition(":")[0] != "packed":
        notes.append("sizes are those of the point, not of this folder")
    return Remeasured(values, recorded, len(manifest.files), tuple(lines), "; ".join(notes))


def _wrong_words(manifest: Manifest, space: SearchSpace) -> Iterator[str]:
    """One line for each layer that is not the model's or pinned otherwise, and the exporter."""
    formats = manifest.trial.allocation.formats
    pinned = {layer.name: format.name for layer, format in space.pinned}
    for name, format in pinned.items():
        if formats.get(name) != format:
            yield f"{name} was {format}, is {formats.get(name, 'absent')} in the manifest."
    for name in sorted(formats.keys() - pinned.keys() - {layer.name for layer in space.layers}):
        yield f"{name} is {formats[name]} in the manifest, and no layer of the model."
    try:
        exporter_of(manifest.exporter)
    except (InvalidArgument, UnknownPlugin) as error:
        yield str(error)


def _placed(study: Study, name: str, source: str | None) -> Study:
    if source is None:
        return study
    text = study.evaluation if name == "evaluation" else study.calibration
    moved = replace(text, source=source)
    if name == "evaluation":
        return replace(study, evaluation=moved)
    return replace(study, calibration=moved)


def _measured(
    folder: Path,
    loaded: LoadedModel,
    space: SearchSpace,
    caches: Mapping[str, str],
    samples: Samples,
    progress: Progress,
) -> dict[str, float]:
    module = loaded.module
    reference = answers_of(module, samples.inputs, progress=counted(progress, "reference"))
    if isinstance(reference, Reference):
        reference = replace(reference, labels=samples.labels)
    exported = load_exported(folder, module.dtype, str(module.device))  # type: ignore[arg-type]
    set_task(exported, task_of(module))
    metrics = metrics_of(module, reference)
    with RoundedCaches(exported, space) as rounded:
        rounded.apply(caches)
        return evaluate(
            exported,
            reference,
            metrics,
            lambda done, total: progress(Event("evaluate", done, total)),
        )


def _sizes(study: Study, manifest: Manifest, space: SearchSpace) -> Mapping[str, float]:
    """`bits`, `bits_per_weight` and `bytes` by the arithmetic of the formats, as they were counted.

    Raises:
        InvalidArgument: the allocation is not one of the space.
    """
    # A limit on what other costs count would ask for them.
    of_memory = replace(study, costs=(Choice("memory"),), budget=Budget(1, "B"))
    tables = cost_tables(of_memory, space)
    return sizes_of(manifest.trial.allocation, tables)


def _standard_errors(recorded: Mapping[str, float], n_scored: int) -> dict[str, float]:
    """Of recorded losses, and of shares of `n_scored` predictions: never 0 of such a share."""
    of_shares = {
        name: math.sqrt(share * (1 - share) / n_scored)
        for name in _SHARES
        if name in recorded
        for share in [(recorded[name] * n_scored + 1) / (n_scored + 2)]
    }
    ending = "_stderr"
    return of_shares | {
        name.removesuffix(ending): x for name, x in recorded.items() if name.endswith(ending)
    }


def _difference(name: str, value: float, recorded: float, noise: Mapping[str, float]) -> str:
    """Why a value is not the recorded one; empty where it is, or where nothing is promised."""
    if name not in _TOLERANCES:
        return ""
    relative, absolute = _TOLERANCES[name]
    besides = _STANDARD_ERRORS * noise.get(name, 0.0)
    if name not in _SHARES:  # the standard error of one sample is all of a loss
        besides = min(besides, abs(recorded))
    allowed = relative * abs(recorded) + absolute + besides
    if math.isfinite(value) and abs(value - recorded) <= allowed:
        return ""
    return f"{name} is {value:.6g}, was {recorded:.6g}: more than {allowed:.2g} apart."
