import json
import logging
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mftrun.errors import ConfigError
from mftrun.tracking.base import RunInfo
from mftrun.tracking.summary import TaskCounts, summarize
from mftrun.tracking.wandb import Wandb

CONFIG = {
    "seed": 3,
    "loss": {"weighting": {"weights": {"a": 0.5}}},
    "data": {"paths": ["x", "y"]},
    "none": None,
}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def info(folder, resumed=None, job="loss=coba,seed=3", group="sweep-1"):
    return RunInfo(folder, "demo", group, job, CONFIG, ["a", "b"], 40, resumed)


def records(path):
    """Records of a .wandb file: a 7-byte header, then a log in blocks of 32 KiB as LevelDB writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(found):
    rows = [record.history for record in found if record.WhichOneof("record_type") == "history"]
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def only(found, kind):
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def log_files(folder):
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name)


def test_an_offline_run_and_its_resumption_read_back(tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    first = Wandb(project="proj", mode="offline", tags=["x", "y"])
    first.check()
    first.start(info(tmp_path))
    first.log(10, {"train/loss/a": 2.5, "train/loss/b": 3.5, "weight/a": 0.5})
    first.log(10, {"valid/loss/a": 2.75})
    first.log(20, {"train/loss/a": 1.5})
    first.finish(None, exit_code=1)
    run_id = (tmp_path / "wandb_id").read_text().strip()

    second = Wandb(project="proj", mode="offline")
    second.start(info(tmp_path, resumed=20))
    second.log(30, {"train/loss/b": 1.25})
    counts = {name: TaskCounts(10, 2, 300) for name in "ab"}
    rates = {"steps": 30, "seconds": 9.0, "tokens_per_second": 5.0}
    lines = [{"step": 30, "valid/loss/a": 0.5}]
    summary = summarize(lines, counts, **rates, trainable_parameters=1, total_parameters=2)
    second.finish(summary, exit_code=0)

    files = log_files(tmp_path)
    assert len(files) == 2
    assert {path.name for path in files} == {f"run-{run_id}.wandb"}
    one, two = (records(path) for path in files)

    rows = [{key: value for key, value in row.items() if not key.startswith("_")} for row in history(one)]
    assert rows == [
        {"step": 10, "train/loss/a": 2.5, "train/loss/b": 3.5, "weight/a": 0.5, "valid/loss/a": 2.75},
        {"step": 20, "train/loss/a": 1.5},
    ]
    assert [row["_step"] for row in history(one)] == [10, 20]
    assert [(row["_step"], row["train/loss/b"]) for row in history(two)] == [(30, 1.25)]

    (run,) = only(one, "run")
    assert (run.run_id, run.project, run.run_group) == (run_id, "proj", "sweep-1")
    assert run.display_name == "demo-loss=coba,seed=3"
    assert list(run.tags) == ["x", "y"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert only(two, "run")[0].run_id == run_id

    metrics = {metric.name or metric.glob_name: metric for metric in only(one, "metric")}
    assert metrics["*"].step_metric == "step"
    assert metrics["valid/*"].summary.min
    assert [end.exit_code for end in only(one, "exit")] == [1]
    assert [end.exit_code for end in only(two, "exit")] == [0]
    totals = {item.key: json.loads(item.value_json) for part in only(two, "summary") for item in part.update}
    assert totals["final/valid_best/a"] == 0.5
    assert "final/valid_best/b" not in totals

    (pattern,) = set(re.findall(r"wandb sync (\S+)`", caplog.text))
    folder, name = os.path.split(pattern)
    assert sorted(Path(folder).glob(name)) == [path.parent for path in files]
    assert capfd.readouterr() == ("", "")


def test_a_long_run_fills_several_blocks(tmp_path):
    tracker = Wandb(mode="offline")
    tracker.start(info(tmp_path))
    for step in range(300):
        tracker.log(step, {f"train/loss/task_{number}": step + number / 10 for number in range(10)})
    tracker.finish(None, 0)
    (path,) = log_files(tmp_path)
    assert path.stat().st_size > 2 * 32768
    assert [row["train/loss/task_9"] for row in history(records(path))] == [step + 0.9 for step in range(300)]


def test_what_the_console_shows_is_left_alone(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from mftrun.tracking.base import RunInfo; from mftrun.tracking.wandb import Wandb\n"
        "tracker = Wandb(mode='offline')\n"
        "tracker.start(RunInfo(Path(sys.argv[1]), 'n', None, None, {}, [], 9))\n"
        "print('a line of the console')\n"
        "tracker.finish(None, 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "a line of the console\n", "")
    (path,) = log_files(tmp_path)
    assert b"a line of the console" not in path.read_bytes()
    assert not list(path.parent.rglob("output.log"))


def test_a_run_from_the_start_is_a_new_wandb_run(tmp_path):
    seen = []
    for resumed in (None, None, 5):
        tracker = Wandb(mode="disabled")
        tracker.start(info(tmp_path, resumed))
        tracker.log(6, {"lr": 0.1})
        tracker.finish(None, 0)
        seen.append((tmp_path / "wandb_id").read_text())
    assert seen[0] != seen[1] == seen[2]
    assert not log_files(tmp_path)


def test_names_given_win_over_the_runs_own(tmp_path):
    tracker = Wandb(mode="offline", name="mine", group="ours")
    tracker.start(info(tmp_path))
    tracker.finish(None, 0)
    (run,) = only(records(log_files(tmp_path)[0]), "run")
    assert (run.display_name, run.run_group) == ("mine", "ours")


@pytest.mark.parametrize(("group", "is_used"), [(None, True), ("losses", False)])
def test_a_sweep_agents_run_id_is_used_but_by_one_run(tmp_path, monkeypatch, group, is_used):
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")
    tracker = Wandb(mode="disabled")
    tracker.start(info(tmp_path, group=group))
    tracker.finish(None, 0)
    assert ((tmp_path / "wandb_id").read_text() == "agent123\n") == is_used


def login_by_key(monkeypatch, home):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)


def login_by_netrc(monkeypatch, home):
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (home / ".netrc").chmod(0o600)


def login_by_own_server(monkeypatch, home):
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text("[default]\nbase_url = https://wandb.example.com\n")
    (home / "elsewhere").write_text("machine wandb.example.com login user password secret\n")
    (home / "elsewhere").chmod(0o600)
    monkeypatch.setenv("NETRC", str(home / "elsewhere"))


def login_by_settings(monkeypatch, home):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    (home / "settings").write_text("[default]\napi_key = secret\n")


LOGINS = [login_by_key, login_by_netrc, login_by_own_server, login_by_settings]


@pytest.mark.parametrize("login", LOGINS)
def test_auto_is_online_for_those_logged_in(login, monkeypatch, tmp_path):
    assert Wandb().resolved_mode() == "offline"
    login(monkeypatch, tmp_path / "home")
    assert Wandb().resolved_mode() == "online"
    assert Wandb(mode="online").resolved_mode() == "online"
    assert Wandb(mode="offline").resolved_mode() == "offline"


def test_a_login_elsewhere_does_not_count(monkeypatch, tmp_path):
    login_by_netrc(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert Wandb().resolved_mode() == "offline"


@pytest.mark.parametrize("text", ["machine", "[no", "machine api.wandb.ai login"])
def test_broken_files_are_no_login(text, tmp_path):
    (tmp_path / "home" / ".netrc").write_text(text)
    (tmp_path / "home" / ".netrc").chmod(0o600)
    (tmp_path / "cwd" / "wandb").mkdir()
    (tmp_path / "cwd" / "wandb" / "settings").write_text(text)
    assert Wandb().resolved_mode() == "offline"


def test_auto_respects_what_the_user_chose_outside(monkeypatch, tmp_path):
    login_by_key(monkeypatch, None)
    (tmp_path / "cwd" / "wandb").mkdir()
    (tmp_path / "cwd" / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert Wandb().resolved_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb().resolved_mode() == "disabled"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert Wandb().resolved_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(ConfigError, match="WANDB_MODE: 'nonsense' is none of"):
        Wandb().check()


def test_online_without_login_names_the_key_and_the_way_out(monkeypatch, tmp_path):
    tracker = Wandb(mode="online")
    for refused in (tracker.check, lambda: tracker.start(info(tmp_path))):
        with pytest.raises(ConfigError, match=r"tracker\.wandb\.mode: .*`wandb login`.*mode=offline"):
            refused()
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"WANDB_MODE: .*`wandb login`"):
        Wandb().check()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mode": "of"}, "tracker.wandb.mode"),
        ({"project": "a/b"}, "tracker.wandb.project"),
        ({"project": ""}, "tracker.wandb.project"),
        ({"tags": ["fine", "t" * 65]}, "tracker.wandb.tags"),
    ],
)
def test_what_wandb_would_refuse_is_refused_early(settings, key):
    with pytest.raises(ConfigError) as caught:
        Wandb(**settings).check()
    assert caught.value.key == key


def broken_init(monkeypatch, error_name):
    """Makes online runs fail as W&B's client fails; offline ones work."""
    import wandb

    real, asked = wandb.init, []

    def init(**arguments):
        asked.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise getattr(wandb.errors, error_name)("connection refused")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    return asked


