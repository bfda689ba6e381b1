"""Study: the request. A model, a budget and the choices; no torch, JSON in and out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from bitfront import formats, runtimes
from bitfront.errors import InvalidArgument
from bitfront.plugins import Choice
from bitfront.runtimes.base import Runtime
from bitfront.space import SearchSpace

_UNITS = {
    "bits": 1.0,
    "bpw": 1.0,
    "B": 1.0,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_WIKITEXT = "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1"
_BUDGET = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]+)\s*")


@dataclass(frozen=True)
class Budget:
    """How large the result may be.

    `bits`: average code bits over the searched layers, as papers count.
    `bpw`: average stored bits over the searched layers, scales, zero points and padding included.
    `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB`: every tensor of the checkpoint.

    >>> Budget.parse("3.5bpw")
    Budget(value=3.5, unit='bpw')
    """

    value: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in _UNITS or not (math.isfinite(self.value) and self.value > 0):
            raise InvalidArgument(
                f"Cannot use budget {self.value}{self.unit}: give a positive number and one of "
                f"{', '.join(_UNITS)}, such as 3.5bpw or 60MB."
            )

    def __str__(self) -> str:
        # Every digit and no exponent: an error names the smallest budget that works.
        text = format(Decimal(repr(self.value)), "f")
        return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a number with its unit.

        Raises:
            InvalidArgument: no number, no unit, or an unknown one.
        """
        match = _BUDGET.fullmatch(text)
        try:
            if match:
                return cls(float(match.group(1)), match.group(2))
        except ValueError:
            pass
        raise InvalidArgument(
            f"Cannot read budget {text!r}: give a positive number and one of "
            f"{', '.join(_UNITS)}, such as 3.5bpw or 60MB."
        )

    def limits(self, space: SearchSpace) -> dict[str, float]:
        """Limit on the searched layers: cost quantity to its largest whole sum.

        Raises:
            InvalidArgument: the budget holds the whole model in bf16, so there is nothing to do.
        """
        (quantity, bound), n_weights = next(iter(self.bounds().items())), space.n_weights
        largest = {"bytes": 2 * n_weights + space.outside_bytes}.get(quantity, 16)
        if bound >= largest:
            raise InvalidArgument(
                f"Budget {self} is not below bf16 ({largest:,} {quantity}): "
                "the unquantized model fits; give a smaller budget."
            )
        # The decimal that was typed, not its nearest binary number: 3.3 of 10 weights is 33 bits.
        typed = Fraction(repr(self.value))
        if quantity == "bits":
            return {"code_bits": math.floor(typed * n_weights)}
        if quantity == "bits_per_weight":
            return {"bytes": math.floor(typed * n_weights / 8)}
        return {"bytes": bound - space.outside_bytes}

    def holding(self, space: SearchSpace, total: float) -> Budget:
        """The smallest budget of this unit, to 4 decimals, for a sum over the searched layers.

        Args:
            space: what the sum is over.
            total: in the cost table's units: code bits for `bits`, else bytes.
        """
        if self.unit == "bits":
            exact = Fraction(int(total), space.n_weights)
        elif self.unit == "bpw":
            exact = Fraction(8 * int(total), space.n_weights)
        else:
            exact = Fraction(int(total) + space.outside_bytes) / Fraction(_UNITS[self.unit])
        return Budget(math.ceil(exact * 10_000) / 10_000, self.unit)

    def bounds(self) -> dict[str, float]:
        """The budget as a bound on a trial's value: `bits`, `bits_per_weight` or `bytes`."""
        if self.unit == "bits":
            return {"bits": self.value}
        if self.unit == "bpw":
            return {"bits_per_weight": self.value}
        return {"bytes": math.floor(Fraction(repr(self.value)) * Fraction(_UNITS[self.unit]))}


@dataclass(frozen=True)
class TextSource:
    """Where tokens come from and how many are used.

    Args:
        source: a text file, a JSON-lines file (key `text`), or a `datasets` name
            (`name`, `name:config` or `name:config:split`, where `name@revision` names a branch, tag
            or commit).
        n_sequences: how many token blocks.
        sequence_length: tokens of one block.
    """

    source: str
    n_sequences: int = 16
    sequence_length: int = 512

    def __post_init__(self) -> None:
        if self.n_sequences < 1 or self.sequence_length < 8:
            raise InvalidArgument(
                f"Cannot use {self.n_sequences} sequences of {self.sequence_length} tokens: "
                "at least 1 sequence of 8 tokens is needed."
            )


def default_menu(runtime: str | None) -> tuple[tuple[str, ...], str | None]:
    """Formats, and that of embedding and head, of a study that names none.

    Args:
        runtime: its runtime.

    Raises:
        UnknownPlugin: no such runtime.
    """
    if runtime is None:
        return Study.formats, Study.pinned
    profile = runtimes.named(runtime)
    pinned = profile.pinned[0]
    return profile.menu, None if pinned == "bf16" else pinned


