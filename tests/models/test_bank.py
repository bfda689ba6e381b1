"""WeightBank: what is stored, what is shared, and what is never mistaken."""

import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from bitfront.errors import InvalidArgument, MismatchedArtifact, NonFinite, StorageError
from bitfront.formats import named
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mixed import Mixed
from bitfront.models.bank import WeightBank, format_digest
from bitfront.models.layers import get_weight, search_space
from bitfront.quantizers.base import Quantizer
from bitfront.quantizers.rtn import Rtn

PLAIN = Rtn(clip_steps=0)


@pytest.fixture(scope="module")
def space(tiny_llama):
    whole = search_space(
        tiny_llama, (named("int2_g64"), named("int3_g64")), named("int8_g64"), tied=False
    )
    return replace(whole, layers=whole.layers[:3])


@pytest.fixture
def build(tmp_path, tiny_llama, space):
    def build(**changes):
        arguments = {"model": tiny_llama, "space": space, "quantizer": PLAIN} | changes
        return WeightBank.build(tmp_path, **arguments)

    return build


def files(directory):
    return {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}


def layers_of(space):
    return [(x, f) for x in space.layers for f in space.formats] + list(space.pinned)


def test_holds_every_layer_in_every_format_as_the_quantizer_made_it(build, tiny_llama, space):
    bank = build()
    assert len(bank.entries) == 3 * 2 + 1
    for layer, format in layers_of(space):
        made = PLAIN.quantize(get_weight(tiny_llama, layer.name).float(), format)
        assert torch.equal(bank.weight(layer.name, format.name), made.dequantize())


def test_takes_the_bytes_the_format_promises(build, space):
    bank = build()
    for layer, format in layers_of(space):
        stored = bank.tensors(layer.name, format.name).values()
        assert sum(t.nbytes for t in stored) == format.nbytes(layer.shape)


def test_second_build_writes_nothing(build):
    first = build()
    before = files(first.directory)
    assert build().digest == first.digest
    assert files(first.directory) == before


def test_formats_that_do_not_fit_are_left_out(tmp_path, tiny_llama, space):
    wide = replace(space, formats=(*space.formats, named("int4_g128")))
    bank = WeightBank.build(tmp_path, tiny_llama, wide, PLAIN)
    held = {name for name, format in bank.entries if format == "int4_g128"}
    assert held == {x.name for x in space.layers if x.shape[1] % 128 == 0}


def test_another_menu_shares_the_common_entries(build, space):
    first = build()
    second = build(space=replace(space, formats=(space.formats[0], named("int4_g64"))))
    common = [key for key in first.entries if key in second.entries]
    assert len(common) == 3 + 1
    assert all(first.entries[key] == second.entries[key] for key in common)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])]
)
def test_damaged_entries_are_made_anew(build, space, damage):
    bank = build()
    layer, format = space.layers[0].name, space.formats[0].name
    good = bank.weight(layer, format).clone()
    path = next(bank.directory.rglob(f"{bank.entries[layer, format]}*"))
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(build().weight(layer, format), good)


def test_a_changed_weight_changes_its_entries_only(build, tiny_llama, space):
    before = build().entries
    weight = get_weight(tiny_llama, space.layers[0].name)
    kept = weight[0, 0].item()
    weight[0, 0] = 1.0
    try:
        after = build().entries
    finally:
        weight[0, 0] = kept
    changed = {
        layer for layer, _ in before if any(before[k] != after[k] for k in before if k[0] == layer)
    }
    assert changed == {space.layers[0].name}


def test_quantizer_parameters_and_version_are_part_of_the_name(build, monkeypatch):
    plain, clipped = build(), build(quantizer=Rtn(clip_steps=2))
    monkeypatch.setattr(Rtn, "version", 99)
    newer = build()
    for other in (clipped, newer):
        assert not set(plain.entries.values()) & set(other.entries.values())


def test_a_format_that_behaves_differently_under_its_old_name_is_another_entry(build, monkeypatch):
    before = build()
    rounded = IntGrouped.rounded
    monkeypatch.setattr(IntGrouped, "rounded", lambda self, x: rounded(self, x - 0.25))
    after = build()
    assert not set(before.entries.values()) & set(after.entries.values())


