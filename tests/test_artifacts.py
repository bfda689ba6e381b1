"""Artifacts in a folder and in a store behind fsspec."""

import uuid

import fsspec
import pytest

from bitfront.artifacts import Artifacts, digest_of
from bitfront.errors import InvalidArgument, MismatchedArtifact, NotFound, StorageError


@pytest.fixture(params=["folder", "memory"])
def artifacts(request, tmp_path):
    url = str(tmp_path / "kept") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return Artifacts(url)


def test_what_is_put_comes_back(artifacts, tmp_path):
    path, again = tmp_path / "a.bin", tmp_path / "deep" / "b.bin"
    path.write_bytes(b"weights" * 1000)
    digest = artifacts.put(path)
    assert digest == digest_of(path) == artifacts.put(path)
    assert artifacts.has(digest)
    assert artifacts.size(digest) == 7000
    artifacts.fetch(digest, again)
    assert again.read_bytes() == path.read_bytes()
    with artifacts.open(digest) as file:
        file.seek(7)
        assert file.read(7) == b"weights"
    assert list(artifacts.all()) == [digest]
    # Listed before another one came.
    path.write_bytes(b"more")
    more = artifacts.put(path)
    assert artifacts.has(more)
    assert set(artifacts.all()) == {digest, more}
    artifacts.remove(digest)
    artifacts.remove(digest)
    assert not artifacts.has(digest)
    with pytest.raises(NotFound):
        artifacts.open(digest)


def test_damaged_bytes_are_not_brought(tmp_path):
    artifacts, path = Artifacts(str(tmp_path / "kept")), tmp_path / "a.bin"
    path.write_bytes(b"right")
    digest = artifacts.put(path)
    stored = tmp_path / "kept" / digest[:2] / digest
    stored.unlink()
    stored.write_bytes(b"wrong")
    with pytest.raises(MismatchedArtifact):
        artifacts.fetch(digest, tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64])
def test_only_digests_are_names(artifacts, name):
    with pytest.raises(InvalidArgument, match="not a digest"):
        artifacts.has(name)


def test_a_place_is_checked_before_there_is_anything_to_keep(artifacts):
    artifacts.check()
    artifacts.check()
    assert list(artifacts.all()) == []


def test_a_store_that_cannot_be_reached_is_one_kind_of_error(tmp_path):
    """Libraries of stores raise errors of their own, s3fs some that are no `OSError`."""
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    artifacts = Artifacts("unreachable://kept")
    path, digest = tmp_path / "a.bin", "0" * 64
    path.write_bytes(b"weights")
    for use in (
        lambda: artifacts.put(path),
        lambda: artifacts.has(digest),
        lambda: artifacts.fetch(digest, path),
        lambda: artifacts.open(digest),
        lambda: artifacts.size(digest),
        lambda: artifacts.age(digest),
        lambda: artifacts.remove(digest),
        lambda: list(artifacts.all()),
    ):
        with pytest.raises(StorageError, match=r"artifacts at unreachable://kept: no answer\."):
            use()
    with pytest.raises(StorageError, match=r"artifacts at unreachable://kept \(no answer\)"):
        artifacts.check()


class Unreachable(fsspec.AbstractFileSystem):
    """Every call ends as one to a server that is gone."""

    protocol = "unreachable"

    def _gone(self, *_args, **_options):
        raise RuntimeError("no answer")

    put_file = exists = find = modified = rm_file = pipe_file = _gone
