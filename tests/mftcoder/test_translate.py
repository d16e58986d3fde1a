"""MFTCoder's configs become ours: every key is told, and what comes out composes and passes the check."""

import json

import pytest
import yaml
from mftcoder.public_configs import ARGUMENTS, PREFERENCES, PUBLIC

from mftrun.compose import compose
from mftrun.errors import ConfigError, DataError
from mftrun.mftcoder import writing
from mftrun.mftcoder.source import Source, read_source
from mftrun.mftcoder.translate import translate
from mftrun.schema import check, task_configs

STAND_INS = {"data.paths": "data.paths=[/data/a,/data/b]", "model.path": "model.path=/models/mine"}


def translated(tmp_path, config, gpus=None):
    return translate(Source(tmp_path / "x_train_config.json", config), gpus)


def composed(found):
    return compose([*writing.overrides(found), *(STAND_INS[key] for key in found.missing)])


def changed(tmp_path, **more):
    """What the coba config becomes with other values."""
    return translated(tmp_path, {**PUBLIC["coba"], **more})


@pytest.mark.parametrize("name", list(PUBLIC))
def test_public_config_composes_and_every_key_is_told(name, tmp_path):
    found = translated(tmp_path, PUBLIC[name])
    check(composed(found))
    assert {one.key for one in (*found.mapped, *found.dropped) if not one.is_default} == PUBLIC[name].keys()
    assert not found.unknown


@pytest.mark.parametrize("program", list(ARGUMENTS))
def test_every_argument_of_a_program_is_known(program, tmp_path):
    keys = ARGUMENTS[program].split()
    found = translated(tmp_path, dict.fromkeys(keys))
    assert not found.unknown
    assert {one.key for one in (*found.mapped, *found.dropped) if not one.is_default} == set(keys)


