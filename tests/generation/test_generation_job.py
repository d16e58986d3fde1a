"""job=generate on a run, its adapter, its base and the merged model: the right template and place."""

import json
import logging
import shutil

import pytest
import torch
import yaml

from mftrun.build import build
from mftrun.compose import compose
from mftrun.data.template import RoleTemplate
from mftrun.errors import ConfigError, MftrunError
from mftrun.generation.place import look_up
from mftrun.generation.templates import Asked, asked_template, choose_template
from mftrun.jobs import generate as job_module
from mftrun.schema import check

SHORT = ["job.max_new_tokens=6", "job.temperature=0"]


def generate(out, *overrides):
    """Runs the job and returns the records of its file."""
    out.mkdir(parents=True, exist_ok=True)
    config = compose(["job=generate", *SHORT, *overrides], out)
    check(config)
    build(config["job"], object, "job").run(config, out)
    file = out / "generated.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def texts(records):
    return [[answer["text"] for answer in record["answers"]] for record in records]


def test_a_run_its_adapter_and_the_merged_model_say_the_same(run, merged, tmp_path, capsys, caplog):
    prompt = "prompt=[words: mu nu,words: alpha beta gamma]"
    with caplog.at_level(logging.INFO):
        first = generate(tmp_path / "run", f"path={run}", prompt)
    assert "as the run was trained (RoleTemplate)" in caplog.text
    assert f"{run / 'model'} on {run / 'base_model'}, weights in float32" in caplog.text
    assert "tokens/s" in caplog.text
    shown = capsys.readouterr().out
    assert f"── prompt 2\n{texts(first)[1][0]}\n" in shown
    assert [record["messages"] for record in first] == [
        [{"role": "user", "content": "words: mu nu"}],
        [{"role": "user", "content": "words: alpha beta gamma"}],
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert texts(generate(tmp_path / "m", f"path={merged}", prompt)) == texts(first)
    assert "the chat template of the tokenizer (ModelTemplate)" in caplog.text
    assert texts(generate(tmp_path / "a", f"path={run / 'model'}", prompt)) == texts(first)
    folded = generate(tmp_path / "f", f"path={run / 'model'}", prompt, "job.backend.merge=true")
    assert texts(folded) == texts(first)
    assert texts(generate(tmp_path / "b", f"path={run / 'base_model'}", prompt)) != texts(first)


def test_answers_are_those_of_plain_transformers(run, merged, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "words: pi"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(merged)
    found = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    (record,) = generate(tmp_path, f"path={run}", "prompt='words: pi'")
    assert record["answers"][0]["text"] == tokenizer.decode(
        found[0, ids.shape[1] :], skip_special_tokens=True
    )


def test_one_prompt_is_streamed(run, tmp_path, capsys):
    (record,) = generate(tmp_path, f"path={run}", "prompt='words: mu'", "job.system=Briefly.")
    assert record["messages"][0] == {"role": "system", "content": "Briefly."}
    assert capsys.readouterr().out == record["answers"][0]["text"] + "\n"


def test_a_file_that_was_interrupted_goes_on(run, tmp_path, jsonl, monkeypatch):
    path = jsonl("p.jsonl", [{"prompt": f"words: {word}"} for word in ("mu", "nu", "xi pi rho", "tau")])
    arguments = [f"path={run}", f"prompts={path}", "job.num_samples=2", "job.temperature=1", "seed=3"]
    whole = generate(tmp_path / "whole", *arguments)
    assert [record["origin"] for record in whole] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
    lines = (tmp_path / "whole" / "generated.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "generated.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    asked = []
    plain = job_module._tell
    monkeypatch.setattr(
        job_module, "_tell", lambda said, *more: (asked.append(len(said)), plain(said, *more))
    )
    assert generate(tmp_path / "cut", *arguments) == whole
    assert asked == [4]  # two answers to each of the two prompts that were left
    for other in ("seed=4", "job.top_p=0.5", "job.dtype=bfloat16", "job.backend.merge=true"):
        with pytest.raises(ConfigError, match="of another model or from other settings"):
            generate(tmp_path / "cut", *arguments, other)
    assert generate(tmp_path / "cut", *arguments, "job.backend.batch_size=3") == whole


def test_what_cannot_be_answered(run, tmp_path, jsonl, caplog):
    path = jsonl("p.jsonl", [{"prompt": "words: mu " * 60}, {"prompt": "words: mu"}])
    with pytest.raises(
        MftrunError, match=rf"{path}:1: the prompt has .* has 96 positions.*data.on_overlong=skip"
    ):
        generate(tmp_path / "a", f"path={run}", f"prompts={path}")
    (record,) = generate(tmp_path / "b", f"path={run}", f"prompts={path}", "data.on_overlong=skip")
    assert record["origin"] == f"{path}:2"
    assert "1 prompts left out" in caplog.text
    with pytest.raises(ConfigError, match="never cut"):
        generate(tmp_path / "c", f"path={run}", f"prompts={path}", "data.on_overlong=truncate")
    tools = {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}]}
    path = jsonl("t.jsonl", [tools])
    with pytest.raises(MftrunError, match=rf"{path}:1: the sample lists tools.*data.on_bad=skip"):
        generate(tmp_path / "d", f"path={run}", f"prompts={path}")
    with pytest.raises(MftrunError, match="no prompt is left"):
        generate(tmp_path / "e", f"path={run}", f"prompts={path}", "data.on_bad=skip")


def test_a_template_that_is_asked_for_wins(run, tmp_path, caplog, monkeypatch):
    from types import SimpleNamespace

    from hydra.core.hydra_config import HydraConfig

    (tmp_path / "old" / ".hydra").mkdir(parents=True)
    (tmp_path / "old" / ".hydra" / "overrides.yaml").write_text("- template=none\n")
    arguments = [f"path={run}", "prompt='words: mu'", "template=none"]
    with caplog.at_level(logging.INFO):
        repeated = generate(tmp_path / "again", *arguments, f"rerun={tmp_path / 'old'}")
    assert "as asked for (Document)" in caplog.text
    told = SimpleNamespace(overrides=SimpleNamespace(task=arguments))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: told)
    assert texts(generate(tmp_path / "asked", *arguments)) == texts(repeated)


