import io
from dataclasses import replace

from rich.console import Console

from bitfront.pareto import ParetoFront
from bitfront.report.terminal import front_table
from tests.report.studies import made_up


def printed(table):
    stream = io.StringIO()
    Console(width=160, file=stream).print(table)
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
