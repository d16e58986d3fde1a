"""The tokenizer of a run: made by a model option, completed by the template, known by a digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mftrun.data.digests import digest
from mftrun.data.sample import Sample
from mftrun.data.source import Source, read
from mftrun.data.template import Template
from mftrun.errors import DataError
from mftrun.files import whole_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A tokenizer for a model from nothing learns from so many samples of each task, at most, and from so many
# characters of each message: one text of 50 MB would take it gigabytes.
_TEXT_SAMPLES, _TEXT_CHARACTERS = 50_000, 100_000

Texts = Callable[[], Iterator[str]]


class TokenizerMaker(Protocol):
    """What a model option knows of tokenizers."""

    @property
    def tokenizer_recipe(self) -> Mapping[str, Any] | None:
        """What a tokenizer depends on that is trained on the tasks; None where the model brings its own."""

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """The tokenizer."""


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest, equal for tokenizers that make the same tokens of the same conversations."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest([parts, named, tokenizer.chat_template])


def templated(tokenizer: PreTrainedTokenizerFast, template: Template) -> PreTrainedTokenizerFast:
    """The tokenizer, with the template's own chat template where it has one."""
    own = template.chat_template()
    if own is not None:
        tokenizer.chat_template = own
    return tokenizer


def load_saved(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer as it was saved."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a tokenizer; the folder appears whole or not at all.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        with whole_folder(folder) as scratch:
            tokenizer.save_pretrained(scratch)
    except OSError as error:
        raise DataError(folder, 0, f"cannot be written: {error.strerror}") from error


def first_texts(source: Source, most: int = _TEXT_SAMPLES) -> Iterator[str]:
    """What a tokenizer is trained on: the texts of the first samples of a source.

    Args:
        source: The source.
        most: Of how many samples, at most.
    """
    samples = (item for item in read(source) if isinstance(item, Sample))
    for sample in islice(samples, min(most, _TEXT_SAMPLES)):
        yield from (message.content[:_TEXT_CHARACTERS] for message in sample.messages)
