"""What every exporter promises: the claimed size and logits, and all of a folder or nothing."""

import errno
import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer

from bitfront import formats
from bitfront.errors import InvalidArgument, InvalidModel, StorageError
from bitfront.export import EXPORTERS
from bitfront.export.base import MARK, replacing_folder
from bitfront.models.load import LoadedModel
from tests import cases
from tests.export.exports import (
    Export,
    load,
    logits,
    relative_error,
    stored_bytes,
    written,
)
from tests.models.test_layers import FAMILIES, build

CHECKPOINTS = {n: c for n, c in cases.EXPORTERS.items() if isinstance(c, cases.Loads)}
every_exporter = pytest.mark.parametrize("name", cases.EXPORTERS)
every_checkpoint = pytest.mark.parametrize("name", CHECKPOINTS)


def write(name, e, folder, **params):
    EXPORTERS.build(name, params).write(e.model, e.allocation, e.bank, folder)


@every_checkpoint
def test_loaded_logits_are_those_of_the_patched_model(name, exportable, tiny_tokens, tmp_path):
    e = exportable(name)
    write(name, e, tmp_path / "out")
    loaded = load(name, tmp_path / "out", dtype=torch.float32)
    expected = logits(e.expected(), tiny_tokens[:2])
    error = relative_error(logits(loaded, tiny_tokens[:2]), expected)
    assert error <= CHECKPOINTS[name].error
    # not because the formats change nothing
    assert relative_error(logits(e.model.module, tiny_tokens[:2]), expected) > 0.05


@pytest.mark.parametrize("name", [name for name, claim in CHECKPOINTS.items() if claim.size])
@pytest.mark.parametrize("max_shard_size", ["5GB", "50KB"])
def test_size_is_the_claimed_one(name, max_shard_size, exportable, tmp_path):
    e = exportable(name)
    write(name, e, tmp_path / "out", max_shard_size=max_shard_size)
    expected = {
        "counted": e.space.outside_bytes
        + sum(formats.named(e.allocation.formats[x.name]).nbytes(x.shape) for x in e.space.layers),
        "16 bits": 2 * sum(p.numel() for p in e.model.module.parameters()),
    }
    written = sum(stored_bytes(tmp_path / "out").values())
    assert written == expected[CHECKPOINTS[name].size]
    # and on the disk no more than that but for headers: a line per tensor
    files = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert 0 < files - written < 200 * len(stored_bytes(tmp_path / "out"))


@pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if "safetensors" in c.file])
def test_large_checkpoints_are_cut(name, exportable, tiny_tokens, tmp_path):
    e = exportable(name)
    write(name, e, tmp_path / "whole")
    write(name, e, tmp_path / "cut", max_shard_size="50KB")
    files = list((tmp_path / "cut").glob("model-*.safetensors"))
    largest = max(stored_bytes(tmp_path / "whole").values())
    assert len(files) > 2
    assert all(path.stat().st_size < max(50_000, largest) + 5_000 for path in files)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(stored_bytes(tmp_path / "whole"))
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    loaded = [load(name, tmp_path / part, dtype=torch.float32) for part in ("whole", "cut")]
    expected, cut = (logits(module, tiny_tokens[:1]) for module in loaded)
    assert torch.equal(cut, expected)
    for size in ("huge", "0GB", "-1GB", "infGB"):
        with pytest.raises(InvalidArgument, match=f"max_shard_size is '{size}': give a size such"):
            EXPORTERS.build(name, {"max_shard_size": size})


