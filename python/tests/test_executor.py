"""outlast.Executor: as concurrent.futures describes it, and through the loss of the client."""

import concurrent.futures as futures
import os
import signal
import subprocess
import sys
import threading
import time

import outlast
import pytest

from conftest import free_port, until


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


@pytest.fixture(scope="module")
def fleet(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    with outlast.Worker(shared.url, name="fleet", state_dir=folder, slots=4) as worker:
        until(lambda: worker.connected)
        yield worker


@pytest.fixture
def pool(shared, fleet):
    pool = outlast.Executor(shared.url, spec={"kill_grace": 0.1})
    yield pool
    pool.shutdown(cancel_futures=True)


def test_it_is_an_executor(pool):
    assert isinstance(pool, futures.Executor)
    future = pool.submit(divmod, 7, 2)
    assert isinstance(future, futures.Future)
    assert future.result(120) == (3, 1) and future.done() and not future.cancelled()
    many = [pool.submit(pow, 2, n) for n in range(50)]
    assert {f.result() for f in futures.as_completed(many, 20)} == {2**n for n in range(50)}
    done, open_ = futures.wait([pool.submit(abs, -n) for n in range(9)], 20)
    assert len(done) == 9 and not open_
    called = []
    future = pool.submit(len, "four")
    future.add_done_callback(called.append)
    assert future.result(120) == 4
    until(lambda: called == [future])


def test_map(pool):
    assert list(pool.map(pow, [2, 3, 4], [5, 6, 7], timeout=120)) == [32, 729, 16384]
    assert list(pool.map(divmod, range(10), [3] * 10, chunksize=4)) == [divmod(n, 3) for n in range(10)]
    taken = []
    results = pool.map(abs, (taken.append(n) or -n for n in range(100)), buffersize=5)
    assert len(taken) == 5 and list(results) == list(range(100))
    for bad in ({"chunksize": 0}, {"buffersize": 0}):
        with pytest.raises(ValueError):
            pool.map(abs, [1], **bad)


def test_map_with_a_timeout(pool, tmp_path):
    results = pool.map(wait_for, [str(tmp_path / "never")], timeout=0.3)
    with pytest.raises(TimeoutError):
        next(results)
    assert not pool._open  # what it had submitted was cancelled


def test_failures(pool):
    error = pool.submit(divmod, 1, 0).exception(120)
    assert isinstance(error, outlast.TaskFailed) and isinstance(error.__cause__, ZeroDivisionError)
    with pytest.raises(outlast.TaskFailed, match="ZeroDivisionError"):
        list(pool.map(divmod, [1, 2], [1, 0]))
    with pytest.raises(outlast.SerializationError):
        pool.submit(abs, threading.Lock())
    refused = pool.submit_task(abs, [1], spec={"requires": {"cores": ">=many"}}).exception(120)
    assert isinstance(refused, outlast.Refused) and refused.status == 400
    # It takes no others with it.
    good, bad = pool.submit(abs, -1), pool.submit_task(abs, [1], spec={"timeout": -1})
    assert good.result(120) == 1 and bad.exception(120)


def test_cancel(pool, tmp_path):
    running = pool.submit(wait_for, str(tmp_path / "never"))
    assert pool.flush(20)
    until(lambda: pool.client.info(running.task_id)["started_at"])
    assert running.cancel() and running.cancelled() and running.cancel()
    with pytest.raises(futures.CancelledError):
        running.result()
    until(lambda: pool.client.info(running.task_id)["state"] == "cancelled")
    done = pool.submit(abs, 1)
    assert done.result(120) == 1 and not done.cancel()
    # From elsewhere.
    other = pool.submit(wait_for, str(tmp_path / "never"))
    until(lambda: other.task_id in [t["id"] for t in pool.client.tasks("pending", "assigned")])
    pool.client.cancel(other.task_id)
    until(other.cancelled)


def test_callbacks_may_use_the_executor(pool):
    got = []

    def more(future):
        got.append(pool.submit(abs, -future.result()))
        got.append(pool.submit(abs, -1))
        assert got[-1].cancel()

    pool.submit(abs, -3).add_done_callback(more)
    until(lambda: len(got) == 2)
    assert got[0].result(120) == 3 and got[1].cancelled()


def test_shutdown(shared, fleet, tmp_path):
    pool = outlast.Executor(shared.url)
    first = pool.submit(wait_for, str(tmp_path / "first"))
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)
    (tmp_path / "first").touch()
    assert first.result(120) == str(tmp_path / "first")
    until(lambda: not [t for t in threading.enumerate() if t.name == "outlast-executor"])
    pool = outlast.Executor(shared.url, spec={"kill_grace": 0.1})
    many = [pool.submit(wait_for, str(tmp_path / "never")) for _ in range(6)]
    pool.shutdown(cancel_futures=True)
    assert all(f.cancelled() for f in many)


