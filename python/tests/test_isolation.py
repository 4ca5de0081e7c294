"""Tasks in processes of their own: how they end, and that they end."""

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import outlast
import pytest
from outlast import TaskContext

from conftest import alive, fails, free_port, threads, until


def kill_me(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


def segfault():
    ctypes.string_at(0)


def exit_now(code):
    os._exit(code)


def leave(code):
    sys.exit(code)


def pid():
    return os.getpid()


def sleep_on(path):
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(path).touch()


def hold_the_gil(seconds):
    ctypes.PyDLL(None).sleep(seconds)


def ignore_everything(path=None):
    while True:
        try:
            if path:
                Path(path).touch()
            time.sleep(30)
        except BaseException:
            pass


def leaves_a_child(path):
    import subprocess

    Path(path).write_text(str(subprocess.Popen(["sleep", "100"]).pid))
    os.kill(os.getpid(), signal.SIGABRT)


def use_memory(task: TaskContext):
    import numpy

    found = task.restore()
    if found is not None:
        found["w"][0] = 7.0  # it can be written to
        return {"sum": float(found["w"].sum()), "n": found["n"]}
    task.checkpoint({"w": numpy.ones(3_000_000), "n": (1,)}, why="large")
    os._exit(1)


def everything(task: TaskContext, folder):
    folder = Path(folder)
    assert task.restore() is None and outlast.current_task() is task
    first = task.checkpoint({"n": 1})
    assert first != task.checkpoint({"n": 2}) and task.restore() == {"n": 2}
    (folder / "model").write_bytes(b"m" * 1000)
    assert task.checkpoint_path(folder / "model", step=3)
    assert task.restore() == b"m" * 1000
    task.artifact("model.bin", folder / "model")
    task.progress(0.5, loss=0.25, gone=None)
    task.update_state(more=[1])
    with pytest.raises(outlast.InvalidData):
        task.checkpoint_path(folder / "missing")
    with pytest.raises(outlast.SerializationError):
        task.checkpoint(threading.Lock())
    made = []
    threads = [threading.Thread(target=lambda: made.append(task.checkpoint({}))) for _ in range(5)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return {"made": len(set(made)), "cancelled": task.cancelled, "attempt": task.attempt}


def says_when_paused(task: TaskContext, path):
    Path(path + "-began").touch()
    while not task.paused:
        time.sleep(0.01)
    Path(path + "-paused").touch()
    task.check()
    return "went on"


def whose_child(task: TaskContext):
    seen = subprocess.check_output(["sh", "-c", "echo $TRACEPARENT $TRACESTATE"], text=True)
    return [task.traceparent, task.tracestate, os.environ.get("TRACEPARENT"), seen.strip()]


def forks(task: TaskContext):
    child = os.fork()
    if child == 0:
        try:
            task.progress(0.5)
        except outlast.OutlastError:
            os._exit(7)
        os._exit(0)
    task.progress(1.0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forks_and_comes_back(how):
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(0)
        if how == "raise":
            raise ValueError("in the child")
        return "from the child"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def fails_strangely(how):
    if how == "mute":
        raise Mute
    raise ValueError("caf\udce9")


def uses_multiprocessing():
    import multiprocessing

    found = []
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found.append(pool.map(abs, [-1, -2]))
    return found


def keeps_its_context(task: TaskContext):
    kept = globals().setdefault("kept", task)
    if kept is task:
        return "kept"
    with pytest.raises(outlast.TaskNotRunning):
        kept.progress(0.5)
    return "over"


@pytest.fixture(scope="module")
def worker(shared, tmp_path_factory):
    config = {"heartbeat_interval": 0.2, "heartbeat_timeout": 1.0}
    folder = tmp_path_factory.mktemp("isolated")
    worker = outlast.Worker(shared.url, name="isolated", state_dir=folder, slots=2, config=config)
    for function in (
        kill_me, segfault, exit_now, leave, pid, sleep_on, hold_the_gil, ignore_everything,
        leaves_a_child, use_memory, everything, says_when_paused, keeps_its_context,
        forks, uses_multiprocessing, whose_child, forks_and_comes_back, fails_strangely,
    ):  # fmt: skip
        worker.task(function)
    with worker:
        until(lambda: worker.connected)
        yield worker


def processes(worker):
    return worker._runner.agent.processes()


def test_stop_leaves_no_process_and_no_thread(shared, tmp_path):
    """The first here: no other worker runs yet."""
    assert not threads()
    worker = outlast.Worker(shared.url, name="stops", state_dir=tmp_path / "w", slots=3, capabilities=["stops"])
    worker.task(ignore_everything)
    worker.start()
    client, spec = shared.client(), {"requires": {"stops": "*"}}
    tasks = [client.submit_call("ignore_everything", spec=spec) for _ in range(3)]
    until(lambda: len(processes(worker)) == 3)
    time.sleep(0.3)
    pids = processes(worker)
    began = time.monotonic()
    worker.stop(timeout=3)
    assert time.monotonic() - began < 30
    assert not any(map(alive, pids)) and not threads()
    for task in tasks:
        task.cancel()


def test_processes_are_used_again(shared, worker):
    pids = set(shared.client().map("pid", []))
    pids = {shared.client().submit_call("pid").result(120) for _ in range(10)}
    assert os.getpid() not in pids and len(pids) <= 2
    assert pids <= set(processes(worker)) and len(processes(worker)) <= 2


@pytest.mark.parametrize(
    "function, args, says, number",
    [
        ("segfault", (), "the task's process was killed by signal 11 (SIGSEGV)", 11),
        ("kill_me", (6,), "the task's process was killed by signal 6 (SIGABRT)", 6),
        ("kill_me", (9,), "killed by signal 9 (SIGKILL)", 9),
        ("kill_me", (15,), "killed by signal 15 (SIGTERM)", 15),
        ("exit_now", (3,), "the task's process exited with code 3 in the middle of the task", None),
        ("leave", (3,), "the task called sys.exit(3)", None),
    ],
)
def test_how_a_process_dies_is_said(shared, worker, function, args, says, number):
    client = shared.client()
    task = client.submit_call(function, *args)
    error = fails(task, says)
    assert error.result["signal"] == number and error.result["attempt"] == 1
    if number:
        assert [e["cause"] for e in task.history() if e["event"] == "failed"] == ["signal"]
    assert client.submit_call("pid").result(120) in processes(worker)


def test_what_a_dead_task_had_started_ends_with_it(shared, worker, tmp_path):
    fails(shared.client().submit_call("leaves_a_child", str(tmp_path / "pid")), "SIGABRT")
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("how, code", [("exit", 0), ("raise", 1), ("return", 0)])
def test_a_forked_child_that_comes_back_answers_for_nothing(shared, worker, how, code):
    client = shared.client()
    # More than there are processes: none is left that is not usable.
    tasks = [client.submit_call("forks_and_comes_back", how) for _ in range(4)]
    assert [task.result(120) for task in tasks] == [code] * 4


@pytest.mark.parametrize("how, says", [("mute", "Mute: <its text"), ("half", "ValueError: caf")])
def test_exceptions_that_cannot_be_told_well(shared, worker, how, says):
    error = fails(shared.client().submit_call("fails_strangely", how), says)
    assert "fails_strangely" in error.remote_traceback


def test_an_idle_process_that_died_is_replaced(shared, worker):
    client = shared.client()
    client.submit_call("pid").result(120)
    for pid in processes(worker):
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
    assert client.submit_call("pid").result(120) in processes(worker)


def test_a_task_that_does_not_look_is_interrupted(shared, worker, tmp_path):
    ended = tmp_path / "ended"
    task = shared.client().submit_call("sleep_on", str(ended), spec={"kill_grace": 0.2})
    until(lambda: task.info()["started_at"])
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)
    until(ended.exists)  # `finally` ran


def test_a_task_that_cannot_be_interrupted_is_killed(shared, worker, tmp_path):
    path = tmp_path / "runs"
    task = shared.client().submit_call("ignore_everything", str(path), spec={"kill_grace": 0.2})
    # Its process may be starting for a while after the task has started.
    until(path.exists)
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)
    until(lambda: "its process was killed" in str(task.history()))


def test_a_held_gil_silences_nobody(shared, worker):
    client = shared.client()
    before = worker._runner.stats()["connection_attempts"]
    task = client.submit_call("hold_the_gil", 60, spec={"kill_grace": 0.2})
    until(lambda: task.info()["started_at"])
    for _ in range(15):  # longer than the heartbeat's timeout
        time.sleep(0.1)
        assert worker.connected
        assert client.submit_call("pid").result(120)
    assert worker._runner.stats()["connection_attempts"] == before
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)


