"""What can be trained under which strategy: one list for refusals, the documentation and the tests.

``python -m mftrun.distributed.support`` prints it as the table of docs/distributed.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mftrun.distributed.fsdp import Fsdp
from mftrun.distributed.tensor_parallel import TensorParallel
from mftrun.distributed.zero import Zero
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from mftrun.distributed.base import Strategy
    from mftrun.losses.objective import Objective
    from mftrun.models.adapters import Adapter
    from mftrun.models.base import ModelSource


@dataclass(frozen=True)
class Kind:
    """What is trained of a model and how the rest is held, as far as strategies care.

    Attributes:
        title: For the table.
        option: The option of `peft` that stands for it.
        holds: Whether an adapter is of this kind.
    """

    title: str
    option: str
    holds: Callable[[Adapter], bool]


@dataclass(frozen=True)
class Rule:
    """What is to be said of some kinds under some strategies.

    Attributes:
        kinds: Options of `peft` that stand for the kinds.
        applies: Whether it is about a strategy.
        reason: Why it does not work, or what it costs.
        nearest: Overrides that do nearly the same and work; None where this one works.
    """

    kinds: tuple[str, ...]
    applies: Callable[[Strategy], bool]
    reason: str
    nearest: str | None = None

    @property
    def refuses(self) -> bool:
        """Whether it does not work."""
        return self.nearest is not None


def _bits(adapter: Adapter) -> int | None:
    return None if adapter.quantization is None else adapter.quantization.bits


KINDS = (
    Kind("all weights", "none", lambda adapter: not adapter.freezes_base),
    Kind(
        "adapters",
        "lora",
        lambda adapter: adapter.freezes_base and not adapter.reads_weights and _bits(adapter) is None,
    ),
    Kind(
        "adapters made from the weights",
        "dora",
        lambda adapter: adapter.freezes_base and adapter.reads_weights and _bits(adapter) is None,
    ),
    Kind("adapters on 4 bit", "qlora", lambda adapter: _bits(adapter) == 4 and not adapter.reads_weights),
    Kind(
        "adapters made from 4-bit weights",
        "qdora",
        lambda adapter: _bits(adapter) == 4 and adapter.reads_weights,
    ),
    Kind("adapters on 8 bit", "qlora8", lambda adapter: _bits(adapter) == 8),
)
"""Every adapter is of exactly one of them."""

RULES = (
    Rule(
        ("lora", "dora", "qlora", "qdora"),
        lambda strategy: isinstance(strategy, TensorParallel),
        "tensor parallel divides the matrices, which adapters would have to follow",
        nearest="peft=none, or distributed=fsdp",
    ),
    Rule(
        ("qlora8",),
        lambda strategy: isinstance(strategy, TensorParallel),
        "tensor parallel divides the matrices, which 8-bit weights cannot be",
        nearest="peft=none, or distributed=zero2",
    ),
    Rule(
        ("qlora8",),
        lambda strategy: strategy.sharding.weights,
        "8-bit weights cannot be divided over the ranks, as their scales would not follow them",
        nearest="peft=qlora, or distributed=zero2",
    ),
    Rule(
        ("qdora",),
        lambda strategy: isinstance(strategy, Zero) and strategy.sharding.weights,
        "DeepSpeed loses sight of 4-bit weights whose rows peft measures",
        nearest="peft=qlora, or distributed=fsdp",
    ),
    Rule(
        ("dora", "qdora"),
        lambda strategy: strategy.sharding.weights,
        "every rank loads the whole model before it is divided",
    ),
)
"""The first that is about both an adapter and a strategy counts; whatever none is about works."""


def kind_of(adapter: Adapter) -> Kind:
    """The one kind that an adapter is of."""
    (kind,) = (kind for kind in KINDS if kind.holds(adapter))
    return kind


def rule_for(strategy: Strategy, adapter: Adapter) -> Rule | None:
    """What is to be said of an adapter under a strategy; None where there is nothing."""
    option = kind_of(adapter).option
    return next((rule for rule in RULES if option in rule.kinds and rule.applies(strategy)), None)


def check_combination(strategy: Strategy, adapter: Adapter) -> None:
    """Refuses what cannot work, before anything is loaded.

    Raises:
        ConfigError: It cannot, or a library is missing. The message says why, and what is nearest to it.
    """
    if isinstance(strategy, Zero) and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "distributed",
            'DeepSpeed is not installed: pip install "mftrun[deepspeed]", or use distributed=fsdp',
        )
    if isinstance(strategy, Zero):
        strategy.check_options()
        if strategy.sharding.weights:
            _check_head(adapter)
    if isinstance(strategy, Fsdp) and _shares_weights(adapter):
        raise ConfigError(
            "peft", "fsdp divides layer by layer, and these adapters share weights; use distributed=zero2"
        )
    rule = rule_for(strategy, adapter)
    if rule is not None and rule.refuses:
        raise ConfigError("peft", f"{rule.reason}; use {rule.nearest}")


def _shares_weights(adapter: Adapter) -> bool:
    """Whether layers take what they train from one bank (VB-LoRA)."""
    return str(getattr(getattr(adapter, "config", None), "peft_type", "")).endswith("VBLORA")


def _check_head(adapter: Adapter) -> None:
    """The engine's own check at stage 3, before loading, for heads that are named as they mostly are."""
    for key in ("target_modules", "modules_to_save"):
        named = getattr(adapter, key, None) or ()
        for name in {"lm_head", "embed_out"}.intersection(() if isinstance(named, str) else named):
            raise ConfigError(
                f"peft.{key}",
                f"{name}: zero3 cannot share out an output head with an adapter; use distributed=fsdp",
            )


