"""What is timed is what a packed model does; no test looks at how long it takes."""

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from bitfront import formats
from bitfront.errors import InvalidArgument
from bitfront.kernels.weights import rounded_inputs
from bitfront.models.decoding import (
    DecodingStep,
    Hollow,
    fill,
    hollowed,
    layer_calls,
    nanoseconds,
)
from bitfront.models.layers import search_space
from bitfront.models.quant_linear import PackedWeight, QuantLinear

MENU = tuple(formats.named(name) for name in ("int4_g32", "bf16"))


@pytest.fixture
def model(tiny_folder):
    return LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


def test_calls_go_round_more_than_a_cache_holds_however_small_the_layer():
    """A linear layer of 8 KiB, each with a weight of its own."""
    calls = layer_calls((64, 64), "bf16", 1, torch.zeros(1, dtype=torch.bfloat16), 1 << 22)
    weights = {call.func.weight.data_ptr() for call in calls}
    assert len(weights) == len(calls) == (1 << 22) // (64 * 64 * 2)
    assert all(torch.equal(call(), calls[0]()) for call in calls[:3])


@pytest.mark.parametrize("name", [x for x, f in formats.catalogue().items() if f.num_bits])
def test_a_filled_layer_computes_with_its_decoded_weight(name):
    """Of every format there is: whole rows of finite numbers, no two layers sharing memory."""
    calls = layer_calls((160, 128), name, 3, torch.zeros(1), rotated_bytes=1 << 17)
    outputs = [call() for call in calls]
    assert 2 <= len(calls) <= 64
    assert outputs[0].shape == (3, 1, 160)
    assert torch.isfinite(outputs[0]).all()
    if name == "bf16":
        return
    layer = QuantLinear(formats.named(name), (160, 128), torch.float32)
    fill(layer)
    weight = layer.format.decode_stored(layer.tensors(), layer.shape)
    assert weight.std() > 0.01
    inputs = torch.randn(3, 1, 128, generator=torch.Generator().manual_seed(0))
    inputs = rounded_inputs(inputs, layer.format, layer.format.input_scale(layer.tensors()))
    torch.testing.assert_close(outputs[0], functional.linear(inputs, weight), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)


def test_steps_decode_the_same_token_again_and_again(model):
    """After a context of numbers that both kinds of cache hold, however often it is run."""
    grown, static = (DecodingStep(model, 2, 9, static=kind) for kind in (False, True))
    with torch.no_grad():
        first = grown.run()
        for step in (grown, static, grown, static):
            if step is grown:
                step.rewind()
            torch.testing.assert_close(step.run(), first)
            if step is static:
                step.rewind()
    assert first.shape == (2, 1, model.config.vocab_size)


def test_a_step_that_was_captured_and_not_run_is_no_token_less(model):
    """Capturing moves nothing on the device, and is undone all the same."""
    step = DecodingStep(model, 2, 9, static=True)
    with torch.no_grad():
        first = step.run()
        for _ in range(2):
            step.rewind()
        torch.testing.assert_close(step.run(), first)


class NoAnswer(TorchDispatchMode):
    """Refuses to tell the host a number: a CUDA graph cannot be captured where it is asked."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func)
        assert "nonzero" not in str(func)
        return func(*args, **(kwargs or {}))


def test_a_static_step_waits_for_no_number(model):
    step = DecodingStep(model, 2, 9, static=True)
    with torch.no_grad(), NoAnswer():
        step.run()
        step.rewind()
    with torch.no_grad(), pytest.raises(AssertionError), NoAnswer():
        step.tokens.sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_that_is_captured_and_replayed_decodes_the_same_token(model):
    step = DecodingStep(model.cuda(), 2, 9)
    with torch.no_grad():
        first = step.run().clone()
        step.rewind()
        assert step.nanoseconds(0.0) > 0
        torch.testing.assert_close(step.run(), first)


def test_the_step_sees_its_context(model):
    with torch.no_grad():
        logits = {context: DecodingStep(model, 1, context).run() for context in (3, 30)}
    assert not torch.allclose(logits[3], logits[30])


def test_a_context_beyond_the_positions_is_refused(model):
    longest = model.config.max_position_embeddings
    DecodingStep(model, 1, longest - 1)
    with pytest.raises(InvalidArgument, match=f"--context {longest - 1} or less"):
        DecodingStep(model, 1, longest)


def test_a_hollow_model_keeps_what_a_search_cannot_change(model):
    space = search_space(model, MENU, formats.named("int8_g32"), tied=False)
    hollow = hollowed(model, space)
    modules = dict(hollow.named_modules())
    assert all(isinstance(modules[layer.name], Hollow) for layer in space.layers)
    packed = [name for name, module in modules.items() if isinstance(module, PackedWeight)]
    assert packed == [layer.name for layer, _ in space.pinned]
    with torch.no_grad():
        logits = DecodingStep(hollow, 2, 5).run()
    assert logits.shape == (2, 1, model.config.vocab_size)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def test_every_call_is_made_and_undone():
    made, undone = [], []
    calls = [lambda i=i: made.append(i) for i in range(3)]
    ns = nanoseconds(calls, torch.device("cpu"), 0.0, after=lambda: undone.append(1))
    assert ns > 0
    assert made[:6] == [0, 1, 2, 0, 1, 2]
    assert len(made) == len(undone) >= 8
    made.clear()
    assert nanoseconds(calls, torch.device("cpu"), 0.0) > 0
    assert made == [i % 3 for i in range(len(made))]
