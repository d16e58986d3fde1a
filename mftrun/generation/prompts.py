"""Requests as the tokens that a model is given: those it was trained behind, and nothing else."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property, singledispatch
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mftrun.data.encoder import Encoded, Encoder, Part
from mftrun.data.sample import ASSISTANT, DOCUMENT, USER, Message, Origin, Sample
from mftrun.data.template import Document, ModelTemplate, RoleTemplate, Template
from mftrun.data.templates import clock
from mftrun.data.templates.base import UnrenderableError, stop_ids_of
from mftrun.data.templates.rendering import ChatTemplate, Conversation
from mftrun.generation.requests import Request, text_request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

_CONTEXT = 8  # tokens before an answer that decide how its own first one is written


class Prompts(Protocol):
    """A template bound to a tokenizer, for generation."""

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer."""

    def encode(self, request: Request) -> list[int]:
        """The tokens up to where the answer begins.

        Raises:
            ValueError: The template cannot render the request; says why.
        """

    def begin(self, prompt: Sequence[int], text: str) -> list[int]:
        """The tokens of a text that the answer begins with, behind those of a prompt.

        Raises:
            ValueError: It cannot be written; says why.
        """

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """What the tokens of an answer say behind those of its prompt."""

    def message(self, text: str) -> str:
        """The message that a finished answer is: without what the template writes at its end."""