@dataclass(frozen=True)
class Calibrated(Quantizer):
    """Round to nearest of the weight plus the Gram matrix's first entry."""

    needs_hessian: ClassVar[bool] = True

    def rounded(self, weight, format, hessian):
        return PLAIN.quantize(weight + hessian[0, 0], format)


def test_gram_matrix_is_part_of_the_name_and_layers_without_one_are_rounded(build, space):
    name = space.layers[0].name
    ones, twos = (
        build(quantizer=Calibrated(), hessians={name: n * torch.eye(space.layers[0].shape[1])})
        for n in (1, 2)
    )
    differing = {
        layer for layer, _ in ones.entries if ones.entries[layer, _] != twos.entries[layer, _]
    }
    assert differing == {name}
    assert set(ones.entries.values()) & set(build(quantizer=Rtn()).entries.values())


def test_what_only_wide_weights_show_is_part_of_the_digest_of_a_format(monkeypatch):
    """Or entries of an earlier definition would be taken for those of this one."""
    names = ("slim3_g64", "int2x4_g32", "int4_g64_had", "higgs_n16p2_channel", "int4_g64")
    before = {name: format_digest(named(name)) for name in names}
    order = Mixed.order
    monkeypatch.setattr(Mixed, "order", lambda self, salience: order(self, -salience))
    monkeypatch.setattr("bitfront.formats._rotation.BLOCK", 128)
    changed = {name for name in names if format_digest(named(name)) != before[name]}
    assert changed == set(names[:-1])


def test_progress_counts_every_entry(build):
    steps = []
    build(progress=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 7) for n in range(1, 8)]


def test_disk_full_leaves_nothing_behind(build, tmp_path, monkeypatch):
    write = Path.write_bytes

    def fail(self, data):
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError, match="No space left"):
        build()
    assert not files(tmp_path)


def test_nan_names_the_layer(build, tiny_llama, space):
    weight = get_weight(tiny_llama, space.layers[1].name)
    kept = weight[0, 0].item()
    weight[0, 0] = torch.nan
    try:
        with pytest.raises(NonFinite, match=space.layers[1].name):
            build()
    finally:
        weight[0, 0] = kept


def test_unknown_entry_lists_what_is_held(build, space):
    with pytest.raises(InvalidArgument, match="int2_g64, int3_g64"):
        build().weight(space.layers[0].name, "int7_g64")


def test_removed_file_is_reported(build, space):
    bank = build()
    for path in files(bank.directory):
        path.unlink()
    with pytest.raises(MismatchedArtifact, match="run `bitfront search` again"):
        bank.weight(space.layers[0].name, "int2_g64")


def test_rounding_takes_one_thread_and_gives_the_others_back(tmp_path, tiny_llama, space):
    """Short operations on several threads wait for each other whenever the machine is busy."""
    seen = set()

    class Watched(Rtn):
        def rounded(self, weight, format, hessian):
            seen.add(torch.get_num_threads())
            return super().rounded(weight, format, hessian)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        WeightBank.build(tmp_path, tiny_llama, space, Watched())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_a_gpu_decodes_what_it_holds_to_the_same_bits(tmp_path, tiny_llama, space, monkeypatch):
    """Interpreted here: the packed tensors go over, and the weight is that of the processor."""
    names = (
        "int2_g64",
        "int3_g64_sym",
        "int5_channel",
        "nf4_g64",
        "fp8_e4m3",
        "mxfp4",
        "nvfp4",
        "int4_g32_had",
    )
    menu = tuple(map(named, (*names, "bf16")))
    whole = replace(space, layers=space.layers[:1], formats=menu, pinned=())
    bank = WeightBank.build(tmp_path, tiny_llama, whole, PLAIN)
    layer = whole.layers[0].name
    expected = {format.name: bank.weight(layer, format.name) for format in menu}
    for module in ("models.bank", "kernels.dequant_matmul"):
        monkeypatch.setattr(f"bitfront.{module}.can_run_triton", lambda device: True)
    monkeypatch.setattr("bitfront.packing.unpack", None)  # what decodes on a processor
    for name in names:
        assert torch.equal(bank.weight(layer, name), expected[name]), name
    assert torch.equal(bank.weight(layer, "bf16"), expected["bf16"])
