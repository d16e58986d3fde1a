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

_CONTEXT = 8  # tokens that decide how the next one is written


class TooLongError(ValueError):
    """A prompt leaves no position for an answer."""


def token_prompt(prompts: Prompts, request: Request, number: int, sample: int = 0) -> TokenPrompt:
    """A request as tokens, and those that its answer begins with.

    Args:
        prompts: Makes tokens of requests.
        request: What is asked.
        number: Its place among all.
        sample: Which of the answers to it is meant.

    Raises:
        ValueError: It cannot be rendered, or has no token; says why.
    """
    ids = prompts.encode(request)
    if not ids:
        raise ValueError("the prompt has no token")
    begun = prompts.begin(ids, request.begun) if request.begun else []
    return TokenPrompt([*ids, *begun], number, sample, len(begun))


def answer_text(prompts: Prompts, prompt: TokenPrompt, answer: Sequence[int]) -> str:
    """What the tokens of an answer say, without what it had begun with.

    Args:
        prompts: Made the prompt.
        prompt: What is answered.
        answer: The tokens that were written behind it.
    """
    if not prompt.begun:
        return prompts.text(prompt.ids, answer)
    asked, begun = prompt.ids[: -prompt.begun], prompt.ids[-prompt.begun :][-_CONTEXT:]
    whole, before = (prompts.text(asked, ids) for ids in ([*begun, *answer], begun))
    return whole[len(before) :] if whole.startswith(before) else prompts.text(asked, answer)


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
        ids = list(token_prompt(self._prompts, request, 0).ids)
        self.check_length(ids)
        return ids

    def check_length(self, ids: Sequence[int]) -> None:
        """Whether the tokens of a prompt leave a position for an answer.

        Raises:
            TooLongError: They do not.
        """
        positions = self._backend.positions
        if positions is not None and len(ids) >= positions:
            raise TooLongError(
                f"the prompt has {len(ids):,} tokens, which leave no room for an answer: "
                f"the model has {positions:,} positions"
            )

    def budget(self, prompt: TokenPrompt, sampling: Sampling) -> int:
        """Most tokens of an answer to a prompt; 0 or less where there is no room for any."""
        return sampling.budget(len(prompt.ids), self._backend.positions)

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
        return self._ending_at(sampling, partial(self._prompts.text, prompt))

    def _ending_at(self, sampling: Sampling, decode: Callable[[Sequence[int]], str]) -> Ending:
        return Ending(self._prompts.stop_ids, sampling.stop, decode)

    def _finished(self, prompt: TokenPrompt, ids: Sequence[int], sampling: Sampling) -> Finished:
        decode = partial(answer_text, self._prompts, prompt)
        found = finished(ids, self.budget(prompt, sampling), self._ending_at(sampling, decode))
        return found._replace(text=self._prompts.message(found.text)) if found.finish == "stop" else found
