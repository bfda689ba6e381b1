"""What every exporter promises: the claimed size and logits, and all of a folder or nothing."""

import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitfront import formats
from bitfront.errors import StorageError
from bitfront.export import EXPORTERS
from bitfront.export.base import MARK, replacing_folder
from bitfront.models.load import LoadedModel
from tests import cases
from tests.export.exports import Export, stored_bytes
from tests.models.test_layers import FAMILIES, build

every_exporter = pytest.mark.parametrize("name", cases.EXPORTERS)


def logits(module, tokens):
    with torch.no_grad():
        return module(tokens).logits.float()


def relative_error(values, expected):
    return float((values - expected).norm() / expected.norm())


@every_exporter
def test_loaded_logits_are_those_of_the_patched_model(name, tiny_export, tiny_tokens, tmp_path):
    e = tiny_export
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    _, tolerance = cases.EXPORTERS[name]
    expected = logits(e.expected(), tiny_tokens[:2])
    assert relative_error(logits(loaded, tiny_tokens[:2]), expected) <= tolerance
    # not because the formats change nothing
    assert relative_error(logits(e.model.module, tiny_tokens[:2]), expected) > 0.05


@every_exporter
def test_size_is_the_claimed_one(name, tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    size, _ = cases.EXPORTERS[name]
    expected = {
        "counted": e.space.outside_bytes
        + sum(formats.named(e.allocation.formats[x.name]).nbytes(x.shape) for x in e.space.layers),
        "16 bits": 2 * sum(p.numel() for p in e.model.module.parameters()),
    }
    assert sum(stored_bytes(tmp_path / "out").values()) == expected[size]


@every_exporter
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_again(name, family, tiny_tokenizer, tmp_path):
    menu = tuple(map(formats.named, ("int4_channel", "int3_channel", "bf16")))
    module = build(family)
    e = Export.of(module, tiny_tokenizer, menu, formats.named("int8_g64"))
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded, found = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    tokens = torch.arange(2 * 9).view(2, 9) * 5 % 96
    _, tolerance = cases.EXPORTERS[name]
    error = relative_error(logits(loaded, tokens), logits(e.expected(), tokens))
    assert error <= max(tolerance, 1e-5)


@every_exporter
def test_without_pinned_layers(name, tiny_llama, tiny_tokenizer, tiny_tokens, tmp_path):
    e = Export.of(tiny_llama, tiny_tokenizer, (formats.named("int4_g64"),), None)
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    _, tolerance = cases.EXPORTERS[name]
    expected = logits(e.expected(), tiny_tokens[:1])
    assert relative_error(logits(loaded, tiny_tokens[:1]), expected) <= tolerance


@every_exporter
def test_the_folder_is_complete(name, tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "deep" / "out")
    folder = tmp_path / "deep" / "out"
    assert json.loads((folder / "bitfront.json").read_text())["formats"] == e.allocation.formats
    assert AutoTokenizer.from_pretrained(folder)("Alice")["input_ids"]
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.eos_token_id == 0
    out = loaded.generate(torch.tensor([[40, 41]]), max_new_tokens=3, do_sample=False)
    assert out.shape[1] > 2


@every_exporter
def test_the_model_is_left_as_it_was(name, tiny_export, tmp_path):
    e = tiny_export
    config = e.model.module.config.to_json_string()
    before = {k: v.clone() for k, v in e.model.module.state_dict().items()}
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    after = e.model.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert e.model.module.config.to_json_string() == config


# All or nothing


@pytest.fixture
def full_disk():
    """A limit on file sizes stands in for a full disk: writes beyond it fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@every_exporter
def test_a_full_disk_leaves_nothing_behind(name, tiny_export, tmp_path, full_disk):
    e = tiny_export
    with pytest.raises(StorageError, match="Cannot write"):
        EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@every_exporter
def test_a_failed_write_keeps_the_earlier_checkpoint(name, tiny_export, tmp_path, request):
    e, folder = tiny_export, tmp_path / "out"
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, folder)
    before = stored_bytes(folder)
    request.getfixturevalue("full_disk")
    with pytest.raises(StorageError):
        EXPORTERS.build(name).write(e.model, e.allocation, e.bank, folder)
    assert stored_bytes(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@every_exporter
def test_an_earlier_checkpoint_is_replaced_other_files_are_not(name, tiny_export, tmp_path):
    e, folder = tiny_export, tmp_path / "out"
    folder.mkdir()
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, folder)
    (folder / "stale").write_text("")
    EXPORTERS.build(name).write(e.model, e.allocation, e.bank, folder)
    assert not (folder / "stale").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(StorageError, match="files of something else"):
        EXPORTERS.build(name).write(e.model, e.allocation, e.bank, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


@every_exporter
def test_a_place_that_cannot_be_written(name, tiny_export, tmp_path):
    e = tiny_export
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StorageError):
            EXPORTERS.build(name).write(e.model, e.allocation, e.bank, place)
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
