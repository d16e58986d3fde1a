"""The tokenizer's own chat template, or one from a file, with exact targets for any of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.encoder import Encoder, Part
from mftrun.data.sample import DOCUMENT, Sample
from mftrun.data.templates import clock
from mftrun.data.templates.base import KEY, PartsEncoder, UnrenderableError, stop_ids_of
from mftrun.data.templates.proof import PLAIN, Habits, Prover, gaps, habits_of
from mftrun.data.templates.rendering import ChatTemplate, Conversation
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
_INSTEAD = "choose another template, such as template=chatml"


@dataclass(frozen=True)
class ModelTemplate:
    """A jinja chat template: the tokenizer's own, or a file.

    What the assistant writes is trained: its text, its calls of tools, and the control token that ends them;
    never the header of its turn. A conversation that the template refuses, changes beyond recognition or
    leaves parts of out is refused. Text of messages never becomes a special token of the tokenizer, whatever
    it says, unless `control_text` is set.

    A template that asks for the date or the time (``strftime_now``) is told midnight of 26 July 2024, Llama
    3.1's own fallback, or what ``variables["today"]`` says: the same samples give the same tokens on any day.
    A server tells it the date of the day.

    A file is read when the object is made; whatever becomes of it later changes nothing.

    Args:
        path: File with a jinja chat template; null takes the tokenizer's own.
        variables: More values for the template, such as ``enable_thinking``. Give the same when serving.
            ``today``, such as ``"2026-11-21"``, is also the date that the template is told.
        control_text: Whether names of special tokens in the text of messages become those tokens.
    """

    path: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    control_text: bool = False
    _file: tuple[str | None, str] = field(init=False, repr=False, compare=False, default=(None, ""))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_file", _text_or_reason(self.path))

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """None: a tokenizer that is trained from scratch has no chat template to name any."""
        return ()

    def encoder(self, tokenizer: PreTrainedTokenizerFast) -> PartsEncoder:
        """Binds the template to a tokenizer; keep the result, as it prepares the tokenizer once.

        The chat template is the tokenizer's: set it to `chat_template` first, as a run does. The file is
        taken where the tokenizer has none.

        Raises:
            ConfigError: There is no chat template, or none that ends answers with a control token; or
                ``variables["today"]`` is no date where the template shows one.
        """
        file, _ = self._file
        if file is not None and tokenizer.chat_template not in (None, file):
            _log.warning("the tokenizer's chat template is used, which is another than %s", self.path)
        bound = _Bound(self, tokenizer)
        if bound.shows_date():
            message = "the chat template shows the date: %s in all samples; %s.variables.today sets another"
            _log.info(message, bound.today.date(), KEY)
        encoder = Encoder(tokenizer.backend_tokenizer, bound.text_only)
        return PartsEncoder(bound.parts, encoder)

    def chat_template(self) -> str | None:
        """The text of the file; None leaves the tokenizer's own.

        Raises:
            ConfigError: The file cannot be read.
        """
        text, reason = self._file
        if reason:
            raise ConfigError(f"{KEY}.path", reason)
        return text

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids that end an answer: those the tokenizer's chat template ends answers with, and its own.

        As `encoder`, it takes the file only where the tokenizer has no chat template.

        Raises:
            ConfigError: As `encoder`.
        """
        return stop_ids_of(tokenizer, sorted(_Bound(self, tokenizer).habits.ends - {tokenizer.eos_token}))

    def fingerprint(self) -> Mapping[str, Any]:
        """All fields, and the text of the file, or why it cannot be read."""
        text, reason = self._file
        return {
            "kind": type(self).__name__,
            "chat_template": reason or text,
            "variables": dict(self.variables),
            "control_text": self.control_text,
        }


class _Bound:
    """A chat template bound to a tokenizer."""

    def __init__(self, template: ModelTemplate, tokenizer: PreTrainedTokenizerFast) -> None:
        variables = {**tokenizer.special_tokens_map, **template.variables}
        texts = [_text_of(template, tokenizer, None), _text_of(template, tokenizer, [{}])]
        self.today = _today(template.variables, texts)
        plain, with_tools = (ChatTemplate(text, variables, self.today) for text in texts)
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

    def shows_date(self) -> bool:
        """Whether what the templates write depends on the date."""
        return any(_shows_date(prover.template) for prover in self._provers.values())

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


def _text_or_reason(path: str | None) -> tuple[str | None, str]:
    if path is None:
        return None, ""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8"), ""
    except (OSError, UnicodeDecodeError) as error:
        return None, f"{path} cannot be read: {error}"


def _text_of(template: ModelTemplate, tokenizer: PreTrainedTokenizerFast, tools: list[Any] | None) -> str:
    file = template.chat_template() if tokenizer.chat_template is None else None
    return file if file is not None else _own(tokenizer, tools)


def _today(variables: Mapping[str, Any], texts: Sequence[str]) -> datetime:
    written = variables.get("today")
    if written is None or not any(map(clock.is_read, texts)):  # else it is a variable like others
        return clock.DEFAULT
    try:
        return datetime.fromisoformat(str(written))
    except ValueError as error:
        message = f"{written!r} is no date such as 2026-11-21, which the chat template shows"
        raise ConfigError(f"{KEY}.variables.today", message) from error


def _shows_date(template: ChatTemplate) -> bool:
    if not clock.is_read(template.text):
        return False
    turns = Conversation.of(PLAIN, None).turns
    try:
        shown = {replace(template, today=day).render(turns) for day in (clock.DEFAULT, clock.OTHER)}
    except UnrenderableError:  # such as a template for tools, which are not there
        return False
    return len(shown) > 1


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
