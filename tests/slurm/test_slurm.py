"""Jobs of a real Slurm: submitted, joined, stopped, queued again, failing; several run at once."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import running_cluster, wait_for
from commands import mftrun
from runs import SMALL, assert_same_tensors, train

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
LAST = f"checkpoints/step-{STEPS:08d}"
# A name and a folder for each run; what the steps are is the same for all.
COMMON = [f"train.max_steps={STEPS}", "train.log_every=1", "evaluation.every=null", "distributed=ddp"]
LAUNCHER = ["+cluster=slurm", "hydra.launcher.cpus_per_task=1"]


class Site:
    """A folder to submit from, on a cluster."""

    def __init__(self, cluster, folder, tasks_dir):
        self.cluster = cluster
        self.folder = folder
        paths = ",".join(str(path) for path in sorted(tasks_dir.iterdir()))
        self.common = [*SMALL[:-1], *COMMON, f"data.paths=[{paths}]"]

    def submit(self, name, *arguments):
        """Runs a command that submits; returns it and the folder of its sweep."""
        done = mftrun(self.folder, f"name={name}", *LAUNCHER, *self.common, *arguments)
        return Submitted(self, done, self.folder / "runs" / "sweeps" / name)

    def script(self, script, name, *arguments, options=()):
        """Submits one of the scripts; returns the job's number."""
        command = ["sbatch", "--parsable", f"--job-name={name}", f"--chdir={self.folder}", *options]
        arguments = [f"{ROOT}/launchers/sbatch/{script}", *arguments, *self.common]
        return self.cluster.call(*command, *arguments).strip().partition(";")[0]

    def gate(self, name):
        """Holds a run at step 3 of its first attempt until it is asked to stop."""
        tracker = f"{{_target_:gate.Gate,step:3,file:{self.folder / name}.gate}}"
        return ["allowed_targets=[gate]", f"+tracker.gate={tracker}"]

    def waits(self, name, why):
        """Returns when the run is there."""
        wait_for((self.folder / f"{name}.gate").exists, f"run {name} at its gate", why)

    def over(self, job):
        """Returns what Slurm knows of a job, or of one of an array, once it is over."""

        def known():
            # A job that is queued again is over for a moment, too.
            shown = {} if str(job) in self.cluster.jobs() else self.cluster.shown(job)
            return shown if shown.get("JobState") in ENDS else None

        return wait_for(known, f"end of job {job}", self.cluster.told)


ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}


class Submitted:
    """What a command has submitted."""

    def __init__(self, site, done, sweeps):
        assert done.returncode == 0, done.stdout
        self.site = site
        self.sweep = next(sweeps.iterdir())
        self.job = re.search(r"as job (\d+)", done.stdout)[1]
        self.said = done.stdout

    def run(self, number=0):
        """The folder of one of its runs."""
        return next(self.sweep.glob(f"{number}_*"))

    def log(self, pattern="*"):
        """All that its tasks said."""
        return "".join(path.read_text() for path in sorted(self.sweep.glob(f".submitit/{pattern}/*.out")))

    def over(self, number=""):
        """See `Site`."""
        return self.site.over(f"{self.job}{number}")


@pytest.fixture(scope="module")
def cluster():
    with ExitStack() as stack:
        try:
            running = stack.enter_context(running_cluster())
        except RuntimeError as error:
            pytest.skip(f"no Slurm here: {error}")
        yield running


@pytest.fixture(scope="module")
def site(cluster, tasks_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}")
        yield Site(cluster, folder, tasks_dir)


@pytest.fixture(scope="module")
def whole(site):
    """The same steps without any interruption, on one rank."""
    train(site.folder / "whole", *site.common)
    return site.folder / "whole"


# The slow ones begin before anybody waits.


MINUTE = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=1"]


@pytest.fixture(scope="module")
def timed_out(site):
    wandb = "tracker.wandb={_target_:mftrun.tracking.wandb.Wandb,mode:offline}"
    return site.submit("timed_out", *MINUTE, wandb, *site.gate("timed_out"))


@pytest.fixture(scope="module")
def two_nodes(site):
    return site.submit("two_nodes", "hydra.launcher.nodes=2", *site.gate("two_nodes"))


@pytest.fixture(scope="module")
def by_script(site):
    """A run on one node, by the script."""
    return site.script("run.sbatch", "by_script", *site.gate("by_script"))


TOO_OFTEN = ["too_often", *MINUTE, "hydra.launcher.max_num_timeout=0"]
LEFT = ["seed=1,2", "hydra.sweeper.max_batch_size=1"]


