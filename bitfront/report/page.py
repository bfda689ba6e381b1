"""One self-contained HTML page for a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from bitfront.files import replacing
from bitfront.pareto import LATENCY
from bitfront.report.agreement import main_format, tau, uniform_at
from bitfront.report.columns import columns_of, mix
from bitfront.report.data import ReportData
from bitfront.report.maps import (
    bit_map_figure,
    bit_views,
    cell_names,
    sensitivity_figure,
    sensitivity_views,
    swatches,
)
from bitfront.report.scatters import front_figure, prediction_figure
from bitfront.trial import LOSSES, Trial, loss_unit
from bitfront.version import __version__


def write_report(path: Path, data: ReportData) -> None:
    """Write the page: front, bit map, sensitivities, predictions, table, provenance.

    The file needs no network and says so to the browser; plotly.js is inlined (4.8 MB).

    Raises:
        StorageError: the file could not be written.
    """
    page = html(data)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def html(data: ReportData) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("bitfront", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        data=data,
        version=__version__,
        plotly=Markup(get_plotlyjs()),
        headline=headline(data),
        front=_division("front", front_figure(data)),
        bit_map=_division("bit-map", bit_map_figure(data)),
        sensitivity=_division("sensitivity", sensitivity_figure(data)),
        prediction=_division("prediction", prediction_figure(data)),
        swatches=swatches(data.space.formats),
        maps=_maps(data),
        taus=_taus(data),
        columns=columns_of(data.front.trials),
        mix=mix,
        against_uniform=lambda trial: against_uniform(data, trial),
        n_blocks=len(data.grid.blocks),
        checked_step=checked_step,
    )


def _division(name: str, figure: go.Figure | None) -> Markup | None:
    """The figure as a `div`; plotly escapes `<` in the JSON it writes."""
    if figure is None:
        return None
    config = {"responsive": True, "displayModeBar": False}
    return Markup(
        to_html(figure, config=config, include_plotlyjs=False, full_html=False, div_id=name)
    )


def _maps(data: ReportData) -> dict[str, object]:
    """What the selectors of the two maps switch between."""
    views = {"bit-map": bit_views(data), "sensitivity": sensitivity_views(data)}
    return {
        "names": cell_names(data),
        "views": {name: [asdict(view) for view in group] for name, group in views.items()},
    }


def headline(data: ReportData) -> str:
    """The chosen point against uniform at equal bytes, in one sentence."""
    values = data.chosen.values
    title = LOSSES[data.chosen.loss_name]
    unit = f" {loss_unit(values)}".rstrip()
    start = (
        f"Within {data.budget}, the best measured allocation has {title} {data.chosen.loss:.4g}"
        f"{_error(data.chosen)}{unit} at {values['bytes'] / 1e6:.2f} MB "
        f"({values['bits_per_weight']:.3f} bits per weight{_step(data.chosen)})"
    )
    baseline = uniform_at(data.uniforms, values["bytes"])
    if data.chosen.origin == "uniform":
        return f"{start}: it is uniform {main_format(data.chosen, data.space)} itself."
    if baseline is None:
        return f"{start}; no uniform baselines were measured on both sides of this size."
    names = [main_format(t, data.space) for t in (baseline.below, baseline.above)]
    between = (
        f"interpolated geometrically between {names[0]} and {names[1]}"
        if baseline.below != baseline.above
        else names[0]
    )
    return (
        f"{start}, {_comparison(data.chosen.loss, baseline.kl)} uniform quantization at equal "
        f"bytes ({title} {baseline.kl:.4g}, {between})."
    )


def _step(trial: Trial) -> str:
    known = LATENCY in trial.values
    return f", {trial.values[LATENCY] / 1e6:.3g} ms a decoding step" if known else ""


def checked_step(row: Mapping[str, object]) -> str:
    """One prediction of latency held against a measurement, in a sentence."""
    predicted, measured, spread, error = (
        float(str(row[name])) for name in ("predicted_ns", "measured_ns", "spread_ns", "error")
    )
    return (
        f"Trial {row['number']} at batch {row['batch']}, context {row['context']}: predicted "
        f"{predicted / 1e6:.3f} ms, measured {measured / 1e6:.3f} ms (spread {spread / 1e6:.3f} ms)"
        f" on {row['device']}, {row['dtype']}: error {error:+.1%}."
    )


def _error(trial: Trial) -> str:
    name = f"{trial.loss_name}_stderr"
    return f" ± {trial.values[name]:.2g}" if name in trial.values else ""


def _comparison(kl: float, baseline: float) -> str:
    change = kl / baseline - 1
    return f"{abs(change):.1%} {'below' if change <= 0 else 'above'}"


def against_uniform(data: ReportData, trial: Trial) -> str:
    """KL relative to uniform at equal bytes, such as `"−24.1%"`; a dash without a baseline."""
    if trial.origin == "uniform":
        return "uniform"
    baseline = uniform_at(data.uniforms, trial.values["bytes"])
    if baseline is None:
        return "–"
    return f"{trial.loss / baseline.kl - 1:+.1%}".replace("-", "−")


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of prediction and measurement over some trials."""

    what: str
    n_trials: int
    tau: float | None


def _taus(data: ReportData) -> tuple[Agreement, ...]:
    """Over all calibration trials, and without the baselines, whose wide spread flatters tau."""
    searched = [(t, p) for t, p in data.predictions if t.origin != "uniform"]
    return tuple(
        Agreement(what, len(pairs), tau([p for _, p in pairs], [t.loss for t, _ in pairs]))
        for what, pairs in (("all", data.predictions), ("without uniform", searched))
    )
