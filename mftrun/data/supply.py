"""Where the tokens of a run come from: see `from_sources` and `from_folder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mftrun.data.selection import TaskTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Supply(Protocol):
    """Gives the tokenizer and the tokens of a run."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values that change when the tokens may.

        Raises:
            DataError, ConfigError: Sources, or the folder, are gone.
        """

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with the template's chat template.

        Raises:
            DataError, ConfigError: There is none, or the text to train one on cannot be read.
        """

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[TaskTokens]:
        """The tokens of all tasks, in their order.

        Raises:
            DataError: Lines that the policy refuses, a source that cannot be read.
            ConfigError: The template or the folder does not fit the tokenizer.
        """
