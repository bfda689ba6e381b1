"""BlockStart: the same predictions as the whole model, without running the earlier blocks."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitfront.models.layers import blocks, find_layers, get_weight
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.models.tasks import scored_outputs

TINY = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 128},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"word_embed_proj_dim": 16, "max_position_embeddings": 128},
    "bert": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    | {"num_attention_heads": 2, "max_position_embeddings": 128, "is_decoder": True},
}
# Layers outside the blocks, by the number of blocks that run before them.
OUTSIDE = {
    "llama": {"model.embed_tokens": 0, "lm_head": 0},  # tied: the head is the embedding
    "gpt2": {"transformer.wte": 0},
    "opt": {"model.decoder.project_in": 0, "model.decoder.project_out": 3},
    "bert": {"cls.predictions.transform.dense": 3},
}


@pytest.fixture(params=OUTSIDE)
def family(request):
    return request.param


@pytest.fixture
def model(family, tiny_llama):
    if family == "llama":
        return tiny_llama
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=512, **TINY[family])
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def reference(model, tiny_tokens):
    return Reference.of(model, tiny_tokens[:2], top_k=64)


def test_predictions_from_any_block_are_those_of_the_whole_model(model, reference):
    with BlockStart(model, reference) as start:
        for block in range(start.n_blocks + 1):
            start.move_to(block)
            for index, sequence in enumerate(reference.tokens):
                assert torch.equal(start.logits(index), scored_outputs(model, sequence))


def test_changes_of_any_layer_are_seen(model, reference):
    layers = [x.name for x in find_layers(model)]
    with BlockStart(model, reference) as start:
        for index in start.visit(layers):
            name = layers[index]
            assert start.kl() == 0
            weight = get_weight(model, name)
            kept = weight.clone()
            try:
                weight.mul_(0.5)
                expected = reference.kl(scored_outputs(model, reference.tokens[1]), 1)
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
    measured, moved, checked = n * (n + 1) // 2, n - 1, n * (n - 1) // 2
    assert len(forwards) == sequences * (measured + moved) + checked


def test_nothing_is_skipped_where_that_would_change_predictions(tiny_tokens):
    """XLM adds each block's output outside the block, so one output does not hold the earlier."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("xlm", vocab_size=512, emb_dim=32, n_layers=3, n_heads=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    reference = Reference.of(model, tiny_tokens[:2, :32], top_k=64)
    layers = [x.name for x in find_layers(model)]
    assert {name.split(".")[1] for name in layers} == {"attentions", "ffns"}
    with BlockStart(model, reference) as start:
        for _ in start.visit(layers):
            assert start.kl() == 0


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


def test_layers_outside_the_blocks_start_where_they_first_run(model, family, reference):
    start = BlockStart(model, reference)
    assert {name: start.block_of(name) for name in OUTSIDE[family]} == OUTSIDE[family]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_layers_are_visited_by_block_whatever_their_order(model, reference):
    names = [x.name for x in find_layers(model)][::-1]
    with BlockStart(model, reference) as start:
        visited = [(index, start._at) for index in start.visit(names)]
    assert sorted(index for index, _ in visited) == list(range(len(names)))
    assert [at for _, at in visited] == [start.block_of(names[index]) for index, _ in visited]
    assert visited[0][1] == 0
