"""Tables of the docs, out of the rows that benchmarks wrote.

    python benchmarks/tables.py

In a page each follows a comment that says what it shows, and is written anew:

    <!-- table: estimators --model smollm2-135m -->
    <!-- table: searches --model stories15m --budget 3.0bits -->
    <!-- table: fronts --model stories15m -->
    <!-- table: formats -->
    <!-- table: proposals -->

Of rows that measured the same thing the last counts. Numbers are means over seeds; what stands in
brackets is the smallest and the largest of them.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from statistics import mean

from record import FOLDER

Row = dict[str, str]
Points = Mapping[str, tuple[float, float]]
PAGE = FOLDER.parents[1] / "docs" / "measurements.md"
TABLE = re.compile(r"(<!-- table: (.+) -->)\n(?:\|.*\n)*")
RANGES = ("tau_2_to_3", "tau_3_to_4", "tau_4_to_6")
FORMATS_OF = {"stories15m": "stories15M", "smollm2-135m": "SmolLM2", "all-mpnet-base-v2": "MPNet"}
PLAIN = {"rtn": "rtn", "gptq": "gptq"}
ENCODED = {"rtn": "rtn", "gptq": "gptq:relative=false", "gptq:relative=True": "gptq"}
"""What rows call the quantizers of an encoder, and what a study calls them."""
EXACT = "stories15m"
"""Whose bits per weight the table shows, where it has the format."""
FLATTERED = {"SmolLM2": ("int4_g32", "int4_g32_cols")}
"""Formats that a model's weights come from: no part of a mix."""
ALLOCATIONS = ("autoscheme", "modelopt", "fisher solved", "fisher_directional solved", "bitfront")


def main() -> None:
    """Write the tables of the page."""
    PAGE.write_text(filled(PAGE.read_text()))


def filled(page: str) -> str:
    """A page with its tables as the rows have them now."""
    return TABLE.sub(lambda found: f"{found[1]}\n{table(found[2].split())}", page)


def table(arguments: list[str]) -> str:
    """One table in Markdown."""
    made = argparse.ArgumentParser()
    made.add_argument("table", choices=TABLES)
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--budget", default="3.0bits", help="of searches")
    made.add_argument("--objectives", default="kl+bytes", help="that volumes of searches are over")
    made.add_argument("--n-tokens", default="2048", help="that searches measure on")
    made.add_argument("--since", default="", help="day from which rows of searches count")
    made.add_argument("--n-judged", default="1024", help="tokens that estimators are judged on")
    made.add_argument("--n-sequences", default="8", help="that estimators read")
    made.add_argument(
        "--n-search", default="8", help="sequences that searches of fronts measure on"
    )
    asked = made.parse_args(arguments)
    lines = list(TABLES[asked.table](asked))
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def estimators(asked: argparse.Namespace) -> Iterator[list[str]]:
    """Tau of each estimator, the best first; seconds, on the usual machine, and MB, the least."""
    found = {
        (row["estimator"], row["seed"]): row
        for row in rows("estimators", model=asked.model, n_judged_tokens=asked.n_judged)
        if row["n_sequences"] == asked.n_sequences and row["n_allocations"] == "60"
    }
    machine = Counter(row["machine"] for row in found.values()).most_common(1)[0][0]
    yield ["estimator", "seeds", "tau", "2 to 3 bits", "3 to 4", "4 to 6", "seconds", "MB"]
    by_name = grouped(found)
    for name in sorted(by_name, key=lambda n: -mean(floats(by_name[n], "tau"))):
        mine = by_name[name]
        taus = [f"{mean(floats(mine, column)):.3f}" for column in RANGES]
        usual = [row for row in mine if row["machine"] == machine]
        seconds = f"{min(floats(usual or mine, 'seconds')):.3g}{'' if usual else ' *'}"
        megabytes = f"{min(floats(mine, 'peak_mb')):.0f}"
        yield [f"`{name}`", str(len(mine)), spread(floats(mine, "tau")), *taus, seconds, megabytes]


