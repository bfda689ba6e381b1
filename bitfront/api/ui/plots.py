"""The numbers that the plots of a study draw, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitfront.api.ui.growth import growth
from bitfront.api.ui.measurements import Agreement, Measurements
from bitfront.pareto import LATENCY
from bitfront.report.agreement import main_format
from bitfront.store.records import TrialRow
from bitfront.trial import LOSSES, loss_name, loss_of, loss_unit

MAX_POINTS = 3_000
"""Of one series; the newest are drawn."""
_QUANTITIES = ("bytes", "bits_per_weight", "bits")
_AXES = (
    ("bytes", "checkpoint, MB", 1e-6),
    ("bits_per_weight", "stored bits per weight of the searched layers", 1.0),
    ("bits", "code bits per weight of the searched layers", 1.0),
    (LATENCY, "latency, ms", 1e-6),
)


def plotted(measured: Measurements, agreement: Agreement | None) -> dict[str, Any]:
    """Series of the front and of the audit."""
    text, uniforms = measured.text, measured.uniforms
    front = measured.front
    outline = Measurements.outline(front)
    on_text = [row for row in measured.on(text) if row.origin != "uniform"]
    kept = {row.number for row in outline}
    rest = [row for row in on_text if row.number not in kept]
    pale = () if text == "calibration" else measured.on("calibration")
    values = front[0].values if front else {}
    names = [main_format(measured.trial(row), measured.space) for row in uniforms if measured.space]
    timed = all(LATENCY in row.values for row in front) and bool(front)
    axes = [a for a in _AXES if a[0] != LATENCY or timed]
    if measured.study.kv_cache is not None:
        axes[0] = ("bytes", "checkpoint and KV cache, MB", 1e-6)
    return {
        "text": text,
        "loss": LOSSES[loss_name(values)],
        "unit": loss_unit(values),
        "axes": [{"quantity": q, "title": title, "scale": scale} for q, title, scale in axes],
        "budget": {"label": str(measured.study.budget), "limits": _limits(measured)},
        "front": _series(outline),
        "uniform": {**_series(uniforms), "name": names},
        "rest": _series(rest[-MAX_POINTS:]),
        "pale": _series(pale[-MAX_POINTS:]),
        "best": None if measured.best is None else measured.best.number,
        "left_out": max(len(rest) - MAX_POINTS, 0) + max(len(pale) - MAX_POINTS, 0),
        "audit": _audit(agreement),
        "growth": _growth(measured),
    }


def _growth(measured: Measurements) -> dict[str, list[Any]]:
    numbers, volumes = growth(measured.on("calibration"))
    return {"number": numbers, "share": volumes}


def _limits(measured: Measurements) -> dict[str, float]:
    """The budget on each axis where it is one number."""
    limits: dict[str, float] = dict(measured.study.budget.bounds())
    if measured.n_bytes is not None and measured.space is not None:
        space = measured.space
        limits["bytes"] = measured.n_bytes
        if space.kv_cache is None:
            of_layers = measured.n_bytes - space.outside_bytes
            limits["bits_per_weight"] = 8 * of_layers / space.n_weights
    return limits


def _series(rows: Sequence[TrialRow]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        q: [_finite(row.values, q) for row in rows] for q in _QUANTITIES
    }
    for end in ("", "_stderr"):  # the page calls whatever is minimized so
        columns[f"kl{end}"] = [_finite(r.values, f"{loss_name(r.values)}{end}") for r in rows]
    if any(LATENCY in row.values for row in rows):
        columns[LATENCY] = [_finite(row.values, LATENCY) for row in rows]
    columns["number"] = [row.number for row in rows]
    columns["origin"] = [row.origin for row in rows]
    return columns


def _finite(values: Mapping[str, float], quantity: str) -> float | None:
    value = values.get(quantity)
    return value if value is not None and math.isfinite(value) else None


def _audit(agreement: Agreement | None) -> dict[str, Any] | None:
    if agreement is None:
        return None
    pairs = [
        (row, float(predicted))
        for row, predicted in zip(agreement.rows, agreement.predicted, strict=True)
        if predicted > 0 and loss_of(row.values) > 0
    ][-MAX_POINTS:]
    return {
        name: {
            "number": [row.number for row, _ in pairs if (row.origin == "uniform") == is_uniform],
            "predicted": [p for row, p in pairs if (row.origin == "uniform") == is_uniform],
            "kl": [loss_of(r.values) for r, _ in pairs if (r.origin == "uniform") == is_uniform],
        }
        for name, is_uniform in (("uniform", True), ("search", False))
    }
