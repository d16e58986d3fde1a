"""What a template is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mftrun.data.encoder import Encoded, Encoder, Part
from mftrun.data.sample import Message, Origin, Sample
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KEY = "template"
_CHOOSE = f"set {KEY}.end_token to one of its control tokens"


@runtime_checkable
class Template(Protocol):
    """Turns samples into tokens and targets."""

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """Control tokens that a tokenizer trained from scratch shall have."""

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> ConversationEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        Raises:
            ConfigError: The tokenizer lacks something that the template cannot do without.
        """

    def chat_template(self) -> str | None:
        """The same format as a jinja chat template; None leaves the tokenizer's own as it is."""

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Tokens that end an answer."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values that change when the tokens may."""


class ConversationEncoder(Protocol):
    """A template bound to a tokenizer."""

    def encode_all(self, samples: Sequence[Sample]) -> list[Encoded | str]:
        """Tokens and targets of each sample; a text says why a sample cannot be encoded."""

    def encode(self, messages: Sequence[Message], tools: str = "") -> Encoded:
        """Tokens and targets of one conversation or document.

        Raises:
            ValueError: It cannot be encoded; says why.
        """


class UnrenderableError(Exception):
    """A sample that a template cannot render; its text says why."""


class PartsEncoder:
    """Encodes samples that a function cuts into parts.

    Args:
        parts: Gives the parts of a sample, in order, or raises `UnrenderableError`.
        encoder: Makes tokens of them.
    """

    def __init__(self, parts: Callable[[Sample], Iterable[Part]], encoder: Encoder) -> None:
        self._parts = parts
        self._encoder = encoder

    def encode_all(self, samples: Sequence[Sample]) -> list[Encoded | str]:
        """Tokens and targets of each sample, in one parallel batch; a text says why there are none."""
        parts = [self._parts_or_reason(sample) for sample in samples]
        encoded = iter(self._encoder.encode_all([part for part in parts if not isinstance(part, str)]))
        return [part if isinstance(part, str) else next(encoded) for part in parts]

    def encode(self, messages: Sequence[Message], tools: str = "") -> Encoded:
        """Tokens and targets of one conversation or document.

        Raises:
            ValueError: It cannot be encoded; says why.
        """
        (encoded,) = self.encode_all([Sample(tuple(messages), Origin("", 0), tools)])
        if isinstance(encoded, str):
            raise ValueError(encoded)
        return encoded

    def _parts_or_reason(self, sample: Sample) -> list[Part] | str:
        try:
            return list(self._parts(sample))
        except UnrenderableError as error:
            return str(error)


def cannot_render(number: int, message: Message, instead: str) -> UnrenderableError:
    """The refusal of a message, counted from 1."""
    what = "plain text" if message.role == "document" else f"a message of the role {message.role!r}"
    return UnrenderableError(f"message {number} is {what}, which the template cannot render; {instead}")


def end_token_of(tokenizer: PreTrainedTokenizerFast, named: str | None) -> str:
    """The end token of a template, which must be one control token.

    Args:
        tokenizer: The tokenizer.
        named: What the template says; null takes the tokenizer's end-of-sequence token.

    Raises:
        ConfigError: It is not.
    """
    if named is None and tokenizer.eos_token is None:
        raise ConfigError(f"{KEY}.end_token", f"the tokenizer has no end-of-sequence token; {_CHOOSE}")
    end = named or str(tokenizer.eos_token)
    if end not in tokenizer.get_added_vocab():
        message = f"{end!r} is not a control token of the tokenizer; {_CHOOSE}"
        own = f"null for its own, {tokenizer.eos_token!r}"
        raise ConfigError(f"{KEY}.end_token", f"{message}, or {own}; or take another template={{NAME}}")
    return end


def begin_token_of(tokenizer: PreTrainedTokenizerFast, wanted: bool) -> str:
    """The begin-of-sequence token, or "" if the template wants none.

    Raises:
        ConfigError: It wants one and the tokenizer has none.
    """
    if wanted and tokenizer.bos_token is None:
        message = "the tokenizer has no begin-of-sequence token; set it to false"
        raise ConfigError(f"{KEY}.begin_token", message)
    return str(tokenizer.bos_token) if wanted else ""


def stop_ids_of(tokenizer: PreTrainedTokenizerFast, ends: Iterable[str]) -> list[int]:
    """Ids of end tokens, then the tokenizer's end of sequence if it is another."""
    ids = [*(tokenizer.convert_tokens_to_ids(end) for end in ends), tokenizer.eos_token_id]
    return [int(token) for token in dict.fromkeys(ids) if token is not None]
