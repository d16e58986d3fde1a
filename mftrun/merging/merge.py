"""Merging an adapter into its base, from the folders of both to the folder of one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.merging.factors import place, why_not_streamed
from mftrun.merging.quantized import RoundTrip
from mftrun.merging.streamed import StreamedMerge
from mftrun.merging.surroundings import Surroundings
from mftrun.merging.values import BaseValues, MergedValues
from mftrun.merging.verify import Comparison, Pair, compare, logits, probe_ids
from mftrun.merging.whole import WholeMerge, logits_of
from mftrun.weight_files.output import check_room, written_folder

log = logging.getLogger(__name__)


class Way(Protocol):
    """How base and adapter become one."""

    @property
    def entries(self) -> int | None:
        """Rows of the embeddings, where the adapter brings its own; None as the base has."""
        ...

    def before(self, ids: Tensor) -> Pair:
        """Logits of the base alone and with its adapter, float32 [tokens, entries] each, of ids [tokens]."""
        ...

    def write(self, folder: Path, shard_size: int) -> None:
        """Writes weights, in files of so many bytes, and config.json."""
        ...


@dataclass(frozen=True)
class Merge:
    """What is merged, and how.

    Args:
        adapter: The adapter.
        base: Its base.
        dtype: Of the weights written; None as the base has them.
        shard_size: Bytes of a file.
        round_trip: What quantising did to the weights that the adapter was trained on, where the merged model
            is to have these; None takes the base's.
        probe: The text whose logits are compared; None compares nothing.
    """

    adapter: SavedAdapter
    base: BaseModel
    dtype: torch.dtype | None
    shard_size: int
    round_trip: RoundTrip | None
    probe: str | None

    def write(self, output: Path, facts: dict[str, str]) -> Comparison | None:
        """Writes the merged model, whole or not at all.

        Args:
            output: Its folder, which does not exist.
            facts: What its card says of the merge, name to value.

        Returns:
            What the comparison found, if there was one.

        Raises:
            MftrunError: Base and adapter do not fit each other, the merged model is another one, or the disk
                fails.
        """
        check_room(output, self._bytes())
        way = self._way()
        around = Surroundings(self.adapter, self.base)
        around.check(way.entries)
        with written_folder(output) as folder:
            ids = self._ids(around, way)
            before = None if ids is None else way.before(ids)
            way.write(folder, self.shard_size)
            around.copy(folder)
            found = None if ids is None or before is None else self._compared(folder, ids, before)
            around.card(folder, {**facts, "verified": "no" if found is None else str(found)})
        return found

    def _way(self) -> Way:
        values = BaseValues(self.base, self.round_trip)
        values.check()
        reason = why_not_streamed(self.adapter) or self.base.why_not_streamed
        placed = None if reason else place(self.adapter, self.base)
        if placed is not None:
            return StreamedMerge(MergedValues(values, self.adapter, placed), self.dtype)
        whole = WholeMerge(self.base, self.adapter, self.round_trip, self.dtype)
        log.warning(
            "%s: the whole model is merged in memory, which takes about %.1f GB",
            reason or "it adapts layers that are not linear",
            whole.memory / 1e9,
        )
        return whole

    def _bytes(self) -> int:
        kinds = self.base.checkpoint.kinds.values()
        return sum(kind.bytes // kind.dtype.itemsize * (self.dtype or kind.dtype).itemsize for kind in kinds)

    def _ids(self, around: Surroundings, way: Way) -> Tensor | None:
        if self.probe is None:
            return None
        return probe_ids(around.tokenizer(), self.probe, way.entries or self.base.rows)

    def _compared(self, folder: Path, ids: Tensor, before: Pair) -> Comparison:
        merged = BaseModel(folder, self.base.trust_remote_code)
        if merged.why_not_streamed is None:
            after = logits(merged.skeleton(), BaseValues(merged).read, ids)
        else:
            after = logits_of(merged.load(), ids)
        found = compare(before, after, ids, merged.coarsest)
        found.check()
        return found