def asked(*overrides):
    """What a command line says of the template."""
    from types import SimpleNamespace
    from unittest import mock

    from hydra.core.hydra_config import HydraConfig

    config = compose(["job=generate", "path=a", "prompt=b", *overrides])
    told = SimpleNamespace(overrides=SimpleNamespace(task=list(overrides)))
    with (
        mock.patch.object(HydraConfig, "initialized", return_value=True),
        mock.patch.object(HydraConfig, "get", return_value=told),
    ):
        return asked_template(config)


def test_a_key_of_the_template_changes_the_runs_own(run, merged, caplog):
    import dataclasses

    place = look_up(str(run))
    place = dataclasses.replace(
        place, run={**place.run, "template": compose(["template=chatml"])["template"]}
    )
    changed = asked("template.user_suffix=END")
    with caplog.at_level(logging.INFO):
        found = choose_template(changed, place, None)
    own = choose_template(Asked(), place, None)
    assert found == dataclasses.replace(own, user_suffix="END")
    assert "as the run was trained but for template.user_suffix" in caplog.text
    named = choose_template(asked("template=markers", "template.user_suffix=END"), place, None)
    assert (named.user_prefix, named.user_suffix) == ("### User:\n", "END")
    with pytest.raises(
        ConfigError, match=r"lies in none; name the template, too.*template=chatml template\."
    ):
        choose_template(changed, look_up(str(merged)), None)
    place = dataclasses.replace(place, run={**place.run, "template": compose(["template=none"])["template"]})
    with pytest.raises(ConfigError, match="has no such key; name a template that has it") as caught:
        choose_template(changed, place, None)
    assert caught.value.key == "template.user_suffix"
    with pytest.raises(ConfigError, match="takes nothing out"):
        asked("~template.user_suffix")


def test_what_a_repeated_run_repeated_counts(tmp_path):
    for name, before, overrides in (("a", None, "[template=none]"), ("b", "a", "[rerun=a]")):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text(overrides)
        config = {} if before is None else {"rerun": str(tmp_path / before)}
        (tmp_path / name / "config.yaml").write_text(json.dumps(config))
    config = {"template": {"_target_": "x"}, "rerun": str(tmp_path / "b")}
    assert asked_template(config).node == {"_target_": "x"}
    (tmp_path / "a" / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="has repeated itself"):
        asked_template(config)


def test_without_a_template_the_way_out_is_named(run, merged, tmp_path):
    bare = shutil.copytree(merged, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="template=none continues plain text") as caught:
        generate(tmp_path / "out", f"path={bare}", "prompt=a")
    assert caught.value.key == "template"
    asked = {"_target_": "mftrun.data.template.RoleTemplate", "system_prefix": None, "user_prefix": "U:"}
    given = choose_template(Asked({**asked, "assistant_prefix": "A:"}), look_up(str(bare)), None)
    assert given == RoleTemplate(None, "U:", "A:")