@dataclass(frozen=True)
class Study:
    """A search to run.

    Args:
        model: local folder, GGUF file, or hub id.
        budget: size of the result.
        calibration: text that estimators, quantizers and the search itself see.
        evaluation: text of the reported values; no 32 tokens in a row are also in `calibration`.
        formats: names of the menu.
        quantizer, estimator: plug-ins by name with parameters.
        searches: plug-ins that propose in turn and share one history.
        costs: plug-ins whose quantities a trial states; `memory` is one of them. With `roofline`
            the front has latency as a third objective.
        n_pairs: pairs of neighbouring groups whose interaction is measured, for `quadratic`.
        n_trials: measurements on the calibration text for this budget and searches, uniform
            baselines included; all baselines and at least one proposal are always measured.
        max_minutes: stop when measuring proposals, screening them and slopes have taken that long,
            all runs of a results folder together; `None` for no bound. Loading, quantizing,
            estimating and the searches' own time do not count.
        patience: stop when the last so many proposals let the hypervolume over (log kl, cost)
            within 15 % of the budget grow by less than 0.1 %; `None` for never.
        n_parallel: proposals in flight at once: a proposal knows the results of all but the last
            `n_parallel - 1` proposals before it, whenever they end, so that the same seed gives
            the same front on any number of workers.
        n_search_sequences: blocks of calibration text that each of these measures; estimators and
            quantizers never see them.
        n_finalists: allocations of the calibration front that are measured on the evaluation text.
        seed: seed of every random choice.
        tied: whether fused layers (q/k/v, gate/up) share a format.
        pinned: format of embedding and head; `None` leaves them as they are (bf16).
        revision: revision of a hub model.
        dtype: `"float32"`, `"bfloat16"`, or `"auto"` (bfloat16 where hardware is fast at it).
        device: `"cpu"`, `"cuda"`, or `"auto"`.
        runtime: profile of the engine that is to load every point: layers that it fuses share a
            format, and what it cannot load is not allowed; `None` for no such bounds.
        tensor_parallel: number of ranks that this engine spreads the weights over.
    """

    model: str
    budget: Budget
    calibration: TextSource = TextSource(f"{_WIKITEXT}:train")
    evaluation: TextSource = TextSource(f"{_WIKITEXT}:test")
    formats: tuple[str, ...] = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")
    quantizer: Choice = Choice("rtn")
    estimator: Choice = Choice("fisher_directional")
    searches: tuple[Choice, ...] = (Choice("trust_region"), Choice("posterior_ilp"))
    costs: tuple[Choice, ...] = (Choice("memory"),)
    n_pairs: int = 0
    n_trials: int = 32
    max_minutes: float | None = None
    patience: int | None = None
    n_parallel: int = 1
    n_search_sequences: int = 4
    n_finalists: int = 12
    seed: int = 0
    tied: bool = True
    pinned: str | None = "int8_g64"
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    runtime: str | None = None
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_parallel", "n_search_sequences", "n_finalists"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name} is {getattr(self, name)}: give at least 1.")
        if self.n_pairs < 0:
            raise InvalidArgument(f"n_pairs is {self.n_pairs}: give 0 or more.")
        if not self.searches:
            raise InvalidArgument("No search is named: give at least one.")
        for name in ("max_minutes", "patience"):
            if (bound := getattr(self, name)) is not None and not bound > 0:
                raise InvalidArgument(f"{name} is {bound}: give a positive number, or none.")
        if "memory" not in {choice.name for choice in self.costs}:
            raise InvalidArgument("The cost 'memory' is missing: give memory and any others.")
        if not self.formats:
            raise InvalidArgument("The menu of formats is empty: name at least one.")
        for name in (*self.formats, *([self.pinned] if self.pinned else [])):
            formats.named(name)
        if not 0 <= self.seed < 2**32:
            raise InvalidArgument(f"seed is {self.seed}: give a whole number from 0 to 2**32 - 1.")
        if self.dtype not in {"auto", "float32", "bfloat16"}:
            raise InvalidArgument(f"dtype {self.dtype!r}: use auto, float32 or bfloat16.")
        if self.device not in {"auto", "cpu", "cuda"}:
            raise InvalidArgument(f"device {self.device!r}: use auto, cpu or cuda.")
        self._check_runtime()

    def _check_runtime(self) -> None:
        profile = self.profile
        if profile is None:
            if self.tensor_parallel != 1:
                raise InvalidArgument(
                    f"tensor_parallel is {self.tensor_parallel} without a runtime: name one of "
                    f"{', '.join(runtimes.names())}."
                )
            return
        for name in self.formats:
            if profile.rule(name) is None:
                raise InvalidArgument(
                    f"Runtime {profile.name!r} cannot load {name}: it takes "
                    f"{', '.join(pattern for rule in profile.rules for pattern in rule.names)}."
                )
        if not profile.pins(self.pinned or "bf16"):
            raise InvalidArgument(
                f"Runtime {profile.name!r} has no {self.pinned or 'bf16'} embedding or head: pin "
                f"{', '.join('none' if each == 'bf16' else each for each in profile.pinned)}."
            )

    @property
    def profile(self) -> Runtime | None:
        """What the engine of `runtime` loads."""
        return runtimes.named(self.runtime, self.tensor_parallel) if self.runtime else None

    @property
    def digest(self) -> str:
        """SHA-256 of the request, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """Inverse of `to_json`.

        Raises:
            InvalidArgument: not the JSON of a study.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            for key in ("quantizer", "estimator"):
                fields[key] = Choice(**fields[key])
            for key in ("searches", "costs"):
                fields[key] = tuple(Choice(**each) for each in fields[key])
            for key in ("calibration", "evaluation"):
                fields[key] = TextSource(**fields[key])
            fields["budget"] = Budget(**fields["budget"])
            fields["formats"] = tuple(fields["formats"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"Not the JSON of a study: {error}.") from error
