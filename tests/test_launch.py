import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import launch_workers as workers
import pytest
from launch_program import HERE, Program

from mftrun.errors import ConfigError, DataError
from mftrun.launch import RankFailed, Stopped, StopRequest, run_ranks
from mftrun.launch.errors import describe_exit
from mftrun.launch.network import free_port
from mftrun.launch.server import rank_context
from mftrun.launch.signals import ECHO, ParentSignals, StopCount

DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run(worker, payload=None, num_processes=2, log_file=None):
    return run_ranks(worker, payload, num_processes=num_processes, log_file=log_file)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_gone(directory, num_processes=2):
    numbers = [int((directory / str(rank)).read_text()) for rank in range(num_processes)]
    assert not [number for number in numbers if alive(number)]


# Results


def test_rank_0_returns_its_result():
    assert run(workers.echo, "hello", num_processes=1) == (0, 1, "hello")


def test_runs_of_different_sizes_follow_each_other():
    assert [run(workers.echo, n, num_processes=n)[1:] for n in (2, 1, 3)] == [(2, 2), (1, 1), (3, 3)]


def test_a_result_larger_than_a_pipe_arrives():
    large = bytes(5_000_000)
    assert run(workers.echo, large)[2] == large


def test_no_process_is_left_after_a_result(tmp_path):
    run(workers.pids, tmp_path)
    assert_gone(tmp_path)


def test_ranks_are_not_this_process(tmp_path):
    assert run(workers.pids, tmp_path, num_processes=1) != os.getpid()


def test_it_runs_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(workers.echo, "there")))
    thread.start()
    thread.join()
    assert results == [(0, 2, "there")]


def test_signal_handlers_are_restored():
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in watched]
    run(workers.echo, num_processes=1)
    assert [signal.getsignal(number) for number in watched] == before
    assert not set(watched) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    wakeup = signal.set_wakeup_fd(-1)
    assert wakeup == -1


# Surroundings


def test_a_lone_rank_sees_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert set(run(workers.environment, DISTRIBUTED, num_processes=1).values()) == {None}


def test_ranks_see_their_process_group():
    seen = run(workers.environment, DISTRIBUTED, num_processes=2)
    assert int(seen.pop("MASTER_PORT")) > 1023
    assert list(seen.values()) == ["0", "0", "2", "2", "127.0.0.1"]


@pytest.mark.parametrize("name", ["PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"])
def test_what_libraries_set_as_they_are_imported_starts_no_rank_anew(monkeypatch, name):
    assert rank_context().get_start_method() == "forkserver"
    monkeypatch.setenv(name, "1")
    assert rank_context().get_start_method() == "forkserver"


def test_changes_of_the_environment_are_honored(monkeypatch):
    run(workers.echo, num_processes=1)
    monkeypatch.setenv("LAUNCH_TEST", "set")
    assert run(workers.environment, ["LAUNCH_TEST"], num_processes=1) == {"LAUNCH_TEST": "set"}
    monkeypatch.delenv("LAUNCH_TEST")
    assert run(workers.environment, ["LAUNCH_TEST"], num_processes=1) == {"LAUNCH_TEST": None}


