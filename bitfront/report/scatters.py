"""Scatter plots of a study: the measured front, and prediction against measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from bitfront.pareto import LATENCY, ParetoFront
from bitfront.report.agreement import main_format
from bitfront.report.columns import TIMED, measured_columns
from bitfront.report.data import ReportData
from bitfront.trial import LOSSES, Trial, loss_name, loss_unit

# Blue, vermillion, bluish green of Okabe and Ito's palette, which colour-blind readers tell apart;
# lightened a little to stand on dark pages too. Shapes differ as well.
_FRONT, _UNIFORM, _CHOSEN, _OTHER = "#2a8fd0", "#e0701a", "#12a583", "#8c8c8c"
_FAST, _MIDDLING, _SLOW = "#2a8fd0", "#a9a9a9", "#e0701a"
"""Of a step, alike in lightness, so that all of them stand on both kinds of page."""


def front_figure(data: ReportData) -> go.Figure:
    """Measured KL (log axis) against megabytes: the front, the uniform baseline, the rest."""
    front = ParetoFront(data.front.trials, (data.front.loss, "bytes")).trials
    timed = [t for t in data.front.trials if t not in front] if data.is_timed else []
    shown = {*(t.number for t in front), *(t.number for t in timed)}
    rest = [t for t in data.measured if t.number not in shown and t.origin != "uniform"]
    figure = go.Figure()
    if rest:
        name = f"dominated in {LOSSES[data.front.loss]} and bytes"
        figure.add_trace(_trials(name, rest, "markers", _OTHER, "circle-open"))
    figure.add_trace(_trials("front", front, "lines+markers", _FRONT, "circle"))
    if timed:
        faster = _trials("on the front for its latency", timed, "markers", _FRONT, "diamond")
        figure.add_trace(faster)
    names = [escape(main_format(t, data.space)) for t in data.uniforms]
    uniform = _trials("uniform", data.uniforms, "lines+markers+text", _UNIFORM, "square")
    # The front falls, so there is room above it, and below it at its right end.
    places = [*["top right"] * (len(names) - 1), "bottom left"][-len(names) :]
    uniform.update(text=names, textposition=places, line_dash="dash")
    figure.add_trace(uniform)
    chosen = _trials("chosen", [data.chosen], "markers", _CHOSEN, "star")
    figure.add_trace(chosen.update(marker_size=16))
    if data.byte_limit is not None:
        line = {"dash": "dot", "color": _OTHER, "width": 1.5}
        figure.add_vline(
            data.byte_limit / 1e6,
            line=line,
            annotation_text=escape(f" budget {data.budget}"),
            annotation_position="bottom right",
        )
    if data.is_timed:
        _colour_by_latency(figure)
    if data.space.kv_cache is None:
        _add_weight_axis(figure, data)
    figure.update_yaxes(title_text=_title(data), type="log", dtick="D2", minor_showgrid=False)
    size = "checkpoint" if data.space.kv_cache is None else "checkpoint and KV cache"
    return _with_layout(figure.update_xaxes(title_text=f"{size}, MB", selector=0), 460)


def _title(data: ReportData) -> str:
    unit = loss_unit(data.chosen.values)
    return ", ".join(filter(None, (LOSSES[data.front.loss], unit)))


def _trials(name: str, trials: Sequence[Trial], mode: str, colour: str, symbol: str) -> go.Scatter:
    kl = [t.loss for t in trials]
    errors = [t.values.get(f"{loss_name(t.values)}_stderr", 0.0) for t in trials]
    # A bar down to zero or below has no place on a logarithmic axis.
    down = [max(min(e, 0.9 * k), 0.0) for e, k in zip(errors, kl, strict=True)]
    return go.Scatter(
        name=name,
        x=[t.values["bytes"] / 1e6 for t in trials],
        y=kl,
        error_y={"array": errors, "arrayminus": down, "thickness": 1.2, "width": 3},
        mode=mode,
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "symbol": symbol, "size": 8},
        meta=[t.values[LATENCY] / 1e6 if LATENCY in t.values else None for t in trials],
        customdata=[_description(t) for t in trials],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _colour_by_latency(figure: go.Figure) -> None:
    """Markers in the colour of their predicted step, with a scale at the right."""
    bar = {"title": {"text": "ms per step"}, "thickness": 12, "outlinewidth": 0}
    scale = [[0.0, _FAST], [0.5, _MIDDLING], [1.0, _SLOW]]
    figure.update_layout(coloraxis={"colorscale": scale, "colorbar": bar})
    for trace in tuple(figure.data):
        if not len(trace.meta) or None in trace.meta:
            continue
        # The legend shows many colours as black, which is none on a dark page.
        shown = go.Scatter(x=[None], y=[None], name=trace.name, mode=trace.mode, line=trace.line)
        shown.update(marker=trace.marker, marker_color=_OTHER, legendgroup=trace.name)
        figure.add_trace(shown)
        trace.update(showlegend=False, legendgroup=trace.name)
        trace.update(marker={"color": trace.meta, "coloraxis": "coloraxis"})


def _description(trial: Trial) -> str:
    usual = measured_columns(trial.values)
    columns = (*usual, *TIMED) if LATENCY in trial.values else usual
    lines = (f"{column.title}: {column.text(trial)}" for column in columns)
    return "<br>".join(escape(line) for line in lines)


def _add_weight_axis(figure: go.Figure, data: ReportData) -> None:
    """A second axis on top: bytes and bits per weight of the searched layers differ by a line."""
    sizes = [t.values["bytes"] for t in (*data.measured, *data.front.trials)]
    bits = [_bits_per_weight(data, size) for size in (min(sizes), max(sizes))]
    step = next((s for s in (0.25, 0.5, 1, 2) if (bits[1] - bits[0]) / s <= 8), 4)
    first, last = math.ceil(bits[0] / step), math.floor(bits[1] / step)
    ticks = [step * i for i in range(first, last + 1)]
    megabytes = [(data.space.outside_bytes + t * data.space.n_weights / 8) / 1e6 for t in ticks]
    figure.add_trace(
        go.Scatter(
            x=[s / 1e6 for s in sizes],
            y=[t.loss for t in (*data.measured, *data.front.trials)],
            xaxis="x2",
            mode="markers",
            marker_opacity=0,
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.update_layout(
        xaxis2={
            "overlaying": "x",
            "matches": "x",
            "side": "top",
            "title_text": "bits per weight of the searched layers",
            "tickvals": megabytes,
            "ticktext": [f"{t:g}" for t in ticks],
            "showgrid": False,
        }
    )


def _bits_per_weight(data: ReportData, n_bytes: float) -> float:
    return 8 * (n_bytes - data.space.outside_bytes) / data.space.n_weights


def prediction_figure(data: ReportData) -> go.Figure | None:
    """Measured KL against the sum of the loss table, log axes; `None` without positive pairs."""
    figure = go.Figure()
    for name, colour, symbol in (("uniform", _UNIFORM, "square"), ("search", _FRONT, "circle")):
        pairs = [
            (t, p)
            for t, p in data.predictions
            if (t.origin == "uniform") == (name == "uniform") and p > 0 and t.loss > 0
        ]
        if pairs:
            trace = _trials(name, [t for t, _ in pairs], "markers", colour, symbol)
            figure.add_trace(trace.update(x=[p for _, p in pairs]))
    if not figure.data:
        return None
    figure.update_xaxes(title_text="predicted: sum of the loss table", type="log", dtick="D2")
    figure.update_yaxes(title_text=f"measured {_title(data)}", type="log", dtick="D2")
    return _with_layout(figure, 400)


def _with_layout(figure: go.Figure, height: int) -> go.Figure:
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True}
    figure.update_xaxes(**grid, ticks="outside").update_yaxes(**grid, ticks="outside")
    return figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 16, "t": 24, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.17, "x": 0},
        hovermode="closest",
    )
