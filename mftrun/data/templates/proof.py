"""Where in a rendered conversation the assistant's texts lie, for any chat template, or a refusal.

A wrong answer would train the wrong tokens unseen, so every span is proven by renderings that differ only in
the text in question, and what cannot be proven is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mftrun.data.sample import ASSISTANT, USER, Message, Origin, Sample
from mftrun.data.templates.base import KEY, UnrenderableError
from mftrun.data.templates.rendering import ChatTemplate, Conversation, Marked, Turn

Span = tuple[int, int]


@dataclass(frozen=True)
class Habits:
    """How a chat template writes answers, learnt from one conversation.

    Attributes:
        ends: Control tokens that end an answer.
        closes_all: Whether every answer is ended, not the last alone.
        lead: White space that is written between the prompt that asks for an answer and the answer's text;
            the model has to write it.
        written: Control tokens in what the template writes itself around the messages.
    """

    ends: frozenset[str]
    closes_all: bool
    lead: str
    written: frozenset[str]


PLAIN = Sample(
    (Message(USER, "a"), Message(ASSISTANT, "b"), Message(USER, "c"), Message(ASSISTANT, "d")), Origin("", 0)
)
"""A conversation that every chat template can write."""


def habits_of(template: ChatTemplate, control: re.Pattern[str], eos: str | None) -> Habits:
    """Learns how a chat template writes answers.

    Args:
        template: The chat template.
        control: Finds names of control tokens.
        eos: The tokenizer's end-of-sequence token.

    Raises:
        UnrenderableError: The template refuses a plain conversation, or no control token ends its answers.
    """
    chat = Conversation.of(PLAIN, None)
    shown = chat.read(template.render(chat.marked()))
    spans = [shown.span(number) for number in range(4)]
    if None in spans:
        raise UnrenderableError("the chat template changes even plain texts")
    (_, (_, first_end), (second, _), (_, last_end)) = [span for span in spans if span is not None]
    last = control.search(shown.text, last_end)
    if last is None:
        raise UnrenderableError("the chat template ends no answer with a control token")
    first = control.search(shown.text, first_end, second)
    ends = frozenset({last[0], *([eos] if eos else [])})
    return Habits(
        ends=ends,
        closes_all=first is not None and first[0] in ends,
        lead=_lead(template, chat, shown),
        written=frozenset(control.findall(shown.text, 0, second)),
    )


def _lead(template: ChatTemplate, chat: Conversation, shown: Marked) -> str:
    gaps = set()
    for number in (1, 3):
        prompt = template.render(chat.turns[:number], prompt=True)
        begin = shown.begins[number][0]
        gaps.add(shown.text[len(prompt) : begin] if shown.text[:begin].startswith(prompt) else "")
    (gap, *others) = gaps
    return gap if not others and gap.isspace() else ""


@dataclass(frozen=True)
class Prover:
    """Finds the assistant's texts in rendered conversations.

    Args:
        template: The chat template.
        control: Finds names of control tokens.
        habits: How the template writes answers.
    """

    template: ChatTemplate
    control: re.Pattern[str]
    habits: Habits

    def prove(self, chat: Conversation) -> tuple[str, dict[int, Span]]:
        """The text of a conversation, and where in it each answer lies, its end token included.

        Raises:
            UnrenderableError: The template refuses the conversation, leaves out a part of it, goes by the
                control tokens that its texts name, or rewrites an answer in such a way that its place cannot
                be proven.
        """
        text, said = self._rendered(chat)
        self._refuse_reading_names(chat, text)
        marked = self.template.render(chat.marked(), chat.tools)
        shown = chat.read(marked)
        self._refuse_omissions(chat, shown, text)
        if shown.text == text and len(self.control.findall(text)) != len(self.control.findall(marked)):
            raise UnrenderableError("a message and the chat template together spell a control token")
        answers = [number for number, turn in enumerate(chat.turns) if turn["role"] == ASSISTANT]
        if said and len(said) == len(answers):
            spans = {number: self._said(text, span) for number, span in zip(answers, said, strict=True)}
        else:
            spans = {number: self._span(chat, number, text, shown) for number in answers}
        self._refuse_missing_calls(chat, text, spans)
        return text, _in_order(spans)

    def _rendered(self, chat: Conversation) -> tuple[str, list[Span]]:
        if self.template.marks_answers:
            return self.template.render_marked(chat.turns, chat.tools)
        return self.template.render(chat.turns, chat.tools), []

    def _refuse_reading_names(self, chat: Conversation, text: str) -> None:
        """A server shows the template the names; it must not write anything else for them."""
        if chat.plain is None or self._writes(chat, text, chat.plain.turns, chat.plain.tools):
            return
        for number, turn in enumerate(chat.plain.turns):
            if turn != chat.turns[number]:
                turns = [*chat.turns[:number], turn, *chat.turns[number + 1 :]]
                if not self._writes(chat, text, turns, chat.tools):
                    raise _reads_names(f"message {number + 1} ({turn['role']})")
        raise _reads_names("the messages and tools together")

    def _writes(self, chat: Conversation, text: str, turns: Sequence[Turn], tools: Sequence[Any]) -> bool:
        try:
            return chat.named(self.template.render(turns, tools)) == chat.named(text)
        except UnrenderableError:
            return False

    def _refuse_omissions(self, chat: Conversation, shown: Marked, text: str) -> None:
        for number, turn in enumerate(chat.turns):
            if not turn["content"] or (number in shown.begins and number in shown.ends):
                continue
            what = f"message {number + 1} ({turn['role']})"
            if number not in shown.begins and number not in shown.ends:
                raise UnrenderableError(f"the chat template leaves out {what}")
            # Templates take thoughts off the beginning of answers; what is cut at the end is no whole answer.
            if turn["role"] != ASSISTANT or number not in shown.ends:
                raise UnrenderableError(f"the chat template leaves out a part of {what}")
        if chat.tools and self.template.render(chat.turns) == text:
            raise UnrenderableError("the chat template leaves out the list of tools")

    def _refuse_missing_calls(self, chat: Conversation, text: str, spans: dict[int, Span]) -> None:
        for number, (begin, end) in spans.items():
            for call in chat.turns[number].get("tool_calls", ()):
                if call["function"]["name"] not in text[begin:end]:
                    message = f"the chat template leaves out calls of message {number + 1} (assistant)"
                    raise UnrenderableError(message)

    def _said(self, text: str, span: Span) -> Span:
        """What the template itself says, with the end token and without what follows it."""
        begin, end = span
        ends = [found for found in self.control.finditer(text, begin, end) if found[0] in self.habits.ends]
        if ends and not text[ends[-1].end() : end].strip():
            return begin, ends[-1].end()
        return begin, self._closed(text, end, len(text))

    def _span(self, chat: Conversation, number: int, text: str, shown: Marked) -> Span:
        span = shown.span(number) if shown.text == text else None
        if chat.turns[number].get("tool_calls"):
            return self._with_calls(chat, number, text, span)
        if span is None:
            span = self._by_replacing(chat, number, text)
            return span[0], self._closed(text, span[1], self._limit(chat, number, text, None))
        begin, end = span
        return self._with_lead(text, begin), self._closed(text, end, self._limit(chat, number, text, shown))

    def _limit(self, chat: Conversation, number: int, text: str, shown: Marked | None) -> int:
        """How far the end token may be: it comes before the next message, if answers are ended at all."""
        if number + 1 == len(chat.turns):
            return len(text)
        if not self.habits.closes_all:
            return 0
        later = shown.begins.get(number + 1, []) if shown is not None else []
        return later[0] if later else len(text)

    def _closed(self, text: str, end: int, limit: int) -> int:
        found = self.control.search(text, end, max(end, limit))
        return found.end() if found is not None and found[0] in self.habits.ends else end

    def _with_lead(self, text: str, begin: int) -> int:
        lead = self.habits.lead
        return begin - len(lead) if lead and text.endswith(lead, 0, begin) else begin

    def _by_replacing(self, chat: Conversation, number: int, text: str) -> Span:
        """The place of a text that the template changes: what is left between an equal start and end."""
        shown = chat.read(self.template.render(chat.replaced(number), chat.tools))
        span = shown.span(number)
        if span is None:
            raise _unproven(number)
        before, after = shown.text[: span[0]], shown.text[span[1] :]
        begin, end = len(before), len(text) - len(after)
        if begin >= end or not text.endswith(after):
            raise _unproven(number)
        content = chat.turns[number]["content"]
        if text.startswith(before) and text[begin:end] in content:
            return self._with_lead(text, begin), end
        # The turn begins otherwise than with another text, as where thoughts are set apart by white space.
        begin = self._after_prompt(chat, number, text)
        if "".join(text[begin:end].split()) != "".join(content.split()):
            raise _unproven(number)
        return begin, end

    def _after_prompt(self, chat: Conversation, number: int, text: str) -> int:
        prompt = self.template.render(chat.turns[:number], chat.tools, prompt=True) if number else ""
        if not prompt or not text.startswith(prompt):
            raise _unproven(number)
        return len(prompt)

    def _with_calls(self, chat: Conversation, number: int, text: str, span: Span | None) -> Span:
        """An answer that calls tools: from where its text would stand to the end token behind the calls."""
        begin = self._begin_of_calls(chat, number, text) if span is None else self._with_lead(text, span[0])
        is_last = number + 1 == len(chat.turns)
        for found in self.control.finditer(text, begin if span is None else span[1]):
            if found[0] in self.habits.ends and (is_last or self.habits.closes_all):
                return begin, found.end()
        raise _unproven(number)

    def _begin_of_calls(self, chat: Conversation, number: int, text: str) -> int:
        shown = chat.read(self.template.render(chat.replaced(number), chat.tools))
        span = shown.span(number)
        if span is not None and text.startswith(shown.text[: span[0]]):
            return self._with_lead(text, span[0])
        return self._after_prompt(chat, number, text)


def _reads_names(where: str) -> UnrenderableError:
    return UnrenderableError(
        f"the chat template goes by control tokens that the text of {where} names; remove the names, or set "
        f"{KEY}.control_text=true, where they are meant as those tokens"
    )


def _unproven(number: int) -> UnrenderableError:
    return UnrenderableError(
        f"the chat template rewrites message {number + 1} (assistant) so that its tokens cannot be told from "
        "the rest; change the message, or choose another template such as template=chatml"
    )


def _in_order(spans: dict[int, Span]) -> dict[int, Span]:
    last = 0
    for number, (begin, end) in spans.items():
        if begin < last or begin >= end:
            raise _unproven(number)
        last = end
    return spans


def gaps(text: str, spans: dict[int, Span]) -> Iterator[tuple[str, int | None]]:
    """The text cut at the spans: each piece, with the message it answers in, or None."""
    last = 0
    for number, (begin, end) in spans.items():
        yield text[last:begin], None
        yield text[begin:end], number
        last = end
    yield text[last:], None
