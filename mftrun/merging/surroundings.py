"""What lies beside the weights: tokenizer, chat template, generation settings, code, model card."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import mftrun
from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.weight_files.hub import is_hub_id

_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
    "sentencepiece*.model",
)
_GENERATION = "generation_config.json"
_SECTIONS = re.compile(r"^## (Tasks|Training)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Surroundings:
    """The files that go with a merged model: the adapter's, where it has them, or else the base's.

    Args:
        adapter: The adapter's folder.
        base: The base's folder.
    """

    adapter: SavedAdapter
    base: BaseModel

    def tokenizer(self) -> Any:
        """The tokenizer, or None where neither folder has one."""
        from transformers import AutoTokenizer

        if (folder := self._tokenizer_folder()) is None:
            return None
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=self.base.trust_remote_code)

    def check(self, entries: int | None) -> None:
        """Refuses a tokenizer that the embeddings have no rows for.

        Args:
            entries: Rows of the embeddings that the adapter brings; None for the base's.

        Raises:
            ConfigError: It has more entries.
        """
        tokenizer = self.tokenizer()
        rows = entries or self.base.rows
        if tokenizer is not None and len(tokenizer) > rows:
            raise ConfigError(
                "adapter",
                f"its tokenizer has {len(tokenizer)} entries, and the embeddings of {self.base.folder} have "
                f"{rows} rows: it was trained on another base, or saved without its embeddings",
            )

    def copy(self, folder: Path) -> None:
        """Copies them.

        Args:
            folder: Of the merged model; exists.

        Raises:
            OSError: A file cannot be copied.
        """
        if (source := self._tokenizer_folder()) is not None:
            for pattern in _TOKENIZER:
                for path in source.glob(pattern):
                    _copy(path, folder)
        for source in (self.adapter.folder, self.base.folder):
            if (source / _GENERATION).exists():
                _copy(source / _GENERATION, folder)
                break
        if self.base.trust_remote_code:
            for path in self.base.folder.glob("*.py"):
                _copy(path, folder)

    def card(self, folder: Path, facts: dict[str, str]) -> None:
        """Writes README.md: what was merged, and what the adapter's card says of its training.

        Args:
            folder: Of the merged model; exists.
            facts: What else is worth telling, name to value.
        """
        card = self.adapter.folder / "README.md"
        old = card.read_text(encoding="utf-8") if card.exists() else ""
        found = re.search(r"^# (.+)$", old, re.MULTILINE)
        title = found[1] if found else "Merged model"
        rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
        merging = f"## Merging\n\n| setting | value |\n|---|---|\n{rows}\n"
        parts = [self._front_matter(), f"# {title}\n", self._intro(), merging, *self._training(old)]
        write_atomically(folder / "README.md", "\n".join(parts))

    @property
    def _base(self) -> str:
        return self.base.name or str(self.base.folder)

    def _front_matter(self) -> str:
        about: dict[str, Any] = {"library_name": "transformers"}
        # The hub knows a copy of the adapter's base in a folder by the adapter's name for it.
        names = [self._base, *([self.adapter.base] if self.base.trained_on else [])]
        known = [name for name in names if name and is_hub_id(name) and not Path(name).exists()]
        if known:
            about["base_model"] = known[0]
        about |= {"pipeline_tag": "text-generation", "tags": ["mftrun", "multi-task", "merged"]}
        return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"

    def _intro(self) -> str:
        version = mftrun.__version__
        intro = f"An adapter ({self.adapter.kind}) merged into `{self._base}` by mftrun {version}.\n"
        if self.base.trained_on:
            return intro
        trained_on = self.adapter.base or "a model it does not name"
        return (
            f"{intro}\nThe adapter was trained on `{trained_on}`, which is not known to be the same model.\n"
        )

    def _training(self, card: str) -> list[str]:
        """What an adapter's card says of its training, whose losses tell nothing of another base."""
        sections = {found[1]: found[0].strip() + "\n" for found in _SECTIONS.finditer(card)}
        if not self.base.trained_on:
            sections.pop("Tasks", None)
        if not sections:
            return []
        what = "tells of the run that trained the adapter; the merged model was not evaluated"
        left_out = "" if self.base.trained_on else ". Its losses are left out, as it had another base"
        return [f"## The adapter's run\n\nWhat follows {what}{left_out}.\n", *sections.values()]

    def _tokenizer_folder(self) -> Path | None:
        folders = (self.adapter.folder, self.base.folder)
        return next((one for one in folders if _has_tokenizer(one)), None)


def _has_tokenizer(folder: Path) -> bool:
    return any(
        (folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    )


def _copy(path: Path, folder: Path) -> None:
    """The content alone: what links to a cache must not."""
    if path.is_dir():
        shutil.copytree(path, folder / path.name)
    else:
        shutil.copyfile(path, folder / path.name)
