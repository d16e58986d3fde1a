"""The legacy architectures, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mftrun.conversion.aquila import AQUILA
from mftrun.conversion.baichuan import BAICHUAN
from mftrun.conversion.chatglm import CHATGLM
from mftrun.conversion.internlm2 import INTERNLM2
from mftrun.conversion.legacy import Legacy
from mftrun.conversion.qwen import QWEN

FAMILIES: Mapping[str, Legacy] = MappingProxyType(
    {"aquila": AQUILA, "baichuan": BAICHUAN, "chatglm": CHATGLM, "internlm2": INTERNLM2, "qwen": QWEN}
)

LEGACY_TYPES = frozenset(FAMILIES)
"""Values of `model_type` that can be converted."""


def native_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The native config.json of a legacy one, without reading any weights.

    Args:
        config: Contents of a checkpoint's config.json.

    Returns:
        The config of the class that computes the same, with the legacy `model_type` as `converted_from`; None
        if this is no legacy checkpoint.

    Raises:
        ConfigError: It is one that no native class equals.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    native = family.config(config)
    if (dtype := config.get("torch_dtype", config.get("dtype"))) is not None:
        native["dtype"] = dtype
    return native | {"converted_from": config["model_type"], "use_cache": config.get("use_cache", True)}
