"""The models and methods that are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from flops import Decoder


@dataclass(frozen=True)
class Shape:
    """A model to fill with random weights, and how it is fed.

    Attributes:
        model_type: The architecture, as transformers names it.
        decoder: Its sizes.
        length: Tokens of a row.
        micro_batch: Rows of a forward pass.
        global_batch: Rows of a step.
        recompute_full: Whether training all of it recomputes activations, as they would not fit else.
    """

    model_type: str
    decoder: Decoder
    length: int
    micro_batch: int
    global_batch: int
    recompute_full: bool = False

    def config(self) -> dict[str, Any]:
        """What transformers' configuration class takes."""
        sizes = {key: value for key, value in asdict(self.decoder).items() if key != "qkv_bias"}
        return {**sizes, "max_position_embeddings": self.length, "eos_token_id": 0, "pad_token_id": 0}


@dataclass(frozen=True)
class Method:
    """What is trained.

    Attributes:
        rank: Of the adapters; None where the whole model is trained.
        four_bit: Whether the frozen model is held in four bits.
    """

    rank: int | None = None
    four_bit: bool = False


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        # Llama 3.1 8B.
        "llama-8b": Shape(
            "llama",
            Decoder(128_256, 4096, 14_336, 32, 32, 8),
            length=4096,
            micro_batch=1,
            global_batch=4,
            recompute_full=True,
        ),
        # Qwen 2.5 1.5B.
        "qwen-1.5b": Shape(
            "qwen2",
            Decoder(151_936, 1536, 8960, 28, 12, 2, tie_word_embeddings=True, qkv_bias=True),
            length=4096,
            micro_batch=2,
            global_batch=8,
        ),
        # Says nothing about speed: it proves the script where there is no GPU.
        "tiny": Shape("llama", Decoder(512, 64, 176, 2, 4, 2), length=256, micro_batch=2, global_batch=4),
    }
)
METHODS: Mapping[str, Method] = MappingProxyType(
    {"full": Method(), "lora": Method(rank=16), "qlora": Method(rank=16, four_bit=True)}
)
