"""A report's data, read from the results folder of a study."""

from __future__ import annotations

from pathlib import Path

from bitfront.errors import InvalidArgument
from bitfront.experts import FILE as EXPERTS
from bitfront.experts import TokensSeen
from bitfront.pareto import LATENCY
from bitfront.report.data import ReportData
from bitfront.results import Results
from bitfront.space import SearchSpace
from bitfront.study import Study


def report_data(directory: Path) -> ReportData:
    """Everything a report shows of a study.

    Args:
        directory: results folder of a finished search.

    Raises:
        InvalidArgument: the folder holds no finished search.
    """
    results = Results(directory)
    study, space, front = results.study, results.space, results.front()
    table = results.load_table(study.estimator.name, space)
    if table is None:
        raise InvalidArgument(
            f"{directory} has no loss table yet: run `bitfront search` to the end."
        )
    # A check says nothing of a trial that another table prices by now.
    predicted = {(t.number, t.values.get(LATENCY)) for t in front.trials}
    checks = tuple(
        row for row in results.checks if (row["number"], row["predicted_ns"]) in predicted
    )
    return ReportData(
        title=Path(study.model).name if Path(study.model).is_absolute() else study.model,
        space=space,
        front=front,
        evaluations=results.trials("evaluation"),
        calibrations=results.trials("calibration"),
        loss=table,
        budget=str(study.budget),
        limits=study.budget.limits(space),
        chosen=front.best(front.goal, **study.budget.bounds()),
        provenance=results.environment
        | results.identity
        | {"never quantized": never_quantized(space)},
        latency=latency_cost(study),
        checks=checks,
        experts=TokensSeen.load(directory / EXPERTS),
    )


def latency_cost(study: Study) -> str:
    """What predicts latency in a study, as it was asked for; empty for nothing."""
    named = [str(cost) for cost in study.costs if cost.name in {"latency", "roofline"}]
    return ", ".join(named)


def never_quantized(space: SearchSpace) -> str:
    """What of the model stays as it is, in words."""
    n_others = space.n_weights + sum(layer.n_weights for layer, _ in space.pinned)
    share = space.fixed_bytes / (space.fixed_bytes + 2 * n_others)
    return f"{space.fixed_bytes:,} bytes, {share:.1%} of the model: not in bits per weight"
