"""A tiny model in training that answers questions, under a strategy, and the step that it makes next."""

import json
from dataclasses import replace

import torch
from transformers import AutoTokenizer

from mftrun.benchmarks.base import Problem, Prompt
from mftrun.distributed import leave_group, support
from mftrun.examining.answering import LiveModel
from mftrun.generation.sampling import Sampling
from mftrun.models.adapters import FullFineTuning
from mftrun.models.pretrained import Pretrained
from mftrun.models.with_nll import ModelWithNll
from mftrun.solving.questions import questions
from mftrun.solving.styles import STYLES
from mftrun.training import snapshot
from mftrun.training.optimizers import AdamW

WORDS = (2, 9, 5, 200, 1, 7, 3)  # the fourth question leaves no room for an answer


class Sums:
    name, stop = "sums", ("\nclass",)

    def prompt(self, problem):
        return Prompt("add " * problem.fields["words"], "def f(a, b):")


def answered(context, task):
    """Answers, whether they have left a trace, whether a stop ends them, and the norm of the next step."""
    engine, strategy = _engine(context, task)
    ranks, report = engine.ranks, {}
    if task["answers"]:
        bound = STYLES["instruct"].bind(AutoTokenizer.from_pretrained(task["folder"]), None)
        problems = [Problem(str(number), {"words": words}) for number, words in enumerate(WORDS)]
        model = LiveModel(
            engine, bound, Sampling(max_new_tokens=6, temperature=0.0), 2, strategy.sharding.weights
        )
        asked = questions(bound, Sums(), problems, 1)
        before = _traces(engine)
        modes = []
        hook = engine.bare.model.register_forward_hook(lambda module, *_: modes.append(_disturbed(module)))
        found = model.answers(Sums.stop, asked, context.stop)
        hook.remove()
        report["quiet"] = ranks.gather(not any(modes))
        report["forwards"] = ranks.gather(len(modes))
        report["answers"] = ranks.gather({key.problem: text for key, text in found.items()})
        report["same"] = ranks.gather(_equal(before, _traces(engine)))
        context.stop.stop_requested = context.rank == context.world_size - 1
        report["stopped"] = ranks.gather(model.answers(Sums.stop, asked, context.stop) is None)
    report["norm"] = _step(engine)
    leave_group()
    return json.dumps(report)


def _engine(context, task):
    strategy = support.options()[task["strategy"]]
    if task["strategy"] == "zero3":
        strategy = replace(strategy, persistence_threshold=0)  # a model this small would stay whole
    if task["strategy"] != "single":
        strategy = replace(strategy, num_processes=context.world_size)
    ranks = strategy.join("fp32")
    tokenizer = AutoTokenizer.from_pretrained(task["folder"])
    model = strategy.load(Pretrained(task["folder"]), tokenizer, torch.float32, ranks)
    model = ModelWithNll(FullFineTuning().apply(model, adapter_dtype=strategy.adapter_dtype("fp32")))
    engine = strategy.engine(ranks, model, AdamW(lr=1e-2), precision="fp32", max_grad_norm=None)
    engine.model.train()
    return engine, strategy


def _disturbed(module):
    torch.rand(1)  # as a family might, whose generators must not be missed
    return module.training


def _traces(engine):
    """Copies of what generation must leave as it is."""
    numbers = [value.to_local() if hasattr(value, "to_local") else value for value in engine.state().values()]
    numbers = [value.detach().clone() for value in numbers if isinstance(value, torch.Tensor)]
    modes = [module.training for module in engine.bare.modules()]
    return [*numbers, snapshot.random_state()["torch"]], modes, engine.bare.model.generation_config.to_dict()


def _equal(one, other):
    same = all(torch.equal(left, right) for left, right in zip(one[0], other[0], strict=True))
    return same and one[1:] == other[1:]


def _step(engine):
    ids = torch.arange(3, 23, device=engine.ranks.device)[None]
    places = torch.arange(20, device=engine.ranks.device)
    with engine.micro_step(is_last=True):
        output = engine.model(ids, places[None], places[:-1], ids[0, 1:])
        engine.backward(output.nll.sum() / engine.ranks.count)
    return engine.step(1e-2)
