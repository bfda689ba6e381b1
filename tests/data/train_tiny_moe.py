"""Makes `tests/data/tiny_moe`, in half a minute on one core: `python -m tests.data.train_tiny_moe`.

A Qwen3-MoE with the tokenizer and the texts of the tiny Llama, stored in bfloat16. Its router is
hardly held to an even load, so that experts differ in what they see.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.data.train_tiny_llama import FOLDER, train, training_text


def untrained(n_blocks: int = 2, n_experts: int = 8) -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            moe_intermediate_size=64,
            num_experts=n_experts,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            num_hidden_layers=n_blocks,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            initializer_range=0.05,
            tie_word_embeddings=True,
            output_router_logits=True,
            router_aux_loss_coef=0.0005,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=FOLDER / "tiny_moe")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--experts", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tiny_llama")
    model = untrained(arguments.blocks, arguments.experts)
    train(model, torch.tensor(tokenizer(training_text(), verbose=False)["input_ids"]))
    model.config.output_router_logits = False
    model.bfloat16().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
