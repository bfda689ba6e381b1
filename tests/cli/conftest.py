"""The command in this process, and a results folder that it made."""

import subprocess
from pathlib import Path

import pytest

from bitfront import cli
from tests.cli.commands import MENU, bitfront


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Call the command in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(word) for word in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture(scope="session")
def texts(calibration_file: Path, evaluation_file: Path) -> list[str]:
    sizes = "--n-sequences 3 --n-search-sequences 2 --n-evaluation-sequences 3 --sequence-length 64"
    return [
        *("--calibration", str(calibration_file), "--evaluation", str(evaluation_file)),
        *sizes.split(),
    ]


@pytest.fixture(scope="session")
def searched(
    tiny_folder: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("searched")
    command = ["search", str(tiny_folder), "--budget", "4.2bpw", "--formats", MENU, *texts]
    options = ["--n-trials", "8", "--estimator", "fisher", "--pin", "int8_g32", "--out", str(out)]
    return out, bitfront(*command, *options)
