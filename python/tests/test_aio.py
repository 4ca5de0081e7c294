"""outlast.AsyncClient, against a real coordinator."""

import asyncio
import gc
import os
import threading
import time

import outlast
import pytest
from outlast import AsyncClient, TaskContext

from conftest import free_port, until


@pytest.fixture
def worker(shared, tmp_path):
    worker = outlast.Worker(shared.url, name=f"aio-{time.monotonic_ns()}", state_dir=tmp_path / "w", slots=4)

    @worker.task
    def add(a, b=10):
        return a + b

    @worker.task
    def nap(seconds):
        time.sleep(seconds)
        return seconds

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


def run(shared, body, **options):
    async def main():
        async with AsyncClient(shared.url, **options) as client:
            return await asyncio.wait_for(body(client), 60)

    return asyncio.run(main())


def sockets():
    return sum("socket:" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
               if os.path.lexists(f"/proc/self/fd/{fd}"))  # fmt: skip


def test_calls(shared, worker):
    async def body(client):
        task = await client.submit_call("add", 1, b=2)
        assert await task == 3 and task.new
        assert await client.result(task, timeout=120) == 3
        assert (await task.wait())["state"] == "succeeded"
        assert await client.get(task.id).result() == 3
        assert [n async for n in client.map("add", range(1200))] == [n + 10 for n in range(1200)]
        failed = await client.submit_call("fail", "why")
        with pytest.raises(outlast.TaskFailed, match="ValueError: why") as error:
            await failed
        assert "in fail" in error.value.remote_traceback
        got = [v async for v in client.map("fail", "ab", return_exceptions=True)]
        assert [e.message for e in got] == ["ValueError: a", "ValueError: b"]
        with pytest.raises(outlast.TaskFailed):
            [v async for v in client.map("fail", "ab")]
        same = {"id": f"same-{time.time_ns()}"}
        first, second = await asyncio.gather(
            client.submit_call("add", 1, spec=same), client.submit_call("add", 1, spec=same)
        )
        assert first.id == second.id and {first.new, second.new} == {True, False}

    run(shared, body)


def test_as_completed_gives_them_as_they_end(shared, worker):
    async def body(client):
        tasks = [await client.submit_call("nap", s) for s in (4.0, 1.5, 0.0)]
        values = [await task async for task in client.as_completed(tasks, timeout=120)]
        assert values == [0.0, 1.5, 4.0]
        slow = await client.submit_call("forever")
        with pytest.raises(TimeoutError, match="not all tasks have ended within 0.2 s"):
            [t async for t in client.as_completed([slow], timeout=0.2)]
        await slow.cancel()
        with pytest.raises(outlast.NotFound):
            [t async for t in client.as_completed(["nobody-has-this"])]

    run(shared, body)


def test_control_and_looks(shared, worker):
    async def body(client):
        task = await client.submit_call("forever")
        while not (await task.info())["started_at"]:
            await asyncio.sleep(0.02)
        with pytest.raises(TimeoutError, match=f"task {task.id} has not ended within 0 s"):
            await task.result(0)
        await client.pause(task)
        await client.resume(task)
        await task.cancel()
        with pytest.raises(outlast.TaskCancelled):
            await task.result(120)
        assert [e["event"] for e in await task.history()][:2] == ["submitted", "assigned"]
        assert (await task.state())["id"] == task.id and await client.checkpoints(task) == []
        assert await client.explain(task) and await client.counts()
        assert worker.name in [w["name"] for w in await client.workers()]
        assert task.id in [t["id"] async for t in client.tasks("cancelled")]
        await client.retry(task)
        await client.cancel(task)
        with pytest.raises(outlast.NotFound):
            await client.history("nobody-has-this")
        with pytest.raises(outlast.NotFound):
            await client.wait("nobody-has-this")
        for bad in ({}, {"nonsense": 1}, {"id": 5, "command": ["x"]}):
            with pytest.raises((outlast.InvalidData, outlast.Refused)):
                await client.submit(bad)

    run(shared, body)


def test_many_waits_cost_no_threads_and_few_sockets(shared, worker):
    async def body(client):
        tasks = await asyncio.gather(*(client.submit_call("add", n) for n in range(500)))
        slow = await client.submit_call("forever")
        before = (threading.active_count(), len(os.listdir("/proc/self/task")), sockets())
        waits = [asyncio.ensure_future(client.wait(slow)) for _ in range(2000)]
        await asyncio.sleep(0.3)
        during = (threading.active_count(), len(os.listdir("/proc/self/task")), sockets())
        assert sorted(await asyncio.gather(*tasks)) == [n + 10 for n in range(500)]
        await slow.cancel()
        ends = await asyncio.gather(*waits)
        assert {end["state"] for end in ends} == {"cancelled"}
        assert during[0] == before[0] and during[1] <= before[1] + 1 and during[2] <= before[2] + 2

    run(shared, body)


