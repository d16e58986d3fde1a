"""The model that an adapter was trained on: where it is, whether it is the right one, what it is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.merging.names import ParameterNames
from mftrun.models.pretrained import Pretrained
from mftrun.weight_files.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BaseModel:
    """A model's folder, read without loading the model.

    Args:
        folder: Holds config.json and the weights.
        trust_remote_code: Whether Python code in it may run.
        name: What it is called, a folder or an id on the hub; None for the folder.
        trained_on: Whether it is known to be the model that the adapter was trained on.
    """

    folder: Path
    trust_remote_code: bool = False
    name: str | None = None
    trained_on: bool = True

    def check(self) -> None:
        """Refuses what a merge cannot start from.

        Raises:
            ConfigError: It is no model that transformers knows, or its weights are quantised.
        """
        with as_base_error():
            self.source.check()

    @cached_property
    def source(self) -> Pretrained:
        """The folder as an option of the group `model`."""
        path = str(self.folder)
        return Pretrained(path=path, attention="eager", trust_remote_code=self.trust_remote_code)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its weights."""
        return Checkpoint(self.folder)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Contents of config.json; `check` has seen that it can be read."""
        content: Mapping[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return content

    def skeleton(self, entries: int | None = None) -> Any:
        """The model without numbers: parameters on the meta device, buffers that are computed in place.

        Args:
            entries: Rows of the embeddings; None leaves them.

        Raises:
            ConfigError: It cannot be made.
        """
        import torch
        from accelerate import init_empty_weights
        from transformers import AutoConfig, AutoModelForCausalLM

        code = self.trust_remote_code
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=code)
            with init_empty_weights(include_buffers=False):
                model = AutoModelForCausalLM.from_config(
                    config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=code
                )
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise ConfigError("job.base", f"{self.folder} cannot be made a model: {error}") from error
        model.tie_weights()  # emptying parameters one by one has parted those that are one
        if entries is not None and entries != model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(entries, mean_resizing=False)
        return model.eval()

    @cached_property
    def names(self) -> ParameterNames:
        """Which tensors in the files make up which parameter."""
        return ParameterNames.of(self.skeleton(), self.checkpoint.kinds)

    def load(self) -> Any:
        """The whole model, in 32 bit.

        Raises:
            ConfigError: It cannot be loaded.
        """
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        try:
            return AutoModelForCausalLM.from_pretrained(
                self.folder,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=self.trust_remote_code,
            ).eval()
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            raise ConfigError("job.base", f"{self.folder} cannot be loaded: {error}") from error

    @property
    def rows(self) -> int:
        """Rows of the embeddings."""
        return int(self.names.model.get_input_embeddings().weight.shape[0])

    @property
    def coarsest(self) -> torch.dtype:
        """The least exact dtype of its weights."""
        import torch

        dtypes = {kind.dtype for kind in self.checkpoint.kinds.values() if kind.dtype.is_floating_point}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def why_not_streamed(self) -> str | None:
        """Why its parameters cannot be read one by one from the files; None if they can."""
        mixed = [key for key in self.names.sources if not self.names.is_exact(key)]
        if not mixed:
            return None
        return f"{mixed[0]} is mixed with others in the files of {self.settings.get('model_type')} models"


@contextmanager
def as_base_error() -> Iterator[None]:
    """What is wrong with a model's folder is said of the key that names it here."""
    try:
        yield
    except ConfigError as error:
        if error.key.startswith("model."):
            raise ConfigError("job.base", error.message) from error
        raise
