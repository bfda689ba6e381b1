"""bitfront plugins: every alternative with its parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from bitfront import formats, runtimes
from bitfront.cli.options import AsJson
from bitfront.formats.base import Format
from bitfront.loading import uncollected
from bitfront.plugins import Plugins, parameters, settings, summary
from bitfront.runtimes.base import Runtime


def plugins(as_json: AsJson = False) -> None:
    """List every estimator, solver, search, quantizer, exporter, runtime and format."""
    rows = list(_plugin_rows())
    if as_json:
        print(json.dumps([row.__dict__ for row in rows], indent=1))
        return
    console = Console(highlight=False)
    for kind in dict.fromkeys(row.kind for row in rows):
        console.print(f"\n[bold]{kind}[/bold]")
        for row in (r for r in rows if r.kind == kind):
            params = ", ".join(f"{k}={v}" for k, v in row.parameters.items())
            console.print(f"  {row.name}  [dim]{escape(row.summary)}[/dim]", soft_wrap=True)
            if params:
                console.print(f"      {params}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class PluginRow:
    """One alternative as the listing shows it."""

    kind: str
    name: str
    summary: str
    parameters: dict[str, Any]


def plugin_kinds() -> dict[str, Plugins[Any]]:
    """The folders of alternatives, by what one alternative is called."""
    from bitfront.costs import COSTS
    from bitfront.evaluation import METRICS
    from bitfront.export import EXPORTERS
    from bitfront.quantizers import QUANTIZERS
    from bitfront.search import SEARCHES
    from bitfront.sensitivity import ESTIMATORS
    from bitfront.solvers import SOLVERS

    return {
        "estimator": ESTIMATORS,
        "solver": SOLVERS,
        "search": SEARCHES,
        "quantizer": QUANTIZERS,
        "cost": COSTS,
        "metric": METRICS,
        "exporter": EXPORTERS,
    }


def _plugin_rows() -> list[PluginRow]:
    with uncollected():
        rows = [
            PluginRow(kind, name, summary(folder.load(name)), parameters(folder.load(name)))
            for kind, folder in plugin_kinds().items()
            for name in folder.names()
        ]
    rows += [_runtime_row(runtimes.named(name)) for name in runtimes.names()]
    return rows + [_format_row(format) for format in formats.catalogue().values()]


def _runtime_row(runtime: Runtime) -> PluginRow:
    patterns = ", ".join(pattern for rule in runtime.rules for pattern in rule.names)
    return PluginRow("runtime", runtime.name, f"{runtime.versions}: loads {patterns}.", {})


def _format_row(format: Format) -> PluginRow:
    stored = f"{format.bits_per_weight((4096, 4096)):.4g} bits per weight"
    return PluginRow("format", format.name, f"{stored}. {summary(type(format))}", settings(format))
