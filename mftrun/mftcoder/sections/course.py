"""How long, in which portions and at which learning rate."""

from __future__ import annotations

from types import MappingProxyType

from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import Given, Values

LAUNCHED = 8
"""GPUs that MFTCoder's launch scripts start."""

_SCHEDULERS = MappingProxyType(
    {
        "cosine": "cosine",
        "cosine_with_restarts": "cosine",  # with the one cycle that MFTCoder left it
        "linear": "linear",
        "polynomial": "linear",  # of power 1, which MFTCoder left it
        "constant": "constant",
        "constant_with_warmup": "constant",
    }
)


def translate_course(values: Values, out: Translation, gpus: int | None) -> None:
    """`train`, `optimizer`, `scheduler` and the seed.

    Args:
        values: The config.
        out: Where it goes.
        gpus: On which MFTCoder ran; None for what its scripts start.

    Raises:
        ConfigError: A value has the wrong type, or names a schedule that is not offered.
    """
    _batches(values, out, gpus)
    _length(values, out)
    _optimizer(values, out)
    _scheduler(values, out)
    out.carry("seed", values.whole("seed"))
    out.carry("train.max_grad_norm", values.number("max_grad_norm"))
    half = values.flag("bf16")
    if half is not None and half.value:
        out.put("train.precision", "bf16", half)


def _batches(values: Values, out: Translation, gpus: int | None) -> None:
    steps = values.whole("gradient_accumulation_steps", least=1)
    accumulated = steps.value if steps is not None else 1
    ranks = _ranks(values, gpus)
    total = values.whole("total_train_batch_size", least=1)
    micro = values.whole("per_device_train_batch_size", least=1)
    if total is not None:
        out.put("train.global_batch_size", total.value * accumulated, total)
        out.drop(micro, "nothing read it: total_train_batch_size was divided among the GPUs")
        out.put("train.micro_batch_size", max(1, total.value // ranks), total)
        out.mention(values.whole("tp"), "train.micro_batch_size")
        out.mention(values.whole("dp"), "train.micro_batch_size")
    elif micro is not None:
        out.put("train.micro_batch_size", micro.value, micro)
        out.put("train.global_batch_size", micro.value * ranks * accumulated, micro)
        out.note(
            f"train.global_batch_size is {micro.value} rows on each of {ranks} GPUs, {accumulated} times; if "
            "MFTCoder ran on another number, give gpus=N"
        )
    if total is not None or micro is not None:
        out.mention(steps, "train.global_batch_size")
    out.carry(
        "evaluation.batch_size",
        values.whole("per_device_eval_batch_size", "per_device_valid_batch_size", least=1),
    )


def _ranks(values: Values, gpus: int | None) -> int:
    """MFTCoder replaced `world_size` by the number of processes; ATorch made a number of `tp` and `dp`."""
    divided, alike = values.whole("tp", least=1), values.whole("dp", least=1)
    if gpus is not None:
        return gpus
    if alike is not None:
        return alike.value * (divided.value if divided is not None else 1)
    return LAUNCHED


def _length(values: Values, out: Translation) -> None:
    epochs = values.number("num_train_epochs")
    steps = values.any("max_train_steps", "max_steps")
    if steps is not None and steps.value != -1:
        most = values.whole(steps.key, least=1)
        out.carry("train.max_steps", most)
        out.drop(epochs, f"{steps.key} decided")
        out.assume("train.epochs", None, f"{steps.key} decided")
        return
    out.drop(steps, "-1 leaves the length to num_train_epochs")
    out.carry("train.epochs", epochs)
    out.assume("train.max_steps", None, "num_train_epochs decided")


def _optimizer(values: Values, out: Translation) -> None:
    out.carry("optimizer.lr", values.number("learning_rate"))
    out.carry("optimizer.weight_decay", values.number("weight_decay"))
    out.carry("optimizer.eps", values.number("adam_epsilon"))
    first, second = values.number("adam_beta1"), values.number("adam_beta2")
    if first is not None and second is not None:
        out.put("optimizer.betas", [first.value, second.value], first)
        out.mention(second, "optimizer.betas")
    elif values.dialect.betas is not None:
        out.assume("optimizer.betas", list(values.dialect.betas), "set in MFTCoder's code")


def _scheduler(values: Values, out: Translation) -> None:
    custom, named = values.text("custom_lr_scheduler_type"), values.text("lr_scheduler_type")
    kind, floor = custom or named, values.number("min_lr")
    length = values.number("num_warmup_steps")
    if custom is not None:
        out.drop(named, "custom_lr_scheduler_type decided")
    if kind is None:
        out.drop(floor, "no schedule is named that it would belong to")
        out.drop(length, "no schedule is named that it would belong to")
        return
    if (option := _SCHEDULERS.get(kind.value)) is None:
        raise values.refused(kind, f"is a schedule that is not offered; these are: {', '.join(_SCHEDULERS)}")
    out.choose("scheduler", option, kind)
    _warmup(values, kind.value, length, out)
    if option == "constant":
        out.drop(floor, "a constant schedule never falls")
        return
    out.carry("scheduler.min_lr", floor)
    if floor is not None:
        out.note(
            "min_lr is where the schedule ends; MFTCoder's went to 0 and was cut off at min_lr, or not at all"
        )


def _warmup(values: Values, kind: str, length: Given[float] | None, out: Translation) -> None:
    if length is None:
        return
    if kind == "constant":
        out.drop(length, "this schedule has no warm-up")
        out.assume("scheduler.warmup_steps", 0, "lr_scheduler_type=constant has no warm-up")
    elif 0 < length.value < 1:
        out.put("scheduler.warmup_ratio", length.value, length)
    else:
        out.put("scheduler.warmup_steps", int(length.value), length)
        _note_pace(values, length, out)


def _note_pace(values: Values, length: Given[float], out: Translation) -> None:
    if values.dialect.counts_warmup_by_gpu and length.value:
        out.note(
            "num_warmup_steps counts optimizer steps; before v0.5 MFTCoder's warm-up was over N times sooner "
            "on N GPUs, and took gradient_accumulation_steps times as long"
        )
