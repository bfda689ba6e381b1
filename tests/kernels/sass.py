"""Compile kernels for an H100 or H200 without one, and count what the machine code does.

    python tests/kernels/sass.py            counts of every case, as JSON
    python tests/kernels/sass.py --record   writes them to `sass.csv` for the installed triton

Triton compiles for a named target and its wheel carries the disassembler, so neither driver nor
device is needed. What is counted holds for any clock and any memory: instructions that a weight
costs bound the speed from above, whatever the schedule.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RECORDED = Path(__file__).with_name("sass.csv")
TARGET = 90
_INSTRUCTION = re.compile(
    r"^\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(?P<name>[A-Z][A-Z0-9_.]*)(?P<rest>.*);"
)


@dataclass(frozen=True)
class Case:
    """A kernel with all that decides its machine code, and what is asked of it.

    Args:
        kernel: `module.function` below `bitfront.kernels`.
        pointers: element type of each pointer; all are 16-byte aligned.
        sizes: other arguments that vary, each a multiple of 16 in this case or not.
        constants: meta-parameters.
        options: of the compiler, such as `num_warps`.
        n_elements: weights, or logits, that a program handles in one round of its main loop; in
            all if it has no loop.
        max_per_element: instructions of a thread for each of them, at most, in any version.
        max_registers: of a thread, at most, in any version.
        wide: whether global loads must be of 16 bytes.
        hgmma: whether products must run on the warpgroup's tensor cores.
    """

    kernel: str
    pointers: Mapping[str, str]
    sizes: Mapping[str, bool]
    constants: Mapping[str, object]
    n_elements: int
    max_per_element: float
    max_registers: int = 255
    wide: bool = True
    hgmma: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """What the machine code of a case does."""

    per_element: float
    registers: int
    n_spills: int
    load_bits: int
    n_hgmma: int


def count(case: Case) -> Counts:
    """Compile and count; needs a process whose triton does not interpret."""
    instructions, registers, n_threads = _compiled(case)
    loop = _main_loop(instructions)
    names = [name for _, name, _ in loop]
    everything = [name for _, name, _ in instructions]
    return Counts(
        per_element=round(len(names) * n_threads / case.n_elements, 3),
        registers=registers,
        n_spills=sum(name.startswith(("LDL", "STL")) for name in everything),
        load_bits=max((_width(name) for name in names if name.startswith("LDG")), default=0),
        n_hgmma=sum(name.startswith("HGMMA") for name in names),
    )


def _compiled(case: Case) -> tuple[list[tuple[int, str, str]], int, int]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = case.kernel.rpartition(".")
    function = getattr(importlib.import_module(f"bitfront.kernels.{module}"), name)
    types = {**case.pointers, **dict.fromkeys(case.sizes, "i32")}
    aligned = {*case.pointers, *(name for name, divisible in case.sizes.items() if divisible)}
    place = {name: (index,) for index, name in enumerate(function.arg_names)}
    source = ASTSource(
        fn=function,
        signature={name: types.get(name, "constexpr") for name in function.arg_names},
        constexprs={place[name]: value for name, value in case.constants.items()},
        attrs={place[name]: [["tt.divisibility", 16]] for name in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", TARGET, 32), options=dict(case.options))
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        code, usage = (
            subprocess.run([tool, flag, file.name], capture_output=True, text=True, check=True)
            for flag in ("-sass", "-res-usage")
        )
    found = filter(None, map(_INSTRUCTION.match, code.stdout.splitlines()))
    instructions = [(int(x["address"], 16), x["name"], x["rest"]) for x in found]
    registers = re.search(r"REG:(\d+)", usage.stdout + usage.stderr)
    assert registers, usage
    return instructions, int(registers[1]), made.metadata.num_warps * 32


def _main_loop(instructions: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Instructions of the longest loop, from the target of a backward branch to the branch."""
    loops = [instructions]
    for address, name, rest in instructions:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name.startswith("BRA") and target and int(target[1], 16) < address:
            start = int(target[1], 16)
            loops.append([x for x in instructions if start <= x[0] <= address])
    return max(loops[1:], key=len, default=loops[0])


def _width(name: str) -> int:
    bits = re.search(r"\.(64|128|256)\b", name)
    return int(bits[1]) if bits else 32


def recorded() -> dict[str, Counts]:
    """Counts of the installed triton by case; empty for a version that was never recorded."""
    import triton

    with RECORDED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["triton"] == triton.__version__]
    kinds = {f.name: float if f.name == "per_element" else int for f in dataclasses.fields(Counts)}
    return {row["case"]: Counts(**{k: kind(row[k]) for k, kind in kinds.items()}) for row in rows}


def main() -> None:
    """Count every case; print or record."""
    import triton
    from kernels.cases import CASES

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true")
    counts = {name: dataclasses.asdict(count(case)) for name, case in CASES.items()}
    if not parser.parse_args().record:
        print(json.dumps(counts))
        return
    rows = []
    if RECORDED.exists():
        with RECORDED.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["triton"] != triton.__version__]
    rows += [{"triton": triton.__version__, "case": name, **x} for name, x in counts.items()]
    with RECORDED.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
