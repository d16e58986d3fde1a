"""What a run does, seen from outside: its records, its checkpoints, its final model, its ways to end."""

import json
import shutil
import signal

import pytest
import torch
from runs import checkpoint_tensors, overrides_for, plain_losses, train
from safetensors.torch import load_file

from mftrun.data.table import SampleTable
from mftrun.errors import ConfigError
from mftrun.launch import RankFailed
from mftrun.tracking import jsonl
from mftrun.training.diagnose import NonFiniteError

TASKS = ["backward", "forward", "sideways"]


def bomb(kind, **settings):
    values = ",".join(f"{key}:{value}" for key, value in settings.items())
    return ["allowed_targets=[bombs]", f"+tracker.bomb={{_target_:bombs.{kind},{values}}}"]


def checkpoints(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def short(tasks_dir, tmp_path_factory):
    """A finished run of a few steps, every one of them logged."""
    run = tmp_path_factory.mktemp("short")
    steps = ["train.max_steps=6", "train.log_every=1", "evaluation.every=3", "rows=padding"]
    metric = train(run, *overrides_for(tasks_dir, *steps, "train.global_batch_size=3"))
    return run, metric


def records(run, key):
    return [record for record in jsonl.read(run / "metrics.jsonl") if key in record]


def test_losses_fall_and_the_metric_is_the_best_validation_loss(short):
    run, metric = short
    losses = [record["valid/loss"] for record in records(run, "valid/loss")]
    assert [record["step"] for record in records(run, "valid/loss")] == [0, 3, 6]
    assert losses[-1] < losses[0]
    assert metric == min(losses)


def test_logged_is_what_was_optimized(short):
    """With loss=mft and equal weights the optimized loss is the mean over the tasks that are present."""
    seen = set()
    for record in records(short[0], "train/loss"):
        tasks = {name: record[f"train/loss/{name}"] for name in TASKS if f"train/loss/{name}" in record}
        assert record["train/loss"] == pytest.approx(sum(tasks.values()) / len(tasks), rel=1e-6)
        seen.add(len(tasks))
    assert min(seen) < 3, "some step must lack a task"
    assert all(value is not None for record in records(short[0], "step") for value in record.values())


def test_validation_losses_are_those_of_the_saved_model(short):
    from transformers import AutoModelForCausalLM

    run, _ = short
    model = AutoModelForCausalLM.from_pretrained(run / "model").eval()
    losses = plain_losses(model, run)
    last = records(run, "valid/loss")[-1]
    for name in TASKS:
        assert last[f"valid/loss/{name}"] == pytest.approx(losses[f"valid/loss/{name}"], rel=1e-5)


def test_the_final_model_is_a_plain_folder_that_generates(short):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = short[0] / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "forward: alpha beta"}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert tokenizer.decode(prompt["input_ids"][0]) == "<s>human\nforward: alpha beta\n<s>bot\n"
    output = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert output.shape[1] > prompt["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert "forward" in (folder / "README.md").read_text()


def test_the_run_leaves_its_curves_and_summary(short):
    run, _ = short
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["tasks"]) == TASKS
    assert summary["steps"] == 6
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_adapter_is_saved_alone_and_loads_with_its_base(tasks_dir, tmp_path):
    from peft import AutoPeftModelForCausalLM

    train(tmp_path, *overrides_for(tasks_dir, "train.max_steps=3", "peft=lora", "peft.r=4"))
    assert (tmp_path / "model" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "model" / "model.safetensors").exists()
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model")
    assert any(torch.count_nonzero(p) for name, p in model.named_parameters() if "lora_B" in name)


def test_epochs_end_where_the_data_ends(tasks_dir, tmp_path):
    """Every target token once an epoch; each epoch's end is kept although only the newest is asked for."""
    settings = [
        "train.epochs=2",
        "train.max_steps=null",
        "checkpoint.every_epoch=true",
        "checkpoint.keep_last=1",
    ]
    train(tmp_path, *overrides_for(tasks_dir, *settings, "checkpoint.keep_best=false"))
    *_, last = checkpoints(tmp_path)
    progress = json.loads((tmp_path / "checkpoints" / f"step-{last:08d}" / "progress.json").read_text())
    store = SampleTable.open(tmp_path / "data" / "train")
    assert (progress["epoch"], progress["batch"]) == (2, 0)
    assert progress["tokens"] == 2 * store.lengths.sum()
    assert sum(progress["targets"].values()) == 2 * store.span_length.sum()
    assert sum(progress["samples"].values()) == 2 * store.num_samples
    assert len(checkpoints(tmp_path)) == 2


def test_stops_early_when_the_watched_task_no_longer_improves(tasks_dir, tmp_path):
    watch = ["evaluation.early_stopping.metric=forward", "evaluation.early_stopping.patience=2"]
    never = ["evaluation.early_stopping.min_delta=100", "evaluation.every=2", "train.max_steps=50"]
    train(tmp_path, *overrides_for(tasks_dir, *watch, *never))
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 4
    assert (tmp_path / "model").is_dir()


def test_the_best_model_can_be_the_final_one(tasks_dir, tmp_path):
    """A learning rate that ruins the model after a good start."""
    ruin = ["train.max_steps=8", "evaluation.every=2", "optimizer.lr=3.0", "scheduler.warmup_steps=8"]
    train(tmp_path, *overrides_for(tasks_dir, *ruin, "checkpoint.export_best=true", "checkpoint.keep_last=1"))
    progress = json.loads((tmp_path / "checkpoints" / "step-00000008" / "progress.json").read_text())
    best = tmp_path / "checkpoints" / f"step-{progress['overall']['kept_step']:08d}"
    assert best.name != "step-00000008"
    final = load_file(tmp_path / "model" / "model.safetensors")
    saved = {
        name.removeprefix("model.model."): tensor
        for name, tensor in checkpoint_tensors(best).items()
        if name.startswith("model.model.")
    }
    assert saved
    assert all(torch.equal(final[name], saved[name]) for name in saved)