@pytest.mark.parametrize("value", ["0", "1"])
def test_variables_that_libraries_read_early_are_honored(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert run(workers.offline, num_processes=1) is (value == "1")


def test_one_rank_keeps_its_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(workers.environment, ["OMP_NUM_THREADS"], num_processes=1) == {"OMP_NUM_THREADS": None}


def test_chosen_threads_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run(workers.environment, ["OMP_NUM_THREADS"], num_processes=2) == {"OMP_NUM_THREADS": "7"}


def test_ranks_write_where_the_parent_writes_now(capfd):
    run(workers.echo, num_processes=1)
    capfd.readouterr()
    run(workers.speak, "the rank", num_processes=1)
    out, err = capfd.readouterr()
    assert "out of the rank\n" in out
    assert "err of the rank\n" in err


def test_all_ranks_log_to_one_file(tmp_path):
    log_file = tmp_path / "mftrun.log"
    log_file.write_text("line of the parent\n")
    run(workers.log_lines, log_file=log_file)
    text = log_file.read_text()
    assert text.startswith("line of the parent\n")
    assert " INFO    mftrun.test: info of 0\n" in text
    assert " WARNING mftrun.test: warning of 0\n" in text
    assert " WARNING mftrun.test: [rank 1] warning of 1\n" in text
    assert "a python warning" in text
    assert "info of 1" not in text
    assert "chatter" not in text


def test_ports_are_free_and_not_handed_out_automatically():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(10_000 <= free_port() < lowest for _ in range(20))


# Failures


def test_a_configuration_error_comes_back_as_itself():
    with pytest.raises(ConfigError, match=r"^train\.epochs: must be positive$") as caught:
        run(workers.raise_in_rank_1, "config")
    assert caught.value.key == "train.epochs"


def test_a_data_error_comes_back_as_itself():
    with pytest.raises(DataError, match=r"^tasks/a\.jsonl:7: not JSON$") as caught:
        run(workers.raise_in_rank_1, "data")
    assert caught.value.line == 7


def test_any_other_error_comes_back_with_its_rank_and_traceback():
    with pytest.raises(RankFailed) as caught:
        run(workers.raise_in_rank_1, "value")
    assert str(caught.value).startswith("rank 1 failed: Traceback")
    assert "launch_workers.py" in str(caught.value)
    assert "rank_main" not in str(caught.value)
    assert str(caught.value).endswith("ValueError: no such thing")


def test_a_failure_survives_pickling():
    copy = pickle.loads(pickle.dumps(RankFailed(1, "reason")))
    assert (str(copy), copy.rank, copy.reason) == ("rank 1 failed: reason", 1, "reason")
    copy = pickle.loads(pickle.dumps(Stopped(signal.SIGINT, {"step": 3})))
    assert (str(copy), copy.exit_code, copy.result) == ("stopped by Ctrl-C", 130, {"step": 3})


def test_a_user_error_that_does_not_unpickle_comes_back_as_text():
    with pytest.raises(RankFailed, match="OddError: ab"):
        run(workers.raise_in_rank_1, "odd")


def test_a_user_error_that_pickling_changes_comes_back_as_text():
    with pytest.raises(RankFailed, match=r"RepeatingError: no b$"):
        run(workers.raise_in_rank_1, "repeating")


def test_an_error_that_does_not_pickle_comes_back_as_text():
    with pytest.raises(RankFailed, match="ValueError: holds a lock"):
        run(workers.unpicklable_error)


def test_a_result_that_does_not_pickle_is_an_error():
    with pytest.raises(RankFailed, match="cannot pickle"):
        run(workers.unpicklable_result, num_processes=1)


def test_leaving_by_sys_exit_is_an_error():
    with pytest.raises(RankFailed, match=r"(?s)rank 1 failed: .*SystemExit: 3"):
        run(workers.raise_in_rank_1, "exit")


def test_work_that_cannot_be_imported_in_the_rank_is_an_error(monkeypatch):
    monkeypatch.setattr(workers.echo, "__module__", "launch_missing")
    monkeypatch.setitem(sys.modules, "launch_missing", workers)
    with pytest.raises(RankFailed, match="No module named 'launch_missing'"):
        run(workers.echo, num_processes=1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("exit", "exit code 3 before its work was done"),
        (signal.SIGKILL, r"ended by SIGKILL \(.*memory"),
        (signal.SIGSEGV, r"ended by SIGSEGV"),
        (signal.SIGTERM, r"exit code 143 before"),
    ],
)
def test_a_rank_that_dies_without_a_word_ends_the_run(tmp_path, how, message):
    with pytest.raises(RankFailed, match=f"rank 1 failed: .*{message}"):
        run(workers.die, (tmp_path, how))
    assert_gone(tmp_path)


def test_the_cause_is_told_rather_than_its_consequence(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="not JSON"):
        run(workers.blame_the_other, tmp_path / "fifo")


def test_a_consequence_is_told_when_there_is_nothing_else():
    with pytest.raises(RankFailed, match="Connection closed by peer"):
        run(workers.lose_the_connection)


def test_an_unknown_exit_signal_is_described():
    assert describe_exit(-signal.SIGRTMIN - 1).endswith(f"signal {signal.SIGRTMIN + 1}")


# Signals: a program of its own stands for the parent, and its output tells what happens


def program(worker, num_processes=2, preload="mftrun.launch", **environment):
    return Program(sys.executable, HERE / "launch_workers.py", worker, num_processes, preload, **environment)


def both_ranks_loop(running):
    running.expect("looping 0", "looping 1")


def test_sigterm_lets_ranks_finish():
    with program("loop") as running:
        both_ranks_loop(running)
        running.send(signal.SIGTERM)
        assert running.end() == 143
        assert "stopping: saving a checkpoint" in running.output
        assert "leaving 0" in running.output
        assert "leaving 1" in running.output
        assert "stopped 15 kept\n0 1 again\n" in running.output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_process_group_lets_ranks_finish(signum):
    with program("loop") as running:
        both_ranks_loop(running)
        running.send_to_all(signum)
        assert running.end() == 128 + signum
        assert f"stopped {signum} kept\n0 1 again\n" in running.output
        assert "Traceback" not in running.output


def test_a_second_ctrl_c_ends_ranks_at_once():
    with program("stubborn") as running:
        both_ranks_loop(running)
        running.send_to_all(signal.SIGINT)
        running.expect("stopping:")
        running.send_to_all(signal.SIGINT)
        assert running.end() == 130
        assert "stopped 2 None\n0 1 again\n" in running.output
        assert "Traceback" not in running.output


