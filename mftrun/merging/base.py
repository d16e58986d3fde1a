"""The model that an adapter was trained on: where it is, whether it is the right one, what it is made of."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.names import ParameterNames
from mftrun.models.pretrained import Pretrained
from mftrun.weight_files.checkpoint import Checkpoint
from mftrun.weight_files.hub import downloaded, is_hub_id

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_HUB_FILES = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.txt", "*.model", "*.jinja", "*.py")
_SAMPLED = 4
# What config.json says about the writer, not about the model.
_UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"})


@dataclass(frozen=True)
class BaseModel:
    """A model's folder, read without loading the model.

    Args:
        folder: Holds config.json and the weights.
        trust_remote_code: Whether Python code in it may run.
    """

    folder: Path
    trust_remote_code: bool = False

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

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the architecture, with names and shapes of weights, and with some of their values."""
        kinds = self.checkpoint.kinds
        about = {key: value for key, value in self.settings.items() if key not in _UNIMPORTANT}
        shapes = {name: kinds[name].shape for name in sorted(kinds)}
        digest = hashlib.sha256(json.dumps([about, shapes], sort_keys=True).encode())
        floats = [name for name in shapes if kinds[name].dtype.is_floating_point]
        smallest = sorted(floats, key=lambda name: (kinds[name].bytes, name))[:_SAMPLED]
        for name in smallest:
            digest.update(self.checkpoint.read(name).float().numpy().tobytes())
        return digest.hexdigest()


@contextmanager
def as_base_error() -> Iterator[None]:
    """What is wrong with a model's folder is said of the key that names it here."""
    try:
        yield
    except ConfigError as error:
        if error.key.startswith("model."):
            raise ConfigError("job.base", error.message) from error
        raise


def find_base(
    adapter: SavedAdapter,
    asked: str | None,
    trust_remote_code: bool,
    allow_other: bool,
    revision: str | None = None,
) -> BaseModel:
    """The base that was asked for, or else the one that the adapter names.

    Args:
        adapter: The adapter.
        asked: Folder or id on the hub; None takes what the adapter says.
        revision: Branch, tag or commit on the hub; None takes the one that the adapter was trained on.
        trust_remote_code: Whether Python code in its folder may run.
        allow_other: Whether another base than the adapter's may be asked for.

    Raises:
        ConfigError: It cannot be found, or is another one.
    """
    recorded = _recorded(adapter)
    where = asked or recorded
    if where is None:
        raise ConfigError(
            "job.base", f"{adapter.folder} does not say what it was trained on; give job.base=DIR"
        )
    if asked is not None and not allow_other:
        _refuse_other(asked, recorded)
    trained_on = adapter.base_revision if where == recorded else None
    base = BaseModel(_folder_of(where, revision, trained_on), trust_remote_code)
    base.check()
    if asked is not None and not allow_other:
        _refuse_different(base, recorded)
    return base


def _recorded(adapter: SavedAdapter) -> str | None:
    """A base that a run drew at random lies in its folder, which may have been moved since."""
    name = adapter.base
    if name is not None and not Path(name).is_dir() and adapter.run is not None:
        moved = adapter.run / "base_model"
        if Path(name).name == moved.name and moved.is_dir():
            return str(moved)
    return name


def _folder_of(where: str, revision: str | None, trained_on: str | None) -> Path:
    path = Path(where).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ConfigError("job.base_revision", f"{where} is a folder, which has no revision")
        return path
    if not is_hub_id(where):
        raise ConfigError("job.base", f"{where} is not here; give the base model's folder: job.base=DIR")
    if revision is not None and trained_on not in (None, revision):
        log.warning("%s at %s is taken; the adapter was trained on %s", where, revision, trained_on)
    return downloaded(where, revision or trained_on, _HUB_FILES, "job.base")


def _refuse_other(asked: str, recorded: str | None) -> None:
    """Two ids on the hub can be compared by name."""
    names = [name for name in (asked, recorded) if name and not Path(name).expanduser().exists()]
    if len(names) == 2 and all(map(is_hub_id, names)) and asked != recorded:
        raise ConfigError(
            "job.base", f"{asked} is asked for, and the adapter was trained on {recorded}; {_WAY}"
        )


def _refuse_different(base: BaseModel, recorded: str | None) -> None:
    """Two folders can be compared by what is in them."""
    if recorded is None or not Path(recorded).is_dir():
        log.warning("%s is taken for %s, the adapter's base, which is not here", base.folder, recorded)
    elif base.fingerprint != BaseModel(Path(recorded), base.trust_remote_code).fingerprint:
        raise ConfigError(
            "job.base",
            f"{base.folder} is another model than {recorded}, which the adapter was trained on; {_WAY}",
        )


_WAY = "leave job.base out, or set job.allow_other_base=true"