def check_dtype(strategy: Strategy, source: ModelSource) -> None:
    """Refuses a dtype of the weights that a strategy would not keep.

    Raises:
        ConfigError: DeepSpeed holds weights in the dtype of the run's precision.
    """
    if isinstance(strategy, Zero) and getattr(source, "dtype", "auto") != "auto":
        raise ConfigError(
            "model.dtype",
            "DeepSpeed holds weights in the dtype of train.precision; use model.dtype=auto, or "
            "distributed=fsdp",
        )


def check_objective(strategy: Strategy, objective: Objective) -> None:
    """Refuses an objective that looks at what no rank has whole.

    Raises:
        ConfigError: It measures gradients of layers whose inputs are divided.
    """
    if objective.needs_gradient_norms and not strategy.divides_data:
        raise ConfigError(
            "loss.weighting", "gradnorm cannot measure layers that tp has divided; use distributed=fsdp"
        )


def options() -> dict[str, Strategy]:
    """The strategies by their options, as the table lists them."""
    from mftrun.distributed import Ddp, Fsdp, Single

    return {
        "single": Single(),
        "ddp": Ddp(),
        "fsdp": Fsdp(),
        "zero1": Zero(stage=1),
        "zero2": Zero(stage=2),
        "zero3": Zero(stage=3),
        "zero2_offload": Zero(stage=2, offload_optimizer=True),
        "zero3_offload": Zero(stage=3, offload_optimizer=True, offload_weights=True),
        "tp": TensorParallel(),
    }


def examples() -> dict[str, Adapter]:
    """An adapter of each kind, by the option of `peft` that stands for it."""
    from mftrun.models.adapters import FullFineTuning, Lora
    from mftrun.models.quantization import EightBit, FourBit

    return {
        "none": FullFineTuning(),
        "lora": Lora(),
        "dora": Lora(use_dora=True),
        "qlora": Lora(quantization=FourBit()),
        "qdora": Lora(quantization=FourBit(), use_dora=True),
        "qlora8": Lora(quantization=EightBit()),
    }


def table() -> str:
    """The list as a table in Markdown: a row for each strategy, a column for each kind, and notes below."""
    adapters = examples()
    head = [f"{kind.title} (`{kind.option}`)" for kind in KINDS]
    rows = [["`distributed=`", *head], ["---"] * (len(KINDS) + 1)]
    for name, strategy in options().items():
        rows.append([f"`{name}`", *(_cell(rule_for(strategy, adapters[kind.option])) for kind in KINDS)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"{number}. {_note(rule)}" for number, rule in enumerate(RULES, start=1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cell(rule: Rule | None) -> str:
    if rule is None:
        return "yes"
    return f"{'no' if rule.refuses else 'yes'} ({RULES.index(rule) + 1})"


def _note(rule: Rule) -> str:
    reason = rule.reason[0].upper() + rule.reason[1:]
    return f"{reason}. Nearest: {rule.nearest}." if rule.refuses else f"{reason}."


if __name__ == "__main__":
    print(table(), end="")