def test_auto_goes_offline_when_no_server_answers(monkeypatch, tmp_path, caplog):
    login_by_key(monkeypatch, None)
    asked = broken_init(monkeypatch, "CommError")
    tracker = Wandb()
    tracker.start(info(tmp_path))
    tracker.log(1, {"lr": 0.5})
    tracker.finish(None, 0)
    assert asked == ["online", "offline"]
    assert "logged offline" in caplog.text
    assert history(records(log_files(tmp_path)[0]))[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("online", "CommError", "no W&B server within reach"),
        ("auto", "AuthenticationError", "refuses the credentials"),
    ],
)
def test_online_that_cannot_be_is_the_users_error(mode, error, message, monkeypatch, tmp_path):
    login_by_key(monkeypatch, None)
    broken_init(monkeypatch, error)
    with pytest.raises(ConfigError, match=message):
        Wandb(mode=mode).start(info(tmp_path))


@pytest.mark.parametrize(
    ("job", "job_type"),
    [
        ("0_loss=mft_seed=1", "loss=mft"),
        ("12_seed=3_loss=mft", "loss=mft"),
        ("1_lr=0.1_seed=10_loss=coba", "lr=0.1_loss=coba"),
        ("2_data.seed=4", "data.seed=4"),
        ("3_seed=2", ""),
        (None, ""),
    ],
)
def test_seeds_of_one_setting_have_one_job_type(job, job_type, monkeypatch, tmp_path):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **arguments: pytest.fail(repr(arguments["job_type"] or "")))
    with pytest.raises(pytest.fail.Exception, match=f"^{job_type!r}$"):
        Wandb(mode="offline").start(info(tmp_path, job=job))


def test_results_over_the_tasks_are_of_the_lowest_losses(monkeypatch, tmp_path):
    tracker = Wandb(mode="offline")
    tracker.start(info(tmp_path))
    rows = [
        {"step": 1, "valid/loss/a": 2.0, "valid/loss/b": 5.0},
        {"step": 2, "valid/loss/a": 3.0, "valid/loss/b": 4.0},
    ]
    counts = {task: TaskCounts(1, 1, 1) for task in ("a", "b", "unseen")}
    numbers = {"seconds": 1.0, "tokens_per_second": 1.0, "trainable_parameters": 1, "total_parameters": 1}
    tracker.finish(summarize(rows, counts, steps=2, **numbers), 0)
    found = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for summary in only(records(log_files(tmp_path)[0]), "summary")
        for item in summary.update
    }
    assert (found["final/mean"], found["final/worst"], found["final/spread"]) == (3.0, 4.0, 2.0)


def test_finish_without_start_does_nothing():
    Wandb().finish(None, 1)
