"""What the scripts that run a model take from the command line, and the study they make of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfront import Study, TextSource

MENU = ("int2_g64", "int3_g64", "int4_g64", "int5_g64", "int8_g64")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A model, two texts and a folder; the first line of the description is kept."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name in ("model", "calibration", "evaluation"):
        made.add_argument(name)
    made.add_argument("--out", type=Path, required=True)
    return made


def untied_study(
    arguments: argparse.Namespace, n_calibration: int, n_evaluation: int, **choices
) -> Study:
    """A study without ties, on blocks of `arguments.length` tokens."""
    return Study(
        model=arguments.model,
        calibration=TextSource(arguments.calibration, n_calibration, arguments.length),
        evaluation=TextSource(arguments.evaluation, n_evaluation, arguments.length),
        tied=False,
        # What "auto" means depends on the machine, and KL a little on the dtype.
        **({"formats": MENU, "dtype": "float32"} | choices),
    )