@pytest.mark.parametrize("name", ["coba", "competition", "atorch_lora"])
def test_the_experiment_is_the_command(name, tmp_path):
    config = {**PUBLIC[name], "data_paths": "[/data/a]", "pretrained_model_path": "/models/mine"}
    found = translated(tmp_path, config)
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(writing.experiment(found, "mine", "x.json"))
    by_file = compose([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    by_command = compose([*writing.overrides(found), "name=mine"])
    assert by_file == by_command


def test_values_arrive(tmp_path):
    config = composed(translated(tmp_path, PUBLIC["coba"], gpus=4))
    weighting = config["loss"]["weighting"]
    assert (weighting["warmup"], weighting["window"], weighting["tau"]) == (100, 200, 5)
    assert (weighting["sharpness"], weighting["min_weight"]) == (1.0, 0.1)
    assert (config["train"]["micro_batch_size"], config["train"]["global_batch_size"]) == (8, 32)
    assert config["optimizer"]["lr"] == 5e-5
    assert config["optimizer"]["betas"] == [0.9, 0.999]
    assert (config["scheduler"]["warmup_steps"], config["scheduler"]["min_lr"]) == (300, 5e-6)
    assert (config["train"]["epochs"], config["train"]["max_steps"]) == (4, None)
    assert (config["peft"]["r"], config["peft"]["quantization"]["quant_type"]) == (96, "nf4")
    assert config["data"]["valid_fraction"] == 0.05


def test_the_self_paced_loss_begins_when_its_window_is_full(tmp_path):
    weighting = composed(translated(tmp_path, PUBLIC["selfpaced"]))["loss"]["weighting"]
    assert (weighting["window"], weighting["warmup"], weighting["scale"]) == (100, 100, 50)


def test_atorch_divides_its_batch(tmp_path):
    config = composed(translated(tmp_path, {**PUBLIC["atorch_lora"], "gradient_accumulation_steps": 2}))
    assert (config["train"]["global_batch_size"], config["train"]["micro_batch_size"]) == (64, 4)
    assert config["checkpoint"]["asynchronous"]
    assert config["template"]["user_prefix"] == "<|role_start|>human<|role_end|>"


def test_accumulation_makes_the_global_batch(tmp_path):
    found = changed(tmp_path, gradient_accumulation_steps=3)
    assert composed(found)["train"]["global_batch_size"] == 8 * 8 * 3


def test_what_a_file_leaves_out_is_as_mftcoder_assumed(tmp_path):
    config = composed(translated(tmp_path, {"model_type": "llama"}))
    assert (config["peft"]["r"], config["optimizer"]["weight_decay"], config["seed"]) == (96, 0.01, 1234)
    assert config["scheduler"]["warmup_ratio"] == 0.05


@pytest.mark.parametrize(
    ("given", "key", "expected"),
    [
        ({"weighted_loss_mode": "case1"}, "loss", "token_mean"),
        ({"weighted_loss_mode": "case2"}, "loss", "sample_mean"),
        ({"weighted_loss_mode": "case4"}, "loss", "task_sample_mean"),
        ({"padding_mode": "pack"}, "rows", "packing"),
        ({"padding_mode": "concat", "tokenize_mode": "sst"}, "template", "none"),
        ({"peft_type": None}, "peft", "none"),
        ({"peft_type": "lora"}, "peft", "lora"),
        ({"vocab_file": "x", "peft_type": "qlora", "quantization": "8bit"}, "peft", "qlora8"),
        ({"vocab_file": "x", "peft_type": "lora", "quantization": "4bit"}, "peft", "qlora"),
        ({"vocab_file": "x"}, "template", "atorch"),
        ({"lr_scheduler_type": "polynomial"}, "scheduler", "linear"),
        ({"lr_scheduler_type": "constant"}, "scheduler", "constant"),
        ({"distributed_type": "FSDP"}, "distributed", "fsdp"),
        ({"model_type": "my_own"}, "model", "auto"),
        ({"model_type": "baichuan"}, "model", "baichuan2"),
    ],
)
def test_options(given, key, expected, tmp_path):
    assert changed(tmp_path, **given).choices[key] == expected


@pytest.mark.parametrize(
    ("given", "key", "expected"),
    [
        ({"learning_rate": "1e-4"}, "optimizer.lr", 1e-4),
        ({"max_train_steps": 500}, "train.epochs", None),
        ({"max_train_steps": 500}, "train.max_steps", 500),
        ({"data_split": "90/5/5"}, "data.valid_fraction", 0.1),
        ({"data_split": "8,1,1"}, "data.valid_fraction", 0.92),
        ({"data_split": "8,1,1", "load_raw_dataset": False}, "data.valid_fraction", 0.2),
        ({"data_split": "950,50,0", "load_raw_dataset": False}, "data.valid_fraction", 0.05),
        ({"num_warmup_steps": 0.1}, "scheduler.warmup_ratio", 0.1),
        ({"coba_update_interval": 10}, "loss.weighting.warmup", 10),
        ({"saving_limit": 3}, "checkpoint.keep_last", 3),
        ({"target_modules": "all-linear"}, "peft.target_modules", "all-linear"),
        ({"target_modules": ["q_proj"]}, "peft.target_modules", ["q_proj"]),
        (
            {"model_type": "qwen", "target_modules": ["c_attn", "w2"]},
            "peft.target_modules",
            ["q_proj", "k_proj", "v_proj", "gate_proj"],
        ),
        ({"data_paths": ["/data/a", "/data/b"]}, "data.paths", ["/data/a", "/data/b"]),
        ({"early_stopping": False}, "evaluation.early_stopping.patience", None),
        ({"data_split": "100,0,0"}, "evaluation.early_stopping.patience", None),
    ],
)
def test_settings(given, key, expected, tmp_path):
    assert changed(tmp_path, **given).value(key) == expected


def test_task_weights_go_to_the_tasks_by_name(tmp_path):
    given = {"weighted_loss_mode": "case3", "data_paths": "[/data/a,/data/b/]", "task_weights": "[1,2.5]"}
    weights = composed(changed(tmp_path, **given))["loss"]["weighting"]["weights"]
    assert weights == {"a": 1.0, "b": 2.5}


def weighted(tmp_path, paths):
    count = len(paths)
    weights = [1.0 + place for place in range(count)]
    return changed(tmp_path, weighted_loss_mode="case3", data_paths=list(paths), task_weights=weights)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a", "/d/code_v1.2"], ["a", "code_v1_2"]),
        (["/d/a", "/e/a", "/e/b"], ["d_a", "e_a", "b"]),
        (["/d/a", "/d/a/"], ["d_a", "d_a_2"]),
        (["/a", "/a/", "/a_2"], ["a", "a_3", "a_2"]),
        (["/d/a.b", "/d/a_b", "/d/a_b_2"], ["d_a_b", "d_a_b_2", "a_b_2"]),
        (["/d/b c", "/d/中", "/d/7b", "/"], ["b_c", "d", "task_7b", "task"]),
    ],
)
def test_tasks_that_no_key_could_name_are_named_apart(paths, names, tmp_path):
    found = weighted(tmp_path, paths)
    config = composed(found)
    check(config)
    assert {name: task["path"] for name, task in config["data"]["tasks"].items()} == {
        name: path.rstrip("/") or "/" for name, path in zip(names, paths, strict=True)
    }
    assert config["loss"]["weighting"]["weights"] == {name: 1.0 + i for i, name in enumerate(names)}
    assert any(f"{paths[1]} is {names[1]}" in note for note in found.notes)
    experiment = yaml.safe_load(writing.experiment(found, "mine", "x.json"))
    assert list(experiment["data"]["tasks"]) == names


