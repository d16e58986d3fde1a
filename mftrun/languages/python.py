"""Python: the interpreter that we run in, with numpy."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.tools import ENVIRONMENT, stamp, visible
from mftrun.languages.word import driver, has_said
from mftrun.sandbox.base import JOB, Limits, Outcome, Step

# One order of sets for all runs; no threads of numpy.
_SETTINGS = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_FLAGS = ("-P", "-s", "-S", "-B")  # neither folders nor packages that happen to be here, and a quick start


@dataclass(frozen=True)
class Python:
    """Python programs; see the driver for what they may not do."""

    name = "python"
    memory_signs = ("MemoryError",)
    smallest = "pass\n"

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        return None if _numpy() else Missing("numpy", "pip install numpy")

    def prepare(self) -> None:
        """See `Language.prepare`: there is nothing to be made."""

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return sys.version, self._library

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        interpreter, packages = _interpreter(), _packages()
        command = (interpreter, *_FLAGS, f"{JOB}/driver.py", f"{JOB}/program.py", packages)
        run = Step(
            tuple(map(str, command)),
            Limits(program.seconds),
            {**ENVIRONMENT, **_SETTINGS},
            nonce.encode(),
            visible=visible((Path(sys.base_prefix), packages / "numpy", packages / "numpy.libs")),
        )
        return Recipe({"driver.py": driver("python_driver.py"), "program.py": program.source}, None, run)

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    @cached_property
    def _library(self) -> str:
        return stamp(_packages() / "numpy/version.py")


def _interpreter() -> Path:
    """The interpreter itself: the one of a virtual environment is a link that ends at it."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def _packages() -> Path:
    """The folder that numpy is in."""
    return _numpy() or Path(sys.base_prefix)


def _numpy() -> Path | None:
    spec = importlib.util.find_spec("numpy")
    return Path(spec.origin).parent.parent if spec and spec.origin else None
