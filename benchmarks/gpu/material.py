"""What both trainers get: a model of random weights in a folder, and random samples that fill rows exactly.

`python benchmarks/gpu/material.py SHAPE ROWS DEVICE FOLDER` writes FOLDER/model, FOLDER/samples/train.jsonl
and FOLDER/device.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from shapes import SHAPES, Shape

END = 0  # id of the token that closes a sample
_SHORTEST = 16


def word(token: int) -> str:
    """The text of a token: samples reach mftrun as text and TRL as ids."""
    return f"t{token}"


def token_ids(text: str) -> list[int]:
    """Ids of a sample's text, its end token included."""
    return [*(int(name[1:]) for name in text.split(" ")), END]


def piece_lengths(length: int, rng: np.random.Generator) -> list[int]:
    """Cuts a row into samples, as uneven in length as conversations are; end tokens are counted."""
    lengths: list[int] = []
    left = length
    while left:
        wanted = int(rng.lognormal(np.log(length / 8), 0.8))
        lengths.append(left if left - wanted < 2 * _SHORTEST else max(wanted, _SHORTEST))
        left -= lengths[-1]
    return lengths


def samples(shape: Shape, rows: int, seed: int = 0) -> Iterator[str]:
    """Texts of samples that fill so many rows, in random order."""
    rng = np.random.default_rng(seed)
    lengths = np.array([piece for _ in range(rows) for piece in piece_lengths(shape.length, rng)])
    for length in rng.permutation(lengths):
        yield " ".join(map(word, rng.integers(1, shape.decoder.vocab_size, length - 1)))


def read_samples(folder: Path) -> list[str]:
    """Texts of the samples that lie in a folder."""
    lines = (folder / "samples" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def write_samples(shape: Shape, rows: int, folder: Path) -> None:
    """Writes the samples as one task of mftrun."""
    path = folder / "samples" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in samples(shape, rows)), encoding="utf-8"
    )


def write_model(shape: Shape, device: str, folder: Path) -> None:
    """Writes weights in bfloat16 and a tokenizer with one word for each token. One that is there is kept."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if folder.exists():
        return
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.model_type, **shape.config())
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == shape.decoder.parameters, f"{found:,} parameters, not {shape.decoder.parameters:,}"
    scratch = folder.with_name(folder.name + ".part")
    model.save_pretrained(scratch)
    _write_tokenizer(shape.decoder.vocab_size, scratch)
    scratch.rename(folder)


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<|end|>"
    names = {end: END, **{word(token): token for token in range(1, vocab_size)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end).save_pretrained(folder)


def _device_name(device: str) -> str:
    import torch

    if device == "cpu":
        return "CPU"
    found = torch.cuda.get_device_properties(0)
    return f"{found.name} ({found.total_memory / 2**30:.0f} GiB)"


def main() -> None:
    """Write everything, and the device's name beside it."""
    name, rows, device, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    write_samples(SHAPES[name], rows, folder)
    write_model(SHAPES[name], device, folder / "model")
    (folder / "device.json").write_text(json.dumps(_device_name(device)), encoding="utf-8")


if __name__ == "__main__":
    main()
