"""The claims: one line per plug-in, in one place; `test_cases.py` fails when a file has no line."""

FORMATS: dict[str, object] = {}

QUANTIZERS: dict[str, object] = {}

SOLVERS: dict[str, object] = {}

ESTIMATORS: dict[str, object] = {}

SEARCHES: dict[str, object] = {}

METRICS: dict[str, object] = {}

EXPORTERS: dict[str, object] = {}