def test_weights_reach_tasks_named_by_their_files(tmp_path):
    config = composed(weighted(tmp_path, ["/d/a.jsonl", "/d/b-1", "/d/1"]))
    tasks = task_configs(check(config).data)
    assert list(tasks) == list(config["loss"]["weighting"]["weights"]) == ["a", "b-1", "1"]
    assert not config["data"]["tasks"]


def test_a_folder_keeps_its_name_where_no_key_needs_it(tmp_path):
    assert changed(tmp_path, data_paths="[/d/v1.2,/d/b]").value("data.paths") == ["/d/v1.2", "/d/b"]


@pytest.mark.parametrize(("split", "meant"), [("0.95,0.05,0", "95/5/0"), ("8,1,1", "80/10/10")])
def test_a_split_that_is_no_percentage_is_told(split, meant, tmp_path):
    told = writing.told(changed(tmp_path, data_split=split))
    assert f"data_split={split} does not add up to 100" in told
    assert f"values.data_split={meant}" in told
    assert "add up" not in writing.told(changed(tmp_path, data_split=meant))
    assert "add up" not in writing.told(changed(tmp_path, data_split=split, load_raw_dataset=False))


@pytest.mark.parametrize(
    ("given", "layer"),
    [
        ({"model_type": "qwen"}, "c_attn"),
        ({"model_type": "baichuan", "target_modules": ["W_pack"]}, "W_pack"),
        ({"model_type": "chatglm2", "target_modules": "all-linear"}, "query_key_value"),
        ({"model_type": "qwen", "target_modules": ["w1"]}, None),
        ({"model_type": "qwen", "peft_type": None}, None),
        ({"model_type": "llama"}, None),
    ],
)
def test_an_adapter_that_becomes_three_is_told(given, layer, tmp_path):
    notes = [note for note in changed(tmp_path, **given).notes if "had one adapter" in note]
    assert [note.split()[0] for note in notes] == ([layer] if layer else [])


def test_task_weights_that_nothing_reads_are_dropped(tmp_path):
    found = changed(tmp_path, data_paths="[/data/a]", task_weights="[1.0]")
    assert "has no place" in next(one.became for one in found.dropped if one.key == "task_weights")


def test_role_markers_keep_their_newlines(tmp_path):
    markers = {"system": 'a "b"\n', "user": "### User\\:\n", "assistant": "end\\"}
    template = composed(changed(tmp_path, role_markers=markers))["template"]
    assert [template[f"{role}_prefix"] for role in markers] == list(markers.values())


TEXTS = ["plain", "with space", "a,b", "[x]", "{x}", "null", "1e3", "", "a=b", 'q"q', "back\\slash", "end\\"]
TEXTS += ['\\"', "it's", "é", "a:b", "~home", "#no", "new\nline", "True", "-1", "+a", "!b", "100%"]


