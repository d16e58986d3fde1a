"""Runs a program, and says the word that stands on its standard input once the program has come to its end.

What a program cannot do: end the process, raise or catch what it likes, replace what is built in or print
anything; nothing but the end of its text leads to the word. While it runs the word stands on the stack of
values of one expression alone: in no variable, no container that `gc` lists, no frame's locals, no open
file, and `/proc/self/mem` is closed. A child of it has no word to say.

What it can do: go through its own memory with ctypes, try its answers in children and hear which was right,
or make objects that equal everything. A program that sets out to deceive its tests is their equal, as they
run in one process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from types import ModuleType

_NOT_DUMPABLE = 4, 0  # prctl: /proc/self/mem belongs to root


def main(program: str, packages: str) -> None:
    """Runs the program at a path.

    Args:
        program: Where it is.
        packages: Folder of packages that it may import.
    """
    ctypes.CDLL(None).prctl(*_NOT_DUMPABLE)
    sys.path.append(packages)
    _import_late("numpy", packages)
    with open(program, "rb") as file:  # noqa: PTH123
        code = compile(file.read(), program, "exec", dont_inherit=True)
    sys.argv = [program]
    sys.modules["__main__"] = module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    leave, show, pid = os._exit, sys.excepthook, os.getpid
    first = pid()  # a child says nothing
    failed = 0
    try:
        # See above: this stays one expression.
        os.write(1, _word() + (exec(code, module.__dict__) or (b"" if pid() == first else leave(1))))  # type: ignore[func-returns-value]
    except Exception as error:
        failed = 1
        ours = error.__traceback__
        show(type(error), error.with_traceback(ours and ours.tb_next), None)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        leave(failed)


def _word() -> bytes:
    said = os.read(0, 256)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return b"\n" + said + b"\n"


def _import_late(name: str, folder: str) -> None:
    """Makes ``import name`` cost nothing until something of it is used: nearly all import it in vain."""
    spec = PathFinder.find_spec(name, [folder])
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = _Late(name)
        module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin


class _Late(ModuleType):
    """A package that runs once it is asked for what it does not have: ``__path__``, or what is its own."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        assert spec is not None
        assert isinstance(spec.loader, SourceFileLoader)
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__dict__["__path__"] = spec.submodule_search_locations
        self.__package__ = self.__name__
        spec.loader.exec_module(self)
        return getattr(self, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
