"""The model that is put to the test: where it lies, how it is held, and how it is asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.generation.base import BackendOption, Weights
from mftrun.generation.place import Place
from mftrun.solving.styles import Bound, Style

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.data.template import Template
    from mftrun.generation.generator import Generator

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model, not loaded yet. It goes to other processes with `dataclasses.replace`, which leaves its parts.

    Args:
        place: Where it lies.
        backend: What generates tokens.
        weights: How its weights are held.
        style: How it is asked.
        template: What it was trained with; None where there is none.
    """

    place: Place
    backend: BackendOption
    weights: Weights
    style: Style
    template: Template | None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Its tokenizer."""
        return load_tokenizer(self.place, self.weights)

    @cached_property
    def bound(self) -> Bound:
        """How it is asked, bound to its tokenizer."""
        return self.style.bind(self.tokenizer, self.template)

    def identity(self) -> dict[str, Any]:
        """Plain values that are the same where the same questions get the same answers."""
        from mftrun.generation.identity import identity

        _fetch_config(self.place)
        return identity(self.place, self.weights, self.backend, self.bound.kind, self.bound.prompts.stop_ids)

    def generator(self) -> Generator:
        """Loads it.

        Raises:
            ConfigError: It cannot be loaded so.
        """
        from mftrun.generation.generator import Generator

        opened = self.backend.open(self.place, self.tokenizer, self.weights)
        return Generator(opened, self.bound.prompts)


def candidate(
    place: Place, backend: BackendOption, weights: Weights, style: Style, config: Mapping[str, Any]
) -> Candidate:
    """A candidate with the template that its style takes.

    Args:
        place: Where the model lies.
        backend: What generates tokens.
        weights: How its weights are held.
        style: How it is asked.
        config: The resolved configuration; says which template was asked for.

    Raises:
        ConfigError: A template is asked for that does not act, or that cannot be.
    """
    from mftrun.generation.templates import asked_template, choose_template

    asked = asked_template(config)
    wanted = asked.node is not None or bool(asked.changes)
    if not style.uses_template:
        if wanted:
            raise ConfigError("template", "acts with style=auto only; leave out one of them")
        return Candidate(place, backend, weights, style, None)
    tokenizer = load_tokenizer(place, weights)
    if not wanted and place.run is None and tokenizer.chat_template is None:
        _log.info("no template: %s lies in no run and has no chat template", place.adapter or place.model)
        return Candidate(place, backend, weights, style, None)
    template = choose_template(asked, place, tokenizer, config["allowed_targets"])
    return Candidate(place, backend, weights, style, template)


def load_tokenizer(place: Place, weights: Weights) -> PreTrainedTokenizerFast:
    """The tokenizer of a model.

    Raises:
        ConfigError: It cannot be loaded.
    """
    from mftrun.models.tokenizers import load_tokenizer

    try:
        return load_tokenizer(place.tokenizer, place.tokenizer_revision, weights.trust_remote_code)
    except ConfigError as error:
        raise ConfigError("path", error.message) from error


def _fetch_config(place: Place) -> None:
    """Of a model on the hub, what tells its commit, before all of it is loaded."""
    from pathlib import Path

    from transformers.utils.hub import cached_file

    if not Path(place.model).is_dir():
        with suppress(OSError, ValueError):  # whoever loads the model says it better
            cached_file(place.model, "config.json", revision=place.model_revision)
