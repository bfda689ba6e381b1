"""Tables of latencies measured on this device, and predictions held against whole models."""

from __future__ import annotations

import datetime
import json
import logging
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Any

import torch
import transformers

from bitfront import formats
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.files import replacing
from bitfront.models.decoding import (
    ROTATED_BYTES,
    DecodingStep,
    hollowed,
    layer_calls,
    nanoseconds,
)
from bitfront.models.device import device_name, empty
from bitfront.models.experts import separate_experts
from bitfront.models.layers import search_space
from bitfront.models.load import load_model, quiet
from bitfront.models.tasks import check_language_model
from bitfront.pareto import LATENCY
from bitfront.pricing import time_point
from bitfront.progress import Event, Progress, silent
from bitfront.results import Results
from bitfront.run import export_checkpoint
from bitfront.space import SearchSpace
from bitfront.study import Study
from bitfront.timings import (
    LayerCall,
    RestOfStep,
    Shape,
    Timed,
    Timing,
    Timings,
    rest_digest,
)
from bitfront.trial import Trial
from bitfront.version import __version__

logger = logging.getLogger(__name__)

ROUNDS = 5
"""How often everything is timed, each time in another order."""
SECONDS = 0.1
"""How long one thing is timed in a round."""


@dataclass(frozen=True)
class Request:
    """What is to be timed.

    Args:
        formats: names; plain bf16 layers come along.
        batches: sequences that are decoded together.
        contexts: tokens that each has, for the rest of a model's step.
        model: local folder, GGUF file, or hub id; its layers and the rest of its step are timed.
        shapes: further layers, `(out_features, in_features)`.
        pinned: format of embedding and head; `None` leaves them as they are.
        dtype: `"float32"`, `"bfloat16"`, or `"auto"`.
        device: `"cpu"`, `"cuda"`, or `"auto"`.
        revision: of a hub model.
    """

    formats: tuple[str, ...]
    batches: tuple[int, ...] = (1,)
    contexts: tuple[int, ...] = (2048,)
    model: str | None = None
    shapes: tuple[Shape, ...] = ()
    pinned: str | None = "int8_g64"
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None

    def __post_init__(self) -> None:
        if not self.model and not self.shapes:
            raise InvalidArgument("Nothing to time: give a model, or shapes such as 4096x4096.")
        for name in self.formats:
            formats.named(name)
        smallest = min((*self.batches, *self.contexts, *(x for s in self.shapes for x in s)))
        if smallest < 1 or not (self.formats and self.batches and self.contexts):
            raise InvalidArgument(
                "Formats, batches, contexts and shapes: give one of each at least, from 1 up."
            )