def searches(asked: argparse.Namespace) -> Iterator[list[str]]:
    """Hypervolume and smallest KL of each search over those of `sweep`, by measurements."""
    made = [
        row
        for row in rows("searches", model=asked.model, budget=asked.budget, n_tokens=asked.n_tokens)
        if row["objectives"] == asked.objectives and asked.since <= row["date"]
    ]
    # Shares of volume are of the largest in one run: what ran beside `sweep` is compared to it.
    sweeps = {
        (row["command"], row["seed"], int(row["n_trials"])): row
        for row in made
        if row["search"] == "sweep"
    }
    ran = {key[:2] for key in sweeps}
    found = {
        (row["search"], row["seed"], int(row["n_trials"])): row
        for row in made
        if (row["command"], row["seed"]) in ran
    }
    steps = sorted({n for _, _, n in found if (n & (n - 1)) == 0 and n <= 256})
    yield ["search", "seeds", *(f"KL at {n}" for n in steps), *(f"volume at {n}" for n in steps)]
    for name in dict.fromkeys(name for name, _, _ in found):
        line = []
        for column in ("best_kl", "hypervolume_share"):
            for step in steps:
                at = [row for (other, _, n), row in found.items() if (other, n) == (name, step)]
                ratios = [float(row[column]) / float(beside(sweeps, row)[column]) for row in at]
                line.append(spread(ratios) if ratios else "")
        yield [f"`{name}`", str(len({s for other, s, _ in found if other == name})), *line]


def beside(sweeps: dict[tuple[str, str, int], Row], row: Row) -> Row:
    """The last row of `sweep` in the same run within as many measurements."""
    steps = [n for command, seed, n in sweeps if (command, seed) == (row["command"], row["seed"])]
    last = max(n for n in steps if n <= int(row["n_trials"]))
    return sweeps[row["command"], row["seed"], last]


def fronts(asked: argparse.Namespace) -> Iterator[list[str]]:
    """KL by quantizer and budget, and how far below the better peer and `fisher` ours is."""
    found = {
        ((row["quantizer"], row["budget_bits"]), row["seed"], row["allocation"]): row
        for row in rows("fronts", model=asked.model)
        if row["allocation"] in ALLOCATIONS and f"--n-search {asked.n_search} " in row["command"]
    }
    yield [
        *("quantizer", "code bits", "seeds", "uniform", *ALLOCATIONS),
        *("below the better peer", "below fisher"),
    ]
    for quantizer, budget in sorted({key for key, _, _ in found}):
        mine = {
            (s, a): float(r["kl"]) for (k, s, a), r in found.items() if k == (quantizer, budget)
        }
        seeds = [s for s, a in mine if a == "bitfront"]
        if not seeds:
            continue
        ours = [found[(quantizer, budget), s, "bitfront"] for s in seeds]
        means = [mean([float(r["kl"]) / float(r["over_uniform"]) for r in ours])]
        means += [mean([mine[s, name] for s in seeds]) for name in ALLOCATIONS]
        peers = [1 - mine[s, "bitfront"] / min(mine[s, p] for p in ALLOCATIONS[:2]) for s in seeds]
        plain = [1 - mine[s, "bitfront"] / mine[s, "fisher solved"] for s in seeds]
        values = [f"{value:.4f}" for value in means]
        yield [quantizer, budget, str(len(seeds)), *values, percent(peers), percent(plain)]


