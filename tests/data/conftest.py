from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]
WriteJsonl = Callable[..., Path]

_TEXT = [
    "Write a function that adds two numbers.",
    "def add(a, b):\n    return a + b\n",
    "system human bot user",
    "\n\n\n  x\n  y\n" * 9,
]


def _byte_level(
    control: Iterable[str] = ("<s>",), texts: Iterable[str] = _TEXT, eos: str | None = "</s>"
) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [*([eos] if eos else []), *control]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos)


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Trains a byte-level tokenizer: make_tokenizer(control, texts, eos)."""
    return _byte_level


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    """Writes lines (objects as JSON, bytes and text as they are) to a file below tmp_path."""

    def write(name: str, lines: Iterable[object]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(_line(line) + b"\n" for line in lines))
        return path

    return write


def _line(line: object) -> bytes:
    if isinstance(line, bytes):
        return line
    return (line if isinstance(line, str) else json.dumps(line)).encode()
