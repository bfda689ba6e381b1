"""How fast are products with packed weights, against the device's limits and against the peers?

    python benchmarks/gpu_kernels.py            everything, on the GPU at hand; an H200 is meant
    python benchmarks/gpu_kernels.py --plan     cases, bytes and what is there; needs no GPU
    python benchmarks/gpu_kernels.py --parts stack --methods bitfront,cublas

The ceiling is measured first: reading, multiplying, an empty kernel. A case is a CUDA graph of 20
launches or more over weight sets that do not fit the L2 cache together; methods replay in turn, 30
times, and the whole is done twice (`round`). In the first round every product is also launched from
Python, without a graph (note `eager`). Weights and inputs are fresh random numbers. A method whose
product is further from float32 than rounding the weight explains is not timed: its row says
`wrong`. What fails leaves a row that says how, and the rest goes on. `of_roofline` is the least
time for the bytes that the method itself stores, at the measured ceiling, over the time it took;
`over_bf16` is how many times faster than cuBLAS it was.

Parts: `products` (one weight), `segments` (q+k+v and gate+up with a width for each part: ours in
one launch and in one for each part, and every method in the uniform widths), `stack` (all linear
layers of Llama-3-8B in one graph at 3, 4 and 8 bits, ours also at a searched mix of 3.25). Appends
to `benchmarks/results/kernels.csv` as it goes. `--table FILE` keeps the times of our products as
`bitfront profile` does, written after each, and at the end says how well they predict shapes that
are left out (`latencies.py`). `--tune` first tries some seventy launches of each of our products
and saves the fastest for this device: minutes for each, so name few shapes, formats and batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import latencies
import torch
from multipliers import METHODS, Bitfront, Built, Cublas, Multiplier
from products import BATCHES, FORMATS, MIXES, SHAPE, Ceiling, Shape, Stack, stored_bytes
from record import Record
from replays import Graph, Launches, Times, ceiling, clock, interleaved

from bitfront.kernels.replays import Call, n_sets

PARTS = ("products", "segments", "stack")
STACKS = (16, 3, 4, 8, None)
APART = "one launch for each part"
N_EAGER = 10
COLUMNS = (
    *("gpu", "sm_mhz", "read_tb_per_second", "bf16_tflops", "launch_us", "round", "part"),
    *("shape", "batch", "formats", "method", "version", "n_bytes", "n_sets", "microseconds"),
    *("p10", "p90", "gb_per_second", "of_roofline", "over_bf16", "error", "note"),
)
TOLERANCE = {"int2": 0.8, "int3": 0.4, "int4": 0.2, "nf4": 0.15, "mxfp4": 0.2}
"""Relative error of a product that rounding Gaussian weights explains; other formats 0.1."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Measure the parts that were asked for."""
    arguments = parse()
    methods = [method for method in METHODS if method.name in arguments.methods]
    if arguments.plan:
        plan(arguments, methods)
        return
    record = Record("kernels", COLUMNS)
    there = [method for method in methods if method.is_there()]
    run = Run(record, ceiling(), clock(), there, arguments.tune, arguments.table)
    for number in range(1, arguments.n_rounds + 1):
        if "products" in arguments.parts:
            for name in arguments.shapes:
                run.products(number, SHAPE[name], arguments.formats, arguments.batches)
        if "segments" in arguments.parts:
            for name, widths in MIXES:
                run.segments(number, SHAPE[name], widths, arguments.batches)
        if "stack" in arguments.parts:
            run.stacks(number)
    if arguments.table and run.seconds:
        latencies.judge(arguments.table)


