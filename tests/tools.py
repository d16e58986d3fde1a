"""Programs that tests need and a machine may lack: installed once, where that can be done."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path


def install(packages, are_there):
    """Installs packages of Debian, unless they are there, once on this machine whatever asks for them.

    Args:
        packages: Their names.
        are_there: Says whether they are.

    Raises:
        RuntimeError: They cannot be installed here; says why.
    """
    with Path("/tmp/mftrun-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if are_there():
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError(f"{', '.join(packages)} not installed, and this is not root with apt-get")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        for step in (["apt-get", "update", "-qq"], command):
            run(step, environment)


def install_node_module(name, folder):
    """Installs a package of npm in a folder, unless it is there.

    Raises:
        RuntimeError: It cannot be installed here; says why.
    """
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "node_modules" / name).is_dir():
            return
        if shutil.which("npm") is None:
            raise RuntimeError("npm is not installed")
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), name])


def run(command, environment=None):
    """Runs a command of an installation."""
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-300:]}")
