"""What ranks do in the tests of the probe; and the losses of each sample alone, to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from memory_samples import MemorySamples
from worlds import ROWS, TASKS, engine_of, llama, make_samples

from mftrun.data.draws import Draws
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.probe import Probe

WEIGHTS = (1.0, 0.25, 3.0)
BUDGET = 30
LONGEST = 32  # tokens of a row


@dataclass(frozen=True)
class Rank:
    """The part of the ranks that measuring needs."""

    index: int = 0
    count: int = 1

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a rank without others."""
        assert self.count == 1
        return tensor

    def any(self, own: bool) -> bool:
        assert self.count == 1
        return own


def samples() -> MemorySamples:
    return make_samples(WEIGHTS)


def draws() -> Draws:
    return Draws(samples(), BUDGET, seed=5)


def probe(rows: str, micro_batch_size: int, ranks: Any = None, longest: int = LONGEST) -> Probe:
    return Probe(ranks or Rank(), samples(), draws(), ROWS[rows], longest, micro_batch_size, pad_id=0)


def model(dropout: float = 0.0) -> ModelWithNll:
    causal_lm = llama()
    causal_lm.config.attention_dropout = dropout
    for layer in causal_lm.model.layers:
        layer.self_attn.attention_dropout = dropout
    return ModelWithNll(causal_lm).train()


def expected(number: int) -> torch.Tensor:
    """Sums and counts of a draw, float64 [2K], from the logits of one sample at a time."""
    store, causal_lm = samples(), llama().eval()
    totals = torch.zeros(2, len(TASKS), dtype=torch.float64)
    for sample in draws().of(number).tolist():
        place = slice(store.starts[sample], store.starts[sample + 1])
        ids, weights = (torch.from_numpy(values[place]) for values in (store.tokens, store.weights))
        with torch.no_grad():
            logits = causal_lm(ids.long()[None]).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:].long(), reduction="none")
        found = (weights[1:] * nll).double().sum(), weights[1:].double().sum()
        totals[:, store.task[sample]] += torch.stack(found)
    return totals.flatten()


def probed(context: Any, numbers: list[int]) -> dict[tuple[str, int], torch.Tensor]:
    """The draws' vectors by rows and number, summed over the ranks."""
    engine = engine_of(context.world_size, model())
    found = {}
    for rows in ROWS:
        here = probe(rows, 1, engine.ranks)
        for number in numbers:
            found[rows, number] = engine.ranks.sum(here.sums(engine.model, number))
    return found
