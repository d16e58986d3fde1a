"""Runs Python code in a sandbox, as root and as an ordinary user."""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from sandboxed import PYTHON, as_user, run_code
from tools import install

from mftrun.sandbox.bubblewrap import find_bubblewrap
from mftrun.sandbox.unsafe import Unsafe


@pytest.fixture(scope="session")
def bubblewrap():
    """Bubblewrap, where this machine lets it work at all."""
    if not Path(PYTHON).exists():
        pytest.skip(f"{PYTHON} is not here: programs of these tests need it")
    try:
        install(["bubblewrap"], lambda: shutil.which("bwrap"))
    except RuntimeError as error:
        pytest.skip(str(error))
    plain = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    tried = subprocess.run(plain, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"bubblewrap does not work here: {tried.stderr.strip()}")
    return find_bubblewrap()


@pytest.fixture(params=["root", "user"])
def caller(request):
    """Calls a function as root, or as an ordinary user."""
    if request.param == "root":
        return pytest.skip("this is not root") if os.geteuid() else (lambda action: action())
    return (lambda action: action()) if os.geteuid() else as_user


@pytest.fixture
def inside(bubblewrap, caller):
    """Runs Python code in bubblewrap."""
    return lambda code, **settings: caller(lambda: run_code(bubblewrap, code, **settings))


@pytest.fixture
def outside():
    """Runs Python code without a sandbox: shows that what is done inside does something."""
    return lambda code, **settings: run_code(Unsafe(), code, **settings)


@pytest.fixture
def marker():
    """A word that is in no other process's arguments."""
    return uuid.uuid4().hex