@every_checkpoint
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_again_or_is_refused(name, family, tiny_tokenizer, tmp_path):
    claim = CHECKPOINTS[name]
    symmetric = "_sym" if claim.families else ""
    menu = [f"int4_channel{symmetric}", f"int3_channel{symmetric}", "bf16"]
    module = build(family)
    pinned = formats.named("int8_g64_sym")
    e = Export.of(module, tiny_tokenizer, tuple(map(formats.named, menu)), pinned)
    if family not in (claim.families or FAMILIES):
        with pytest.raises(InvalidModel, match="export with packed or fake_quant") as refused:
            write(name, e, tmp_path / "out")
        assert "\n" not in str(refused.value)
        assert list(tmp_path.iterdir()) == []
        return
    write(name, e, tmp_path / "out")
    # GGUF has no head_dim for transformers, which takes that of the published Qwen3 models
    config = {"config": module.config} if (name, family) == ("gguf", "qwen3") else {}
    loaded, found = load(
        name, tmp_path / "out", dtype=torch.float32, output_loading_info=True, **config
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    tokens = torch.arange(2 * 9).view(2, 9) * 5 % 96
    error = relative_error(logits(loaded, tokens), logits(e.expected(), tokens))
    assert error <= max(claim.error, 1e-5)


@every_checkpoint
def test_without_pinned_layers(name, tiny_llama, tiny_tokenizer, tiny_tokens, tmp_path):
    e = Export.of(tiny_llama, tiny_tokenizer, (formats.named("int4_g64_sym"),), None)
    write(name, e, tmp_path / "out")
    loaded = load(name, tmp_path / "out", dtype=torch.float32)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    expected = logits(e.expected(), tiny_tokens[:1])
    error = relative_error(logits(loaded, tiny_tokens[:1]), expected)
    assert error <= CHECKPOINTS[name].error


@every_checkpoint
def test_the_folder_is_complete(name, exportable, tmp_path):
    e, folder = exportable(name), tmp_path / "deep" / "out"
    write(name, e, folder)
    assert json.loads((folder / "bitfront.json").read_text())["formats"] == e.allocation.formats
    assert AutoTokenizer.from_pretrained(**written(name, folder))("Alice")["input_ids"]
    loaded = load(name, folder, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.eos_token_id == 0
    out = loaded.generate(torch.tensor([[40, 41]]), max_new_tokens=3, do_sample=False)
    assert out.shape[1] > 2


@every_exporter
def test_whoever_may_read_one_file_may_read_all(name, exportable, tmp_path):
    write(name, exportable(name), tmp_path / "out")
    umask = os.umask(0)
    os.umask(umask)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "out").iterdir()}
    assert modes == dict.fromkeys(modes, oct(0o666 & ~umask))


@every_exporter
def test_the_model_is_left_as_it_was(name, exportable, tmp_path):
    e = exportable(name)
    config = e.model.module.config.to_json_string()
    before = {k: v.clone() for k, v in e.model.module.state_dict().items()}
    write(name, e, tmp_path / "out")
    assert (tmp_path / "out" / cases.EXPORTERS[name].file).stat().st_size
    after = e.model.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert e.model.module.config.to_json_string() == config


# All or nothing


