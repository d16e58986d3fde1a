"""Tokens from a folder that job=tokenize wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.digests import digest
from mftrun.data.policies import ON_BAD, BadLines
from mftrun.data.selection import TaskTokens
from mftrun.data.settings import DataSettings
from mftrun.data.template import Template
from mftrun.data.tokenized import TOKENIZER, Fingerprints, open_tokenized, read_manifest
from mftrun.data.tokenizer import TokenizerMaker, load_saved, templated, tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class FromFolder:
    """What job=tokenize wrote, if the tokenizer and the template are those it was made with.

    Args:
        folder: The folder.
        settings: Policies.
        template: How conversations become tokens.
        model: Makes the tokenizer, unless it would be trained on the tasks.
    """

    def __init__(
        self, folder: Path, settings: DataSettings, template: Template, model: TokenizerMaker
    ) -> None:
        self._folder = folder
        self._on_bad = ON_BAD[settings.on_bad]
        self._template = template
        self._model = model

    def fingerprint(self) -> Mapping[str, Any]:
        """Of the folder's manifest."""
        return {"tokenized": digest(read_manifest(self._folder))}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's own, or the one that was trained on the tasks."""
        if self._model.tokenizer_recipe is None:
            own = self._model.tokenizer(lambda: iter(()), self._template.required_tokens)
            return templated(own, self._template)
        return templated(load_saved(self._folder / TOKENIZER), self._template)

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[TaskTokens]:
        """The folder's token files."""
        fingerprints = Fingerprints(
            self._template.fingerprint(), self._model.tokenizer_recipe, tokenizer_digest(tokenizer)
        )
        tasks = open_tokenized(self._folder, fingerprints)
        self._on_bad.late(
            [
                BadLines(task.task, file.meta.bad, file.meta.bad_examples)
                for task in tasks
                for file in task.files
            ]
        )
        return tasks
