"""Kernels compiled for an H100 or H200: no spills, wide loads, and no more work than recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.launches import CASES
from tests.kernels.sass import TOLERANCE, Counts, instructions, longest_loop, recorded, width

ROOT = Path(__file__).resolve().parents[2]
CODE = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;      /* 0x00000a0000017a02 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E.CONSTANT R8, desc[UR4][R2.64] ;
        /*0030*/                   FFMA R0, R4, R8, R0 ;
        /*0040*/               @P1 BRA 0x10 ;
        /*0050*/                   STL [R1], R0 ;
        /*0060*/               @P2 BRA 0x50 ;
        /*0070*/                   BRA 0x70;
"""


@pytest.fixture(scope="session")
def counts():
    """Counts of every case, made by a process in which triton compiles instead of interpreting."""
    made = subprocess.run(
        [sys.executable, "-m", "tests.kernels.launches"],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-4000:]
    return {name: Counts(**found) for name, found in json.loads(made.stdout).items()}


@pytest.mark.parametrize("name", CASES)
def test_machine_code_is_what_the_case_asks_for(counts, name):
    case, found = CASES[name], counts[name]
    assert found.n_spills == 0
    assert found.registers <= case.max_registers
    assert found.load_bits >= case.load_bits
    assert found.per_element <= case.max_per_element
    assert bool(found.n_hgmma) >= case.hgmma


@pytest.mark.parametrize("name", CASES)
def test_machine_code_does_no_more_than_was_recorded(counts, name):
    """Under a version of triton that has rows; `tests.kernels.launches --record` makes them."""
    before = recorded()
    if before:
        assert counts[name].per_element <= TOLERANCE * before[name].per_element
        assert counts[name].registers <= TOLERANCE * before[name].registers


def test_recorded_cases_are_those_there_are():
    assert set(recorded()) in ({*CASES}, set())


def test_the_longest_loop_is_what_counts():
    code = instructions(CODE)
    assert [name for _, name, _ in code[:2]] == ["MOV", "LDG.E.128"]
    assert [address for address, _, _ in longest_loop(code)] == [0x10, 0x20, 0x30, 0x40]
    assert longest_loop(code[:4]) == code[:4]
    assert [width(name) for _, name, _ in code[1:3]] == [128, 32]
