"""Merging by peft's own hand, with the whole model in memory: for every kind that is not plain low-rank."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.merging.factors import entries_of
from mftrun.merging.quantized import RoundTrip, quantized_weights
from mftrun.merging.verify import Pair


@dataclass(frozen=True)
class WholeMerge:
    """A base and an adapter that are merged at once.

    Args:
        base: The model's folder.
        adapter: Of any kind that peft can merge.
        round_trip: What quantising does to the weights it is done to; None leaves them as in the files.
        dtype: Of the weights written; None takes the base's.
    """

    base: BaseModel
    adapter: SavedAdapter
    round_trip: RoundTrip | None
    dtype: torch.dtype | None

    @property
    def memory(self) -> int:
        """Bytes it takes: the weights in 32 bit."""
        kinds = self.base.checkpoint.kinds.values()
        return sum(kind.bytes // kind.dtype.itemsize * 4 for kind in kinds)

    @property
    def entries(self) -> int | None:
        """Rows of the embeddings, where the adapter brings its own; None as the base has."""
        return entries_of(self.adapter, self.base)

    def before(self, ids: Tensor) -> Pair:
        """Logits of the base alone and with its adapter, float32 [tokens, entries] each.

        Args:
            ids: int64 [tokens].

        Raises:
            ConfigError: Base and adapter do not fit each other.
        """
        with self._model.disable_adapter():
            alone = logits_of(self._model, ids)
        return alone, logits_of(self._model, ids)

    def write(self, folder: Path, shard_size: int) -> None:
        """Merges, and writes weights and config.json.

        Args:
            folder: Exists.
            shard_size: Bytes of a file.

        Raises:
            ConfigError: Base and adapter do not fit each other, or peft cannot merge this kind.
        """
        model = self._model
        del self.__dict__["_model"]  # merging uses it up
        try:
            merged = model.merge_and_unload(safe_merge=True)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise ConfigError(
                "adapter", f"of the kind {self.adapter.kind} cannot be merged: {error}"
            ) from error
        merged.to(self.dtype or self.base.coarsest).save_pretrained(folder, max_shard_size=shard_size)

    @cached_property
    def _model(self) -> Any:
        base = self.base.load()
        if self.entries is not None and self.entries != base.get_input_embeddings().weight.shape[0]:
            base.resize_token_embeddings(self.entries, mean_resizing=False)
        if self.round_trip is not None:
            _quantise(base, self.round_trip)
        return self._with_adapter(base).eval()

    def _with_adapter(self, base: Any) -> Any:
        from peft import PeftModel

        try:
            with _strict():
                model = PeftModel.from_pretrained(base, str(self.adapter.folder))
        except (OSError, RuntimeError, ValueError, TypeError, SafetensorError, UserWarning) as error:
            message = f"{self.adapter.folder} does not fit its base {self.base.folder}: {error}"
            raise ConfigError("adapter", message) from error
        self._refuse_unknown(model)
        return model

    def _refuse_unknown(self, model: Any) -> None:
        """Peft passes over tensors that have no place, except where it knows to rename them."""
        from peft import get_peft_model_state_dict

        known = get_peft_model_state_dict(model, save_embedding_layers=False)
        own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        unknown = [name for name in self.adapter.kinds if name not in known and name not in own]
        if unknown and not self.base.names.converters:
            raise ConfigError(
                "adapter", f"holds tensors that {self.base.folder} has no place for: {unknown[0]}"
            )


@torch.no_grad()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Logits of a model in memory.

    Args:
        model: A causal language model, or a `PeftModel` around one.
        ids: int64 [tokens].

    Returns:
        float32 [tokens, entries].
    """
    found: Tensor = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return found


def _quantise(model: Any, round_trip: RoundTrip) -> None:
    for name, turned in quantized_weights(model).items():
        weight = model.get_parameter(name)
        value = round_trip(weight.data.T).T if turned else round_trip(weight.data)
        weight.data = value.contiguous()


@contextmanager
def _strict() -> Iterator[None]:
    """Peft only warns of tensors that the adapter lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        yield
