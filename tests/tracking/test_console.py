import io
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from mftrun.tracking import live, terminal
from mftrun.tracking.base import RunInfo
from mftrun.tracking.console import Console
from mftrun.tracking.progress import Progress
from mftrun.tracking.summary import TaskCounts, summarize

TASKS = ["write_function", "write_docstring"]


def run_info(folder, tasks=TASKS):
    return RunInfo(folder, "demo", None, None, {}, tasks, 40)


def summary(tasks=TASKS):
    records = [{"step": 1, f"train/loss/{tasks[0]}": 2.5}]
    rates = {"steps": 40, "seconds": 60.0, "tokens_per_second": 100.0}
    counts = {task: TaskCounts(10, 2, 300) for task in tasks}
    closing = {"model": "RUN/model", "next": "python -m mftrun loss=coba"}
    return summarize(records, counts, **rates, trainable_parameters=5, total_parameters=9, closing=closing)


def drawn(progress, width=80, height=30, max_tasks=12, now=10.0):
    console = RichConsole(
        file=io.StringIO(), width=width, height=height, color_system=None, legacy_windows=False
    )
    console.print(live.render(progress, "demo", now, max_tasks, width, height))
    return console.file.getvalue()


def test_without_a_terminal_every_record_is_a_line_and_results_are_a_table(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    console = Console()
    console.start(run_info(tmp_path))
    console.log(1, {"train/loss": 3.0, "train/loss/write_function": 3.0})
    console.log(1, {"valid/loss": 4.0})
    console.finish(summary(), 0)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" | ")[0] for message in messages[:2]] == ["step  1/40 train", "step  1/40 valid"]
    assert "write_docstring" in messages[2]
    assert messages[2].endswith("model: RUN/model\nnext:  python -m mftrun loss=coba")
    assert len(messages) == 3


def test_a_run_that_failed_shows_no_results(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    console = Console()
    console.start(run_info(tmp_path))
    console.finish(None, 1)
    assert caplog.records == []


def test_the_display_shows_every_task_and_the_mean():
    progress = Progress(TASKS, 40, 0, 0.0)
    progress.update(10, {"train/loss": 2.5, "lr": 1e-3, "tokens_per_second": 12345.0, "epoch": 0.5}, 10.0)
    progress.update(10, {"train/loss/write_function": 2.25, "weight/write_function": 0.75}, 10.0)
    progress.update(10, {"valid/loss/write_function": 2.0, "valid/loss/write_docstring": 4.0}, 10.0)
    text = drawn(progress)
    assert "10/40 10s elapsed, 30s left" in text
    assert "loss 2.5000  lr 1.00e-03  tok/s 12.3k  epoch 0.50" in text
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.splitlines()
        if line.startswith((" write", " mean"))
    }
    assert rows["write_function"] == ["2.2500", "2.0000", "2.0000", "0.75"]
    assert rows["write_docstring"] == ["-", "4.0000", "4.0000", "-"]
    assert rows["mean"] == ["2.2500", "3.0000"]


def test_before_the_first_step_the_display_waits():
    assert "waiting for the first step" in drawn(Progress(TASKS, 40, 0, 0.0))


@pytest.mark.parametrize(("width", "height"), [(60, 16), (80, 24), (120, 50)])
def test_many_tasks_fit_the_terminal(width, height):
    tasks = [f"a_long_name_of_a_task_in_a_folder_{number:02d}" for number in range(50)]
    progress = Progress(tasks, 4000, 0, 0.0)
    progress.update(3999, {f"valid/loss/{task}": 10.0 + number for number, task in enumerate(tasks)}, 5e5)
    progress.update(3999, {"lr": 1e-3, "tokens_per_second": 1e5, "grad_norm": 1e3, "memory_gib": 79.9}, 5e5)
    lines = drawn(progress, width, height, now=6e5).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    body = "\n".join(lines)
    assert "59.0000" in body
    assert "34.5000" in body  # the mean
    assert "better ones not shown" in body
    assert "10.0000" not in body


