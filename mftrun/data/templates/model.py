"""The tokenizer's own chat template, or one from a file, with exact targets for any of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.encoder import Encoder, Part
from mftrun.data.sample import DOCUMENT, Sample
from mftrun.data.templates.base import KEY, PartsEncoder, UnrenderableError, stop_ids_of
from mftrun.data.templates.proof import Habits, Prover, gaps, habits_of
from mftrun.data.templates.rendering import ChatTemplate, Conversation
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_INSTEAD = "choose another template, such as template=chatml"


@dataclass(frozen=True)
class ModelTemplate:
    """A jinja chat template: the tokenizer's own, or a file.

    What the assistant writes is trained: its text, its calls of tools, and the control token that ends them;
    never the header of its turn. A conversation that the template refuses, changes beyond recognition or
    leaves parts of out is refused. Text of messages never becomes a special token of the tokenizer, whatever
    it says, unless `control_text` is set.

    Args:
        path: File with a jinja chat template; null takes the tokenizer's own.
        variables: More values for the template, such as ``enable_thinking``. Give the same when serving.
        control_text: Whether names of special tokens in the text of messages become those tokens.
    """

    path: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    control_text: bool = False

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """None: a tokenizer that is trained from scratch has no chat template to name any."""
        return ()

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> PartsEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        Raises:
            ConfigError: There is no chat template, or none that ends answers with a control token.
        """
        bound = _Bound(self, tokenizer)
        encoder = Encoder(tokenizer.backend_tokenizer, bound.text_only)
        return PartsEncoder(bound.parts, encoder)

    def chat_template(self) -> str | None:
        """The text of the file; None leaves the tokenizer's own.

        Raises:
            ConfigError: The file cannot be read.
        """
        if self.path is None:
            return None
        try:
            return Path(self.path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{KEY}.path", f"{self.path} cannot be read: {error}") from error

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids that end an answer: those the chat template ends answers with, and the tokenizer's.

        Raises:
            ConfigError: As `encoder`.
        """
        return stop_ids_of(tokenizer, sorted(_Bound(self, tokenizer).habits.ends - {tokenizer.eos_token}))

    def fingerprint(self) -> Mapping[str, Any]:
        """All fields, and the text of the file; the tokenizer's own template is the tokenizer's.

        Raises:
            ConfigError: The file cannot be read.
        """
        return {
            "kind": type(self).__name__,
            "chat_template": self.chat_template(),
            "variables": dict(self.variables),
            "control_text": self.control_text,
        }


class _Bound:
    """A chat template bound to a tokenizer."""

    def __init__(self, template: ModelTemplate, tokenizer: PreTrainedTokenizerFast) -> None:
        own = template.chat_template()
        variables = {**tokenizer.special_tokens_map, **template.variables}
        plain = ChatTemplate(own or _own(tokenizer, None), variables)
        with_tools = ChatTemplate(own or _own(tokenizer, [{}]), variables)
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        control = _any_of([token.content for token in added]) or re.compile(r"(?!)")
        self.habits = _habits(plain, control, tokenizer)
        special = {token.content for token in added if token.special}
        self.text_only: frozenset[str] = (
            frozenset() if template.control_text else self.habits.written | self.habits.ends | special
        )
        self._names = _any_of(self.text_only)
        self._provers = {
            False: Prover(plain, control, self.habits),
            True: Prover(with_tools, control, self.habits),
        }

    def parts(self, sample: Sample) -> Iterator[Part]:
        """The pieces of text of a sample; the answers have the weights of their messages.

        Raises:
            UnrenderableError: The template cannot render it, or not provably.
        """
        if any(message.role == DOCUMENT for message in sample.messages):
            raise UnrenderableError("a chat template cannot render plain text; use template=none for it")
        chat = Conversation.of(sample, self._names)
        text, spans = self._provers[bool(chat.tools)].prove(chat)
        stand_ins = _any_of(chat.stand_ins)
        for piece, number in gaps(text, spans):
            weight = 0.0 if number is None else sample.messages[number].weight
            for place, part in enumerate(stand_ins.split(piece) if stand_ins is not None else [piece]):
                is_text = place % 2 == 1
                yield Part(chat.stand_ins[part] if is_text else part, not is_text, weight)


def _own(tokenizer: PreTrainedTokenizerFast, tools: list[Any] | None) -> str:
    try:
        return str(tokenizer.get_chat_template(tools=tools))
    except ValueError as error:
        message = f"the tokenizer has no chat template of its own; {_INSTEAD}, or give a jinja file"
        raise ConfigError(f"{KEY}.path", message) from error


def _habits(template: ChatTemplate, control: re.Pattern[str], tokenizer: PreTrainedTokenizerFast) -> Habits:
    try:
        return habits_of(template, control, tokenizer.eos_token)
    except UnrenderableError as error:
        raise ConfigError(KEY, f"{error}; {_INSTEAD}") from error


def _any_of(names: Collection[str]) -> re.Pattern[str] | None:
    ordered = sorted((name for name in names if name), key=lambda name: (-len(name), name))
    return re.compile(f"({'|'.join(map(re.escape, ordered))})") if ordered else None
