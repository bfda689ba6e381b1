"""The benchmark of decoding: it decodes what `generate` does, and weighs what is there."""

import argparse
import multiprocessing
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM

from bitfront import formats
from bitfront.export import EXPORTERS
from tests.export.exports import Export
from tests.test_kernel_benchmark import BENCHMARKS


@pytest.fixture
def decode(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import decode

    return decode


@pytest.fixture
def arguments(tiny_folder, tiny_llama, tiny_tokenizer, tmp_path):
    made = Export.of(
        tiny_llama, tiny_tokenizer, (formats.named("int4_g64"),), formats.named("int8_g64")
    )
    EXPORTERS.build("packed").write(made.model, made.allocation, made.bank, tmp_path / "packed")
    return argparse.Namespace(
        model=str(tiny_folder),
        checkpoint=tmp_path / "packed",
        device="cpu",
        n_prompt=6,
        n_tokens=5,
        n_threads=torch.get_num_threads(),
    )


@pytest.mark.parametrize("way", ["float32", "packed", "packed kept"])
def test_a_way_decodes_whenever_it_is_asked(decode, arguments, way):
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=decode.decode, args=(arguments, way, theirs))
    thread.start()
    memory = ours.recv()
    rounds = []
    for _ in range(2):
        ours.send("decode")
        rounds.append(ours.recv())
    ours.send("")
    thread.join()
    bits = {"float32": 32.0, "packed": 5.1, "packed kept": 5.1}
    assert memory["bits_per_weight"] == pytest.approx(bits[way], abs=0.3)
    assert all(found.tokens_per_second > 0 and found.peak_mib > 0 for found in rounds)


def test_tokens_are_those_of_generate(decode, tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    steps, tokens = decode.Steps(model, 6, 5, "cpu"), []
    step = steps.step
    steps.step = lambda: (tokens.append(steps.token.item()), step())
    with torch.inference_mode():
        steps.run()
        first, tokens[:] = list(tokens), []
        steps.run()
    prompt = torch.cat([steps.prompt], dim=1)
    expected = model.generate(prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert first == tokens == expected[0, 6:].tolist()


def test_ratios_are_of_rounds(decode):
    speeds = {"packed": [2.0, 6.0, 3.0], "bfloat16": [1.0, 2.0, 3.0]}
    assert decode.over(speeds, "packed", "bfloat16") == 2.0
    assert decode.over({"packed": [1.0]}, "packed", "bfloat16") == ""