def formats(_asked: argparse.Namespace) -> Iterator[list[str]]:
    """Loss of every format on each model by some quantizers, and over that of mixes of others.

    Of each model on the texts that most of its rows have.
    """
    counted = Counter((row["model"], *texts(row)) for row in rows("formats"))
    most = {m: max((n, t) for (m2, *t), n in counted.items() if m2 == m)[1] for m in FORMATS_OF}
    measured = [row for row in rows("formats") if texts(row) == most.get(row["model"])]
    bits = {row["format"]: float(row["bits_per_weight"]) for row in reversed(measured)}
    bits |= {r["format"]: float(r["bits_per_weight"]) for r in measured if r["model"] == EXACT}
    columns: dict[str, Points] = {}
    apart: dict[str, Collection[str]] = {}
    for model, name in FORMATS_OF.items():
        for quantizer, title in ENCODED.items() if name == "MPNet" else PLAIN.items():
            column = f"{name}, `{title}`"
            columns[column] = {
                r["format"]: (float(r["bits_per_weight"]), float(r["kl"] or r["cosine_error"]))
                for r in measured
                if (r["model"], r["quantizer"]) == (model, quantizer)
            }
            apart[column] = FLATTERED.get(name, ())
    yield ["bits per weight", "format", *columns]
    for name in sorted(bits, key=lambda f: (bits[f], f)):
        cells = (compared(name, columns[x], apart[x]) for x in columns)
        yield [f"{bits[name]:.2f}", f"`{name}`", *cells]


def compared(name: str, points: Points, apart: Collection[str]) -> str:
    """The loss of a format; in brackets over that of the best mix of two others at equal bits.

    In bold where no mix loses less; nothing in brackets where none has so few or so many bits.

    Args:
        name: of the format.
        points: exact bits per weight and loss of each; of a mix, which has one format in some
            layers and another in the rest, both are taken to lie on the line between the two.
        apart: formats that are no part of a mix.
    """
    if name not in points:
        return ""
    bits, loss = points[name]
    others = [point for f, point in points.items() if f not in (name, *apart)]
    mixes = [
        low[1] + (high[1] - low[1]) * ((bits - low[0]) / (high[0] - low[0]) if high > low else 0)
        for low, high in product(others, others)
        if low[0] <= bits <= high[0] and (low[0] < high[0] or low == high)
    ]
    if not mixes:
        return f"{loss:.3g}"
    ratio = loss / min(mixes)
    return f"**{loss:.3g} ({ratio:.2f})**" if ratio <= 1 else f"{loss:.3g} ({ratio:.2f})"


def texts(row: Row) -> list[str]:
    """How many tokens a row was judged and calibrated on."""
    return [row["n_tokens"], row["n_calibration"]]


def proposals(_asked: argparse.Namespace) -> Iterator[list[str]]:
    """Processor seconds of the first proposal of a resumed search, and of the next."""
    found = {(row["search"], int(row["n_layers"])): row for row in rows("proposals")}
    sizes = sorted({n for _, n in found})
    yield ["search", *(f"{n:,} layers" for n in sizes)]
    for name in sorted({name for name, _ in found}):
        mine = [found.get((name, n)) for n in sizes]
        cells = [f"{r['first_seconds']} / {r['seconds']}" if r else "" for r in mine]
        yield [f"`{name}`", *cells]


def rows(name: str, **wanted: str) -> list[Row]:
    """Rows of a results file with these values."""
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return [r for r in csv.DictReader(file) if all(r[k] == v for k, v in wanted.items())]


def grouped(found: dict[tuple[str, str], Row]) -> dict[str, list[Row]]:
    """Rows of all seeds by name."""
    names = dict.fromkeys(name for name, _ in found)
    return {name: [row for (n, _), row in found.items() if n == name] for name in names}


def floats(found: Iterable[Row], column: str) -> list[float]:
    """One column."""
    return [float(row[column]) for row in found]


def spread(values: list[float]) -> str:
    """Mean and, of several, extremes."""
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.3f}{ends}"


def percent(values: list[float]) -> str:
    """Mean and, of several, extremes in per cent."""
    low, high = (f"{round(100 * v)}" for v in (min(values), max(values)))
    ends = f" ({low} to {high})" if len(values) > 1 else ""
    return f"{round(100 * mean(values))} %{ends}"


TABLES: dict[str, Callable[[argparse.Namespace], Iterator[list[str]]]] = {
    "estimators": estimators,
    "searches": searches,
    "fronts": fronts,
    "formats": formats,
    "proposals": proposals,
}

if __name__ == "__main__":
    main()
