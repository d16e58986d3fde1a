"""Errors of Hydra and OmegaConf in our words: the key, what is wrong with it, and the nearest right one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mftrun.compose import compose_config
from mftrun.errors import MftrunError
from mftrun.nearest import meant, nearest, unknown
from mftrun.paths import resource_dir
from mftrun.rerun import config_name

_NOT_THERE = re.compile(r"Could not (?:override|delete(?: from config)?)[. ]+'?([^\s']+?)'?\.?(?:\n|$| )")
_NO_APPEND = re.compile(r"Could not append to config\. An item is already at '([^']+)'")

_AMBIGUOUS = "Ambiguous value for argument"
_NO_MERGE = "Error merging override"

_HYDRA = "hydra."
_OF_HYDRA = (("hydra.launcher.", "+cluster=slurm"), ("hydra.sweeper.", "hydra/sweeper=optuna"))
"""What has the keys that people look for where nothing is chosen."""

_QUOTES = "'\""
_MOST_OPTIONS = 4


def explanation(error: BaseException, arguments: Sequence[str]) -> str | None:
    """What to tell the user; `None` for an error that the user cannot put right.

    Args:
        error: The exception, with its causes.
        arguments: The command line it came from, to find out which keys exist.
    """
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, MftrunError):
            return str(one)
    for one in chain:
        if isinstance(one, HydraException | OmegaConfBaseException):
            return _hydra(one, arguments)
    return _null_group(arguments) if str(error).startswith("Config group override must be") else None


def _null_group(arguments: Sequence[str]) -> str | None:
    """Hydra's own error for `GROUP=null` does not say which group."""
    pairs = (argument.partition("=") for argument in arguments)
    group = next((key for key, _, value in pairs if value == "null" and key in _groups()), None)
    return f"{group}: null is not an option; choose one of {', '.join(_options(group))}" if group else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # an error may come back as the context of its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # OmegaConf hides what a resolver raised; elsewhere what is suppressed stays so.
        hidden = isinstance(error, OmegaConfBaseException) or not error.__suppress_context__
        error = error.__cause__ or (error.__context__ if hidden else None)


def _hydra(error: BaseException, arguments: Sequence[str]) -> str:
    text = str(error).strip()
    if text.startswith(_AMBIGUOUS) and (fault := _fault_beside_sweep(arguments)) is not None:
        return _hydra(fault, arguments)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _unknown_option(error.missing_cfg_file, error.options)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override or "", text.splitlines()[0])
    if isinstance(error, ConfigCompositionException) and (found := _NO_APPEND.search(text)):
        return f"{found[1]}: exists already; write {found[1]}=VALUE without the +"
    if isinstance(error, ConfigCompositionException) and (found := _NOT_THERE.search(text)):
        return _unknown_key(found[1], arguments)
    if text.startswith(_NO_MERGE) and isinstance(error.__cause__, OmegaConfBaseException):
        return _unfit(text.removeprefix(_NO_MERGE).strip(), error.__cause__)
    return _omegaconf(error) if isinstance(error, OmegaConfBaseException) else text or _cause(error)


def _fault_beside_sweep(arguments: Sequence[str]) -> BaseException | None:
    """What keeps Hydra from seeing that a preset asks for a sweep, so that it complains of several values."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(words)
    single = [word for word, one in zip(words, parsed, strict=True) if not one.is_sweep_override()]
    try:
        compose_config(single, config_name(arguments), with_hydra=True)
    except (HydraException, OmegaConfBaseException) as fault:
        return fault
    return None


def _unfit(override: str, error: OmegaConfBaseException) -> str:
    """A value of another type than its key's, which Hydra's configs and launchers declare."""
    key, _, value = override.lstrip("+").partition("=")
    if "is not a ListConfig" in str(error):
        return f"{key}: must be a list, also of one: '{key}=[\"{value.strip(_QUOTES)}\"]'"
    return f"{key}: {str(error).splitlines()[0]}"


def _unreadable(override: str, why: str) -> str:
    """A line that Hydra's grammar refuses, most often for a sign in its value that means something there."""
    key, equals, value = override.partition("=")
    unread = f"{override}: cannot be read as GROUP=OPTION or KEY=VALUE ({why})"
    if not equals or not key or not value.isascii() or not set(value) & set("<>|~!@#^&;"):
        return unread
    return f"{unread}; quote the value inside quotes: '{key}=\"{value.strip(_QUOTES)}\"'"


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    return _omegaconf(cause) if isinstance(cause, OmegaConfBaseException) else str(cause or error)


def _omegaconf(error: OmegaConfBaseException) -> str:
    message = str(error).splitlines()[0]
    return f"{error.full_key}: {message}" if error.full_key else message


def _unknown_option(path: str, options: Sequence[str]) -> str:
    group, _, option = path.rpartition("/")
    return f"{group}={option}: {unknown(option, options, f'there is no such option of {group}', prefix='')}"


