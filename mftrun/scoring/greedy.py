"""How solutions were generated, as far as a record says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mftrun.errors import DataError
from mftrun.scoring.generations import Generations
from mftrun.solving.record import Record
from mftrun.solving.solve import RECORDS

PLAIN = ""


def known_manners(generations: Generations) -> dict[str, str]:
    """How the solutions of each task were generated, as words; `PLAIN` where greedily and no more.

    A task is not there where no record beside the folder holds just these solutions.
    """
    folder = generations.folder.parent / RECORDS
    found = {task: _manner(generations, task, Record(folder, task)) for task in generations.files}
    return {task: manner for task, manner in found.items() if manner is not None}


def _manner(generations: Generations, task: str, record: Record) -> str | None:
    try:
        if not _are_of(record.file, generations.read(task)):
            return None
        settings = json.loads(record.settings_file.read_text(encoding="utf-8"))["sampling"]
        return _told(float(settings["temperature"]), float(settings.get("repetition_penalty", 1)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return None


def _told(temperature: float, penalty: float) -> str:
    parts = [f"at temperature {temperature:g}"] if temperature else []
    parts += [f"with repetition_penalty {penalty:g}"] if penalty != 1 else []
    return " and ".join(parts) or PLAIN


def _are_of(record: Path, solutions: Sequence[Sequence[str]]) -> bool:
    """Whether these are the first solutions of a record, which is in the order of problems and samples."""
    recorded: dict[str, list[Any]] = {}
    for line in record.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        recorded.setdefault(answer["problem"], []).append(answer["solution"])
    rows = list(recorded.values())[: len(solutions)]
    return [row[: len(its)] for row, its in zip(rows, solutions, strict=False)] == [*map(list, solutions)]
