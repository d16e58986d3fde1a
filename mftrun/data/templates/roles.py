"""Templates that put a prefix and a suffix around the text of each role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mftrun.data.encoder import Encoder, Part
from mftrun.data.sample import ASSISTANT, DOCUMENT, SYSTEM, TOOL, USER, Message, Sample
from mftrun.data.templates import role_jinja
from mftrun.data.templates.base import (
    PartsEncoder,
    UnrenderableError,
    begin_token_of,
    cannot_render,
    end_token_of,
    stop_ids_of,
)
from mftrun.data.templates.tools import ToolText, as_json, call_texts, tools_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class RoleTemplate:
    r"""A prefix and a suffix around the text of each role.

    An assistant turn is ``assistant_prefix + text + assistant_suffix + end token + after_end``. Its text,
    calls of tools, suffix and end token are trained, as often as the message's weight says; nothing else is.
    Text of messages never becomes a control token, whatever it says, unless `control_text` is set; prefixes
    and suffixes may name control tokens, and are plain text where the tokenizer lacks them.

    Args:
        system_prefix: Before the system text; null where the format knows no system text.
        user_prefix: Before the user's text.
        assistant_prefix: Before the assistant's text; ends the prompt that asks for an answer.
        system_suffix: After the system text.
        user_suffix: After the user's text.
        assistant_suffix: After the assistant's text, before the end token.
        end_token: One control token of the tokenizer; null takes its end-of-sequence token.
        after_end: After the end token.
        begin_token: Whether the tokenizer's begin-of-sequence token comes first.
        control_tokens: Tokens for a tokenizer that is trained from scratch.
        tools: How tools are written; null where the format knows none.
        control_text: Whether names of control tokens in the text of messages become those tokens.
    """

    system_prefix: str | None
    user_prefix: str
    assistant_prefix: str
    system_suffix: str = ""
    user_suffix: str = ""
    assistant_suffix: str = ""
    end_token: str | None = None
    after_end: str = ""
    begin_token: bool = False
    control_tokens: Sequence[str] = field(default=())
    tools: ToolText | None = None
    control_text: bool = False

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """The control tokens, and the end token where it is named."""
        named = [*self.control_tokens, *([self.end_token] if self.end_token else [])]
        return tuple(dict.fromkeys(named))

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> PartsEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        Raises:
            ConfigError: The tokenizer has no end token, or no begin token where one is asked for.
        """
        begin = begin_token_of(tokenizer, self.begin_token)
        end = end_token_of(tokenizer, self.end_token)
        encoder = Encoder(tokenizer.backend_tokenizer, (*self.required_tokens, end))
        return PartsEncoder(partial(self.parts, begin=begin, end=end), encoder)

    def parts(self, sample: Sample, begin: str, end: str) -> Iterator[Part]:
        """The pieces of text of a conversation, in order.

        Args:
            sample: The conversation.
            begin: Begin-of-sequence token, or "".
            end: End token.

        Raises:
            UnrenderableError: The template knows no way to write some message.
        """
        yield Part(begin, is_template=True)
        tools = list(self._tool_list(sample))
        if tools and sample.messages[0].role != SYSTEM:
            yield from self._around(self.system_prefix, tools, self.system_suffix)
        for index, message in enumerate(sample.messages):
            if message.role == ASSISTANT:
                yield from self._answer(message, end)
            elif message.role == TOOL and self.tools is not None:
                yield from self._result(sample.messages, index, self.tools)
            else:
                prefix, suffix = self._prefix_and_suffix(index + 1, message)
                listed = tools if message.role == SYSTEM else []
                between = self.tools.list_after_system if self.tools is not None and listed else ""
                content = [self._text(message), Part(between, is_template=True), *listed]
                yield from self._around(prefix, content, suffix)

    def chat_template(self) -> str:
        """The format as a jinja chat template: it renders what is trained on, token for token.

        Arguments of calls it takes as JSON objects, which servers make of a client's text first; if given as
        text, it writes that as it is, which is what was trained only where it is as `ToolText` says.
        """
        return role_jinja.chat_template(self)

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids that end an answer: the end token, then the tokenizer's end of sequence if it is another.

        Raises:
            ConfigError: The tokenizer has no end token.
        """
        return stop_ids_of(tokenizer, [end_token_of(tokenizer, self.end_token)])

    def fingerprint(self) -> Mapping[str, Any]:
        """All fields."""
        return {"kind": type(self).__name__, **asdict(self), "control_tokens": " ".join(self.control_tokens)}

    def _text(self, message: Message) -> Part:
        weight = message.weight if message.role == ASSISTANT else 0.0
        return Part(message.content, self.control_text, weight)

    def _around(self, prefix: str | None, content: Sequence[Part], suffix: str) -> Iterator[Part]:
        if prefix is None:
            raise UnrenderableError("tools stand in the system turn, which this template does not have")
        yield Part(prefix, is_template=True)
        yield from content
        yield Part(suffix, is_template=True)

    def _answer(self, message: Message, end: str) -> Iterator[Part]:
        yield Part(self.assistant_prefix, is_template=True)
        yield self._text(message)
        yield from self._calls(message)
        yield Part(self.assistant_suffix + end, is_template=True, weight=message.weight)
        yield Part(self.after_end, is_template=True)

    def _calls(self, message: Message) -> Iterator[Part]:
        if message.tool_calls and self.tools is None:
            raise UnrenderableError(f"the assistant calls tools, which this template cannot write; {_CHATML}")
        for number, text in enumerate(call_texts(message)):
            assert self.tools is not None
            separator = self.tools.call_separator if number or message.content else ""
            yield Part(separator + self.tools.call_prefix, is_template=True, weight=message.weight)
            yield Part(text, self.control_text, message.weight)
            yield Part(self.tools.call_suffix, is_template=True, weight=message.weight)

    def _result(self, messages: Sequence[Message], index: int, tools: ToolText) -> Iterator[Part]:
        is_first = index == 0 or messages[index - 1].role != TOOL
        is_last = index + 1 == len(messages) or messages[index + 1].role != TOOL
        yield Part(tools.turn_prefix if is_first else tools.result_separator, is_template=True)
        yield Part(tools.result_prefix, is_template=True)
        yield self._text(messages[index])
        yield Part(tools.result_suffix + (tools.turn_suffix if is_last else ""), is_template=True)

    def _tool_list(self, sample: Sample) -> Iterator[Part]:
        listed = tools_of(sample)
        if listed and self.tools is None:
            raise UnrenderableError(f"the sample lists tools, which this template cannot write; {_CHATML}")
        for number, tool in enumerate(listed):
            assert self.tools is not None
            before = self.tools.list_separator if number else self.tools.list_prefix
            yield Part(before, is_template=True)
            yield Part(as_json(tool), self.control_text)
        if listed and self.tools is not None:
            yield Part(self.tools.list_suffix, is_template=True)

    def _prefix_and_suffix(self, number: int, message: Message) -> tuple[str, str]:
        if message.role == USER:
            return self.user_prefix, self.user_suffix
        if message.role == SYSTEM and self.system_prefix is not None:
            return self.system_prefix, self.system_suffix
        raise cannot_render(number, message, _NONE if message.role == DOCUMENT else _CHATML)


_CHATML = "choose one that can, such as template=chatml"
_NONE = "use template=none for plain text"
