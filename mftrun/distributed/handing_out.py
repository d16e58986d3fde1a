"""A model that the first rank alone has read, handed out slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mftrun.distributed.ranks import Ranks
    from mftrun.models.with_nll import ModelWithNll


@dataclass(frozen=True)
class Source:
    """The numbers of a model before it is sharded.

    Args:
        ranks: Those that share it.
        is_wanted: Whether some rank lacks them.
        state: Parameters and saved buffers by name, on the first rank.
        buffers: Other buffers by name, on the first rank.
    """

    ranks: Ranks
    is_wanted: bool
    state: dict[str, Any]
    buffers: dict[str, Tensor]

    @classmethod
    def of(cls, model: ModelWithNll, ranks: Ranks) -> Source:
        """Takes the numbers of the first rank aside, and leaves no model any, where some rank has none.

        A collective call.
        """
        empty = any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        if not any(ranks.gather(empty)):
            return cls(ranks, False, {}, {})
        _cast(model, ranks.gather(_dtypes(model))[0])
        saved = dict(model.state_dict())
        buffers = {name: buffer for name, buffer in model.named_buffers() if name not in saved}
        shared = _shared(model)
        model.to("meta")
        _tie(model, shared)
        return cls(ranks, True, saved if ranks.is_main else {}, buffers)

    def hand_out(self, model: ModelWithNll, *, on_host: bool) -> None:
        """Gives every rank its slices. A collective call.

        Args:
            model: The sharded model, without numbers.
            on_host: Whether slices lie in the host's memory.
        """
        if not self.is_wanted:
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        shared = _shared(model)
        model.to_empty(device="cpu" if on_host else self.ranks.device)
        _tie(model, shared)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=on_host)
        set_model_state_dict(model, self.state, options=options)
        self._send_buffers(model)

    def _send_buffers(self, model: nn.Module) -> None:
        """Rotary frequencies and the like, which are computed when a model is made."""
        from torch import distributed

        for name, buffer in self.buffers.items():
            sent = buffer if self.ranks.is_main else torch.empty_like(buffer, device=self.ranks.device)
            sent = sent.to(self.ranks.device)
            distributed.broadcast(sent, src=0)
            owner, _, own = name.rpartition(".")
            model.get_submodule(owner).register_buffer(own, sent, persistent=False)


def _dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.dtype for name, tensor in named}


def _cast(model: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Some families keep weights in float32 as they are read, which one without numbers does not."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.dtype != dtypes[name]:
            tensor.data = tensor.data.to(dtypes[name])


def _shared(model: nn.Module) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(model: nn.Module, shared: list[list[str]]) -> None:
    """Moving parameters to another device makes several of a shared one.

    Those are joined again that were one, and no others: an embedding that is trained in full beside adapters
    is not the head's any more, whatever the model's configuration says.
    """
    for first, *others in shared:
        for name in others:
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, model.get_parameter(first))
