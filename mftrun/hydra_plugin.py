"""What Hydra must know of us: the search path, the resolvers, mappings that take any name, the launcher."""

from __future__ import annotations

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from mftrun.errors import ConfigError
from mftrun.paths import job_subdir, resource_dir, run_dir, sweep_dir
from mftrun.slurm.keys import LauncherKeys

_SLURM_LAUNCHER = "hydra_plugins.mftrun.SlurmLauncher"


class LaunchersSearchPath(SearchPathPlugin):  # type: ignore[misc]
    """Puts `launchers/` on the search path, for its `hydra/launcher/*.yaml`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends our folder."""
        search_path.append("mftrun-launchers", f"file://{resource_dir('launchers')}")


def register() -> None:
    """Makes all of it known to Hydra and OmegaConf; doing it again changes nothing."""
    Plugins.instance().register(LaunchersSearchPath)
    # Hydra builds launchers by names below hydra_plugins alone, and a folder of that name needs installing.
    Plugins.instance().class_name_to_class[_SLURM_LAUNCHER] = slurm_launcher
    ConfigStore.instance().store("mftrun_slurm_keys", LauncherKeys, group="hydra/launcher")
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
    try:
        from mftrun.slurm.launcher import SlurmLauncher
    except ModuleNotFoundError as error:
        raise ConfigError(
            "hydra/launcher", f'{error.name} is not installed: pip install "mftrun[slurm]"'
        ) from error
    return SlurmLauncher(**parameters)
