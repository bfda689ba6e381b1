"""PatchedModel: swaps only differences and always puts the originals back."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.fixed import FixedTensors
from bitfront.models.layers import get_weight, search_space
from bitfront.models.patch import PatchedModel
from bitfront.quantizers.rtn import Rtn


def banked(model, directory):
    menu = (named("int2_g64"), named("int4_g64"))
    space = search_space(model, menu, named("int8_g64"), tied=False)
    return WeightBank.build(directory, model, space, Rtn(clip_steps=0))


@pytest.fixture(scope="module")
def bank(tiny_llama, tmp_path_factory):
    return banked(tiny_llama, tmp_path_factory.mktemp("bank"))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, before):
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def unchanged(tiny_llama):
    before = state(tiny_llama)
    yield
    assert_same(tiny_llama, before)


@pytest.mark.usefixtures("unchanged")
def test_every_layer_holds_its_format_and_gets_its_weight_back(tiny_llama, bank):
    with PatchedModel(tiny_llama, bank) as patched:
        for column in (0, 1):
            allocation = bank.space.decode(bank.space.uniform(column))
            patched.apply(allocation)
            for layer, format in allocation.formats.items():
                assert torch.equal(get_weight(tiny_llama, layer), bank.weight(layer, format))


@pytest.mark.usefixtures("unchanged")
def test_originals_come_back_after_an_exception(tiny_llama, bank):
    allocation = bank.space.decode(bank.space.uniform(0))

    def fail():
        with PatchedModel(tiny_llama, bank) as patched:
            patched.apply(allocation)
            raise RuntimeError("forward failed")

    with pytest.raises(RuntimeError, match="forward failed"):
        fail()


@pytest.mark.usefixtures("unchanged")
def test_originals_come_back_when_an_entry_is_missing(tiny_llama, bank):
    first, second = (x.name for x in bank.space.layers[:2])
    with pytest.raises(InvalidArgument, match="int9"), PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({first: "int2_g64", second: "int9"}))


@pytest.mark.usefixtures("unchanged")
def test_only_differences_are_read(tiny_llama, bank, monkeypatch):
    read = []
    weight = WeightBank.weight
    monkeypatch.setattr(WeightBank, "weight", lambda *args: read.append(args[1:3]) or weight(*args))
    first, second = (x.name for x in bank.space.layers[:2])
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({first: "int2_g64", second: "int2_g64"}))
        read.clear()
        patched.apply(Allocation({first: "int2_g64", second: "int4_g64"}))
        assert read == [(second, "int4_g64")]


@pytest.mark.usefixtures("unchanged")
def test_layers_no_longer_named_get_their_own_weight_back(tiny_llama, bank):
    first, second = (x.name for x in bank.space.layers[:2])
    before = state(tiny_llama)
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({first: "int2_g64"}))
        patched.apply(Allocation({second: "int2_g64"}))
        assert torch.equal(get_weight(tiny_llama, first), before[f"{first}.weight"])
        assert not torch.equal(get_weight(tiny_llama, second), before[f"{second}.weight"])


@pytest.mark.usefixtures("unchanged")
def test_a_whole_allocation_has_norms_as_a_checkpoint_stores_them(tiny_llama, bank):
    norm, weight = tiny_llama.model.norm.weight, tiny_llama.model.norm.weight.clone()
    stored = weight.bfloat16().float()
    assert not torch.equal(weight, stored)
    whole = bank.space.decode(bank.space.uniform(0))
    alone = {x: f for x, f in whole.formats.items() if x != "model.embed_tokens"}
    with PatchedModel(tiny_llama, bank, as_stored=True) as patched:
        for formats, held in ((alone, weight), (whole.formats, stored), (alone, weight)):
            patched.apply(Allocation(formats))
            assert torch.equal(norm, held)
        patched.apply(whole)
    with PatchedModel(tiny_llama, bank) as patched:  # as estimators ask
        patched.apply(whole)
        assert torch.equal(norm, weight)


@pytest.mark.usefixtures("unchanged")
def test_what_a_base_has_too_is_not_stored_and_stays(tiny_llama, bank):
    base = copy.deepcopy(tiny_llama)
    name = "model.layers.0.input_layernorm.weight"
    with torch.no_grad():
        base.get_parameter(name).add_(1)
    fixed = FixedTensors(tiny_llama, bank.space, base)
    before = state(tiny_llama)
    fixed.round()
    changed = {x for x, t in tiny_llama.state_dict().items() if not torch.equal(t, before[x])}
    fixed.restore()
    assert changed == {name}


@pytest.mark.usefixtures("unchanged")
def test_tied_head_follows_the_embedding(tiny_llama, bank):
    ((embedding, format),) = bank.space.pinned
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({embedding.name: format.name}))
        quantized = bank.weight(embedding.name, format.name)
        assert torch.equal(tiny_llama.get_output_embeddings().weight, quantized)


def test_conv1d_and_bfloat16_keep_layout_and_dtype(tmp_path):
    config = GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=2, n_positions=32)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval().to(torch.bfloat16)
    before, bank = state(model), banked(model, tmp_path)
    with PatchedModel(model, bank) as patched:
        patched.apply(bank.space.decode(bank.space.uniform(0)))
        layer = next(x for x in bank.space.layers if x.shape[0] != x.shape[1])
        held = model.get_submodule(layer.name).weight
        assert torch.equal(held, bank.weight(layer.name, "int2_g64").T.to(torch.bfloat16))
    assert_same(model, before)
