"""The texts of samples as they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.data.sample import Origin
from mftrun.data.table import SampleTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TOKENS = 500_000  # of a batch: what is in memory at a time


class Place(NamedTuple):
    """Which sample.

    Attributes:
        task: Its task.
        split: ``train`` or ``valid``.
        number: Its number among those of all tasks.
        origin: Where it came from.
    """

    task: str
    split: str
    number: int
    origin: Origin


class SampleText(NamedTuple):
    """What a sample says.

    Attributes:
        place: Which sample.
        text: Its text with the template's markers, as far as it is trained.
        tokens: Its length.
    """

    place: Place
    text: str
    tokens: int


def sample_texts(
    table: SampleTable, split: str, tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[SampleText]]:
    """All samples of a table, in batches of about as many tokens.

    Args:
        table: The table.
        split: What it is called.
        tokenizer: Made its tokens.
    """
    batch = np.cumsum(table.lengths) // _TOKENS
    for samples in np.split(np.arange(table.num_samples), 1 + np.flatnonzero(np.diff(batch))):
        yield _texts(table, split, tokenizer, samples.astype(np.int64)) if len(samples) else []


def _texts(
    table: SampleTable, split: str, tokenizer: PreTrainedTokenizerFast, samples: npt.NDArray[np.int64]
) -> list[SampleText]:
    lengths = table.lengths[samples]
    ids = np.split(table.read(samples, np.zeros(len(samples), np.int64), lengths), np.cumsum(lengths)[:-1])
    texts = tokenizer.backend_tokenizer.decode_batch([one.tolist() for one in ids], skip_special_tokens=False)
    return [
        SampleText(Place(table.tasks[table.task[sample]], split, sample, table.origin(sample)), text, length)
        for sample, text, length in zip(samples.tolist(), texts, lengths.tolist(), strict=True)
    ]
