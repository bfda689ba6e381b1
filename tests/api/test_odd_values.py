"""Measurements, layers and names that nobody expects: a defined result, never a NaN on a front."""

import dataclasses
import math

import pytest
from workers.simulated import SimulatedBench

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.space import Layer, SearchSpace
from bitfront.store.records import Outcome, Proposed, Stage, TaskState
from bitfront.trial import Trial, TrialState
from bitfront.workers.work import work

NAMES = ("模型.層.0.proj", "übung.0.ﬁ", "a\u202eb", "🙂.weight", "a b\n\t\"'\\", "<script>", "../x")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request):
    return request.param


def measuring(bench, change):
    """Have the worker of a bench change the values of the second trial."""
    usual = bench.outcome

    def outcome(claim):
        made = usual(claim)
        if claim.stage is Stage.EVALUATE and claim.number == 1:
            values = {**made.measured.values, **change}
            return Outcome(measured=dataclasses.replace(made.measured, values=values))
        return made

    bench.outcome = outcome


def finite(answer):
    assert answer.status_code == 200, answer.text
    return all(
        math.isfinite(value) for point in answer.json() for value in point["values"].values()
    )


@pytest.mark.parametrize("name", ["kl", "bits", "bytes", "perplexity"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_a_value_that_cannot_be_fails_its_trial(client, bench, name, value):
    measuring(bench, {name: value})
    study = bench.study(n_trials=5)
    bench.work()
    links = client.get(f"/v1/studies/{study.id}").json()["links"]
    trial = client.get(f"{links['trials']}/1").json()
    assert trial["state"] == "FAIL"
    assert name in trial["error"]
    assert name not in trial["values"]
    for text in ("calibration", "evaluation"):
        front = client.get(f"{links['front']}?text={text}")
        assert finite(front)
        assert front.json()
        assert 1 not in {point["number"] for point in front.json()}


def test_a_divergence_that_rounds_to_less_than_nothing_counts(client, bench):
    measuring(bench, {"kl": -1e-8})
    study = bench.study(n_trials=5)
    bench.work()
    assert client.get(f"/v1/studies/{study.id}/trials/1").json()["state"] == "COMPLETE"


def test_layers_keep_their_names_whatever_they_are(client, bench):
    layers = tuple(Layer(name, (64, 128), name, index) for index, name in enumerate(NAMES))
    bench.space = SearchSpace(layers, bench.space.formats)
    study = bench.study(n_trials=5)
    bench.work()
    for point in client.get(f"/v1/studies/{study.id}/front").json():
        assert set(point["allocation"]) == set(NAMES)
    page = client.get(f"/ui/studies/{study.id}")
    assert page.status_code == 200
    assert "<script></" not in page.text


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize(
    ("names", "told"), [(("a", "b", "a"), "Repeated layer names: a"), ((), "at least one layer")]
)
def test_a_model_whose_layers_cannot_be_told_apart_fails_its_study_in_one_line(
    client, bench, names, told
):
    def prepare(place, claim, lease):
        layers = tuple(Layer(name, (64, 128), str(i), i) for i, name in enumerate(names))
        return Outcome(space=SearchSpace(layers, bench.space.formats), queue="cpu")

    study = bench.study()
    claim = bench.store.queue.claim("w", ("cpu",))
    place = SimulatedBench(bench.store, bench.settings)
    work(place, claim, dict.fromkeys(Stage, prepare), lambda: False)
    answer = client.get(f"/v1/studies/{study.id}").json()
    assert answer["state"] == "FAIL"
    assert told in answer["error"]
    assert len(answer["error"].splitlines()) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_proposal_of_a_format_that_is_not_on_the_menu_is_not_stored(client, bench):
    study = bench.study()
    bench.work(2)
    allocation = bench.space.decode((0,) * len(bench.space.groups))
    wrong = Allocation({**allocation.formats, bench.space.layers[0].name: "int5_g64"})
    claim = bench.store.queue.claim("w", ("cpu",))
    proposed = Proposed(Trial(0, wrong, "calibration", "random", TrialState.RUNNING), True)
    before = client.get(f"/v1/studies/{study.id}/trials").json()
    with pytest.raises(InvalidArgument, match="int5_g64"):
        bench.store.queue.finish(claim, Outcome(proposed=(proposed,)))
    assert client.get(f"/v1/studies/{study.id}/trials").json() == before
    assert bench.store.activity.tasks(study.id, [TaskState.RUNNING])


# The larger one takes long, and no database looks into its allocations.
@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("n_layers", [1, 65_536])
def test_models_of_one_layer_and_of_very_many_have_a_front(client, bench, n_layers):
    layers = tuple(Layer(f"layers.{i}.p", (64, 64), f"layers.{i}", i) for i in range(n_layers))
    bench.space = SearchSpace(layers, bench.space.formats)
    study = bench.study(n_trials=3)
    bench.work()
    answer = client.get(f"/v1/studies/{study.id}/front")
    assert finite(answer)
    assert {len(point["allocation"]) for point in answer.json()} == {n_layers}