@pytest.mark.parametrize("function", ["sleep_on", "ignore_everything"])
def test_a_time_limit(shared, worker, tmp_path, function):
    args = [str(tmp_path / "x")] if function == "sleep_on" else []
    spec = {"timeout": 0.3, "kill_grace": 0.3}
    error = fails(shared.client().submit_call(function, *args, spec=spec), "longer than its time limit of 0.3 s")
    assert error.result["outcome"] == "timed_out"


def test_the_context_works(shared, worker, tmp_path):
    client = shared.client()
    task = client.submit_call("everything", str(tmp_path))
    assert task.result(120) == {"made": 5, "cancelled": False, "attempt": 1}
    state = until(lambda: (s := task.state())["version"] >= 2 and s)
    assert state["state"] == {"loss": 0.25, "more": [1]} and state["progress"] == 0.5
    assert len(client.checkpoints(task)) == 8


def test_large_data_comes_back(shared, worker):
    pytest.importorskip("numpy")
    task = shared.client().submit_call("use_memory", spec={"retry_failures": True, "max_retries": 1})
    assert task.result(120) == {"sum": 3_000_006.0, "n": (1,)} or task.result(1)["n"] == [1]


def test_pausing(shared, worker, tmp_path):
    path = str(tmp_path / "it")
    client = shared.client()
    task = client.submit_call("says_when_paused", path)
    until(Path(path + "-began").exists)
    client.pause(task)
    until(Path(path + "-paused").exists)
    with pytest.raises(TimeoutError):
        task.result(0.3)
    client.resume(task)
    assert task.result(120) == "went on"


