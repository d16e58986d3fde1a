"""The template of continued pre-training: text as it is, every token a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mftrun.data.encoder import Encoder, Part
from mftrun.data.sample import Sample
from mftrun.data.templates.base import (
    PartsEncoder,
    UnrenderableError,
    begin_token_of,
    end_token_of,
    stop_ids_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Document:
    r"""Text without roles. Every token but the first is a target, the end token that closes the text, too.

    A conversation is the texts of its messages, joined; each counts as often as its weight says.

    Args:
        separator: Between the messages of a conversation; counts as the message before it.
        end_token: One control token of the tokenizer; null takes its end-of-sequence token.
        begin_token: Whether the tokenizer's begin-of-sequence token comes first.
        control_text: Whether names of control tokens in the text become those tokens.
    """

    separator: str = "\n"
    end_token: str | None = None
    begin_token: bool = False
    control_text: bool = False

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """The end token where it is named."""
        return (self.end_token,) if self.end_token else ()

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> PartsEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        Raises:
            ConfigError: The tokenizer has no end token, or no begin token where one is asked for.
        """
        begin = begin_token_of(tokenizer, self.begin_token)
        end = end_token_of(tokenizer, self.end_token)
        encoder = Encoder(tokenizer.backend_tokenizer, (end,))
        return PartsEncoder(partial(self.parts, begin=begin, end=end), encoder)

    def parts(self, sample: Sample, begin: str, end: str) -> Iterator[Part]:
        """The pieces of text, in order.

        Args:
            sample: A document or conversation.
            begin: Begin-of-sequence token, or "".
            end: End token.

        Raises:
            UnrenderableError: There are tools, which have no plain text.
        """
        if sample.tools or any(message.tool_calls for message in sample.messages):
            raise UnrenderableError(
                "template=none joins texts and has none for tools and their calls; use template=chatml"
            )
        yield Part(begin, is_template=True)
        weight = 1.0
        for number, message in enumerate(sample.messages):
            if number:
                yield Part(self.separator, weight=weight)
            weight = message.weight
            yield Part(message.content, self.control_text, weight)
        yield Part(end, is_template=True, weight=weight)

    def chat_template(self) -> None:
        """None: there are no roles."""

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids that end a text: the end token, then the tokenizer's end of sequence if it is another.

        Raises:
            ConfigError: The tokenizer has no end token.
        """
        return stop_ids_of(tokenizer, [end_token_of(tokenizer, self.end_token)])

    def fingerprint(self) -> Mapping[str, Any]:
        """All fields."""
        return {"kind": type(self).__name__, **asdict(self)}
