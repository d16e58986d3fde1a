"""Tokenizer files of a legacy checkpoint, and what every fast tokenizer that is made of them needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The folder of a checkpoint, as far as it says how text becomes tokens.

    Args:
        folder: The folder.
        label: What the user calls it.
    """

    folder: Path
    label: str

    def need(self, *names: str) -> Path:
        """The first of these files that is there.

        Raises:
            ConfigError: None is.
        """
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise ConfigError("source", f"{self.label} has no tokenizer: no {' or '.join(names)}")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """tokenizer_config.json, with what special_tokens_map.json adds."""
        return {
            **read_json(self.folder / "special_tokens_map.json"),
            **read_json(self.folder / "tokenizer_config.json"),
        }

    def role(self, name: str) -> str | None:
        """The token that the files name for a role, such as `eos_token`."""
        token = self.config.get(name)
        return token.get("content") if isinstance(token, Mapping) else token

    def roles(self, defaults: Mapping[str, str | None]) -> dict[str, str | None]:
        """Tokens by role, such as `eos_token`: those that the files name, else ``defaults``."""
        return {role: self.role(role) or defaults.get(role) for role in _ROLES}

    @property
    def longest(self) -> int | None:
        """Tokens of a text that the checkpoint is for, where it says."""
        return self.config.get("model_max_length")

    @cached_property
    def added(self) -> Mapping[int, str]:
        """Tokens that were added to the vocabulary, or took the place of an entry, by their ids."""
        older = {number: token for token, number in read_json(self.folder / "added_tokens.json").items()}
        newer = self.config.get("added_tokens_decoder", {})
        return older | {int(number): entry["content"] for number, entry in newer.items()}

    @property
    def chat_template(self) -> str | None:
        """The checkpoint's own, where it has one."""
        if (file := self.folder / "chat_template.jinja").is_file():
            return file.read_text(encoding="utf-8")
        found = self.config.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = {entry["name"]: entry["template"] for entry in found}.get("default")
        return found


def read_json(file: Path) -> dict[str, Any]:
    """Contents of a JSON file; nothing if it is absent.

    Raises:
        DataError: It holds no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(file, 0, f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(file, 0, "holds no JSON object")
    return value


def add_tokens(tokenizer: Tokenizer, tokens: Mapping[int, str], special: bool = True) -> None:
    """Makes entries of their own of ``tokens``, which text is first searched for.

    Args:
        tokenizer: Whose vocabulary may hold them already.
        tokens: Their ids, which those after the vocabulary must continue without a gap.
        special: Whether decoding leaves them out when asked to.

    Raises:
        ConfigError: A token would get another id than the checkpoint was trained with.
    """
    from tokenizers import AddedToken

    for number, token in sorted(tokens.items()):
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=special)])
        if (got := tokenizer.token_to_id(token)) != number:
            raise ConfigError("source", f"its token {token} has id {number}, and would get {got}")


def begins_with(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Every encoded text begins with ``tokens``."""
    from tokenizers import processors

    start, both = " ".join(tokens), [(token, tokenizer.token_to_id(token)) for token in tokens]
    tokenizer.post_processor = processors.Sequence(
        [
            *([tokenizer.post_processor] if tokenizer.post_processor is not None else []),
            processors.TemplateProcessing(
                single=f"{start} $A", pair=f"{start} $A {start} $B:1", special_tokens=both
            ),
        ]
    )


def finished(
    tokenizer: Tokenizer,
    roles: Mapping[str, str | None],
    chat_template: str,
    longest: int | None,
) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers keeps it.

    Args:
        tokenizer: Entries, ids and rules.
        roles: Tokens by role, such as `eos_token`; None for those that there are not.
        chat_template: In jinja.
        longest: Tokens of a text that the model is for; None where that is unknown.

    Raises:
        ConfigError: A role's token is no entry of the vocabulary.
    """
    from transformers import PreTrainedTokenizerFast

    named = {role: token for role, token in roles.items() if token is not None}
    for role, token in named.items():
        if tokenizer.token_to_id(token) is None:
            raise ConfigError("source", f"its {role} {token} is no entry of the vocabulary")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
        padding_side="right",
        **({} if longest is None else {"model_max_length": longest}),
        **named,
    )
