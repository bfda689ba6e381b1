"""A study without a model: its tasks are finished by hand, its values are made up."""

import numpy as np

from bitfront import Budget, Study
from bitfront.allocation import Allocation
from bitfront.formats import named
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store
from bitfront.store.records import Claim, Outcome, Proposed, Stage
from bitfront.trial import Trial, TrialState

MENU = ("int2_g64", "int4_g64", "int8_g64")
SPACE = SearchSpace(
    tuple(
        Layer(f"layers.{index}.proj", (128, 128), f"layers.{index}", index) for index in range(6)
    ),
    tuple(map(named, MENU)),
)


def request(**choices) -> Study:
    """A request that nobody loads a model for."""
    return Study("org/model", Budget.parse("4.5bpw"), formats=MENU, **choices)


def proposal(number: int, seed: int = 0) -> Allocation:
    """The allocation of a proposal: no two alike in a few hundred, and no baseline."""
    digits = [(number + 1) // 3**place % 3 for place in range(5)]
    return SPACE.decode(np.array([*digits, (seed + digits[0] + 1) % 3]))


def measured(allocation: Allocation, text: str) -> dict[str, float]:
    """Values that depend on the allocation alone, finer formats being better."""
    choice = SPACE.encode(allocation)
    kl = float(sum((2 - column) * (1 + row / 7) for row, column in enumerate(choice))) + 0.1
    bits = (
        float(np.mean([2.5, 4.5, 8.5]))
        if not len(choice)
        else float(np.mean(np.array([2.5, 4.5, 8.5])[choice]))
    )
    kl *= 1.1 if text == "evaluation" else 1.0
    return {"kl": kl, "bits": bits, "bits_per_weight": bits, "bytes": bits * 1000, "seconds": 0.1}


def outcome(store: Store, claim: Claim) -> Outcome:
    """What a worker would leave."""
    study = store.studies.get(claim.study_id).study
    if claim.stage is Stage.PREPARE:
        return Outcome(space=SPACE, queue="cpu")
    if claim.stage is Stage.ESTIMATE:
        baselines = [SPACE.decode(SPACE.uniform(column)) for column in range(len(MENU))]
        return Outcome(
            proposed=tuple(Proposed(Trial(0, a, "calibration", "uniform")) for a in baselines)
        )
    if claim.stage is Stage.PROPOSE:
        if claim.number + len(MENU) >= study.n_trials:
            return Outcome(search_ended=True)
        trial = Trial(0, proposal(claim.number, study.seed), "calibration", "sweep", target="t")
        return Outcome(proposed=(Proposed(trial, is_proposal=True),))
    if claim.stage is Stage.EVALUATE:
        trial = store.trials.get(claim.study_id, claim.number)
        values = measured(trial.allocation, trial.text)
        return Outcome(
            measured=Trial(
                trial.number,
                trial.allocation,
                trial.text,
                trial.origin,
                TrialState.COMPLETE,
                values,
            )
        )
    if claim.stage is Stage.FINALISTS:
        front = store.trials.front(claim.study_id, "calibration").trials
        return Outcome(
            proposed=tuple(Proposed(Trial(0, t.allocation, "evaluation", t.origin)) for t in front)
        )
    return Outcome()


def run(store: Store, worker: str = "w", n: int | None = None) -> int:
    """Do up to `n` tasks; how many were done."""
    done = 0
    while n is None or done < n:
        claim = store.queue.claim(worker, ["cpu"])
        if claim is None:
            break
        store.queue.finish(claim, outcome(store, claim))
        done += 1
    return done
