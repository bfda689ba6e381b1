"""Makes `tests/data/tiny_moe`, in half a minute on one core.

A Qwen3-MoE with the tokenizer and the texts of the tiny Llama, stored in bfloat16. Its router is
hardly held to an even load, so that experts differ in what they see.
"""

import torch
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.data.train_tiny_llama import FOLDER, train, training_text


def untrained() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            moe_intermediate_size=64,
            num_experts=8,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            num_hidden_layers=2,
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
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tiny_llama")
    model = untrained()
    train(model, torch.tensor(tokenizer(training_text(), verbose=False)["input_ids"]))
    model.config.output_router_logits = False
    model.bfloat16().save_pretrained(FOLDER / "tiny_moe")
    tokenizer.save_pretrained(FOLDER / "tiny_moe")
