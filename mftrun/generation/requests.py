"""What is asked of a model: a text to continue or answer, or a conversation that waits for an answer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mftrun.data.fields import BadSampleError
from mftrun.data.formats import CONVERSATIONS
from mftrun.data.policies import ON_BAD, BadLines
from mftrun.data.readers import READERS, ending
from mftrun.data.recognition import AnyFormat, Recognised
from mftrun.data.sample import ASSISTANT, DOCUMENT, SYSTEM, USER, Message, Sample
from mftrun.errors import ConfigError, DataError

_log = logging.getLogger(__name__)

_LINES = ".txt"
_TEXT = "prompt"
_STAND_IN = Message(ASSISTANT, ".")
_CONVERSATIONS = frozenset(form.name for form in CONVERSATIONS)
# What a record that holds a question alone lacks, by the key of the question.
_ANSWER_OF: Mapping[str, str] = MappingProxyType(
    {"prompt": "answer", "instruction": "output", "question": "answer", "query": "answer", "input": "output"}
)


@dataclass(frozen=True)
class Request:
    """Something to be answered.

    Attributes:
        messages: Turns up to where the assistant is to write. A prompt that is plain text is a last message
            of role ``document``: templates of conversations take it for a user's, others continue it.
        tools: Descriptions of the functions that may be called, as the text of a JSON list; "" for none.
        origin: Where it comes from, for messages to the user.
        begun: Text that the answer begins with; the model writes on behind it.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    origin: str = ""
    begun: str = ""

    def with_system(self, system: str) -> Request:
        """The same with a system text, unless it has one."""
        if not system or self.messages[0].role == SYSTEM:
            return self
        return replace(self, messages=(Message(SYSTEM, system), *self.messages))

    def as_values(self) -> list[dict[str, Any]]:
        """The messages as plain values, for a file."""
        return [
            {"role": USER if message.role == DOCUMENT else message.role, "content": message.content}
            for message in self.messages
        ]


def text_request(text: str, origin: str = "") -> Request:
    """A request of plain text."""
    return Request((Message(DOCUMENT, text),), origin=origin)


def given_requests(prompt: str | list[str]) -> list[Request]:
    """The requests of the command line.

    Raises:
        ConfigError: A prompt is empty, or there is none.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not texts or not all(text.strip() for text in texts):
        raise ConfigError("prompt", "must be a text that is not empty, or a list of such texts")
    return [text_request(text, f"prompt {number}") for number, text in enumerate(texts, 1)]


def read_requests(path: str, on_bad: str) -> list[Request]:
    """The requests of a file.

    Args:
        path: ``*.txt`` with a prompt on each line, or a file of records as for training, whose last answer,
            if there is one, is passed over.
        on_bad: What becomes of a line that holds none: ``error``, ``skip``.

    Raises:
        ConfigError: There is no such file, or it is of an unknown kind.
        DataError: It cannot be read, holds bad lines, or no request at all.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError("prompts", f"{file} is not a file")
    if file.suffix != _LINES and ending(file) is None:
        raise ConfigError("prompts", f"{file} must end in {_LINES}, {', '.join(READERS)}")
    found = list(_text_lines(file) if file.suffix == _LINES else _records(file))
    bad = [item for item in found if isinstance(item, DataError)]
    ON_BAD[on_bad].late([BadLines("prompts", len(bad), bad)])
    requests = [item for item in found if isinstance(item, Request)]
    if not requests:
        raise DataError(file, 0, "holds no prompt")
    return requests


def _text_lines(file: Path) -> Iterator[Request]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, 0, f"cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield text_request(line, f"{file}:{number}")


def _records(file: Path) -> Iterator[Request | DataError]:
    unread: Counter[str] = Counter()
    for chunk in READERS[ending(file) or ""].chunks(file, _Prompts()):
        for item in chunk.items():
            if isinstance(item, Sample):
                unread.update(item.unread)
            yield _request(item) if isinstance(item, Sample) else item
    if unread:
        _log.info("%s: not read: %s", file, ", ".join(f"{key} ({n:,})" for key, n in sorted(unread.items())))


def _request(sample: Sample) -> Request:
    messages = sample.messages[:-1] if sample.messages[-1] == _STAND_IN else sample.messages
    if sample.format == _TEXT:
        messages = (*messages[:-1], Message(DOCUMENT, messages[-1].content))
    return Request(messages, sample.tools, str(sample.origin))


@dataclass(frozen=True)
class _Prompts:
    """Reads records of prompts: as for training, the last answer missing or passed over.

    A stand-in takes the answer's place, so that all checks of a sample hold for a prompt, too.
    """

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """See `Recogniser.parse`."""
        found = AnyFormat().parse(_completed(record))
        messages = found.messages
        if messages and messages[-1].role == ASSISTANT:
            messages = messages[:-1]
        if messages and messages[-1].role == DOCUMENT:
            return found
        if not messages:
            raise BadSampleError("there is nothing to answer")
        is_text = found.format not in _CONVERSATIONS and _is_one_question(messages)
        return found._replace(messages=(*messages, _STAND_IN), format=_TEXT if is_text else found.format)

    def columns(self, names: Iterable[str]) -> list[str]:
        """See `Recogniser.columns`."""
        return list(names)


def _completed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record that holds a question alone, with an answer."""
    try:
        AnyFormat().parse(record)
    except BadSampleError:
        for question, answer in _ANSWER_OF.items():
            if record.get(question) is not None and record.get(answer) is None:
                return {**record, answer: _STAND_IN.content}
    return record


def _is_one_question(messages: tuple[Message, ...]) -> bool:
    return [message.role for message in messages if message.role != SYSTEM] == [USER]