@pytest.fixture(scope="module")
def too_often(site):
    return site.submit(*TOO_OFTEN, *site.gate("too_often"))


@pytest.fixture(scope="module")
def left(site):
    """A sweep of two jobs, submitted one by one."""
    return site.submit("left", *LEFT)


@pytest.fixture(scope="module")
def of_the_readme(site):
    """Numbers of the jobs that the commands of the README submit."""
    (site.folder / "launchers").symlink_to(ROOT / "launchers")
    lines = [line for line in lines_of_the_readme() if "--cfg" not in line]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], cwd=site.folder, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [*re.findall(r"batch job (\d+)", done.stdout)]


@pytest.fixture(scope="module")
def all_submitted(timed_out, too_often, two_nodes, by_script, left):
    """Makes them begin."""


def same_run(found, expected):
    assert_same_tensors(found / LAST, expected / LAST)
    assert losses(found) == losses(expected)


def losses(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(one["step"], one["loss"]) for one in records if "loss" in one]


def test_unknown_partition(site):
    done = mftrun(site.folder, *LAUNCHER, "hydra.launcher.partition=nowhere", *site.common)
    assert done.returncode == 1
    assert "error: hydra.launcher: Slurm refuses the job: invalid partition specified: nowhere" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.usefixtures("all_submitted")
def test_two_nodes_join_are_preempted_and_go_on_exactly(site, two_nodes):
    site.waits("two_nodes", two_nodes.log)
    site.cluster.call("scancel", "--signal=TERM", two_nodes.job)
    shown = two_nodes.over()
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), two_nodes.log()
    assert "ddp, 2 ranks" in two_nodes.log()
    assert "[node 1] found the leader at 127.0.0.1" in two_nodes.log()
    assert sorted(path.name for path in two_nodes.run().glob("checkpoints/step-*"))[0] == "step-00000003"
    train(site.folder / "whole_2", *site.common, "distributed.num_processes=2")
    same_run(two_nodes.run(), site.folder / "whole_2")


@pytest.mark.usefixtures("all_submitted")
def test_a_script_whose_run_is_preempted_goes_on_exactly(site, by_script, whole):
    log = site.folder / f"by_script-{by_script}.out"
    site.waits("by_script", log.read_text)
    site.cluster.call("scancel", "--signal=TERM", by_script)
    shown = site.over(by_script)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    same_run(site.folder / "runs/by_script" / by_script, whole)


@pytest.mark.usefixtures("all_submitted")
def test_an_array_of_which_one_fails_and_one_is_cancelled(site):
    file = site.folder / "array.gate"
    kinds = ["+tracker.gate._target_=gate.Either", f"+tracker.gate.file={file}", "allowed_targets=[gate]"]
    command = ["name=array", *LAUNCHER, *site.common, *kinds, "+tracker.gate.kind=null,bug,gate"]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(mftrun, site.folder, *command, "hydra.launcher.wait=true")
        site.waits("array", site.cluster.told)
        sweep = next((site.folder / "runs/sweeps/array").iterdir())
        job = next(path.name for path in (sweep / ".submitit").iterdir() if path.name.endswith("_2"))
        again = mftrun(site.folder, *command, "resume=auto")
        site.cluster.call("scancel", job)
        done = waiting.result()
    assert again.returncode == 1, again.stdout
    assert (done.returncode, (sweep / "0_kind=null" / "summary.json").exists()) == (1, True), done.stdout
    assert "gate.py" in done.stdout
    assert "RuntimeError: a bug of the user's own" in done.stdout
    assert f"job {job} was cancelled" in done.stdout
    shown = site.over(job)
    assert (shown["JobState"], shown["Restarts"]) == ("CANCELLED", "0")
    assert [path.name for path in (sweep / "2_kind=gate/checkpoints").glob("step-*")] == ["step-00000003"]


@pytest.mark.usefixtures("all_submitted")
def test_a_sweep_that_is_left_is_compared_by_its_last_job_and_not_run_again(site, left):
    jobs = {path.name for path in left.sweep.glob(".submitit/[0-9]*")}
    assert len(jobs) == 2
    assert [site.over(job)["JobState"] for job in sorted(jobs)] == ["COMPLETED"] * 2
    assert len(json.loads((left.sweep / "compare.json").read_text())["runs"]) == 2
    again = mftrun(site.folder, "name=left", *LAUNCHER, *site.common, *LEFT)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("finished before") == 2
    assert {path.name for path in left.sweep.glob(".submitit/[0-9]*")} == jobs
    changed = mftrun(
        site.folder, *LAUNCHER, *site.common, *LEFT, f"output_dir={left.sweep}", "optimizer.lr=1"
    )
    assert (changed.returncode, "holds a finished job with other settings" in changed.stdout) == (1, True)


