"""What an outer launcher has put into the environment, and what of it a rank may not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables from which a process group is made."""

# Other libraries take these for the same, or for what they shall do: our configuration decides.
_NAMES = frozenset(
    {
        *GROUP,
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        *("CROSS_RANK", "CROSS_SIZE", "LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
        *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"),
    }
)
_PREFIXES = (
    *("TORCHELASTIC_", "ACCELERATE_USE_", "ACCELERATE_DYNAMO_", "ACCELERATE_DEEPSPEED_", "ACCELERATE_FP8_"),
    *("FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_"),
)

_TRUE = ("1", "true", "yes", "on")
_FEATURES = {
    "ACCELERATE_USE_FSDP": "FSDP: use distributed=fsdp",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed: use distributed=zero1, zero2 or zero3",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which is not supported",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config: see the options of distributed",
}
_CHOICES = {
    "ACCELERATE_MIXED_PRECISION": ("no", "use train.precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "which is not supported"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        "1",
        "use train.global_batch_size and train.micro_batch_size",
    ),
}


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the words of any launcher."""
    return {name: value for name, value in environment.items() if not _is_a_launchers(name)}


def unheard_wishes(environment: Mapping[str, str]) -> Iterator[str]:
    """What `accelerate launch` was asked for and mftrun does not do, each with the way to have it."""
    for name, wish in _FEATURES.items():
        if environment.get(name, "").lower() in _TRUE:
            yield f"accelerate launch asks for {wish}"
    for name, (usual, instead) in _CHOICES.items():
        value = environment.get(name, usual)
        if value.lower() != usual:
            yield f"accelerate launch asks for {name}={value}: {instead}"
    if "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment and "RANK" not in environment:
        yield (
            "accelerate launch --cpu asks for several processes and has started one: use "
            "distributed.num_processes"
        )


def _is_a_launchers(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES)
