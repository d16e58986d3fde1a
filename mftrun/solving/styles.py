"""Styles: how what a benchmark asks becomes what a model reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mftrun.benchmarks.base import Prompt
from mftrun.data.sample import USER, Message
from mftrun.errors import ConfigError
from mftrun.generation.requests import Request, text_request
from mftrun.nearest import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.data.template import Template
    from mftrun.generation.prompts import Prompts

_PART = re.compile(r"\{(instruction|begun)\}")


class Form(Protocol):
    """What makes a request of a prompt; a dataclass, whose repr says all of it."""

    def request(self, prompt: Prompt) -> Request:
        """What is asked of the model."""


class Bound(NamedTuple):
    """A style bound to a model's tokenizer.

    Attributes:
        form: Makes requests of prompts.
        prompts: Makes tokens of requests.
        kind: What answers depend on: the template, or the form itself.
    """

    form: Form
    prompts: Prompts
    kind: object


class Style(Protocol):
    """A way to ask."""

    uses_template: bool
    """Whether a template acts on it."""

    def bind(self, tokenizer: PreTrainedTokenizerFast, template: Template | None) -> Bound:
        """Binds it to a model.

        Args:
            tokenizer: The model's.
            template: That of the run, or the tokenizer's chat template; None where there is none.

        Raises:
            ConfigError: It cannot do without something that is not there.
        """


@dataclass(frozen=True)
class Turn:
    """The instruction is a user's turn, and the answer begins with the code.

    The space at the end of the code is the model's to write: its tokens hold it together with what follows.
    """

    def request(self, prompt: Prompt) -> Request:
        """See `Form.request`; a benchmark that says nothing shows the code that is to be continued."""
        begun = prompt.begun.rstrip()
        return Request((Message(USER, prompt.instruction.strip() or begun),), begun=begun)


@dataclass(frozen=True)
class Raw:
    """A plain text, without the space around it; control tokens that it names are those tokens.

    Args:
        text: The text, with ``{instruction}`` and ``{begun}`` in it.
        ends: Control tokens that end an answer besides the tokenizer's end of sequence.
    """

    text: str
    ends: Sequence[str] = ()
    uses_template = False

    def render(self, prompt: Prompt) -> str:
        """The text of a prompt; the instruction alone where nothing else is left of it."""
        text = _PART.sub(lambda found: str(getattr(prompt, found[1])), self.text)
        return text.strip() or prompt.instruction.strip()

    def request(self, prompt: Prompt) -> Request:
        """See `Form.request`."""
        return text_request(self.render(prompt))

    def bind(self, tokenizer: PreTrainedTokenizerFast, template: Template | None) -> Bound:
        """See `Style.bind`."""
        from mftrun.generation.prompts import RawPrompts

        return Bound(self, RawPrompts(tokenizer, self.ends), self)


@dataclass(frozen=True)
class Templated:
    """As the model was trained to be asked: with its template, else another style.

    Args:
        instead: The style of a model without any template.
    """

    instead: Style
    uses_template = True

    def bind(self, tokenizer: PreTrainedTokenizerFast, template: Template | None) -> Bound:
        """See `Style.bind`."""
        from mftrun.generation.prompts import prompts_for

        if template is None:
            return self.instead.bind(tokenizer, None)
        return Bound(Turn(), prompts_for(template, tokenizer), template)


_INSTRUCT = Raw("{instruction}\n\n{begun}")
STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "auto": Templated(_INSTRUCT),
        "instruct": _INSTRUCT,
        "octocoder": Raw("Question: {instruction}\n\nAnswer:\n{begun}"),
        "chatml": Raw(
            "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n{begun}", ("<|im_end|>",)
        ),
        "continue": Raw("{begun}"),
    }
)
"""Styles by name."""


def find_style(name: str) -> Style:
    """A style by its name, or one made of a text that has ``{begun}`` in it.

    Raises:
        ConfigError: There is no such style.
    """
    if name in STYLES:
        return STYLES[name]
    if "{begun}" in name:
        return Raw(name)
    problem = f"there is no style {name}; a text of your own holds {{instruction}} and {{begun}}"
    raise ConfigError("style", unknown(name, STYLES, problem))
