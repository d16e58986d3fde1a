"""Conversations as chat templates see them, rendered, with marks that show where each text ended up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from mftrun.data.sample import ASSISTANT, TOOL, Message, Sample
from mftrun.data.templates import clock
from mftrun.data.templates.base import UnrenderableError
from mftrun.data.templates.tools import arguments_of, tools_of

# Marks and stand-ins are characters of a Unicode plane that the sample does not use: for private use, or not
# assigned.
_PLANES: tuple[int, ...] = (0xF0000, 0x100000, *range(0x40000, 0xE0000, 0x10000))
_MOST_MESSAGES, _MOST_NAMES = 0x7000, 0x1000
_STAND_INS = 2 * _MOST_MESSAGES

Turn = Mapping[str, Any]


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja chat template and the values it sees.

    Args:
        text: The template.
        variables: Values besides the conversation: the tokenizer's special tokens by name, and the user's.
        today: The date and time it is told.
    """

    text: str
    variables: Mapping[str, Any]
    today: datetime = clock.DEFAULT

    @property
    def marks_answers(self) -> bool:
        """Whether the template says itself what the assistant writes."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None

    def render(self, turns: Sequence[Turn], tools: Sequence[Any] = (), *, prompt: bool = False) -> str:
        """The text of a conversation; with ``prompt``, up to where the assistant begins to write.

        Raises:
            UnrenderableError: The template refuses it.
        """
        return self._render(turns, tools, add_generation_prompt=prompt)[0]

    def render_marked(self, turns: Sequence[Turn], tools: Sequence[Any]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where in it the template says that the assistant writes.

        Raises:
            UnrenderableError: The template refuses it.
        """
        return self._render(turns, tools, return_assistant_tokens_mask=True)

    @cached_property
    def _stopped(self) -> str:
        return clock.stopped(self.text, self.today)

    def _render(
        self, turns: Sequence[Turn], tools: Sequence[Any], **options: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (text,), spans = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                tools=list(tools) or None,
                chat_template=self._stopped,
                **options,
                **self.variables,
            )
        except Exception as error:  # a template is a program of somebody else's and may fail in any way
            raise UnrenderableError(f"the chat template refuses the conversation: {error}") from error
        return text, list(spans[0]) if spans else []


@dataclass(frozen=True)
class Marked:
    """A text that was rendered with marks, without them.

    Attributes:
        text: Without marks.
        begins: Of each message, where its text begins, as often as it was rendered.
        ends: Of each message, where its text ends.
    """

    text: str
    begins: Mapping[int, list[int]]
    ends: Mapping[int, list[int]]

    def span(self, number: int) -> tuple[int, int] | None:
        """Where the text of a message lies, if it was rendered once and whole."""
        begins, ends = self.begins.get(number, []), self.ends.get(number, [])
        return (begins[0], ends[0]) if len(begins) == len(ends) == 1 and begins[0] <= ends[0] else None


@dataclass
class Conversation:
    """A sample in the form that chat templates take, made of texts that hold no name of a control token.

    Attributes:
        turns: One mapping per message.
        tools: The tools that are listed.
        base: The first character of a Unicode plane that the sample does not use.
        stand_ins: What stands in for names of control tokens in the texts, and the names.
        plain: The same without stand-ins; None where none were needed.
    """

    turns: list[dict[str, Any]]
    tools: list[Any]
    base: int
    stand_ins: dict[str, str] = field(default_factory=dict)
    plain: Conversation | None = None

    @classmethod
    def of(cls, sample: Sample, names: re.Pattern[str] | None) -> Conversation:
        """The conversation of a sample.

        Args:
            sample: A conversation.
            names: Finds names of control tokens that shall stay text.

        Raises:
            UnrenderableError: Calls or tools are not JSON, or the texts leave no characters for marks.
        """
        turns, tools = list(_turns(sample.messages)), tools_of(sample)
        if len(turns) > _MOST_MESSAGES:
            raise UnrenderableError(f"a conversation may have {_MOST_MESSAGES} messages, not {len(turns)}")
        texts = list(_texts([turns, tools]))
        found = {name for text in texts for name in names.findall(text)} if names is not None else set()
        plain = cls(turns, tools, _free_plane(texts))
        # The longest first, as the tokenizer reads them.
        return plain.with_stand_ins(sorted(found, key=lambda name: (-len(name), name))) if found else plain

    def with_stand_ins(self, names: Sequence[str]) -> Conversation:
        """The same, with a character in place of each name."""
        if len(names) > _MOST_NAMES:
            raise UnrenderableError("the texts name too many control tokens")
        stand_ins = {chr(self.base + _STAND_INS + number): name for number, name in enumerate(names)}

        def replaced(text: str) -> str:
            for character, name in stand_ins.items():
                text = text.replace(name, character)
            return text

        turns, tools = _mapped(self.turns, replaced), _mapped(self.tools, replaced)
        return Conversation(turns, tools, self.base, stand_ins, self)

    def named(self, text: str) -> str:
        """A rendered text with the names back in place of what stands in for them."""
        for character, name in self.stand_ins.items():
            text = text.replace(character, name)
        return text

    def marked(self) -> list[Turn]:
        """The turns with marks around each text."""
        return [
            {**turn, "content": self._marks(number, turn["content"])} if turn["content"] else turn
            for number, turn in enumerate(self.turns)
        ]

    def replaced(self, number: int) -> list[Turn]:
        """The turns with one text replaced by its marks."""
        return [
            {**turn, "content": self._marks(number, "")} if index == number else turn
            for index, turn in enumerate(self.turns)
        ]

    def read(self, text: str) -> Marked:
        """Takes the marks out of a rendered text."""
        begins: dict[int, list[int]] = {}
        ends: dict[int, list[int]] = {}
        pieces: list[str] = []
        length = 0
        pattern = f"([{chr(self.base)}-{chr(self.base + _STAND_INS - 1)}])"
        for place, piece in enumerate(re.split(pattern, text)):
            if place % 2:
                number, is_end = divmod(ord(piece) - self.base, 2)
                (ends if is_end else begins).setdefault(number, []).append(length)
            else:
                pieces.append(piece)
                length += len(piece)
        return Marked("".join(pieces), begins, ends)

    def _marks(self, number: int, text: str) -> str:
        return chr(self.base + 2 * number) + text + chr(self.base + 2 * number + 1)


def _turns(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    waiting: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == ASSISTANT and message.tool_calls:
            waiting = [_call(number, index, message) for index in range(len(message.tool_calls))]
            turn |= {"content": message.content or None, "tool_calls": waiting.copy()}
        elif message.role == TOOL and waiting:
            call = waiting.pop(0)
            turn |= {"tool_call_id": call["id"], "name": call["function"]["name"]}
        yield turn


def _call(number: int, index: int, message: Message) -> dict[str, Any]:
    """A call in OpenAI's form. Some templates write its id, and some of them want nine letters or digits."""
    call = message.tool_calls[index]
    function = {"name": call.name, "arguments": arguments_of(call)}
    identity = hashlib.sha256(f"{number} {index} {call.name} {call.arguments}".encode()).hexdigest()[:9]
    return {"id": identity, "type": "function", "function": function}


def _free_plane(texts: Sequence[str]) -> int:
    highest = max((max(text) for text in texts if text), default="")
    if highest < chr(_PLANES[0]):
        return _PLANES[0]
    used = {ord(letter) >> 16 for text in texts for letter in text}
    for base in _PLANES:
        if base >> 16 not in used:
            return base
    raise UnrenderableError("the texts use every Unicode plane that has no characters yet; remove those")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
