"""Templates: how a conversation becomes tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mftrun.data.encoder import Encoded, Encoder, Part
from mftrun.data.sample import ASSISTANT, SYSTEM, USER, Message
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_KEY = "template"


@runtime_checkable
class Template(Protocol):
    """Turns conversations into tokens and targets."""

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """Control tokens that a tokenizer trained from scratch shall have."""

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> ConversationEncoder:
        """Binds the template to a tokenizer.

        Raises:
            ConfigError: The tokenizer lacks a token that the template cannot do without.
        """

    def chat_template(self) -> str:
        """The same format as a jinja chat template."""

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Tokens that end an answer."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values that change when the tokens may."""


class ConversationEncoder(Protocol):
    """A template bound to a tokenizer."""

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Tokens and targets of each conversation."""


@dataclass(frozen=True)
class RoleTemplate:
    r"""A prefix and a suffix around the text of each role.

    An assistant turn is ``assistant_prefix + text + assistant_suffix + end token + after_end``. Its text,
    suffix and end token are trained, nothing else is. Text of messages never becomes a control token,
    whatever it says; prefixes and suffixes may name control tokens, and are plain text where the tokenizer
    lacks them.

    Args:
        system_prefix: Before the system text.
        user_prefix: Before the user's text.
        assistant_prefix: Before the assistant's text; ends the prompt that asks for an answer.
        system_suffix: After the system text.
        user_suffix: After the user's text.
        assistant_suffix: After the assistant's text, before the end token.
        end_token: One control token of the tokenizer; null takes its end-of-sequence token.
        after_end: After the end token.
        begin_token: Whether the tokenizer's begin-of-sequence token comes first.
        control_tokens: Tokens for a tokenizer that is trained from scratch.
    """

    system_prefix: str
    user_prefix: str
    assistant_prefix: str
    system_suffix: str = ""
    user_suffix: str = ""
    assistant_suffix: str = ""
    end_token: str | None = None
    after_end: str = ""
    begin_token: bool = False
    control_tokens: Sequence[str] = field(default=())

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """The control tokens, and the end token where it is named."""
        named = [*self.control_tokens, *([self.end_token] if self.end_token else [])]
        return tuple(dict.fromkeys(named))

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> RoleEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        Raises:
            ConfigError: The tokenizer has no end token, or no begin token where one is asked for.
        """
        return RoleEncoder(self, tokenizer)

    def encode_all(
        self, conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerFast
    ) -> list[Encoded]:
        """Tokens and targets of each conversation; see `encoder` for many batches.

        Raises:
            ConfigError: As `encoder`.
        """
        return self.encoder(tokenizer).encode_all(conversations)

    def parts(self, messages: Iterable[Message], begin: str, end: str) -> Iterator[Part]:
        """The pieces of text of a conversation, in order.

        Args:
            messages: The conversation.
            begin: Begin-of-sequence token, or "".
            end: End token.
        """
        yield Part(begin, is_template=True)
        for message in messages:
            if message.role == ASSISTANT:
                yield Part(self.assistant_prefix, is_template=True)
                yield Part(message.content, is_target=True)
                yield Part(self.assistant_suffix + end, is_template=True, is_target=True)
                yield Part(self.after_end, is_template=True)
            else:
                prefix, suffix = self._around()[message.role]
                yield Part(prefix, is_template=True)
                yield Part(message.content)
                yield Part(suffix, is_template=True)

    def chat_template(self) -> str:
        """The format as a jinja chat template: it renders what is trained on, token for token."""
        end = _jinja(self.end_token) if self.end_token else "eos_token"
        lines = ["{{- bos_token }}"] if self.begin_token else []
        lines += ["{%- for message in messages %}"]
        for keyword, (role, (prefix, suffix)) in zip(("if", "elif"), self._around().items(), strict=True):
            lines += [f"{{%- {keyword} message['role'] == '{role}' %}}"]
            lines += [f"{{{{- {_jinja(prefix)} + message['content'] + {_jinja(suffix)} }}}}"]
        answer = [_jinja(self.assistant_prefix), "message['content']", _jinja(self.assistant_suffix), end]
        lines += [f"{{%- elif message['role'] == '{ASSISTANT}' %}}"]
        lines += [f"{{{{- {' + '.join([*answer, _jinja(self.after_end)])} }}}}"]
        lines += ["{%- else %}", "{{- raise_exception('Unknown role: ' + message['role']) }}", "{%- endif %}"]
        lines += ["{%- endfor %}"]
        lines += [
            f"{{%- if add_generation_prompt %}}{{{{- {_jinja(self.assistant_prefix)} }}}}{{%- endif %}}"
        ]
        return "\n".join(lines)

    def end_token_of(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The end token, which must be one control token.

        Raises:
            ConfigError: It is not.
        """
        if self.end_token is None and tokenizer.eos_token is None:
            raise ConfigError(f"{_KEY}.end_token", f"the tokenizer has no end-of-sequence token; {_CHOOSE}")
        end = self.end_token or str(tokenizer.eos_token)
        if end not in tokenizer.get_added_vocab():
            message = f"{end!r} is not a control token of the tokenizer; {_CHOOSE}"
            raise ConfigError(f"{_KEY}.end_token", f"{message}, or null for its own, {tokenizer.eos_token!r}")
        return end

    def begin_token_of(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The begin-of-sequence token, or "" if the template wants none.

        Raises:
            ConfigError: It wants one and the tokenizer has none.
        """
        if self.begin_token and tokenizer.bos_token is None:
            message = "the tokenizer has no begin-of-sequence token; set it to false"
            raise ConfigError(f"{_KEY}.begin_token", message)
        return str(tokenizer.bos_token) if self.begin_token else ""

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids that end an answer: the end token, then the tokenizer's end of sequence if it is another.

        Raises:
            ConfigError: The tokenizer has no end token.
        """
        ends = [tokenizer.convert_tokens_to_ids(self.end_token_of(tokenizer)), tokenizer.eos_token_id]
        return [int(token) for token in dict.fromkeys(ends) if token is not None]

    def fingerprint(self) -> Mapping[str, Any]:
        """All fields."""
        return {"kind": type(self).__name__, **asdict(self), "control_tokens": " ".join(self.control_tokens)}

    def _around(self) -> Mapping[str, tuple[str, str]]:
        return {
            SYSTEM: (self.system_prefix, self.system_suffix),
            USER: (self.user_prefix, self.user_suffix),
        }


class RoleEncoder:
    """A role template bound to a tokenizer.

    Raises:
        ConfigError: The tokenizer has no end token, or no begin token where one is asked for.
    """

    def __init__(self, template: RoleTemplate, tokenizer: PreTrainedTokenizerFast) -> None:
        self._template = template
        self._begin = template.begin_token_of(tokenizer)
        self._end = template.end_token_of(tokenizer)
        self._encoder = Encoder(tokenizer.backend_tokenizer, (*template.required_tokens, self._end))

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Tokens and targets of each conversation, in one parallel batch."""
        return self._encoder.encode_all(
            [self._template.parts(messages, self._begin, self._end) for messages in conversations]
        )


_CHOOSE = "set template.end_token to one of its control tokens"


def _jinja(text: str) -> str:
    # Python's ascii() is a jinja string literal too: jinja reads \n, \x, \u and \U as Python does.
    return ascii(text)
