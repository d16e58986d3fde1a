"""Norms of the tasks' gradients, measured on the way, against those of each task's loss taken alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import worlds
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from worlds import Split

from mftrun.distributed import Ddp, Ranks
from mftrun.errors import ConfigError
from mftrun.launch import run_ranks
from mftrun.losses.normalizations import TaskMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.adapters import FullFineTuning, Lora
from mftrun.models.recompute import recompute_activations
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.gradient_norms import TaskGradients
from mftrun.training.meter import Meter
from mftrun.training.step import accumulate

WEIGHTS = [1.0, 3.0, 1.0]  # of worlds.TASKS
LORA = Lora(r=4, dropout=0.0, target_modules=["q_proj", "v_proj"])
ADAPTERS = {"full": (FullFineTuning(), "layers.1.mlp.down_proj"), "lora": (LORA, "v_proj.lora_B.default")}


@dataclass(frozen=True)
class Case:
    """One global batch, how it is dealt, and what is trained."""

    adapter: str = "full"
    micro_batch_size: int = 8
    rows: str = "padding"
    recompute: bool = False
    target_weights: tuple[float, ...] = (1.0,)

    def split(self) -> Split:
        return Split("task_mean", self.micro_batch_size, self.rows, self.target_weights)

    def model(self) -> ModelWithNll:
        model = ADAPTERS[self.adapter][0].apply(worlds.llama())
        with torch.no_grad():  # adapters start with B = 0
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if self.recompute:
            recompute_activations(model)
        return ModelWithNll(model)


def stepped(ranks, case, *, measured=True):
    """Gradients of one step, and the norms measured in it."""
    engine = worlds.engine_of(ranks.count, case.model())
    objective = Objective(
        CrossEntropy(), TaskMean(), Static(dict(zip(worlds.TASKS, WEIGHTS, strict=True))), worlds.TASKS
    )
    feed = worlds.feed_of(case.split(), ranks.index, ranks.count)
    ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
    agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64))
    gradients = TaskGradients(engine.bare, len(WEIGHTS))
    if measured:
        gradients.begin()
    window, meter = feed.window(0, 0), Meter(ranks, worlds.TASKS)
    accumulate(engine, objective, window, agreement, meter, gradients=gradients if measured else None)
    present = torch.tensor(agreement.targets) > 0
    norms = gradients.norms(ranks, sum(WEIGHTS), present) if measured else None
    gradients.end()
    return {name: p.grad for name, p in engine.bare.named_parameters() if p.grad is not None}, norms


def norms_of_ranks(context, case):
    """What each rank measured, float64 [ranks, K]."""
    ranks = Ddp(num_processes=context.world_size).join("fp32")
    _, norms = stepped(ranks, case)
    return torch.stack(ranks.gather(norms))


def expected(case) -> torch.Tensor:
    """Norm of the gradient of w_k L_k, by a backward pass for each task, of all rows unpacked at once."""
    whole = replace(case, micro_batch_size=8, rows="padding", recompute=False)
    model = whole.model()
    (batch,) = worlds.feed_of(whole.split(), 0, 1).window(0, 0)
    nll = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids).nll
    (weight,) = (
        p
        for name, p in model.named_parameters()
        if name.endswith(f"{ADAPTERS[case.adapter][1]}.weight") and in_last(name)
    )
    norms = []
    for task, task_weight in enumerate(WEIGHTS):
        mine = batch.target_weights * (batch.task_ids == task)
        loss = task_weight * (mine * nll).sum() / mine.sum()
        norms.append(torch.autograd.grad(loss, weight, retain_graph=True)[0].double().norm())
    return torch.stack(norms)


def in_last(name: str) -> bool:
    return "layers.1." in name


def assert_close(found, wanted):
    assert (found.dtype, found.device.type) == (torch.float64, "cpu")
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=0)


@pytest.fixture(scope="module")
def ranks():
    return Ddp(num_processes=1).join("fp32")


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("size", "rows"), [(8, "padding"), (3, "padding"), (1, "packing"), (1, "padding_free")]
)
def test_norms_are_those_of_each_task_alone(ranks, adapter, recompute, size, rows):
    case = Case(adapter, size, rows, recompute)
    assert_close(stepped(ranks, case)[1], expected(case))


def test_tokens_count_by_their_weights(ranks):
    case = Case("lora", 2, "packing", target_weights=(1.0, 0.25, 3.0))
    assert_close(stepped(ranks, case)[1], expected(case))
    assert not torch.allclose(expected(case), expected(Case("lora")), rtol=1e-3)


@pytest.mark.parametrize("case", [Case("lora", 2), Case("full", 1, "packing", recompute=True)])
def test_ranks_add_up_and_agree(case):
    """Packed, three rows are for two ranks: one has a micro-batch without anything in it."""
    split = case.split()
    lacking = [worlds.lacks_a_task(split, rank, 2) for rank in range(2)]
    assert any(lacking), "the case must include a rank without a task"
    first, second = run_ranks(norms_of_ranks, case, num_processes=2, log_file=None)
    assert torch.equal(first, second)
    assert_close(first, expected(case))


def messages_of(context, case):
    """The sizes of what ranks add up to have the norms, gradients of training aside."""
    ranks = Ddp(num_processes=context.world_size).join("fp32")
    gradients = TaskGradients(case.model(), len(WEIGHTS))
    gradients.begin()
    sizes, all_reduce = [], torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda sums, *rest, **more: (
        sizes.append(sums.numel()),
        all_reduce(sums, *rest, **more),
    )
    gradients.norms(ranks, 1.0, torch.ones(len(WEIGHTS), dtype=torch.bool))
    return sizes, gradients._sums.numel()


def test_ranks_exchange_the_gradients_alone():
    sizes, size = run_ranks(messages_of, Case("lora"), num_processes=2, log_file=None)
    assert sizes == [size]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_training_does_not_notice(ranks, adapter):
    case = Case(adapter, 3, "packing")
    plain, _ = stepped(ranks, case, measured=False)
    watched, _ = stepped(ranks, case)
    assert plain.keys() == watched.keys()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


class Measured:
    """A measurement without the loop around it."""

    def __init__(self, ranks: Ranks, model: ModelWithNll, num_tasks: int = 3) -> None:
        self.ranks, self.model = ranks, model
        self.gradients = TaskGradients(model, num_tasks)
        self.present = torch.zeros(num_tasks, dtype=torch.bool)
        self.gradients.begin()

    def nll(self, batch):
        self.gradients.attend(batch)
        self.present[batch.task_ids] = True
        return self.model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids).nll

    def norms(self):
        return self.gradients.norms(self.ranks, 1.0, self.present)


def one_row_each() -> list:
    return list(worlds.feed_of(Split("task_mean", 1), 0, 1).window(0, 0))


def of_task(batches, task: int) -> list:
    return [batch for batch in batches if bool((batch.task_ids == task).all())]


def test_absent_tasks_have_no_norm(ranks):
    measured = Measured(ranks, Case().model(), num_tasks=5)
    measured.nll(of_task(one_row_each(), 1)[0]).mean().backward()
    assert [bool(norm.isnan()) for norm in measured.norms()] == [True, False, True, True, True]


def test_a_task_that_weighs_nothing_has_norm_zero(ranks):
    measured = Measured(ranks, Case().model())
    for batch in one_row_each():
        (measured.nll(batch).mean() * (batch.task_ids[0] != 1)).backward()
    assert measured.norms()[1] == 0
    assert (measured.norms()[[0, 2]] > 0).all()


def test_a_batch_without_targets_adds_nothing(ranks):
    measured = Measured(ranks, Case("lora").model())
    batch = one_row_each()[0]
    measured.nll(batch).mean().backward()
    before = measured.norms()
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = replace(
        batch,
        input_ids=torch.zeros(1, 1, dtype=torch.int64),
        position_ids=torch.zeros(1, 1, dtype=torch.int64),
        **dict.fromkeys(("predict_from", "target_ids", "task_ids"), nothing),
    )
    measured.nll(empty).sum().backward()
    torch.testing.assert_close(measured.norms(), before, rtol=0, atol=0, equal_nan=True)


def test_segments_without_targets_are_left_out(ranks):
    """Whatever gradient they have comes from elsewhere, as that of a router loss does."""
    (batch,) = worlds.feed_of(Split("task_mean", 8, "padding_free"), 0, 1).window(0, 0)
    starts = (batch.position_ids == 0).flatten().nonzero().flatten()
    later = batch.predict_from >= starts[1]
    names = ("predict_from", "target_ids", "task_ids")
    rest = replace(batch, **{name: getattr(batch, name)[later] for name in names})
    alone, among = (Measured(ranks, Case().model()) for _ in range(2))
    alone.nll(rest).sum().backward()
    among.gradients.attend(rest)
    among.present = alone.present
    among.model(
        batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids
    ).nll.sum().backward()
    torch.testing.assert_close(among.norms(), alone.norms(), rtol=1e-5, atol=0, equal_nan=True)


def test_each_measurement_starts_at_zero(ranks):
    measured = Measured(ranks, Case().model())
    batch = one_row_each()[0]
    measured.nll(batch).mean().backward()
    first = measured.norms()
    measured.gradients.begin()
    measured.nll(batch).mean().backward()
    torch.testing.assert_close(measured.norms(), first, rtol=0, atol=0, equal_nan=True)


def test_passes_without_gradient_do_not_count(ranks):
    measured = Measured(ranks, Case("lora").model())
    batch = one_row_each()[0]
    with torch.no_grad():
        measured.nll(batch)
    measured.nll(batch).mean().backward()
    once = Measured(ranks, Case("lora").model())
    once.nll(batch).mean().backward()
    torch.testing.assert_close(measured.norms(), once.norms(), rtol=0, atol=0, equal_nan=True)


def test_nothing_stays_behind(ranks):
    model = Case("lora").model()
    measured = Measured(ranks, model)
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1
    measured.gradients.begin()
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1
    for _ in range(2):
        measured.gradients.end()
        assert not any(module._forward_hooks for module in model.modules())
    assert measured.gradients._sums.numel() == 0


def test_bf16_is_summed_in_float32(ranks):
    case = Case("full")
    measured, exact = Measured(ranks, case.model()), Measured(ranks, case.model())
    for batch in one_row_each():
        with torch.autocast("cpu", torch.bfloat16):
            nll = measured.nll(batch)
        nll.mean().backward()
        exact.nll(batch).mean().backward()
    assert measured.gradients._sums.dtype == torch.float32
    torch.testing.assert_close(measured.norms(), exact.norms(), rtol=0.03, atol=0)


FAMILIES = {
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 2}, "h.1.mlp.c_proj"),
    "mixtral": ({"num_local_experts": 4}, "layers.1.self_attn.o_proj"),
    "qwen2_moe": (
        {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24},
        "layers.1.mlp.shared_expert.down_proj",
    ),
}
SMALL = {
    "vocab_size": worlds.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_of_other_families(ranks, family, caplog):
    settings, path = FAMILIES[family]
    torch.manual_seed(0)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**({} if family == "gpt2" else SMALL), **settings, **tokens})
    config.vocab_size = worlds.VOCABULARY
    bare = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model = ModelWithNll(bare)
    with caplog.at_level("INFO", logger="mftrun.training.gradient_norms"):
        measured = Measured(ranks, model)
    assert f" {path};" in caplog.text
    (batch,) = of_task(one_row_each(), 2)
    measured.nll(batch).mean().backward()
    weight = bare.get_decoder().get_submodule(path).weight
    torch.testing.assert_close(measured.norms()[2], weight.grad.double().norm(), rtol=1e-5, atol=0)


def test_layer_of_the_last_adapter(caplog):
    with caplog.at_level("INFO", logger="mftrun.training.gradient_norms"):
        TaskGradients(Case("lora").model(), 3)
    assert "layers.1.self_attn.v_proj.lora_B.default; they take" in caplog.text


def test_decoder_without_a_trainable_layer():
    model = ModelWithNll(worlds.llama().requires_grad_(False))
    with pytest.raises(ConfigError, match="trainable linear layer") as caught:
        TaskGradients(model, 3)
    assert caught.value.key == "loss.weighting"


def test_layer_that_sees_other_tokens(ranks):
    class Halved(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            kept = hidden[:, ::2]
            return torch.cat(
                [self.inner(kept), torch.zeros_like(hidden[:, : hidden.shape[1] - kept.shape[1]])], 1
            )

    llama = worlds.llama()
    llama.model.layers[1].mlp = Halved(llama.model.layers[1].mlp)
    measured = Measured(ranks, ModelWithNll(llama))
    with pytest.raises(ConfigError, match="sees every token once"):
        measured.nll(one_row_each()[0])
