"""JavaScript: node, with js-md5."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.prepared import asked
from mftrun.languages.tools import ENVIRONMENT, prefix, stamp, visible, without
from mftrun.languages.word import driver, has_said
from mftrun.sandbox.base import JOB, Limits, Outcome, Step

_HEAP = (
    "--max-old-space-size=2048"  # MiB; below the limit of the sandbox, as the engine says what it is short of
)
_PACKAGE = "js-md5"


@dataclass(frozen=True)
class JavaScript:
    """JavaScript programs: a failed ``console.assert`` fails, whenever it happens; printing is allowed.

    Args:
        modules: Folder of packages; None looks in ``$NODE_PATH``, beside node, and where npm says.
    """

    modules: Path | None = None
    name = "js"
    memory_signs = ("heap out of memory", "process out of memory", "allocation failed", "Allocation failed")
    smallest = "console.assert(true)\n"

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        absent = without({"node": "apt-get install nodejs npm"})
        return absent or (None if self._modules else Missing(_PACKAGE, f"npm install -g {_PACKAGE}"))

    def prepare(self) -> None:
        """See `Language.prepare`: there is nothing to be made."""

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return self._versions

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        files = {"driver.js": driver("javascript_driver.js"), "program.js": program.source}
        return Recipe(files, None, self._step(program, (f"{JOB}/driver.js", f"{JOB}/program.js"), nonce))

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    def _step(self, program: Program, arguments: tuple[str, ...], said: str) -> Step:
        modules = self._modules or Path("/usr/lib/node_modules")
        return Step(
            (str(self._node), _HEAP, *arguments),
            Limits(program.seconds),
            {**ENVIRONMENT, "NODE_PATH": str(modules)},
            said.encode(),
            visible=visible((prefix(self._node), modules / _PACKAGE)),
        )

    @cached_property
    def _versions(self) -> tuple[str, ...]:
        package = (self._modules or Path("/nowhere")) / _PACKAGE / "package.json"
        return asked([str(self._node), "--version"]), stamp(package)

    @cached_property
    def _node(self) -> Path:
        return Path(shutil.which("node") or "/usr/bin/node").resolve()

    @cached_property
    def _modules(self) -> Path | None:
        folders = iter((self.modules,)) if self.modules else _places(self._node)
        return next((folder for folder in folders if (folder / _PACKAGE).is_dir()), None)


@dataclass(frozen=True)
class SilentJavaScript(JavaScript):
    """JavaScript programs as they were first judged: what prints nothing has passed, however it ended."""

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        return Recipe({"program.js": program.source}, None, self._step(program, (f"{JOB}/program.js",), ""))

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return not outcome.stdout and not outcome.stderr


def _places(node: Path) -> Iterator[Path]:
    yield from (Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder)
    yield prefix(node) / "lib/node_modules"
    yield Path("/usr/local/lib/node_modules")
    yield Path("/usr/share/nodejs")
    if npm := shutil.which("npm"):  # last: it takes a while
        said = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False)
        yield Path(said.stdout.strip() or "/nowhere")
