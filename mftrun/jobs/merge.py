"""job=merge: one model of a base and its adapter."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mftrun.errors import ConfigError
from mftrun.weight_files.output import bytes_of, new_folder

if TYPE_CHECKING:
    import torch

    from mftrun.merging.adapter import SavedAdapter
    from mftrun.merging.quantized import RoundTrip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeJob:
    """Merges an adapter into the model it was trained on, on the CPU.

    Args:
        adapter: Folder of a finished run, or of an adapter that peft wrote.
        output: Folder to write; it must not exist.
        base: Folder or hub id of the base; None takes what the adapter says.
        base_revision: Branch, tag or commit of the base on the hub; None takes the one that the adapter's run
            or its settings name, else the newest.
        allow_other_base: Whether the base may be another model than the adapter was trained on.
        dtype: Of the merged weights; `auto` keeps each as the base has it.
        base_weights: Of a base that was quantised in training: `reload` merges into the weights in its files,
            `dequantize` into the values that the quantised weights stood for.
        shard_size: Largest size of a file of weights, such as `5GB`; a number alone counts bytes.
        verify: Whether logits of the merged model are compared with those of base and adapter.
        verify_text: On which text.
        trust_remote_code: Whether Python code in the base's folder may run.

    Raises:
        ConfigError: The size is none.
    """

    adapter: str
    output: str
    base: str | None = None
    base_revision: str | None = None
    allow_other_base: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    base_weights: Literal["reload", "dequantize"] = "reload"
    shard_size: str | int = "5GB"
    verify: bool = True
    verify_text: str = "def add(a, b):\n    return a + b\n\n# The quick brown fox jumps over the lazy dog."
    trust_remote_code: bool = False

    reads: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        bytes_of(self.shard_size)
        if self.verify and not self.verify_text:
            raise ConfigError("job.verify_text", "is empty; give a text, or set job.verify=false")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Writes the merged model.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Base and adapter do not fit each other, or the merged model is another one.
        """
        from mftrun.merging.adapter import SavedAdapter
        from mftrun.merging.finding import Wanted, find_base
        from mftrun.merging.merge import Merge

        output = new_folder(self.output)
        adapter = SavedAdapter.find(Path(self.adapter).expanduser().absolute())
        wanted = Wanted(self.base, self.base_revision, self.allow_other_base, self.trust_remote_code)
        base = find_base(adapter, wanted)
        weights, round_trip = self._weights(adapter)
        written = "each in the dtype of the base's" if self.dtype == "auto" else f"in {self.dtype}"
        paths = adapter.folder.resolve(), base.folder.resolve()
        log.info("merging %s into %s: the base's weights %s, written %s", *paths, weights, written)
        probe = self.verify_text if self.verify else None
        merge = Merge(adapter, base, self._dtype(), bytes_of(self.shard_size), round_trip, probe)
        found = merge.write(output, {"weights of the base": weights, "written": written})
        log.info("merged model: %s", output)
        log.info("verified: %s" if found else "not verified: job.verify=false%s", found or "")

    def _weights(self, adapter: SavedAdapter) -> tuple[str, RoundTrip | None]:
        """Where the base's values come from, in words, and what makes them of those in the files."""
        from mftrun.merging.quantized import quantization_of, round_trip

        if self.base_weights == "dequantize":
            return "dequantised, as training computed with them", round_trip(adapter)
        found = quantization_of(adapter)
        if found is None:
            return "reloaded from its files", None
        return f"reloaded from its files, not the {found.bits}-bit ones of training", None

    def _dtype(self) -> torch.dtype | None:
        import torch

        return None if self.dtype == "auto" else getattr(torch, self.dtype)
