"""Compile the kernels of a launch for an H100 or H200 without one, and count their machine code.

Triton compiles for any target and its wheel carries the disassembler, so neither driver nor device
is needed; what a launch compiles here is what it would compile there, alignment and sizes
included. Instructions for a weight bound the speed from above at any clock and any schedule.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

RECORDED = Path(__file__).with_name("sass.csv")
TARGET = GPUTarget("cuda", 90, 32)
TOLERANCE = 1.05
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);")


@dataclass(frozen=True)
class Case:
    """A launch, and what is asked of the kernel in it whatever the version of triton.

    Args:
        kernel: name of the kernel among those that the launch runs.
        launch: runs it; tensors on the meta device stand for those of a GPU.
        n_elements: weights, or logits, of a program in one round of its longest loop; in all of
            its work if it has no loop.
        max_per_element: instructions of a thread for each of them, at most.
        max_registers: of a thread, at most.
        load_bits: width that the widest global load in the loop has at least.
        hgmma: whether products must run on the warpgroup's tensor cores.
    """

    kernel: str
    launch: Callable[[], object]
    n_elements: int
    max_per_element: float
    max_registers: int = 255
    load_bits: int = 128
    hgmma: bool = False


@dataclass(frozen=True)
class Counts:
    """What the machine code of a case does; loads, products and instructions of its longest loop.

    Args:
        per_element: instructions for a weight.
        registers: of a thread.
        n_spills: loads and stores of registers that do not fit, in the whole kernel.
        load_bits: width of the widest global load.
        n_hgmma: products on the warpgroup's tensor cores.
    """

    per_element: float
    registers: int
    n_spills: int
    load_bits: int
    n_hgmma: int


Instruction = tuple[int, str, str]
"""Address, name and operands."""


def count(case: Case) -> Counts:
    """Compile and count; needs a process in which triton does not interpret."""
    with compiling() as kernels:
        case.launch()
    kernel = next(made for made in kernels if made.metadata.name == case.kernel)
    code = disassembled(kernel.asm["cubin"])
    everything = instructions(code)
    loop = [name for _, name, _ in longest_loop(everything)]
    registers = re.search(r"REG:(\d+)", code)
    assert registers, code[:1000]
    return Counts(
        per_element=round(len(loop) * kernel.metadata.num_warps * 32 / case.n_elements, 3),
        registers=int(registers[1]),
        n_spills=sum(name.startswith(("LDL", "STL")) for _, name, _ in everything),
        load_bits=max((width(name) for name in loop if name.startswith("LDG")), default=0),
        n_hgmma=sum(name.startswith("HGMMA") for name in loop),
    )


class _Absent:
    """The driver of a device that is not there."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling() -> Iterator[list]:
    """Kernels launched in the block are compiled and listed; the process runs none from then on."""
    made, run = [], JITFunction.run
    triton.runtime.driver.set_active(_Absent())

    def compile_only(self, *arguments, warmup, **options):
        made.append(run(self, *arguments, warmup=True, **options))

    JITFunction.run = compile_only
    try:
        yield made
    finally:
        JITFunction.run = run


def disassembled(cubin: bytes) -> str:
    """Machine code and use of resources, as `cubobjdump` writes them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "-sass", "-res-usage", file.name]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
    return made.stdout + made.stderr


def instructions(code: str) -> list[Instruction]:
    """Instructions in order of their addresses."""
    found = filter(None, map(_INSTRUCTION.match, code.splitlines()))
    return [(int(x[1], 16), x[2], x[3]) for x in found]


def longest_loop(code: list[Instruction]) -> list[Instruction]:
    """From the target of a backward branch to the branch; all code where there is no loop."""
    loops = []
    for address, name, operands in code:
        target = re.search(r"0x([0-9a-f]+)", operands)
        if name.startswith("BRA") and target and int(target[1], 16) < address:
            loops.append([x for x in code if int(target[1], 16) <= x[0] <= address])
    return max(loops, key=len, default=code)


def width(name: str) -> int:
    """Bits that a load instruction moves for a thread."""
    bits = re.search(r"\.(64|128|256)\b", name)
    return int(bits[1]) if bits else 32


def recorded() -> dict[str, Counts]:
    """Counts by case under the installed triton; empty if that version was never recorded."""
    kinds = {f.name: float if f.name == "per_element" else int for f in dataclasses.fields(Counts)}
    return {
        row["case"]: Counts(**{name: kind(row[name]) for name, kind in kinds.items()})
        for row in _rows()
        if row["triton"] == triton.__version__
    }


def record(counts: dict[str, Counts]) -> None:
    """Replace the rows of the installed triton."""
    rows = [row for row in _rows() if row["triton"] != triton.__version__]
    for name, found in counts.items():
        rows.append({"triton": triton.__version__, "case": name, **dataclasses.asdict(found)})
    with RECORDED.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _rows() -> list[dict]:
    if not RECORDED.exists():
        return []
    with RECORDED.open(newline="") as file:
        return list(csv.DictReader(file))
