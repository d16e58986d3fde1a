"""What the tests of languages need is installed where that can be done; else they are skipped."""

import contextlib
import shutil
from pathlib import Path

import pytest
from tools import install, install_node_module

# Package of Debian → what shows that it is there. Java, Go and Rust are tested where they are there already.
PACKAGES = {
    "bubblewrap": lambda: shutil.which("bwrap"),
    "g++": lambda: shutil.which("g++"),
    "libboost-dev": Path("/usr/include/boost/any.hpp").exists,
    "libssl-dev": Path("/usr/include/openssl/md5.h").exists,
    "nodejs": lambda: shutil.which("node"),
    "npm": lambda: shutil.which("npm"),
}
MODULES = Path("/tmp/mftrun-tests-node")


@pytest.fixture(scope="session")
def tools():
    """Everything that Python, JavaScript and C++ need."""
    with contextlib.suppress(RuntimeError):
        missing = [name for name, is_there in PACKAGES.items() if not is_there()]
        if missing:
            install(missing, lambda: all(PACKAGES[name]() for name in missing))
        install_node_module("js-md5", MODULES)


@pytest.fixture(autouse=True)
def _modules(tools, monkeypatch):
    # For one test alone: ranks of others are forked from a server that must have the same environment.
    monkeypatch.setenv("NODE_PATH", str(MODULES / "node_modules"))
