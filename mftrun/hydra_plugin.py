"""What Hydra must know of us: search path, resolvers, mappings that take any name, launcher, sweeper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from mftrun.errors import ConfigError
from mftrun.paths import job_subdir, resource_dir, run_dir, sweep_dir
from mftrun.slurm.keys import LauncherKeys

# Hydra builds both by names below hydra_plugins alone, and a folder of that name needs installing.
_SLURM_LAUNCHER = "hydra_plugins.mftrun.SlurmLauncher"
_OPTUNA_SWEEPER = "hydra_plugins.mftrun.OptunaSweeper"


class LaunchersSearchPath(SearchPathPlugin):  # type: ignore[misc]
    """Puts `launchers/` on the search path, for its `hydra/launcher/*.yaml`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends our folder."""
        search_path.append("mftrun-launchers", f"file://{resource_dir('launchers')}")


def register() -> None:
    """Makes all of it known to Hydra and OmegaConf; doing it again changes nothing."""
    Plugins.instance().register(LaunchersSearchPath)
    built = {_SLURM_LAUNCHER: slurm_launcher, _OPTUNA_SWEEPER: optuna_sweeper}
    Plugins.instance().class_name_to_class.update(built)
    ConfigStore.instance().store("mftrun_slurm_keys", LauncherKeys, group="hydra/launcher")
    # A file of that name in conf/ would be checked against the plugin's own config, which has it, too.
    node = {"defaults": ["mftrun_optuna", "_self_"]}
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node)
    # Pulled in by the defaults list of a mapping's owner, it lets users add names without Hydra's "+".
    ConfigStore.instance().store("open_mapping", DictConfig({}, flags={"struct": False}))
    for name, resolver in (("run_dir", run_dir), ("sweep_dir", sweep_dir)):
        OmegaConf.register_new_resolver(name, resolver, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("job_subdir", job_subdir, replace=True)


def slurm_launcher(**parameters: Any) -> Any:
    """The launcher of `launchers/hydra/launcher/mftrun_slurm.yaml`.

    Raises:
        ConfigError: The extra `slurm` is not installed.
    """
    with _needs("slurm", "hydra/launcher"):
        from mftrun.slurm.launcher import SlurmLauncher
    return SlurmLauncher(**parameters)


def optuna_sweeper(**parameters: Any) -> Any:
    """The sweeper of conf/hydra/sweeper/optuna.yaml.

    Raises:
        ConfigError: The extra `sweep` is not installed.
    """
    with _needs("sweep", "hydra/sweeper"):
        import optuna

        from mftrun.sweeps.by_optuna import ResumableSweeper
    optuna.logging.disable_default_handler()  # Hydra's sweeper says the same
    return ResumableSweeper(**parameters)


@contextmanager
def _needs(extra: str, key: str) -> Iterator[None]:
    """Names the extra that a module inside belongs to, where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(key, f'{error.name} is not installed: pip install "mftrun[{extra}]"') from error