def test_a_loss_that_is_not_finite_names_task_and_samples(tasks_dir, tmp_path):
    wild = ["optimizer.lr=1e30", "scheduler=constant", "scheduler.warmup_steps=0", "train.max_steps=9"]
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path, *overrides_for(tasks_dir, *wild, "checkpoint.every_steps=1", "evaluation.every=null"))
    message = str(caught.value)
    assert "step 2" in message
    assert "forward" in message
    assert "train.jsonl:" in message
    assert "step-00000001" in message


def test_sigusr2_saves_and_goes_on(tasks_dir, tmp_path):
    strike = bomb("Strike", step=3, signum=int(signal.SIGUSR2))
    steps = ["train.max_steps=6", "train.log_every=1", "evaluation.every=null", "checkpoint.every_steps=null"]
    train(tmp_path, *overrides_for(tasks_dir, *steps, *strike, "checkpoint.keep_last=9"))
    assert checkpoints(tmp_path) == [3, 6]


def test_a_full_disk_costs_one_checkpoint_and_nothing_else(tasks_dir, tmp_path):
    """From step 3 to step 5 no file may grow beyond 20 kB: the save at 4 fails, that at 6 works."""
    strike = bomb("FullDisk", step=3, until=5)
    steps = ["train.max_steps=6", "train.log_every=1", "evaluation.every=null", "checkpoint.every_steps=2"]
    train(tmp_path, *overrides_for(tasks_dir, *steps, *strike, "checkpoint.keep_last=9"))
    assert checkpoints(tmp_path) == [2, 6]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    log = (tmp_path / "mftrun.log").read_text()
    assert "the checkpoint of step 4 could not be saved" in log
    assert len(records(tmp_path, "train/loss")) == 6
    assert (tmp_path / "model").is_dir()


def test_a_best_that_could_not_be_saved_does_not_cost_the_one_before(tasks_dir, tmp_path):
    """Step 4 is the best, and cannot be saved; the best that is on disk, of step 2, outlives the pruning."""
    strike = bomb("FullDisk", step=3, until=5)
    steps = ["train.max_steps=6", "train.log_every=1", "evaluation.every=2", "checkpoint.every_steps=null"]
    overshoot = ["optimizer.lr=0.18", "scheduler=constant", "scheduler.warmup_steps=0"]
    train(tmp_path, *overrides_for(tasks_dir, *steps, *overshoot, *strike, "checkpoint.keep_last=1"))
    progress = json.loads((tmp_path / "checkpoints" / "step-00000006" / "progress.json").read_text())
    assert (progress["overall"]["step"], progress["overall"]["kept_step"]) == (4, 2)
    assert checkpoints(tmp_path) == [2, 6]


@pytest.fixture(scope="module")
def plain(tasks_dir, tmp_path_factory):
    """A finished run of four steps with a checkpoint at its middle, and its overrides."""
    run = tmp_path_factory.mktemp("plain")
    often = ["train.log_every=1", "checkpoint.every_steps=2", "evaluation.every=null"]
    base = overrides_for(tasks_dir, "train.max_steps=4", "train.precision=fp32", *often)
    train(run, *base)
    return run, base


@pytest.fixture
def copied(plain, tmp_path):
    """A copy of the finished run, and its overrides."""
    return shutil.copytree(plain[0], tmp_path / "copy", symlinks=True), plain[1]


def test_resuming_with_other_settings_names_the_keys(copied):
    run, base = copied
    changed = [*base, "resume=auto", "optimizer.lr=0.5", "train.max_grad_norm=3"]
    with pytest.raises(ConfigError) as caught:
        train(run, *changed)
    assert "optimizer.lr: 0.003 -> 0.5" in str(caught.value)
    assert "train.max_grad_norm: 1.0 -> 3" in str(caught.value)


def test_longer_training_can_be_asked_for(copied):
    run, base = copied
    train(run, *base, "train.max_steps=6", "resume=auto", "checkpoint.allow_changed_config=true")
    assert checkpoints(run)[-1] == 6
    assert [record["step"] for record in records(run, "train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_cut_checkpoint_falls_back_to_the_one_before(copied):
    run, base = copied
    (tensors,) = (run / "checkpoints" / "step-00000004" / "tensors").glob("*.distcp")
    tensors.write_bytes(tensors.read_bytes()[:100])
    train(run, *base, "resume=auto")
    assert "resumed at step 2" in (run / "mftrun.log").read_text()
    assert checkpoints(run)[-1] == 4


def test_a_ranks_own_error_reaches_the_user(tasks_dir, tmp_path):
    two = ["distributed=ddp", "distributed.num_processes=2"]
    with pytest.raises(RankFailed, match="ZeroDivisionError"):
        train(tmp_path, *overrides_for(tasks_dir, *two, *bomb("Raise", step=0)))


def losses(run):
    return [record["train/loss"] for record in records(run, "train/loss")]


@pytest.mark.parametrize("setting", ["train.gradient_checkpointing=true", "model.head=chunked"])
def test_saving_memory_changes_no_loss(plain, tmp_path, setting):
    run, base = plain
    train(tmp_path, *base, setting)
    assert losses(tmp_path) == pytest.approx(losses(run), rel=1e-5)


def test_bf16_trains_close_to_fp32(plain, tmp_path):
    exact, base = plain
    train(tmp_path, *[one for one in base if "precision" not in one], "train.precision=bf16")
    assert losses(tmp_path) == pytest.approx(losses(exact), rel=2e-2)
    assert losses(tmp_path) != losses(exact)
