"""Output gradients by hooks: true on every layout of layers, and nothing of the model changes."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
)

from bitfront.errors import InvalidText, NonFinite
from bitfront.formats import named
from bitfront.models import gradients
from bitfront.models.gradients import frozen, visit_gradients, weight_gradients
from bitfront.models.layers import get_weight, search_space
from bitfront.models.losses import LabelLoss

SIZES = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=32, **SIZES))


def opt(word_embed_proj_dim=64):
    sizes = {"hidden_size": 64, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OPTConfig(
        word_embed_proj_dim=word_embed_proj_dim,
        max_position_embeddings=32,
        pad_token_id=2,
        **sizes,
        **SIZES,
    )
    return OPTForCausalLM(config)


def narrow_opt():
    """Projections before and after the blocks."""
    return opt(word_embed_proj_dim=32)


def bert():
    """A linear between the blocks and the head."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    return BertLMHeadModel(
        BertConfig(
            num_attention_heads=2, max_position_embeddings=32, is_decoder=True, **sizes, **SIZES
        )
    )


@pytest.fixture
def tiny_space(tiny_llama):
    return search_space(tiny_llama, (named("int4_g64"),), None, tied=False)


@pytest.mark.parametrize("make", [gpt2, opt, narrow_opt, bert])
def test_weight_gradients_of_single_sequences_match_autograd(make):
    torch.manual_seed(0)
    model = make().eval()
    tokens = torch.randint(3, 64, (3, 16))
    space = search_space(model, (named("int4_g32"),), None, tied=False)
    assert sum(x.block < 0 for x in space.layers) == {narrow_opt: 2, bert: 1}.get(make, 0)
    found = {}

    def visit(row, inputs, gradients):
        found[space.layers[row].name] = weight_gradients(inputs, gradients)

    visit_gradients(model, tokens, space, LabelLoss.of(tokens, "text", 1, 0), visit)
    assert set(found) == {layer.name for layer in space.layers}
    for index, sequence in enumerate(tokens):
        logits = model(tokens).logits[index, :-1]
        cross_entropy(logits, sequence[1:], reduction="sum").backward()
        for name, gradient in found.items():
            # GPT-2's Conv1D keeps its weight as [in_features, out_features].
            expected = model.get_submodule(name).weight.grad
            expected = expected.T if make is gpt2 else expected
            torch.testing.assert_close(gradient[index], expected, rtol=1e-3, atol=1e-5)
        model.zero_grad()


def test_nothing_of_the_model_changes(tiny_llama, tiny_tokens, tiny_space):
    flags = {name: p.requires_grad for name, p in tiny_llama.named_parameters()}
    tiny_llama.train()
    first = next(tiny_llama.parameters()).requires_grad_(False)
    with frozen(tiny_llama):
        assert not tiny_llama.training
    assert tiny_llama.training
    assert not first.requires_grad
    tiny_llama.eval()
    first.requires_grad_(True)
    loss = LabelLoss.of(tiny_tokens[:1], "model", 1, 0)
    visit_gradients(tiny_llama, tiny_tokens[:1], tiny_space, loss, lambda *_: None)
    assert flags == {name: p.requires_grad for name, p in tiny_llama.named_parameters()}
    assert all(p.grad is None for p in tiny_llama.parameters())
    assert not any(m._forward_hooks for m in tiny_llama.modules())


def test_overflow_names_the_first_layer_it_meets(tiny_llama, tiny_tokens, tiny_space):
    name = tiny_space.layers[4].name
    weight = get_weight(tiny_llama, name)
    value = weight[0, 0].item()
    weight[0, 0] = float("inf")
    loss = LabelLoss.of(tiny_tokens[:1], "text", 1, 0)
    try:
        with pytest.raises(NonFinite, match=name):
            visit_gradients(tiny_llama, tiny_tokens[:1], tiny_space, loss, lambda *_: None)
    finally:
        weight[0, 0] = value


def test_overflow_of_a_gradient_names_a_layer(tiny_llama, tiny_tokens, tiny_space):
    def explode(logits, _rows, _draw):
        return torch.full_like(logits, float("inf"))

    with pytest.raises(NonFinite, match=r"gradient of layer '.*down_proj'"):
        visit_gradients(tiny_llama, tiny_tokens[:1], tiny_space, explode, lambda *_: None)


def test_dead_layers_have_zero_gradients(tiny_llama, tiny_tokens, tiny_space):
    def flat(logits, _rows, _draw):
        return torch.zeros_like(logits)

    sums = []
    visit_gradients(
        tiny_llama,
        tiny_tokens[:1],
        tiny_space,
        flat,
        lambda _row, _inputs, gradients: sums.append(float(gradients.abs().sum())),
    )
    assert sums == [0.0] * len(tiny_space.layers)


def test_progress_ends_at_the_total(tiny_llama, tiny_tokens, tiny_space, monkeypatch):
    monkeypatch.setattr(gradients, "TOKENS_PER_PASS", 128)
    steps = []
    loss = LabelLoss.of(tiny_tokens[:3], "text", 1, 0)
    visit_gradients(
        tiny_llama,
        tiny_tokens[:3],
        tiny_space,
        loss,
        lambda *_: None,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("shape", [(0, 8), (2, 1)])
def test_refuses_too_little_text(shape, tiny_llama, tiny_space):
    tokens = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InvalidText, match="more or longer text"):
        visit_gradients(tiny_llama, tokens, tiny_space, lambda *_: None, lambda *_: None)
