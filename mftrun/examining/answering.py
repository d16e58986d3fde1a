"""Answers of a model in training, under whatever strategy its ranks share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mftrun.distributed.base import called_within
from mftrun.generation.generator import Generator
from mftrun.generation.sampling import Sampling
from mftrun.generation.transformers_backend import TransformersBackend
from mftrun.models.parts import causal_lm_of, text_config_of
from mftrun.solving.answers import Answered, answers
from mftrun.solving.questions import Key, Question
from mftrun.solving.styles import Bound
from mftrun.training import snapshot

if TYPE_CHECKING:
    from mftrun.distributed import Engine
    from mftrun.launch import StopRequest


@dataclass(frozen=True)
class LiveModel:
    """Answers questions with the model that an engine trains; the engine changes answers by rounding alone.

    Args:
        engine: Trains it.
        bound: How it is asked.
        sampling: How tokens are chosen.
        batch_size: Answers that a rank generates at once, at most.
        is_divided: Whether each rank holds a part of the weights: then all generate the same answers
            together, as each forward pass needs every rank. Otherwise each rank generates its share.
    """

    engine: Engine
    bound: Bound
    sampling: Sampling
    batch_size: int
    is_divided: bool

    def answers(
        self, ends: Sequence[str], asked: Sequence[Question], stop: StopRequest
    ) -> dict[Key, str] | None:
        """Answers questions; every rank must call it.

        One that leaves no room for an answer gets an empty one. Weights, generators and all else of the
        training stay as they are.

        Args:
            ends: Texts that end an answer.
            asked: The questions.
            stop: Looked at before each batch.

        Returns:
            All answers, on every rank; None when a signal cut it short on some rank.
        """
        ranks = self.engine.ranks
        found: dict[Key, str] = {}
        with self._generating() as generator:
            for batch in self._batches(generator, asked):
                if ranks.any(stop.stop_requested):
                    return None
                found.update((one.key, one.answer) for one in self._answered(generator, ends, batch))
        empty = {question.key: "" for question in asked}
        return {**empty, **{key: text for part in ranks.gather(found) for key, text in part.items()}}

    def _answered(
        self, generator: Generator, ends: Sequence[str], batch: Sequence[Question]
    ) -> list[Answered]:
        # Inside a forward pass, where weights are gathered, and computed with as in training.
        return called_within(
            self.engine.model, lambda bare: list(answers(generator, self.sampling, ends, batch))
        )

    def _batches(self, generator: Generator, asked: Sequence[Question]) -> Iterator[Sequence[Question]]:
        """What this rank answers, the longest first; as many batches on every rank, some of them twice."""
        ranks = self.engine.ranks
        index, count = (0, 1) if self.is_divided else (ranks.index, ranks.count)
        fitting = [one for one in asked if generator.budget(one.prompt, self.sampling) > 0]
        ordered = sorted(fitting, key=lambda one: -len(one.prompt.ids))
        size = min(self.batch_size, -(-len(ordered) // count)) or 1
        batches = [ordered[begin : begin + size] for begin in range(0, len(ordered), size)]
        for begin in range(0, len(batches), count):
            yield batches[min(begin + index, len(batches) - 1)]

    @contextmanager
    def _generating(self) -> Iterator[Generator]:
        """Inside, the model generates; then it trains on as if nothing had been."""
        causal_lm = causal_lm_of(self.engine.bare.model)
        settings, randoms = causal_lm.generation_config, snapshot.random_state()
        self.engine.model.eval()
        try:
            pad_id = int(text_config_of(causal_lm).pad_token_id or 0)
            backend = _LiveBackend(causal_lm, pad_id, self.batch_size, self.engine.ranks.device)
            backend.is_divided = self.is_divided
            yield Generator(backend, self.bound.prompts)
        finally:
            causal_lm.generation_config = settings
            snapshot.set_random_state(randoms)
            self.engine.model.train()


class _LiveBackend(TransformersBackend):
    """Generates with weights that are trained on: nothing of them may become a tensor of inference mode."""

    is_divided = False

    def _generate(self, **inputs: Any) -> torch.Tensor:
        with torch.no_grad():
            # Ranks that hold parts leave together, even if rounding made them differ.
            whole: torch.Tensor = self._model.generate(**inputs, synced_gpus=self.is_divided)
        return whole