@pytest.mark.usefixtures("all_submitted")
def test_optuna_waits_for_each_result_before_it_goes_on(site):
    choice = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2"]
    done = mftrun(
        site.folder, "name=optuna", *LAUNCHER, *site.common, *choice, "optimizer.lr=interval(0.001, 0.1)"
    )
    assert done.returncode == 0, done.stdout
    assert len([*site.folder.glob("runs/sweeps/optuna/*/*/summary.json")]) == 2


def test_a_job_by_script_for_which_there_is_no_line(site):
    (site.folder / "sweep.txt").write_text("seed=1\nseed=2\n")
    job = site.script("array.sbatch", "lines", "sweep.txt", options=["--array=3"])
    assert site.over(f"{job}_3")["JobState"] == "FAILED"
    assert "sweep.txt has no line 3" in (site.folder / f"lines-{job}_3.out").read_text()


@pytest.mark.usefixtures("all_submitted")
def test_time_that_is_over_and_an_exact_way_on(site, timed_out, whole):
    shown = timed_out.over()
    assert (shown["JobState"], shown["Restarts"], shown["TimeLimit"]) == ("COMPLETED", "1", "00:01:00")
    assert "9 remaining timeouts" in timed_out.log()
    same_run(timed_out.run(), whole)
    # Saved where it was held, and gone on with from there.
    assert "resumed at step 3 from" in timed_out.log()
    parts = sorted(path.name for path in (timed_out.run() / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert len({name.rpartition("-")[2] for name in parts}) == 1


@pytest.mark.usefixtures("all_submitted")
def test_a_job_whose_time_is_over_too_often_fails_and_goes_on_by_hand(site, too_often, whole):
    assert too_often.over()["JobState"] == "FAILED"
    assert "timed-out too many times" in too_often.log()
    told = mftrun(site.folder, "job=status", f"runs={too_often.sweep}")
    assert ": stopped: timed-out too many times" in told.stdout, told.stdout
    second = site.submit(*TOO_OFTEN, *site.gate("too_often"))
    assert (second.sweep, second.over()["JobState"]) == (too_often.sweep, "COMPLETED")
    same_run(second.run(), whole)


@pytest.mark.usefixtures("all_submitted")
def test_a_node_that_dies_costs_the_steps_since_the_last_checkpoint(site, whole):
    # Comes after the others: they could run on that node, too.
    lost = site.submit("lost", "checkpoint.every_steps=2", *site.gate("lost"))
    site.waits("lost", lost.log)
    site.cluster.lose(site.cluster.shown(lost.job)["NodeList"], lost.job)
    shown = lost.over()
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), lost.log()
    assert "resumed at step 2 from" in lost.log()
    same_run(lost.run(), whole)


def lines_of_the_readme():
    text = (ROOT / "launchers" / "README.md").read_text()
    return "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).splitlines()


def test_the_readme_shows_what_a_launcher_is_set_to(tmp_path):
    (command,) = [line for line in lines_of_the_readme() if "--cfg" in line]
    done = mftrun(tmp_path, *shlex.split(command)[3:])
    assert done.returncode == 0, done.stdout
    assert "partition: gpu" in done.stdout


@pytest.mark.usefixtures("all_submitted")
def test_commands_of_the_readme(site, of_the_readme):
    on_two, array = of_the_readme
    for job in (on_two, f"{array}_1", f"{array}_2"):
        assert site.over(job)["JobState"] == "COMPLETED"
    runs = site.folder / "runs"
    sweep = runs / "sweeps" / "mftrun" / array
    assert "loss=coba" in (sweep / "2/.hydra/overrides.yaml").read_text()
    assert "array.sbatch" in (sweep / "multirun.yaml").read_text()
    whole = [path.parent for path in runs.glob("mftrun/*/summary.json")]
    assert len(whole) == 2
    assert all("ddp, 2 ranks" in (run / "mftrun.log").read_text() for run in whole)


def test_scripts_are_plain():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted((ROOT / "launchers" / "sbatch").glob("*"))
    done = subprocess.run(["shellcheck", *scripts], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
