"""Tasks: what a model is fed, what of its outputs is scored, and by which loss."""

import copy

import pytest
import torch
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.layers import find_layers, find_pinned, search_space
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.models.tasks import (
    IMAGES,
    TEXT,
    SentenceEmbedding,
    mean_loss,
    run,
    scored_outputs,
    set_task,
    task_named,
    task_of,
)


def test_a_model_is_of_the_task_of_its_class_or_the_one_it_was_given(tiny_llama, tiny_vit):
    assert task_of(tiny_llama) is TEXT
    assert task_of(tiny_vit) is IMAGES
    model = torch.nn.Linear(1, 1)
    set_task(model, SentenceEmbedding("max"))
    assert task_of(copy.deepcopy(model)) == SentenceEmbedding("max")


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["ViTForImageClassification"], "images"),
        (["DeiTForImageClassificationWithTeacher"], "images"),
        (["BertModel"], "sentences"),
        (["LlamaForCausalLM"], "text"),
        (["BertForMaskedLM"], "text"),
        (None, "text"),
        (["GPT2LMHeadModel"], "text"),
        (["BertLMHeadModel"], "text"),
    ],
)
def test_a_configuration_names_its_task(architectures, task):
    assert task_named({"architectures": architectures}) == task


def test_outputs_have_samples_first_and_what_is_scored_second(
    tiny_llama, tiny_tokens, tiny_vit, unseen_digits, tiny_bert, sentences
):
    assert run(tiny_llama, tiny_tokens[:2, :9]).shape == (2, 9, 512)
    assert scored_outputs(tiny_llama, tiny_tokens[0, :9]).shape == (8, 512)
    assert run(tiny_vit, unseen_digits[0][:2]).shape == (2, 1, 10)
    assert scored_outputs(tiny_vit, unseen_digits[0][0]).shape == (1, 10)
    assert run(tiny_bert, sentences[:2]).shape == (2, 1, 64)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_changes_no_embedding(pooling, tiny_bert, sentences):
    task = SentenceEmbedding(pooling)
    with torch.no_grad():
        together = task.outputs(tiny_bert, sentences[:6])[:, 0]
        for sentence, expected in zip(sentences, together, strict=False):
            alone = sentence[sentence >= 0]
            found = task.outputs(tiny_bert, alone[None])[0, 0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert together.norm(dim=1).sub(1).abs().max() < 1e-5
    assert (together @ together.T).min() < 0.95  # sentences differ


def test_an_unknown_pooling_is_refused():
    with pytest.raises(InvalidArgument, match="'last': use mean, cls, max"):
        SentenceEmbedding("last")


def test_own_targets_have_no_slope_and_curve_upwards(tiny_vit, unseen_digits, tiny_bert, sentences):
    for model, sample in ((tiny_vit, unseen_digits[0][0]), (tiny_bert, sentences[0])):
        weight = find_layers(model)[0].name
        parameter = model.get_submodule(weight).weight
        slope = torch.autograd.grad(mean_loss(model, sample), parameter)[0]
        assert slope.abs().max() < 1e-5
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        losses = []
        for step in (0.0, 0.02):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                changed.get_submodule(weight).weight += step * direction
            task = task_of(model)
            target = task.targets(sample, scored_outputs(model, sample))
            losses.append(task.loss(scored_outputs(changed, sample), target).item())
        assert losses[1] > losses[0]


def test_the_head_of_a_classifier_is_pinned(tiny_vit):
    assert [x.name for x in find_pinned(tiny_vit)] == ["classifier"]
    names = [x.name for x in find_layers(tiny_vit)]
    assert len(names) == 19
    assert names[0] == "vit.embeddings.patch_embeddings.projection"
    assert "classifier" not in names
    space = search_space(tiny_vit, (named("int4_g32"),), named("int8_g32"), tied=True)
    assert {x.group.rpartition(".")[2] for x in space.layers} == {
        "projection", "k_proj+q_proj+v_proj", "o_proj", "fc1", "fc2",
    }  # fmt: skip


def test_block_by_block_is_the_whole_model(tiny_vit, unseen_digits):
    reference = Reference.of(tiny_vit, unseen_digits[0][:3])
    assert reference.top_k == 10
    with BlockStart(tiny_vit, reference) as start:
        start.move_to(2)
        assert start.kl() == 0.0
        assert torch.equal(start.logits(1), scored_outputs(tiny_vit, reference.tokens[1]))
        assert start.block_of("classifier") == start.n_blocks == 3


def build(kind):
    torch.manual_seed(0)
    if kind == "deit":
        config = DeiTConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=16, patch_size=4, num_labels=10,
        )  # fmt: skip
        return DeiTForImageClassification(config).eval()
    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=32, depths=[2, 2], num_heads=[2, 2], window_size=4,
        num_labels=10,
    )  # fmt: skip
    return SwinForImageClassification(config).eval()


@pytest.mark.parametrize(("kind", "size", "n_layers"), [("deit", 16, 13), ("swin", 32, 26)])
def test_other_vision_transformers_have_layers(kind, size, n_layers):
    model = build(kind)
    assert len(find_layers(model)) == n_layers
    assert len(find_pinned(model)) == 1
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with BlockStart(model, Reference.of(model, pixels)) as start:
        start.move_to(1)
        assert start.kl() == 0.0