class Bench:
    """The device with what is timed on it; the model is loaded when its turn comes.

    Args:
        request: what is to be timed.
        progress: called as the work goes on.

    Raises:
        InvalidArgument: the model is for something else than text.
    """

    def __init__(self, request: Request, progress: Progress = silent) -> None:
        self.request = request
        self.space: SearchSpace | None = None
        self.model: Any = None
        if request.model:
            progress(Event("load", 0, 1))
            loaded = load_model(request.model, request.revision, request.dtype, request.device)
            progress(Event("load", 1, 1))
            check_language_model(
                loaded.module,
                "Decoding is timed on",
                request.model,
                "give shapes to time single layers",
            )
            menu = tuple(map(formats.named, request.formats))
            pinned = formats.named(request.pinned) if request.pinned else None
            separate_experts(loaded.module)
            self.space = search_space(loaded.module, menu, pinned, tied=False)
            self.like = next(loaded.module.parameters()).detach().new_zeros(1)
            self.model = hollowed(loaded.module, self.space)
        else:
            self.like = empty(request.dtype, request.device)

    @cached_property
    def wanted(self) -> tuple[Timed, ...]:
        """Every distinct thing to time."""
        request, space = self.request, self.space
        layers = space.layers if space else ()
        shapes = dict.fromkeys([*(x.shape for x in layers), *request.shapes])
        names = dict.fromkeys([*request.formats, "bf16"])
        calls = [
            LayerCall(shape, name, batch)
            for batch in request.batches
            for shape in shapes
            for name in names
            if formats.named(name).fits(shape)
        ]
        if space is None:
            return tuple(calls)
        points = [(batch, context) for batch in request.batches for context in request.contexts]
        return (*(RestOfStep(rest_digest(space), *point) for point in points), *calls)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Formats that fit none of the layers."""
        timed = {key.format for key in self.wanted if isinstance(key, LayerCall)}
        return tuple(name for name in self.request.formats if name not in timed)

    def nanoseconds(self, timed: Timed, seconds: float) -> float:
        """One round of one thing."""
        if isinstance(timed, RestOfStep):
            return DecodingStep(self.model, timed.batch, timed.context).nanoseconds(seconds)
        rotated = self._rotated_bytes(timed)
        calls = layer_calls(timed.shape, timed.format, timed.batch, self.like, rotated)
        return nanoseconds(calls, self.like.device, seconds, self._others(timed))

    def _others(self, timed: LayerCall) -> Callable[[], None] | None:
        """Runs another layer on a CPU, in turn: memory that only this one uses would stay warm.

        A decoded weight is a temporary; over and over at one size it is found in the cache, by up
        to a fifth sooner than between the other layers of a model.
        """
        keys = (k for k in self.wanted if isinstance(k, LayerCall) and k.shape != timed.shape)
        shapes = [k.shape for k in keys if (k.format, k.batch) == (timed.format, timed.batch)]
        if self.like.device.type != "cpu" or not shapes:
            return None
        rotated = self._rotated_bytes(timed) // len(shapes)
        made = (layer_calls(s, timed.format, timed.batch, self.like, rotated) for s in shapes)
        ring = cycle([call for group in zip_longest(*made) for call in group if call])

        def run_another() -> None:
            next(ring)()

        return run_another

    def _rotated_bytes(self, timed: LayerCall) -> int:
        """As much as passes between two uses of a weight: the model it is of, or any cache.

        Shapes that were asked for are of no model: nothing is known of what lies between.
        """
        most = ROTATED_BYTES[self.like.device.type]
        if self.space is None or timed.shape in self.request.shapes:
            return most
        format = formats.named(timed.format)
        sizes = (format.nbytes(x.shape) for x in self.space.layers if format.fits(x.shape))
        return min(most, sum(sizes))

    @property
    def empty(self) -> Timings:
        """A table of this device with nothing in it."""
        dtype = str(self.like.dtype).removeprefix("torch.")
        return Timings(device_name(self.like.device), dtype, _versions(self.like.device))


def profile(
    request: Request,
    path: Path,
    progress: Progress = silent,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Timings:
    """Time what is asked for, into a file that is complete after each entry.

    In each round everything is timed once, in an order of its own: what the machine does meanwhile
    falls on all formats alike. What the file has is not timed again. Formats that fit no layer are
    named in one line of the log.

    Args:
        request: what to time.
        path: the file; one of the same device, dtype and versions is continued.
        progress: called as the work goes on.
        rounds: how often each thing is timed.
        seconds: how long each time.

    Raises:
        BitfrontError: a model that cannot be used, a file of another device, or no disk space.
    """
    if rounds < 1 or not seconds >= 0:
        raise InvalidArgument(f"rounds is {rounds}, seconds {seconds}: give at least 1 and 0.")
    stored = Timings.load(path) if path.exists() else None
    bench = Bench(request, progress)
    timings = bench.empty
    if stored is not None:
        stored.check_same(timings)
        timings = stored
    if bench.left_out:
        logger.warning("Not timed, for no layer has whole groups: %s.", ", ".join(bench.left_out))
    n_done = sum(min(_n_rounds(timings, timed), rounds) for timed in bench.wanted)
    total = rounds * len(bench.wanted)
    progress(Event("profile", n_done, total))
    for number in range(rounds):
        due = [timed for timed in bench.wanted if _n_rounds(timings, timed) <= number]
        random.Random(number).shuffle(due)
        for timed in due:
            ns = bench.nanoseconds(timed, seconds)
            timings = timings.with_sample(timed, ns, _today())
            timings.save(path)
            n_done += 1
            progress(Event("profile", n_done, total))
    return timings


def _n_rounds(timings: Timings, timed: Timed) -> int:
    return len(timings.entries[timed].samples) if timed in timings.entries else 0


@dataclass(frozen=True)
class Checked:
    """A predicted decoding step held against the measured one.

    Args:
        number: of the trial.
        batch: sequences decoded together.
        context: tokens that each has before the step.
        predicted_ns: by the study's cost of latency.
        measured_ns: of the packed checkpoint, median over rounds.
        spread_ns: interquartile range of the rounds.
        device: that was measured, in words.
        dtype: of activations.
        date: ISO.
    """

    number: int
    batch: int
    context: int
    predicted_ns: float
    measured_ns: float
    spread_ns: float
    device: str
    dtype: str
    date: str

    @property
    def error(self) -> float:
        """Of the prediction, relative to the measurement."""
        return self.predicted_ns / self.measured_ns - 1


def check(
    directory: Path,
    at: Budget | None = None,
    n_points: int = 1,
    progress: Progress = silent,
    rounds: int = ROUNDS,
    seconds: float = 10 * SECONDS,
) -> list[Checked]:
    """Materialise points of a finished search and time their decoding on this device.

    Args:
        directory: results folder of a study with a cost of latency.
        at: budget whose best point comes first; default: the study's.
        n_points: how many points of the front, that one and others from fast to slow.
        progress: called as the work goes on.
        rounds: how often each point is timed, in turn.
        seconds: how long each time.

    Returns:
        One row a point, also in `latency.json` of the folder.

    Raises:
        InvalidArgument: the study has no cost of latency, or nothing is within the budget.
        MismatchedArtifact: the study's table of latencies is of another device.
        BitfrontError: what `export_checkpoint` raises.
    """
    results = Results(directory)
    study, front = results.study, results.front()
    batch, context = time_point(study)
    chosen = _points(
        front.best(front.goal, **(at or study.budget).bounds()), front.trials, n_points
    )
    placed = _same_device(study, results)
    steps = []
    with tempfile.TemporaryDirectory(prefix="bitfront-") as made:
        for trial in chosen:
            folder = Path(made) / str(trial.number)
            export_checkpoint(study, trial, folder, "packed", directory, progress)
            with quiet():
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    folder, dtype=placed.dtype
                )
            steps.append(DecodingStep(model.to(placed.device).eval(), batch, context))
    samples: list[list[float]] = [[] for _ in steps]
    for number in range(rounds):
        for place, step in enumerate(steps):
            samples[place].append(step.nanoseconds(seconds))
            progress(Event("profile", number * len(steps) + place + 1, rounds * len(steps)))
    rows = [
        _checked(trial, step, Timing(tuple(times)))
        for trial, step, times in zip(chosen, steps, samples, strict=True)
    ]
    with replacing(directory / "latency.json") as temporary:
        named = [asdict(row) | {"error": row.error} for row in rows]
        temporary.write_text(json.dumps(named, indent=1) + "\n")
    return rows


def _points(best: Trial, trials: Sequence[Trial], n: int) -> list[Trial]:
    """The best point, then others spread from the fastest of the front to the slowest."""
    if LATENCY not in best.values:
        raise InvalidArgument(
            "The study predicts no latency: search with --costs memory,latency:table=FILE."
        )
    others = sorted((t for t in trials if t != best), key=lambda t: t.values[LATENCY])
    n_others = min(max(n - 1, 0), len(others))
    places = [round(i * (len(others) - 1) / max(n_others - 1, 1)) for i in range(n_others)]
    return [best, *(others[place] for place in places)]


def _checked(trial: Trial, step: DecodingStep, timing: Timing) -> Checked:
    like = next(step.model.parameters())
    return Checked(
        trial.number,
        step.batch,
        step.context,
        trial.values[LATENCY],
        timing.ns,
        timing.spread,
        device_name(like.device),
        str(like.dtype).removeprefix("torch."),
        _today(),
    )


def _same_device(study: Study, results: Results) -> torch.Tensor:
    """Empty, with the dtype and on the device that the study predicts for.

    Raises:
        MismatchedArtifact: that is another one than this.
    """
    tables = (choice.params["table"] for choice in study.costs if choice.name == "latency")
    table = next((Timings.load(Path(str(path))) for path in tables), None)
    dtype = table.dtype if table else results.identity.get("dtype", study.dtype)
    like = empty(dtype, study.device)
    if table and table.device != (here := device_name(like.device)):
        raise MismatchedArtifact(
            f"The study predicts for {table.device}, this is {here}: check it there, or search "
            "with a table of this one."
        )
    return like


def _versions(device: torch.device) -> dict[str, str]:
    made = {"bitfront": __version__, "torch": str(torch.__version__)}
    made["transformers"] = transformers.__version__
    return made | ({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {})


def _today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()