def test_a_task_knows_its_trace(shared, worker):
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    client, traced = shared.client(), {"traceparent": theirs, "tracestate": "a=1"}
    for _ in range(3):  # the processes are used again
        task = client.submit_call("whose_child", spec=traced)
        assert task.result(120) == [theirs, "a=1", theirs, f"{theirs} a=1"]
        assert client.submit_call("whose_child").result(120) == [None, None, None, ""]


def test_a_context_ends_with_its_attempt(shared, worker):
    said = [shared.client().submit_call("keeps_its_context").result(120) for _ in range(5)]
    assert set(said) <= {"kept", "over"} and said[0] == "kept" and said[-1] == "over"


def test_a_task_may_have_processes_of_its_own(shared, worker):
    assert shared.client().submit_call("forks").result(120) == 7
    assert shared.client().submit_call("uses_multiprocessing").result(120) == [[1, 2]] * 2


def test_bad_input_of_a_worker(shared, tmp_path):
    for bad in (
        {"config": {"heartbeat_intervall": 1}}, {"name": "a b"}, {"capabilities": 5}, {"url": " "},
    ):  # fmt: skip
        with pytest.raises(outlast.ConfigurationError):
            outlast.Worker(**bad)
    with pytest.raises(outlast.ConfigurationError):
        outlast.Worker("ftp://x", state_dir=tmp_path / "a").start()
    worker = outlast.Worker(shared.url, name="bad", state_dir=tmp_path / "a")
    worker.task(pid)
    for wrong in (lambda: worker.task(pid), lambda: worker.task(name="pid")(abs)):
        with pytest.raises(outlast.ConfigurationError, match="a task function 'pid' is already registered"):
            wrong()
    with pytest.raises(outlast.ConfigurationError, match="no name of its own"):
        worker.task(functools.partial(pid))


def test_a_worker_without_a_coordinator(tmp_path):
    config = {"initial_reconnect_delay": 0.05, "max_reconnect_delay": 0.1, "max_reconnect_attempts": 2}
    url = f"127.0.0.1:{free_port()}"
    worker = outlast.Worker(url, name="alone", state_dir=tmp_path / "w", config=config)
    with pytest.raises(outlast.OutlastError, match="no link to .*: "):
        worker.run()
    assert not worker.connected


