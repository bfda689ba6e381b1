import io
from dataclasses import replace

import pytest
from rich.console import Console

from bitfront.pareto import ParetoFront
from bitfront.report.columns import COLUMNS, TIMED, columns_of
from bitfront.report.terminal import front_table
from tests.report.studies import made_up, timed


def printed(table, width=160):
    stream = io.StringIO()
    Console(width=width, file=stream).print(table)
    return stream.getvalue().splitlines()


def test_the_table_has_a_row_for_each_point_and_marks_the_chosen():
    data = made_up()
    lines = printed(front_table(data.front, data.chosen))
    for trial in data.front.trials:
        assert any(f"{trial.values['kl']:.4g} ±" in line for line in lines)
    marked = [line for line in lines if "→" in line]
    assert len(marked) == 1
    assert f"{data.chosen.values['kl']:.4g}" in marked[0]


def test_what_was_not_measured_is_a_dash():
    trial = replace(made_up().chosen, values={"kl": 0.25, "bytes": 2e6})
    row = next(line for line in printed(front_table(ParetoFront((trial,)))) if "0.25" in line)
    assert "2.00" in row
    assert row.count("–") == 4


def test_names_are_not_read_as_markup():
    trial = replace(made_up().chosen, origin="[bold]mine[/bold]")
    assert any("[bold]mine[/bold]" in line for line in printed(front_table(ParetoFront((trial,)))))


EXTREMES = {
    "tiny KL": [1e-9, 1.2e-10, 17.123, 0.001, 8.0, 8.25, 9.99e6],
    "small KL": [0.00012345, 0.0012, 999.994, 0.05, 3.512, 3.762, 9999.994e6],
    "large KL": [8.91234, 0.36, 302489.0, 1.0, 2.0, 2.25, 60.123e6],
    "huge KL": [98765.4321, 4321.0, 1.2e12, 1.0, 16.0, 16.0, 1.2e12],
}


@pytest.mark.parametrize("latency", [1.2e4, 9.87654e9, 1e13])
def test_times_fit_beside_the_others(latency):
    trial = replace(timed(made_up()).chosen, number=1234, origin="posterior_ilp")
    trial = replace(trial, values={**trial.values, "latency_ns": latency})
    lines = printed(front_table(ParetoFront((trial,)), trial), width=80)
    row = next(line for line in lines if "→" in line)
    assert TIMED[0].text(trial) in row
    assert "posterior_ilp" in row
    assert "ms origin" in " ".join(next(line for line in lines if "KL" in line).split())
    assert "…" not in "".join(lines)


@pytest.mark.parametrize(
    ("bops", "shown"), [(9.4372e6, "0.00944"), (4.483e11, "448.3"), (1.2345e15, "1.234e6")]
)
@pytest.mark.parametrize("more", [{}, {"latency_ns": 9.87654e9}])
def test_operations_fit_beside_the_others(bops, shown, more):
    made = made_up().chosen
    trial = replace(made, number=1234, origin="posterior_ilp")
    trial = replace(trial, values={**made.values, "bops": bops, **more})
    lines = printed(front_table(ParetoFront((trial,)), trial), width=80)
    row = next(line for line in lines if "→" in line)
    assert shown in row
    assert "posterior_ilp" in row
    assert "Gbops origin" in " ".join(next(line for line in lines if "KL" in line).split())
    assert "…" not in "".join(lines)
    assert [column.title for column in columns_of((trial,))][-2] == "Gbops"


@pytest.mark.parametrize("more", [{}, {"answer_error": 1.0}])
def test_second_texts_and_answers_fit_beside_the_others(more):
    made = made_up().chosen
    values = {**made.values, "second_kl": 1.2345e-5, "both_kl": 1.0, "kl": 1.23456e-9, **more}
    trial = replace(made, number=1234, origin="posterior_ilp", values=values)
    lines = printed(front_table(ParetoFront((trial,)), trial), width=80)
    row = next(line for line in lines if "→" in line)
    assert "1e-5" in row.replace("e-05", "e-5")
    assert ("100.0%" in row) == bool(more)
    assert "posterior_ilp" in row
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("case", EXTREMES)
def test_nothing_is_clipped_at_80_columns(case):
    made = made_up().chosen
    values = dict(zip(list(made.values)[:7], EXTREMES[case], strict=True))
    trial = replace(made, number=1234, values=values)
    lines = printed(front_table(ParetoFront((trial,)), trial), width=80)
    row = next((line for line in lines if "→" in line), "")
    assert [text for column in COLUMNS if (text := column.text(trial)) not in row] == []
    headings = " ".join(next(line for line in lines if "KL" in line).split())
    assert headings == "trial KL ± stderr ppl error bits bpw MB origin"
    assert "…" not in "".join(lines)
