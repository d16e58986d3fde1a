"""Whether this process leads a run or follows: known before Hydra makes a folder for it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.compose import compose_config
from mftrun.explain import explanation
from mftrun.rerun import config_name

if TYPE_CHECKING:
    from mftrun.launch.place import Place

_NODE_RANK = "node_rank"
_BY_DEEPSPEED = "--local_rank="


def own_place(arguments: Sequence[str]) -> Place | None:
    """Which of several agents this process is; None for one that is alone, or leads without saying so.

    Args:
        arguments: The command line.

    Raises:
        ConfigError: The environment, or the keys that say where machines meet, cannot be used.
    """
    from mftrun.launch.place import node_place, outer_place

    place = outer_place(os.environ)
    if place is not None or not any(_NODE_RANK in argument for argument in arguments):
        return place
    config = _distributed(arguments)
    if config is None:
        return None
    from mftrun.distributed.machines import Machines

    names = {field.name for field in fields(Machines)}
    return node_place(Machines(**{name: value for name, value in config.items() if name in names}))


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line as Hydra reads it: flags before overrides, and nothing that an outer launcher added."""
    from hydra._internal.utils import get_args_parser

    flags = {name: action for action in get_args_parser()._actions for name in action.option_strings}
    left = [argument for argument in arguments if not argument.startswith(_BY_DEEPSPEED)]
    first: list[str] = []
    rest: list[str] = []
    while left:
        word, *left = left
        if word not in flags:
            (first if word.startswith("--") else rest).append(word)
            continue
        first.append(word)
        if left and _takes(flags[word], left[0]):
            first.append(left.pop(0))
    return first + rest


def _takes(flag: Any, following: str) -> bool:
    """Whether a word after a flag belongs to it: always, never, or if it cannot be an override."""
    if flag.nargs is None:
        return True
    return flag.nargs == "?" and not following.startswith("-") and "=" not in following


@contextmanager
def followers_told(arguments: Sequence[str]) -> Iterator[None]:
    """Inside, a program leads; however it ends, those that it leads end with its exit code and its reason."""
    code, text = 1, ""
    try:
        yield
        code = 0
    except SystemExit as end:
        code, text = _code(end), _reason(end.__cause__ or end.__context__, arguments)
        raise
    finally:
        from mftrun.launch.team import dismiss_all

        dismiss_all(code, text if code else "")


def _distributed(arguments: Sequence[str]) -> Mapping[str, Any] | None:
    """The group `distributed` of a command line; None where that only asks for information."""
    from hydra._internal.utils import get_args_parser
    from omegaconf import OmegaConf

    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info:
        return None
    overrides = [one for one in parsed.overrides if not _is_sweep(one)]
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=[file://{Path(parsed.config_dir).resolve()}]")
    composed = compose_config(overrides, config_name(arguments))
    config = OmegaConf.to_container(composed.distributed, resolve=True)
    assert isinstance(config, dict), "the group distributed has keys"
    return {str(key): value for key, value in config.items()}


def _is_sweep(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def _code(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _reason(error: BaseException | None, arguments: Sequence[str]) -> str:
    if error is None:
        return "the leader has ended"
    told = explanation(error, arguments)
    if told is None and not isinstance(error, Exception):
        return "the leader was interrupted"
    return told if told is not None else str(error) or "".join(traceback.format_exception(error))
