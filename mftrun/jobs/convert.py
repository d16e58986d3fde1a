"""job=convert: a checkpoint of old modelling code becomes one that transformers has a class for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mftrun.errors import ConfigError
from mftrun.weight_files.hub import downloaded, is_hub_id
from mftrun.weight_files.output import bytes_of, new_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# The code of a tokenizer is looked at, never run.
_FILES = ("*.json", "*.model", "*.tiktoken", "*.jinja", "merges.txt", "tokenization_chatglm.py")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class ConvertJob:
    """Converts a legacy checkpoint, with its tokenizer and chat template.

    Args:
        source: Folder of the checkpoint, or its id on the hub.
        output: Folder to write.
        dtype: Of the new weights; `auto` keeps each as it is stored.
        shard_size: Of a file of weights, such as ``5GB``; a number alone counts bytes.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: The size is none.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    source: str
    output: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    shard_size: str | int = "5GB"
    revision: str | None = None

    def __post_init__(self) -> None:
        bytes_of(self.shard_size)

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Writes the native checkpoint.

        Args:
            config: The resolved configuration; not needed.
            run_dir: The run's folder; nothing but its log goes there.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.conversion.convert import convert, plan
        from mftrun.models.families import families_of

        output, source = new_folder(self.output), self._folder()
        made = plan(source, self._dtype())
        log.info("%s: %s becomes %s", self.source, made.legacy["model_type"], made.native["architectures"][0])
        convert(made, self.source, source, output, bytes_of(self.shard_size))
        options = families_of(made.native["model_type"], made.legacy["model_type"])
        names = " or ".join(f"model={family.option}" for family in options)
        log.info("converted; train it with model.path=%s %s", output, names or "model=auto")

    def _dtype(self) -> torch.dtype | None:
        import torch

        return None if self.dtype == "auto" else getattr(torch, self.dtype)

    def _folder(self) -> Path:
        if (folder := Path(self.source).expanduser()).is_dir():
            if self.revision is not None:
                raise ConfigError("job.revision", f"{self.source} is a folder, which has no revision")
            return folder
        if not is_hub_id(self.source):
            raise ConfigError("source", f"{self.source} is neither a folder nor owner/name on the hub")
        return self._downloaded()

    def _downloaded(self) -> Path:
        """The small files first: they tell in which of two forms the weights are needed."""
        folder = downloaded(self.source, self.revision, _FILES, "source")
        indexed = (folder / "model.safetensors.index.json").is_file()
        wanted = [*_FILES, *_WEIGHTS[: 1 if indexed else None]]
        return downloaded(self.source, self.revision, wanted, "source")
