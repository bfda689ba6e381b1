import pytest

from bitfront.allocation import Allocation
from bitfront.trial import Trial, TrialState


@pytest.mark.parametrize("state", TrialState)
def test_json_round_trip_on_one_line(state):
    trial = Trial(
        3, Allocation({"a": "int4_g64"}), "calibration", "sweep", state, {"kl": 0.1}, "why\nnot"
    )
    text = trial.to_json()
    assert "\n" not in text
    assert Trial.from_json(text) == trial
    assert Trial.from_json(text).state is state


def test_values_survive_to_the_last_bit():
    values = {"kl": 0.1 + 0.2, "bytes": 123456789012.0}
    trial = Trial(0, Allocation({}), "evaluation", "uniform", values=values)
    assert Trial.from_json(trial.to_json()).values == values
