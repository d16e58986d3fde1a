"""A Slurm of our own: two nodes on one machine, without systemd, cgroups or accounting."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tools import install

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PACKAGES = ("slurm-wlm", "munge")
PATIENCE = 120.0

_CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
MinJobAge=600
PropagateResourceLimits=NONE
JobRequeue=0
"""


class Cluster:
    """A running Slurm.

    Args:
        folder: Its files; short, as Unix sockets have short names.
        nodes: How many nodes it has, all on this machine: each has a slurmd of its own.
    """

    def __init__(self, folder, nodes=2):
        self.folder = folder
        # As on a cluster, the name of a node is where the others reach it.
        self.names = [f"127.0.0.{number}" for number in range(1, 1 + nodes)]
        self._daemons = []
        self._slurmds = {}

    @property
    def environment(self):
        """What its commands need."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self):
        """Returns when all nodes can take jobs."""
        self._configure()
        self._munge()
        self._daemon("slurmctld", "-D", "-c")
        for name in self.names:
            self._slurmd(name)
        states = wait_for(self._idle, "nodes that are idle", self.told)
        assert states

    def stop(self):
        """Leaves no process behind."""
        self.call("scancel", "--user=root", check=False)
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not self.jobs(), "an empty queue")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def call(self, *command, check=True):
        """Runs one of Slurm's commands; returns what it printed."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def jobs(self):
        """States of the jobs that are not over, by their number; `12_0` is one of an array."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def shown(self, job):
        """What Slurm knows of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", str(job)).split()
        return dict(word.partition("=")[::2] for word in words)

    def told(self):
        """The last lines of every daemon, for whoever asks why."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {line}" for log in logs for line in log.read_text().splitlines()[-15:])

    def lose(self, node, job):
        """A node dies with all that runs there, a job of ours, and is there again when Slurm has noticed."""
        lost = [pid for pid in _processes() if _is_on(pid, node) or f"slurmstepd: [{job}." in _line(pid)]
        daemon = self._slurmds[node]
        for pid in (daemon.pid, *lost):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
        self._slurmd(node)

    def _idle(self):
        states = self.call("sinfo", "--noheader", "--Node", "--format=%N %t", check=False).split("\n")
        return len([state for state in states if state.endswith(" idle")]) == len(self.names)

    def _configure(self):
        controller, *ports = _free_ports(1 + len(self.names))
        host = socket.gethostname().partition(".")[0]
        lines = [_CONFIG.format(folder=self.folder, host=host, controller=controller)]
        for name, port in zip(self.names, ports, strict=True):
            resources = "CPUs=4 RealMemory=1000 State=UNKNOWN"
            lines.append(f"NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} {resources}\n")
        lines.append(
            f"PartitionName=main Nodes={','.join(self.names)} Default=YES MaxTime=INFINITE State=UP\n"
        )
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text("".join(lines))
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _munge(self):
        place = self.folder / "munge"
        place.mkdir(mode=0o700)
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o400)
        files = [f"--{name}-file={place}/{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={place}/socket", *files)
        wait_for((place / "socket").exists, "munge's socket")

    def _slurmd(self, node):
        self._slurmds[node] = self._daemon("slurmd", "-D", "-N", node)

    def _daemon(self, *command):
        environment = {**os.environ, **self.environment}
        with (self.folder / "daemons.log").open("a") as output:
            daemon = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._daemons.append(daemon)
        return daemon


@contextlib.contextmanager
def running_cluster():
    """A cluster for as long as it is needed.

    Raises:
        RuntimeError: There cannot be one here; says why.
    """
    if os.geteuid() != 0:
        raise RuntimeError("Slurm's daemons need root")
    install(PACKAGES, lambda: not _missing())
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(ready, what, why=str):
    """Returns what `ready` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} in {PATIENCE:.0f} seconds\n{why()}")
        time.sleep(0.1)
    return value


def _processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _line(pid):
    """The command line of a process; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _is_on(pid, node):
    """Whether Slurm has started a process on a node."""
    name = f"SLURMD_NODENAME={node}"
    try:
        return name in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return False


def _missing():
    return [name for name in NEEDED if shutil.which(name) is None]


def _free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
