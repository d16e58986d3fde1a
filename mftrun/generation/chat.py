"""A conversation on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mftrun.data.sample import ASSISTANT, USER, Message
from mftrun.generation.base import TokenPrompt
from mftrun.generation.finishing import Finished
from mftrun.generation.generator import Generator, TooLongError
from mftrun.generation.requests import Request
from mftrun.generation.sampling import Sampling

_HELP = "/exit or Ctrl-D ends, /reset forgets the conversation, Ctrl-C stops an answer"
_END = "/exit"


@dataclass
class Chat:
    """Reads what the user says, and writes what the model answers, which remembers both.

    Args:
        generator: Answers.
        sampling: How.
        system: Text of the system message; "" for none.
        read: Gives what the user says next; raises EOFError at the end.
        write: Takes pieces of text.
    """

    generator: Generator
    sampling: Sampling
    system: str = ""
    read: Callable[[str], str] = input
    write: Callable[[str], None] = lambda text: print(text, end="", flush=True)
    _history: list[Message] = field(default_factory=list)
    _turn: int = 0

    def run(self) -> None:
        """Goes on until the user ends it."""
        self.write(f"{_HELP}\n")
        while (said := self._next()) is not None:
            if said.strip() == "/reset":
                self._history.clear()
                self.write("The conversation begins anew.\n")
            elif said.strip():
                self._answer(said)

    def _next(self) -> str | None:
        try:
            said = self.read("> ")
        except EOFError:
            self.write("\n")
            return None
        except KeyboardInterrupt:  # meant for an answer that has just ended
            self.write(f"\n[{_END} or Ctrl-D ends]\n")
            return ""
        return None if said.strip() == _END else said

    def _answer(self, said: str) -> None:
        messages = (*self._history, Message(USER, said))
        try:
            ids = self.generator.encode(Request(messages).with_system(self.system))
        except TooLongError as error:
            self.write(f"[{error}; /reset begins anew]\n")
            return
        except ValueError as error:
            self.write(f"[{error}]\n")
            return
        found = self.generator.stream(TokenPrompt(ids, self._turn), self.sampling, self.write)
        self._turn += 1
        self.write(_close(found))
        # What says nothing is no answer that a template could render.
        self._history = [*messages, Message(ASSISTANT, found.text)] if found.text.strip() else self._history


def _close(answer: Finished) -> str:
    """What is written behind an answer."""
    if answer.ended_at_once:
        return "[the model ended its answer at once]\n"
    return "\n" if answer.finish == "stop" else f" [{answer.finish}]\n"
