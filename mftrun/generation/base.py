"""What generates tokens: a model held here, or another engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.place import Place
    from mftrun.generation.sampling import Sampling

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = (None, "4bit", "8bit")


class TokenPrompt(NamedTuple):
    """A prompt as tokens.

    Attributes:
        ids: The tokens.
        number: Its place among all prompts; with the seed it decides the random numbers of its answers.
        sample: Which of the answers to it is the first to be generated, from 0.
        begun: How many of its last tokens the answer begins with.
    """

    ids: Sequence[int]
    number: int
    sample: int = 0
    begun: int = 0


@dataclass(frozen=True)
class Ending:
    """What ends an answer, besides its length.

    Attributes:
        stop_ids: Tokens.
        stop: Texts.
        decode: What tokens say.
    """

    stop_ids: Sequence[int]
    stop: Sequence[str]
    decode: Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Weights:
    """How the weights of a model are held.

    Args:
        dtype: Of those that are not quantised; `auto` takes bfloat16 on a GPU that has it, float32 on a CPU.
        quantization: Bits of linear layers' weights: ``4bit`` (NF4), ``8bit``, or None.
        trust_remote_code: Whether Python code in the model's folder may run.

    Raises:
        ConfigError: There is no such dtype or quantisation.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError("job.dtype", f"must be one of {', '.join(DTYPES)}, not {self.dtype}")
        if self.quantization not in QUANTIZATIONS:
            raise ConfigError("job.quantization", f"must be 4bit, 8bit or null, not {self.quantization}")


class Backend(Protocol):
    """A model that is ready to generate."""

    @property
    def positions(self) -> int | None:
        """Most tokens of a prompt and its answer together; None where there is no end."""

    def generate(
        self, prompts: Sequence[TokenPrompt], sampling: Sampling, ending: Ending
    ) -> Iterator[list[list[int]]]:
        """Answers all prompts, in their order.

        Args:
            prompts: What to answer.
            sampling: How.
            ending: What ends an answer.

        Yields:
            Of each prompt the tokens of its answers; more may follow behind the end of an answer.
        """

    def stream(
        self, prompt: TokenPrompt, sampling: Sampling, ending: Ending, feed: Callable[[list[int]], None]
    ) -> list[int]:
        """Answers one prompt once; Ctrl-C ends the answer where it is.

        Args:
            prompt: What to answer.
            sampling: How.
            ending: What ends an answer.
            feed: Is given the tokens so far, each time there are more.

        Returns:
            The tokens of the answer; more may follow behind its end.
        """


@runtime_checkable
class BackendOption(Protocol):
    """The choice of a backend."""

    def check(self) -> None:
        """Finds what is missing, without loading anything.

        Raises:
            ConfigError: A library is not installed, or there is no such device.
        """

    def gpus(self) -> int:
        """How many GPUs one process with it sees; 0 where it needs none."""

    def identity(self, weights: Weights) -> Mapping[str, Any]:
        """Its own settings that answers depend on, if only by rounding, as plain values.

        Args:
            weights: How weights are held.
        """

    def open(self, place: Place, tokenizer: PreTrainedTokenizerFast, weights: Weights) -> Backend:
        """Loads a model.

        Args:
            place: Where it lies.
            tokenizer: The one that it is used with.
            weights: How its weights are held.

        Raises:
            ConfigError: It cannot be loaded so.
        """
