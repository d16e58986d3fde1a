"""hydra/sweeper=optuna: Optuna chooses what to try next; a repeated command tries the same once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from optuna.samplers import BaseSampler

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.sweeps.sweep import STUDY


class ResumableSweeper(OptunaSweeper):  # type: ignore[misc]
    """That of hydra-optuna-sweeper, whose choices are kept in the sweep's folder.

    A job that is done returns its metric at once. The study is therefore whole again after a repeated command
    has gone through the jobs of the earlier one, and goes on from there.
    """

    def setup(self, *, config: Any, **context: Any) -> None:
        """Takes the folder from Hydra's config."""
        super().setup(config=config, **context)
        # A grid is made later, from the search space, and always the same.
        if isinstance(self.sweeper.sampler, BaseSampler):
            self.sweeper.sampler = Remembered(self.sweeper.sampler, Path(config.hydra.sweep.dir) / STUDY)


class Remembered(BaseSampler):
    """A sampler that chooses for a trial of some number what was chosen for it before.

    The sampler inside is asked all the same, so that its random numbers go on as they did.

    Args:
        sampler: Chooses for new trials.
        file: Where choices are kept: number of the trial → parameter → value.

    Raises:
        ConfigError: The file cannot be read.
    """

    def __init__(self, sampler: BaseSampler, file: Path) -> None:
        self._sampler = sampler
        self._file = file
        self._chosen = _read(file)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """That of the sampler inside."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        """Parameters that are chosen together."""
        values = self._sampler.sample_relative(study, trial, search_space)
        return {name: self._same(trial, name, value) for name, value in values.items()}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """One parameter."""
        value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._same(trial, param_name, value)

    def reseed_rng(self) -> None:
        """Gives the sampler inside other random numbers."""
        self._sampler.reseed_rng()

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Tells the sampler inside."""
        self._sampler.after_trial(study, trial, state, values)

    def _same(self, trial: Any, name: str, value: Any) -> Any:
        chosen = self._chosen.setdefault(str(trial.number), {})
        if name not in chosen:
            chosen[name] = value
            write_json(self._file, self._chosen)
        return chosen[name]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    try:
        chosen: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "resume", f"cannot read {file} ({error}); start another sweep with resume=never"
        ) from error
    return chosen
