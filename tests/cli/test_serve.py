"""One command serves: the tiny Llama is searched through it from submission to a checkpoint."""

import json
import os
import shutil
import signal
import socket
import time
import tomllib

import httpx2
import psutil
import pytest
from waiting import until

from bitfront.client import Client
from bitfront.manifest import Manifest
from tests.cli.commands import MENU, bitfront
from tests.cli.served import Command, serving

STUDY = """
model = "tiny_llama"
budget = "4.2bpw"
calibration = {source = "calibration.txt", n_sequences = 3, sequence_length = 64}
evaluation = {source = "evaluation.txt", n_sequences = 3, sequence_length = 64}
formats = [MENU]
pinned = "int8_g32"
n_search_sequences = 2
n_finalists = 3
n_trials = N_TRIALS
"""


def write_study(folder, n_trials):
    menu = ", ".join(f'"{name}"' for name in MENU.split(","))
    text = STUDY.replace("MENU", menu).replace("N_TRIALS", str(n_trials))
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_folder, calibration_file, evaluation_file):
    """A folder as a user has one: a model, two texts, a study."""
    made = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_folder, made / "tiny_llama")
    shutil.copy(calibration_file, made / "calibration.txt")
    shutil.copy(evaluation_file, made / "evaluation.txt")
    write_study(made, 10)
    return made


@pytest.fixture(scope="module")
def port():
    """The same one for a server that is started again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def env(port):
    return {"BITFRONT_URL": f"http://127.0.0.1:{port}", "BITFRONT_API_KEY": ""}


@pytest.fixture(scope="module")
def submitted(folder, port, env):
    """A study that is submitted, watched, left, taken up after the server was started again."""
    watching = None
    with serving(folder, "--port", port, "--no-dashboard") as server:
        done = bitfront("submit", folder / "study.toml", env={**os.environ, **env})
        assert done.returncode == 0, done.stderr
        study = done.stdout.split()[1]
        watching = Command("watch", study[-8:], env=env)
        watching.until("Search")
        left = Command("watch", study, "--json", env=env)
        left.until('"event": "stage"')
        assert left.stop(signal.SIGINT) == 130
        children = server.children
        assert len(children) == 1
        assert server.stop(signal.SIGINT) == 0
        for pid in children:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    options = ("--port", port, "--dashboard-port", 0, "--metrics-port", 0)
    with serving(folder, *options) as server:
        yield study, watching, left, server


def test_a_study_is_watched_to_its_end_although_the_server_was_started_again(submitted):
    _, watching, left, _ = submitted
    assert watching.wait() == 0, "".join(watching.lines)
    shown = "".join(watching.lines)
    assert "does not answer now: trying again" in shown
    assert "Measured front" in shown
    numbers = [line.split()[2] for line in watching.lines if " bpw" in line and "Search" in line]
    assert len(numbers) == len(set(numbers)) == 10
    assert "The study goes on: `bitfront watch ID`" in "".join(left.lines)


def test_the_front_comes_by_http_and_is_that_of_the_command(submitted, env):
    study, watching, *_ = submitted
    watching.wait()
    answer = httpx2.get(f"{env['BITFRONT_URL']}/v1/studies/{study}/front?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert len(answer.text.splitlines()) > 2
    done = bitfront("front", study, "--format", "csv", env={**os.environ, **env})
    assert done.stdout == answer.text.replace("\r\n", "\n")


def test_a_checkpoint_is_brought(submitted, env, tmp_path):
    study, watching, *_ = submitted
    watching.wait()
    out = tmp_path / "checkpoint"
    done = bitfront(
        *("materialise", study, "--at", "4.2bpw", "--out", str(out)), env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    formats = json.loads((out / "bitfront.json").read_text())["formats"]
    assert set(formats.values()) <= set(MENU.split(","))
    assert (out / "model.safetensors").stat().st_size > 10_000
    manifest = Manifest.read(out)
    assert manifest.changes(out) == ()
    answer = httpx2.get(f"{env['BITFRONT_URL']}/v1/studies/{study}/checkpoints/0/manifest").json()
    assert manifest.study.digest == answer["study"]["digest"]
    assert dict(manifest.trial.values) == answer["values"]
    done = bitfront("verify", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_the_study_and_comes_back(submitted):
    study, watching, _, server = submitted
    url = server.until(r"^Dashboard +(http\S+)")[1]
    watching.wait()

    def shown():
        try:
            answer = httpx2.get(f"{url}/api/studies", timeout=5.0)
        except httpx2.TransportError:
            return False
        return answer.status_code == 200 and study in answer.text

    until(shown)
    (dashboard,) = [pid for pid in server.children if "dashboard" in command_line(pid)]
    os.kill(dashboard, signal.SIGKILL)
    until(lambda: not shown())
    until(shown)


def command_line(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def test_the_server_is_soon_there_without_torch_and_with_little_memory(submitted):
    *_, server = submitted
    assert server.cpu_seconds < 5.0
    with open(f"/proc/{server.process.pid}/maps") as file:
        assert "torch" not in file.read()
    with open(f"/proc/{server.process.pid}/status") as file:
        (resident,) = [int(line.split()[1]) for line in file if line.startswith("VmRSS")]
    assert resident < 300 * 1024


def test_a_server_at_rest_is_small_and_nothing_outlives_it_when_it_is_killed(folder, tmp_path):
    options = ("--port", 0, "--dashboard-port", 0)
    with serving(folder, *options, BITFRONT_HOME=str(tmp_path)) as server:
        server.until("^Dashboard")
        until(lambda: httpx2.get(f"{server.url}/v1/workers").json()["items"])
        children = server.children
        assert len(children) == 2
        every = map(psutil.Process, (server.process.pid, *children))
        assert sum(each.memory_full_info().pss for each in every) < 300e6
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
        until(lambda: not any(is_alive(pid) for pid in children))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_watchers_do_not_keep_a_server_from_stopping(folder, tmp_path):
    options = ("--port", 0, "--no-dashboard", "--workers", 0)
    home = {"BITFRONT_HOME": str(tmp_path)}
    with serving(folder, *options, **home) as server, Client(server.url) as client:
        study = client.submit(tomllib.loads((folder / "study.toml").read_text()))
        assert next(client.watch(study.id)).kind == "state"
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 20
        assert not [line for line in server.lines if "Traceback" in line]


def test_a_worker_alone_works_until_it_is_told_to_stop(submitted, folder):
    worker = Command("worker", "--queue", "gpu", env={"BITFRONT_HOME": str(folder / "home")})
    worker.until("^1 worker on sqlite:")
    assert worker.stop() == 0