SCRIPT = """
import logging, sys, warnings
from pathlib import Path
from mftrun.tracking.base import RunInfo
from mftrun.tracking.console import Console
sys.path.insert(0, sys.argv[2])
from test_console import TASKS, run_info, summary
folder = Path(sys.argv[1])
handlers = [logging.StreamHandler(sys.stdout), logging.FileHandler(folder / "mftrun.log")]
logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(message)s")
console = Console()
console.start(run_info(folder))
console.log(1, {"train/loss": 3.0, "train/loss/write_function": 3.0})
logging.getLogger("other").info("a message from elsewhere")
print("a print from elsewhere")
console.log(2, {"train/loss": 2.0, "train/loss/write_function": 2.0})
console.finish(summary() if len(sys.argv) < 4 else None, 0)
logging.getLogger("mftrun.progress").info("after the end")
"""


def in_terminal(folder, *arguments):
    """Runs the script on a pseudo-terminal of its own; what the terminal got, and the log file."""
    primary, secondary = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(Path(__file__).parent), *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "40"}
    process = subprocess.Popen(command, stdout=secondary, stderr=secondary, env=environment)
    os.close(secondary)
    shown = b""
    while True:
        try:
            part = os.read(primary, 65536)
        except OSError:  # Linux's way to say that nobody writes any more
            break
        if not part:
            break
        shown += part
    os.close(primary)
    assert process.wait() == 0, shown.decode()
    return shown.decode(), (folder / "mftrun.log").read_text()


def test_on_a_terminal_the_display_lives_and_the_log_file_gets_the_lines(tmp_path):
    shown, log = in_terminal(tmp_path)
    assert "\x1b[" in shown
    assert "2/40" in shown
    assert "step  1/40 train" not in shown
    assert "a message from elsewhere" in shown
    assert "a print from elsewhere" in shown
    assert shown.count("mean / total") == 1
    assert shown.count("python -m mftrun loss=coba") == 1
    assert shown.rstrip().endswith("after the end")  # handlers are as they were
    lines = log.splitlines()
    assert lines[0].startswith("step  1/40 train | loss  3.0000")
    assert lines[1] == "a message from elsewhere"
    assert lines[2].startswith("step  2/40 train | loss  2.0000")
    assert log.count("mean / total") == 1
    assert "\x1b" not in log


def test_on_a_terminal_a_failed_run_leaves_its_last_display(tmp_path):
    shown, _ = in_terminal(tmp_path, "fail")
    last = shown.rsplit("\x1b[2K", 1)[-1]
    assert "2.0000" in last or "write_docstring" in last
    assert "mean / total" not in shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_handlers_follow_a_display_and_return(monkeypatch):
    screen, display = Terminal(), Terminal()
    handler = logging.StreamHandler(screen)
    monkeypatch.setattr(sys, "stderr", display)
    with terminal.handlers_follow_streams([handler]):
        handler.handle(logging.makeLogRecord({"msg": "inside"}))
    handler.handle(logging.makeLogRecord({"msg": "outside"}))
    assert display.getvalue() == "inside\n"
    assert screen.getvalue() == "outside\n"


def test_a_handler_that_follows_stderr_by_itself_is_left_alone(monkeypatch):
    screen, display = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    following = logging._StderrHandler()
    with monkeypatch.context() as inside:
        inside.setattr(sys, "stderr", display)
        undo = terminal.handlers_follow_streams([following])
        undo.__enter__()
        following.handle(logging.makeLogRecord({"msg": "inside"}))
    undo.__exit__(None, None, None)  # a display gives stderr back before handlers return to their streams
    following.handle(logging.makeLogRecord({"msg": "outside"}))
    assert (display.getvalue(), screen.getvalue()) == ("inside\n", "outside\n")


def test_only_handlers_of_terminals_hide_plain_lines():
    screen, pipe, log = Terminal(), io.StringIO(), logging.getLogger("mftrun.progress")
    handlers = [logging.StreamHandler(screen), logging.StreamHandler(pipe)]
    log.setLevel(logging.INFO)
    try:
        for handler in handlers:
            log.addHandler(handler)
        with terminal.plain_lines_hidden():
            log.info("hidden")
        log.info("shown")
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert screen.getvalue() == "shown\n"
    assert pipe.getvalue() == "hidden\nshown\n"