def test_start_and_stop_from_several_threads(shared, tmp_path):
    worker = outlast.Worker(
        shared.url, name="busy", state_dir=tmp_path / "w", slots=2, capabilities=["busy"]
    )
    worker.task(pid)
    spec = {"requires": {"busy": "*"}}
    for _ in range(2):
        all_ = [threading.Thread(target=act) for act in [worker.start] * 4]
        [t.start() for t in all_]
        [t.join() for t in all_]
        assert shared.client().submit_call("pid", spec=spec).result(120) in processes(worker)
        pids = processes(worker)
        all_ = [threading.Thread(target=act) for act in [worker.stop] * 4]
        [t.start() for t in all_]
        [t.join() for t in all_]
        assert not any(map(alive, pids))
        with pytest.raises(outlast.StoppedError):
            processes(worker)


def test_isolation_is_a_choice(shared, tmp_path):
    with pytest.raises(outlast.ConfigurationError, match="isolation must be"):
        outlast.Worker(isolation="fork")
    worker = outlast.Worker(
        shared.url, state_dir=tmp_path / "w", name="threads", isolation="thread", capabilities=["threads"]
    )
    worker.task(pid)
    spec = {"requires": {"threads": "*"}}
    with worker:
        assert shared.client().submit_call("pid", spec=spec).result(120) == os.getpid()
        assert processes(worker) == []


def loops(path=None):
    try:
        while True:
            time.sleep(0.01)
    finally:
        if path:
            Path(path).touch()


def swallows(path):
    while not Path(path).exists():
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    return "late"


def naps(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)
    return seconds


@pytest.fixture
def threaded(shared, tmp_path):
    name = f"threaded-{time.monotonic_ns()}"
    worker = outlast.Worker(
        shared.url, state_dir=tmp_path / "w", name=name, isolation="thread", capabilities=[name]
    )
    for function in (loops, swallows, naps):
        worker.task(function)

    def submit(function, *args, **spec):
        spec["requires"] = {name: "*"}
        return shared.client().submit_call(function, *args, spec=spec)

    with worker:
        until(lambda: worker.connected)
        yield worker, submit


def test_a_time_limit_in_a_thread(threaded, tmp_path):
    worker, submit = threaded
    task = submit("loops", str(tmp_path / "cleaned"), timeout=0.3, kill_grace=60)
    error = fails(task, "longer than its time limit of 0.3 s")
    assert error.result["outcome"] == "timed_out" and (tmp_path / "cleaned").exists()
    assert submit("naps", 0.1, timeout=30).result(120) == 0.1  # its only slot is free


def test_a_cancelled_task_in_a_thread_is_interrupted_after_its_grace(threaded):
    worker, submit = threaded
    task = submit("loops", kill_grace=0.4)
    until(worker._runner.running)
    began = time.monotonic()
    task.cancel()
    until(lambda: not worker._runner.running())
    assert 0.35 < time.monotonic() - began < 5
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)


def test_a_thread_that_goes_on_past_its_limit_is_told_of(threaded, tmp_path, caplog):
    worker, submit = threaded
    task = submit("swallows", str(tmp_path / "end"), timeout=0.2, kill_grace=0.2)
    said = f"task {task.id} ran longer than its time limit, and attempt 1 continues"
    try:
        until(lambda: said in caplog.text)
        with pytest.raises(TimeoutError):
            task.wait(0.5)
        assert caplog.text.count("continues although") == 1
    finally:
        (tmp_path / "end").touch()
    assert fails(task, "time limit of 0.2 s").result["outcome"] == "timed_out"


def test_an_interruption_hits_no_other_task(threaded):
    """The limit comes about when the function ends; its thread's number is used again."""
    worker, submit = threaded
    tasks = [submit("naps", 0.02, timeout=0.02, kill_grace=5) for _ in range(60)]
    between = [submit("naps", 0.005) for _ in range(60)]
    assert [t.result(120) for t in between] == [0.005] * 60
    ends = [t.wait(30) for t in tasks]
    assert {e["outcome"] for e in ends} <= {"succeeded", "timed_out"}
    assert not worker._runner.running() and worker.connected


def test_a_module_is_not_imported_where_it_is_not_needed(worker):
    code = "import outlast, sys; outlast.Worker; outlast.Client; outlast.Executor; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    heavy = {"numpy", "asyncio", "cloudpickle", "multiprocessing", "pandas", "torch"}
    assert heavy.isdisjoint(subprocess.check_output(run, text=True).split())
