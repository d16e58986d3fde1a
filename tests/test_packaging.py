"""What travels in the wheel, and that it runs from any folder."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("mftrun", "conf", "launchers", "setup.cfg", "pyproject.toml", "LICENSE", "README.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no build folder is left in the repository, and unpacked."""
    source, built, unpacked = (tmp_path_factory.mktemp(name) for name in ("source", "built", "unpacked"))
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        built,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = built.glob("mftrun-*.whl")
    zipfile.ZipFile(file).extractall(unpacked)
    return unpacked


def tracked(folder: str, pattern: str) -> set[Path]:
    return {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern)}


def test_every_config_and_module_is_in_the_wheel(wheel: Path) -> None:
    for folder, packed, pattern in (("conf", "mftrun/conf", "*.yaml"), ("mftrun", "mftrun", "*.py")):
        there = {path.relative_to(wheel / packed) for path in (wheel / packed).rglob(pattern)}
        assert tracked(folder, pattern) <= there
    assert (wheel / "mftrun" / "py.typed").exists()
    assert (wheel / "mftrun" / "launchers" / "README.md").exists()


def test_the_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "mftrun", "--cfg", "job", "seed=7"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seed: 7" in done.stdout
    assert list(tmp_path.iterdir()) == []


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "mftrun").rglob("__init__.py")}
    listed = set(setup()["options"]["packages"].split())
    assert listed == found | {"mftrun.conf", "mftrun.launchers"}


def names(requirements: str) -> set[str]:
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    return {re.split(r"[<>=!\[; ]", line)[0].lower().replace("_", "-") for line in lines if line}


def test_every_requirement_is_pinned_exactly() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    options = setup()["options"], setup()["options.extras_require"]
    wanted = names(options[0]["install_requires"]) | names(options[1]["dev"])
    assert wanted <= names(text)


def test_the_base_install_needs_no_extra() -> None:
    base = names(setup()["options"]["install_requires"])
    for extra in ("deepspeed", "qlora", "flash-attn", "liger", "slurm", "sweep"):
        assert not base & names(setup()["options.extras_require"][extra])
