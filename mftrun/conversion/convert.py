"""A legacy checkpoint becomes a native one: checked as a whole by shapes, then streamed tensor by tensor."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.conversion.families import FAMILIES, native_config
from mftrun.conversion.legacy import Legacy
from mftrun.conversion.native import check_fits, generation_settings
from mftrun.conversion.rules import Rule, by_name
from mftrun.conversion.source_tokenizer import TokenizerFiles, read_json
from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.weight_files.checkpoint import Checkpoint, some
from mftrun.weight_files.output import check_room, written_folder
from mftrun.weight_files.writer import ShardWriter

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Plan:
    """All of a conversion that is known before any weight is read.

    Args:
        family: The legacy architecture.
        legacy: Its config.json.
        native: The new config.json.
        checkpoint: The old weights.
        rules: What becomes of each of its tensors; those that carry nothing are absent.
        dtype: Of the new weights; None keeps each as it is.
    """

    family: Legacy
    legacy: Mapping[str, Any]
    native: Mapping[str, Any]
    checkpoint: Checkpoint
    rules: Mapping[str, Rule]
    dtype: torch.dtype | None

    def outlines(self) -> dict[str, torch.Tensor]:
        """The new tensors without their numbers (on the meta device), by name."""
        found: dict[str, torch.Tensor] = {}
        outlines = self.checkpoint.outlines
        for name, rule in self.rules.items():
            found |= rule.parts(outlines[name])
        return {name: tensor.to(self.dtype or tensor.dtype) for name, tensor in found.items()}


def plan(source: Path, dtype: torch.dtype | None) -> Plan:
    """Reads config.json and the names, shapes and dtypes of the weights, and holds them against each other.

    Args:
        source: Folder of a legacy checkpoint.
        dtype: Of the new weights; None keeps each as it is.

    Raises:
        ConfigError: It is no legacy checkpoint, has no exact native equal, or tensors are missing, unknown or
            of other shapes.
        DataError: A file is missing or broken.
    """
    legacy = _legacy_config(source)
    native = native_config(legacy)
    if native is None:
        raise ConfigError("source", _not_legacy(source, legacy))
    family = FAMILIES[legacy["model_type"]]
    if "quantization_config" in legacy:
        raise ConfigError("source", "holds quantised weights; give the ones in 16 or 32 bit")
    checkpoint = Checkpoint(source)
    _check_tensors(checkpoint)
    every = by_name(family.rules(legacy), native["num_hidden_layers"])
    made = Plan(family, legacy, native, checkpoint, _rules(every, checkpoint, family, native), dtype)
    check_fits(native, made.outlines())
    return made


def convert(made: Plan, label: str, source: Path, output: Path, shard_bytes: int) -> None:
    """Writes the native checkpoint: it appears whole or not at all.

    Args:
        made: What :func:`plan` found.
        label: What the user calls the source.
        source: Its folder.
        output: The folder to write; it must not hold anything yet.
        shard_bytes: Of a file of weights.

    Raises:
        MftrunError: The disk is too full or fails, or something of the source is missing or broken.
    """
    check_room(output, sum(tensor.nbytes for tensor in made.outlines().values()))
    for note in made.family.notes(made.legacy):
        log.warning("%s", note)
    with written_folder(output) as folder:
        tokenizer = made.family.tokenizer(TokenizerFiles(source, label), made.legacy)
        _check_entries(len(tokenizer), made.native["vocab_size"])
        tokenizer.save_pretrained(folder)
        settings = generation_settings(read_json(source / "generation_config.json"), tokenizer)
        write_json(folder / "generation_config.json", settings)
        dtype = {} if made.dtype is None else {"dtype": str(made.dtype).removeprefix("torch.")}
        write_json(folder / "config.json", {**made.native, **dtype})
        _stream(made, ShardWriter(folder, shard_bytes))
        check_fits(made.native, Checkpoint(folder).outlines)


def _stream(made: Plan, writer: ShardWriter) -> None:
    contents = made.checkpoint.contents
    for number, (file, names) in enumerate(contents, 1):
        for name in names:
            if name in made.rules:
                _add(writer, made.rules[name].parts(made.checkpoint.read(name)), made.dtype)
        log.info("%s (%d of %d) converted", file.name, number, len(contents))
    writer.finish()


def _add(writer: ShardWriter, parts: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> None:
    """Parts of one tensor share its memory, which a copy of each sets free."""
    for name, part in parts.items():
        writer.add(name, part.to(dtype or part.dtype, copy=True).contiguous())


def _check_tensors(checkpoint: Checkpoint) -> None:
    """Refuses tensors that are absent or there twice, and weights that are quantised."""
    if checkpoint.absent:
        raise ConfigError("source", f"its index promises {some(checkpoint.absent)}, which no file holds")
    seen: set[str] = set()
    for file, kinds in checkpoint.contents:
        for name, kind in kinds.items():
            if name in seen:
                raise ConfigError("source", f"holds the tensor {name} twice, the second time in {file.name}")
            if not kind.dtype.is_floating_point or kind.dtype.itemsize < 2:
                raise ConfigError(
                    "source",
                    f"its tensor {name} is {kind.dtype}: the weights are quantised; give the ones in 16 or "
                    "32 bit",
                )
            seen.add(name)


def _rules(
    every: Mapping[str, Rule], checkpoint: Checkpoint, family: Legacy, native: Mapping[str, Any]
) -> dict[str, Rule]:
    """Rules of the tensors that are there, once none is missing or unknown; a tied head is the embedding."""
    tied = {name for name, rule in every.items() if native["tie_word_embeddings"] and _HEAD in rule.targets}
    missing = sorted(every.keys() - checkpoint.kinds.keys() - tied)
    extra = checkpoint.kinds.keys() - every.keys()
    unknown = sorted(name for name in extra if not re.fullmatch(family.ignored, name))
    for names, problem in ((missing, "lacks tensors"), (unknown, "holds tensors that no rule knows")):
        if names:
            raise ConfigError("source", f"as a {family.name} model it {problem}: {some(names)}")
    return {name: rule for name, rule in every.items() if name not in tied}


def _legacy_config(source: Path) -> dict[str, Any]:
    if not (source / "config.json").is_file():
        raise ConfigError("source", f"{source} holds no config.json; give the folder of a checkpoint")
    return read_json(source / "config.json")


def _not_legacy(source: Path, config: Mapping[str, Any]) -> str:
    if "converted_from" in config:
        return f"{source} is converted already; use it as it is"
    known = ", ".join(FAMILIES)
    return (
        f"{source} holds a {config.get('model_type')} model, which needs no conversion or has none; those "
        f"that are converted have the model_type {known}"
    )


def _check_entries(entries: int, rows: int) -> None:
    if entries > rows:
        raise ConfigError("source", f"its tokenizer has {entries:,} entries, and its embedding {rows:,} rows")
