"""Requests in, answers out: a model with its template, whatever generates the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from mftrun.generation.base import Backend, Ending, TokenPrompt
from mftrun.generation.finishing import Finished, finished
from mftrun.generation.prompts import Prompts
from mftrun.generation.requests import Request
from mftrun.generation.sampling import Sampling
from mftrun.generation.streaming import TextStream


class TooLongError(ValueError):
    """A prompt leaves no position for an answer."""


class Generator:
    """Answers requests.

    Args:
        backend: Generates tokens.
        prompts: Makes tokens of requests.
        identity: What answers depend on besides prompts and sampling; see `mftrun.generation.identity`.
    """

    def __init__(
        self, backend: Backend, prompts: Prompts, identity: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.identity = identity
        self._backend = backend
        self._prompts = prompts

    def encode(self, request: Request) -> list[int]:
        """The tokens of a request.

        Raises:
            TooLongError: They leave no position for an answer.
            ValueError: The template cannot render it; says why.
        """
        ids = self._prompts.encode(request)
        if not ids:
            raise ValueError("the prompt has no token")
        positions = self._backend.positions
        if positions is not None and len(ids) >= positions:
            raise TooLongError(
                f"the prompt has {len(ids):,} tokens, which leave no room for an answer: "
                f"the model has {positions:,} positions"
            )
        return ids

    def answers(self, prompts: Sequence[TokenPrompt], sampling: Sampling) -> Iterator[list[Finished]]:
        """Answers all prompts.

        Args:
            prompts: As `encode` made them; their numbers decide their random numbers.
            sampling: How.

        Yields:
            Of each prompt, in order, as many answers as were asked for.
        """
        ending = self._ending(sampling, [])
        for prompt, found in zip(prompts, self._backend.generate(prompts, sampling, ending), strict=True):
            yield [self._finished(prompt, ids, sampling) for ids in found]

    def stream(self, prompt: TokenPrompt, sampling: Sampling, write: Callable[[str], None]) -> Finished:
        """Answers one prompt once, and writes the answer while it grows; Ctrl-C ends it where it is.

        Args:
            prompt: As `encode` made it.
            sampling: How.
            write: Takes pieces of text.
        """
        ending = self._ending(sampling, prompt.ids)
        shown = TextStream(ending, write)
        ids = self._backend.stream(prompt, sampling, ending, shown.feed)
        answer = self._finished(prompt, ids, sampling)
        shown.finish(answer.text)
        return answer

    def _ending(self, sampling: Sampling, prompt: Sequence[int]) -> Ending:
        return Ending(self._prompts.stop_ids, sampling.stop, partial(self._prompts.text, prompt))

    def _finished(self, prompt: TokenPrompt, ids: Sequence[int], sampling: Sampling) -> Finished:
        positions = self._backend.positions
        room = sampling.max_new_tokens if positions is None else positions - len(prompt.ids)
        found = finished(ids, min(sampling.max_new_tokens, room), self._ending(sampling, prompt.ids))
        return found._replace(text=self._prompts.message(found.text)) if found.finish == "stop" else found
