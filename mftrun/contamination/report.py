"""What was found of benchmarks in samples: as a table, as lines, as a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mftrun.contamination.detector import Hit
from mftrun.contamination.passages import PARTS
from mftrun.contamination.samples import Place
from mftrun.errors import DataError
from mftrun.files import write_atomically
from mftrun.text_table import text_table

_HEADINGS = ("task · benchmark", "samples", "share of task", "problems", *PARTS)


@dataclass(frozen=True)
class Report:
    """Hits among the samples that were looked through.

    Attributes:
        samples: Number of samples of each task.
        hits: What was found.
        threshold: Share of a text that a hit holds at least.
        path: Where all of it is written.
    """

    samples: Mapping[str, int]
    hits: Sequence[Hit]
    threshold: float
    path: Path

    def write(self) -> None:
        """Writes a line of JSON for each hit.

        Raises:
            DataError: The file cannot be written.
        """
        lines = [json.dumps(hit.to_dict(), ensure_ascii=False) for hit in self.hits]
        try:
            write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        except OSError as error:
            raise DataError(self.path, 0, f"cannot be written: {error.strerror}") from error

    def text(self, show: int) -> str:
        """The report for people.

        Args:
            show: Samples to name, those first that hold most.
        """
        total, hit = sum(self.samples.values()), len({hit.sample for hit in self.hits})
        of = "of a benchmark's prompt, solution or tests"
        summary = f"Contamination: {hit:,} of {total:,} samples hold {self.threshold:.0%} or more {of}"
        if not self.hits:
            return f"{summary}."
        worst = list(self._worst())
        shown = [line for hits in worst[:show] for line in _described(hits)]
        if len(worst) > len(worst[:show]):
            shown.append(f"  … {len(worst) - show:,} samples more")
        way_out = (
            "Look at them: what two texts share may be usual code. "
            f"To leave samples out, take the lines that {self.path} names out of the data's files."
        )
        return "\n".join([f"{summary}:", self._table(), *shown, way_out])

    def _table(self) -> str:
        groups: dict[tuple[str, str], list[Hit]] = {}
        for hit in self.hits:
            groups.setdefault((hit.sample.task, hit.passage.benchmark), []).append(hit)
        rows = [list(_HEADINGS)]
        for (task, benchmark), hits in sorted(groups.items()):
            samples = len({hit.sample for hit in hits})
            parts = Counter(hit.passage.part for hit in hits)
            counts = [len({hit.passage.problem for hit in hits}), *(parts[part] for part in PARTS)]
            share = f"{samples / self.samples[task]:.2%}"
            rows.append([f"{task} · {benchmark}", f"{samples:,}", share, *(f"{one:,}" for one in counts)])
        return text_table(rows)

    def _worst(self) -> Iterator[list[Hit]]:
        """The hits of each sample, the worst first, of the samples that hold most first."""
        ranked = sorted(self.hits, key=lambda hit: -hit.share)
        by_sample: dict[Place, list[Hit]] = {}
        for hit in ranked:
            by_sample.setdefault(hit.sample, []).append(hit)
        yield from by_sample.values()


def _described(hits: Sequence[Hit]) -> Iterator[str]:
    first, more = hits[0], f" and {len(hits) - 1:,} more" if len(hits) > 1 else ""
    sample, passage = first.sample, first.passage
    what = f"{first.share:.0%} of the {passage.part} of {passage.benchmark} {passage.problem}{more}"
    yield f"  {sample.origin} · {sample.task} · {what}"
    yield f"    {first.piece}"
