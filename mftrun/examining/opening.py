"""From the configuration to what scores the model in training; known to work before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mftrun.benchmarks.compat import STRICT
from mftrun.errors import ConfigError
from mftrun.generation.sampling import Sampling
from mftrun.scoring.asking import ask
from mftrun.scoring.opening import open_scorer
from mftrun.scoring.scorer import Asked, Scorer
from mftrun.solving.generations import model_name
from mftrun.solving.styles import find_style

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from mftrun.data.template import Template
    from mftrun.distributed import Engine
    from mftrun.schema import EvaluationConfig, RunConfig
    from mftrun.training.scoring import Scoring

_ROOT, _SCORING = "evaluation.benchmarks", "evaluation.scoring"
# What the jobs on benchmarks call a key, and what it is called here.
_KEYS = MappingProxyType(
    {
        "benchmarks": _ROOT,
        "job": _ROOT,
        "benchmark_data": f"{_SCORING}.data",
        "style": f"{_SCORING}.style",
        "job.backend.batch_size": f"{_SCORING}.batch_size",
    }
)


def check_scoring(config: RunConfig, resolved: Mapping[str, Any]) -> None:
    """Looks whether scores can be had: benchmarks, their data and tools, a sandbox, the library.

    Args:
        config: The run's configuration.
        resolved: The same as plain containers.

    Raises:
        ConfigError: Something is missing; says how to come by it.
        DataError: A row of a benchmark is not as it must be.
    """
    with _named():
        asked = _asked(config.evaluation)
        find_style(config.evaluation.scoring.style)
        scorer = open_scorer(resolved, STRICT, [1])
    for one in asked:
        _require_tools(scorer, one)


def open_scoring(
    config: RunConfig,
    resolved: Mapping[str, Any],
    engine: Engine,
    *,
    is_divided: bool,
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    folder: Path,
) -> Scoring:
    """What scores the model of a run that asks for benchmarks.

    Args:
        config: The run's configuration.
        resolved: The same as plain containers.
        engine: Trains the model.
        is_divided: Whether each rank holds a part of its weights.
        tokenizer: The run's.
        template: The run's.
        folder: Gets solutions and verdicts.

    Raises:
        ConfigError: As of `check_scoring`.
    """
    from mftrun.examining.answering import LiveModel
    from mftrun.examining.examiner import LiveExaminer
    from mftrun.training.scoring import Scoring

    settings = config.evaluation.scoring
    with _named():
        asked = _asked(config.evaluation)
        bound = find_style(settings.style).bind(tokenizer, template)
        scorer = open_scorer(resolved, STRICT, [1]) if engine.ranks.is_main else None
    sampling = Sampling(max_new_tokens=settings.max_new_tokens, temperature=0.0)
    model = LiveModel(engine, bound, sampling, settings.batch_size, is_divided)
    examiner = LiveExaminer(model, asked, scorer, folder, model_name(config.name))
    return Scoring(examiner, [one.benchmark.name for one in asked], settings.every)


def _asked(evaluation: EvaluationConfig) -> list[Asked]:
    return ask(evaluation.benchmarks, evaluation.scoring.data, STRICT, evaluation.scoring.problems)


def _require_tools(scorer: Scorer, asked: Asked) -> None:
    skip = scorer.skip(asked)
    if skip is not None:
        name = asked.benchmark.name
        raise ConfigError(_ROOT, f"{name} cannot be scored here: {skip.told()}; or leave the benchmark out")


@contextmanager
def _named() -> Iterator[None]:
    """Errors name keys as they are called here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_KEYS.get(error.key, error.key), error.message) from error
