"""Makes `tests/data/tiny_llava` and `tiny_qwen2_vl`, in about a minute on one core.

They are trained on handwritten digits of scikit-learn with captions, but for the last 397 of a
fixed random order. Run with the repository and `tests` on the path.
"""

import torch
from multimodal import DATA, IMAGE, N_TRAINING, TASKS, WORDS, Multimodal, accuracy, samples_for
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from bitfront.models.image_text import ImageText
from bitfront.models.tasks import run, set_task

N_STEPS, N_SAMPLES, LEARNING_RATE = 400, 48, 3e-3


def llava() -> nn.Module:
    """A CLIP tower of 3 blocks that gives 16 tokens, and a Llama of 2 blocks, untrained."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=8,
        patch_size=2,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.05,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config)


def qwen() -> nn.Module:
    """A tower of 2 blocks whose 16 patches become 4 tokens, and a Qwen2 of 2 blocks, untrained."""
    torch.manual_seed(0)
    vision = {
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 2,
        "hidden_size": 64,
    }
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = Qwen2VLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=len(WORDS)
    )
    return Qwen2VLForConditionalGeneration(config)


def word_by_word() -> PreTrainedTokenizerFast:
    """Tokenizer of the captions."""
    model = models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=".")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<start>")


def train(module: nn.Module, task: ImageText, samples: torch.Tensor) -> None:
    """Train all weights on the next words of captions."""
    set_task(module, task)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=N_STEPS)
    module.train()
    for _ in range(N_STEPS):
        batch = samples[torch.randint(N_TRAINING, (N_SAMPLES,), generator=generator)]
        logits = run(module, batch)
        cross_entropy(logits.flatten(0, 1), task.labels(batch).flatten()).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    module.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, build in {"tiny_llava": llava, "tiny_qwen2_vl": qwen}.items():
        model, samples = build(), samples_for(TASKS[name])
        train(model, TASKS[name], samples)
        model.save_pretrained(DATA / name)
        word_by_word().save_pretrained(DATA / name)
        print(name, accuracy(Multimodal(model, TASKS[name], samples[N_TRAINING:])))
