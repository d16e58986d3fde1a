"""Checkpoints of a run: folders that are whole or absent, of which the right ones are kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mftrun.errors import ConfigError
from mftrun.files import (
    PARTIAL,
    begin_folder,
    discard_folder,
    publish_folder,
    remove_partial,
    scratch_folder,
    whole_folder,
    write_json,
)

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORM = 2
"""How the files of a checkpoint are laid out; raised when that changes."""
FOLDER = "checkpoints"


@dataclass(frozen=True)
class Manifest:
    """What a complete checkpoint says of itself.

    Attributes:
        step: Optimizer steps done.
        epoch_end: It was taken where an epoch ended, and is never removed.
        files: Size in bytes of every other file of the folder.
        adopted: The checkpoint folder of another run that it was taken over from; None for one that this run
            has made.
        form: `FORM` of the program that wrote it.
    """

    step: int
    epoch_end: bool
    files: dict[str, int]
    adopted: str | None = None
    form: int = 1  # which the first form did not say


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        run_dir: The run folder.
        keep_last: How many of the newest to keep, 1 or more.
        keep_best: Whether those of the best evaluations are kept as well.
    """

    def __init__(self, run_dir: Path, keep_last: int = 1, keep_best: bool = True) -> None:
        self.folder = run_dir / FOLDER
        self._keep_last = keep_last
        self._keep_best = keep_best

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08d}"

    def complete(self) -> list[Path]:
        """The whole checkpoints, oldest first. Cut ones are named in a warning."""
        found = []
        for path in sorted(self.folder.glob("step-*")):
            fault = fault_of(path)
            if fault is None:
                found.append(path)
            else:
                log.warning("ignoring the checkpoint %s: %s", path, fault)
        return found

    def newest(self) -> Path | None:
        """The newest whole checkpoint, if there is one."""
        return next(reversed(self.complete()), None)

    def holds(self, step: int) -> bool:
        """Whether a whole checkpoint of this step is there."""
        return fault_of(self.path(step)) is None

    def begin(self, step: int) -> None:
        """Makes the scratch folder of a step's checkpoint.

        Raises:
            OSError: It cannot be made. Earlier checkpoints are untouched, now and later.
        """
        self._remove_partial()
        begin_folder(self.path(step))

    def scratch(self, step: int) -> Path:
        """Where all ranks write the checkpoint of a step, once it is begun."""
        return scratch_folder(self.path(step))

    def publish(self, step: int, epoch_end: bool) -> Path:
        """Makes what was written the checkpoint of a step; it appears only when all of it is on disk.

        Args:
            step: Optimizer steps done.
            epoch_end: Whether an epoch ends here.

        Raises:
            OSError: The disk is full, say.
        """
        scratch = self.scratch(step)
        files = [path for path in scratch.rglob("*") if path.is_file()]
        sizes = {path.relative_to(scratch).as_posix(): path.stat().st_size for path in files}
        write_json(scratch / MANIFEST, asdict(Manifest(step, epoch_end, sizes, form=FORM)))
        publish_folder(self.path(step))
        return self.path(step)

    def discard(self, step: int) -> None:
        """Removes what was written of a checkpoint that will not be."""
        discard_folder(self.path(step))

    def adopt(self, other_folder: Path, steps: Collection[int]) -> None:
        """Takes over checkpoints of the run that this one begins from, as hard links or else as copies.

        Those that are not whole there, or are here already, are passed over. They are pruned as if they were
        this run's own, save that none counts as the end of an epoch. A fault is a warning.

        Args:
            other_folder: The folder that they lie in.
            steps: Their steps.
        """
        # The newest first: resume=auto would go on from it, so it must not be a mere best of earlier steps.
        for step in sorted(steps, reverse=True):
            source = other_folder / self.path(step).name
            if self.holds(step) or fault_of(source) is not None:
                continue
            try:
                _take_over(source, self.path(step))
            except OSError as error:
                log.warning("%s, and any best before it, stays where it is: %s", source, error)
                return

    def prune(self, best_steps: Collection[int]) -> None:
        """Removes what is neither among the newest, nor a best, nor an epoch's end.

        Args:
            best_steps: Steps of the best evaluations: of the watched loss, and of each task's own.
        """
        complete = self.complete()
        kept = set(complete[-self._keep_last :])
        if self._keep_best:
            kept |= {self.path(step) for step in best_steps}
        for path in complete:
            if path not in kept and not read_manifest(path).epoch_end:
                _remove(path)

    def drop_after(self, step: int) -> None:
        """Sets checkpoints of later steps aside: the run goes on from ``step`` and will make new ones."""
        for path in sorted(self.folder.glob("step-*")):
            if path.name > self.path(step).name:
                aside = path.with_name(f"replaced-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                log.warning("set %s aside as %s: the run goes on from step %d", path.name, aside.name, step)

    def _remove_partial(self) -> None:
        try:
            remove_partial(self.folder)
        except OSError as error:
            log.warning("what is left of an old checkpoint could not be removed: %s", error)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint folder.

    Raises:
        OSError, ValueError, TypeError: It is missing or not readable.
    """
    return Manifest(**json.loads((path / MANIFEST).read_text(encoding="utf-8")))


def fault_of(path: Path) -> str | None:
    """Why a folder is not a whole checkpoint, or None if it is one."""
    if not path.is_dir():
        return "there is no such folder"
    try:
        files = read_manifest(path).files
    except (OSError, ValueError, TypeError, AttributeError):
        return f"its {MANIFEST} is missing or broken"
    for name, size in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} holds {file.stat().st_size} bytes of {size}"
    return None


def find_resume(resume: str | None, run_dir: Path) -> Path | None:
    """The checkpoint that a run starts from.

    Args:
        resume: None, ``auto``, or the path of a checkpoint or of a run folder.
        run_dir: This run's own folder.

    Returns:
        A whole checkpoint, or None to start from the beginning.

    Raises:
        ConfigError: The named one is not there or not whole, it is of another version of the program, or
            ``run_dir`` holds a run and nothing says what to do with it.
    """
    own = Checkpoints(run_dir)
    if resume is None:
        if any(own.folder.glob("step-*")):
            raise ConfigError(
                "output_dir",
                f"{run_dir} already holds a run; add resume=auto to go on with it, or name another folder",
            )
        return None
    if resume == "auto":
        newest = own.newest()
        return None if newest is None else _readable(newest)
    named = _readable(_named(Path(resume)))
    if named.parent != own.folder and _holds_another_run(own.folder, named.parent):
        raise ConfigError("output_dir", f"{run_dir} holds another run than {named}; name another folder")
    return named


def _holds_another_run(folder: Path, other: Path) -> bool:
    """Whether a folder holds more than what was taken over from another, before a first save of its own."""
    paths = folder.glob("step-*")
    return any(fault_of(path) or read_manifest(path).adopted != str(other.resolve()) for path in paths)


def _named(path: Path) -> Path:
    if (path / FOLDER).is_dir():
        newest = Checkpoints(path).newest()
        if newest is None:
            raise ConfigError("resume", f"{path} holds no complete checkpoint; start without resume")
        return newest
    fault = fault_of(path)
    if fault is not None:
        others = Checkpoints(path.parent.parent).complete() if path.parent.name == FOLDER else []
        hint = f"; the newest whole one is {others[-1]}" if others else ""
        raise ConfigError("resume", f"{path} cannot be resumed from: {fault}{hint}")
    return path


def _readable(path: Path) -> Path:
    form = read_manifest(path).form
    if form != FORM:
        age = "an earlier" if form < FORM else "a later"
        raise ConfigError(
            "resume",
            f"{path} was saved by {age} version of mftrun, in a form that this one does not read; "
            "end the run with that version, or start another in a new output_dir",
        )
    return path


def _take_over(source: Path, target: Path) -> None:
    try:
        _rebuild(source, target, os.link)
    except OSError:  # another file system, or somebody else's files
        _rebuild(source, target, shutil.copyfile)


def _rebuild(source: Path, target: Path, give: Callable[[Path, Path], object]) -> None:
    manifest = read_manifest(source)
    with whole_folder(target) as scratch:
        for name in manifest.files:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            give((source / name).resolve(), scratch / name)
        adopted = replace(manifest, epoch_end=False, adopted=str(source.parent.resolve()))
        write_json(scratch / MANIFEST, asdict(adopted))


def _remove(path: Path) -> None:
    # Renamed first, so that a kill in between never leaves a half-removed folder under its name.
    doomed = path.with_name(f"{PARTIAL}{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)
