"""BlockStart: the same predictions as the whole model, without running the earlier blocks."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bitfront.models.layers import blocks, find_layers, get_weight
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference, next_token_logits


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tiny_llama):
    if request.param == "llama":
        return tiny_llama
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=512, n_embd=32, n_layer=3, n_head=2, n_positions=128)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def reference(model, tiny_tokens):
    return Reference.of(model, tiny_tokens[:2], top_k=64)


def test_predictions_from_any_block_are_those_of_the_whole_model(model, reference):
    with BlockStart(model, reference) as start:
        for block in range(start.n_blocks):
            start.move_to(block)
            for index, sequence in enumerate(reference.tokens):
                assert torch.equal(start.logits(index), next_token_logits(model, sequence))


def test_changes_in_later_blocks_are_seen(model, reference):
    name = find_layers(model)[-1].name
    weight = get_weight(model, name)
    kept = weight.clone()
    with BlockStart(model, reference) as start:
        start.move_to(start.block_of(name))
        assert start.kl() == 0
        try:
            weight.mul_(0.5)
            expected = reference.kl(next_token_logits(model, reference.tokens[1]), 1)
            assert torch.equal(reference.kl(start.logits(1), 1), expected)
            assert start.kl() > 0
        finally:
            weight.copy_(kept)


def test_a_pass_over_all_blocks_runs_about_half_of_them(model, reference):
    ran = []
    original = type(blocks(model)[0]).forward
    hooks = [b.register_forward_hook(lambda m, i, o: ran.append(m)) for b in blocks(model)]
    forwards = []
    for block in blocks(model):
        block.forward = lambda *a, _b=block, **k: forwards.append(1) or original(_b, *a, **k)
    try:
        with BlockStart(model, reference) as start:
            for block in range(start.n_blocks):
                start.move_to(block)
                start.kl()
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks(model):
            del block.forward
    n, sequences = len(blocks(model)), len(reference.tokens)
    measured, moved = n * (n + 1) // 2, n - 1
    assert len(forwards) == sequences * (measured + moved)


def test_forwards_are_put_back_after_exceptions(model, reference):
    def fail(*_):
        raise RuntimeError("interrupted")

    with BlockStart(model, reference) as start:
        start.move_to(1)
        hook = blocks(model)[1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="interrupted"):
            start.logits(0)
        hook.remove()
    assert not any("forward" in block.__dict__ for block in blocks(model))
    assert not any(block._forward_hooks for block in blocks(model))


def test_layers_outside_the_blocks_start_at_the_first(model, reference):
    start = BlockStart(model, reference)
    assert start.block_of("lm_head") == 0
    names = [x.name for x in find_layers(model)]
    assert start.order(names[::-1])[0] != 0
