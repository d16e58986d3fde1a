"""Several agents that run one job: programs on this machine that meet at a port."""

import signal
import socket
import sys
from contextlib import ExitStack, contextmanager

import pytest
from launch_program import HERE, Program

from mftrun.launch.network import free_port


def agent(index, port, folder, *names, count=2, **environment):
    return Program(
        sys.executable,
        HERE / "launch_agents.py",
        index,
        count,
        "127.0.0.1",
        port,
        folder,
        *names,
        **environment,
    )


@contextmanager
def two_agents(folder, *names, theirs=None, **environment):
    """A leader and a follower, whose command lines are the names of workers."""
    port = free_port()
    with ExitStack() as stack:
        leader = stack.enter_context(agent(0, port, folder, *names, **environment))
        yield leader, stack.enter_context(agent(1, port, folder, *(theirs or names), **environment))


def all_loop(*agents):
    for index, one in enumerate(agents):
        one.expect(f"looping {2 * index}", f"looping {2 * index + 1}")


def test_two_agents_run_one_job_after_the_other(tmp_path):
    failing = ("config_error", "value_error", "killed", "killed_twice", "refused_at_once")
    with two_agents(tmp_path, "seats", "seats_seen", *failing, "seats") as (leader, follower):
        assert (leader.end(), follower.end()) == (0, 0)
    seen = [f"'{rank} {rank % 2} 4 2 127.0.0.1'" for rank in range(4)]
    assert f"result [{', '.join(seen)}]\n" in leader.output
    told = (
        "train.epochs: must be positive\n",
        "rank 3 failed: Traceback",
        "ValueError: no such thing\n",
        "rank 3 failed: its process was ended by SIGKILL",
    )
    for text in told:
        assert text in leader.output, "the leader tells the error of the follower's rank"
        assert text in follower.output, "and so does the follower"
    assert "failed ConfigError train.epochs" in leader.output, "as the same error"
    assert "starting all ranks again (restart 2 of 2)" in leader.output
    assert "result attempt 3\n" in leader.output
    assert "failed DataError tasks/a.jsonl:7: not JSON" in leader.output
    assert leader.output.count("starting all ranks again") == 2, "a user's error is not tried again"
    assert "command line" not in follower.output
    assert leader.output.rstrip().endswith("result None")


@pytest.mark.parametrize("sender", [0, 1])
def test_a_signal_to_any_agent_lets_all_ranks_finish(tmp_path, sender):
    with two_agents(tmp_path, "loop", theirs=["else"]) as agents:
        all_loop(*agents)
        agents[sender].send(signal.SIGUSR2)
        for index, one in enumerate(agents):
            one.expect(f"saved {2 * index}", f"saved {2 * index + 1}")
        agents[sender].send(signal.SIGTERM)
        assert agents[0].end() == 143
        agents[1].end()
        for index, one in enumerate(agents):
            assert f"leaving {2 * index + 1}" in one.output
        assert "stopped 15 kept" in agents[0].output
        assert "there loop, here else" in agents[1].output


@pytest.mark.parametrize("joined", [None, "1"], ids=["nodes", "processes"])
def test_a_ctrl_c_that_reaches_all_agents_is_one_request(tmp_path, joined):
    with two_agents(tmp_path, "loop", LAUNCH_TEST_JOINED=joined) as agents:
        agents[0].expect("looping 0", *([] if joined else ["looping 1"]))
        agents[1].expect(*(["looping 1"] if joined else ["looping 2", "looping 3"]))
        for one in agents:
            one.send(signal.SIGINT)
        assert [one.end() for one in agents] == [130, 130]
        assert "stopped 2 kept" in agents[0].output


def test_a_second_ctrl_c_at_the_follower_ends_ranks_at_once(tmp_path):
    with two_agents(tmp_path, "stubborn") as agents:
        all_loop(*agents)
        agents[1].send(signal.SIGINT)
        agents[0].expect("stopping:")
        agents[1].send(signal.SIGINT)
        assert [one.end() for one in agents] == [130, 130]


def test_an_agent_that_is_killed_ends_the_run(tmp_path):
    with two_agents(tmp_path, "stubborn") as (leader, follower):
        all_loop(leader, follower)
        follower.send(signal.SIGKILL)
        assert leader.end() == 1
        assert f"node 1 ({socket.gethostname()}) is gone" in leader.output


def test_ranks_end_when_the_leader_is_killed(tmp_path):
    with two_agents(tmp_path, "loop") as (leader, follower):
        all_loop(leader, follower)
        leader.send(signal.SIGKILL)
        assert follower.end() == 1
        assert "leaving 3" in follower.output, "its ranks may save"
        assert "ended the leader at 127.0.0.1" in follower.output


def test_a_follower_that_cannot_see_the_folder_says_so(tmp_path):
    port = free_port()
    with agent(0, port, tmp_path / "missing", "seats") as leader, agent(1, port, tmp_path, "seats") as other:
        assert (leader.end(), other.end()) == (1, 1)
        assert "failed ConfigError output_dir" in leader.output
        assert "all machines must see the run's folder" in other.output


def test_a_number_that_is_taken_is_refused(tmp_path):
    port = free_port()
    with ExitStack() as stack:

        def start(index, count, name):
            return stack.enter_context(agent(index, port, tmp_path, name, count=count))

        leader, first = start(0, 3, "seats"), start(1, 3, "other")
        first.expect("there seats, here other")
        second, stranger = start(1, 3, "seats"), start(1, 2, "seats")
        assert (second.end(), stranger.end()) == (1, 1)
        assert "there is a node 1 already" in second.output
        assert "belongs to 2 agents, and the leader to 3" in stranger.output
        last = start(2, 3, "seats")
        assert (leader.end(), first.end(), last.end()) == (0, 0, 0)
