"""The two ends of a model, token embeddings and output head, which may be one weight."""

from __future__ import annotations

from typing import Any


def ends_of(model: Any) -> tuple[str, str]:
    """Names of the weights of the token embeddings and of the output head."""
    parts = {id(model.get_input_embeddings()): 0, id(model.get_output_embeddings()): 1}
    paths = {parts[id(module)]: path for path, module in model.named_modules() if id(module) in parts}
    return f"{paths[0]}.weight", f"{paths[1]}.weight"


def tied_ends(model: Any) -> tuple[str, str] | None:
    """Names of token embeddings and output head where they are one weight."""
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return ends_of(model) if tied else None
