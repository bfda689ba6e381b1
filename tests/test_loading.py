"""How a process is left."""

import subprocess
import sys

import pytest

END = """
import atexit, sys
from bitfront.loading import leave

class Held:
    def __del__(self):
        print("taken apart")

held = Held()
atexit.register(print, "registered")
print("written")
sys.stderr.write("an error")
"""


@pytest.mark.parametrize("code", [0, 2])
def test_what_a_process_wrote_and_registered_is_there_when_it_left(code):
    left = subprocess.run(
        [sys.executable, "-c", f"{END}leave({code})"], capture_output=True, text=True, check=False
    )
    assert left.returncode == code
    assert left.stdout == "written\nregistered\n"
    assert left.stderr == "an error"


def test_a_disk_that_is_full_at_the_end_is_no_success():
    with open("/dev/full", "w") as full:
        left = subprocess.run([sys.executable, "-c", f"{END}leave(0)"], stdout=full, check=False)
    assert left.returncode != 0
