"""Answers of a model that is loaded, the longest questions first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from mftrun.errors import ConfigError
from mftrun.generation.finishing import Finished
from mftrun.generation.generator import Generator
from mftrun.generation.sampling import Sampling
from mftrun.solving.questions import Key, Question

OVERLONG = "overlong"
OnOverlong = Literal["empty", "error"]
_POLICIES = ("empty", "error")


class Answered(NamedTuple):
    """An answer.

    Attributes:
        key: Names it.
        digest: Of the tokens that it answers.
        answer: What the model wrote.
        finish: As of `Finished`, or ``overlong`` where the question left no room for an answer.
        tokens: How many tokens it has.
    """

    key: Key
    digest: str
    answer: str
    finish: str
    tokens: int


def check_policy(on_overlong: str) -> None:
    """Refuses a policy that does not exist.

    Raises:
        ConfigError: It does not.
    """
    if on_overlong not in _POLICIES:
        raise ConfigError("job.on_overlong", f"must be one of {', '.join(_POLICIES)}, not {on_overlong}")


def answers(
    generator: Generator,
    sampling: Sampling,
    stop: Sequence[str],
    asked: Sequence[Question],
    on_overlong: OnOverlong = "empty",
) -> Iterator[Answered]:
    """Answers questions, in whatever order is the fastest.

    An answer depends on its question alone, not on what is answered beside it.

    Args:
        generator: The model.
        sampling: How; each question is answered once, whatever its `num_samples` says.
        stop: Texts that end an answer.
        asked: The questions.
        on_overlong: What becomes of one that leaves no room for an answer: ``empty`` answers nothing.

    Raises:
        ConfigError: A question leaves no room, and that is an error.
    """
    settings = replace(sampling, stop=(*sampling.stop, *stop), num_samples=1)
    fitting = [one for one in asked if generator.budget(one.prompt, settings) > 0]
    for question in asked:
        if generator.budget(question.prompt, settings) <= 0:
            yield _empty(question, on_overlong)
    ordered = sorted(fitting, key=lambda one: -len(one.prompt.ids))
    found = generator.answers([one.prompt for one in ordered], settings)
    for question, (answer,) in zip(ordered, found, strict=True):
        yield _answered(question, answer)


def check_room(question: Question, on_overlong: OnOverlong) -> None:
    """Refuses a question that leaves no room for an answer, where that is an error.

    Raises:
        ConfigError: It is.
    """
    if on_overlong == "error":
        raise ConfigError(
            "job.on_overlong",
            f"{question.key.problem} has {len(question.prompt.ids):,} tokens, which leave no room for an "
            "answer; job.on_overlong=empty answers nothing to it, which counts as failed",
        )


def _answered(question: Question, answer: Finished) -> Answered:
    return Answered(question.key, question.digest, answer.text, answer.finish, answer.tokens)


def _empty(question: Question, on_overlong: OnOverlong) -> Answered:
    check_room(question, on_overlong)
    return Answered(question.key, question.digest, "", OVERLONG, 0)
