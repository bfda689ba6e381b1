"""Input statistics: true means over the tokens a layer saw, shared where inputs are shared."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bitfront.errors import NonFinite
from bitfront.models.layers import find_layers
from bitfront.models.statistics import (
    InputGrams,
    _GramSums,
    _RelativeGramSums,
    counts_relative,
    input_grams,
)
from bitfront.models.tasks import CausalText
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.kmeans import Kmeans
from bitfront.quantizers.rtn import Rtn

TOKENS = torch.randint(32, (3, 16), generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Two linears on one tensor, one on an equal copy, and one that sees only some tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(32, 8)
        self.a, self.b, self.copied, self.some = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, input_ids, use_cache):
        x = self.embed(input_ids)
        self.a(x), self.b(x), self.copied(x.clone())
        chosen = x[input_ids < 4]
        if len(chosen):
            self.some(chosen)
        return SimpleNamespace(logits=x)


@pytest.fixture
def branches():
    torch.manual_seed(0)
    return Branches()


def expected(x):
    x = x.detach().reshape(-1, x.shape[-1]).double()
    return (x.T @ x / max(len(x), 1)).float()


def test_gram_is_the_mean_over_tokens(branches):
    grams = input_grams(branches, TOKENS, ["a", "some"])
    x = branches.embed(TOKENS)
    torch.testing.assert_close(grams["a"], expected(x))
    # The layer that sees few tokens is averaged over those, not over all.
    torch.testing.assert_close(grams["some"], expected(x[TOKENS < 4]))


def test_layers_reading_one_tensor_share_one_gram(branches):
    grams = input_grams(branches, TOKENS, ["a", "b", "copied"])
    assert grams["a"] is grams["b"]
    assert grams["copied"] is not grams["a"]
    torch.testing.assert_close(grams["copied"], grams["a"])


def test_sharing_of_the_tiny_llama_follows_its_groups(tiny_llama, tiny_tokens):
    layers = find_layers(tiny_llama, tied=True)
    grams = input_grams(tiny_llama, tiny_tokens[:1], [x.name for x in layers])
    by_gram = {}
    for layer in layers:
        by_gram.setdefault(id(grams[layer.name]), set()).add(layer.group)
    assert len(by_gram) == len({x.group for x in layers})


def test_a_layer_without_tokens_gets_zeros(branches):
    grams = input_grams(branches, TOKENS.clamp(min=4), ["some"])
    assert torch.equal(grams["some"], torch.zeros(8, 8))


def test_relative_grams_count_each_position_by_the_size_of_its_output(branches):
    x = branches.embed(TOKENS).detach()
    grams = input_grams(branches, TOKENS, ["a", "b"], relative=True)
    for name in ("a", "b"):  # one input, an output each
        outputs = branches.get_submodule(name)(x)
        torch.testing.assert_close(
            grams[name], expected(x / outputs.norm(dim=-1, keepdim=True)).detach()
        )


def test_relative_grams_are_finite_where_nothing_is_put_out(branches):
    with torch.no_grad():
        branches.a.weight[:], branches.a.bias[:] = 0, 0
        branches.b.bias[:] = 0
        branches.embed.weight[:4] = 0
    grams = input_grams(branches, TOKENS, ["a", "b", "some"], relative=True)
    assert all(gram.isfinite().all() for gram in grams.values())
    assert not grams["some"].any()


@pytest.mark.parametrize("relative", [False, True])
def test_a_call_without_positions_adds_nothing(relative):
    model = nn.Sequential(nn.Linear(8, 4))
    sums = (_RelativeGramSums if relative else _GramSums)(CausalText())
    model[0].register_forward_hook(sums.hook("0"))
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    model(x), model(x[:0])
    assert sums.mean("0").isfinite().all()
    assert sums.mean("0").any()


def test_an_infinite_output_is_refused_and_not_left_out(branches):
    with torch.no_grad():
        branches.a.bias[0] = torch.inf
    with pytest.raises(NonFinite, match="output of layer 'a'"):
        input_grams(branches, TOKENS, ["a"], relative=True)


def test_models_with_a_norm_after_each_sum_count_relative(tiny_bert, tiny_llama):
    assert [counts_relative(m, Gptq()) for m in (tiny_bert, tiny_llama)] == [True, False]
    assert not counts_relative(tiny_bert, Gptq(relative=False))
    assert counts_relative(tiny_llama, Gptq(relative=True))
    assert [counts_relative(tiny_bert, Kmeans(by)) for by in ("inputs", "gradients")] == [
        True,
        False,
    ]
    assert not counts_relative(tiny_bert, Rtn())


def test_hooks_are_removed_even_after_errors(branches):
    with torch.no_grad():
        branches.embed.weight[7] = torch.nan
    with pytest.raises(NonFinite, match="'a'"):
        input_grams(branches, torch.full((1, 4), 7), ["a", "b"])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in branches.modules())


def test_lazy_grams_hold_a_bounded_run_of_layers(branches):
    names = ["a", "b", "copied", "some"]
    tokens = TOKENS % 8
    lazy = InputGrams(branches, tokens, dict.fromkeys(names, 8), max_bytes=2 * 4 * 8 * 8)
    passes = []
    branches.register_forward_pre_hook(lambda *_: passes.append(1))
    eager = input_grams(branches, tokens, names)
    passes.clear()
    for name in names:
        torch.testing.assert_close(lazy[name], eager[name])
    assert len(passes) == 2 * len(tokens)
    assert list(lazy) == names


def test_lazy_grams_do_not_know_other_layers(branches):
    assert InputGrams(branches, TOKENS, {"a": 8}).get("embed") is None
