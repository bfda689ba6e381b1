"""`bitfront serve` as a process of its own."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "bitfront.cli"]


class Command:
    """A command that runs, and what it has printed so far."""

    def __init__(self, *arguments, env, cwd=None):
        # Started from a background job, a process inherits SIGINT ignored: as on a terminal.
        take = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **env},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, take)
        self.lines, self._new = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line)
                self._new.put(line)
        self._new.put(None)

    def until(self, pattern, seconds=120):
        """The match of the first new line that has it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                line = self._new.get(timeout=1)
            except queue.Empty:
                continue
            assert line is not None, "".join(self.lines)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern} in {''.join(self.lines)}")

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Exit code after a signal."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds=120):
        return self.process.wait(seconds)

    @property
    def children(self):
        path = Path(f"/proc/{self.process.pid}/task")
        return [
            int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()
        ]


def cpu_seconds(pid):
    """Time of a process on a processor, which other processes do not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(folder, *options, **environment):
    """A server whose files are in a folder, and its address."""
    env = {"BITFRONT_HOME": str(folder / "home"), "BITFRONT_HUB": "false", **environment}
    command = Command("serve", *options, env=env, cwd=folder)
    try:
        command.url = command.until(r"^API +(http\S+)")[1]
        command.cpu_seconds = cpu_seconds(command.process.pid)
        yield command
    finally:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGTERM)
            command.wait()
