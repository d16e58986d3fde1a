"""The README.md of a final model folder: what it is, how it was trained, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mftrun
from mftrun.files import write_atomically
from mftrun.tracking import text
from mftrun.tracking.summary import Summary, TaskSummary
from mftrun.weight_files.hub import is_hub_id

_LOAD_MODEL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
"""

_LOAD_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoPeftModelForCausalLM.from_pretrained(folder)  # reads the base model, then this adapter
"""

_CHAT = """
messages = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
"""

_CONTINUE = """
inputs = tokenizer("The text to continue", return_tensors="pt")
"""

_GENERATE = """\
output = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class ModelCard:
    """What a model card tells.

    Attributes:
        name: The run's name.
        base_model: Hub id or folder of the model that was tuned; None for one trained from random weights.
        adapter: Whether the folder holds an adapter instead of a full model.
        chat: Whether the tokenizer has a chat template; otherwise the model continues text.
        summary: The run's results.
        settings: What else is worth telling, name to value: loss, weighting, peft, steps, learning rate, …
    """

    name: str
    base_model: str | None
    adapter: bool
    chat: bool
    summary: Summary
    settings: Mapping[str, Any]

    def render(self) -> str:
        """The card as Markdown with YAML front matter as the hub reads it."""
        parts = (
            self._front_matter(),
            self._intro(),
            self._tasks(),
            *self._scores(),
            self._settings(),
            self._usage(),
        )
        return "\n".join(parts)

    def write(self, folder: Path) -> Path:
        """Writes `folder`/README.md, whole or not at all, and returns its path."""
        path = folder / "README.md"
        write_atomically(path, self.render())
        return path

    def _front_matter(self) -> str:
        import yaml

        about: dict[str, Any] = {"library_name": "peft" if self.adapter else "transformers"}
        # A folder is no hub id, and the hub refuses a card that claims it is.
        if self.base_model and is_hub_id(self.base_model) and not Path(self.base_model).exists():
            about["base_model"] = self.base_model
        about["pipeline_tag"] = "text-generation"
        about["tags"] = ["mftrun", "multi-task", *(["lora"] if self.adapter else [])]
        return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"

    def _intro(self) -> str:
        kind = "An adapter" if self.adapter else "A model"
        start = f"from `{self.base_model}`" if self.base_model else "from random weights"
        count = len(self.summary.tasks)
        many = f"{count} tasks" if count != 1 else "one task"
        return f"# {self.name}\n\n{kind} trained {start} on {many} by mftrun {mftrun.__version__}.\n"

    def _tasks(self) -> str:
        header = (
            "| task | samples | target tokens | training loss, first | last | validation loss, last | best |"
        )
        rows = [_task_row(name, task) for name, task in self.summary.tasks.items()]
        note = "Losses are means of the negative log-likelihood (nats) over the target tokens of a task."
        return "\n".join(["## Tasks", "", header, "|---|" + "---:|" * 6, *rows, "", note, ""])

    def _scores(self) -> list[str]:
        scores = self.summary.scores
        if not scores:
            return []
        rows = [
            f"| {_cell(name)} | {text.share(one.first)} | {text.share(one.last)} | {text.share(one.best)} |"
            for name, one in scores.items()
        ]
        header = ["| benchmark | pass@1, first | last | best |", "|---|---:|---:|---:|"]
        note = "Shares of the problems asked for that were solved in one greedy try, during training."
        return ["\n".join(["## Benchmarks", "", *header, *rows, "", note, ""])]

    def _settings(self) -> str:
        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in self.settings.items()]
        return "\n".join(["## Training", "", self.summary.totals() + ".", "", *_table(rows), ""])

    def _usage(self) -> str:
        load = _LOAD_ADAPTER if self.adapter else _LOAD_MODEL
        ask = _CHAT if self.chat else _CONTINUE
        return f"## Use\n\n```python\n{load}{ask}{_GENERATE}```\n"


def _task_row(name: str, task: TaskSummary) -> str:
    losses = (task.train_first, task.train_last, task.valid_last, task.valid_best)
    cells = [_cell(name), f"{task.samples:,}", f"{task.target_tokens:,}", *map(text.loss, losses)]
    return f"| {' | '.join(cells)} |"


def _table(rows: list[str]) -> list[str]:
    return ["| setting | value |", "|---|---|", *rows] if rows else []


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")
