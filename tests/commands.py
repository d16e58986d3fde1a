"""The command line in warm processes, forked from the server that has imported everything for ranks.

To a command it makes no difference: it has a process group, environment, folder, arguments and outputs of its
own. Tests of how the program starts, and of signals to it, use a fresh interpreter.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver

from mftrun.launch import server
from mftrun.launch.stop import HELD_SIGNALS


def mftrun(folder, *arguments):
    """Runs `python -m mftrun` with these arguments in a folder, to its end; `stdout` holds all it prints."""
    with tempfile.NamedTemporaryFile("r") as output:
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_command, args=(folder, arguments, dict(os.environ), output.name))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, output.read())


def _command(folder, arguments, environment, output):
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    _connect(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["mftrun", *arguments]
    _share_server()
    from mftrun.cli import main

    main()


def _connect(output):
    """Nothing to read, and one file for both outputs, each of which writes at its end."""
    places = ((os.devnull, os.O_RDONLY), *[(output, os.O_WRONLY | os.O_APPEND)] * 2)
    for number, (path, flags) in enumerate(places):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)


class _SharedServer:
    """The server that a command was forked from, in the place of one of its own."""

    @property
    def environment(self):
        """Whatever the command's is: nothing that these tests set is read as libraries are imported."""
        return server._environment()

    def start(self, preload):
        """It stands already."""


def _share_server():
    shared = _SharedServer()
    server._server = lambda: shared
    forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
