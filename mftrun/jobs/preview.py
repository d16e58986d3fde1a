"""job=preview: look at the data before training on it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mftrun.contamination.settings import Contamination
from mftrun.data.plan import EpochPlan, Planner
from mftrun.data.prepare import open_tables
from mftrun.data.rows import RowBuilder
from mftrun.data.table import SampleTable
from mftrun.data.token_file import token_weights
from mftrun.data.tokenizer import load_saved
from mftrun.errors import ConfigError
from mftrun.text_table import text_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.contamination.detector import Detector
    from mftrun.schema import RunConfig

log = logging.getLogger(__name__)

# Padding is measured on so many global batches of the epoch.
_MEASURED = 500


@dataclass(frozen=True)
class PreviewJob:
    """Prints samples as they are trained, the report on the data, and what each row mode makes of it.

    Args:
        samples: Samples of each task to print.
        max_tokens: Tokens of each sample to print.
        rows: Row modes to compare, by name.
        contamination: Benchmarks that no sample should hold.

    Raises:
        ConfigError: A number is negative.
    """

    samples: int
    max_tokens: int
    rows: Mapping[str, RowBuilder]
    contamination: Contamination = field(default_factory=Contamination)

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"job.{name}", f"must be 0 or more, not {getattr(self, name)}")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Prepares the data in the run's folder, as training would, and prints.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.jobs.layout import RunLayout
        from mftrun.jobs.preparation import build_group, build_planner
        from mftrun.jobs.run_data import run_data
        from mftrun.schema import RunConfig, task_configs

        typed, layout = RunConfig.from_dict(config), RunLayout(run_dir)
        build_group(typed, "sampler", tasks=list(task_configs(typed.data)))  # refused before data is read
        detector = self.contamination.detector()
        report = run_data(typed, run_dir).prepare(checkpoint=None)
        table, valid = open_tables(layout.data)
        tokenizer = load_saved(layout.tokenizer)
        for text in self._samples(table, tokenizer):
            print(text)
        row_modes = self._row_modes(build_planner(typed, table, typed.seed), typed.train.micro_batch_size)
        print(report.table(), report.places(), row_modes, sep="\n\n")
        if detector is not None:
            _warn_of_later_shards(typed)
            self._compare(detector, {"train": table, "valid": valid}, tokenizer, run_dir)

    def _compare(
        self,
        detector: Detector,
        tables: Mapping[str, SampleTable],
        tokenizer: PreTrainedTokenizerFast,
        run_dir: Path,
    ) -> None:
        """Says which samples hold the text of a benchmark."""
        from mftrun.contamination.check import CONTAMINATION, look_through

        found = look_through(tables, tokenizer, detector, run_dir / CONTAMINATION)
        print("", found.text(self.contamination.show), sep="\n")

    def _samples(self, table: SampleTable, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
        mark = _COLOURED if sys.stdout.isatty() else _BRACKETED
        yield f"Targets, the tokens that are trained, are {mark.name}.\n"
        for number, task in enumerate(table.tasks):
            for sample in np.flatnonzero(table.task == number)[: self.samples].tolist():
                length, targets = int(table.lengths[sample]), int(token_weights(table, sample).sum())
                yield f"── {task} · {table.origin(sample)} · {length:,} tokens, {targets:,} targets"
                yield f"{_marked(table, sample, tokenizer, mark, self.max_tokens)}\n"

    def _row_modes(self, planner: Planner, micro_batch_size: int) -> str:
        """Padding and steps of the first epoch, on one process."""
        cells = [["rows", "rows per epoch", "steps per epoch", "padding", "samples per step"]]
        for name, rows in self.rows.items():
            plan = replace(planner, rows=rows).epoch(0)
            padding = _padding(plan, micro_batch_size)
            per_step = len(plan.rows.samples) / max(plan.num_batches, 1)
            counts = (f"{plan.rows.num_rows:,}", f"{plan.num_batches:,}")
            cells.append([name, *counts, f"{padding:.1%}", f"{per_step:.1f}"])
        return text_table(cells)


def _warn_of_later_shards(config: RunConfig) -> None:
    if config.data.shard_samples is not None:
        log.warning("only the first shard is compared with benchmarks; data.shard_samples=null compares all")


@dataclass(frozen=True)
class _Mark:
    """How targets stand out."""

    name: str
    before: str
    after: str


_COLOURED = _Mark("green", "\x1b[32m", "\x1b[0m")
_BRACKETED = _Mark("between ⟦ and ⟧", "⟦", "⟧")


def _marked(
    table: SampleTable, sample: int, tokenizer: PreTrainedTokenizerFast, mark: _Mark, most: int
) -> str:
    """The text of a sample with its targets marked; of a long one its beginning and its end."""
    length = int(table.lengths[sample])
    ids = table.read(*(np.array([value], np.int64) for value in (sample, 0, length)))
    is_target = token_weights(table, sample) > 0

    def shown(begin: int, end: int) -> str:
        borders = [begin, *(begin + 1 + np.flatnonzero(np.diff(is_target[begin:end]))).tolist(), end]
        pieces = []
        for start, stop in pairwise(borders):
            text = tokenizer.decode(ids[start:stop], clean_up_tokenization_spaces=False)
            pieces.append(f"{mark.before}{text}{mark.after}" if stop > start and is_target[start] else text)
        return "".join(pieces)

    if length <= most:
        return shown(0, length)
    head = most // 2
    return f"{shown(0, head)} … {length - most:,} tokens more … {shown(length - (most - head), length)}"


def _padding(plan: EpochPlan, micro_batch_size: int) -> float:
    """Share of the positions of the first batches that hold no token."""
    tokens = slots = 0
    for batch in range(min(plan.num_batches, _MEASURED)):
        for chosen in plan.window(batch, 0, 1, micro_batch_size):
            lengths = plan.rows.lengths[chosen]
            tokens += int(lengths.sum())
            slots += prod(plan.layout.shape(lengths))
    return 1 - tokens / max(slots, 1)