@pytest.fixture
def full_disk():
    """A limit on file sizes stands in for a full disk: writes beyond it fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@every_exporter
def test_a_full_disk_leaves_nothing_behind(name, exportable, tmp_path, full_disk):
    with pytest.raises(StorageError, match="Cannot write"):
        write(name, exportable(name), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@every_exporter
def test_a_failed_write_keeps_the_earlier_checkpoint(name, exportable, tmp_path, request):
    e, folder = exportable(name), tmp_path / "out"
    write(name, e, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    request.getfixturevalue("full_disk")
    with pytest.raises(StorageError):
        write(name, e, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@every_exporter
def test_an_earlier_checkpoint_is_replaced_other_files_are_not(name, exportable, tmp_path):
    e, folder = exportable(name), tmp_path / "out"
    folder.mkdir()
    write(name, e, folder)
    (folder / "manifest.json").write_text("of the earlier one")
    (folder / "check-transformers.json").write_text("of the earlier one")
    write(name, e, folder)
    assert not (folder / "manifest.json").exists()
    for file in ("notes.md", ".git/config"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("precious")
        with pytest.raises(StorageError, match=f"{file}, not written with .*another folder") as no:
            write(name, e, folder)
        assert "\n" not in str(no.value)
        assert (folder / file).read_text() == "precious"
        (folder / file).unlink()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(StorageError, match="files of something else"):
        write(name, e, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


@every_exporter
def test_a_place_that_cannot_be_written(name, exportable, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StorageError):
            write(name, exportable(name), place)
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_a_disk_that_is_full_at_the_tokenizer(tiny_export, tiny_folder, tmp_path, request):
    e = tiny_export
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.add_tokens([f"<extra {n}>" for n in range(10_000)])
    model = LoadedModel(e.model.module, tokenizer, e.model.digest, e.model.source)
    request.getfixturevalue("full_disk")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, hard))
    with pytest.raises(StorageError, match=r"Cannot write.*File too large"):
        EXPORTERS.build("fake_quant").write(model, e.allocation, e.bank, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "Free some space or give another place"),
        (SafetensorError(f"Io: {os.strerror(errno.EDQUOT)}"), "Free some space or give another"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied. Give another place"),
    ],
    ids=str,
)
def test_space_is_to_be_freed_where_none_is_left(error, advice, tmp_path):
    with pytest.raises(StorageError, match=advice), replacing_folder(tmp_path / "out"):
        raise error


def test_a_mounted_folder_is_refused_before_anything_is_written(tiny_export, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "out")
    with pytest.raises(StorageError, match=r"out is a mount point, .*: give a folder inside it"):
        write("packed", tiny_export, tmp_path / "out")
    write("packed", tiny_export, tmp_path / "out" / "checkpoint")


def test_the_folder_of_the_model_is_never_replaced(tiny_export, tiny_folder, tmp_path):
    e = tiny_export
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / MARK).write_text("{}")  # an exported checkpoint that is searched again
    model = LoadedModel(e.model.module, e.model.tokenizer, e.model.digest, str(folder))
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link", tmp_path / "model" / ".." / "model"):
        with pytest.raises(StorageError, match="is the folder of the model itself"):
            EXPORTERS.build("fake_quant").write(model, e.allocation, e.bank, place)
    assert (folder / "model.safetensors").read_bytes() == (
        tiny_folder / "model.safetensors"
    ).read_bytes()


@pytest.fixture
def earlier(tmp_path):
    """A checkpoint that is to be replaced."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / MARK).write_text("old")
    return folder


def replace(folder):
    with replacing_folder(folder) as temporary:
        (temporary / MARK).write_text("new")


def test_a_kill_at_any_step_leaves_a_whole_checkpoint(earlier, monkeypatch):
    seen = []

    def noting(step):
        def run(*arguments, **options):
            # What a kill before this step would leave.
            seen.append({p.read_text() for p in earlier.parent.glob(f"*/{MARK}")})
            return step(*arguments, **options)

        return run

    for module, name in ((os, "rename"), (os, "replace"), (os, "rmdir"), (os, "unlink")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    replace(earlier)
    monkeypatch.undo()
    assert len(seen) >= 3
    assert all("old" in left or "new" in left for left in seen)
    assert seen[0] == seen[1] == {"old", "new"}
    assert [path.name for path in earlier.parent.iterdir()] == ["out"]
    assert (earlier / MARK).read_text() == "new"


def test_a_failed_rename_puts_the_earlier_checkpoint_back(earlier, monkeypatch):
    def fail(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return type(self)(os.rename(self, target) or target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        replace(earlier)
    assert [path.name for path in earlier.parent.iterdir()] == ["out"]
    assert (earlier / MARK).read_text() == "old"


def test_a_link_to_a_checkpoint_is_kept(earlier, tmp_path):
    (tmp_path / "latest").symlink_to(earlier)
    replace(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert (earlier / MARK).read_text() == "new"
