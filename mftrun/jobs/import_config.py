"""job=import_config: an MFTCoder training config as a command and an experiment of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from mftrun.mftcoder.translation import Translation

FOLDER = "experiment"
"""Where Hydra looks for experiments, below a folder of configs."""


@dataclass(frozen=True)
class ImportConfigJob:
    """Translates a config of MFTCoder, key by key.

    Args:
        file: The config, a JSON file.
        output: The experiment to write; None writes ``experiment/NAME.yaml`` into the run's folder, with the
            file's name.
        gpus: On how many MFTCoder ran, which its global batch follows from; None for as many as its launch
            scripts start.
        values: More values of MFTCoder's keys, which win over the file's: what its command line was given.

    Raises:
        ConfigError: A path is no path, or there is less than one GPU.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    file: str
    output: str | None = None
    gpus: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 1:
            raise ConfigError("gpus", f"must be 1 or more, or null, not {self.gpus}")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Prints the command and what became of every key, and writes the experiment.

        Args:
            config: The resolved configuration, of which nothing is read.
            run_dir: The run's folder.

        Raises:
            MftrunError: The file cannot be read, a value means nothing that MFTCoder had, what it asks for is
                not offered, or the experiment is there already.
        """
        from mftrun.files import write_atomically
        from mftrun.mftcoder import writing
        from mftrun.mftcoder.source import read_source
        from mftrun.mftcoder.translate import translate

        file = Path(self.file).expanduser()
        target = self._target(file, run_dir)
        found = translate(read_source(file, self.values), self.gpus)
        arguments = writing.overrides(found)
        _check(file, arguments, found)
        write_atomically(target, writing.experiment(found, file.stem, file.name))
        print(writing.command(arguments), writing.told(found), _how_to_use(target, found), sep="\n\n")

    def _target(self, file: Path, run_dir: Path) -> Path:
        if self.output is None:
            return run_dir / FOLDER / f"{file.stem}.yaml"
        target = Path(self.output).expanduser().absolute()
        if target.suffix not in (".yaml", ".yml"):
            raise ConfigError(
                "output", f"{self.output} must be a YAML file to write, such as {file.stem}.yaml"
            )
        if target.exists():
            raise ConfigError("output", f"{target} is there already; give another name, or remove it")
        return target


def _check(file: Path, arguments: list[str], found: Translation) -> None:
    """What is written passes the same check as what a user would write."""
    from mftrun.compose import compose
    from mftrun.schema import check

    stand_ins = {"data.paths": "data.paths=[/data/task]", "model.path": "model.path=/model"}
    given = [stand_ins[key] for key in found.missing]
    try:
        with _hydra_set_aside():
            check(compose([*arguments, *given]))
    except ConfigError as error:
        raise ConfigError("file", f"{file} asks for what cannot run here: {error}") from error


@contextmanager
def _hydra_set_aside() -> Iterator[None]:
    """Lets a job compose another command line while its own is still Hydra's."""
    from hydra.core.global_hydra import GlobalHydra

    place = GlobalHydra.instance()
    own, place.hydra = place.hydra, None
    try:
        yield
    finally:
        place.hydra = own


def _how_to_use(target: Path, found: Translation) -> str:
    """The command with the experiment, which leaves out what belongs to one run alone."""
    from mftrun.mftcoder import writing

    folder = target.parent if target.parent.name == FOLDER else target.parent / FOLDER
    move = "" if target.parent == folder else f"  move it to {folder / target.name}, then\n"
    arguments = ["--config-dir", str(folder.parent), f"experiment={target.stem}", *writing.personal(found)]
    lines = writing.command(arguments).replace("\n", "\n  ")
    return f"The same as an experiment: {target}\n{move}  {lines}"
