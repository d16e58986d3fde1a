"""How a run is spread over GPUs."""

from __future__ import annotations

from types import MappingProxyType

from mftrun.mftcoder.dialects import ATORCH
from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import MISSING, Values

_STRATEGIES = MappingProxyType({"deepspeed": "zero2", "fsdp": "fsdp"})


def translate_launching(values: Values, out: Translation) -> None:
    """`distributed`, which changes memory and speed, and no result.

    Raises:
        ConfigError: MFTCoder had no such strategy.
    """
    if values.dialect is ATORCH:
        out.choose("distributed", "atorch")
        return
    kind = values.text("distributed_type")
    if kind is None or kind.value == MISSING:
        out.drop(kind, "it stands for a strategy: distributed=zero2 or fsdp")
        out.note(
            "DeepSpeed or FSDP was chosen when MFTCoder was launched; here distributed=zero2, zero3, fsdp or "
            "auto change memory and speed, and no result"
        )
    elif (option := _STRATEGIES.get(kind.value.lower())) is None:
        raise values.refused(kind, f"must be one of {', '.join(_STRATEGIES)}")
    else:
        out.choose("distributed", option, kind)
