"""What is evaluated, logged, saved, and where."""

from __future__ import annotations

from typing import Any

from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import MISSING, Given, Values


def translate_keeping(values: Values, out: Translation) -> None:
    """`evaluation`, `checkpoint`, `tracker` and the run's folder.

    Raises:
        ConfigError: A value has the wrong type.
    """
    out.carry(
        "evaluation.every", values.whole("evaluation_steps", "evalation_steps", "valid_interval", least=1)
    )
    _stopping(values, out)
    out.carry("checkpoint.every_steps", values.whole("checkpointing_steps", least=1))
    out.carry("checkpoint.every_epoch", values.flag("epoch_checkpointing", "extra_save_by_epoch"))
    _limit(values, out)
    out.carry("checkpoint.export", values.flag("save_transformers_model"))
    out.carry("train.log_every", values.whole("log_interval", least=1))
    out.choose("tracker", "local")
    out.drop(values.any("tb_dir", "tensorboard_dir"), "TensorBoard's files lie in the run's folder")
    _folder(values, out)


def _stopping(values: Values, out: Translation) -> None:
    wanted = values.flag("early_stopping")
    patience = values.any("early_stopping_stall_num", "early_stopping_patience")
    if patience is None or patience.value == -1 or (wanted is not None and not wanted.value):
        _drop_both(wanted, patience, "early stopping is off, as it is unless asked for", out)
    elif out.value("data.valid_fraction") == 0:
        _drop_both(wanted, patience, "data_split leaves nothing for validation", out)
    else:
        out.carry("evaluation.early_stopping.patience", values.whole(patience.key, least=1))
        out.mention(wanted, "evaluation.early_stopping.patience")


def _drop_both(
    wanted: Given[bool] | None, patience: Given[Any] | None, reason: str, out: Translation
) -> None:
    out.drop(wanted, reason)
    out.drop(patience, reason)


def _limit(values: Values, out: Translation) -> None:
    limit = values.whole("saving_limit", "save_total_limit", least=1)
    out.carry("checkpoint.keep_last", limit)
    if limit is None:
        out.note(
            "MFTCoder kept every adapter; here the newest 2 checkpoints and the best one stay: "
            "checkpoint.keep_last=N keeps more"
        )


def _folder(values: Values, out: Translation) -> None:
    folder = values.text("output_dir")
    named = folder is not None and folder.value != MISSING
    if folder is not None and named:
        out.name_run("output_dir", folder.value, folder)
    else:
        out.drop(folder, "it stands for a folder: runs go to runs/NAME/TIME unless you give output_dir=DIR")
    _resuming(values, out, named)


def _resuming(values: Values, out: Translation, named: bool) -> None:
    automatic, checkpoint = values.flag("auto_resume"), values.any("resume_from_checkpoint")
    wants = str(checkpoint.value).lower() if checkpoint is not None else "false"
    if checkpoint is not None and wants == "true":
        out.name_run("resume", "auto", checkpoint)
    elif checkpoint is not None and wants == "false":
        out.drop(checkpoint, "false is what runs do anyway")
    elif checkpoint is not None:
        out.drop(
            checkpoint,
            "MFTCoder's checkpoints hold weights alone, no optimizer and no place in the data; merge an "
            "adapter into its base (job=merge), or give a whole model, as model.path",
        )
    if automatic is not None and automatic.value and named:
        out.name_run("resume", "auto", automatic)
    else:
        out.drop(automatic, "resume=auto goes on with the newest unfinished run; off unless you write it")
