"""From the configuration to what scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.build import build
from mftrun.languages.base import Judged, Language, Program
from mftrun.languages.judge import judge
from mftrun.languages.registry import languages
from mftrun.sandbox.base import Sandbox, SandboxOption
from mftrun.scoring.pass_at_k import require_library
from mftrun.scoring.scorer import Scorer
from mftrun.scoring.workers import usual_workers

log = logging.getLogger(__name__)

# Keys of a sandbox that no verdict depends on.
_NO_MATTER = frozenset({"_target_", "workers", "allow_unsafe"})


def open_scorer(config: Mapping[str, Any], compat: Compat, k: Sequence[int] | None) -> Scorer:
    """Opens the sandbox, and gives what scores in it.

    Args:
        config: The resolved configuration.
        compat: Which faults of other evaluations to repeat.
        k: For which k to estimate pass@k; None takes what there are samples for.

    Raises:
        ConfigError: No sandbox works here, or the library that estimates pass@k is not installed.
    """
    require_library()
    option = build(config["sandbox"], SandboxOption, "sandbox", allowed=config["allowed_targets"])
    sandbox = option.open()
    settings = {key: value for key, value in config["sandbox"].items() if key not in _NO_MATTER}
    judged_by = {"sandbox": sandbox.name, "settings": settings, "compat": asdict(compat)}
    _say_where_tools_are(config["sandbox"].get("image"), sandbox)
    workers = option.workers or usual_workers()
    return Scorer(languages(compat), _judge_in(sandbox), workers, judged_by, k)


def _say_where_tools_are(image: str | None, sandbox: Sandbox) -> None:
    if image is not None and image in sandbox.name:
        log.info("compilers and interpreters are looked for on this machine; %s must have them, too", image)


def _judge_in(sandbox: Sandbox) -> Callable[[Language], Callable[[Program], Judged]]:
    return lambda language: partial(judge, language=language, sandbox=sandbox)
