"""What becomes of lines that are no sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mftrun.data.sample import EXAMPLES
from mftrun.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadLines:
    """The bad lines of a task.

    Attributes:
        task: Its name.
        count: How many there are.
        examples: The first few.
    """

    task: str
    count: int
    examples: Sequence[DataError]


@dataclass(frozen=True)
class OnBad:
    """What becomes of bad lines.

    Attributes:
        early: Called with those of sources that have just been read, before any work is done on the others.
        late: Called with all of them, once everything is tokenized.
    """

    early: Callable[[Sequence[BadLines]], None]
    late: Callable[[Sequence[BadLines]], None]


def _refuse(found: Sequence[BadLines]) -> None:
    bad = [lines for lines in found if lines.count]
    if not bad:
        return
    first, *others = [error for lines in bad for error in lines.examples]
    counts = ", ".join(f"{lines.task!r} {lines.count:,}" for lines in bad)
    message = [first.message, *(f"  {error}" for error in others[: EXAMPLES - 1])]
    message += [f"bad lines by task: {counts}; mend them, or leave them out with data.on_bad=skip"]
    raise DataError(first.path, first.line, "\n".join(message))


def _report(found: Sequence[BadLines]) -> None:
    for bad in found:
        if bad.count:
            _log.warning("task %r: %s bad lines left out, as %s", bad.task, f"{bad.count:,}", bad.examples[0])


def _wait(found: Sequence[BadLines]) -> None:
    """Says nothing yet."""


ON_BAD = MappingProxyType({"error": OnBad(_refuse, _refuse), "skip": OnBad(_wait, _report)})
