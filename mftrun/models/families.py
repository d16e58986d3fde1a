"""The families of models there are options for: one list for refusals, the documentation and the tests.

``python -m mftrun.models.families`` prints it as the tables of docs/models.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

ATTENTION = ("flash_attention_3", "flash_attention_2", "flex", "sdpa", "eager")
"""Implementations of attention, as `model.attention` names them."""

_FLASH = ("flash_attention_3", "flash_attention_2")
_ON_CPU = ("sdpa", "eager")


@dataclass(frozen=True)
class Family:
    """One option of `model` and what is known of the models it is for.

    Attributes:
        option: Name of the option.
        model_types: The native architectures it is for, as config.json names them; tests make the first.
        native_class: The class of transformers for the first of them.
        lacks: Implementations of attention that the class does not have.
        leaks: Implementations under which packed samples would see each other.
        experts: Whether it is a mixture of experts.
        adapters: Options of `peft` that work besides full fine-tuning.
        converted: What `config.json` of an unconverted checkpoint names as its architecture, for families
            that transformers has no class for; None where the checkpoints are native.
        note: What else a user should know, for the table.
    """

    option: str
    model_types: tuple[str, ...]
    native_class: str
    lacks: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    experts: bool = False
    adapters: tuple[str, ...] = ("lora", "qlora")
    converted: str | None = None
    note: str | None = None

    @property
    def accepted(self) -> tuple[str, ...]:
        """What `model_types` of the option names: the unconverted architecture, then the native ones."""
        return self.model_types if self.converted is None else (self.converted, *self.model_types)

    @property
    def attention(self) -> tuple[str, ...]:
        """Implementations that the class has."""
        return tuple(name for name in ATTENTION if name not in self.lacks)

    @property
    def isolated(self) -> tuple[str, ...]:
        """Implementations that were seen, on a CPU, to keep packed samples apart; the fastest first."""
        return tuple(name for name in _ON_CPU if name not in (*self.lacks, *self.leaks))


def _native(option: str, model_type: str, native_class: str, **known: object) -> Family:
    return Family(option, (model_type,), native_class, **known)  # type: ignore[arg-type]


def _legacy(option: str, legacy: str, model_type: str, native_class: str, note: str | None = None) -> Family:
    return Family(option, (model_type,), native_class, converted=legacy, note=note)


def _families() -> Iterator[Family]:
    llama = ("llama", "LlamaForCausalLM")
    glm = ("glm", "GlmForCausalLM")
    yield _native("llama", *llama)
    yield _native("code_llama", *llama)
    yield _native("deepseek", *llama)
    yield _native("deepseek_v2", "deepseek_v2", "DeepseekV2ForCausalLM", experts=True)
    yield _native(
        "deepseek_v3",
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        experts=True,
        note="DeepSeek's own files are in 8 bit; the option's are the same weights in 16 bit",
    )
    yield _native("mistral", "mistral", "MistralForCausalLM")
    yield _native("mixtral", "mixtral", "MixtralForCausalLM", experts=True)
    yield _native("gpt_neox", "gpt_neox", "GPTNeoXForCausalLM")
    yield _native(
        "starcoder",
        "gpt_bigcode",
        "GPTBigCodeForCausalLM",
        lacks=("flex",),
        leaks=_FLASH,
        note="flash attention is not told where packed samples begin: `rows=padding` with it",
    )
    yield _native("starcoder2", "starcoder2", "Starcoder2ForCausalLM")
    yield _legacy("qwen", "qwen", "qwen2", "Qwen2ForCausalLM")
    yield _native("qwen2", "qwen2", "Qwen2ForCausalLM")
    yield _native("qwen2_moe", "qwen2_moe", "Qwen2MoeForCausalLM", experts=True)
    yield _native("qwen3", "qwen3", "Qwen3ForCausalLM")
    yield _native("qwen3_moe", "qwen3_moe", "Qwen3MoeForCausalLM", experts=True)
    yield _native("gemma", "gemma", "GemmaForCausalLM")
    yield _native("gemma2", "gemma2", "Gemma2ForCausalLM", lacks=("sdpa",))
    yield Family(
        "gemma3",
        ("gemma3_text", "gemma3"),
        "Gemma3ForCausalLM",
        note="of checkpoints that also read images, the text part is trained",
    )
    yield _native("phi", "phi", "PhiForCausalLM")
    yield _native("phi3", "phi3", "Phi3ForCausalLM")
    yield _legacy("baichuan2", "baichuan", *llama, note="the 7B model; that of 13B has no native class")
    yield _legacy("chatglm2", "chatglm", *glm)
    yield _legacy("chatglm3", "chatglm", *glm)
    yield _legacy("codegeex2", "chatglm", *glm)
    yield _legacy("aquila2", "aquila", *llama)
    yield Family("glm4", ("glm4", "glm"), "Glm4ForCausalLM")
    yield _legacy("internlm2", "internlm2", *llama)
    yield _native("granite", "granite", "GraniteForCausalLM")
    yield _native("olmo2", "olmo2", "Olmo2ForCausalLM")


FAMILIES: Mapping[str, Family] = MappingProxyType({family.option: family for family in _families()})
"""By the option of `model`. ``auto`` takes every other architecture; ``tiny`` is a llama of our own."""

LEGACY_TYPES = frozenset(family.converted for family in FAMILIES.values() if family.converted is not None)
"""Architectures that transformers has no class for, and that job=convert turns into native ones."""


def families_of(model_type: str, converted_from: str | None = None) -> tuple[Family, ...]:
    """The families whose option takes a checkpoint.

    Args:
        model_type: As its config.json says.
        converted_from: The architecture it was converted from, if it was.

    Returns:
        Those that it is native to, or those that it was converted from; none where only ``auto`` takes it.
    """
    legacy = converted_from if model_type not in LEGACY_TYPES else model_type
    return tuple(
        family for family in FAMILIES.values() if family.converted == legacy and model_type in family.accepted
    )


def lacks(model_type: str, attention: str) -> tuple[str, ...]:
    """What is to be used instead of an attention that an architecture does not have.

    Returns:
        Implementations that it has; nothing where it has this one, or where that is not known.
    """
    found = _known(model_type)
    return found.attention if found is not None and attention in found.lacks else ()


def leaks(model_type: str, attention: str) -> bool | None:
    """Whether packed samples would see each other; None where the architecture is not known."""
    found = _known(model_type)
    return None if found is None else attention in found.leaks


def _known(model_type: str) -> Family | None:
    return next((family for family in FAMILIES.values() if model_type in family.model_types), None)


def table() -> str:
    """The list as a table in Markdown, with notes below."""
    notes = [family.note for family in FAMILIES.values() if family.note is not None]
    head = ["`model=`", "class", "full", "LoRA", "QLoRA", "packing on a CPU", "flash attention", "conversion"]
    rows = [head, ["---"] * len(head), *(_row(family, notes) for family in FAMILIES.values())]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numbered = [f"{number}. {note[0].upper()}{note[1:]}." for number, note in enumerate(notes, start=1)]
    return "\n".join([*lines, "", *numbered]) + "\n"


def _row(family: Family, notes: list[str]) -> list[str]:
    mark = "" if family.note is None else f" ({notes.index(family.note) + 1})"
    return [
        f"`{family.option}`{mark}",
        family.native_class + (", experts" if family.experts else ""),
        "yes",
        *("yes" if option in family.adapters else "no" for option in ("lora", "qlora")),
        ", ".join(family.isolated),
        _flash(family),
        "native" if family.converted is None else f"from `{family.converted}`",
    ]


def _flash(family: Family) -> str:
    if any(name in family.lacks for name in _FLASH):
        return "no"
    return "padded rows" if any(name in family.leaks for name in _FLASH) else "packed rows"


if __name__ == "__main__":
    print(table(), end="")