def test_a_session_finds_its_tasks_again(shared, fleet, tmp_path):
    def numbers(session):
        with outlast.Executor(shared.url, session=session) as pool:
            same = [pool.submit(os.getpid) for _ in range(3)]
            more = [pool.submit(time.time_ns), pool.submit_task(time.time_ns, key="mine")]
            return [(f.task_id, f.result(120)) for f in same + more]

    name = f"s-{time.time_ns()}"
    first, again, other = numbers(name), numbers(name), numbers(name + "x")
    assert first == again and len(set(first)) == 5  # three equal calls are three tasks
    assert first[4][0] == f"{name}:mine"
    assert {i for i, _ in first}.isdisjoint(i for i, _ in other) and first[3:] != other[3:]

    def here(n):  # travels by value, of which the bytes may differ
        return n + len(str(tmp_path)) - len(str(tmp_path))

    ids = []
    for extra in ({"a": 1}, {"b": object}):
        here.__dict__.update(extra)
        with outlast.Executor(shared.url, session=name) as pool:
            future = pool.submit(here, 5)
            ids.append(future.task_id)
            assert future.result(120) == 5
    assert ids[0] == ids[1]
    # A key that belongs to another function is not mistaken for this one's.
    with outlast.Executor(shared.url, session=name) as pool:
        wrong = pool.submit_task(abs, [1], key="mine").exception(120)
        assert isinstance(wrong, outlast.Refused) and wrong.status == 409


CLIENT = """
import sys, time, os
import outlast

def slow(folder, n):
    with open(os.path.join(folder, f"ran-{n}"), "a") as f:
        f.write("x")
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.01)
    return n * n

url, folder = sys.argv[1:]
with outlast.Executor(url, session="lost-client") as pool:
    futures = [pool.submit(slow, folder, n) for n in range(6)]
    pool.flush(30)
    print("submitted", flush=True)
    print(sum(f.result() for f in futures), flush=True)
"""


def test_futures_survive_the_loss_of_the_client(shared, fleet, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, script, shared.url, tmp_path]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "submitted\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    (tmp_path / "go").touch()
    out = subprocess.check_output(command, text=True, timeout=60)
    assert out.split() == ["submitted", "55"]
    assert sorted(p.read_text() for p in tmp_path.glob("ran-*")) == ["x"] * 6  # each ran once


def test_the_end_of_the_program_leaves_the_tasks(shared, fleet, tmp_path):
    text = (
        "import outlast, sys, time, os\n"
        "pool = outlast.Executor(sys.argv[1], session='left-' + sys.argv[2])\n"
        "for n in range(700): pool.submit(abs, -n)\n"
    )
    began = time.monotonic()
    command = [sys.executable, "-c", text, shared.url, "a"]
    subprocess.run(command, check=True, timeout=30, cwd=tmp_path)
    assert time.monotonic() - began < 15
    with outlast.Executor(shared.url, session="left-a") as pool:
        before = pool.client.counts()["total"]
        assert [f.result(120) for f in [pool.submit(abs, -n) for n in range(700)]] == list(range(700))
        assert pool.client.counts()["total"] == before  # none of them is new


def test_one_thread_and_many_users(shared, fleet):
    with outlast.Executor(shared.url) as pool:
        sums = []

        def work(n):
            sums.append(sum(f.result(120) for f in [pool.submit(abs, -n) for _ in range(50)]))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        assert sum(t.name == "outlast-executor" for t in threading.enumerate()) == 1
        [t.join() for t in threads]
        assert sorted(sums) == [50 * n for n in range(8)]


def test_bad_input(shared):
    for bad in ("", "a b", "x" * 65, 5):
        with pytest.raises(outlast.ConfigurationError, match="not a session"):
            outlast.Executor(shared.url, session=bad)
    with pytest.raises(outlast.ConfigurationError):
        outlast.Executor("ftp://x")
    with pytest.raises(outlast.ConfigurationError, match="no id"):
        outlast.Executor(shared.url, spec={"id": "x"})
    with outlast.Executor(shared.url) as pool:
        with pytest.raises(TypeError):
            pool.submit(5)
        with pytest.raises(outlast.InvalidData, match="not a key"):
            pool.submit_task(abs, [1], key="a b")
    with outlast.Executor(outlast.Client(f"127.0.0.1:{free_port()}", patience=0.2)) as pool:
        assert isinstance(pool.submit(abs, 1).exception(120), outlast.Unreachable)


def test_a_forked_process_may_not_use_it(shared, fleet):
    pool = outlast.Executor(shared.url)
    assert pool.submit(abs, -1).result(120) == 1
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit(abs, -1)
        except outlast.StoppedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    pool.shutdown()


def test_a_cancel_beside_an_end_is_heard_of_once():
    from outlast._futures import Future

    # One after the other, as the two threads of shutdown(cancel_futures=True) and an end may run.
    future = Future(None, "task")
    called = []
    future.add_done_callback(called.append)
    assert future._cancelled() and future._cancelled()
    assert called == [future] and future.cancelled()
    # In all orders that the system finds.
    for _ in range(300):
        future, start = Future(None, "task"), threading.Barrier(3)
        errors = []

        def settle(act):
            start.wait()
            try:
                act()
            except Exception as e:
                errors.append(e)

        acts = [future._cancelled, future._cancelled]
        acts.append(lambda: future._end(lambda: future.set_result(1)))
        threads = [threading.Thread(target=settle, args=[act]) for act in acts]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not errors and future.done()
        futures.wait([future], 60)
