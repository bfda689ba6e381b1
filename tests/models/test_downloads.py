"""Models of the hub: what is downloaded, into what folder, and what is refused before it is.

No hub is reachable here, so `hub.Hub` stands in for it: the real client library asks it.
"""

import shutil
from collections import namedtuple

import pytest
from hub import Hub
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from bitfront.errors import InvalidModel, StorageError
from bitfront.models.downloads import downloaded

FILES = {
    "model.safetensors": b"a" * 1500,
    "config.json": b"{}",
    "tokenizer.model": b"b",
    "merges.txt": b"c",
    "chat_template.jinja": b"d",
    "pytorch_model.bin": b"e",
    "modeling_own.py": b"f",
    "onnx/config.json": b"{}",
}
TAKEN = ["chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.model"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub(tmp_path / "hub") as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
        yield hub


@pytest.fixture
def repository(tmp_path):
    """What is pushed as `models/org/tiny`."""
    for name, content in FILES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "repository"


def refused(kind=InvalidModel, **given):
    with pytest.raises(kind) as caught:
        downloaded("org/tiny", **{"revision": None, **given})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked_for_files(hub):
    return [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked]


def test_the_folder_is_named_by_its_commit_and_has_nothing_that_can_run(hub, repository):
    commit = hub.push("models/org/tiny", repository)
    folder = downloaded("org/tiny", None)
    assert folder.name == commit
    found = {x.relative_to(folder).as_posix(): x.read_bytes() for x in folder.rglob("*")}
    assert found == {name: FILES[name] for name in TAKEN}


def test_a_revision_is_a_commit_or_a_branch(hub, repository):
    first = hub.push("models/org/tiny", repository)
    (repository / "config.json").write_bytes(b"[]")
    second = hub.push("models/org/tiny", repository)
    for revision, commit in ((first, first), ("main", second), (None, second)):
        assert downloaded("org/tiny", revision).name == commit
    assert "Cannot get 'org/tiny@no-such' from the hub (" in refused(revision="no-such")


def test_what_is_in_the_cache_needs_no_hub(hub, repository, monkeypatch):
    hub.push("models/org/tiny", repository)
    folder = downloaded("org/tiny", "main")
    n_asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert downloaded("org/tiny", "main", max_gb=1e-9) == folder  # it is not downloaded
    assert len(hub.asked) == n_asked
    shutil.rmtree(constants.HF_HUB_CACHE)
    message = refused()
    assert message.startswith("Cannot get 'org/tiny' from the hub (")
    assert message.endswith("check the name and the network, or give a local folder.")


def test_a_model_without_safetensors_says_what_to_take(hub, repository, tmp_path):
    (repository / "model.safetensors").unlink()
    hub.push("models/org/tiny", repository)
    message = refused()
    assert message.startswith("org/tiny has no safetensors on the hub, and pickled weights")
    assert str(tmp_path) not in message


def test_the_size_counts_what_would_be_downloaded(hub, repository):
    hub.push("models/org/tiny", repository)
    n_bytes = sum(len(FILES[name]) for name in TAKEN)
    message = refused(max_gb=1e-6)
    assert message.startswith("org/tiny has 1.5e-06 GB on the hub, of at most 1e-06: take a smal")
    assert not asked_for_files(hub)
    downloaded("org/tiny", None, max_gb=n_bytes / 1e9)


def test_what_is_missing_must_fit_on_the_disk(hub, repository, monkeypatch):
    hub.push("models/org/tiny", repository)
    n_bytes = sum(len(FILES[name]) for name in TAKEN)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(n_bytes - 1))
    message = refused(StorageError, revision="main")
    assert message.startswith("Cannot download org/tiny@main: 1.5e-06 GB are missing,")
    assert message.endswith("Free some space, or set HF_HOME to another disk.")
    assert not asked_for_files(hub)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(n_bytes))
    downloaded("org/tiny", "main")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(0))
    downloaded("org/tiny", "main")  # nothing is missing any more


def test_bars_of_the_hub_are_as_they_were(hub, repository, capfd):
    hub.push("models/org/tiny", repository)
    assert not are_progress_bars_disabled()
    downloaded("org/tiny", None)
    refused(revision="no-such")
    assert not are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")
    disable_progress_bars()
    try:
        downloaded("org/tiny", None)
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()
