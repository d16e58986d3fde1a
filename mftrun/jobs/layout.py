"""Where things lie in a run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLayout:
    """The places of one run.

    Args:
        run_dir: The run's folder.
    """

    run_dir: Path

    @property
    def data(self) -> Path:
        """Tokenized samples, ``train`` and ``valid``, and the report on them."""
        return self.run_dir / "data"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer the data was tokenized with."""
        return self.run_dir / "tokenizer"

    @property
    def base_model(self) -> Path:
        """The base of an adapter, where it exists nowhere else."""
        return self.run_dir / "base_model"

    @property
    def model(self) -> Path:
        """The final model or adapter."""
        return self.run_dir / "model"

    @property
    def curves(self) -> Path:
        """The plot of losses per task."""
        return self.run_dir / "curves.png"

    @property
    def scores(self) -> Path:
        """Answers to benchmarks while the model was trained, and verdicts on them, by step."""
        return self.run_dir / "scores"

    @property
    def log(self) -> Path:
        """The run's log."""
        return self.run_dir / "mftrun.log"
