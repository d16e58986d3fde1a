"""Looks through the samples of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mftrun.contamination.detector import Detector, Hit
from mftrun.contamination.report import Report
from mftrun.contamination.samples import sample_texts
from mftrun.data.progress import progress
from mftrun.data.table import SampleTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTAMINATION = "contamination.jsonl"

_log = logging.getLogger(__name__)


def look_through(
    tables: Mapping[str, SampleTable],
    tokenizer: PreTrainedTokenizerFast,
    detector: Detector,
    path: Path,
) -> Report:
    """Compares all samples of tables with benchmarks, and writes what was found.

    Args:
        tables: By what they are called.
        tokenizer: Made their tokens.
        detector: Knows the benchmarks.
        path: The file to write.

    Raises:
        DataError: The file cannot be written.
    """
    _tell_too_short(detector)
    samples: Counter[str] = Counter()
    hits: list[Hit] = []
    total = sum(int(table.lengths.sum()) for table in tables.values())
    with progress("looking for benchmarks", total) as advance:
        for split, table in tables.items():
            for batch in sample_texts(table, split, tokenizer):
                samples.update(sample.place.task for sample in batch)
                hits += detector.hits(batch)
                advance(sum(sample.tokens for sample in batch))
    report = Report(samples, hits, detector.threshold, path)
    report.write()
    return report


def _tell_too_short(detector: Detector) -> None:
    left_out = Counter((benchmark, part) for benchmark, _, part in detector.too_short)
    if left_out:
        counts = ", ".join(f"{count:,} of {name} ({part})" for (name, part), count in left_out.items())
        _log.info("not looked for, as they are too short or say what others say: %s", counts)
