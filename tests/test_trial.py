import json

import pytest

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.trial import Trial, TrialState

VALUES = {"kl": 0.1 + 0.2, "bits": 3.5, "bits_per_weight": 3.75, "bytes": 123456789012.0}


@pytest.mark.parametrize("state", TrialState)
def test_json_round_trip_on_one_line(state):
    values = {} if state is TrialState.RUNNING else VALUES
    trial = Trial(
        3, Allocation({"a": "int4_g64"}), "calibration", "sweep", state, values, "why\nnot"
    )
    text = trial.to_json()
    assert "\n" not in text
    assert Trial.from_json(text) == trial
    assert Trial.from_json(text).state is state


def test_values_survive_to_the_last_bit():
    trial = Trial(0, Allocation({}), "evaluation", "uniform", values=VALUES)
    assert Trial.from_json(trial.to_json()).values == VALUES


@pytest.mark.parametrize("name", VALUES)
def test_a_complete_trial_has_what_fronts_and_budgets_need(name):
    trial = Trial(0, Allocation({}), "evaluation", "uniform", values=VALUES)
    fields = json.loads(trial.to_json())
    del fields["values"][name]
    with pytest.raises(InvalidArgument, match=f"a complete trial has no {name}"):
        Trial.from_json(json.dumps(fields))
    fields["state"] = "FAIL"
    assert name not in Trial.from_json(json.dumps(fields)).values


def test_a_running_trial_has_no_values():
    trial = Trial(0, Allocation({}), "calibration", "sweep", TrialState.RUNNING, {"kl": 0.1})
    with pytest.raises(InvalidArgument, match="a running trial cannot have kl"):
        Trial.from_json(trial.to_json())