def _unknown_key(key: str, arguments: Sequence[str]) -> str:
    if key.startswith(_HYDRA):
        return _unknown_to_hydra(key, arguments)
    if key in _groups():
        return f"{key}: rerun keeps the options of the run it repeats; override values below {key} instead"
    if owners := _options_with(key):
        return f"{key}: the chosen option has no such key; it belongs to {_some(owners)}"
    if (other := meant(key.rpartition(".")[2])) is not None:
        return f"{key}: {other}"
    known = _known_keys(arguments)
    if (close := _nearest_key(key, known)) is not None:
        return f"{key}: there is no such key; did you mean {close}?"
    parent = _known_parent(key, known)
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    return f"{key}: {unknown(key.rpartition('.')[2], siblings, 'there is no such key', prefix=parent)}"


def _unknown_to_hydra(key: str, arguments: Sequence[str]) -> str:
    """A key of Hydra's own, of which the chosen launcher and sweeper decide what there is."""
    for parent, option in (("", None), *_OF_HYDRA):
        known = _keys_of_hydra(arguments, option) if key.startswith(parent) else []
        if (close := key if key in known else _nearest_key(key, known)) is not None:
            with_it = f" with {option}" if option else ""
            return f"{key}: there is no such key; did you mean {close}{with_it}?"
    parent, _, name = key.rpartition(".")
    siblings = [
        one.rpartition(".")[2] for one in _keys_of_hydra(arguments) if one.rpartition(".")[0] == parent
    ]
    return f"{key}: {unknown(name, siblings, 'there is no such key', prefix=parent)}"


def _keys_of_hydra(arguments: Sequence[str], option: str | None = None) -> list[str]:
    choices = [*_group_choices(arguments), *([option] if option else [])]
    try:
        cfg = compose_config(choices, config_name(arguments), with_hydra=True)
    except HydraException:
        return []
    return [*_keys({"hydra": _container(cfg.hydra)})]


def _options_with(key: str) -> list[str]:
    """The options of a group that have a key the chosen one lacks: ``model.path`` belongs to model=llama."""
    parts, groups = key.split("."), _groups()
    if len(parts) == 1:
        return _jobs_with(key)
    for depth in range(len(parts) - 1, 0, -1):
        if (group := "/".join(parts[:depth])) in groups:
            return [
                f"{group}={option}"
                for option in _options(group)
                if parts[depth] in (_read_option(group, option) or {})
            ]
    return []


def _jobs_with(key: str) -> list[str]:
    """Some jobs have keys at the root, beside `job` itself."""
    at_root = {option: _read_option("job", option) for option in _options("job")}
    return [f"job={option}" for option, content in at_root.items() if "job" in content and key in content]


def _read_option(group: str, option: str) -> Any:
    return yaml.safe_load((resource_dir("conf") / group / f"{option}.yaml").read_text(encoding="utf-8"))


def _some(options: Sequence[str]) -> str:
    if len(options) <= _MOST_OPTIONS:
        return " and ".join(options)
    return f"{', '.join(options[:_MOST_OPTIONS])} and others"


def _known_parent(key: str, known: Sequence[str]) -> str:
    """The longest part of a dotted path that exists."""
    parent = key.rpartition(".")[0]
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    return parent


def _nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Best a sibling, then the same last name elsewhere (`lr` → `optimizer.lr`), then anything like it."""
    parent, _, name = key.rpartition(".")
    siblings = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == parent}
    if (close := nearest(name, siblings)) is not None:
        return siblings[close]
    same = [one for one in known if one.rpartition(".")[2] == name]
    if same or parent in known:
        return same[0] if same else None
    return nearest(key, known)


def _known_keys(arguments: Sequence[str]) -> list[str]:
    """Every key of the config that this command line's groups make, and every group."""
    primary = config_name(arguments)
    try:
        cfg = compose_config(_group_choices(arguments), primary)
    except HydraException:
        cfg = compose_config([], primary)
    # Values are to be set where they act, not where their defaults come from.
    keys = {key: value for key, value in _container(cfg).items() if key != "recommended"}
    return [*_keys(keys), *(group for group in _groups() if group not in cfg)]


def _container(cfg: DictConfig) -> dict[Any, Any]:
    plain = OmegaConf.to_container(cfg)
    assert isinstance(plain, dict)
    return plain


def _keys(node: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, child in node.items():
        yield f"{prefix}{key}"
        if isinstance(child, Mapping):
            yield from _keys(child, f"{prefix}{key}.")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (resource_dir("conf") / group).glob("*.yaml"))


def _groups() -> list[str]:
    """Every group, those inside of others, such as ``loss/weighting``, too."""
    conf = resource_dir("conf")
    folders = (path.relative_to(conf) for path in conf.rglob("*") if path.is_dir())
    return sorted(folder.as_posix() for folder in folders if folder.parts[0] != "hydra")


def _group_choices(arguments: Sequence[str]) -> list[str]:
    keys = ((argument, argument.partition("=")[0].lstrip("+")) for argument in arguments)
    choices = [argument for argument, key in keys if key in _groups() or key.startswith("hydra/")]
    parser = OverridesParser.create()
    return [choice for choice in choices if not parser.parse_override(choice).is_sweep_override()]