@singledispatch
def prompts_for(template: Template, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    """Binds a template to a tokenizer.

    Args:
        template: The template that the model was trained with.
        tokenizer: The tokenizer.

    Raises:
        ConfigError: The tokenizer lacks something that the template cannot do without.
    """
    return _Turns(template, tokenizer)


@prompts_for.register(RoleTemplate)
def _(template: RoleTemplate, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    return _Turns(template, tokenizer, suffix=template.assistant_suffix)


@prompts_for.register(Document)
def _(template: Document, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    return _Texts(template, tokenizer)


@prompts_for.register(ModelTemplate)
def _(template: ModelTemplate, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    return _Chat(template, tokenizer)


class _Turns:
    """Conversations: a prompt is a training sample cut where the answer's tokens begin.

    Args:
        template: The template.
        tokenizer: The tokenizer.
        suffix: What it writes between the text of an answer and its end token.
    """

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerFast, suffix: str = "") -> None:
        self.stop_ids = template.stop_ids(tokenizer)
        self._encoder = template.encoder(tokenizer)
        self._tokenizer = tokenizer
        self._suffix = suffix
        self._names_count = bool(getattr(template, "control_text", False))
        self._control = (*template.required_tokens, *tokenizer.convert_ids_to_tokens(self.stop_ids))

    @cached_property
    def _answer_encoder(self) -> Encoder:
        return Encoder(self._tokenizer.backend_tokenizer, self._control)

    def encode(self, request: Request) -> list[int]:
        """See `Prompts.encode`."""
        return self._cut(_spoken(request.messages), request.tools)

    def begin(self, prompt: Sequence[int], text: str) -> list[int]:
        """See `Prompts.begin`: answers are tokenized apart, but for whether a control token comes before."""
        token = self._tokenizer.added_tokens_decoder.get(int(prompt[-1]))
        before = Part("x" if token is None else token.content, is_template=True)
        answer = Part(text, self._names_count, weight=1.0)
        (encoded,) = self._answer_encoder.encode_all([[before, answer]])
        if isinstance(encoded, str):
            raise ValueError(encoded)
        return [int(token) for token in encoded.ids[encoded.targets]]

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """See `Prompts.text`; the prompt ends with the template's own words, which say nothing of it."""
        return _decoded(self._tokenizer, answer)

    def message(self, text: str) -> str:
        """See `Prompts.message`."""
        return text.removesuffix(self._suffix) if self._suffix else text

    def _cut(self, messages: Sequence[Message], tools: str) -> list[int]:
        # Its weight tells a stand-in's tokens from all others, and keeps them apart from those before.
        weight = 1.0 + max((message.weight for message in messages), default=0.0)
        encoded = self._encoder.encode([*messages, Message(ASSISTANT, "x", weight)], tools)
        return _up_to(encoded, int(np.argmax(encoded.weights == weight)))


class _Texts(_Turns):
    """Plain text is continued as it is; a conversation is its texts, joined as in training."""

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(template, tokenizer)
        self._end = self.stop_ids[0]

    def encode(self, request: Request) -> list[int]:
        """See `Prompts.encode`."""
        if request.messages[-1].role != DOCUMENT:
            return self._cut(request.messages, request.tools)
        encoded = self._encoder.encode(request.messages, request.tools)
        return _up_to(encoded, len(encoded.ids) - int(encoded.ids[-1] == self._end))

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """See `Prompts.text`; the space that begins a word is the first token's, where it follows others."""
        return _decoded_behind(self._tokenizer, prompt, answer)


class RawPrompts:
    """Plain text as the tokenizer writes it, control tokens named in it included; no template at all.

    Args:
        tokenizer: The tokenizer.
        ends: Control tokens that end an answer, where the tokenizer has them, besides its end of sequence.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: Sequence[str] = ()) -> None:
        known = tokenizer.get_added_vocab()
        self.stop_ids = stop_ids_of(tokenizer, [end for end in ends if end in known])
        self._tokenizer = tokenizer

    def encode(self, request: Request) -> list[int]:
        """See `Prompts.encode`; some tokenizers close a text with an end token, and this one goes on."""
        ids = [int(token) for token in self._tokenizer(request.messages[-1].content)["input_ids"]]
        return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids

    def begin(self, prompt: Sequence[int], text: str) -> list[int]:
        """See `Prompts.begin`."""
        return [int(token) for token in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """See `Prompts.text`."""
        return _decoded_behind(self._tokenizer, prompt, answer)

    def message(self, text: str) -> str:
        """See `Prompts.message`: all of it."""
        return text


class _Chat(_Turns):
    """A jinja chat template, whose prompt is what it writes with ``add_generation_prompt``.

    Most templates write the same there as before an answer; then the tokens are those of a training sample.
    Some write thoughts, empty ones too, into answers that have none: there the prompt decides, as it does on
    a server.
    """

    def __init__(self, template: ModelTemplate, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(template, tokenizer)
        self._template = template
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        special = sorted({token.content for token in added if token.special and token.content}, key=len)
        self._names = re.compile(f"({'|'.join(map(re.escape, reversed(special)))})") if special else None
        self._server_encoder = Encoder(tokenizer.backend_tokenizer, special)
        self._is_regular = self._agrees(text_request("a"))
        if not self._is_regular:
            _log.info("the chat template begins prompts otherwise than finished answers; prompts are its own")

    def encode(self, request: Request) -> list[int]:
        """See `Prompts.encode`."""
        return super().encode(request) if self._is_regular else self._served(request)

    def _agrees(self, request: Request) -> bool:
        try:
            return super().encode(request) == self._served(request)
        except ValueError:
            return False

    def _served(self, request: Request) -> list[int]:
        try:
            (encoded,) = self._server_encoder.encode_all([self._parts(request)])
        except UnrenderableError as error:
            raise ValueError(str(error)) from error
        if isinstance(encoded, str):
            raise ValueError(encoded)
        return [int(token) for token in encoded.ids]

    def _parts(self, request: Request) -> Iterator[Part]:
        sample = Sample(_spoken(request.messages), Origin("", 0), request.tools)
        chat = Conversation.of(sample, None if self._template.control_text else self._names)
        text = self._jinja(chat).render(chat.turns, chat.tools, prompt=True)
        stand_ins = re.compile(f"([{''.join(chat.stand_ins)}])") if chat.stand_ins else None
        for place, piece in enumerate(stand_ins.split(text) if stand_ins else [text]):
            is_text = place % 2 == 1
            yield Part(chat.stand_ins[piece] if is_text else piece, is_template=not is_text)

    def _jinja(self, chat: Conversation) -> ChatTemplate:
        own = self._tokenizer.chat_template is not None
        text = self._tokenizer.get_chat_template(tools=chat.tools or None) if own else None
        variables = {**self._tokenizer.special_tokens_map, **self._template.variables}
        today = self._template.variables.get("today")
        day = clock.DEFAULT if today is None else datetime.fromisoformat(str(today))
        return ChatTemplate(text or self._template.chat_template() or "", variables, day)


def _spoken(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Plain text is what a user says."""
    return tuple(
        Message(USER, message.content) if message.role == DOCUMENT else message for message in messages
    )


def _up_to(encoded: Encoded, end: int) -> list[int]:
    return [int(token) for token in encoded.ids[:end]]


def _decoded_behind(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int], answer: Sequence[int]) -> str:
    before = list(prompt[-_CONTEXT:])
    whole, context = (_decoded(tokenizer, ids) for ids in ([*before, *answer], before))
    return whole[len(context) :] if whole.startswith(context) else _decoded(tokenizer, answer)


def _decoded(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
