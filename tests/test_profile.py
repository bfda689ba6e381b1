"""From a timed device to a search by it, and to a prediction held against the whole model.

No test looks at how long anything takes: times are positive, recorded, and compared.
"""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bitfront import Budget, Choice
from bitfront.errors import InfeasibleBudget, InvalidArgument, MismatchedArtifact
from bitfront.models.decoding import ROTATED_BYTES
from bitfront.profile import Bench, Request, check, profile
from bitfront.report.page import html
from bitfront.report.points import encoded
from bitfront.report.study import report_data
from bitfront.results import Results
from bitfront.run import run_study
from bitfront.timings import LayerCall, RestOfStep, Timings

MENU = ("int2_g32", "int4_g32", "int8_g32")
DATA = Path(__file__).parent / "data"
SHAPES = {(64, 64), (32, 64), (128, 64), (64, 128)}


@pytest.fixture(scope="module")
def request_of_tiny(tiny_folder):
    return Request(
        MENU, (1, 2), (16,), str(tiny_folder), pinned="int8_g32", dtype="float32", device="cpu"
    )


@pytest.fixture(scope="module")
def table(request_of_tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "cpu.json"
    profile(request_of_tiny, path, rounds=2, seconds=0.0)
    return path


@pytest.fixture(scope="module")
def timed(tiny_study, table):
    """Makes studies with a cost of latency and of bit operations."""

    def make(budget="4.5bpw,10s@b1c16", **choices):
        costs = (Choice("memory"), Choice("latency", {"table": str(table)}), Choice("bops"))
        fields = {"formats": MENU, "costs": costs, "n_search_sequences": 2, "n_trials": 6}
        study = tiny_study(4, 2, **(fields | choices))
        return replace(study, budget=Budget.parse(budget))

    return make


@pytest.fixture(scope="module")
def searched(timed, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("searched") / "out"
    run_study(timed(), out)
    return out


@pytest.mark.parametrize("name", ["tiny_vit", "tiny_bert", "tiny_llava"])
def test_only_language_models_are_timed(name):
    request = Request(MENU, model=str(DATA / name), device="cpu")
    with pytest.raises(InvalidArgument, match="on language models only, and"):
        Bench(request)


def test_every_shape_format_and_batch_is_timed_and_the_rest_of_the_step(table):
    entries = Timings.load(table).entries
    calls = {key for key in entries if isinstance(key, LayerCall)}
    assert {key.shape for key in calls} == SHAPES
    assert {(k.shape, k.format, k.batch) for k in calls} == {
        (shape, name, batch) for shape in SHAPES for name in (*MENU, "bf16") for batch in (1, 2)
    }
    rests = [key for key in entries if isinstance(key, RestOfStep)]
    assert sorted((key.batch, key.context) for key in rests) == [(1, 16), (2, 16)]
    assert all(len(t.samples) == 2 and t.ns > 0 <= t.spread for t in entries.values())
    stated = json.loads(table.read_text())
    assert stated["device"].endswith("thread") or stated["device"].endswith("threads")
    assert {"bitfront", "torch"} <= set(stated["versions"])
    assert stated["dtype"] == "float32"


def test_shapes_asked_for_beside_a_small_model_do_not_stay_in_cache(request_of_tiny, monkeypatch):
    """Its own layers go round the model; what was asked for goes round more than a cache holds."""
    monkeypatch.setitem(ROTATED_BYTES, "cpu", 1 << 20)
    bench = Bench(replace(request_of_tiny, shapes=((96, 64), (32, 64))))
    in_model = sum(bench.space.formats[1].nbytes(x.shape) for x in bench.space.layers)
    rotated = {k.shape: k for k in bench.wanted if getattr(k, "format", "") == "int4_g32"}
    rotated = {shape: bench._rotated_bytes(call) for shape, call in rotated.items()}
    assert in_model < 1 << 20
    assert rotated == dict.fromkeys(SHAPES, in_model) | {(96, 64): 1 << 20, (32, 64): 1 << 20}


def test_an_interrupt_loses_at_most_one_entry_and_nothing_is_timed_twice(tmp_path, monkeypatch):
    """The interrupt comes when the fifth is stored: in the first of two rounds of eight."""
    monkeypatch.setitem(ROTATED_BYTES, "cpu", 1 << 16)  # no time is looked at
    request = Request(("int4_g32",), (1,), shapes=((64, 64), (64, 128), (128, 64), (32, 32)))

    def interrupt(event):
        if event.done == 5:
            raise KeyboardInterrupt

    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        profile(request, path, interrupt, rounds=2, seconds=0.0)
    before = Timings.load(path).entries
    assert [len(t.samples) for t in before.values()] == [1] * 5
    seen = []
    timings = profile(request, path, lambda e: seen.append(e.done), rounds=2, seconds=0.0)
    assert seen == list(range(5, 17))
    assert [len(t.samples) for t in timings.entries.values()] == [2] * 8
    assert all(timings.entries[key].samples[0] == t.samples[0] for key, t in before.items())
    assert profile(request, path, rounds=2, seconds=0.0) == Timings.load(path)


def test_rounds_take_everything_in_another_order(tmp_path, monkeypatch):
    monkeypatch.setitem(ROTATED_BYTES, "cpu", 1 << 16)  # no time is looked at
    orders = []
    request = Request(("int4_g32", "int2_g32"), (1, 2), shapes=((64, 64), (64, 128)))

    def note(event):
        if event.done:
            samples = Timings.load(tmp_path / "t.json").entries
            orders.append({key: len(t.samples) for key, t in samples.items()})

    profile(request, tmp_path / "t.json", note, rounds=2, seconds=0.0)
    first = list(orders[11])
    second = [next(k for k in b if b[k] > a[k]) for a, b in pairwise(orders[11:])]
    assert sorted(map(repr, first)) == sorted(map(repr, second))
    assert first != second


@pytest.mark.parametrize("field", ["device", "dtype", "versions"])
def test_a_table_of_another_machine_is_refused(field, table, request_of_tiny, tmp_path):
    stored = Timings.load(table)
    changed = {"versions": {"torch": "0"}}.get(field, "another")
    replace(stored, **{field: changed}).save(tmp_path / "t.json")
    with pytest.raises(MismatchedArtifact, match=f"is of {field}.*--out"):
        profile(request_of_tiny, tmp_path / "t.json", rounds=1, seconds=0.0)


def test_the_front_is_over_loss_bytes_and_latency(searched, timed, table):
    front = Results(searched).front()
    assert front.objectives == ("kl", "bytes", "latency_ns")
    best = front.best("kl", **timed().budget.bounds())
    times = {k: t.ns for k, t in Timings.load(table).entries.items()}
    rest = next(t for k, t in times.items() if isinstance(k, RestOfStep) and k.batch == 1)
    space = Results(searched).space
    layers = sum(
        times[LayerCall(x.shape, best.allocation.formats[x.name], 1)] for x in space.layers
    )
    assert best.values["latency_ns"] == pytest.approx(rest + layers, rel=1e-3)
    assert best.values["bops"] > 0
    header = encoded(front, "csv").decode().splitlines()[0]
    assert header.split(",")[-3:] == ["latency_ns", "bops", "allocation"]
    assert front.hypervolume((10.0, 1e9, 1e12)) > 0


def test_a_time_bounds_the_answer(searched, timed, tmp_path):
    """Between the fastest and the slowest uniform format, at whatever this machine gives."""
    uniform = [t for t in Results(searched).trials("calibration") if t.origin == "uniform"]
    low, high = sorted(t.values["latency_ns"] for t in uniform)[:2]
    budget = f"8.5bpw,{(low + high) / 2 / 1e6:.6f}ms@b1c16,10Tbops"
    front = run_study(timed(budget), tmp_path)
    best = front.best("kl", **Budget.parse(budget).bounds())
    assert best.values["latency_ns"] <= (low + high) / 2 + 1
    with pytest.raises(InfeasibleBudget, match=r"smallest reachable budget is .*us@b1c16"):
        run_study(timed("8.5bpw,1us@b1c16"), tmp_path)


def test_what_fits_one_by_one_only_is_refused_before_anything_is_measured(
    searched, timed, table, tmp_path
):
    """By a table in which the smallest format is by far the slowest."""
    stored = Timings.load(table)
    slow = {
        key: replace(t, samples=(1e9,)) if getattr(key, "format", "") == "int2_g32" else t
        for key, t in stored.entries.items()
    }
    replace(stored, entries=slow).save(tmp_path / "slow.json")
    costs = (Choice("memory"), Choice("latency", {"table": str(tmp_path / "slow.json")}))
    with pytest.raises(InfeasibleBudget, match="beside the others"):
        run_study(replace(timed("3.2bpw,0.5s@b1c16"), costs=costs), tmp_path / "out")
    assert not (tmp_path / "out" / "trials.jsonl").exists()


def test_another_table_prices_the_trials_that_are_there(searched, timed, tmp_path):
    """KL does not depend on a device: the folder goes on, and no old time stays in it."""
    before = {t.number: t.values for t in Results(searched).trials()}
    costs = (Choice("memory"), Choice("roofline", {"device": "h200"}))
    run_study(replace(timed("4.5bpw,1s@b1"), costs=costs), searched)
    after = {t.number: t.values for t in Results(searched).trials()}
    assert before.keys() <= after.keys()
    for number, values in before.items():
        assert after[number]["kl"] == values["kl"]
        assert 0 < after[number]["latency_ns"] < values["latency_ns"]
        assert "bops" not in after[number]
    run_study(timed("4.5bpw", costs=(Choice("memory"),)), searched)
    assert Results(searched).front().objectives == ("kl", "bits", "bytes")
    run_study(timed(), searched)
    again = {t.number: t.values for t in Results(searched).trials()}
    assert {number: again[number] for number in before} == before


def test_predictions_are_held_against_the_materialised_model(searched):
    rows = check(searched, n_points=3, rounds=2, seconds=0.0)
    front = {t.number: t for t in Results(searched).front().trials}
    best = Results(searched).front().best("kl", **Budget.parse("4.5bpw").bounds())
    assert rows[0].number == best.number
    assert len({row.number for row in rows}) == 3
    for row in rows:
        assert row.predicted_ns == front[row.number].values["latency_ns"]
        assert row.measured_ns > 0 <= row.spread_ns
        assert row.error == row.predicted_ns / row.measured_ns - 1
        assert (row.batch, row.context, row.dtype) == (1, 16, "float32")
    stored = Results(searched).checks
    assert [row["error"] for row in stored] == [row.error for row in rows]
    page = html(report_data(searched))
    assert f"Trial {best.number} at batch 1, context 16: predicted" in page


def test_a_study_without_latency_has_nothing_to_check(tiny_study, tmp_path):
    study = tiny_study(4, 2, formats=MENU[:2], n_search_sequences=2, n_trials=3)
    run_study(study, tmp_path)
    with pytest.raises(InvalidArgument, match="predicts no latency"):
        check(tmp_path)


def test_a_prediction_for_another_device_is_not_checked_here(searched, timed, table, tmp_path):
    check(searched, rounds=1, seconds=0.0)
    assert report_data(searched).checks
    stored = Timings.load(table)
    slower = {k: replace(t, samples=(2 * t.ns,)) for k, t in stored.entries.items()}
    replace(stored, device="an H200", entries=slower).save(tmp_path / "gpu.json")
    costs = (Choice("memory"), Choice("latency", {"table": str(tmp_path / "gpu.json")}))
    run_study(replace(timed(), costs=costs), searched)
    with pytest.raises(MismatchedArtifact, match="predicts for an H200, this is "):
        check(searched)
    assert report_data(searched).checks == ()  # they were of other predictions


@pytest.mark.parametrize(
    ("costs", "budget", "told"),
    [
        ("roofline:device=h100", "9ms@b1c512", "states a context"),
        ("roofline:device=h100,batch=2", "9ms@b1", "differ in batch"),
        ("latency:table=x.json,context=9", "9ms@b1c512", "differ in context"),
        ("bops", "9ms@b1c512", "latency:table=FILE"),
        ("roofline,latency:table=T,rest_ms=1", "4bpw", "Two costs give latency_ns"),
    ],
)
def test_budgets_and_costs_that_do_not_agree_are_refused(
    costs, budget, told, timed, table, tmp_path
):
    given = (Choice("memory"), *Choice.parse_list(costs.replace("=T", f"={table}")))
    with pytest.raises(InvalidArgument, match=told):
        run_study(replace(timed(budget), costs=given), tmp_path / "out")


@pytest.mark.parametrize(
    "fields",
    [{}, {"shapes": ((0, 4),)}, {"shapes": ((4, 4),), "batches": (0,)}, {"formats": ("int9",)}],
)
def test_requests_for_nothing_are_refused(fields):
    with pytest.raises((InvalidArgument, LookupError)):
        Request(**({"formats": MENU} | fields))
