"""How the next token is chosen, and when an answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mftrun.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation, the same for every backend.

    Args:
        max_new_tokens: Longest answer in tokens.
        temperature: What logits are divided by; 0 always takes the likeliest token (greedy).
        top_p: Sample among the likeliest tokens whose probabilities add up to this (arXiv 1904.09751).
        top_k: Sample among so many likeliest tokens; None among all.
        repetition_penalty: Divides positive logits of tokens that the prompt or the answer holds already, and
            multiplies negative ones (arXiv 1909.05858); 1 leaves them.
        num_samples: Answers to each prompt.
        stop: Texts that end an answer besides the template's end token; they are left out of it.
        seed: Of the random numbers. Those of an answer depend on the seed and the number of its prompt alone,
            not on what is generated beside it.
        max_length: Most tokens of a prompt and its answer together; None sets no such end.

    Raises:
        ConfigError: A value is out of its range, or several greedy answers to one prompt are asked for.
    """

    max_new_tokens: int = 512
    temperature: float = 0.1
    top_p: float = 0.95
    top_k: int | None = None
    repetition_penalty: float = 1.0
    num_samples: int = 1
    stop: Sequence[str] = ()
    seed: int = 0
    max_length: int | None = None

    def __post_init__(self) -> None:
        _check("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")
        _check("max_length", self.max_length, self.max_length is None or self.max_length >= 1, "1 or more")
        _check("temperature", self.temperature, self.temperature >= 0, "0 (greedy) or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more, or null for all")
        _check("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0")
        _check("num_samples", self.num_samples, self.num_samples >= 1, "1 or more")
        _check("stop", list(self.stop), all(self.stop), "a list of texts that are not empty")
        if self.is_greedy and self.num_samples > 1:
            raise ConfigError(
                "job.num_samples",
                f"{self.num_samples} answers at job.temperature=0 would all be the same; raise it",
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    def budget(self, prompt: int, positions: int | None) -> int:
        """Most tokens of an answer; 0 or less where the prompt leaves no room for any.

        Args:
            prompt: How many tokens the prompt has.
            positions: Those of the model; None where there is no end.
        """
        ends = [end - prompt for end in (positions, self.max_length) if end is not None]
        return min([self.max_new_tokens, *ends])


def _check(name: str, value: object, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(f"job.{name}", f"must be {wanted}, not {value}")