def test_any_text_survives_the_command_line_and_the_experiment():
    config = compose([f"tracker.wandb.tags={writing._hydra(TEXTS)}"])
    assert config["tracker"]["wandb"]["tags"] == TEXTS
    assert yaml.safe_load(writing._yaml(TEXTS)) == TEXTS


def test_a_run_that_is_named_goes_on_where_it_stopped(tmp_path):
    found = changed(tmp_path, output_dir="out", auto_resume=True)
    assert {"output_dir=out", "resume=auto"} <= set(writing.overrides(found))
    assert "resume" not in writing.experiment(found, "mine", "x.json")


def test_unknown_keys_are_named(tmp_path):
    found = changed(tmp_path, lora_rnak=3)
    assert [(one.key, one.became) for one in found.unknown] == [
        ("lora_rnak", "MFTCoder knows no such key; did you mean lora_rank?")
    ]
    assert "lora_rnak=3" in writing.told(found)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"seq_length": "long"}, "seq_length='long' must be a whole number of 1 or more"),
        ({"seq_length": 0}, "must be a whole number of 1 or more"),
        ({"learning_rate": True}, "must be a number"),
        ({"early_stopping": "perhaps"}, "must be true or false"),
        ({"model_type": 3}, "must be a text"),
        ({"weighted_loss_mode": "case9"}, "is no loss that MFTCoder had: case1"),
        ({"peft_type": "prefix"}, "is no adapter that MFTCoder had"),
        ({"quantization": "3bit"}, "must be 4bit, 8bit, or null"),
        ({"padding_mode": "none"}, "must be one of padding, pack, concat"),
        ({"tokenize_mode": "coh"}, "must be sft, sst or pretrain"),
        ({"lr_scheduler_type": "inverse_sqrt"}, "is a schedule that is not offered"),
        ({"data_split": "much"}, "must be percentages"),
        ({"data_paths": 3}, "must be paths"),
        ({"role_markers": {"user": "x"}}, "must give a text for each of system, user, assistant"),
        ({"distributed_type": "megatron"}, "must be one of deepspeed, fsdp"),
        ({"target_modules": [3]}, "must be a list of names"),
        (
            {"weighted_loss_mode": "case3", "data_paths": "[/a,/b]", "task_weights": "[1]"},
            "must have as many weights as data_paths has paths, 2",
        ),
        (
            {"weighted_loss_mode": "case3", "data_paths": "[/a]", "task_weights": "[x]"},
            "must be numbers",
        ),
        (
            {"weighted_loss_mode": "case3", "data_paths": "[/a,/b]", "task_weights": "[-1,1]"},
            "task_weights='[-1,1]' must be finite numbers, each 0 or more",
        ),
        (
            {"weighted_loss_mode": "case3", "data_paths": "[/a,/b]", "task_weights": "[1,nan]"},
            "must be finite numbers",
        ),
        (
            {"weighted_loss_mode": "case3", "data_paths": "[/a,/b]", "task_weights": [0, 0]},
            "are 0 for every task",
        ),
        ({"data_split": "95,-5,10"}, "must be percentages"),
        ({"data_split": "950,50,0"}, "must be percentages"),
    ],
)
def test_values_that_mean_nothing_are_refused(given, problem, tmp_path):
    with pytest.raises(ConfigError) as caught:
        changed(tmp_path, **given)
    assert problem in str(caught.value)
    assert "x_train_config.json" in str(caught.value)


def test_training_on_preferences_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="pairs of answers"):
        translated(tmp_path, PREFERENCES)


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ('{\n"seed": 1,\n}', ":3", "not JSON"),
        ('{"seed": 1,\n"seed": 2}', ":2", "seed is given twice"),
        ("[1]", ":1", "holds no object"),
        ("", ":1", "not JSON"),
    ],
)
def test_damaged_files_are_refused_by_line(text, place, problem, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_source(path, {})
    assert f"x.json{place}" in str(caught.value)
    assert problem in str(caught.value)


def test_values_given_besides_win(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(PUBLIC["coba"]))
    assert translate(read_source(path, {"model_type": "llama"}), None).choices["model"] == "llama"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_source(tmp_path / "none.json", {})