def test_a_cancelled_wait_leaves_nothing_and_harms_nobody(shared, worker):
    async def body(client):
        task = await client.submit_call("forever")
        for _ in range(3):
            waiting = asyncio.ensure_future(task.result())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(task.result(), 0.1)
        other = asyncio.ensure_future(task.wait())
        one = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0.05)
        one.cancel()
        assert (await task.info())["state"] in ("assigned", "running")
        (line,) = client._lines.values()
        await asyncio.sleep(0)
        assert len(line._futures) == 1  # that of `other`
        await task.cancel()
        assert (await other)["state"] == "cancelled"
        assert not line._futures
        stream = client.map("nap", [0] * 50 + [0.2] * 50)
        assert await stream.__anext__() == 0
        await stream.aclose()
        await asyncio.sleep(0)
        assert not line._futures

    run(shared, body)


def test_several_loops_one_after_the_other_and_at_once(shared, worker):
    client = AsyncClient(shared.url)

    async def once(n):
        return await (await client.submit_call("add", n))

    assert [asyncio.run(once(n)) for n in range(5)] == [10, 11, 12, 13, 14]
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(asyncio.run(once(n)))) for n in range(8)
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(found) == [n + 10 for n in range(8)]

    async def close():
        await once(1)
        # Loops that are closed are forgotten.
        assert len(client._lines) == 1
        await client.aclose()

    asyncio.run(close())
    with pytest.raises(outlast.StoppedError, match="closed"):
        asyncio.run(once(1))


def test_closing_wakes_those_who_wait(shared):
    before = sockets()

    async def main():
        client = AsyncClient(shared.url)
        task = await client.submit({"call": {"function": "nobody-is-here"}})
        waiting = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0.1)
        await client.aclose()
        with pytest.raises(outlast.StoppedError, match="closed"):
            await waiting
        async with AsyncClient(shared.url) as other:
            await other.cancel(task.id)

    asyncio.run(main())
    until(lambda: gc.collect() >= 0 and sockets() <= before, what="the end of all sockets")


def test_clients_that_are_dropped_without_closing(shared):
    async def main():
        for _ in range(30):
            client = AsyncClient(shared.url)
            assert await asyncio.wait_for(client.counts(), 10)
            del client
        await asyncio.sleep(0)
        assert len(asyncio.get_running_loop()._selector.get_map()) <= 4

    asyncio.run(main())


def test_a_loop_that_ends_in_the_middle(shared, worker):
    client = AsyncClient(shared.url)

    async def main():
        task = await client.submit_call("forever")
        asyncio.ensure_future(task.wait())
        await asyncio.sleep(0.05)
        return task.id

    task = asyncio.run(main())  # asyncio.run cancels what waits
    shared.client().cancel(task)

    async def after():
        with pytest.raises(outlast.TaskCancelled):
            await client.result(task, 10)

    asyncio.run(after())


def test_unreachable(shared):
    async def body(client):
        nobody = AsyncClient(f"127.0.0.1:{free_port()}", patience=0.3)
        for ask in (nobody.counts(), nobody.wait("x"), nobody.submit({"command": ["true"]})):
            with pytest.raises(outlast.Unreachable, match="cannot be reached"):
                await ask
        await nobody.aclose()

    run(shared, body)


def test_through_a_restart_of_the_coordinator(coordinator):
    async def body(client):
        task = await client.submit({"call": {"function": "nobody-has-it"}})
        waiting = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0.1)
        coordinator.kill()
        coordinator.start()
        await client.cancel(task)
        assert (await asyncio.wait_for(waiting, 30))["state"] == "cancelled"

    run(coordinator, body)


def test_after_a_fork_the_child_has_a_line_of_its_own(shared, worker):
    import warnings

    client = AsyncClient(shared.url)

    async def add(n):
        return await (await client.submit_call("add", n))

    assert asyncio.run(add(1)) == 11
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if asyncio.run(add(2)) == 12 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(add(3)) == 13


def test_a_timeout_holds_whether_or_not_the_coordinator_is_there(coordinator):
    async def body(client):
        task = await client.submit({"command": ["true"]})  # there is no worker
        ended = await client.submit({"command": ["true"]})
        await ended.cancel()
        assert (await client.get(ended.id).wait(0))["state"] == "cancelled"

        async def late(seconds, wait):
            began = time.monotonic()
            with pytest.raises(TimeoutError, match=f"ended within {seconds:g} s"):
                await wait(seconds)
            assert seconds - 0.01 <= time.monotonic() - began < seconds + 5

        async def mapped(seconds):
            return [v async for v in client.map("add", [1], timeout=seconds)]

        for away in (False, True):
            if away:
                coordinator.kill()
            for seconds in (0, 0.05, 0.4):
                await late(seconds, task.wait)
                await late(seconds, mapped)

    run(coordinator, body)