def test_a_run_that_has_moved_brings_its_base(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    settings = json.loads((moved / "model" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "/nowhere/base"
    (moved / "model" / "adapter_config.json").write_text(json.dumps(settings))
    place = look_up(str(moved))
    assert (place.model, place.adapter) == (str(moved / "base_model"), str(moved / "model"))
    shutil.rmtree(moved / "base_model")
    with pytest.raises(
        ConfigError, match=rf"{moved / 'model'} is an adapter on /nowhere/base, which is not there"
    ):
        look_up(str(moved))
    assert look_up(str(moved), base=str(run / "base_model")).model == str(run / "base_model")
    with pytest.raises(ConfigError, match=r"^job\.base: nowhere is not a folder"):
        look_up(str(moved), base="nowhere")
    with pytest.raises(ConfigError, match=r"^job\.base: is for adapters"):
        look_up(str(run / "base_model"), base=str(run / "base_model"))


def test_the_base_of_an_adapter_is_of_the_revision_it_was_trained_on(run, tmp_path, monkeypatch):
    from mftrun.generation import loading
    from mftrun.generation.base import Weights

    moved = shutil.copytree(run, tmp_path / "moved")
    shutil.rmtree(moved / "base_model")
    settings = json.loads((moved / "model" / "adapter_config.json").read_text())
    config = yaml.safe_load((moved / "config.yaml").read_text())

    def placed(trained_on, revision=None):
        written = {**settings, "base_model_name_or_path": "owner/base", "revision": revision}
        (moved / "model" / "adapter_config.json").write_text(json.dumps(written))
        model = {"path": trained_on, "revision": "v1"}
        (moved / "config.yaml").write_text(yaml.safe_dump({**config, "model": model}))
        return look_up(str(moved))

    assert placed("owner/other").model_revision is None
    assert placed("owner/other", "v2").model_revision == "v2"
    place = placed("owner/base", "v2")
    assert (place.model, place.model_revision, place.revision) == ("owner/base", "v1", None)
    assert place.tokenizer_revision is None  # the run brings its own
    asked_for = []

    class Source:
        def __init__(self, **settings):
            asked_for.append(settings)
            raise ConfigError("model.path", "is not here")

    monkeypatch.setattr(loading, "Pretrained", Source)
    with pytest.raises(ConfigError, match="not here"):
        loading.load(place, None, Weights(), torch.device("cpu"), "auto")
    assert asked_for[0]["revision"] == "v1"


def test_places(run, merged, tmp_path):
    place = look_up(str(run))
    assert place.run["name"] == "mftrun"
    assert place.tokenizer == str(run / "model")
    assert not place.was_quantized
    assert look_up(str(merged)).run is None
    deep = shutil.copytree(merged, tmp_path / "run" / "checkpoints" / "step-00000003" / "model")
    shutil.copy(run / "config.yaml", tmp_path / "run")
    assert look_up(str(deep)).run == place.run
    with pytest.raises(ConfigError, match=rf"is not finished: there is no .*; give path={deep}"):
        look_up(str(tmp_path / "run"))
    for wrong, message in [(tmp_path, "neither a run"), ("no/such/thing", "is not a folder")]:
        with pytest.raises(ConfigError, match=message) as caught:
            look_up(str(wrong))
        assert caught.value.key == "path"
    with pytest.raises(ConfigError, match="hub only"):
        look_up(str(merged), revision="main")


def test_a_misspelt_folder_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mftrun.generation.place._adapter_settings", lambda *_: {})
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        assert look_up("runs/dmeo").model == "runs/dmeo"
    assert "no folder runs/dmeo here: it is taken for a model on the hub (there is runs/demo)" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([], "prompt"),
        (["prompt=a", "chat=true"], "prompt"),
        (["prompt=a", "prompts=b.txt"], "prompt"),
        (["chat=true", "job.num_samples=2", "job.temperature=1"], "job.num_samples"),
        (["chat=true", "job.output=a.jsonl"], "job.output"),
        (["prompt=a", "job.top_p=2"], "job.top_p"),
        (["prompt=a", "job.dtype=int8"], "job.dtype"),
        (["prompt=a", "job.backend.batch_size=0"], "job.backend.batch_size"),
        (["prompt=a", "job.backend.device=gpu"], "job.backend.device"),
        (["prompt=a", "job.backend.merge=true", "job.quantization=4bit"], "job.backend.merge"),
        (["prompt=a", "job.backend.attention=fast"], "job.backend.attention"),
    ],
)
def test_what_is_refused(run, tmp_path, overrides, key):
    with pytest.raises(ConfigError) as caught:
        generate(tmp_path, f"path={run}", *overrides)
    assert caught.value.key == key


def test_folding_in_needs_an_adapter(merged, tmp_path):
    with pytest.raises(ConfigError, match="no adapter to fold in"):
        generate(tmp_path, f"path={merged}", "prompt=a", "job.backend.merge=true")


def test_four_bits(run, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        (record,) = generate(tmp_path, f"path={run}", "prompt='words: mu'", "job.quantization=4bit")
    assert "4bit weights, computing in float32" in caplog.text
    assert record["answers"][0]["tokens"] > 0