def parse() -> argparse.Namespace:
    """Command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = {"parts": PARTS, "shapes": SHAPE, "formats": FORMATS}
    for name, words in {**known, "methods": [method.name for method in METHODS]}.items():
        made.add_argument(f"--{name}", type=some(tuple(words)), default=tuple(words))
    made.add_argument(
        "--batches", type=lambda text: tuple(map(int, text.split(","))), default=BATCHES
    )
    made.add_argument("--n-rounds", type=int, default=2)
    made.add_argument("--table", type=Path, help="file of latencies to write")
    made.add_argument("--tune", action="store_true", help="find the best launches first")
    made.add_argument("--plan", action="store_true", help="show what would run")
    return made.parse_args()


def some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads some of the known words, separated by commas."""

    def words(text: str) -> tuple[str, ...]:
        unknown = sorted(set(text.split(",")) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return tuple(text.split(","))

    return words


def plan(arguments: argparse.Namespace, methods: Sequence[Multiplier]) -> None:
    """Print which methods can run here, and the weights with their bytes."""
    for method in methods:
        print(method.name, method.version if method.is_there() else f"(no {method.module})")
    for shape in (SHAPE[name] for name in arguments.shapes):
        for format in arguments.formats:
            n_bytes = stored_bytes(shape, [format] * len(shape.parts))
            takers = " ".join(method.name for method in methods if method.takes(format))
            print(f"{shape.name} {format}: {n_bytes} bytes, {n_sets(n_bytes)} sets, {takers}")
    for stack in map(Stack, STACKS):
        takers = " ".join(method.name for method, each in stack_cases(methods) if each == stack)
        print(f"stack of {stack.average:.3f} bits: {stack.n_bytes} bytes, {takers}")


@dataclass(frozen=True)
class Case:
    """One way to do one product: a method with the formats of the parts, and a word on it."""

    method: Multiplier
    formats: tuple[str, ...]
    note: str = ""

    @property
    def format(self) -> str:
        """Formats of the parts, once if they are all the same."""
        return "+".join(self.formats if len(set(self.formats)) > 1 else self.formats[:1])

    def build(self, weights: Sequence[torch.Tensor]) -> Built:
        """The packed weight, or its parts one by one."""
        if self.note != APART:
            return self.method.build(weights, self.formats)
        parts = zip(weights, self.formats, strict=True)
        return in_turn([self.method.build([weight], [name]) for weight, name in parts])

    def tune(self, built: Built, x: torch.Tensor, rows: Sequence[int]) -> None:
        """Find the best launch of ours, if it is one launch."""
        if isinstance(self.method, Bitfront) and self.note != APART:
            self.method.tune(built, x, rows, self.formats)


@dataclass(frozen=True)
class Run:
    """One run of the script.

    Args:
        record: where rows go.
        ceiling: of the device.
        sm_mhz: clock when the run began.
        methods: those that import.
        tunes: whether our launches are tuned before they are timed.
        table: file of the times of our products; `None` keeps none.
        seconds: of our products in every round, by shape, format and batch.
    """

    record: Record
    ceiling: Ceiling
    sm_mhz: str
    methods: Sequence[Multiplier]
    tunes: bool
    table: Path | None
    seconds: dict[tuple[Shape, str, int], list[float]] = field(default_factory=dict)

    def products(
        self, number: int, shape: Shape, formats: Sequence[str], batches: Sequence[int]
    ) -> None:
        """All methods on all formats of one shape."""
        weights, n_parts = random_weights(shape), len(shape.parts)
        cases = [Case(m, (f,) * n_parts) for f in formats for m in self.methods if m.takes(f)]
        built = self.built(number, "products", shape, cases, weights)
        for batch in batches:
            times = self.measured(number, "products", shape, batch, weights, built)
            for case, found in times.items():
                if isinstance(case.method, Bitfront):
                    key = shape, case.formats[0], batch
                    self.seconds.setdefault(key, []).append(found.median)
            if self.table and self.seconds:
                latencies.save(self.table, self.seconds, DEVICE)

    def segments(
        self, number: int, shape: Shape, widths: Sequence[int], batches: Sequence[int]
    ) -> None:
        """Mixed widths in one launch, in one launch for each part, and uniform widths."""
        weights = random_weights(shape)
        mixed = tuple(f"int{width}_g128_sym" for width in widths)
        uniform = [f"int{width}_g128_sym" for width in sorted(set(widths))] + ["bf16"]
        ours = [method for method in self.methods if isinstance(method, Bitfront)]
        cases = [Case(method, mixed, note) for method in ours for note in ("", APART)]
        cases += [Case(m, (f,) * len(widths)) for f in uniform for m in self.methods if m.takes(f)]
        built = self.built(number, "segments", shape, cases, weights)
        for batch in batches:
            self.measured(number, "segments", shape, batch, weights, built)

    def built(
        self, number: int, part: str, shape: Shape, cases: Sequence[Case],
        weights: Sequence[torch.Tensor],
    ) -> dict[Case, Built]:  # fmt: skip
        """The cases whose weights could be packed; a row for each of the others."""
        made = {}
        for case in cases:
            try:
                made[case] = case.build(weights)
            except Exception as error:  # a peer that fails must not end the run
                self.failed(number, part, shape, case, None, error)
        return made

    def measured(
        self, number: int, part: str, shape: Shape, batch: int,
        weights: Sequence[torch.Tensor], built: Mapping[Case, Built],
    ) -> dict[Case, Times]:  # fmt: skip
        """Times of the cases that are right; one row for each case."""
        graphs: dict[Case, Launches] = {}
        eager: dict[Case, Launches] = {}
        errors = {}
        for case, made in built.items():
            x = torch.randn(batch, shape.n_columns, device=DEVICE, dtype=case.method.dtype)
            try:
                if self.tunes and number == 1 and isinstance(case.method, Bitfront):
                    case.tune(made, x, shape.parts)
                errors[case] = relative_error(made, x, weights)
                if errors[case] > max(map(tolerance, case.formats)):
                    self.row(number, part, shape, case, batch, errors[case], note="wrong")
                    continue
                calls = [call_of(each, x) for each in made.copies(n_sets(made.n_bytes))]
                graph = Graph(calls)
                graph.seconds()
                graphs[case] = graph
                if number == 1 and part == "products":
                    eager[case] = Launches(calls)
            except Exception as error:
                self.failed(number, part, shape, case, batch, error)
        times = interleaved(graphs)
        for note, found in {"": times, "eager": interleaved(eager, N_EAGER)}.items():
            bf16 = next((t for c, t in found.items() if isinstance(c.method, Cublas)), None)
            for case, each in found.items():
                n_bytes = built[case].n_bytes
                self.row(
                    number, part, shape, case, batch, errors[case], note or case.note,
                    **self.figures(each, n_bytes, bf16),
                    of_roofline=round(self.ceiling.floor(shape, n_bytes, batch) / each.median, 4),
                    n_sets=n_sets(n_bytes),
                )  # fmt: skip
        return times

    def stacks(self, number: int) -> None:
        """All linear layers of Llama-3-8B, one token: every method in each width that it has."""
        graphs: dict[tuple[Multiplier, Stack], Launches] = {}
        n_bytes = {}
        for case in stack_cases(self.methods):
            try:
                call, n_bytes[case] = stack_calls(*case)
                graph = Graph([call])
                graph.seconds()
                graphs[case] = graph
            except Exception as error:
                self.stack_row(number, *case, note=told(error, case[0]))
        times = interleaved(graphs)
        bf16 = next((t for (m, _), t in times.items() if isinstance(m, Cublas)), None)
        for (method, stack), found in times.items():
            self.stack_row(
                number, method, stack, **self.figures(found, n_bytes[method, stack], bf16),
                of_roofline=round(stack.floor(self.ceiling) / found.median, 4),
            )  # fmt: skip

    def stack_row(self, number: int, method: Multiplier, stack: Stack, **figures: object) -> None:
        """Add the row of a stack."""
        self.record.add(
            **self.origin(number, "stack"), shape="Llama-3-8B", batch=1, method=method.name,
            formats=f"{stack.average:.2f} bits", version=method.version, **figures,
        )  # fmt: skip

    def figures(self, times: Times, n_bytes: int, bf16: Times | None) -> dict[str, object]:
        """Columns of a time."""
        return {
            "n_bytes": n_bytes,
            "microseconds": micro(times.median),
            "p10": micro(times.low),
            "p90": micro(times.high),
            "gb_per_second": round(n_bytes / times.median / 1e9, 1),
            "over_bf16": round(bf16.median / times.median, 3) if bf16 else "",
        }

    def origin(self, number: int, part: str) -> dict[str, object]:
        """Columns that all rows have."""
        return {
            "gpu": torch.cuda.get_device_name(),
            "sm_mhz": self.sm_mhz,
            "read_tb_per_second": round(self.ceiling.read / 1e12, 3),
            "bf16_tflops": round(self.ceiling.compute / 1e12, 1),
            "launch_us": micro(self.ceiling.launch),
            "round": number,
            "part": part,
        }

    def failed(
        self, number: int, part: str, shape: Shape, case: Case, batch: int | None, error: Exception
    ) -> None:
        """A row that says what went wrong, and a line for who watches."""
        self.row(number, part, shape, case, batch, note=told(error, case.method))

    def row(
        self, number: int, part: str, shape: Shape, case: Case, batch: int | None = None,
        error: float | None = None, note: str = "", **figures: object,
    ) -> None:  # fmt: skip
        """Add one row."""
        self.record.add(
            **self.origin(number, part), shape=shape.name, batch=batch, formats=case.format,
            method=case.method.name, version=case.method.version, error=error, note=note, **figures,
        )  # fmt: skip


def stack_cases(methods: Sequence[Multiplier]) -> list[tuple[Multiplier, Stack]]:
    """Methods with the stacks that they have all formats of; only ours mixes."""
    cases = []
    for stack in map(Stack, STACKS):
        names = {name for _, each in stack.layers() for name in each}
        for method in methods:
            mixes = isinstance(method, Bitfront) or stack.bits is not None
            if mixes and all(map(method.takes, names)):
                cases.append((method, stack))
    return cases


def stack_calls(method: Multiplier, stack: Stack) -> tuple[Call, int]:
    """All products of a stack in order, each with a weight of its own, and their bytes."""
    made, inputs, shapes = [], {}, []
    for shape, names in stack.layers():
        made.append(method.build(random_weights(shape), names))
        x = torch.randn(1, shape.n_columns, device=DEVICE, dtype=method.dtype)
        inputs.setdefault(shape, x)
        shapes.append(shape)

    def call() -> None:
        for built, shape in zip(made, shapes, strict=True):
            built(inputs[shape])

    return call, sum(built.n_bytes for built in made)


def call_of(built: Built, x: torch.Tensor) -> Call:
    """Multiplies with one copy of a weight."""
    return lambda: built(x)


def in_turn(parts: Sequence[Built]) -> Built:
    """One launch after the other, as one."""
    ends = [sum(len(part.state) for part in parts[:n]) for n in range(len(parts) + 1)]

    def apply(state: tuple[torch.Tensor, ...], x: torch.Tensor) -> list[torch.Tensor]:
        spans = zip(parts, ends, ends[1:], strict=False)
        return [part.apply(state[start:stop], x) for part, start, stop in spans]

    return Built(tuple(tensor for part in parts for tensor in part.state), apply)


def random_weights(shape: Shape) -> list[torch.Tensor]:
    """Fresh float32 weights of the parts, `[n_rows, n_columns]`."""
    return [torch.randn(rows, shape.n_columns, device=DEVICE) / 64 for rows in shape.parts]


def relative_error(built: Built, x: torch.Tensor, weights: Sequence[torch.Tensor]) -> float:
    """Distance to the float32 product with the weights as they were, over its norm."""
    outputs = built(x)
    found = outputs if isinstance(outputs, torch.Tensor) else torch.cat(outputs, dim=1)
    expected = torch.cat([x.float() @ weight.T for weight in weights], dim=1)
    return round(float((found.float() - expected).norm() / expected.norm()), 5)


def tolerance(format: str) -> float:
    """Relative error of a product that rounding to a format explains."""
    return TOLERANCE.get(format.partition("_")[0], 0.1)


def micro(seconds: float) -> float:
    """Microseconds to the nanosecond."""
    return round(1e6 * seconds, 3)


def told(error: Exception, method: Multiplier) -> str:
    """Kind and first line of an error, also on the screen.

    Raises:
        SystemExit: the device answers no more, so that everything else would fail too.
    """
    line = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]
    print(f"{method.name}: {line}", file=sys.stderr)
    try:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        others = ",".join(each.name for each in METHODS if each.name != method.name)
        raise SystemExit(
            f"The GPU answers no more after {method.name} ({line}). Rows and table so far are "
            f"written; for the rest run again with --methods {others}."
        ) from error
    return line


if __name__ == "__main__":
    main()
