"""The end of programs: however they end, nothing hangs, crashes or stays behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import outlast
import pytest

from conftest import threads, until

WORKER = """
import os, signal, sys, threading, time
import outlast

worker = outlast.Worker(sys.argv[1], name=sys.argv[2], state_dir=sys.argv[3], slots=2,
                        isolation=sys.argv[4])

@worker.task
def long():
    for _ in range(3000):
        time.sleep(0.01)

client = outlast.Client(sys.argv[1])

def begun():
    task = client.submit_call("long")
    while not task.info()["started_at"]:
        time.sleep(0.01)
    return task
"""


def children(pid):
    """Processes of this one that live, whichever of its threads started them."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += (thread / "children").read_text().split()
        except OSError:
            pass
    return found


def lives(pid):
    """Whether there is such a process, and it is not only waiting for somebody to take its code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Program:
    def __init__(self, coordinator, folder, isolation):
        self.coordinator, self.folder, self.isolation, self.count = coordinator, folder, isolation, 0

    def start(self, ending):
        self.count += 1
        script = self.folder / f"program{self.count}.py"
        script.write_text(WORKER + ending)
        state = self.folder / f"state{self.count}"
        name = f"end-{time.monotonic_ns()}"
        return subprocess.Popen(
            [sys.executable, script, self.coordinator.url, name, state, self.isolation],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, ending, code, *says, seconds=20):
        process = self.start(ending)
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it hangs: {process.communicate()[0]}") from None
        assert process.returncode == code, out
        for text in says:
            assert text in out, out
        for bad in ("panicked", "Fatal Python error", "terminate called", "Segmentation"):
            assert bad not in out, out
        return out


@pytest.fixture(params=["process", "thread"])
def program(shared, tmp_path, request):
    yield Program(shared, tmp_path, request.param)
    client = shared.client()
    for task in list(client.tasks("pending", "assigned")):
        client.cancel(task["id"])


def test_main_ends_without_stop(program):
    program.run("worker.start()\n", 0)
    program.run("worker.start()\nbegun()\nprint('ends')\n", 0, "ends")


def test_main_ends_in_the_middle_of_the_start(program):
    program.run("threading.Thread(target=worker.start, daemon=True).start()\n", 0)


def test_an_exception_in_main(program):
    program.run("worker.start()\nbegun()\nraise ValueError('mine')\n", 1, "ValueError: mine")


def test_sys_exit_in_main_and_in_a_thread(program):
    program.run("worker.start()\nbegun()\nsys.exit(7)\n", 7)
    program.run(
        "worker.start()\nbegun()\n"
        "t = threading.Thread(target=sys.exit, args=(7,)); t.start(); t.join()\nprint('goes on')\n",
        0, "goes on",
    )  # fmt: skip


def test_threads_that_wait_when_main_ends(program):
    program.run(
        "worker.start()\ntask = begun()\n"
        "for wait in (task.result, task.wait, lambda: list(client.as_completed([task]))):\n"
        "    threading.Thread(target=wait, daemon=True).start()\n"
        "time.sleep(0.3)\nprint('ends')\n",
        0, "ends",
    )  # fmt: skip


def test_main_ends_with_an_event_loop_in_a_thread(program):
    program.run(
        "import asyncio\nworker.start()\ntask = begun()\n"
        "other = outlast.AsyncClient(sys.argv[1])\n"
        "threading.Thread(target=lambda: asyncio.run(other.result(task.id)), daemon=True).start()\n"
        "time.sleep(0.3)\nprint('ends')\n",
        0, "ends",
    )  # fmt: skip


@pytest.mark.parametrize("call", ["client.result(task)", "client.wait(task)",
                                  "list(client.as_completed([task]))",
                                  "asyncio.run(outlast.AsyncClient(sys.argv[1]).result(task.id))"])  # fmt: skip
def test_ctrl_c_while_waiting(program, call):
    process = program.start(
        "import asyncio\nworker.start()\ntask = begun()\nprint('waits', flush=True)\n"
        f"try:\n    {call}\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
        "worker.stop()\nprint('stopped')\n"
    )
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n" and time.monotonic() - began < 30
    assert process.communicate(timeout=120)[0] == "stopped\n" and process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run(program, number):
    process = program.start(
        "if __name__ == '__main__':\n"  # tasks' processes import this, up to run()
        "    tell = lambda: (begun(), print('runs', flush=True))\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        "worker.run()\nprint('over')\n"
    )
    assert process.stdout.readline() == "runs\n"
    held = children(process.pid)
    assert bool(held) == (program.isolation == "process")
    process.send_signal(number)
    assert process.communicate(timeout=120)[0].endswith("over\n") and process.returncode == 0
    until(lambda: not any(map(lives, held)), what="the children's end")


def test_a_forked_child_ends_and_the_worker_works_on(program):
    program.run(
        "worker.start()\nbegun()\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        worker.drain(1)\n"
        "        assert not worker.connected\n"
        "        assert client.counts()\n"
        "        worker._runner.agent\n"
        "    except outlast.StoppedError as e:\n"
        "        print('child:', e, flush=True)\n"
        "        sys.exit(3)\n"
        "    sys.exit(4)\n"
        "began = time.monotonic()\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "assert code == 3, code\n"
        "assert time.monotonic() - began < 30\n"
        "assert worker.connected and client.submit_call('long').info()\n"
        "worker.stop()\nprint('parent stopped')\n",
        0, "belongs to the process that this one was forked from", "parent stopped",
    )  # fmt: skip


def test_a_pool_of_forked_processes_shares_a_client(shared):
    import multiprocessing

    client = shared.client()
    client.counts()  # its connection is the parent's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(3) as pool:
            found = pool.map(_counts, [(shared.url, n) for n in range(12)])
    assert all(found)


_CLIENTS = {}


def _counts(given):
    url, _ = given
    client = _CLIENTS.setdefault(url, outlast.Client(url))
    return bool(client.counts())


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_nothing_outlives_stop(shared, tmp_path, isolation):
    before = threading.active_count()
    worker = outlast.Worker(
        shared.url, name=f"rest-{isolation}", state_dir=tmp_path / "w", slots=4, isolation=isolation
    )

    @worker.task
    def nap():
        time.sleep(0.1)

    held = set(children(os.getpid()))
    for _ in range(3):
        worker.start()
        until(lambda: worker.connected)
        shared.client().submit_call("nap")
        worker.stop()
        assert threads() == [] and threading.active_count() == before
        assert set(children(os.getpid())) <= held
        worker.stop()  # nothing to do


def test_the_process_is_killed_and_so_are_its_tasks(program):
    process = program.start("worker.start()\nbegun()\nprint('runs', flush=True)\ntime.sleep(60)\n")
    assert process.stdout.readline() == "runs\n"
    held = children(process.pid)
    process.kill()
    process.wait()
    until(lambda: not any(map(lives, held)), what="the children's end")
