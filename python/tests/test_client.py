"""outlast.Client and outlast.Worker."""

import signal
import subprocess
import sys
import threading
import time

import outlast
import pytest
from outlast import TaskContext

from conftest import free_port, until


@pytest.fixture
def worker(shared, tmp_path):
    worker = outlast.Worker(shared.url, name="typed", state_dir=tmp_path / "w", slots=4)

    @worker.task
    def add(a, b=10):
        return a + b

    @worker.task(name="count")
    def counting(task: TaskContext, to):
        at = task.restore() or 0
        while at < to:
            task.check()
            at += 1
            if at == to // 2 and task.attempt == 1:
                task.checkpoint(at, why="half")
            task.progress(at / to, at=at)
        return {"at": at, "attempt": task.attempt, "same": outlast.current_task() is task}

    @worker.task
    def fail(text):
        raise ValueError(text)

    @worker.task
    def forever(task: TaskContext):
        while True:
            task.check()
            time.sleep(0.01)

    with worker:
        until(lambda: worker.connected)
        yield worker


def test_calls(shared, worker):
    client = shared.client()
    assert client.submit_call("add", 1).result(120) == 11
    assert client.submit_call("add", 1, b=2).result(120) == 3
    assert client.submit_call("add", a=1, b=2).result(120) == 3
    assert client.submit_call("count", to=20).result(120) == {"at": 20, "attempt": 1, "same": True}
    assert client.submit_call("count", 20).result(120)["at"] == 20
    assert list(client.map("add", range(300), timeout=120)) == [n + 10 for n in range(300)]
    with pytest.raises(outlast.TaskFailed, match="no function 'sub'; it has: add, count, fail, forever"):
        client.submit_call("sub").result(120)
    with pytest.raises(outlast.TaskFailed, match="missing 1 required positional argument"):
        client.submit_call("add").result(120)
    with pytest.raises(outlast.TaskFailed) as failed:
        client.submit_call("fail", "why").result(120)
    assert failed.value.message == "ValueError: why" and "in fail" in failed.value.remote_traceback


def test_the_same_submission_finds_the_same_task(shared, worker):
    client = shared.client()
    spec = {"id": f"once-{time.time_ns()}"}
    first, second = client.submit_call("add", 1, spec=spec), client.submit_call("add", 1, spec=spec)
    assert (first.new, second.new, first.id) == (True, False, second.id)
    assert client.get(first.id).result(120) == 11
    with pytest.raises(outlast.Refused) as refused:
        client.submit_call("add", 2, spec=spec)
    assert refused.value.status == 409


def test_control(shared, worker):
    client = shared.client()
    task = client.submit_call("forever")
    until(lambda: task.info()["started_at"])
    with pytest.raises(TimeoutError):
        task.result(0)
    client.pause(task)
    client.resume(task)
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)
    kinds = [event["event"] for event in task.history()]
    assert kinds[:2] == ["submitted", "assigned"] and "started" in kinds
    assert any(t["id"] == task.id for t in client.tasks("cancelled"))
    assert client.explain(task) and client.counts()
    with pytest.raises(outlast.NotFound):
        client.history("nobody-has-this")


def test_bad_input(shared):
    client = shared.client()
    for bad in ({}, {"nonsense": 1}, {"id": 5, "command": ["x"]}, {"command": "echo"}):
        with pytest.raises((outlast.InvalidData, outlast.Refused)):
            client.submit(bad)
    with pytest.raises(TypeError):
        client.submit_call("add", threading.Lock())
    with pytest.raises(outlast.SerializationError, match="turned off"):
        shared.client(allow_pickle=False).submit_call("add", {1})
    with pytest.raises(outlast.ConfigurationError):
        outlast.Client("ftp://x")
    with pytest.raises(outlast.ConfigurationError):
        outlast.Worker(slots=0)
    began = time.monotonic()
    with pytest.raises(outlast.Unreachable, match="cannot be reached"):
        outlast.Client(f"127.0.0.1:{free_port()}", patience=0.5).counts()
    assert time.monotonic() - began < 30


def test_many_threads_share_a_client(shared, worker):
    client, sums = shared.client(), []
    work = lambda n: sums.append(client.submit_call("add", n, b=0).result(120))  # noqa: E731
    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(sums) == list(range(20))


def test_import_is_quick():
    timed = "import time; t = time.perf_counter(); import outlast; print(time.perf_counter() - t)"
    runs = [float(subprocess.check_output([sys.executable, "-c", timed])) for _ in range(3)]
    assert min(runs) < 0.1


@pytest.mark.parametrize(
    "given, full",
    [
        ("host", "http://host:7117"),
        ("https://host", "https://host:443"),
        ("wss://host:443/prefix/", "https://host:443/prefix"),
        ("ws://[::1]:80/api/v1/worker/w/ws", "http://[::1]:80"),
    ],
)
def test_an_address_means_the_same_to_client_and_worker(given, full):
    assert outlast.Client(given).url == full


@pytest.mark.parametrize("wrong", ["ftp://host", "http://", "host:port", "", "http://user@host"])
def test_what_is_no_address_is_refused(wrong):
    with pytest.raises(outlast.ConfigurationError, match="address"):
        outlast.Client(wrong or " ")  # an empty one means the default


def test_a_timeout_holds_whether_or_not_the_coordinator_is_there(coordinator):
    client = coordinator.client()
    task = client.submit({"command": ["true"]})  # there is no worker

    def late(seconds, wait):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"ended within {seconds:g} s"):
            wait(seconds)
        assert seconds - 0.01 <= time.monotonic() - began < seconds + 5

    def all_late():
        for seconds in (0, 0.05, 0.4):
            late(seconds, task.wait)
            late(seconds, lambda s: task.result(timeout=s))
            late(seconds, lambda s: client.wait_all([task], s))
            late(seconds, lambda s: list(client.map("add", [1], timeout=s)))

    all_late()
    coordinator.process.send_signal(signal.SIGSTOP)  # it takes connections and does not answer
    all_late()
    coordinator.kill()
    all_late()
    with pytest.raises(outlast.Unreachable):  # the client stops retrying before
        coordinator.client(patience=0.1).wait(task, 30)
