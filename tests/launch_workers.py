"""Workers for the tests of `mftrun.launch`, and a small program to send signals to."""

import functools
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

from mftrun import launch
from mftrun.errors import ConfigError, DataError, MftrunError


def say(*words):
    # One write: lines of several processes must not mix.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def echo(context, payload):
    return context.rank, context.world_size, payload


def pids(context, payload):
    """Every rank leaves its process number; rank 0 returns its own."""
    Path(payload, f"{context.rank}.new").write_text(str(os.getpid()))
    Path(payload, f"{context.rank}.new").rename(Path(payload, str(context.rank)))
    return os.getpid()


def environment(context, payload):
    return {name: os.environ.get(name) for name in payload}


def sum_of_ranks(context, payload):
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    value = torch.tensor([float(context.rank + 1)])
    distributed.all_reduce(value)
    distributed.destroy_process_group()
    return value.item(), torch.get_num_threads()


class OddError(MftrunError):
    """An error that cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, one, two):
        super().__init__(one + two)


class RepeatingError(MftrunError):
    """An error that comes back from pickling as another one."""

    def __init__(self, name):
        super().__init__(f"no {name}")


ERRORS = {
    "repeating": RepeatingError("b"),
    "config": ConfigError("train.epochs", "must be positive"),
    "data": DataError("tasks/a.jsonl", 7, "not JSON"),
    "value": ValueError("no such thing"),
    "odd": OddError("a", "b"),
    "exit": SystemExit(3),
}


def raise_in_rank_1(context, name):
    if context.rank == 1:
        raise ERRORS[name]
    wait_for(lambda: False)


def unpicklable_result(context, payload):
    return threading.Lock()


def unpicklable_error(context, payload):
    error = ValueError("holds a lock")
    error.lock = threading.Lock()
    raise error


def blame_the_other(context, fifo):
    """Rank 0 loses its connection first; rank 1 tells why when rank 0 is gone."""
    if context.rank == 0:
        Path(fifo).write_text(str(os.getpid()))
        raise ConnectionResetError("closed by peer")
    other = Path("/proc", Path(fifo).read_text())
    while other.exists():
        os.sched_yield()
    raise DataError("tasks/a.jsonl", 7, "not JSON")


def lose_the_connection(context, payload):
    raise RuntimeError("gloo: Connection closed by peer [127.0.0.1]:1")


def die(context, how):
    directory, how = how
    pids(context, directory)
    if context.rank == 1:
        while not Path(directory, "0").exists():
            os.sched_yield()
        os._exit(3) if how == "exit" else os.kill(os.getpid(), how)
    wait_for(lambda: False)


def log_lines(context, payload):
    logger = logging.getLogger("mftrun.test")
    logger.info("info of %d", context.rank)
    logger.warning("warning of %d", context.rank)
    logging.getLogger("httpx").info("chatter")
    if context.rank == 0:
        warnings.warn("a python warning", stacklevel=1)


def speak(context, payload):
    sys.stdout.write(f"out of {payload}\n")
    os.write(2, f"err of {payload}\n".encode())


@contextmanager
def woken():
    """A pipe that becomes readable at every signal, so that none is missed between a look and a wait."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)


def wait_for(condition):
    with woken() as reader:
        while not condition():
            os.read(reader, 1)


def loop(context, payload):
    """Stand for the training loop: saves and stops when asked."""
    stop = context.stop
    with stop.graceful():
        say("looping", context.rank)
        while not stop.stop_requested:
            wait_for(lambda: stop.stop_requested or stop.save_requested)
            if stop.save_requested:
                stop.clear_save()
                say("saved", context.rank)
    # The same request often comes twice, and must not end what is left to do.
    signal.raise_signal(signal.SIGTERM)
    say("leaving", context.rank)
    return "kept"


def save_requests(context, payload):
    """Ask for a checkpoint outside of the loop, then inside."""
    signal.raise_signal(signal.SIGUSR2)
    outside = context.stop.save_requested
    with context.stop.graceful():
        signal.raise_signal(signal.SIGUSR2)
    inside = context.stop.save_requested
    context.stop.clear_save()
    return outside, inside, context.stop.save_requested


def offline(context, payload):
    """Say what a library read from the environment when it was imported."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def stubborn(context, payload):
    with context.stop.graceful():
        say("looping", context.rank)
        wait_for(lambda: False)


def loading(context, payload):
    """Stand for the time before the loop."""
    say("looping", context.rank)
    wait_for(lambda: False)


def half_loading(context, payload):
    """Rank 1 is in its loop and waits for rank 0, which is not."""
    return loading(context, payload) if context.rank == 0 else stubborn(context, payload)


def fails_while_saving(context, payload):
    if context.rank == 0:
        loop(context, payload)
        raise OSError("No space left on device")
    return loop(context, payload)


def main(name, num_processes):
    logging.basicConfig(stream=sys.stdout)
    say("starting")
    try:
        result = launch.run_ranks(globals()[name], None, num_processes=num_processes, log_file=None)
        say("result", result)
    except launch.Stopped as stopped:
        say("stopped", stopped.signum, stopped.result)
        say(*launch.run_ranks(echo, "again", num_processes=1, log_file=None))
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    from mftrun.launch import crew, server

    crew.ENDING = 0.5
    server.warm_up = functools.partial(server.warm_up, sys.argv[3:])
    if "LAUNCH_TEST_NOHUP" in os.environ:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main(sys.argv[1], int(sys.argv[2]))
