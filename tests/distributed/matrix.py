"""Whole runs under every strategy on one small pretrained model, and what plain libraries make of them."""

import json

from runs import train

from mftrun.tracking import jsonl

STEPS, SAVED = 4, 2
# What shows whether a step is the same step: a changing rate, a decay that counts, clipped norms.
COMMON = [
    "tracker=none",
    "model=llama",
    "data.max_length=96",
    "train.global_batch_size=4",
    f"train.max_steps={STEPS}",
    "train.log_every=1",
    "train.max_grad_norm=0.2",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=1.0",
    "evaluation.every=null",
    "evaluation.batch_size=4",
    f"checkpoint.every_steps={SAVED}",
    "checkpoint.keep_last=9",
]
ONE = ["distributed=single", "train.micro_batch_size=4"]
TWO = ["distributed.num_processes=2", "train.micro_batch_size=1"]
SMALL_ADAPTER = ["peft.r=4", "peft.dropout=0"]
ADAPTERS = {
    "none": ["peft=none"],
    **{
        name: [f"peft={name}", *SMALL_ADAPTER]
        for name in ("lora", "dora", "pissa", "qlora", "qdora", "qlora8")
    },
}


def under(strategy):
    """Overrides for two ranks under a strategy, or one."""
    if strategy == "single":
        return ONE
    # A model this small would stay whole on every rank.
    divided = ["distributed.persistence_threshold=0"] if strategy.startswith("zero3") else []
    return [f"distributed={strategy}", *TWO, *divided]


class World:
    """A pretrained model and tasks on disk, and the runs that others are compared with.

    Args:
        folder: Where they go.
        base: Folder of the model.
        tasks: Folder of the tasks.
    """

    def __init__(self, folder, base, tasks):
        self._folder, self.base, self._tasks = folder, base, tasks
        self._references = {}

    def run(self, folder, *overrides):
        """A whole run; its folder."""
        paths = ",".join(str(path) for path in sorted(self._tasks.iterdir()))
        train(folder, *COMMON, f"model.path={self.base}", f"data.paths=[{paths}]", *overrides)
        return folder

    def reference(self, *overrides):
        """The same run in one process, in one micro-batch."""
        key = "+".join(overrides)
        if key not in self._references:
            folder = self._folder / f"reference-{len(self._references)}"
            self._references[key] = self.run(folder, *ONE, *overrides)
        return self._references[key]


def checkpoint(run, step=STEPS):
    return run / "checkpoints" / f"step-{step:08d}"


def curves(run, first=1):
    """What each step from `first` on was: loss, norm and rate; and the validation losses at the end."""
    steps, valid = {}, {}
    for record in jsonl.read(run / "metrics.jsonl"):
        if "train/loss" in record and record["step"] >= first:
            names = [name for name in record if name.startswith(("train/loss", "weight/"))]
            steps[record["step"]] = {name: record[name] for name in (*names, "grad_norm", "lr")}
        if "valid/loss" in record and record["step"] == STEPS:
            valid = {name: record[name] for name in record if name.startswith("valid/")}
    assert list(steps) == list(range(first, STEPS + 1))
    assert valid
    return {f"{step}/{name}": value for step, row in steps.items() for name, value in row.items()} | valid


def plain_model(run, adapter):
    """What a run has saved, in evaluation mode, loaded with nothing of ours but how bits become numbers."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    from mftrun.models.quantization import FourBit, keep_differentiable

    if adapter == "none":
        return AutoModelForCausalLM.from_pretrained(run / "model").eval()
    packed = {"quantization_config": FourBit().config()} if adapter.startswith("q") else {}
    model = AutoPeftModelForCausalLM.from_pretrained(run / "model", **packed)
    keep_differentiable(model)  # the kernel for inference rounds otherwise
    return model.eval()


def saved_adapter(run):
    """The base that an adapter names."""
    return json.loads((run / "model" / "adapter_config.json").read_text())["base_model_name_or_path"]
