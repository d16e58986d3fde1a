"""job=tokenize: everything that training needs of the data, in one folder, to train from elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mftrun.data.selection import TaskTokens

log = logging.getLogger(__name__)


class TokenizeJob:
    """Tokenizes the tasks; needs neither the model's weights nor a GPU."""

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Writes ``run_dir/tokens`` and ``run_dir/tokenizer``.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.data.tokenized import Fingerprints, write_tokenized
        from mftrun.data.tokenizer import save_tokenizer, tokenizer_digest
        from mftrun.errors import ConfigError
        from mftrun.jobs.layout import RunLayout
        from mftrun.jobs.preparation import build_group, supply_of
        from mftrun.schema import RunConfig

        typed = RunConfig.from_dict(config)
        if typed.data.tokenized is not None:
            raise ConfigError("data.tokenized", "is what job=tokenize makes; give it tasks instead")
        supply, template, model = (
            supply_of(typed),
            build_group(typed, "template"),
            build_group(typed, "model"),
        )
        tokenizer = supply.tokenizer()
        tokens = supply.tokens(tokenizer)
        save_tokenizer(tokenizer, RunLayout(run_dir).tokenizer)
        recipe, digest = model.tokenizer_recipe, tokenizer_digest(tokenizer)
        write_tokenized(run_dir, tokens, Fingerprints(template.fingerprint(), recipe, digest))
        log.info("tokenized %s\n%s", run_dir, _table(tokens))
        log.info("train from it with the same model and template, and data.tokenized=%s", run_dir)


def _table(tasks: Sequence[TaskTokens]) -> str:
    from mftrun.text_table import text_table

    rows = [["task", "samples", "tokens", "bad lines", "longest"]]
    for task in tasks:
        metas = [file.meta for file in task.files]
        numbers = (
            sum(file.num_samples for file in task.files),
            sum(meta.tokens for meta in metas),
            sum(meta.bad for meta in metas),
            max(meta.longest for meta in metas),
        )
        rows.append([task.task, *(f"{number:,}" for number in numbers)])
    return text_table(rows)
