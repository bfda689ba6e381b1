"""What tests of the command line share."""

import subprocess
import sys

MENU = "int2_g32,int3_g32,int4_g32,int8_g32"
QUICK = ["--budget", "4.2bpw", "--formats", MENU, "--pin", "int8_g32", "--n-trials", "6"]


def bitfront(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from bitfront.cli import main; main()"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([*program, *arguments], text=True, check=False, **(streams | options))


def one_line(code: int, errors: str) -> bool:
    """Exit code 2 and one error line; warnings of libraries do not count."""
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    return code == 2 and len(lines) == 1 and "Traceback" not in errors
