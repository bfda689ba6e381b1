"""Trial: one allocation with its measured values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from bitfront.allocation import Allocation


class TrialState(StrEnum):
    """Optuna's words for how a trial ended."""

    COMPLETE = "COMPLETE"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Trial:
    """A measured allocation.

    Args:
        number: position in the study, from 0.
        allocation: what was measured.
        text: `"calibration"` for measurements that guide the search, `"evaluation"` for those
            that are reported; the two texts share no token block.
        origin: who proposed it: a search's name, or `"uniform"` for a baseline.
        target: budget and search it was proposed for; empty for baselines.
        state: how it ended.
        values: quantity to measured value, every one minimized: `kl`, `kl_stderr`, `perplexity`,
            `top1_error`, `bits`, `bits_per_weight`, `bytes`, and `seconds` it took.
        error: why it failed.
    """

    number: int
    allocation: Allocation
    text: str
    origin: str
    state: TrialState = TrialState.COMPLETE
    values: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    target: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Trial:
        """Inverse of `to_json`."""
        fields = json.loads(text)
        fields["allocation"] = Allocation(**fields["allocation"])
        fields["state"] = TrialState(fields["state"])
        return cls(**fields)
