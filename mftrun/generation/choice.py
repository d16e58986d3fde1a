"""The next token of each row, and the rows that have ended, as transformers' generation asks for them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mftrun.generation.base import Ending
from mftrun.generation.sampling import Sampling

_TAIL = 8  # tokens more than a stop text has bytes, for those that say nothing


class Penalty(LogitsProcessor):  # type: ignore[misc]
    """Makes tokens that a row holds already less likely (CTRL, arXiv 1909.05858), padding left aside.

    Args:
        penalty: What positive logits are divided by, and negative ones multiplied.
        mask: int64 [rows, prompt length], 0 where the prompt is padded.
    """

    def __init__(self, penalty: float, mask: Tensor) -> None:
        self._penalty = penalty
        self._mask = mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits of the next token, [rows, vocabulary]."""
        said = torch.ones_like(input_ids, dtype=torch.bool)
        said[:, : self._mask.shape[1]] = self._mask.bool()
        held = torch.zeros_like(scores, dtype=torch.int32).scatter_add_(1, input_ids, said.int()) > 0
        lowered = torch.where(scores > 0, scores / self._penalty, scores * self._penalty)
        return torch.where(held, lowered, scores)


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Samples the next token of each row, and leaves it as the only one.

    Each row draws from random numbers of its own, so that an answer does not depend on its neighbours.

    Args:
        seeds: What the random numbers of each row follow from.
    """

    def __init__(self, seeds: Sequence[str]) -> None:
        self._randoms = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits, [rows, vocabulary]: 0 for the token that was drawn, minus infinity for all others."""
        heights = scores.softmax(-1, dtype=torch.float32).double().cumsum(-1)
        draws = torch.tensor([[one.random()] for one in self._randoms], dtype=torch.float64).to(scores.device)
        chosen = torch.searchsorted(heights, draws * heights[:, -1:], right=True)
        chosen = chosen.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


class RowEnds(StoppingCriteria):  # type: ignore[misc]
    """Ends a row that is as long as it may be, or that holds a stop text.

    Args:
        width: Length of the padded prompts.
        budgets: Most new tokens of each row.
        ending: What ends an answer.
    """

    def __init__(self, width: int, budgets: Sequence[int], ending: Ending) -> None:
        self._width = width
        self._budgets = torch.tensor(list(budgets))
        self._ending = ending
        self._tail = max((len(stop.encode()) for stop in ending.stop), default=0) + _TAIL

    def __call__(self, input_ids: Tensor, scores: object, **kwargs: object) -> Tensor:
        """Which rows have ended, bool [rows]."""
        done = self._budgets <= input_ids.shape[1] - self._width
        if self._ending.stop:
            done = done | torch.tensor(
                [self._holds_stop(row) for row in input_ids[:, self._width :].tolist()]
            )
        return done.to(input_ids.device)

    def _holds_stop(self, row: list[int]) -> bool:
        text = self._ending.decode(row[-self._tail :])
        return any(stop in text for stop in self._ending.stop)


def choices(sampling: Sampling, seeds: Sequence[str], mask: Tensor) -> LogitsProcessorList:
    """What makes the likeliest token of each row the one to take.

    Args:
        sampling: The settings.
        seeds: What the random numbers of each row follow from.
        mask: int64 [rows, prompt length], 0 where the prompt is padded.
    """
    found = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        found.append(Penalty(sampling.repetition_penalty, mask))
    if sampling.is_greedy:
        return found
    if sampling.temperature != 1:
        found.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k is not None:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(TopPLogitsWarper(float(sampling.top_p)))
    found.append(Draw(seeds))
    return found
