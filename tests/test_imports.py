"""Who may import whom, what may not load torch, how large files may be, what names may not say."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import bitfront

ROOT = Path(bitfront.__file__).parent
# Migrations are written by alembic and run by it.
FILES = [path for path in sorted(ROOT.rglob("*.py")) if "migrations" not in path.parts]

# Imports point from a row to the rows below it, never sideways but among the nouns.
NOUNS = {
    "allocation", "answers", "budget", "experts", "items", "kv_cache", "pareto", "problem",
    "second",
    "space", "study", "table",
    "timings",
    "trial",
}  # fmt: skip
ROWS = (
    {"__init__"},
    {"cli"},
    {"dashboard"},
    {"api", "workers", "client", "mirror"},
    {"relay", "collection", "exam"},
    {"compare", "profile", "proof"},
    {"display", "report"},
    {"run", "sharing"},
    {"searching"},
    {"proposing"},
    {"estimates", "job", "pairs", "requantizing", "screening"},
    {"banks", "references"},
    {"inputs"},
    {"pricing"},
    {"manifest"},
    {"measurement", "results", "store", "harness", "places"},
    {"search", "sensitivity", "costs", "evaluation", "export"},
    {"solvers", "models"},
    {"quantizers", "progress"},
    {"kernels"},
    NOUNS,
    {"runtimes"},
    {"formats"},
    {"artifacts", "broker"},
    {
        "packing",
        "plugins",
        "files",
        "loading",
        "settings",
        "logs",
        "traces",
        "processes",
        "environment",
        "notes",
        "pictures",
        "repeated",
        "seeing",
        "signatures",
    },
    {"errors", "version"},
)
LEVEL = {unit: level for level, row in enumerate(ROWS) for unit in row}
KINDS = {
    "search", "solvers", "sensitivity", "costs", "evaluation", "export", "quantizers",
}  # fmt: skip
# Downward all the same, but the numpy side and the torch side do not meet below `run`.
NEVER = {("search", "models"), ("search", "quantizers")} | {
    (torch_side, "solvers") for torch_side in ("sensitivity", "costs", "evaluation", "export")
}
# `measurement` is the one module below `run` that uses a kind: it runs the metrics.
JOINS = {
    "__init__",
    "cli",
    "compare",
    "estimates",
    "run",
    "inputs",
    "pricing",
    "sharing",
    "api",
    "workers",
}
HEAVY = {
    "cryptography": {"api/signing.py", "signatures.py"},
    "ortools": {f"solvers/{name}.py" for name in ("_programs", "cp_sat", "quadratic")},
    "optuna": {
        f"search/{name}.py"
        for name in ("_genes", "_optuna", "cmaes", "gp", "nsga2", "nsga3", "tpe")
    }
    | {f"mirror/{name}.py" for name in ("__init__", "copied", "plots", "storage", "trials")}
    | {"dashboard/served.py"},
    "optuna_dashboard": {"dashboard/served.py", "mirror/plots.py"},
    "sklearn": {"search/_predictors.py"},
    "lm_eval": {"harness.py"},
    "vllm": {"runtimes/vllm.py"},
    "xllamacpp": {"runtimes/llama_cpp.py"},
    "triton": {
        f"kernels/{name}.py"
        for name in (
            "_assembly",
            "_codes",
            "_decode",
            "_gemm",
            "_gemv",
            "_launch",
            "fake_quantize",
            "kl_divergence",
        )
    },
}
TORCH_FREE = (
    "formats", "solvers", "search", "costs", "store", "api", "client", "artifacts", "mirror",
    "dashboard", "runtimes",
)  # fmt: skip

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
BANNED = re.compile(
    r"manager|factory|handler|helper|util|service|processor|wrapper|facade|engine|context|common|misc",
    re.IGNORECASE,
)


def unit_of(module):
    """First part of a module's name below `bitfront`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("bitfront", *(part for part in parts if part != "__init__")))


@cache
def imported(path):
    """Modules that a file imports, at its top or inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            whole = node.module == "bitfront"
            found += [f"bitfront.{a.name}" for a in node.names] if whole else [node.module]
    return found


def edges():
    return {
        (unit_of(module_of(path)), unit_of(module), path.relative_to(ROOT).as_posix())
        for path in FILES
        for module in imported(path)
        if module.split(".")[0] == "bitfront"
    }


def test_every_unit_has_a_row():
    assert {unit_of(module_of(path)) for path in FILES} <= set(LEVEL)


def test_imports_point_down():
    offenders = [
        f"{path}: {source} -> {target}"
        for source, target, path in sorted(edges())
        if source != target
        and not {source, target} <= NOUNS
        and (LEVEL[source] >= LEVEL[target] or (source, target) in NEVER)
    ]
    assert not offenders


def test_only_the_top_puts_kinds_together():
    for path in FILES:
        unit = unit_of(module_of(path))
        used = {unit_of(module) for module in imported(path) if module.startswith("bitfront.")}
        if unit not in JOINS:
            assert len((used & KINDS) - {unit}) <= 1, f"{path} uses {sorted(used & KINDS)}"


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_are_imported_where_agreed(library):
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(module.split(".")[0] == library for module in imported(path))
    }
    assert users == HEAVY[library]


def test_nouns_formats_solvers_searches_and_fetching_load_no_torch():
    modules = [
        "bitfront.models.hub",
        *(
            module_of(path)
            for path in FILES
            if unit_of(module_of(path))
            in NOUNS | set(TORCH_FREE) | {"plugins", "errors", "packing", "settings", "broker"}
        ),
    ]
    assert len(modules) > 30
    code = (
        f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
        "loaded = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def functions(tree):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize("folder", [ROOT, Path(__file__).parent], ids=["bitfront", "tests"])
def test_files_and_functions_are_small(folder):
    offenders = []
    for path in sorted(folder.rglob("*.py")):
        if "migrations" in path.parts:
            continue
        text = path.read_text()
        if (n_lines := text.count("\n")) > MAX_FILE_LINES:
            offenders.append(f"{path}: {n_lines} lines, at most {MAX_FILE_LINES}")
        for node in functions(ast.parse(text)):
            # the signature does not count: the options of a command are data
            n_lines = (node.end_lineno or 0) - node.body[0].lineno + 1
            if n_lines > MAX_FUNCTION_LINES:
                offenders.append(f"{path}:{node.lineno} {node.name}: {n_lines} lines")
    assert not offenders, "\n".join(offenders)


def test_names_say_what_things_are():
    offenders = [str(path) for path in FILES if BANNED.search(path.stem)]
    for path in FILES:
        offenders += [
            f"{path}:{node.lineno} {node.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and BANNED.search(node.name)
        ]
    assert not offenders
