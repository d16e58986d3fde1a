"""Models that generate: tiny ones that have learnt nothing."""

import torch

from mftrun.models.tiny import TinyLlama

TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "Write a function that adds two numbers.",
    "system human bot\n",
]
CONTROL = ("<s>", "<|im_start|>", "<|im_end|>")


def tiny_sizes(positions=96):
    """The sizes of such a model."""
    return TinyLlama(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=positions,
    )


def tiny_tokenizer():
    """A tokenizer with control tokens of several templates."""
    return tiny_sizes().tokenizer(lambda: iter(TEXTS * 3), CONTROL)


def sure_model(tokenizer, positions=96):
    """A model that is sure of itself: answers depend on the prompt."""
    torch.manual_seed(1)
    model = tiny_sizes(positions).load(tokenizer, torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def saved(folder, positions=96):
    """Writes a model and its tokenizer; returns their folder."""
    tokenizer = tiny_tokenizer()
    sure_model(tokenizer, positions).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
