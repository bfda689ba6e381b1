"""What the choices of a study cost, and whether its budget can be met."""

from __future__ import annotations

from bitfront.budget import Budget
from bitfront.costs import COSTS
from bitfront.costs.base import Cost
from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.plugins import parameters
from bitfront.problem import Problem
from bitfront.solvers import SOLVERS
from bitfront.space import SearchSpace
from bitfront.study import Study
from bitfront.table import LayerTable


def cost_tables(study: Study, space: SearchSpace) -> tuple[LayerTable, ...]:
    """The cost tables of a study, those of its time budget at the batch and context of that.

    Raises:
        InvalidArgument: a cost that cannot be made, or two that give one quantity.
    """
    tables = tuple(table for cost in built_costs(study) for table in cost.cost(space))
    given = [table.quantity for table in tables]
    for quantity in given:
        if given.count(quantity) > 1:
            raise InvalidArgument(f"Two costs give {quantity}: name one of them.")
    return tables


def time_point(study: Study) -> tuple[int, int]:
    """Batch and context at which a study predicts latency; a context of 1 where it knows none.

    Raises:
        InvalidArgument: it predicts none.
    """
    for cost in built_costs(study):
        if (batch := getattr(cost, "batch", None)) is not None:
            return int(batch), int(getattr(cost, "context", 1))
    raise InvalidArgument(
        "The study predicts no latency: search with --costs memory,latency:table=FILE."
    )


def built_costs(study: Study) -> list[Cost]:
    """The costs of a study, those of its time budget at the batch and context of that.

    Raises:
        InvalidArgument: one that cannot be made.
    """
    time = study.budget.time
    point = {"batch": time.batch, "context": time.context} if time else {}
    stated = {name: value for name, value in point.items() if value is not None}
    built = []
    for choice in study.costs:
        known = parameters(COSTS.load(choice.name))
        if "batch" not in known or not stated:
            built.append(COSTS.build(choice.name, choice.params))
            continue
        for name, value in stated.items():
            if name not in known:
                raise InvalidArgument(
                    f"Budget {time} states a {name}, which cost {choice.name!r} knows nothing of: "
                    "leave it out, or give latency:table=FILE of `bitfront profile`."
                )
            if choice.params.get(name, value) != value:
                raise InvalidArgument(
                    f"Budget {time} and cost {choice} differ in {name}: give it once."
                )
        built.append(COSTS.build(choice.name, {**choice.params, **stated}))
    return built


def check_budget(budget: Budget, space: SearchSpace, costs: tuple[LayerTable, ...]) -> None:
    """Refuse a budget that nothing meets, before anything is measured.

    Raises:
        InfeasibleBudget: with the smallest budget that works, in the unit that was given.
        InvalidArgument: the budget holds the unquantized model.
    """
    for quantity, (each, limit) in budget.tightest(space, costs).items():
        table = next(t for t in costs if t.quantity == quantity)
        smallest = float(table.grouped.min(axis=1).sum())
        if smallest > limit:
            message = (
                f"No allocation fits {each}: the smallest reachable budget is "
                f"{each.holding(space, table, smallest)}. Raise the budget or add smaller formats."
            )
            raise InfeasibleBudget(quantity, limit, smallest, message)
    if len(limits := budget.limits(space, costs)) > 1:
        _check_together(budget, Problem(costs[0], costs, limits))


def _check_together(budget: Budget, problem: Problem) -> None:
    """Refuse limits that can be met one by one only: the smallest format may be a slow one.

    Raises:
        InfeasibleBudget: with the smallest budget of one unit that works beside the others.
    """
    try:
        SOLVERS.build("lagrangian").solve(problem)
    except InfeasibleBudget as error:
        each, _ = budget.tightest(problem.space, problem.costs)[error.quantity]
        least = each.holding(problem.space, problem.cost(error.quantity), error.smallest)
        message = (
            f"No allocation fits {budget}: beside the others, {each} would have to be {least}. "
            "Raise one of them or add formats."
        )
        raise InfeasibleBudget(error.quantity, error.limit, error.smallest, message) from error
