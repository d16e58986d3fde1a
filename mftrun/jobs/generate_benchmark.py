"""job=generate_benchmark: let a model solve benchmarks of code, and keep its solutions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mftrun.errors import ConfigError
from mftrun.generation.base import BackendOption, Weights
from mftrun.generation.sampling import Sampling

if TYPE_CHECKING:
    from mftrun.benchmarks.compat import Compat
    from mftrun.solving.candidate import Candidate
    from mftrun.solving.solve import Solutions, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateBenchmarkJob:
    """Solves benchmarks with a base model, an adapter on its base, or a whole trained model.

    Args:
        path: Folder of a run, of a model or of an adapter, or an id on the hub.
        backend: What generates tokens.
        benchmarks: Names of benchmarks and of sets of them.
        benchmark_data: Folder of their rows, ``hub``, or ``hub:OWNER/NAME``; None takes what is installed.
        output: Folder of records and solutions; None takes the run's folder.
        style: How the model is asked, a name or a text; see `mftrun.solving.styles`.
        compat: ``strict``, or ``upstream`` to repeat the faults of the first evaluation.
        model_name: What files call the model; None takes it from the path.
        problems: Only so many of each benchmark, from the first on; None solves all.
        num_samples: See `Sampling`, as the next six.
        temperature: 0 is greedy.
        top_p: Share of the probability to sample from.
        top_k: Number of tokens to sample from; None takes all.
        repetition_penalty: What tokens are penalised with that were there before.
        max_new_tokens: Longest answer in tokens.
        stop: Texts that end an answer, besides those of the benchmark.
        on_overlong: What becomes of a question that leaves no room for an answer.
        num_processes: Ranks that share the work; None takes one for each GPU.
        dtype: See `Weights`, as the next two.
        quantization: Bits of linear layers' weights; None does not quantise.
        trust_remote_code: Whether Python code in the model's folder may run.
        revision: Branch, tag or commit on the hub.
        base: Folder or hub id of the base of an adapter; None takes what the adapter names.
        own_benchmarks: Benchmarks of the user, by name.
        benchmark_revision: Branch, tag or commit of the benchmarks on the hub.

    Raises:
        ConfigError: A value is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"seed", "template"})

    path: str
    backend: BackendOption
    benchmarks: list[str] | str
    benchmark_data: str | None = None
    output: str | None = None
    style: str = "auto"
    compat: Literal["strict", "upstream"] = "strict"
    model_name: str | None = None
    problems: int | None = None
    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 0.95
    top_k: int | None = None
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    on_overlong: Literal["empty", "error"] = "empty"
    num_processes: int | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    trust_remote_code: bool = False
    revision: str | None = None
    base: str | None = None
    own_benchmarks: dict[str, Any] = field(default_factory=dict)
    benchmark_revision: str | None = None

    def __post_init__(self) -> None:
        from mftrun.solving.answers import check_policy
        from mftrun.solving.generations import model_name
        from mftrun.solving.styles import find_style

        self._compat()
        self._sampling(0)
        self._weights()
        self._refuse_idle()
        for key in ("problems", "num_processes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"job.{key}", f"must be 1 or more, or null, not {value}")
        check_policy(self.on_overlong)
        find_style(self.style)
        model_name(self.path, self.model_name)

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Solves, and writes the solutions.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        self.solve(self.tasks(), config, run_dir)

    def tasks(self) -> list[Task]:
        """The benchmarks that are asked for, with their rows; nothing is loaded for them.

        Raises:
            ConfigError: There is no such benchmark, or its rows are not there.
            DataError: A row is not as it must be.
        """
        from mftrun.benchmarks.data import benchmark_data
        from mftrun.benchmarks.registry import find
        from mftrun.solving.solve import Task

        names = [self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks
        data = benchmark_data(self.benchmark_data, self.benchmark_revision)
        found = find(names, self._compat(), self.own_benchmarks)
        return [Task(one, one.problems(data), self.problems) for one in found]

    def solve(self, tasks: Sequence[Task], config: Mapping[str, Any], run_dir: Path) -> Solutions:
        """Solves tasks as far as no record holds their answers, and writes all solutions.

        Args:
            tasks: What is to be solved.
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Returns:
            The solutions, as the files of `generations` hold them.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.jobs.layout import RunLayout
        from mftrun.solving.generations import generations_file, model_name, write_generations
        from mftrun.solving.sharing import Manner
        from mftrun.solving.solve import Solver

        self.backend.check()
        output, model = self.output_folder(run_dir), model_name(self.path, self.model_name)
        manner = Manner(self._sampling(config["seed"]), self.on_overlong)
        solver = Solver(self._candidate(config), manner, output, self.num_processes, RunLayout(run_dir).log)
        solutions = solver.solve(tasks)
        for name, solved in solutions.items():
            write_generations(generations_file(output, model, name), solved)
        log.info("solutions are in %s", self.generations(run_dir))
        return solutions

    def output_folder(self, run_dir: Path) -> Path:
        """Where records and solutions go."""
        return run_dir if self.output is None else Path(self.output).expanduser().absolute()

    def generations(self, run_dir: Path) -> Path:
        """The folder of the files of solutions."""
        from mftrun.solving.generations import generations_file, model_name

        name = model_name(self.path, self.model_name)
        return generations_file(self.output_folder(run_dir), name, "any").parent

    def _candidate(self, config: Mapping[str, Any]) -> Candidate:
        from mftrun.generation.place import look_up
        from mftrun.solving.candidate import candidate
        from mftrun.solving.styles import find_style

        place = look_up(self.path, self.revision, self.base)
        return candidate(place, self.backend, self._weights(), find_style(self.style), config)

    def _compat(self) -> Compat:
        from mftrun.benchmarks.compat import COMPATS

        if self.compat not in COMPATS:
            raise ConfigError("compat", f"must be one of {', '.join(COMPATS)}, not {self.compat}")
        return COMPATS[self.compat]

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            num_samples=self.num_samples,
            stop=tuple(self.stop),
            seed=seed,
            max_length=self.max_new_tokens if self._compat().prompt_counts else None,
        )

    def _refuse_idle(self) -> None:
        """Nothing is drawn at temperature 0: what would act on chance does nothing there."""
        for key in ("top_p", "top_k"):
            value = getattr(self, key)
            if self.temperature == 0 and value != getattr(type(self), key):
                raise ConfigError(
                    f"job.{key}",
                    f"{value} does nothing at job.temperature=0, which draws nothing; raise that",
                )

    def _weights(self) -> Weights:
        return Weights(self.dtype, self.quantization, self.trust_remote_code)
