"""Programs to send signals to, whose output tells what happens."""

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path

PATIENCE = 60.0
HERE = Path(__file__).parent


class Program:
    """A program in a session of its own; its output ends with its last process.

    Args:
        command: Its command line.
        environment: Changed variables; None removes one.
    """

    def __init__(self, *command, **environment):
        paths = os.pathsep.join([str(HERE.parent), str(HERE)])
        variables = {**os.environ, "PYTHONPATH": paths, **environment}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={name: value for name, value in variables.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Whoever started the tests in the background may have made them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.output = ""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def expect(self, *lines):
        while not all(line in self.output for line in lines):
            assert self._read(), f"{lines} missing in:\n{self.output}"

    def send(self, signum):
        os.kill(self.process.pid, signum)

    def send_to_all(self, signum):
        os.killpg(self.process.pid, signum)

    def end(self):
        """Return the exit code once every process of the program is gone."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing happens after:\n{self.output}"
        data = os.read(self.process.stdout.fileno(), 65536).decode()
        self.output += data
        return data
