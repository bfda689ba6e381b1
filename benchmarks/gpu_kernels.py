"""How fast are products with packed weights, against the device's limits and against the peers?

    python benchmarks/gpu_kernels.py            everything, on the GPU at hand; an H200 is meant
    python benchmarks/gpu_kernels.py --plan     cases, bytes and what is there; needs no GPU
    python benchmarks/gpu_kernels.py --parts stack --methods bitfront,cublas

The ceiling is measured first: reading, multiplying, an empty kernel. A case is a CUDA graph of 20
launches or more over weight sets that do not fit the L2 cache together; methods replay in turn, 30
times, and the whole is done twice (`round`). Weights and inputs are fresh random numbers. A method
whose product is further from float32 than rounding the weight explains is not timed: its row says
`wrong`. `of_roofline` is the least time for the bytes that the method itself stores, at the
measured ceiling, over the time it took; `over_bf16` is how many times faster than cuBLAS it was.

Parts: `products` (one weight), `segments` (q+k+v and gate+up with a width for each part: in one
launch, in one for each part, and in every uniform width), `stack` (all linear layers of Llama-3-8B
in one graph at 3, 4 and 8 bits and a mix that averages 3.25). Appends to
`benchmarks/results/kernels.csv`. `--table FILE` also writes the times of our products as `bitfront
profile` does, and how well they predict shapes that are left out (`latencies.py`). `--tune` first
tries some seventy launches of each of our products and saves the fastest for this device: minutes
for each, so name few shapes, formats and batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import latencies
import torch
from multipliers import METHODS, Bitfront, Built, Cublas, Multiplier
from products import BATCHES, FORMATS, MIXES, SHAPE, Ceiling, Shape, Stack, n_sets, stored_bytes
from record import Record
from replays import Graph, Times, ceiling, clock, interleaved

PARTS = ("products", "segments", "stack")
STACKS = (3, 4, 8, None)
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
    run = Run(record, ceiling(), clock(), there, arguments.tune)
    for number in range(1, arguments.n_rounds + 1):
        if "products" in arguments.parts:
            for name in arguments.shapes:
                run.products(number, SHAPE[name], arguments.formats, arguments.batches)
        if "segments" in arguments.parts:
            for name, widths in MIXES:
                run.segments(number, SHAPE[name], widths, arguments.batches)
        if "stack" in arguments.parts:
            run.stacks(number)
    if arguments.table:
        latencies.write(arguments.table, run.seconds, DEVICE)


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
        print(f"stack of {stack.average:.3f} bits: {stack.n_bytes} bytes")


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


@dataclass(frozen=True)
class Run:
    """One run of the script.

    Args:
        record: where rows go.
        ceiling: of the device.
        sm_mhz: clock when the run began.
        methods: those that import.
        tunes: whether our launches are tuned before they are timed.
        seconds: of our products in every round, by shape, format and batch.
    """

    record: Record
    ceiling: Ceiling
    sm_mhz: str
    methods: Sequence[Multiplier]
    tunes: bool
    seconds: dict[tuple[Shape, str, int], list[float]] = field(default_factory=dict)

    def products(
        self, number: int, shape: Shape, formats: Sequence[str], batches: Sequence[int]
    ) -> None:
        """All methods on all formats of one shape."""
        weights, n_parts = random_weights(shape), len(shape.parts)
        cases = [Case(m, (f,) * n_parts) for f in formats for m in self.methods if m.takes(f)]
        built = {}
        for case in cases:
            try:
                built[case] = case.method.build(weights, case.formats)
            except Exception as error:  # a peer that fails must not end the run
                self.row(number, "products", shape, case, note=first_line(error))
        for batch in batches:
            for case, times in self.measured(
                number, "products", shape, batch, weights, built
            ).items():
                if isinstance(case.method, Bitfront):
                    key = shape, case.formats[0], batch
                    self.seconds.setdefault(key, []).append(times.median)

    def segments(
        self, number: int, shape: Shape, widths: Sequence[int], batches: Sequence[int]
    ) -> None:
        """Mixed widths in one launch, in one launch for each part, and uniform widths."""
        ours, weights = Bitfront(), random_weights(shape)
        mixed = tuple(f"int{width}_g128_sym" for width in widths)
        uniform = [(f"int{width}_g128_sym",) * len(widths) for width in sorted(set(widths))]
        built = {Case(ours, f): ours.build(weights, f) for f in (mixed, *uniform)}
        parts = [ours.build([w], [f]) for w, f in zip(weights, mixed, strict=True)]
        apart = {Case(ours, mixed, "one launch for each part"): in_turn(parts)}
        for batch in batches:
            self.measured(number, "segments", shape, batch, weights, built | apart)

    def measured(
        self, number: int, part: str, shape: Shape, batch: int,
        weights: Sequence[torch.Tensor], built: Mapping[Case, Built],
    ) -> dict[Case, Times]:  # fmt: skip
        """Times of the cases that are right; one row for each case."""
        graphs, errors = {}, {}
        for case, made in built.items():
            x = torch.randn(batch, shape.n_columns, device=DEVICE, dtype=case.method.dtype)
            try:
                if (
                    self.tunes
                    and number == 1
                    and isinstance(case.method, Bitfront)
                    and not case.note
                ):
                    case.method.tune(made, x, shape.parts, case.formats)
                errors[case] = relative_error(made, x, weights)
                if errors[case] <= max(map(tolerance, case.formats)):
                    copies = made.copies(n_sets(made.n_bytes))
                    graphs[case] = Graph([lambda each=each, x=x: each(x) for each in copies])
                else:
                    self.row(number, part, shape, case, batch, errors[case], note="wrong")
            except Exception as error:
                self.row(number, part, shape, case, batch, note=first_line(error))
        times = interleaved(graphs)
        bf16 = next((t for c, t in times.items() if isinstance(c.method, Cublas)), None)
        for case, found in times.items():
            self.row(
                number, part, shape, case, batch, errors[case], case.note,
                **self.figures(found, built[case].n_bytes, bf16),
                of_roofline=round(
                    self.ceiling.floor(shape, built[case].n_bytes, batch) / found.median, 4
                ),
                n_sets=n_sets(built[case].n_bytes),
            )  # fmt: skip
        return times

    def stacks(self, number: int) -> None:
        """All linear layers of Llama-3-8B, one token."""
        stacks = {str(bits): (Stack(bits), Bitfront()) for bits in STACKS}
        calls, n_bytes = {}, {}
        for name, (stack, method) in {**stacks, "bf16": (Stack(4), Cublas())}.items():
            calls[name], n_bytes[name] = stack_calls(stack, method)
        times = interleaved({name: Graph([call]) for name, call in calls.items()})
        for name, (stack, _) in stacks.items():
            self.record.add(
                **self.origin(number, "stack"), shape="Llama-3-8B", batch=1, method="bitfront",
                formats=f"{stack.average:.2f} bits", version=Bitfront().version,
                **self.figures(times[name], n_bytes[name], times["bf16"]),
                of_roofline=round(stack.floor(self.ceiling) / times[name].median, 4),
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

    def row(
        self, number: int, part: str, shape: Shape, case: Case, batch: int | None = None,
        error: float | None = None, note: str = "", **figures: object,
    ) -> None:  # fmt: skip
        """Add one row."""
        self.record.add(
            **self.origin(number, part), shape=shape.name, batch=batch, formats=case.format,
            method=case.method.name, version=case.method.version, error=error, note=note, **figures,
        )  # fmt: skip


def stack_calls(stack: Stack, method: Multiplier) -> tuple[Callable[[], None], int]:
    """All products of a stack in order, each with a weight of its own, and their bytes."""
    made, inputs = [], {}
    for shape, names in stack.layers():
        made.append(method.build(random_weights(shape), names))
        x = torch.randn(1, shape.n_columns, device=DEVICE, dtype=method.dtype)
        inputs.setdefault(shape, x)
    shapes = [shape for shape, _ in stack.layers()]

    def call() -> None:
        for built, shape in zip(made, shapes, strict=True):
            built(inputs[shape])

    return call, sum(built.n_bytes for built in made)


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


def first_line(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]


if __name__ == "__main__":
    main()