def test_sigterm_ends_ranks_that_load():
    with program("loading") as running:
        both_ranks_loop(running)
        running.send(signal.SIGTERM)
        assert running.end() == 143
        assert "stopped 15 None\n0 1 again\n" in running.output
        assert "Traceback" not in running.output


def test_a_rank_that_waits_for_one_that_was_loading_is_ended():
    with program("half_loading") as running:
        both_ranks_loop(running)
        running.send(signal.SIGTERM)
        assert running.end() == 143
        assert "stopped 15 None\n0 1 again\n" in running.output


def test_an_error_while_saving_is_told_rather_than_the_stop():
    with program("fails_while_saving") as running:
        both_ranks_loop(running)
        running.send(signal.SIGTERM)
        assert running.end() == 1
        assert "rank 0 failed" in running.output
        assert "No space left on device" in running.output


@pytest.mark.parametrize("send", [Program.send, Program.send_to_all])
def test_sigusr2_saves_and_goes_on(send):
    with program("loop") as running:
        both_ranks_loop(running)
        send(running, signal.SIGUSR2)
        running.expect("saved 0", "saved 1")
        running.send(signal.SIGTERM)
        assert running.end() == 143
        assert "stopped 15 kept\n0 1 again\n" in running.output


def test_sigusr2_does_not_disturb_ranks_that_load():
    with program("loading") as running:
        both_ranks_loop(running)
        running.send_to_all(signal.SIGUSR2)
        running.send(signal.SIGTERM)
        assert running.end() == 143


def test_ranks_save_and_end_when_the_parent_is_killed():
    with program("loop") as running:
        both_ranks_loop(running)
        running.send(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        assert "leaving 0" in running.output
        assert "leaving 1" in running.output
        assert "Traceback" not in running.output


def test_loading_ranks_end_when_the_parent_is_killed():
    with program("loading") as running:
        both_ranks_loop(running)
        running.send(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        assert "Traceback" not in running.output


def test_ctrl_c_during_the_imports_of_the_fork_server(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    gate = os.open(fifo, os.O_RDWR)
    with program("loop", preload="launch_blocking", LAUNCH_TEST_FIFO=str(fifo)) as running:
        running.expect("importing")
        running.send_to_all(signal.SIGINT)
        running.expect("stopped 2 None")
        os.write(gate, b"!")
        assert running.end() == 130
        assert "Traceback" not in running.output
    os.close(gate)


def test_a_failing_import_of_the_fork_server_is_told():
    with program("loop", preload="launch_blocking") as running:
        assert running.end() == 1
        assert "ended while it imported libraries" in running.output


def test_an_ignored_signal_stays_ignored():
    with program("loop", LAUNCH_TEST_NOHUP="1") as running:
        both_ranks_loop(running)
        running.send_to_all(signal.SIGHUP)
        running.send_to_all(signal.SIGUSR2)
        running.expect("saved 0", "saved 1")
        running.send(signal.SIGTERM)
        assert running.end() == 143
        assert "stopped 15 kept" in running.output


def test_ranks_form_a_process_group_and_share_the_cores():
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    with program("sum_of_ranks", preload="torch", OMP_NUM_THREADS=None) as running:
        assert running.end() == 0
        assert f"result (3.0, {threads})" in running.output


def test_a_checkpoint_is_requested_in_the_loop_only():
    assert run(workers.save_requests, num_processes=1) == (False, True, False)


def test_signals_that_nobody_took_reach_the_previous_handler():
    received = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        with ParentSignals() as signals:
            signal.raise_signal(signal.SIGUSR2)
            assert signals.take() == [signal.SIGUSR2]
            signal.raise_signal(signal.SIGUSR2)
            assert not received
        assert received == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_repeated_requests():
    now = [0.0]
    stops = StopCount(lambda: now[0])
    stops.add(signal.SIGTERM)
    stops.add(signal.SIGTERM)
    assert not stops.at_once, "`timeout` sends it twice"
    now[0] = ECHO + 1
    stops.add(signal.SIGTERM)
    assert stops.at_once
    assert stops.first == signal.SIGTERM


def test_every_ctrl_c_counts():
    stops = StopCount(lambda: 0.0)
    stops.add(signal.SIGTERM)
    stops.add(signal.SIGINT)
    assert stops.at_once


def test_a_ctrl_c_that_an_outer_launcher_repeats_counts_once():
    now = [0.0]
    stops = StopCount(lambda: now[0], interrupts_repeat=True)
    stops.add(signal.SIGINT)
    stops.add(signal.SIGINT)
    assert not stops.at_once
    now[0] = ECHO + 1
    stops.add(signal.SIGINT)
    assert stops.at_once


def test_a_request_that_python_discarded_strikes_at_the_loop():
    stop = StopRequest()
    stop.ended = True
    with pytest.raises(SystemExit), stop.graceful():
        pytest.fail("the loop began")
